"""Search by example, marks, near duplicates, outliers, and the assignment of new galaxies to frozen clusters."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from galaxy_clusters.clustering.chain import fingerprint
from galaxy_clusters.clustering.graph import NeighbourGraph, Scaling, neighbour_graph
from galaxy_clusters.evaluation.enrichment import neighbour_purity, random_patches
from galaxy_clusters.evaluation.found import Found
from galaxy_clusters.report.assign import assign, calibrate
from galaxy_clusters.report.search import extend_marks, near_duplicates, outliers, rows_of, search
from galaxy_clusters.verbs.assign import assign as assign_verb
from galaxy_clusters.verbs.search import outliers as outliers_verb
from galaxy_clusters.verbs.search import search as search_verb
from shared.data.embeddings import shard_path, write_embeddings
from shared.data.problems import DataError
from shared.metrics.clusters import UNASSIGNED

DIMS = 64


def survey(seed: int, bulk: int = 1200) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """A broad bulk (-1) and three clumps of 50 in a space of ten directions; with the clumps' centres."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(10, DIMS))
    centres = rng.normal(size=(3, 10)) @ basis
    clumps = np.repeat(centres, 50, 0) + 0.25 * rng.normal(size=(150, 10)) @ basis
    x = np.concatenate([rng.normal(size=(bulk, 10)) @ basis, clumps]) + 0.2 * rng.normal(size=(bulk + 150, DIMS))
    return x.astype(np.float32), np.repeat([-1, 0, 1, 2], [bulk, 50, 50, 50]), centres


def test_a_search_is_the_difference_of_cosines_and_leaves_the_marked_out() -> None:
    x = np.random.default_rng(0).normal(3, 1, (40, 6)).astype(np.float32)
    found = search(x, [3, 5], [7])
    cosine = 1 - cdist(x - x.mean(0, dtype=float), x - x.mean(0, dtype=float), "cosine")
    score = cosine[:, [3, 5]].mean(1) - 0.25 * cosine[:, 7]
    assert set(found.rows) == set(range(40)) - {3, 5, 7}
    np.testing.assert_allclose(found.score, score[found.rows], atol=1e-6)
    assert (np.diff(found.score) <= 0).all()
    assert found.how == "mean cosine to 2 like, less 0.25 of that to 1 unlike"
    assert search(x, [3]).how == "mean cosine to 1 like"
    with pytest.raises(DataError, match="a search needs a galaxy to start from: mark at least one with --like ID"):
        search(x, [], [7])


@pytest.mark.parametrize("seed", range(3))
def test_a_search_finds_the_class_also_when_look_alikes_are_marked_unlike(seed: int) -> None:
    x, truth, _ = survey(seed)
    wanted = truth == 1
    like = np.flatnonzero(wanted)[:4].tolist()
    first = search(x, like)
    look_alikes = first.rows[~wanted[first.rows]][:4].tolist()
    second = search(x, like, look_alikes)
    for found in (first, second):
        assert average_precision_score(wanted[found.rows], found.score) > 0.9


def test_an_unknown_id_is_an_error_with_the_one_most_like_it() -> None:
    known = ["588848901537202306", "588848901532418163"]
    assert rows_of(["588848901532418163", "588848901537202306"], known) == [1, 0]
    said = "there is no galaxy with the id '588848901537202307'; did you mean 588848901537202306?"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        rows_of(["588848901537202307"], known)


