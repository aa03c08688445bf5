"""The smooth null: as dense as the data and without small structure; p-values that are uniform where nothing is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from galaxy_clusters.clustering.chain import fingerprint
from galaxy_clusters.clustering.leaves import Clusters, condense, select
from galaxy_clusters.clustering.tree import spanning_tree
from galaxy_clusters.evaluation import replicated
from galaxy_clusters.evaluation.null import (
    against_null,
    check_resample,
    family_wise_p,
    fit_smooth,
    null_statistics,
    permuted,
    prominence,
    smooth_resample,
)
from shared.data.problems import DataError

Points = NDArray[np.float32]
Continuum = Callable[[np.random.Generator, int], Points]


def chain(x: Points) -> Clusters:
    """A cheap one, without a layout, that finds some leaves in anything."""
    return select(condense(spanning_tree(x, 4), 5))


def flat(seed: int, rows: int = 400) -> Points:
    return np.random.default_rng(seed).standard_normal((rows, 4), np.float32)


def with_clump(seed: int, members: int) -> Points:
    rng = np.random.default_rng(seed)
    x = flat(seed)
    return np.concatenate([x, x[7] + rng.normal(scale=0.15, size=(members, 4)).astype(np.float32)])


def sheet(rng: np.random.Generator, rows: int) -> Points:
    """A curved sheet of four dimensions in 128, a little thick."""
    place = rng.uniform(-1, 1, (rows, 4)) @ rng.normal(size=(4, 128))
    bent = np.sin(place + rng.uniform(0, 2 * np.pi, 128)) * 3 / 128**0.5
    return (bent + rng.normal(scale=0.03, size=bent.shape)).astype(np.float32)


def heavy(rng: np.random.Generator, rows: int) -> Points:
    """Ten factors and 128 columns, all with the tails of Student's t with three degrees of freedom."""
    factors = rng.standard_t(3, (rows, 10)) @ rng.normal(scale=10**-0.5, size=(10, 128))
    return (factors + 0.1 * rng.standard_t(3, (rows, 128))).astype(np.float32)


def broad(rng: np.random.Generator, rows: int) -> Points:
    """Three wide densities that overlap, each along axes of its own."""
    which = rng.integers(3, size=rows)
    axes = rng.normal(scale=8**-0.5, size=(3, 8, 128))
    inside = np.einsum("ni,nij->nj", rng.normal(size=(rows, 8)), axes[which])
    middle = rng.normal(scale=0.5, size=(3, 128))[which]
    return (middle + inside + rng.normal(scale=0.05, size=inside.shape)).astype(np.float32)


@pytest.mark.parametrize("continuum", [sheet, heavy, broad])
def test_a_resample_of_a_continuum_is_as_dense_as_it(continuum: Continuum) -> None:
    x = continuum(np.random.default_rng(0), 800)
    null = fit_smooth(x, 100)
    checks = [check_resample(x, null.draw(len(x), seed)) for seed in (5, 6)]
    assert all(check.fair for check in checks), checks


def test_a_resample_keeps_centre_and_width_and_is_not_the_data() -> None:
    x = flat(0, 1500) * np.array([1, 2, 0.5, 1], np.float32) + 3
    made = smooth_resample(x, 150, seed=1)
    assert made.shape == x.shape
    assert made.dtype == x.dtype
    assert np.abs(made.mean(0) - x.mean(0)).max() < 0.15
    assert np.abs(made.std(0) / x.std(0) - 1).max() < 0.1
    assert np.array_equal(made, smooth_resample(x, 150, seed=1))
    assert not np.array_equal(made, smooth_resample(x, 150, seed=2))


def test_a_resample_has_no_clump() -> None:
    x = with_clump(0, 40)
    null = fit_smooth(x, 100)
    inside = [np.sum(np.linalg.norm(made - x[7], axis=1) < 0.4) for made in (x, null.draw(len(x), 1), flat(5, 440))]
    assert inside[0] >= 30
    assert inside[1] <= inside[2] + 8


def test_columns_are_permuted_each_for_itself() -> None:
    x = np.repeat(np.arange(200, dtype=np.float32)[:, None], 3, 1)
    made = permuted(x, 0)
    assert np.array_equal(np.sort(made, 0), x)
    assert abs(np.corrcoef(made, rowvar=False)[0, 1]) < 0.3


