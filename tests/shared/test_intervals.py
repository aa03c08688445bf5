import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from shared.metrics import auroc, bootstrap_auroc, bootstrap_mean, interval, intervals

PREVALENCE = np.array([0.5, 0.2, 0.08])


def data(n: int = 60, models: int = 4, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic scores `(models, n, 3)`, rounded to `1 / levels` if given, and targets `(n, 3)`."""
    rng = np.random.default_rng(0)
    targets = (rng.random((n, 3)) < PREVALENCE).astype(int)
    scores = targets + 1.5 * rng.normal(size=(models, n, 3))
    return (np.round(scores * levels) / levels if levels else scores), targets


@pytest.mark.parametrize("levels", [None, 1, 4])
def test_auroc_equals_scikit_learn_with_and_without_ties(levels):
    scores, targets = data(levels=levels)
    for model in scores:
        expected = roc_auc_score(targets, model, average=None)
        np.testing.assert_allclose(auroc(model, targets), expected, rtol=0, atol=1e-12)


def test_auroc_of_constant_infinite_and_reversed_scores():
    targets = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    scores = np.array([[7.0, -np.inf, 4.0], [7.0, np.inf, 1.0], [7.0, -np.inf, 3.0], [7.0, 0.0, 2.0]])
    assert auroc(scores, targets).tolist() == [0.5, 1.0, 0.0]


def test_auroc_of_a_one_sided_class_is_nan():
    values = auroc([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [[0, 1, 0], [0, 1, 1]])
    assert np.isnan(values).tolist() == [True, True, False]
    assert values[2] == 1.0


@pytest.mark.parametrize("levels", [None, 2])
def test_bootstrap_equals_scikit_learn_on_the_resampled_records(levels):
    scores, targets = data(levels=levels)
    samples, point, dropped = bootstrap_auroc(scores, targets, resamples=40, seed=5)
    assert samples.shape == (40, 4)
    draws = np.random.default_rng(5).integers(60, size=(40, 60))
    n_dropped = np.zeros(3, dtype=int)
    for r, rows in enumerate(draws):
        usable = targets[rows].any(0) & ~targets[rows].all(0)
        n_dropped += ~usable
        for m in range(4):
            expected = roc_auc_score(targets[rows][:, usable], scores[m][rows][:, usable])
            assert samples[r, m] == pytest.approx(expected, abs=1e-12)
    assert dropped.tolist() == n_dropped.tolist()
    expected_point = [roc_auc_score(targets, model) for model in scores]
    assert point.tolist() == pytest.approx(expected_point, abs=1e-12)


def test_a_rare_class_is_dropped_where_it_is_missing_and_counted():
    rng = np.random.default_rng(0)
    targets = np.zeros((30, 2), dtype=int)
    targets[:15, 0] = 1
    targets[0, 1] = 1  # absent from a resample with probability (29 / 30) ** 30 = 0.36
    scores = rng.normal(size=(30, 2))
    scores[:, 0] = targets[:, 0]  # class 0 is perfect, so a resample without class 1 has mean 1
    result = bootstrap_auroc(scores, targets, resamples=400, seed=1)
    draws = np.random.default_rng(1).integers(30, size=(400, 30))
    missing = ~(draws == 0).any(1)
    assert result.dropped.tolist() == [0, missing.sum()]
    assert 100 < missing.sum() < 190
    assert (result.samples[missing] == 1).all()
    assert (result.samples[~missing] < 1).all()


def test_a_resample_without_any_usable_class_is_nan():
    samples, _, dropped = bootstrap_auroc([[0.1], [0.9]], [[0], [1]], resamples=50)
    assert 10 < dropped[0] < 40
    assert np.isnan(samples).sum() == dropped[0]


def test_one_model_equals_its_row_among_many_and_seeds_repeat():
    scores, targets = data()
    many = bootstrap_auroc(scores, targets, resamples=30, seed=2)
    one = bootstrap_auroc(scores[2], targets, resamples=30, seed=2)
    assert one.samples.shape == (30, 1)
    assert one.point.shape == (1,)
    np.testing.assert_array_equal(one.samples[:, 0], many.samples[:, 2])
    assert not np.array_equal(one.samples, bootstrap_auroc(scores[2], targets, resamples=30, seed=3).samples)


def test_the_paired_difference_of_equal_models_is_zero_and_narrower_than_unpaired():
    scores, targets = data(n=200)
    scores[1] = 2 * scores[0] + 1  # the same ranking
    scores[2] = scores[0] + 0.1 * np.random.default_rng(1).normal(size=scores[0].shape)
    samples, _, _ = bootstrap_auroc(scores, targets, resamples=200)
    assert (samples[:, 0] == samples[:, 1]).all()
    low, high = interval(samples[:, 0] - samples[:, 2])
    single_low, single_high = interval(samples[:, 0])
    assert high - low < 0.3 * (single_high - single_low)


def test_interval_covers_the_true_auroc_as_often_as_it_says():
    """A binormal pair of classes with means 0 and 1 has AUROC Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        targets = (np.arange(100) % 2)[:, None]
        scores = rng.normal(size=(100, 1)) + targets
        low, high = interval(bootstrap_auroc(scores, targets, resamples=200).samples)
        covered += bool(low[0] < 0.7602 < high[0])
    assert 0.88 < covered / 200 < 0.99


@pytest.mark.parametrize("chunk", [1, 7 * 61, 2**22])  # resamples one by one, seven at a time, all at once
def test_bootstrap_mean_equals_the_mean_of_the_resampled_records(monkeypatch, chunk):
    monkeypatch.setattr(intervals, "CHUNK", chunk)
    values = np.random.default_rng(1).normal(size=(3, 61))  # an odd number: a draw must not start a chunk afresh
    samples, point = bootstrap_mean(values, resamples=40, seed=5)
    assert samples.shape == (40, 3)
    draws = np.random.default_rng(5).integers(61, size=(40, 61))
    for r, rows in enumerate(draws):
        for m in range(3):
            assert samples[r, m] == pytest.approx(sum(values[m, row] for row in rows) / 61, abs=1e-12)
    assert point.tolist() == pytest.approx([sum(model) / 61 for model in values], abs=1e-12)


def test_bootstrap_mean_draws_the_resamples_of_the_bootstrap_of_auroc():
    """A class whose only positive record is missing has no AUROC; the mean of that record's indicator is then 0."""
    only = np.arange(30) == 4
    aurocs = bootstrap_auroc(np.random.default_rng(0).normal(size=(30, 1)), only[:, None], resamples=200, seed=3)
    means = bootstrap_mean(only, resamples=200, seed=3)
    assert means.point.tolist() == [1 / 30]
    np.testing.assert_array_equal(means.samples[:, 0] == 0, np.isnan(aurocs.samples[:, 0]))
    assert 40 < (means.samples == 0).sum() < 110  # 0.36 of 200
    other = bootstrap_mean(only, resamples=200, seed=4)
    assert not np.array_equal(other.samples == 0, means.samples == 0)


def test_the_interval_of_a_paired_difference_of_means_is_narrower_than_unpaired():
    rng = np.random.default_rng(0)
    hits = rng.random(400) < 0.7
    better = hits | (rng.random(400) < 0.1)
    samples, point = bootstrap_mean(np.stack([better, hits]))
    low, high = interval(samples[:, 0] - samples[:, 1])
    assert 0 < low < point[0] - point[1] < high
    single_low, single_high = interval(samples[:, 1])
    assert high - low < 0.5 * (single_high - single_low)


def test_bad_values_are_named():
    values = np.zeros((2, 5))
    values[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"^Values hold NaN, first at model 1, record 3: leave such records out"):
        bootstrap_mean(values)
    for shape in ((2, 0), (2, 3, 4)):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
            bootstrap_mean(np.zeros(shape))
        assert str(error.value) == f"Expected values (N,) or (M, N) with at least one record, got {shape}."


def test_interval_is_the_percentile_interval():
    low, high = interval(np.arange(1001.0))
    assert (low, high) == pytest.approx((25.0, 975.0))
    lows, highs = interval(np.stack([np.arange(101.0), np.arange(101.0) * 2], axis=1), level=0.5)
    assert lows.tolist() == [25.0, 50.0]
    assert highs.tolist() == [75.0, 150.0]


def test_bad_input_is_named():
    scores, targets = np.zeros((4, 2)), np.array([[0, 1], [1, 1], [0, 1], [1, 1]])
    cases = [
        (lambda: auroc(scores, targets[:3]), "Expected scores (N, C) or (M, N, C) and targets (N, C), got "),
        (lambda: auroc(scores, targets + 1), "Targets must be 0 or 1, one column a class."),
        (lambda: interval([1.0], level=95), "level must lie strictly between 0 and 1, got 95."),
        (
            lambda: bootstrap_auroc(scores, targets),
            "Classes (columns) [1] have no positive or no negative record among 4, so "
            "their AUROC is undefined. Remove these columns and name them beside the result.",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
            call()
        assert str(error.value).startswith(message)
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"^Scores hold NaN, first at model 0, row 2, column 1: check"):
        auroc(scores, targets)