def test_marks_are_kept_in_a_file_and_the_later_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "search" / "marks.csv"
    known = ["007", "8", "9", "10"]
    assert extend_marks(path, ["007", "8"], ["9"], known) == {"007": "like", "8": "like", "9": "unlike"}
    assert extend_marks(path, ["9"], ["10"], known) == {"007": "like", "8": "like", "9": "like", "10": "unlike"}
    assert path.read_text() == "id,mark\n007,like\n8,like\n9,like\n10,unlike\n"
    assert [each.name for each in path.parent.iterdir()] == ["marks.csv"]
    with pytest.raises(DataError, match=r"^8 is marked both like and unlike: decide for one$"):
        extend_marks(path, ["8"], ["8"], known)
    with pytest.raises(DataError, match=r"^there is no galaxy with the id '100'; did you mean 10\?$"):
        extend_marks(path, ["100"], [], known)
    assert path.read_text() == "id,mark\n007,like\n8,like\n9,like\n10,unlike\n"
    path.write_text("id,mark\n8,like\n2,maybe\n")
    said = f"{path}: line 3 marks '2' as 'maybe', expected an id and like or unlike"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        extend_marks(path, [], [], known)
    for name, hint in (("80", "; did you mean 8?"), ("x", ": take that line out, or give another file with --marks")):
        path.write_text(f"id,mark\n9,like\n{name},unlike\n")
        said = f"{path}: line 3 marks the galaxy {name!r}, which is not among the embedded{hint}"
        with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
            extend_marks(path, ["8"], [], known)


def test_each_survey_has_its_own_marks(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for survey, start in (("a", "a"), ("b", "b")):
        ids = [f"{start}{number}" for number in range(20)]
        write_embeddings(tmp_path / survey / "x.parquet", ids, x)
        write_embeddings(shard_path(tmp_path / survey / "shards", 0, 1), ids, x)
    output = tmp_path / "search.csv"
    for embeddings, name, marks in (
        (tmp_path / "a" / "x.parquet", "a3", tmp_path / "a" / "marks.csv"),
        (tmp_path / "b" / "x.parquet", "b5", tmp_path / "b" / "marks.csv"),
        (tmp_path / "b" / "shards", "b7", tmp_path / "b" / "shards" / "marks.csv"),
    ):
        found = search_verb(embeddings, like=[name], output=output)
        assert marks.read_text() == f"id,mark\n{name},like\n"
        assert len(found) == 19
        assert len(search_verb(embeddings, output=output)) == 19  # the marks are still there
    said = (
        f"{tmp_path}/b/marks.csv: line 2 marks the galaxy 'b5', which is not among the embedded: take that line out, "
        "or give another file with --marks"
    )
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        search_verb(tmp_path / "a" / "x.parquet", marks=tmp_path / "b" / "marks.csv", output=output)


def test_near_duplicates_are_grouped_also_when_identical_ones_outnumber_the_neighbours() -> None:
    x = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
    x[100:120] = x[5]  # more than the graph has neighbours
    x[200] = x[7] + 1e-5
    groups = near_duplicates(neighbour_graph(x, 8), quantile=0.005)
    assert len(set(groups[[5, *range(100, 120)]])) == 1
    assert groups[200] == groups[7] != groups[5]
    assert (np.delete(groups, [5, 7, 200, *range(100, 120)]) == -1).all()
    assert set(groups) == {-1, 0, 1}


def test_outliers_have_a_robust_z_of_their_distance_to_the_nearest() -> None:
    x = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    x[13] = 40
    distance, z = outliers(neighbour_graph(x, 8), k=5)
    expected = np.sort(cdist(x.astype(float), x.astype(float)), 1)[:, 1:6].mean(1)
    np.testing.assert_allclose(distance, expected, rtol=1e-4)
    deviation = np.median(np.abs(expected - np.median(expected)))
    np.testing.assert_allclose(z, (expected - np.median(expected)) / (1.4826 * deviation), rtol=1e-3, atol=1e-3)
    assert z.argmax() == 13
    with pytest.raises(DataError, match=r"^the graph has 7 neighbours beside each galaxy, k is 8: lower k$"):
        outliers(neighbour_graph(x, 8), k=8)


def test_outliers_stay_finite_where_most_are_copies() -> None:
    x = np.zeros((60, 3), np.float32)
    x[:10] = np.random.default_rng(3).normal(size=(10, 3))
    _, z = outliers(neighbour_graph(x, 6), k=5)
    assert np.isfinite(z).all()
    assert z[:10].min() > z[10:].max()
    index = np.tile(np.arange(4, dtype=np.int32), (9, 1))
    assert outliers(NeighbourGraph(index, np.ones((9, 4), np.float32)), k=3)[1].tolist() == [0.0] * 9


def test_new_galaxies_get_their_clump_and_those_between_get_none() -> None:
    for seed in range(3):
        x, truth, centres = survey(seed)
        rule = calibrate(neighbour_graph(x, 12), truth)
        print(f"seed {seed}: kept {rule.kept:.3f}, right {rule.right:.3f}, share {rule.share:.2f}")
        assert 0.95 <= rule.kept < 0.98  # the strictest share that keeps 95%
        assert rule.right > 0.95
        rng = np.random.default_rng(100 + seed)
        held = rng.permutation(np.flatnonzero(truth >= 0))[:30]
        rest = np.setdiff1d(np.arange(len(x)), held)
        frozen = calibrate(neighbour_graph(x[rest], 12), truth[rest])
        found = assign(x[held], x[rest], truth[rest], frozen)
        assert (found.labels == truth[held]).mean() > 0.85
        assert set(found.labels) - {UNASSIGNED} <= {0, 1, 2}
        between = (centres[[0, 1, 2]] + centres[[1, 2, 0]]) / 2
        far = np.full((1, DIMS), 50.0)
        none = assign(np.concatenate([between, far]).astype(np.float32), x, truth, rule)
        assert (none.labels == UNASSIGNED).all()


def test_copies_of_a_member_are_assigned_and_far_ones_are_not_however_the_votes_are() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0, 1, (60, 5)), rng.normal(30, 1, (60, 5))]).astype(np.float32)
    labels = np.repeat([0, 1], 60)
    rule = calibrate(neighbour_graph(x, 12), labels, kept=0.9)
    found = assign(np.stack([x[3], x[70], x[3] - 12]), x, labels, rule)
    assert found.labels.tolist() == [0, 1, UNASSIGNED]
    assert found.share.tolist() == pytest.approx([1, 1, 1])  # all votes, and yet too far
    assert found.ratio[:2].tolist() == [0, 0]
    nearest = cdist(x[:60], x[:60]) + np.diag(np.full(60, np.inf))
    limit = np.quantile(nearest.min(1), 0.99)
    assert rule.limit[0] == pytest.approx(limit, rel=1e-5)
    assert found.ratio[2] == pytest.approx(np.linalg.norm(x[:60] - (x[3] - 12), axis=1).min() / limit, rel=1e-5)


