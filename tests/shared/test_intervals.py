"""Pseudo-values, intervals, differences and adjusted p-values, against their formulas written out in loops.

Shapes: M models, N samples, G groups of samples, C classes.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.metrics import roc_auc_score

from benchmarks import interval_coverage
from shared.metrics import (
    Interval,
    PseudoValues,
    auroc,
    auroc_values,
    difference,
    holm,
    interval,
    mean_values,
    usable_classes,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PREVALENCE = np.array([0.5, 0.2, 0.1])
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def data(n: int = 60, models: int = 4, levels: int | None = None) -> tuple[Floats, Ints]:
    """Synthetic scores `(models, n, 3)`, rounded to `1 / levels` if given, and targets `(n, 3)`."""
    rng = np.random.default_rng(0)
    targets = (rng.random((n, 3)) < PREVALENCE).astype(int)
    scores = targets + 1.5 * rng.normal(size=(models, n, 3))
    return (np.round(scores * levels) / levels if levels else scores), targets


def of_clusters(models: int, groups: int, spread: float, seed: int = 0) -> PseudoValues:
    """Unbounded pseudo-values `(models, groups)` with effects of groups and models."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=groups) + spread * rng.normal(size=(models, 1))
    return PseudoValues(3 + effects + rng.normal(size=(models, groups)), bounded=False)


# ---- the formulas, transcribed


def components(score: Sequence[float], positive: Sequence[bool]) -> tuple[list[float], list[float]]:
    """DeLong's structural components V10 of the positives and V01 of the negatives, pair by pair."""

    def kernel(above: float, below: float) -> float:
        return 1.0 if above > below else 0.5 if above == below else 0.0

    pos = [value for value, is_positive in zip(score, positive, strict=True) if is_positive]
    neg = [value for value, is_positive in zip(score, positive, strict=True) if not is_positive]
    return (
        [sum(kernel(p, n) for n in neg) / len(neg) for p in pos],
        [sum(kernel(p, n) for p in pos) / len(pos) for n in neg],
    )


def sample_variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def influences(scores: Floats, targets: Ints, classes: Sequence[int]) -> list[float]:
    """Of one model's scores `(N, C)`: what every sample adds to the mean area over the classes."""
    found = [0.0] * len(targets)
    for c in classes:
        positive = [bool(value) for value in targets[:, c]]
        v10, v01 = components(scores[:, c].tolist(), positive)
        area, of_pos, of_neg = sum(v10) / len(v10), iter(v10), iter(v01)
        for i, is_positive in enumerate(positive):
            value, count = (next(of_pos), len(v10)) if is_positive else (next(of_neg), len(v01))
            found[i] += (value - area) / count * math.sqrt(count / (count - 1)) / len(classes)
    return found


def effective_freedom(values: Sequence[float]) -> float:
    """2 G sigma^4 / (mu_4 - sigma^4): that of a variance, by its own variance; at least 1 and at most G - 1."""
    n, mean = len(values), sum(values) / len(values)
    second = sum((value - mean) ** 2 for value in values) / n
    fourth = sum((value - mean) ** 4 for value in values) / n
    if fourth - second**2 <= 1e-12 * second**2:
        return n - 1.0
    return min(max(2 * n * second**2 / (fourth - second**2), 1.0), n - 1.0)


def variance_and_freedom(plus: Floats, minus: Floats | None = None, limit: float = math.inf) -> tuple[float, float]:
    """Of the mean of pseudo-values `(M, G)`, or of the difference of two means: the docstring's V and Satterthwaite."""
    methods = [plus.tolist()] + ([] if minus is None else [minus.tolist()])
    groups = len(methods[0][0])
    means = [[sum(row[g] for row in method) / len(method) for g in range(groups)] for method in methods]
    of_groups = means[0] if minus is None else [a - b for a, b in zip(*means, strict=True)]
    part_of_groups = sample_variance(of_groups) / groups
    denominator = part_of_groups**2 / max(min(effective_freedom(of_groups), limit), 1.0)
    parts = []
    for method, column_means in zip(methods, means, strict=True):
        count = len(method)
        if count < 2:
            continue
        row_means = [sum(row) / groups for row in method]
        grand = sum(row_means) / count
        squares = [
            (method[m][g] - row_means[m] - column_means[g] + grand) ** 2 for m in range(count) for g in range(groups)
        ]
        mean_square_error = sum(squares) / ((count - 1) * (groups - 1))
        median = 2 * special.gammaincinv((count - 1) / 2, 0.5)  # of chi-squared
        part = (count - 1) / median * sample_variance(row_means) / count - mean_square_error / (count * groups)
        parts.append((part, count))
    part_of_models = max(0.0, sum(part for part, _ in parts))
    if part_of_models > 0:
        positive = sum(max(part, 0.0) for part, _ in parts)  # of which a negative part takes something away
        uncertainty = sum(max(part, 0.0) ** 2 / (count - 1) for part, count in parts)
        denominator += uncertainty * (part_of_models / positive) ** 2
    variance = part_of_groups + part_of_models
    return variance, max(variance**2 / denominator, 1.0)


