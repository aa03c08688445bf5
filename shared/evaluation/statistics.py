"""Statistics of scores: the value of each model, and its values on bootstrap resamples of the test samples.

Shapes: R bootstrap resamples, M models, N samples, C classes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shared.data.problems import DataError
from shared.metrics import BestF1, bootstrap_auroc, bootstrap_mean
from shared.runs.scores import Outcome

Floats = NDArray[np.float64]


class Drawn(NamedTuple):
    """A statistic of every model.

    Attributes:
        samples: `(R, M)` values on the resamples; None if the statistic has no interval.
        point: `(M,)` values on the original samples.
    """

    samples: Floats | None
    point: Floats


# A function of an outcome, the target `(N, C)` in {0, 1}, and R.
Statistic = Callable[[Outcome, NDArray[np.float32], int], Drawn]


def _scores(outcome: Outcome) -> Floats:
    if outcome.test is None:
        raise DataError("these scores hold no class scores; evaluate again")
    return outcome.test


def accuracy(outcome: Outcome, target: NDArray[np.float32], resamples: int) -> Drawn:
    """Share of the samples whose highest score is that of their class, for samples with one label each."""
    means = bootstrap_mean(_scores(outcome).argmax(2) == target.argmax(1), resamples)
    return Drawn(means.samples, means.point)


def macro_auroc(outcome: Outcome, target: NDArray[np.float32], resamples: int) -> Drawn:
    """Area under the ROC curve, averaged over the classes."""
    areas = bootstrap_auroc(_scores(outcome), target, resamples=resamples)
    return Drawn(areas.samples, areas.point)


def auroc_of_one_label(outcome: Outcome, target: NDArray[np.float32], resamples: int) -> Drawn:
    """As `macro_auroc`, for samples with one label each: with two classes only the second's area."""
    if target.shape[1] == 2:
        outcome, target = Outcome(outcome.models, _scores(outcome)[..., 1:]), target[:, 1:]
    return macro_auroc(outcome, target, resamples)


def best_f1(outcome: Outcome, target: NDArray[np.float32], resamples: int) -> Drawn:
    """F1 at the threshold that is best on these very samples (optimistic), averaged over the classes; no interval."""
    points = []
    for scores in _scores(outcome):
        best = BestF1(target.shape[1])
        best.update(torch.from_numpy(scores), torch.from_numpy(target).long())
        points.append(float(best.compute().f1.nanmean()))
    return Drawn(None, np.array(points))


def mean_value(metric: str, outcome: Outcome, target: NDArray[np.float32], resamples: int) -> Drawn:
    """Mean of a metric's plain values, one per sample."""
    if metric not in outcome.values:
        raise DataError(f"these scores hold no {metric}; evaluate again")
    means = bootstrap_mean(outcome.values[metric], resamples)
    return Drawn(means.samples, means.point)


STATISTICS: dict[str, Statistic] = {"accuracy": accuracy, "auroc": macro_auroc, "best_f1": best_f1}


def statistic(metric: str, statistics: dict[str, Statistic] = STATISTICS) -> Statistic:
    """The statistic of a metric: a known one of that name, or the mean of the samples' plain values of that name."""
    return statistics.get(metric) or partial(mean_value, metric)