def test_votes_are_weighted_by_distance_and_unassigned_neighbours_vote_for_none() -> None:
    x = np.array([[1.0], [2.0], [3.0], [4.0], [-1.5], [-2.5]], np.float32)
    labels = np.array([0, 0, UNASSIGNED, 0, 1, 1])
    distance = np.abs(x - x.T)
    index = np.argsort(distance, 1, kind="stable").astype(np.int32)
    rule = calibrate(NeighbourGraph(index, np.take_along_axis(distance, index, 1)), labels, k=4)
    found = assign(np.array([[0.0]], np.float32), x, labels, rule)
    weight = 1 - np.array([1.0, 1.5, 2.0, 2.5]) ** 2 / 3**2  # of 1, -1.5, 2 and -2.5; 3 sets the scale
    assert found.share[0] == pytest.approx(weight[[0, 2]].sum() / weight.sum())
    other = assign(np.array([[2.9]], np.float32), x, labels, rule)
    weight = 1 - np.array([0.1, 0.9, 1.1, 1.9]) ** 2 / 4.4**2  # of 3 (none), 2, 4 and 1; -1.5 sets the scale
    assert other.share[0] == pytest.approx(weight[1:].sum() / weight.sum())


def test_a_cluster_of_copies_has_members_at_distance_zero_only() -> None:
    x = np.random.default_rng(6).normal(size=(100, 5)).astype(np.float32)
    x[:15] = 7  # more than vote
    labels = np.repeat([0, -1], [15, 85])
    rule = calibrate(neighbour_graph(x, 12), labels)
    assert rule.limit == {0: 0.0}
    found = assign(np.array([[7.0] * 5, [7.01] * 5], np.float32), x, labels, rule)
    assert found.labels.tolist() == [0, UNASSIGNED]
    assert np.isfinite(found.share).all()
    assert found.ratio.tolist() == [0, np.inf]


