"""Injection and recovery: where copies are put, which classes come back, and the smallest that does."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from galaxy_clusters.clustering.leaves import condense, select
from galaxy_clusters.clustering.tree import spanning_tree
from galaxy_clusters.evaluation.injection import detectability, inject, smallest_findable
from shared.data.problems import DataError

Points = NDArray[np.float32]


def survey(rows: int = 600) -> Points:
    widths = np.array([3, 1, 1, 0.01])
    return (np.random.default_rng(0).normal(size=(rows, 4)) * widths).astype(np.float32)


def chain(x: Points) -> NDArray[np.int64]:
    # Leaves would be pieces of a class here: copies at one distance are a shell in so few dimensions.
    return select(condense(spanning_tree(x, 10), 10), "eom").labels


def table(recovered: dict[int, tuple[int, int]]) -> pd.DataFrame:
    rows = [
        {"scatter": 0.5, "count": count, "recovered": number < found}
        for count, (found, tried) in recovered.items()
        for number in range(tried)
    ]
    return pd.DataFrame(rows)


def test_copies_lie_at_the_scattered_length_along_the_local_covariance() -> None:
    x = survey()
    made = inject(x, 5, 400, 0.7, seed=3)
    assert made.shape == (1000, 4)
    assert made.dtype == x.dtype
    assert np.array_equal(made[:600], x)
    tenth = np.sort(np.linalg.norm(x.astype(float) - x[5], axis=1))[10]  # the galaxy itself is the first
    moved = made[600:].astype(float) - x[5]
    assert np.allclose(np.linalg.norm(moved, axis=1), 0.7 * tenth, rtol=1e-4)
    assert np.abs(moved.mean(0)).max() < 0.1 * tenth  # around the galaxy, not towards its neighbours
    assert moved[:, 3].std() < 0.05 * moved[:, 0].std()  # the sample is flat there
    assert np.array_equal(made, inject(x, 5, 400, 0.7, seed=3))
    assert not np.array_equal(made, inject(x, 5, 400, 0.7, seed=4))
    near, far = (inject(x, 5, 3, scatter, seed=3)[600:].astype(float) - x[5] for scatter in (0.2, 0.4))
    assert np.allclose(far, 2 * near, atol=1e-5)  # the same directions
    with pytest.raises(DataError, match="100 rows are too few for neighbours = 100"):
        inject(x[:100], 5, 3, 1, 0)


def test_large_tight_classes_come_back_and_small_or_loose_ones_do_not(tmp_path: Path) -> None:
    x, path = survey(), tmp_path / "injection.jsonl"
    found = detectability(x, chain, [4, 20, 60], [0.3, 8.0], [0, 1, 2, 3], path)
    assert len(found) == 24
    shares = found.groupby(["scatter", "count"])["recovered"].mean()
    assert shares[0.3, 4] == 0  # fewer than min_samples
    assert shares[0.3, 60] >= 0.75
    assert shares[8.0].max() == 0
    assert (found["recovered"] == (found["jaccard"] > 0.5)).all()
    assert (found["pieces"][found["recovered"]] >= 1).all()
    assert found.groupby(["seed", "count"])["seed_row"].nunique().max() == 1  # the same galaxy at both scatters
    assert found.groupby("count")["seed_row"].nunique().min() > 1

    def never(x: Points) -> NDArray[np.int64]:
        raise AssertionError("the chain ran")

    pd.testing.assert_frame_equal(found, detectability(x, never, [4, 20, 60], [0.3, 8.0], [0, 1, 2, 3], path))
    small, _, _ = smallest_findable(found, 0.3)
    assert 4 < small <= 60
    assert smallest_findable(found, 8.0).members == np.inf


def test_more_injected_than_a_fifth_is_refused() -> None:
    with pytest.raises(DataError) as error:
        detectability(survey(200), chain, [10, 31], [1.0], [0])
    assert str(error.value) == (
        "41 injected galaxies beside 200 would change the whole: inject at most 40 in all, or in several calls"
    )


def test_the_smallest_findable_class_by_hand() -> None:
    shares = table({10: (0, 10), 20: (5, 10), 40: (10, 10)})
    z2 = 1.959964**2
    half = (z2 * 0.25 / 10 + z2**2 / 400) ** 0.5 / (1 + z2 / 10)
    uppers, lowers = (z2 / (10 + z2), 0.5 + half, 1.0), (0.0, 0.5 - half, 10 / (10 + z2))
    found = smallest_findable(shares, 0.5, 0.5)
    assert found.members == pytest.approx(20)
    assert found.low == pytest.approx(10 * 2 ** ((0.5 - uppers[0]) / (uppers[1] - uppers[0])))
    assert found.high == pytest.approx(20 * 2 ** ((0.5 - lowers[1]) / (lowers[2] - lowers[1])))
    surely = smallest_findable(shares, 0.5, 0.9)
    assert surely.members == pytest.approx(20 * 2**0.8)
    assert surely.high == np.inf  # ten of ten do not show nine in ten
    # Chance made 20 worse than 10: together they are found in half of the cases.
    assert smallest_findable(table({10: (6, 10), 20: (4, 10), 40: (9, 10)}), 0.5, 0.7).members == pytest.approx(
        20 * 2 ** (0.2 / 0.4)
    )
    assert smallest_findable(table({10: (9, 10), 20: (10, 10)}), 0.5).members == 10
    assert smallest_findable(table({10: (1, 10), 20: (2, 10)}), 0.5).members == np.inf


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(DataError, match=r"^nothing was injected with scatter 0.7, only with 0.5$"):
        smallest_findable(table({10: (1, 2)}), 0.7)
    with pytest.raises(ValueError, match=r"^share must lie strictly between 0 and 1, got 1$"):
        smallest_findable(table({10: (1, 2)}), 0.5, 1)