def expected_interval(values: PseudoValues, level: float = 0.95) -> tuple[float, float]:
    """Symmetric, or on the logit scale where the metric is bounded."""
    variance, freedom = variance_and_freedom(values.values, limit=values.freedom)
    theta = float(np.mean(values.values))
    half = -stats.t.ppf((1 - level) / 2, freedom) * math.sqrt(variance)
    if not values.bounded:
        return theta - half, theta + half
    logit, scale = math.log(theta / (1 - theta)), theta * (1 - theta)
    low, high = (1 / (1 + math.exp(-(logit + sign * half / scale))) for sign in (-1, 1))
    return low, high


# ---- areas


@pytest.mark.parametrize("levels", [None, 1, 4])
def test_auroc_equals_scikit_learn_with_and_without_ties(levels: int | None) -> None:
    scores, targets = data(levels=levels)
    for model in scores:
        expected = roc_auc_score(targets, model, average=None)
        np.testing.assert_allclose(auroc(model, targets), expected, rtol=0, atol=1e-12)


def test_auroc_of_constant_infinite_and_reversed_scores() -> None:
    targets = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    scores = np.array([[7.0, -np.inf, 4.0], [7.0, np.inf, 1.0], [7.0, -np.inf, 3.0], [7.0, 0.0, 2.0]])
    assert auroc(scores, targets).tolist() == [0.5, 1.0, 0.0]