def test_clusters_that_the_representation_does_not_hold_together_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(6)
    x, labels = rng.normal(size=(300, 5)).astype(np.float32), rng.integers(-1, 2, 300)
    rule = calibrate(neighbour_graph(x, 12), labels)
    assert rule.kept < 0.95
    assert rule.right < 0.5
    assert caplog.messages == [
        f"{100 * rule.kept:.0f}% of the clusters' members get their cluster back by their neighbours, fewer than the "
        "95% asked for: these clusters are not compact in the representation",
        f"{100 * rule.right:.0f}% of the frozen galaxies that the rule assigns are in that cluster, the others in none "
        "or in another: a smaller `kept` is stricter",
    ]


def test_what_cannot_be_assigned_from_is_refused() -> None:
    x = np.random.default_rng(7).normal(size=(40, 5)).astype(np.float32)
    graph, labels = neighbour_graph(x, 12), np.repeat([0, -1], 20)
    said = "no galaxy is in a cluster, so there is nothing to assign others to"
    with pytest.raises(DataError, match=f"^{said}$"):
        calibrate(graph, np.full(40, -1))
    with pytest.raises(DataError, match=r"^11 votes need a graph of 13 neighbours, it has 12: lower k$"):
        calibrate(graph, labels, k=11)


def frozen(folder: Path, scaling: Scaling, model: str = "a model") -> tuple[Path, NDArray[np.float32]]:
    """A clustering of two clumps of 40, apart in the first two of three columns, the last of which is constant."""
    x = np.random.default_rng(8).normal(0, 0.1, (80, 3)) + np.repeat([[4.0, 0, 0], [0, 4.0, 0]], 40, 0)
    x[:, 2] = 5
    values, labels = x.astype(np.float32), np.repeat([0, 1], 40)
    ids = [f"g{number}" for number in range(80)]
    write_embeddings(folder / "frozen.parquet", ids, values, model)
    members = pd.DataFrame({"id": ids, "row": range(80), "label": labels})
    about = {"settings": {"scaling": scaling}, "embeddings": str(folder / "frozen.parquet"), "model": model,
             "data": fingerprint(values)}  # fmt: skip
    Found(members, pd.DataFrame({"cluster": ["C01", "C02"]}), about).write(folder / "clusters")
    return folder / "clusters", values


@pytest.mark.parametrize("scaling", ["none", "standardise", "l2"])
def test_a_column_that_was_constant_among_the_frozen_counts_for_no_new_galaxy(tmp_path: Path, scaling: Scaling) -> None:
    clusters, x = frozen(tmp_path, scaling)
    new = x[[3, 50, 3]]
    new[:, 2] = [5, -300, 900]
    new[2] *= [-1, -1, 1]
    write_embeddings(tmp_path / "new.parquet", ["a", "b", "c"], new, "a model")
    found = assign_verb(clusters, tmp_path / "new.parquet", tmp_path / "assigned.csv")
    assert found["cluster"].fillna("-").tolist() == ["C01", "C02", "-"]
    assert found["ratio"][:2].tolist() == pytest.approx([0, 0], abs=1e-4)


