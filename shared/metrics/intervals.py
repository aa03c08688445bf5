"""Confidence intervals over test samples and models, of a value and of the difference of two methods.

The statistics of imaging trials call this the problem of several readers and several cases: models that differ in their
seed are the readers, and test samples, or groups of them such as patients, the cases. Both are random. A method's value
is the mean over its models; `benchmarks/interval_coverage.py` simulates how often the intervals hold the truth.

Shapes: M models, G groups of samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from shared.metrics.pseudovalues import Floats, PseudoValues

ROUNDING = 1e-12  # what counts as no variance, or as a value of exactly 0 or 1


class Interval(NamedTuple):
    """A value or a difference with its confidence interval, as fractions; NaN ends if there are fewer than two groups.

    Attributes:
        value: Mean over the models.
        low: Lower end.
        high: Upper end.
        p: Of a difference, the p-value of the hypothesis that there is none; NaN for a value.
    """

    value: float
    low: float
    high: float
    p: float = np.nan


def interval(values: PseudoValues, level: float = 0.95) -> Interval:
    r"""Confidence interval of a method's mean over models and samples.

    With pseudo-values :math:`Z_{mg}`, the variance of their mean has a part of the groups, and one of the models that
    is beyond what the groups explain (a two-way layout with random effects, as Dorfman, Berbaum and Metz 1992):

    .. math:: V = \frac{s^2_G}{G} + \max\Big(0,\; k_M \frac{s^2_M}{M} - \frac{MS_E}{M G}\Big)

    :math:`s^2_G` is the variance over the groups of the models' mean, :math:`s^2_M` that over the models, and
    :math:`MS_E` the mean square of the residual. Two or three models often agree by chance: half of the time the
    unbiased variance of two lies below 0.45 of the truth. :math:`k_M = (M - 1) / \mathrm{median}(\chi^2_{M-1})` makes
    it median-unbiased (1.19 for five models). V has the degrees of freedom of Satterthwaite, those of the groups' part
    corrected for its kurtosis and at most `PseudoValues.freedom`, those of the models' part counted where it exceeds 0.

    The interval of a metric in [0, 1] is symmetric on the logit scale, so its ends stay within. With one model, the
    interval covers the noise of the samples only. If one group holds most of the samples, no interval is honest.

    Args:
        values: Pseudo-values of a method's models.
        level: Confidence level, in (0, 1).

    Raises:
        ValueError: `level` is not in (0, 1).

    Example:
        >>> from shared.metrics import mean_values
        >>> hits = np.array([[1, 1, 1, 0, 1, 1, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1, 1, 1, 1, 1]])
        >>> value, low, high, _ = interval(mean_values(hits))
        >>> print(f"{value:.2f} [{low:.2f}, {high:.2f}]")
        0.80 [0.45, 0.95]
    """
    _check(level)
    theta = float(values.point.mean())
    groups = values.values.shape[1]
    if groups < 2:
        return Interval(theta, np.nan, np.nan)
    variance, freedom = _variance(values.values.mean(0), [values])
    half = _quantile(level, freedom) * variance**0.5
    if not values.bounded:
        return Interval(theta, theta - half, theta + half)
    # Where no sample speaks against the value, Wilson's interval is not empty.
    if variance <= ROUNDING**2 or not ROUNDING < theta < 1 - ROUNDING:
        return Interval(theta, *_wilson(theta, values.count or groups, level))
    odds, spread = theta / (1 - theta), np.exp(min(half / (theta * (1 - theta)), 500.0))
    return Interval(theta, odds / (odds + spread), odds * spread / (1 + odds * spread))


def difference(plus: PseudoValues, minus: PseudoValues, level: float = 0.95) -> Interval:
    """Confidence interval of the difference of two methods on the same samples, and its p-value.

    As `interval`: the groups are shared by both methods, so their part is that of the differences; the models are not,
    so each method adds its own part, and the sum of these is what must exceed 0. If a method has one model, the p-value
    does not know the noise of its training, and is too small.

    Args:
        plus: Pseudo-values of one method.
        minus: Pseudo-values of the other, for the same groups.
        level: Confidence level, in (0, 1).

    Raises:
        ValueError: `level` is not in (0, 1), or the methods have different groups or left out different classes.
    """
    _check(level)
    groups = plus.values.shape[1]
    if minus.values.shape[1] != groups or plus.left_out != minus.left_out:
        raise ValueError(
            f"two methods on {groups} and {minus.values.shape[1]} groups, or on other classes, do not pair"
        )
    value = float(plus.point.mean() - minus.point.mean())
    if groups < 2:
        return Interval(value, np.nan, np.nan)
    variance, freedom = _variance(plus.values.mean(0) - minus.values.mean(0), [plus, minus])
    half = _quantile(level, freedom) * variance**0.5
    bounded = plus.bounded and minus.bounded
    if variance <= ROUNDING**2:  # the same in every group: as much might differ as Wilson's interval leaves open
        half = _wilson(0.0, min(plus.count, minus.count) or groups, level)[1] if bounded else 0.0
        p = 1.0 if abs(value) <= ROUNDING else 2.0 ** (1 - groups)  # a sign test
    else:
        p = float(2 * stats.t.sf(abs(value) / variance**0.5, freedom))
    low, high = value - half, value + half
    return Interval(value, max(low, -1.0), min(high, 1.0), p) if bounded else Interval(value, low, high, p)


def holm(p_values: ArrayLike) -> Floats:
    """P-values adjusted for their number (Holm 1979): below 0.05 with at most 5% chance of any false one.

    Args:
        p_values: `(K,)`; NaN is no comparison and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03, np.nan])
        array([0.03, 0.06, 0.06,  nan])
    """
    adjusted = np.array(p_values, dtype=np.float64)
    order = np.argsort(adjusted)[: np.count_nonzero(~np.isnan(adjusted))]  # NaN goes last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(adjusted[order] * factors), 1)
    return adjusted


def _variance(of_groups: Floats, methods: Sequence[PseudoValues]) -> tuple[float, float]:
    """Variance of a mean over groups `(G,)` and of the methods' models, and its degrees of freedom."""
    groups = len(of_groups)
    samples = float(of_groups.var(ddof=1)) / groups
    limit = min(method.freedom for method in methods)
    uncertainty = samples**2 / max(min(_freedom(of_groups), limit), 1.0)
    models = positive = uncertainty_of_models = 0.0
    for method in methods:
        count = len(method.values)
        if count < 2:
            continue
        residual = method.values - method.values.mean(0) - method.point[:, None] + method.values.mean()
        error = float((residual**2).sum()) / ((count - 1) * (groups - 1)) / (count * groups)
        spread = float(method.point.var(ddof=1)) / count * (count - 1) / float(stats.chi2.median(count - 1))
        models += spread - error
        positive += max(spread - error, 0.0)
        uncertainty_of_models += max(spread - error, 0.0) ** 2 / (count - 1)
    models = max(models, 0.0)
    if positive > 0:  # only what is left of the positive parts is uncertain
        uncertainty_of_models *= (models / positive) ** 2
    variance, total = samples + models, uncertainty + uncertainty_of_models
    return variance, max(variance**2 / total, 1.0) if total > 0 else groups - 1.0


def _freedom(values: Floats) -> float:
    """Degrees of freedom of a variance of values `(G,)`: G - 1 for a normal distribution, fewer with heavier tails."""
    squares = (values - values.mean()) ** 2
    spread = float(((squares - squares.mean()) ** 2).sum())
    full = len(values) - 1.0
    return min(max(2 * float(squares.sum()) ** 2 / spread, 1.0), full) if spread > 0 else full


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")


def _quantile(level: float, freedom: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, freedom))


def _wilson(theta: float, count: int, level: float) -> tuple[float, float]:
    square = _quantile(level, max(count - 1, 1)) ** 2
    middle = (theta + square / (2 * count)) / (1 + square / count)
    half = (square * theta * (1 - theta) / count + square**2 / (4 * count**2)) ** 0.5 / (1 + square / count)
    return min(max(middle - half, 0.0), theta), max(min(middle + half, 1.0), theta)