def test_auroc_of_a_one_sided_class_is_nan() -> None:
    values = auroc([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [[0, 1, 0], [0, 1, 1]])
    assert np.isnan(values).tolist() == [True, True, False]
    assert values[2] == 1.0


# ---- pseudo-values


def test_pseudo_values_of_a_mean_are_the_values_and_of_a_group_the_sum_of_its_samples_shares() -> None:
    values = np.random.default_rng(1).normal(size=(3, 7))
    alone = mean_values(values, bounded=False)
    np.testing.assert_allclose(alone.values, values, rtol=0, atol=1e-12)
    assert (alone.bounded, alone.left_out) == (False, ())
    groups = [4, 4, 0, 9, 0, 4, 7]
    found = mean_values(values, groups)
    assert found.bounded
    for m in range(3):
        mean = sum(values[m]) / 7
        assert found.point[m] == pytest.approx(mean, abs=1e-12)
        shares = [sum(values[m, i] - mean for i in range(7) if groups[i] == group) / 7 for group in (0, 4, 7, 9)]
        assert found.values[m].tolist() == pytest.approx([mean + 4 * share for share in shares], abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_pseudo_values_of_the_area_have_scikit_learns_mean_and_the_components_of_delong(levels: int | None) -> None:
    scores, targets = data(levels=levels)
    found = auroc_values(scores, targets)
    assert (found.values.shape, found.bounded, found.left_out) == ((4, 60), True, ())
    for m, model in enumerate(scores):
        area = roc_auc_score(targets, model)
        assert found.point[m] == pytest.approx(area, abs=1e-12)
        expected = [area + 60 * share for share in influences(model, targets, (0, 1, 2))]
        assert found.values[m].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_the_squared_influences_of_one_class_add_up_to_delongs_variance(levels: int | None) -> None:
    scores, targets = data(levels=levels)
    for c in range(3):
        v10, v01 = components(scores[0, :, c].tolist(), [bool(value) for value in targets[:, c]])
        variance = sample_variance(v10) / len(v10) + sample_variance(v01) / len(v01)
        found = auroc_values(scores[0][:, [c]], targets[:, [c]])
        influence = (found.values[0] - found.point[0]) / 60
        assert sum(influence**2) == pytest.approx(variance, rel=1e-12)


def test_the_squared_influences_of_a_difference_add_up_to_delongs_variance_with_covariances() -> None:
    scores, targets = data()
    positive = [bool(value) for value in targets[:, 0]]
    (a10, a01), (b10, b01) = (components(scores[m, :, 0].tolist(), positive) for m in (0, 1))
    contrasts = [[x - y for x, y in zip(a, b, strict=True)] for a, b in ((a10, b10), (a01, b01))]
    variance = sum(sample_variance(each) / len(each) for each in contrasts)
    found = auroc_values(scores[:2, :, [0]], targets[:, [0]])
    influence = (found.values[0] - found.values[1] - found.point[0] + found.point[1]) / 60
    assert sum(influence**2) == pytest.approx(variance, rel=1e-12)


def test_a_patients_share_of_the_area_is_the_sum_of_its_records_shares() -> None:
    scores, targets = data()
    patients = np.random.default_rng(3).integers(40, size=60)
    found = auroc_values(scores, targets, patients)
    names = sorted(set(patients.tolist()))
    assert len(names) < max(names)  # their numbers have gaps
    assert found.values.shape == (4, len(names))
    for m, model in enumerate(scores):
        shares = influences(model, targets, (0, 1, 2))
        summed = [sum(share for share, of in zip(shares, patients, strict=True) if of == name) for name in names]
        area = roc_auc_score(targets, model)
        expected = [area + len(names) * share for share in summed]
        assert found.values[m].tolist() == pytest.approx(expected, abs=1e-12)


def test_groups_of_one_sample_each_are_no_groups() -> None:
    scores, targets = data()
    for groups in (np.arange(60), 7 * np.arange(60) - 100):
        np.testing.assert_array_equal(
            auroc_values(scores, targets, groups).values, auroc_values(scores, targets).values
        )
        hits = scores[..., 0] > 0
        np.testing.assert_array_equal(mean_values(hits, groups).values, mean_values(hits).values)


def test_one_model_equals_its_row_among_many() -> None:
    scores, targets = data()
    many = auroc_values(scores, targets)
    one = auroc_values(scores[2], targets)
    assert one.values.shape == (1, 60)
    np.testing.assert_array_equal(one.values[0], many.values[2])
    np.testing.assert_array_equal(mean_values(scores[2, :, 0]).values[0], mean_values(scores[..., 0]).values[2])


def test_a_class_is_usable_if_two_samples_have_it_and_two_do_not() -> None:
    targets = np.array([[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0] * 6])
    targets[4, 3] = 1
    assert targets.sum(0).tolist() == [1, 2, 3, 4, 4, 0]
    assert usable_classes(targets).tolist() == [False, True, True, False, False, False]


def test_a_rare_class_is_left_out_of_the_average_of_all_and_said() -> None:
    """One positive among 30 says nothing about how much an area would vary: resamples used to lose it at times."""
    rng = np.random.default_rng(0)
    targets = np.zeros((30, 3), dtype=int)
    targets[:15, 0], targets[0, 1], targets[1:7, 2] = 1, 1, 1
    scores = rng.normal(size=(2, 30, 3))
    found = auroc_values(scores, targets)
    assert found.left_out == (1,)
    assert usable_classes(targets).tolist() == [True, False, True]
    for m, model in enumerate(scores):
        expected = [roc_auc_score(targets[:, c], model[:, c]) for c in (0, 2)]
        assert found.point[m] == pytest.approx(sum(expected) / 2, abs=1e-12)
    without = auroc_values(scores[..., [0, 2]], targets[:, [0, 2]])
    np.testing.assert_array_equal(found.values, without.values)
    assert without.left_out == ()
    scores[..., 1] = 100 * rng.normal(size=(2, 30))
    np.testing.assert_array_equal(auroc_values(scores, targets).values, found.values)


def test_bad_input_is_named() -> None:
    scores, targets = np.zeros((4, 2)), np.array([[0, 1], [1, 1], [0, 0], [1, 0]])
    missing = scores.copy()
    missing[2, 1] = np.nan
    values = np.zeros((2, 5))
    values[1, 3] = np.nan
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: auroc(scores, targets[:3]),
            "Expected scores (N, C) or (M, N, C) and targets (N, C), got (1, 4, 2) and (3, 2).",
        ),
        (
            lambda: auroc_values(scores[:, 0], targets[:, 0]),
            "Expected scores (N, C) or (M, N, C) and targets (N, C), got (4,) and (4,).",
        ),
        (lambda: auroc(scores, targets + 1), "Targets must be 0 or 1, one column a class."),
        (lambda: auroc_values(scores, targets / 2), "Targets must be 0 or 1, one column a class."),
        (
            lambda: auroc_values(np.stack([scores, missing]), targets),
            "Scores hold NaN, first at model 1, row 2, column 1: check the model.",
        ),
        (
            lambda: auroc_values(scores, targets * 0),
            "no class has at least 2 positive and 2 negative groups among 4 samples",
        ),
        (lambda: auroc_values(scores, targets, [0, 1, 2]), "Expected a group for each of 4 samples, got 3."),
        (lambda: mean_values(np.zeros(4), np.zeros(5)), "Expected a group for each of 4 samples, got 5."),
        (
            lambda: mean_values(values),
            "Values hold NaN, first at model 1, sample 3: leave such samples out for all.",
        ),
        (
            lambda: mean_values(np.zeros((2, 0))),
            "Expected values (N,) or (M, N) with at least one sample, got (2, 0).",
        ),
        (
            lambda: mean_values(np.zeros((2, 3, 4))),
            "Expected values (N,) or (M, N) with at least one sample, got (2, 3, 4).",
        ),
        (lambda: interval(mean_values([0, 1]), 95), "level must lie strictly between 0 and 1, got 95."),
        (
            lambda: difference(mean_values([0, 1]), mean_values([1, 0]), 1.0),
            "level must lie strictly between 0 and 1, got 1.0.",
        ),
        (
            lambda: difference(mean_values([0, 1, 1]), mean_values([1, 0])),
            "two methods on 3 and 2 groups, or on other classes, do not pair",
        ),
        (
            lambda: difference(PseudoValues(values[:1]), PseudoValues(values[:1], left_out=(2,))),
            "two methods on 5 and 5 groups, or on other classes, do not pair",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()


# ---- intervals of a value


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("models", "spread"),
    [
        (1, 0.0),
        (2, 0.0),  # these two agree more than chance would have it, so the models' part is 0
        (5, 0.0),
        (2, 1.0),
        (3, 0.3),
        (5, 1.0),
        (20, 0.3),
    ],
)
def test_the_interval_is_that_of_the_written_formula(models: int, spread: float, level: float) -> None:
    values = of_clusters(models, 30, spread)
    found = interval(values, level)
    assert found.value == pytest.approx(np.mean(values.values), abs=1e-12)
    assert found[1:3] == pytest.approx(expected_interval(values, level), abs=1e-10)
    assert math.isnan(found.p)
    assert found.high - found.value == pytest.approx(found.value - found.low, abs=1e-10)  # unbounded: symmetric


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("models", [1, 2, 5])
def test_the_interval_of_a_bounded_metric_is_symmetric_on_the_logit_scale(models: int, level: float) -> None:
    rng = np.random.default_rng(4)
    hits = rng.random((models, 80)) < rng.beta(8, 2, size=80)
    scores, targets = data(models=models)
    for values in (mean_values(hits), mean_values(hits, np.arange(80) // 3), auroc_values(scores, targets)):
        low, high = interval(values, level)[1:3]
        assert (low, high) == pytest.approx(expected_interval(values, level), abs=1e-10)
        assert 0 < low < values.point.mean() < high < 1


def test_an_interval_of_a_bounded_metric_stays_within_however_few_samples_there_are() -> None:
    """A symmetric interval would end at 1.2."""
    value, low, high, _ = interval(mean_values([1, 1, 1, 1, 0]))
    variance, freedom = variance_and_freedom(np.array([[1.0, 1.0, 1.0, 1.0, 0.0]]))
    assert value + stats.t.ppf(0.975, freedom) * math.sqrt(variance) > 1.2
    assert 0 < low < value < high < 1
    value, low, high, _ = interval(mean_values(np.arange(2000) > 0), 0.999999)
    assert 0 < low < value < high <= 1


def test_models_that_agree_by_chance_add_nothing_and_models_that_differ_widen_the_interval() -> None:
    base = np.random.default_rng(5).normal(size=(1, 40))
    together = PseudoValues(np.concatenate([base - 0.1, base + 0.1]), bounded=False)
    variance, freedom = variance_and_freedom(together.values)
    part = (1 / 0.454936423119573) * 0.02 / 2  # k_2 times the variance of -0.1 and 0.1, over two models; MS_E is 0
    of_groups = sample_variance(base[0].tolist()) / 40
    assert variance == pytest.approx(of_groups + part, rel=1e-9)
    found = interval(together)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(of_groups + part)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)
    noisy = np.random.default_rng(6).normal(size=(2, 40))
    noisy -= noisy.mean(1, keepdims=True)  # both models have the value 0
    of_groups = sample_variance(noisy.mean(0).tolist()) / 40
    found = interval(PseudoValues(noisy, bounded=False))
    half = stats.t.ppf(0.975, effective_freedom(noisy.mean(0).tolist())) * math.sqrt(of_groups)
    assert found.high == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_of_all_right_or_all_wrong_is_wilsons(count: int, models: int, level: float) -> None:
    square = stats.t.ppf((1 + level) / 2, count - 1) ** 2
    right, wrong = (interval(mean_values(np.full((models, count), value)), level) for value in (1, 0))
    assert right == pytest.approx((1, count / (count + square), 1, math.nan), abs=1e-12, nan_ok=True)
    assert wrong == pytest.approx((0, 0, square / (count + square), math.nan), abs=1e-12, nan_ok=True)
    patients = np.repeat(np.arange(count), np.arange(count) % 3 + 1)  # of a patient one to three samples
    in_groups = interval(mean_values(np.ones((models, len(patients))), patients), level)
    assert in_groups == pytest.approx((1, count / (count + square), 1, math.nan), abs=1e-12, nan_ok=True)


def test_the_interval_of_an_area_that_no_sample_moves_is_wilsons() -> None:
    targets = np.arange(10)[:, None] % 2
    value, low, high, _ = interval(auroc_values(np.zeros((10, 1)), targets))
    square = stats.t.ppf(0.975, 4) ** 2  # it rests on the five of the rarer side
    half = math.sqrt(square * 0.25 / 5 + square**2 / 100)
    expected = [(0.5 + square / 10 + sign * half) / (1 + square / 5) for sign in (-1, 1)]
    assert (value, low, high) == pytest.approx((0.5, *expected), abs=1e-12)


@pytest.mark.parametrize("bounded", [True, False])
def test_with_fewer_than_two_groups_there_is_a_value_without_an_interval(bounded: bool) -> None:
    one = PseudoValues(np.array([[0.25], [0.75]]), bounded)
    assert interval(one) == pytest.approx((0.5, math.nan, math.nan, math.nan), nan_ok=True)
    other = mean_values([0.1, 0.3], [6, 6], bounded)
    assert difference(one, other) == pytest.approx((0.3, math.nan, math.nan, math.nan), nan_ok=True)


def test_two_groups_have_one_degree_of_freedom() -> None:
    found = interval(mean_values([3.0, 5.0], bounded=False))
    assert found[:3] == pytest.approx((4, 4 - 12.706204736, 4 + 12.706204736), abs=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_of_one_model_the_interval_is_the_t_interval_unless_the_tails_are_heavy(level: float) -> None:
    """A variance of G values is as well known as G - 1 normal ones say, or less well if their kurtosis is above 3."""
    rng = np.random.default_rng(7)
    even, heavy = rng.uniform(20, 40, size=25), rng.standard_t(2, size=25)
    assert stats.kurtosis(even, fisher=False) < 3 < stats.kurtosis(heavy, fisher=False)
    for values, freedom in ((even, 24), (heavy, 2 * 25 / (stats.kurtosis(heavy, fisher=False) - 1))):
        expected = stats.t.interval(level, freedom, values.mean(), stats.sem(values))
        assert interval(mean_values(values, bounded=False), level)[1:3] == pytest.approx(expected, rel=1e-9)
    low, high = stats.t.interval(level, 24, heavy.mean(), stats.sem(heavy))
    assert interval(mean_values(heavy, bounded=False), level).low < low - 1e-3
    assert interval(mean_values(heavy, bounded=False), level).high > high + 1e-3


def test_groups_of_one_size_have_the_t_interval_of_their_means_and_not_that_of_the_samples() -> None:
    rng = np.random.default_rng(8)
    of_patient = rng.uniform(0, 10, size=12)
    values = (of_patient[:, None] + rng.normal(size=(12, 5))).ravel()
    found = interval(mean_values(values, np.repeat(np.arange(12), 5), bounded=False))
    means = values.reshape(12, 5).mean(1)
    assert stats.kurtosis(means, fisher=False) < 2.9
    assert found[1:3] == pytest.approx(stats.t.interval(0.95, 11, means.mean(), stats.sem(means)), rel=1e-9)
    samples = interval(mean_values(values, bounded=False))
    assert found.high - found.low > 1.8 * (samples.high - samples.low)


def test_groups_of_very_different_sizes_count_by_what_they_add_to_the_mean() -> None:
    sizes = [1, 1, 2, 3, 30, 200]
    patients = np.repeat(np.arange(6), sizes)
    rng = np.random.default_rng(9)
    values = rng.normal(size=6)[patients] + 0.1 * rng.normal(size=len(patients))
    mean = values.mean()
    sums = [sum(values[i] - mean for i in range(len(values)) if patients[i] == g) for g in range(6)]
    variance = 6 / 5 * sum(each**2 for each in sums) / len(values) ** 2  # the linearised variance of a ratio
    half = stats.t.ppf(0.975, effective_freedom(sums)) * math.sqrt(variance)
    found = interval(mean_values(values, patients, bounded=False))
    assert found[:3] == pytest.approx((mean, mean - half, mean + half), rel=1e-9)
    samples = interval(mean_values(values, bounded=False))
    assert found.high - found.low > 5 * (samples.high - samples.low)


# ---- differences


PAIRS = [(1, 1, 0.0, 0.0), (2, 2, 0.0, 0.0), (5, 5, 0.5, 0.5), (1, 5, 0.0, 0.3), (20, 3, 0.1, 1.0), (2, 5, 1.0, 0.0)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("models", "others", "spread", "other_spread"), PAIRS)
def test_a_difference_is_paired_by_group_and_each_method_adds_its_own_models(
    models: int, others: int, spread: float, other_spread: float, level: float
) -> None:
    plus, minus = of_clusters(models, 30, spread), of_clusters(others, 30, other_spread, seed=1)
    minus = PseudoValues(minus.values - 0.4, bounded=False)
    found = difference(plus, minus, level)
    variance, freedom = variance_and_freedom(plus.values, minus.values)
    value = np.mean(plus.values) - np.mean(minus.values)
    half = stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(variance)
    assert found[:3] == pytest.approx((value, value - half, value + half), abs=1e-10)
    assert found.p == pytest.approx(2 * stats.t.cdf(-abs(value) / math.sqrt(variance), freedom), rel=1e-9)
    back = difference(minus, plus, level)
    assert back == pytest.approx((-value, -value - half, -value + half, found.p), abs=1e-10)


def test_the_order_of_one_methods_models_does_not_matter_and_that_of_its_groups_does() -> None:
    plus, minus = of_clusters(3, 60, 0.0, seed=1), of_clusters(4, 60, 0.0, seed=1)
    found = difference(plus, minus)
    other = PseudoValues(minus.values[[2, 0, 3, 1]], bounded=False)
    assert difference(plus, other) == pytest.approx(found, rel=1e-9)
    moved = difference(plus, PseudoValues(np.roll(minus.values, 1, axis=1), bounded=False))
    assert moved.value == pytest.approx(found.value, abs=1e-12)
    assert moved.high - moved.low > 1.1 * (found.high - found.low)


@pytest.mark.parametrize("level", LEVELS)
def test_of_one_model_each_the_difference_is_the_paired_t_test_unless_the_tails_are_heavy(level: float) -> None:
    rng = np.random.default_rng(10)
    shared = 10 * rng.normal(size=25)
    for noise, binds in ((rng.uniform(-1, 1, size=25), False), (rng.standard_t(2, size=25), True)):
        plus, minus = shared + noise + 0.2, shared
        assert (stats.kurtosis(plus - minus, fisher=False) > 3) == binds
        found = difference(mean_values(plus, bounded=False), mean_values(minus, bounded=False), level)
        test = stats.ttest_rel(plus, minus)
        ends = test.confidence_interval(level)
        if binds:
            assert found.low < ends.low - 1e-3
            assert found.p > test.pvalue + 1e-3
        else:
            assert found == pytest.approx((plus.mean() - minus.mean(), *ends, test.pvalue), rel=1e-8)


def test_zero_is_outside_an_interval_exactly_if_the_p_value_says_so() -> None:
    rng = np.random.default_rng(11)
    seen = set()
    for _ in range(150):
        models, shift = rng.integers(1, 5), rng.normal()
        plus = rng.random((models, 40)) < 0.8
        minus = rng.random((rng.integers(1, 5), 40)) < stats.norm.cdf(0.8 - shift)
        for level in LEVELS:
            found = difference(mean_values(plus), mean_values(minus), level)
            outside = not found.low <= 0 <= found.high
            assert outside == (found.p < 1 - level)
            seen.add((level, outside))
    assert len(seen) == 2 * len(LEVELS)


def test_there_is_at_least_one_degree_of_freedom() -> None:
    """The models of one method differ, those of the other agree more than chance would have it: little is left."""
    signs = np.array([[1.0], [-1.0]])
    plus = PseudoValues(np.full((2, 10), 2.0) + 0.1 * signs, bounded=False)
    minus = PseudoValues(signs * (-1) ** np.arange(10) * 0.435, bounded=False)
    median = stats.chi2.median(1)
    variance = 0.1**2 / median - 0.435**2 / 9  # s_M^2 / 2 is 0.01, and MS_E / (M G) is 0.435^2 * 20 / 9 / 20
    assert 0 < variance < 0.05 * 0.1**2 / median
    found = difference(plus, minus)
    assert found.high - found.value == pytest.approx(12.7062047362 * math.sqrt(variance), rel=1e-8)


def test_the_ends_of_a_difference_of_shares_lie_within_minus_one_and_one() -> None:
    few, fewer = mean_values([1, 1, 1, 0]), mean_values([0, 0, 0, 0])
    up, down = difference(few, fewer), difference(fewer, few)
    assert (up.high, down.low) == (1, -1)
    free = difference(*(PseudoValues(each.values, bounded=False) for each in (few, fewer)))
    assert free.high > 1
    assert (up.low, up.value, up.p) == (free.low, free.value, free.p)


def test_methods_that_never_differ_may_differ_as_much_as_wilsons_interval_leaves_open() -> None:
    hits = np.random.default_rng(12).random(30) < 0.6
    square = stats.t.ppf(0.975, 29) ** 2
    half = square / (30 + square)
    assert difference(mean_values(hits), mean_values(hits)) == pytest.approx((0, -half, half, 1))
    twice = mean_values(np.stack([hits, hits]))  # and models that never differ add nothing
    assert difference(twice, mean_values(hits)) == pytest.approx((0, -half, half, 1))
    free = PseudoValues(mean_values(hits).values, bounded=False)
    assert difference(free, free) == (0, 0, 0, 1)


def test_the_difference_of_alike_methods_is_known_better_than_either() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(400) < 0.7
    better = hits | (rng.random(400) < 0.1)
    plus, minus = mean_values(better), mean_values(hits)
    found, alone = difference(plus, minus), interval(minus)
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    scores, targets = data(n=200)
    near = scores[0] + 0.1 * rng.normal(size=scores[0].shape)
    found = difference(auroc_values(scores[0], targets), auroc_values(near, targets))
    alone = interval(auroc_values(near, targets))
    assert found.high - found.low < 0.3 * (alone.high - alone.low)
    same_ranking = difference(auroc_values(scores[0], targets), auroc_values(2 * scores[0] + 1, targets))
    assert (same_ranking.value, same_ranking.p) == (0, 1)
    assert same_ranking.low == -same_ranking.high


# ---- Holm's adjustment


def stepped_down(p_values: Sequence[float]) -> list[float]:
    """The adjusted p of each: the greatest, over those not above it, of p times the number that are not below."""
    known = [p for p in p_values if not math.isnan(p)]
    factors = {p: len(known) - sorted(known).index(p) for p in known}
    return [math.nan if math.isnan(p) else min(1.0, max(factors[q] * q for q in known if q <= p)) for p in p_values]


def test_holms_p_values_are_those_of_the_written_procedure_and_keep_their_order() -> None:
    rng = np.random.default_rng(13)
    for count in (1, 2, 5, 30):
        p = np.where(rng.random(count) < 0.2, np.nan, rng.random(count) ** 3)
        if count > 4:
            p[1] = p[3]  # ties
        found = holm(p)
        assert found.tolist() == pytest.approx(stepped_down(p.tolist()), rel=1e-12, nan_ok=True)
        assert np.isnan(found).tolist() == np.isnan(p).tolist()
        order = np.argsort(p[~np.isnan(p)])
        assert (np.diff(found[~np.isnan(p)][order]) >= 0).all()
        assert (found[~np.isnan(p)] >= p[~np.isnan(p)]).all()
        assert (found[~np.isnan(p)] <= 1).all()


def test_holms_p_values_of_a_known_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, np.nan, 0.9]).tolist() == pytest.approx([0.8, np.nan, 0.9], nan_ok=True)
    assert holm([np.nan]).tolist() == pytest.approx([np.nan], nan_ok=True)
    assert holm([]).tolist() == []
    given = [0.02, 0.01]
    holm(given)
    assert given == [0.02, 0.01]


# ---- how often the intervals hold the truth


@pytest.mark.parametrize("metric", interval_coverage.SIMULATE)
def test_the_simulated_truth_is_the_mean_of_what_is_simulated(metric: interval_coverage.Metric) -> None:
    cell, rng = interval_coverage.Cell(metric, "large", 200, 20), np.random.default_rng(0)
    draws = [list(interval_coverage.SIMULATE[metric](cell, rng)) for _ in range(40)]
    for method in range(2):
        found = [draw[method][0].point.mean() for draw in draws]
        truth = draws[0][method][1]
        assert abs(np.mean(found) - truth) < 3.5 * stats.sem(found)
        assert stats.sem(found) < 0.008


@pytest.mark.parametrize("metric", ["accuracy", "accuracy_patients", "auroc"])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(metric: interval_coverage.Metric) -> None:
    rows = interval_coverage.simulate(interval_coverage.Cell(metric, "small", 200, 5), 300)
    assert [row["interval"] for row in rows] == ["single", "paired"]
    for row in rows:
        assert 0.90 <= float(str(row["coverage"])) <= 0.99


def test_the_grid_of_simulations_writes_exactly_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interval_coverage, "RECORDS", (30,))
    monkeypatch.setattr(interval_coverage, "MODELS", (2, 3))
    monkeypatch.setattr(interval_coverage, "NOISE", {"small": 0.1})
    output = tmp_path / "coverage.csv"
    returned = interval_coverage.main(3, ["accuracy", "macro_auroc_rare"], 1, output)
    table = pd.read_csv(output, keep_default_na=False)
    assert table.columns.tolist() == [
        *("metric", "noise", "records", "models", "interval", "truth", "std_of_models", "simulations", "coverage"),
        *("median_width", "verdict", "hardware", "python", "torch"),
    ]
    assert len(returned) == len(table) == 8
    cells = [(metric, models) for metric in ("accuracy", "macro_auroc_rare") for models in (2, 3)]
    assert table[["metric", "models"]].apply(tuple, axis=1).tolist() == [cell for cell in cells for _ in range(2)]
    assert table["interval"].tolist() == ["single", "paired"] * 4
    assert table["simulations"].unique().tolist() == [3]
    truth, other = (stats.norm.cdf(mean / math.sqrt(2 + 0.1**2)) for mean in (1.3, 0.9))
    assert table["truth"].tolist()[:2] == pytest.approx([truth, truth - other], abs=6e-5)
    assert "accuracy small 30 2 coverage single" in capsys.readouterr().out


