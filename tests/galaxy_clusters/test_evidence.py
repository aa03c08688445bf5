"""Evidence beside the null: stability, enrichment, systematics, independence of votes, agreement of encoders."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom, mannwhitneyu

from galaxy_clusters.evaluation import independence as independence_module
from galaxy_clusters.evaluation.agreement import agreement
from galaxy_clusters.evaluation.enrichment import against_patches, enrichment, neighbour_purity, random_patches
from galaxy_clusters.evaluation.independence import independence, within_answer
from galaxy_clusters.evaluation.stability import (
    Rerun,
    density_validity,
    kept_when_changed,
    seeds,
    stability,
    subsamples,
)
from galaxy_clusters.evaluation.systematics import distinct_systems, flags, systematics
from shared.data.problems import DataError

Points = NDArray[np.float32]
Labels = NDArray[np.int64]


def islands(seed: int = 0, size: int = 40) -> tuple[Points, Labels]:
    """Two clusters and galaxies between them, in two dimensions."""
    rng = np.random.default_rng(seed)
    middle = np.array([[0, 0], [10, 0], [5, 8]])
    x = np.repeat(middle, size, 0) + rng.normal(scale=[[0.3]] * 2 * size + [[4.0]] * size, size=(3 * size, 2))
    return x.astype(np.float32), np.repeat([0, 1, -1], size)


def by_place(x: Points) -> Labels:
    """A perfect chain for `islands`, with names of its own."""
    near = [np.linalg.norm(x - centre, axis=1) < 1.5 for centre in ([0, 0], [10, 0])]
    return np.where(near[0], 7, np.where(near[1], 3, -1)).astype(np.int64)


def test_a_perfect_chain_is_stable_and_a_random_one_is_not(tmp_path: Path) -> None:
    x, _ = islands()
    labels = by_place(x)
    table = stability(labels, subsamples(x, by_place, 6, seed=1))
    assert table.index.tolist() == [3, 7]
    assert (table["stability"] == 1).all()
    assert (table["stability_low"] < 1).all()  # six runs do not show that it always is
    assert (table["runs"] == 6).all()

    def random(x: Points, seed: int) -> Labels:
        return np.random.default_rng(seed).permutation(by_place(x))

    reruns = seeds(x, random, [1, 2, 3], tmp_path / "seeds.jsonl")
    assert stability(labels, reruns)["stability"].max() < 0.4
    assert np.array_equal(reruns[1].labels, random(x, 2))


def test_subsamples_are_without_replacement_and_resume(tmp_path: Path) -> None:
    x, _ = islands()
    calls: list[Points] = []

    def kept(x: Points) -> Labels:
        calls.append(x)
        return by_place(x)

    runs = subsamples(x, kept, 3, seed=1, path=tmp_path / "runs.jsonl")
    assert all(len(np.unique(rows)) == len(rows) == 96 for rows, _ in runs)
    assert all(np.array_equal(x[rows], held) for (rows, _), held in zip(runs, calls, strict=True))
    assert not np.array_equal(runs[0].rows, runs[1].rows)
    more = subsamples(x, kept, 4, seed=1, path=tmp_path / "runs.jsonl")
    assert len(calls) == 4
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(runs, more[:3], strict=True))


def test_stability_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, -1])
    reruns = [
        Rerun(np.array([0, 1, 2, 5]), np.array([4, 4, -1, 4])),  # 2 of 4
        Rerun(np.array([0, 1, 2, 3]), np.array([2, 2, 2, 2])),  # 4 of 4, and nothing of cluster 1
        Rerun(np.array([0, 4, 5]), np.array([-1, 8, 8])),  # none; 1 of 2
    ]
    table = stability(labels, reruns)
    assert table["stability"].tolist() == [0.5, 0.5]
    assert table["runs"].tolist() == [3, 1]
    assert table["stability_low"].isna().tolist() == [False, True]
    with pytest.raises(DataError, match=r"^there are no other runs to compare with: ask for at least 2$"):
        stability(labels, [])
    assert stability(np.full(6, -1), reruns).empty


def test_a_cluster_of_one_rotation_is_found_out() -> None:
    rng = np.random.default_rng(0)
    x, labels = islands()
    turned = x + rng.normal(scale=0.05, size=x.shape).astype(np.float32)
    turned[labels == 1] += 40  # what it shares is how its galaxies lie in their images
    table = kept_when_changed(x, turned, labels)
    assert table.loc[0, "kept"] == 1
    assert table.loc[1, "kept"] == 0 or table.loc[1, "kept"] < 0.2
    assert (table["kept_unchanged"] == 1).all()
    assert table.loc[0, "moved"] < 1 < table.loc[1, "moved"]
    # Every galaxy's own vector is left out: with k = 1, a pair in which each has another label never agrees.
    pairs = np.array([[0.0], [0.1], [5.0], [5.1]], np.float32)
    assert kept_when_changed(pairs, pairs, np.array([0, 1, 0, 1]), k=1)["kept"].tolist() == [0, 0]
    with pytest.raises(DataError) as error:
        kept_when_changed(x, x[1:], labels)
    assert str(error.value) == "representations of the same galaxies must have one shape, got (120, 2) and (119, 2)"


def test_density_validity_is_a_number_or_says_why_not() -> None:
    x, labels = islands()
    good, mixed = density_validity(x, labels), density_validity(x, np.arange(120) % 2)
    assert 0.4 < good.value <= 1
    assert good.undefined == ""
    assert -1 <= mixed.value < 0
    assert density_validity(np.repeat(x, 30, 0), np.repeat(labels, 30)).value == pytest.approx(good.value)
    assert density_validity(x, np.where(labels == 0, 0, -1)).undefined == "it compares clusters, and there is one"
    assert density_validity(x, np.full(120, -1)).undefined == "it compares clusters, and there are none"
    tiny = np.where(np.arange(120) < 2, 1, np.where(labels == 0, 0, -1))
    assert density_validity(x, tiny).undefined == "cluster 1 has fewer than 3 members at different places"
    wide = np.random.default_rng(0).normal(size=(80, 400)).astype(np.float32)
    wide[40:] = wide[40:] * 0.001 + 50
    assert density_validity(wide, np.repeat([0, 1], 40)).undefined == "the densities overflow in 400 dimensions"
    wide[40:] = (wide[40:] - 50) * 1000 + 50
    assert 0.5 < density_validity(wide, np.repeat([0, 1], 40)).value <= 1
    for scale in (1e-6, 1e6):  # of any scale
        assert density_validity(x * np.float32(scale), labels).value == pytest.approx(good.value, abs=1e-4)


def test_enrichment_equals_scipy_and_is_corrected() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, -1], [20, 30, 150])
    merger = pd.Series(rng.random(200) < 0.1, dtype="boolean")
    merger[:12] = True
    merger[199] = pd.NA
    mass = pd.Series(rng.normal(size=200))
    mass[labels == 1] += 1.5
    mass[150] = np.nan
    x = np.column_stack([np.arange(200), np.zeros(200)]).astype(np.float32)  # clusters are neighbours
    table = enrichment(x, labels, pd.DataFrame({"merger": merger, "mass": mass}), draws=60)
    assert table[["cluster", "attribute", "size"]].to_numpy().tolist() == [
        [0, "merger", 20], [1, "merger", 30], [0, "mass", 20], [1, "mass", 30]
    ]  # fmt: skip
    hits, total = int(merger[:20].sum()), int(merger.sum())
    expected = sum(hypergeom.pmf(k, 199, total, 20) for k in range(hits, 21))
    assert table.loc[0, "p"] == pytest.approx(expected)
    assert table.loc[0, "value"] == pytest.approx(hits / 20)
    assert table.loc[0, "sample"] == pytest.approx(total / 199)
    rest = mass[(labels != 1) & mass.notna()]
    assert table.loc[3, "p"] == pytest.approx(mannwhitneyu(mass[labels == 1], rest).pvalue)
    p = table["p"].to_numpy()
    order = np.argsort(p)
    by_hand = np.minimum(np.maximum.accumulate(p[order] * [4, 3, 2, 1]), 1)
    assert table["p_holm"].to_numpy()[order] == pytest.approx(by_hand)
    assert table["p_holm"].max() <= 1
    best = []
    for draw in range(60):
        patches = [np.setdiff1d(rows, [199]) for rows in random_patches(x, [20, 30], (0, draw))]
        best.append(min(hypergeom.sf(merger[rows].sum() - 1, 199, total, len(rows)) for rows in patches))
    shares = [np.mean(np.array(best) <= p * (1 + 1e-9)) for p in table["p"][:2]]
    assert table["patches_as_good"][:2].tolist() == pytest.approx(shares)
    assert 0 < shares[0] < 0.5 < shares[1]
    scattered = enrichment(
        x, labels, pd.DataFrame({"merger": merger.sample(frac=1, random_state=0).reset_index(drop=True)})
    )
    assert scattered["patches_as_good"].min() > 0.2
    unknown = enrichment(x, labels, pd.DataFrame({"mass": mass.where(labels < 0)}), draws=3)
    assert unknown[["p", "patches_as_good"]].isna().all(axis=None)


def test_attributes_of_other_kinds_are_refused() -> None:
    with pytest.raises(DataError) as error:
        enrichment(np.zeros((3, 1)), np.array([0, 0, -1]), pd.DataFrame({"class": ["ring", "bar", "arm"]}))
    assert str(error.value) == (
        "the attribute class is neither true or false nor a number: make a column of each of its classes"
    )
    with pytest.raises(DataError, match=r"^there are 2 labels and 1 rows of attributes: give one row a galaxy$"):
        enrichment(np.zeros((2, 1)), np.array([0, 0]), pd.DataFrame({"a": [1.0]}))


def test_random_patches_are_a_galaxy_and_its_nearest() -> None:
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    for rows in random_patches(x, [5, 20, 5], 1):
        distance = np.linalg.norm(x - x[rows[0]], axis=1)
        assert set(rows) == set(np.argsort(distance)[: len(rows)])
    with pytest.raises(DataError, match="300 rows are too few for the size of a patch = 300"):
        random_patches(x, [300], 0)


def test_a_leaf_counts_only_if_random_patches_do_worse() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype(np.float32)
    half = x[:, 0] > 0.8  # a class that fills one side of the space: any patch there is full of it
    anywhere = np.where(np.linalg.norm(x - [1.6, 0], axis=1) < 0.5, 0, -1)
    found = against_patches(x, anywhere, half, draws=60)
    assert found.p < 1e-6
    assert 0.05 < found.share < 0.5  # which that p-value does not say
    # Ten clusters, one of which holds just a class that is scattered over the space: no patch does.
    scattered = np.zeros(600, bool)
    scattered[:25] = True
    labels = np.where(scattered, 0, 1 + np.arange(600) % 9)
    best = against_patches(x, labels, scattered, draws=60)
    assert (best.cluster, best.size, best.hits, best.share) == (0, 25, 25, 0.0)
    assert best.p == pytest.approx(hypergeom.sf(24, 600, 25, 25))
    assert best.p < best.patch_p
    assert best.base_rate == pytest.approx(25 / 600)
    # As good as any patch: the leaves are patches.
    leaves = np.full(600, -1)
    for label, rows in enumerate(random_patches(x, [30] * 12, 99)):
        leaves[rows] = label
    assert against_patches(x, leaves, half, draws=60).share > 0.02
    none = against_patches(x, np.full(600, -1), half)
    assert none.cluster == -1
    assert np.isnan(none.share)


def test_neighbour_purity_by_hand() -> None:
    x = np.array([[0.0], [1.0], [2.1], [10.0], [11.0], [12.1]], np.float32)
    found = neighbour_purity(x, np.array([True, True, False, False, False, False]), k=2)
    assert found.value == pytest.approx(0.5)
    assert found.base_rate == pytest.approx(1 / 5)
    assert found.low <= found.value <= found.high
    with pytest.raises(DataError, match=r"^the class has no member, so its neighbours have no purity$"):
        neighbour_purity(x, np.zeros(6, bool))


def test_systematics_name_the_column_and_how() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, -1], [50, 50, 900])
    frame = pd.DataFrame(
        {
            "brick": rng.integers(100, size=1000),
            "run": np.array(["a", "b", None], object)[rng.integers(3, size=1000)],
            "psf": rng.normal(1.2, 0.1, 1000),
            "position_angle": rng.uniform(0, 180, 1000),
        }
    )
    frame.loc[:30, "brick"] = 777
    frame.loc[50:99, "psf"] += 0.3
    frame.loc[50:99, "position_angle"] = rng.normal(0, 8, 50) % 180  # about the seam
    table = systematics(labels, frame, ["brick", "run"], ["psf", "position_angle"], {"position_angle": 180})
    assert len(table) == 8
    row = table.set_index(["cluster", "column"])
    assert row.loc[(0, "brick"), "flag"] == "62% in one brick, 777 (3.1% of the sample)"
    assert row.loc[(0, "brick"), "statistic"] == 31 / 50
    assert row.loc[(0, "brick"), "distinct"] == frame["brick"][:50].nunique()
    assert row.loc[(0, "brick"), "p"] == pytest.approx(hypergeom.sf(30, 1000, 31, 50) * 101, rel=1e-6)
    found = flags(table)
    assert found[0] == "62% in one brick, 777 (3.1% of the sample)"
    assert found[1] == (
        f"position_angle is not spread as that of the others; psf {frame['psf'][50:100].median():.3g} against "
        f"{frame['psf'].drop(range(50, 100)).median():.3g} (medians)"
    )
    drawn = [len(np.unique(rng.choice(frame["brick"], 50, replace=False))) for _ in range(300)]
    assert row.loc[(1, "brick"), "expected_distinct"] == pytest.approx(np.mean(drawn), abs=0.5)
    assert row.loc[(0, "run"), "size"] == frame["run"][:50].notna().sum()


def test_systematics_raise_no_false_alarms() -> None:
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"run": rng.geometric(0.2, 500), "size": rng.lognormal(size=500)})
        frame["angle"] = rng.uniform(0, 180, 500)
        labels = rng.permutation(np.repeat([0, 1, 2, -1], [20, 40, 80, 360]))
        alarms += (flags(systematics(labels, frame, ["run"], ["size", "angle"], {"angle": 180})) != "").any()
    assert alarms <= 6  # of 40 at 5%, more have probability 0.003


def test_systematics_refuse_what_they_cannot_test() -> None:
    labels, frame = np.array([0, -1]), pd.DataFrame({"brick": ["a", "b"]})
    with pytest.raises(DataError, match=r"^the catalogue has no column camcol; it has brick$"):
        systematics(labels, frame, ["camcol"], [])
    with pytest.raises(DataError, match=r"^the column brick holds more than numbers: name it among the categories$"):
        systematics(labels, frame, [], ["brick"])
    with pytest.raises(DataError, match=r"^there are 2 labels and 1 rows of the catalogue: give one row a galaxy$"):
        systematics(labels, frame[:1], ["brick"], [])
    assert flags(systematics(np.array([-1, -1]), frame, ["brick"], [])).empty


def test_a_shredded_galaxy_is_one_system() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, -1])
    systems = np.array([5, 5, 5, 6, 7, 8, -1, 9])
    table = distinct_systems(labels, systems)
    assert table["systems"].tolist() == [2, 2, "unknown"]
    assert table["largest_system"].tolist()[:2] == [0.75, 0.5]
    assert np.isnan(table["largest_system"][2])
    assert distinct_systems(labels, None)["systems"].tolist() == ["unknown"] * 3


def votes(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    return rng.dirichlet([1, 1, 1, 1], rows)


def test_independence_is_decided_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(independence_module, "PERMUTATIONS", 24)
    rng = np.random.default_rng(0)
    fractions = votes(rng, 400)
    free = independence(fractions, rng.integers(2, size=400), seed=0)
    assert free.word == "independent", free
    assert free.upper < 0.6
    assert free.p >= 0.05
    assert 0.5 < free.detectable < 0.6
    bound = independence(fractions, (fractions[:, 0] > 0.3).astype(int), seed=0)
    assert bound.word == "dependent"
    assert bound.p == 1 / 25
    assert bound.balanced_accuracy > 0.85
    # A cluster of middling votes, which no straight line separates.
    middling = (np.abs(fractions[:, 0] - 0.25) < 0.12).astype(int)
    assert independence(fractions, middling, seed=0).word == "dependent"
    few = independence(fractions[:30], np.repeat([0, 1], [24, 6]), seed=0)
    assert few.word == "not decided", few
    assert few.detectable > 0.65


def test_within_an_answer_clusters_of_too_few_count_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(independence_module, "PERMUTATIONS", 3)
    fractions = votes(np.random.default_rng(0), 60)
    share = np.repeat([0.29, 0.3], [20, 40])
    labels = np.repeat([7, 0, 1, 2, -1], [20, 18, 15, 4, 3])
    found, count = within_answer(fractions, share, labels)
    assert (count, found.counts) == (40, (7, 18, 15))  # the four, and those in none
    labels[-7:-3] = 1
    found, count = within_answer(fractions, share, labels)
    assert (count, found.counts) == (40, (18, 19))  # three in none are too few to tell
    none, count = within_answer(fractions, share - 0.3, labels)
    assert (count, none.word) == (0, "not decided")


def test_too_few_for_folds_are_not_decided() -> None:
    fractions = votes(np.random.default_rng(0), 40)
    found = independence(fractions, np.repeat([0, 1], [37, 3]))
    assert (found.word, found.reason) == (
        "not decided", "the smallest class has 3 galaxies, and 5 of each of two classes are needed"
    )  # fmt: skip
    assert independence(fractions, np.zeros(40, int)).reason == (
        "there is one class, and 5 of each of two classes are needed"
    )


def test_few_predictions_that_are_all_wrong_leave_the_upper_end_high() -> None:
    upper = independence_module._upper(np.array([1.0, 0.0]), np.array([200, 5]), np.random.default_rng(0))
    assert upper > 0.6
    assert independence_module._upper(np.array([1.0]), np.array([3]), np.random.default_rng(0)) < 1


def test_the_detectable_accuracy_has_its_power() -> None:
    counts, critical = np.array([60, 25]), 0.61
    value = independence_module._detectable(critical, counts)
    rng = np.random.default_rng(0)
    found = rng.binomial(counts, value, (20_000, 2)) / counts
    assert (found.mean(1) >= critical).mean() == pytest.approx(0.8, abs=0.03)


def test_votes_that_are_no_fractions_are_refused() -> None:
    said = (
        "row 1 of the votes holds a number that is no fraction in [0, 1]: give fractions, and 0 for the answers of a "
        "question that nobody was asked"
    )
    for bad in (np.nan, 3.0):
        with pytest.raises(DataError) as error:
            independence(np.array([[0.5, 0.5], [bad, 0]]), np.array([0, 1]))
        assert str(error.value) == said
    with pytest.raises(DataError, match=r"^votes of shape \(2, 1\) and 3 classes: give one row of fractions a galaxy$"):
        independence(np.zeros((2, 1)), np.zeros(3, int))


def test_agreement_is_above_chance_only_where_clusters_are_the_same() -> None:
    rng = np.random.default_rng(0)
    one = np.repeat([0, 1, 2, -1], [30, 50, 20, 900])
    same = agreement(one, np.where(one >= 0, 9 - one, -1), draws=40)
    assert same.information == pytest.approx(1)
    assert same.jaccard == 1
    assert same.matches["other"].tolist() == [9, 8, 7]
    assert (same.matches["chance_95"] < 0.2).all()
    assert 0.3 < same.information_chance < same.information_chance_95 < 0.6  # not 0, see the docstring
    above = [agreement(one, rng.permutation(one), draws=20, seed=seed) for seed in range(6)]
    assert sum(found.jaccard > found.jaccard_chance_95 for found in above) <= 2
    assert np.mean([found.jaccard for found in above]) == pytest.approx(above[0].jaccard_chance, abs=0.015)
    half = one.copy()
    half[:15] = -1
    assert agreement(one, half, draws=5).matches.loc[0, ["jaccard", "purity", "recall"]].tolist() == [0.5, 1.0, 0.5]


def test_clusterings_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError) as error:
        agreement(np.zeros(3, int), np.zeros(4, int))
    assert str(error.value) == "two clusterings of 3 and 4 galaxies: both must be of the same galaxies"
    with pytest.raises(DataError, match=r"^a clustering without a cluster agrees with nothing: compare two that have"):
        agreement(np.zeros(3, int), np.full(3, -1))