def test_a_resample_that_is_too_tight_gets_no_p_and_runs_no_chain() -> None:
    x = flat(0)
    assert check_resample(x, x).reason == (
        "median distances to the 10th and 50th neighbour are 1.000 and 1.000 of the data's: within 5%"
    )
    tight = check_resample(x, x * np.float32(0.9))
    assert not tight.fair
    assert tight.reason == (
        "median distances to the 10th and 50th neighbour are 0.900 and 0.900 of the data's: more than 5% off, so no "
        "p-value is given"
    )
    # Pairs: the 10th neighbour is within a string of 12 copies, the 50th is not, and no local Gaussian is so.
    strings = np.repeat(flat(1, 40), 12, 0) + np.random.default_rng(0).normal(scale=1e-3, size=(480, 4))

    def never(x: Points) -> Clusters:
        raise AssertionError("the chain ran")

    strings = strings.astype(np.float32)
    found = against_null(strings, chain(strings), never, neighbours=100)
    assert not found.check.fair
    assert found.clusters == ()
    assert found.table["p_family"].isna().all()
    assert found.table["expected_false"].isna().all()
    assert (found.table["statistic"] > 0).all()


def test_p_is_uniform_on_continua_and_small_for_clumps() -> None:
    def smallest(x: Points, seed: int) -> tuple[float, NDArray[np.int64]]:
        clusters = chain(x)
        null = fit_smooth(x, 100, seed)
        table = family_wise_p(prominence(clusters), null_statistics(null, chain, len(x), 9, seed))
        return float(table["p_family"].min()), clusters.labels

    values = np.array([smallest(flat(seed), seed)[0] for seed in range(16)])
    # Of 16 uniform values on 0.1, 0.2, ... 1: more than 5 at 0.1 have probability 0.003, a mean below 0.36 0.005.
    assert np.count_nonzero(values <= 0.1) <= 5
    assert 0.36 < values.mean() < 0.8
    for seed in range(3):
        p, labels = smallest(with_clump(seed, 30), seed)
        assert p == 0.1
        assert np.bincount(labels[400:] + 1).argmax() > 0  # found as a cluster


def test_prominence_is_the_mean_contrast_times_the_root_of_the_size() -> None:
    clusters = chain(with_clump(0, 30))
    values = prominence(clusters)
    for cluster, row in clusters.table.iterrows():
        own = clusters.labels == cluster
        lambdas = clusters.strength[own] * row["death"]
        assert values[cluster] == pytest.approx(np.log(lambdas / row["birth"]).mean() * own.sum() ** 0.5)
    assert np.allclose(prominence(chain(with_clump(0, 30) * np.float32(8))), values, rtol=1e-4)  # of any scale
    assert prominence(select(condense(spanning_tree(flat(0, 30), 20), 10))).shape == (0,)


def test_family_wise_p_by_hand() -> None:
    replicates = [np.array([1.0, 4.0]), np.array([3.0, 3.0]), np.array([]), np.array([2.0])]
    table = family_wise_p(np.array([5.0, 3.0, 2.0]), replicates)
    assert table["p_family"].tolist() == [1 / 5, 3 / 5, 4 / 5]
    assert table["expected_false"].tolist() == [0.0, 3 / 4, 1.0]
    assert family_wise_p(np.array([]), replicates).empty
    with pytest.raises(ValueError, match=r"^a p-value needs at least one resample$"):
        family_wise_p(np.array([1.0]), [])


def test_too_few_rows_and_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="100 rows are too few for neighbours = 200"):
        fit_smooth(flat(0, 100))
    with pytest.raises(ValueError, match=r"^a resample of shape \(99, 4\) cannot be compared .* of shape \(100, 4\)$"):
        check_resample(flat(0, 100), flat(0, 99))


def test_copies_and_constant_columns_give_finite_resamples() -> None:
    x = np.concatenate([np.tile(flat(0, 1), (150, 1)), flat(1, 150)])
    x[:, 2] = 1
    made = smooth_resample(x, 60)
    assert np.isfinite(made).all()
    assert np.allclose(made[:, 2], 1, atol=1e-4)


def test_a_killed_loop_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "evidence" / "null.jsonl"
    null = fit_smooth(flat(0, 200), 60)
    calls = []

    def counted(x: Points) -> Clusters:
        calls.append(fingerprint(x))
        return chain(x)

    whole = null_statistics(null, counted, 200, 4, 0, path, {"min_samples": 4})
    bytes_ = path.read_bytes()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))  # settings and two results
    again = null_statistics(null, counted, 200, 4, 0, path, {"min_samples": 4})
    assert path.read_bytes() == bytes_
    assert len(calls) == 6
    assert len(set(calls)) == 4
    assert all(np.array_equal(one, other) for one, other in zip(whole, again, strict=True))
    with pytest.raises(DataError) as error:
        null_statistics(null, chain, 200, 4, 1, path, {"min_samples": 5})
    assert str(error.value) == (
        f"{path} holds results of other settings (other min_samples, seed): delete it or use another folder"
    )
    path.write_text("{")
    with pytest.raises(DataError) as error:
        replicated(float, 2, "test", path)
    assert str(error.value) == f"{path} is no file of results, one JSON line each: delete it"
