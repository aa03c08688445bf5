"""Seeded stratified splits: shares within and over strata, and one split written out."""

import numpy as np
import pytest

from shared.data.splits import stratified_split

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
