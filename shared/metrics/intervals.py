"""Exact AUROC, and bootstraps over records for one model or many on the same records."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CHUNK = 2**22  # number of draws at a time, if a statistic allows that: about 130 MB


class BootstrapAUROC(NamedTuple):
    """Macro AUROC of M models on R resamples of the same records.

    `samples` is `(R, M)`, `point` `(M,)` holds the values on the original records, and `dropped` `(C,)` counts the
    resamples in which a class was left out because it had no positive or no negative record.
    """

    samples: Floats
    point: Floats
    dropped: NDArray[np.int64]


class BootstrapMean(NamedTuple):
    """Mean of one value per record, for M models on R resamples of the same records.

    `samples` is `(R, M)`, and `point` `(M,)` holds the means over the original records.
    """

    samples: Floats
    point: Floats


def auroc(scores: ArrayLike, targets: ArrayLike) -> Floats:
    r"""Area under the ROC curve of every class, one versus rest; ties count one half.

    .. math:: \frac{1}{P N} \sum_{p: y_p = 1} \; \sum_{n: y_n = 0} [s_p > s_n] + \tfrac{1}{2} [s_p = s_n]

    Args:
        scores: `(N, C)` real scores; a higher one means more likely.
        targets: `(N, C)` in {0, 1}.

    Returns:
        `(C,)` areas in [0, 1]; NaN for a class without a positive or without a negative record.

    Raises:
        ValueError: There are other shapes, NaN scores, or targets outside {0, 1}.

    Example:
        >>> auroc([[0.1, 1.0], [0.4, 1.0], [0.35, 1.0], [0.8, 1.0]], [[0, 1], [0, 0], [1, 0], [1, 0]])
        array([0.75, 0.5 ])
    """
    models, positive = _check(np.asarray(scores)[None], targets)
    once = np.ones((len(positive), 1))
    return np.array([_weighted_auroc(models[..., c], positive[:, c], once)[0, 0] for c in range(models.shape[2])])


def bootstrap_auroc(scores: ArrayLike, targets: ArrayLike, resamples: int = 1000, seed: int = 0) -> BootstrapAUROC:
    """Macro AUROC of every model on the same bootstrap resamples of the records.

    A resample is N records drawn with replacement: those of resample r are
    `np.random.default_rng(seed).integers(N, size=(resamples, N))[r]`. It is represented by the number of times that
    each record was drawn, so every model and class is sorted once. Memory is about 40 bytes x N x resamples.

    A class with no positive or no negative record in a resample has no AUROC there and is left out of that resample's
    mean, in the same way for all models; `dropped` counts these. (A resample without any usable class is NaN.) If a
    class is dropped often, it is too rare for this interval.

    Args:
        scores: `(M, N, C)` scores of M models, or `(N, C)` scores of one (then M = 1).
        targets: `(N, C)` in {0, 1}.
        resamples: Number of resamples, R.
        seed: Seed of the draws. With the same seed and records, the results of separate calls are paired too.

    Raises:
        ValueError: There are other shapes, NaN scores, targets outside {0, 1}, or a class with no positive or no
            negative record at all.

    Example:
        Two groups of three models on the same (synthetic) records: the paired difference is a subtraction.

        >>> rng = np.random.default_rng(0)
        >>> targets = np.eye(4)[rng.integers(4, size=200)]
        >>> noise = rng.normal(size=(6, 200, 4))
        >>> strength = np.array([1.5, 1.5, 1.5, 1.0, 1.0, 1.0])[:, None, None]
        >>> samples, point, dropped = bootstrap_auroc(strength * targets + noise, targets)
        >>> difference = samples[:, :3].mean(1) - samples[:, 3:].mean(1)
        >>> low, high = interval(difference)
        >>> print(f"{point[:3].mean() - point[3:].mean():.3f} ({low:.3f} to {high:.3f})")
        0.077 (0.048 to 0.106)
    """
    models = np.asarray(scores)
    models, positive = _check(models[None] if models.ndim == 2 else models, targets)
    n_models, n, n_classes = models.shape
    one_sided = np.flatnonzero(positive.all(0) | ~positive.any(0))
    if len(one_sided):
        raise ValueError(
            f"Classes (columns) {one_sided.tolist()} have no positive or no negative record among {n}, so "
            "their AUROC is undefined. Remove these columns and name them beside the result."
        )
    counts = _draw_counts(np.random.default_rng(seed), n, resamples)
    weights = np.ascontiguousarray(counts.T, dtype=np.float64)  # (N, R): a record's row is contiguous

    total = np.zeros((n_models, resamples))
    usable = np.zeros(resamples)
    dropped = np.zeros(n_classes, dtype=np.int64)
    for c in range(n_classes):
        values = _weighted_auroc(models[..., c], positive[:, c], weights)
        defined = ~np.isnan(values[0])  # depends only on the targets
        total[:, defined] += values[:, defined]
        usable += defined
        dropped[c] = resamples - defined.sum()
    with np.errstate(invalid="ignore"):
        samples = (total / usable).T
    return BootstrapAUROC(samples, np.array([auroc(model, targets).mean() for model in models]), dropped)


def bootstrap_mean(values: ArrayLike, resamples: int = 1000, seed: int = 0) -> BootstrapMean:
    """Mean of one value per record (say, 1 for a correct top-1 prediction and 0 for a wrong one) on resamples.

    Every model has the same resamples, which are those of `bootstrap_auroc` for the same seed and number of records, so
    that models can be subtracted. The draws are counted for a few resamples at a time, so memory does not grow with
    R x N. Ten models, 88,207 records and 1,000 resamples take about a second.

    Args:
        values: `(M, N)` values of M models, or `(N,)` values of one (then M = 1); real or boolean.
        resamples: Number of resamples, R.
        seed: Seed of the draws.

    Raises:
        ValueError: There are other shapes, no records, or NaN.

    Example:
        >>> hits = np.array([[1, 1, 1, 0, 1, 1], [1, 1, 0, 0, 0, 1]])
        >>> samples, point = bootstrap_mean(hits)
        >>> low, high = interval(samples[:, 0] - samples[:, 1])
        >>> print(f"{point[0] - point[1]:.3f} ({low:.3f} to {high:.3f})")
        0.333 (0.000 to 0.667)
    """
    models = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if models.ndim != 2 or models.size == 0:
        raise ValueError(f"Expected values (N,) or (M, N) with at least one record, got {np.shape(values)}.")
    if np.isnan(models).any():
        model, record = np.argwhere(np.isnan(models))[0]
        raise ValueError(f"Values hold NaN, first at model {model}, record {record}: leave such records out for all.")
    n = models.shape[1]
    rng = np.random.default_rng(seed)
    at_once = max(1, CHUNK // n)
    sums = [_draw_counts(rng, n, min(at_once, resamples - first)) @ models.T for first in range(0, resamples, at_once)]
    return BootstrapMean(np.concatenate(sums) / n, models.mean(1))


def over_models(samples: Floats, rng: np.random.Generator) -> Floats:
    """Mean over M models drawn with replacement in each of R resamples, `(R, M) -> (R,)`.

    So an interval covers the noise of the records and that of the models. Resampling only a few models underestimates
    their spread, so it is widened by sqrt(M / (M - 1)); with three models it is still a rough guess.

    Args:
        samples: `(R, M)` values of each model on each resample of the records.
        rng: Generator of the draws; independent methods draw from the same generator in turn.
    """
    models, mean = samples.shape[1], samples.mean(1)
    drawn = np.take_along_axis(samples, rng.integers(models, size=samples.shape), axis=1).mean(1)
    widened: Floats = mean + (drawn - mean) * (models / max(models - 1, 1)) ** 0.5
    return widened


def interval(samples: ArrayLike, level: float = 0.95) -> tuple[Any, Any]:
    """Percentile interval over the first axis.

    Args:
        samples: `(R, ...)` bootstrap values.
        level: Share of the samples inside the interval, in (0, 1).

    Returns:
        Lower and upper end, each `(...)`, or floats for `(R,)`. If there are NaN samples, they are NaN.

    Raises:
        ValueError: `level` is not in (0, 1).

    Example:
        >>> low, high = interval(np.arange(101.0), level=0.5)
        >>> print(low, high)
        25.0 75.0
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(samples), [tail, 1 - tail], axis=0)
    return low, high


