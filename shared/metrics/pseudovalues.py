"""A metric of M models as means of pseudo-values over the same test samples: what intervals are computed from.

Shapes: M models, N samples, G groups of samples, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# A class with fewer groups of test samples on either side says nothing about how much its area would vary.
FEWEST = 2


@dataclass(frozen=True)
class PseudoValues:
    """The values of M models, and what each group of samples contributes to them.

    Attributes:
        values: `(M, G)`: their mean over the groups is the model's value; their spread is its noise.
        bounded: Whether the metric lies in [0, 1].
        left_out: Columns of classes that were left out, for all models, because too few samples have or lack them.
        freedom: Largest number of degrees of freedom of the groups' noise; of an area under the curve that is less than
            G - 1, because it depends most on the rarer side.
        count: Number of groups that a value of exactly 0 or 1 rests on.
    """

    values: Floats
    bounded: bool = True
    left_out: tuple[int, ...] = ()
    freedom: float = np.inf
    count: int = 0

    @property
    def point(self) -> Floats:
        """`(M,)` values of the models."""
        means: Floats = self.values.mean(1)
        return means


def mean_values(values: ArrayLike, groups: ArrayLike | None = None, bounded: bool = True) -> PseudoValues:
    """Pseudo-values of a mean of one value per sample: 1 for a correct prediction and 0 for a wrong one, say.

    Args:
        values: `(M, N)` values of M models, or `(N,)` values of one (then M = 1); real or boolean.
        groups: `(N,)` numbers of the groups that the samples belong to, such as patients; by default each is its own.
        bounded: Whether the values lie in [0, 1].

    Raises:
        ValueError: There are other shapes, no samples, or NaN.

    Example:
        >>> mean_values([[1, 1, 1, 0, 1, 1], [1, 1, 0, 0, 0, 1]]).point.round(3)
        array([0.833, 0.5  ])
    """
    models = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if models.ndim != 2 or models.size == 0:
        raise ValueError(f"Expected values (N,) or (M, N) with at least one sample, got {np.shape(values)}.")
    if np.isnan(models).any():
        model, sample = np.argwhere(np.isnan(models))[0]
        raise ValueError(f"Values hold NaN, first at model {model}, sample {sample}: leave such samples out for all.")
    groups = _codes(groups, models.shape[1])
    point = models.mean(1)
    pseudo = _by_group(point, (models - point[:, None]) / models.shape[1], groups)
    return PseudoValues(pseudo, bounded, count=pseudo.shape[1])


def auroc_values(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> PseudoValues:
    r"""Pseudo-values of the macro AUROC, from the structural components of DeLong et al. (1988).

    A positive's component is the share of negatives that score below it, and a negative's the share of positives above;
    their deviations from the area, divided by the number of positives or negatives, add up over the classes. Scaled by
    :math:`\sqrt{P / (P - 1)}`, and likewise for negatives, the sum of their squares is DeLong's variance.

    Args:
        scores: `(M, N, C)` scores of M models, or `(N, C)` scores of one (then M = 1).
        targets: `(N, C)` in {0, 1}.
        groups: `(N,)` numbers of the groups that the samples belong to, such as patients; by default each is its own.

    Returns:
        The pseudo-values over the classes that `usable_classes` names; `left_out` lists the others.

    Raises:
        ValueError: There are other shapes, NaN scores, targets outside {0, 1}, or no class is left.

    Example:
        >>> scores = [[0.1], [0.4], [0.35], [0.8]]
        >>> auroc_values(scores, [[0], [0], [1], [1]]).point
        array([0.75])
    """
    models = np.asarray(scores)
    models, positive = check_scores(models[None] if models.ndim == 2 else models, targets)
    n = len(positive)
    groups = _codes(groups, n)
    usable = usable_classes(positive, groups)
    if not usable.any():
        raise ValueError(f"no class has at least {FEWEST} positive and {FEWEST} negative groups among {n} samples")
    influence = np.zeros((len(models), n))
    areas = np.zeros(len(models))
    spread = squares = 0.0  # of the areas' variances from either side, summed over classes and models
    count = 0
    for c in np.flatnonzero(usable):
        is_positive = positive[:, c]
        sides = [(side, int(side.sum()), _groups_of(side, groups)) for side in (is_positive, ~is_positive)]
        count += min(groups_on_side for _, _, groups_on_side in sides)
        for m, score in enumerate(models[..., c]):
            components = _components(score, is_positive)
            area = components[is_positive].mean()
            areas[m] += area
            for side, size, groups_on_side in sides:
                influence[m, side] += (components[side] - area) / np.sqrt(size * (size - 1))
                variance = float(components[side].var(ddof=1)) / size
                spread += variance
                squares += variance**2 / (groups_on_side - 1)
    return PseudoValues(
        _by_group(areas / usable.sum(), influence / usable.sum(), groups),
        left_out=tuple(np.flatnonzero(~usable).tolist()),
        freedom=spread**2 / (squares * len(models)) if squares > 0 else np.inf,
        count=count,
    )


def usable_classes(targets: ArrayLike, groups: ArrayLike | None = None) -> NDArray[np.bool_]:
    """`(C,)`: the classes of targets `(N, C)` with positives and negatives in at least `FEWEST` groups each.

    Example:
        >>> usable_classes([[1, 1], [1, 0], [0, 0], [0, 0]])
        array([ True, False])
        >>> usable_classes([[1, 1], [1, 0], [0, 1], [0, 0]], groups=[7, 7, 8, 9])  # both positives are of one patient
        array([False,  True])
    """
    positive = np.asarray(targets, dtype=bool)
    return np.array([min(_groups_of(column, groups), _groups_of(~column, groups)) >= FEWEST for column in positive.T])


def _groups_of(chosen: NDArray[np.bool_], groups: ArrayLike | None) -> int:
    """Number of groups that chosen samples `(N,)` belong to."""
    return int(chosen.sum()) if groups is None else len(np.unique(np.asarray(groups)[chosen]))


def auroc(scores: ArrayLike, targets: ArrayLike) -> Floats:
    r"""Area under the ROC curve of every class, one versus rest; ties count one half.

    .. math:: \frac{1}{P N} \sum_{p: y_p = 1} \; \sum_{n: y_n = 0} [s_p > s_n] + \tfrac{1}{2} [s_p = s_n]

    Args:
        scores: `(N, C)` real scores; a higher one means more likely.
        targets: `(N, C)` in {0, 1}.

    Returns:
        `(C,)` areas in [0, 1]; NaN for a class without a positive or without a negative sample.

    Raises:
        ValueError: There are other shapes, NaN scores, or targets outside {0, 1}.

    Example:
        >>> auroc([[0.1, 1.0], [0.4, 1.0], [0.35, 1.0], [0.8, 1.0]], [[0, 1], [0, 0], [1, 0], [1, 0]])
        array([0.75, 0.5 ])
    """
    (model,), positive = check_scores(np.asarray(scores)[None], targets)
    areas = np.full(positive.shape[1], np.nan)
    for c in range(positive.shape[1]):
        if 0 < positive[:, c].sum() < len(positive):
            areas[c] = _components(model[:, c], positive[:, c])[positive[:, c]].mean()
    return areas


def _components(score: Floats, positive: NDArray[np.bool_]) -> Floats:
    """`(N,)`: of a positive the share of negatives below it, of a negative the share of positives above; ties 1/2."""
    pos, neg = np.sort(score[positive]), np.sort(score[~positive])
    found = np.empty(len(score))
    for side, other in ((positive, neg), (~positive, pos)):
        own = score[side]
        below = np.searchsorted(other, own, side="left") + np.searchsorted(other, own, side="right")
        found[side] = below / (2 * len(other))
    found[~positive] = 1 - found[~positive]
    return found


def _codes(groups: ArrayLike | None, samples: int) -> NDArray[np.int64] | None:
    """Numbers `0 .. G - 1` of the groups; None if each sample is its own."""
    if groups is None:
        return None
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(codes) != samples:
        raise ValueError(f"Expected a group for each of {samples} samples, got {len(codes)}.")
    return codes


def _by_group(point: Floats, influence: Floats, codes: NDArray[np.int64] | None) -> Floats:
    """Pseudo-values `(M, G)` of values `(M,)` from each sample's influence `(M, N)`, which sums to 0."""
    if codes is not None:
        influence = np.stack([np.bincount(codes, weights=row) for row in influence])
    pseudo: Floats = point[:, None] + influence.shape[1] * influence
    return pseudo


def check_scores(scores: NDArray[Any], targets: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores `(M, N, C)` and targets `(N, C)` as floats and booleans.

    Raises:
        ValueError: There are other shapes, NaN scores, or targets outside {0, 1}.
    """
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
