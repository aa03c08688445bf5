"""Metrics of scores, as pseudo-values, from which values, intervals and differences follow.

Shapes: M models, N samples, G groups of samples, C classes.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from shared.data.problems import DataError
from shared.metrics import BestF1, PseudoValues, auroc_values, mean_values
from shared.runs.scores import Outcome

Floats = NDArray[np.float64]

# A function of an outcome, the target `(N, C)` in {0, 1}, and the samples' groups `(N,)`.
Statistic = Callable[[Outcome, NDArray[np.float32], NDArray[np.int64]], PseudoValues]


def _scores(outcome: Outcome) -> Floats:
    if outcome.test is None:
        raise DataError("these scores hold no class scores; evaluate again")
    return outcome.test


def accuracy(outcome: Outcome, target: NDArray[np.float32], groups: NDArray[np.int64]) -> PseudoValues:
    """Share of the samples whose highest score is that of their class, for samples with one label each."""
    return mean_values(_scores(outcome).argmax(2) == target.argmax(1), groups)


def macro_auroc(outcome: Outcome, target: NDArray[np.float32], groups: NDArray[np.int64]) -> PseudoValues:
    """Area under the ROC curve, averaged over the classes that enough samples have, see `auroc_values`."""
    return auroc_values(_scores(outcome), target, groups)


def without_first_of_two(scores: Floats, target: NDArray[np.float32]) -> tuple[Floats, NDArray[np.float32]]:
    """Scores `(M, N, C)` and target of samples with one label each: of two classes, only the second's."""
    first = 1 if target.shape[1] == 2 else 0
    return scores[..., first:], target[:, first:]


def auroc_of_one_label(outcome: Outcome, target: NDArray[np.float32], groups: NDArray[np.int64]) -> PseudoValues:
    """As `macro_auroc`, for samples with one label each: with two classes only the second's area."""
    return auroc_values(*without_first_of_two(_scores(outcome), target), groups)


def best_f1(outcome: Outcome, target: NDArray[np.float32], groups: NDArray[np.int64]) -> PseudoValues:
    """F1 at the threshold that is best on these very samples (optimistic), averaged over the classes; no interval."""
    points = []
    for scores in _scores(outcome):
        best = BestF1(target.shape[1])
        best.update(torch.from_numpy(scores), torch.from_numpy(target).long())
        points.append(float(best.compute().f1.nanmean()))
    return PseudoValues(np.array(points)[:, None])  # as one group, whose noise nobody knows


def mean_value(metric: str, outcome: Outcome, target: NDArray[np.float32], groups: NDArray[np.int64]) -> PseudoValues:
    """Mean of a metric's plain values, one per sample; it is bounded if all values lie in [0, 1]."""
    if metric not in outcome.values:
        raise DataError(f"these scores hold no {metric}; evaluate again")
    values = outcome.values[metric]
    return mean_values(values, groups, bounded=bool(((values >= 0) & (values <= 1)).all()))


STATISTICS: dict[str, Statistic] = {"accuracy": accuracy, "auroc": macro_auroc, "best_f1": best_f1}


def statistic(metric: str, statistics: dict[str, Statistic] = STATISTICS) -> Statistic:
    """The statistic of a metric: a known one of that name, or the mean of the samples' plain values of that name."""
    return statistics.get(metric) or partial(mean_value, metric)