def test_a_coverage_is_judged_by_its_cell() -> None:
    def verdict(coverage: float, models: int, noise: str = "none") -> str:
        return interval_coverage.verdict(coverage, interval_coverage.Cell("accuracy", noise, 30, models))

    assert verdict(0.91, 2) == "too short: needs more records"
    assert verdict(0.91, 2, "large") == "too short: needs more models"
    assert [verdict(0.99, models) for models in (2, 3, 5, 20)] == ["", "", "too wide", "too wide"]
    assert [verdict(coverage, 5) for coverage in (0.92, 0.95, 0.975)] == ["", "", ""]


def test_an_interval_is_a_tuple_of_its_value_and_ends() -> None:
    assert Interval(0.5, 0.25, 0.75)[:3] == (0.5, 0.25, 0.75)
    assert math.isnan(Interval(0.5, 0.25, 0.75).p)


def test_a_difference_is_bounded_only_if_both_metrics_are() -> None:
    found = difference(mean_values([0.9, 0.8, 0.7]), mean_values([-5, -6, -4.5], bounded=False))
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("count", [18, 22])
def test_wilsons_ends_lie_within_0_and_1_whatever_the_rounding(count: int) -> None:
    for value in (0.0, 1.0):
        found = interval(PseudoValues(np.full((1, count), value)))
        assert 0 <= found.low <= value <= found.high <= 1