def test_new_galaxies_that_do_not_fit_the_clusters_are_refused(tmp_path: Path) -> None:
    clusters, x = frozen(tmp_path, "l2")
    new = x[:3].copy()
    new[1, :2] = 0
    path = tmp_path / "new.parquet"
    for values, model, said in (
        (new, "a model", "row 1 is all zeros and has no direction: leave it out, or use another scaling than l2"),
        (x[:3, :2], "a model", "holds 2 numbers a galaxy, the clusters were found in 3: take both from the same model"),
        (x[:3], "", "was made by something unknown, the clusters by a model: take both from the same model"),
    ):
        write_embeddings(path, ["a", "b", "c"], values, model)
        start = f"{path}: " if values is new else f"{path} "
        with pytest.raises(DataError, match=f"^{re.escape(start + said)}$"):
            assign_verb(clusters, path, tmp_path / "assigned.csv")
    assert not (tmp_path / "assigned.csv").exists()


def test_only_neighbours_that_count_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The purity of a class, and patches, are what a search for all galaxies gives, also among copies."""
    x = np.random.default_rng(9).normal(size=(400, 5)).astype(np.float32)
    x[10:30] = x[0]  # more than neighbours are looked for
    x[31] = x[30]
    positive = np.isin(np.arange(400), [*range(0, 60, 2), 31])
    near = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(x).kneighbors(return_distance=False)
    asked: list[int] = []
    whole = NearestNeighbors.kneighbors

    def kneighbors(self: NearestNeighbors, rows: NDArray[np.float32] | None = None, **more: bool) -> NDArray[np.int64]:
        asked.append(400 if rows is None else len(rows))
        return np.asarray(whole(self, rows, **more))

    monkeypatch.setattr(NearestNeighbors, "kneighbors", kneighbors)
    assert neighbour_purity(x, positive).value == pytest.approx(positive[near[positive]].mean())
    sizes = [1, 3, 12] * 10
    patches = random_patches(x, sizes, 4)
    centres = np.random.default_rng(4).integers(400, size=30)
    assert [rows[0] for rows in patches] == centres.tolist()
    distance = np.sort(cdist(x.astype(float)[centres], x.astype(float)), 1)
    for size, centre, rows, nearest in zip(sizes, centres, patches, distance, strict=True):
        assert len(set(rows)) == size
        np.testing.assert_allclose(np.linalg.norm(x[rows] - x[centre], axis=1), nearest[:size], atol=1e-5)
    assert asked == [31, 30]


def test_images_that_show_nothing_belong_to_none_and_each_survey_has_its_own_files(tmp_path: Path) -> None:
    clusters, x = frozen(tmp_path, "none")
    beside = pd.DataFrame({"fault": ["", "blank", None]})
    write_embeddings(tmp_path / "new.parquet", ["a", "b", "c"], x[[3, 4, 50]], "a model", beside)
    found = assign_verb(clusters, tmp_path / "new.parquet")
    assert found["cluster"].fillna("-").tolist() == ["C01", "-", "C02"]
    assert pd.read_csv(clusters / "assigned.csv")["id"].tolist() == ["a", "b", "c"]
    search_verb(tmp_path / "frozen.parquet", like=["g3"])
    outliers_verb(tmp_path / "frozen.parquet", count=5)
    write_embeddings(shard_path(tmp_path / "shards", 0, 1), [f"g{number}" for number in range(80)], x)
    outliers_verb(tmp_path / "shards")
    assert len(pd.read_csv(tmp_path / "search.csv")) == 79
    assert len(pd.read_csv(tmp_path / "outliers.csv")) == 5
    assert (tmp_path / "shards" / "outliers.csv").is_file()


def test_a_clustering_of_an_earlier_version_is_to_be_made_again(tmp_path: Path) -> None:
    clusters, _ = frozen(tmp_path, "none")
    before = Found.read(clusters)
    before.about.pop("data")
    said = f"the clustering of {tmp_path}/frozen.parquet is of an earlier version of Quintet: run `cluster` again"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        before.values()