def _draw_counts(rng: np.random.Generator, n: int, resamples: int) -> NDArray[np.int64]:
    """How often each of n records is in the next resamples, `(resamples, n)`; `rng` advances as in one large draw."""
    draws = rng.integers(n, size=(resamples, n))
    draws += n * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n)


def _weighted_auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """AUROC `(M, R)` of scores `(M, N)` if record n counts `weights[n, r]` times; NaN unless both classes occur."""
    pos_weights, neg_weights = weights[positive], weights[~positive]
    wins = np.empty((len(scores), weights.shape[1]))
    weight_below = np.zeros((len(neg_weights) + 1, weights.shape[1]))
    for m, (pos, neg) in enumerate(zip(scores[:, positive], scores[:, ~positive], strict=True)):
        order = np.argsort(neg)
        np.cumsum(neg_weights[order], axis=0, out=weight_below[1:])
        # Negatives strictly below a positive, and below or equal to it: their mean counts a tie as one half.
        below = np.searchsorted(neg, pos, side="left", sorter=order)
        up_to = np.searchsorted(neg, pos, side="right", sorter=order)
        wins[m] = np.einsum("pr,pr->r", pos_weights, weight_below[below] + weight_below[up_to]) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(wins / (pos_weights.sum(0) * neg_weights.sum(0)))


def _check(scores: NDArray[Any], targets: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    targets = np.asarray(targets)
    if scores.ndim != 3 or targets.shape != scores.shape[1:] or targets.size == 0:
        raise ValueError(
            f"Expected scores (N, C) or (M, N, C) and targets (N, C), got {scores.shape} and {targets.shape}."
        )
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("Targets must be 0 or 1, one column a class.")
    if np.isnan(scores).any():
        model, row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"Scores hold NaN, first at model {model}, row {row}, column {column}: check the model.")
    return scores.astype(np.float64), targets.astype(bool)