def test_values_that_are_all_the_same_have_wilsons_interval_whatever_the_rounding() -> None:
    for count in (7, 10):
        found = interval(mean_values(np.full(count, 0.3)))
        assert found.high - found.low > 0.5


def test_the_same_difference_in_two_samples_is_no_proof() -> None:
    found = difference(mean_values([1, 1]), mean_values([0, 0]))
    assert (found.value, found.p) == (1, 0.5)  # a sign test of two
    assert found.low < 0.1


def test_positives_of_one_patient_are_one_group() -> None:
    target = (np.arange(60) < 10).astype(int)[:, None]
    patients = np.maximum(np.arange(60), 9)
    with pytest.raises(ValueError, match=r"^no class has at least 2 positive and 2 negative groups among 60 samples$"):
        auroc_values(np.random.default_rng(0).normal(size=(60, 1)), target, patients)


def test_the_area_of_two_positives_that_are_on_top_by_chance_is_not_known() -> None:
    target = (np.arange(200) < 2).astype(int)[:, None]
    assert interval(auroc_values(target.astype(float), target)).low < 0.5


def test_the_freedom_of_an_area_is_satterthwaites_of_its_two_sides() -> None:
    """Three positives among 40: the positives' side has two degrees of freedom, and most of the noise."""
    rng = np.random.default_rng(3)
    target = (np.arange(40) < 3).astype(int)
    score = target + rng.normal(size=40)
    above = [np.mean([(p > n) + 0.5 * (p == n) for n in score[3:]]) for p in score[:3]]
    below = [np.mean([(p > n) + 0.5 * (p == n) for p in score[:3]]) for n in score[3:]]
    a, b = np.var(above, ddof=1) / 3, np.var(below, ddof=1) / 37
    values = auroc_values(score[:, None], target[:, None])
    assert values.freedom == pytest.approx((a + b) ** 2 / (a**2 / 2 + b**2 / 36))
    assert values.count == 3
