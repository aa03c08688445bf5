"""Seeded stratified splits and subsets: shares within and over strata, nestedness, and one split written out."""

import numpy as np
import pytest

from shared.data.splits import labels_per_class, nested_subsets, stratified_split

EXPECTED = [2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0]


def test_one_small_split_stays_what_it_is() -> None:
    strata = ["a"] * 6 + ["b"] * 4 + ["c"]
    assert stratified_split(strata, (0.6, 0.2, 0.2), seed=42).tolist() == EXPECTED
    assert stratified_split(strata, (0.6, 0.2, 0.2), seed=43).tolist() != EXPECTED


@pytest.mark.parametrize("seed", range(20))
def test_whole_shares_are_exact_in_every_stratum(seed: int) -> None:
    strata = np.repeat(["x", "y", "z"], [100, 50, 25])
    parts = stratified_split(list(strata), (0.72, 0.08, 0.2), seed)
    assert np.bincount(parts[strata == "x"]).tolist() == [72, 8, 20]
    assert np.bincount(parts[strata == "y"]).tolist() == [36, 4, 10]
    assert np.bincount(parts[strata == "z"]).tolist() == [18, 2, 5]


def test_a_share_is_never_off_by_more_than_the_rounding() -> None:
    for size in range(1, 60):
        counts = np.bincount(stratified_split([0] * size, (0.7, 0.1, 0.2), seed=size), minlength=3)
        assert counts.sum() == size
        assert np.all(np.abs(counts - size * np.array([0.7, 0.1, 0.2])) < 1)


def test_tiny_strata_add_up_to_the_fractions() -> None:
    parts = stratified_split(range(6000), (0.72, 0.08, 0.2), seed=0)  # every item its own stratum
    # Standard deviations of the three shares of 6000 draws: below 0.006.
    assert np.abs(np.bincount(parts) / 6000 - [0.72, 0.08, 0.2]).max() < 0.024


def test_a_stratum_does_not_depend_on_how_the_others_interleave() -> None:
    apart = stratified_split(["a"] * 10 + ["b"] * 10, (0.5, 0.5), seed=1)
    mixed = stratified_split(["a", "b"] * 10, (0.5, 0.5), seed=1)
    assert mixed[0::2].sum() == apart[:10].sum() == 5


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (0.5, 0.6)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^split fractions must be at least 0 and sum to 1, got \["):
        stratified_split(["a"], fractions, seed=0)


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    """Labels of 600 samples, some without; 500 rows of them in random order; classes of very unequal size."""
    rng = np.random.default_rng(0)
    target = rng.choice([-1, 0, 1, 2, 7], size=600, p=[0.1, 0.5, 0.3, 0.08, 0.02])
    return target, rng.permutation(600)[:500]


@pytest.mark.parametrize("seed", range(5))
def test_subsets_are_nested_stratified_and_cover_every_class(seed: int, classes: tuple) -> None:
    target, rows = classes
    subsets = nested_subsets(target, rows, (0.01, 1.0, 0.3, 0.1), seed)
    assert list(subsets) == [0.01, 1.0, 0.3, 0.1]
    assert set(subsets[0.01]) < set(subsets[0.1]) < set(subsets[0.3]) < set(subsets[1.0])
    assert np.array_equal(subsets[1.0], np.sort(rows[target[rows] >= 0]))
    for fraction, subset in subsets.items():
        assert len(np.unique(subset)) == len(subset)
        for label in (0, 1, 2, 7):
            whole, drawn = (target[rows] == label).sum(), (target[subset] == label).sum()
            assert drawn >= 1
            assert drawn == 1 or abs(drawn - whole * fraction) < 1


def test_the_papers_balanced_low_data_sizes_come_out() -> None:
    for positives, sizes in ((1000, {0.1: 200, 0.01: 20}), (2000, {0.1: 400, 0.01: 40})):
        target = np.repeat([0, 1], positives)
        subsets = nested_subsets(target, np.arange(2 * positives), seed=5)
        assert {fraction: len(subset) for fraction, subset in subsets.items()} == sizes
        assert all(target[subset].mean() == 0.5 for subset in subsets.values())


def test_many_small_classes_add_up_to_the_fraction() -> None:
    target = np.repeat(np.arange(1000), 25)  # a tenth of 25 rounds to 2 or 3
    assert len(nested_subsets(target, np.arange(25000), (0.1,))[0.1]) == pytest.approx(2500, abs=80)  # 5 deviations


def test_a_smallest_number_a_class_is_kept_or_all_it_has() -> None:
    target = np.repeat([0, 1], [100, 2])
    subset = nested_subsets(target, np.arange(102), (0.01,), min_per_class=3)[0.01]
    assert np.bincount(target[subset]).tolist() == [3, 2]


def test_subsets_depend_on_the_seed_and_not_on_the_order_of_the_rows(classes: tuple) -> None:
    target, rows = classes
    once = nested_subsets(target, rows, (0.1,), seed=1)[0.1]
    assert np.array_equal(once, nested_subsets(target, rows[::-1], (0.1,), seed=1)[0.1])
    assert not np.array_equal(once, nested_subsets(target, rows, (0.1,), seed=2)[0.1])


def test_labels_per_class_are_exact_and_nested(classes: tuple) -> None:
    target, rows = classes
    subsets = labels_per_class(target, rows, (1, 3, 2), seed=1)
    for count, subset in subsets.items():
        assert np.unique(target[subset], return_counts=True)[1].tolist() == [count] * 4
        assert set(subset) <= set(rows)
    assert set(subsets[1]) < set(subsets[2]) < set(subsets[3])
    assert not np.array_equal(subsets[1], labels_per_class(target, rows, (1,), seed=2)[1])


def test_subsets_that_cannot_be_drawn_are_refused() -> None:
    target, rows = np.array([0, 0, 1, -1]), np.arange(4)
    with pytest.raises(ValueError, match=r"^fractions must be above 0 and at most 1, got \[0\.1, 0\]$"):
        nested_subsets(target, rows, (0.1, 0))
    with pytest.raises(ValueError, match=r"^counts must be positive, got \[0, 1\]$"):
        labels_per_class(target, rows, (0, 1))
    with pytest.raises(ValueError, match=r"^class 1 has 1 rows, fewer than the 2 labels asked for$"):
        labels_per_class(target, rows, (1, 2))
    with pytest.raises(ValueError, match=r"^no row has a label$"):
        nested_subsets(target, rows[3:])
    for wrong in (np.array([1, 1]), np.array([-1]), np.array([4])):
        with pytest.raises(ValueError, match=r"^rows must be distinct indices into the 4 targets$"):
            nested_subsets(target, wrong)
