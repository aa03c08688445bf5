"""Graph, layout, tree and leaves, against brute force, SciPy, umap-learn and hdbscan."""

from typing import Any, ClassVar

import hdbscan
import numpy as np
import pynndescent
import pytest
import umap
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from galaxy_clusters.clustering import graph as graphs
from galaxy_clusters.clustering.graph import NeighbourGraph, narrowed, neighbour_graph, prepared, recall
from galaxy_clusters.clustering.layout import fuzzy_set, layout, spectral_start
from galaxy_clusters.clustering.leaves import Clusters, condense, select
from galaxy_clusters.clustering.tree import Engine, SpanningTree, spanning_tree
from shared.data.problems import DataError

GROUPS, MEMBERS = 8, 60


def planted(seed: int = 0, dims: int = 5, bulk: int = 500) -> NDArray[np.float32]:
    """A smooth bulk with dense groups in it, which come last."""
    rng = np.random.default_rng(seed)
    groups = [rng.normal(centre, 0.05, (MEMBERS, dims)) for centre in 2 * rng.normal(size=(GROUPS, dims))]
    return np.concatenate([rng.normal(size=(bulk, dims)), *groups]).astype(np.float32)


def reference(x: NDArray[Any], min_samples: int, method: str, epsilon: float = 0.0) -> Any:
    found = hdbscan.HDBSCAN(min_samples=min_samples, min_cluster_size=10, approx_min_span_tree=False,
                            algorithm="boruvka_kdtree", cluster_selection_method=method, core_dist_n_jobs=1,
                            cluster_selection_epsilon=epsilon)  # fmt: skip
    return found.fit(x.astype(np.float64))


def agreement(labels: NDArray[Any], others: NDArray[Any]) -> float:
    """ARI over points that either assigns."""
    either = (labels >= 0) | (others >= 0)
    return float(adjusted_rand_score(labels[either], others[either]))


# The representation and its graph


def test_a_representation_loses_its_constant_columns_and_is_scaled(caplog: pytest.LogCaptureFixture) -> None:
    x = np.array([[1.0, 7, 3], [2, 7, 5], [3, 7, 4]])
    with caplog.at_level("INFO"):
        assert np.array_equal(prepared(x), x[:, [0, 2]])
    assert "1 of 3 columns of the representation are constant and left out" in caplog.text
    standard = prepared(x, "standardise")
    assert standard.dtype == np.float32
    np.testing.assert_allclose([standard.mean(0), standard.std(0)], [[0, 0], [1, 1]], atol=1e-6)
    np.testing.assert_allclose(prepared(x, "l2")[1], np.array([2, 5]) / 29**0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "scaling", "said"),
    [
        (np.array([[0.0, 1], [1, np.nan], [2, np.inf]]), "none", "2 values of the representation are no finite "
         "numbers, the first in column 1, row 1: leave such rows or columns out"),
        (np.ones((3, 2)), "none", "every column of the representation is constant: there is nothing to cluster"),
        (np.ones(3), "none", "a representation is one row of numbers a galaxy, (N, D), got an array of shape (3,)"),
        (np.array([[0.0, 1], [0, 0]]), "l2", "row 1 is all zeros and has no direction: leave it out, or use another "
         "scaling than l2"),
    ],
)  # fmt: skip
def test_a_representation_that_cannot_be_clustered_is_refused(x: NDArray[Any], scaling: Any, said: str) -> None:
    with pytest.raises(DataError) as error:
        prepared(x, scaling)
    assert str(error.value) == said


def test_the_graph_is_that_of_brute_force() -> None:
    x = planted(dims=16) + 30  # far from the origin, where products lose digits
    graph = neighbour_graph(x, 12)
    distance = cdist(x.astype(np.float64), x.astype(np.float64))
    assert np.array_equal(graph.index[:, 0], np.arange(len(x)))
    np.testing.assert_allclose(graph.distance, np.sort(distance, 1)[:, :12], atol=1e-6)
    np.testing.assert_allclose(graph.distance, np.take_along_axis(distance, graph.index.astype(int), 1), atol=1e-6)
    assert (graph.index.dtype, graph.distance.dtype) == (np.int32, np.float32)
    assert recall(graph, x) == 1.0
    wrong = graph.index.copy()
    wrong[:, 6:] = distance.argmax(1)[:, None]
    assert recall(NeighbourGraph(wrong, graph.distance), x) == pytest.approx(5 / 11)


def test_a_cut_graph_is_the_graph_of_fewer_neighbours_also_with_copies() -> None:
    x = np.concatenate([planted(), np.repeat(planted()[:2], 40, axis=0)])
    wide, own = neighbour_graph(x, 50), neighbour_graph(x, 15)
    cut = narrowed(wide, 15)
    assert np.array_equal(cut.index, own.index)
    assert np.array_equal(cut.distance, own.distance)
    assert np.array_equal(own.index[:, 0], np.arange(len(x)))
    assert own.index[-1].tolist() == [len(x) - 1, 1, *range(len(x) - 40, len(x) - 27)]
    with pytest.raises(ValueError, match="a graph of 15 neighbours holds no 16"):
        narrowed(own, 16)
    with pytest.raises(DataError) as error:
        neighbour_graph(x[:40], 50)
    said = "40 rows are too few for neighbours = 50: give at least 51 rows, or lower it to at most 39"
    assert str(error.value) == said


class Approximate:
    """Stands for NN-descent, which compiles for most of a minute."""

    asked: ClassVar[dict[str, Any]] = {}

    def __init__(self, x: NDArray[Any], **asked: Any) -> None:
        type(self).asked = asked
        index = np.array([[1, 0, 2], [1, 0, 2], [1, 0, 3], [2, 0, 1]], np.int32)  # row 2 lacks itself, as does row 3
        self.neighbor_graph = index, np.array([[0, 0, 5], [0, 0, 5], [5, 5, 9], [6, 7, 8]], np.float32)


def test_above_some_rows_the_graph_is_approximate_with_each_row_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "EXACT_ROWS", 3)
    monkeypatch.setattr(pynndescent, "NNDescent", Approximate)
    graph = neighbour_graph(np.zeros((4, 2), np.float32), 3, seed=4)
    assert graph.index.tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 2, 0]]
    assert graph.distance.tolist() == [[0, 0, 5], [0, 0, 5], [0, 5, 5], [0, 6, 7]]
    assert (Approximate.asked["random_state"], Approximate.asked["n_jobs"]) == (4, 1)


# Layouts


def parts(x: NDArray[np.float32], k: int, dims: int = 6) -> tuple[NeighbourGraph, Any, NDArray[np.float32]]:
    graph = neighbour_graph(x, k)
    fuzzy = fuzzy_set(graph, k)
    return graph, fuzzy, spectral_start(fuzzy, x, dims, seed=1)


@pytest.mark.parametrize("densmap", [False, True])
def test_a_layout_is_umaps_own_and_its_wide_graph_is_cut(densmap: bool) -> None:
    x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    graph, fuzzy, start = parts(x, 10)
    ours = layout(fuzzy, start, 3, seed=2, epochs=60, densmap=graph if densmap else None)
    model = umap.UMAP(n_neighbors=10, n_components=3, min_dist=0.0, init=start[:, :3], random_state=2, n_epochs=60,
                      densmap=densmap, precomputed_knn=(graph.index, graph.distance), n_jobs=1)  # fmt: skip
    assert np.array_equal(ours, model.fit_transform(x))
    assert (ours.dtype, ours.shape) == (np.float32, (200, 3))
    wide = neighbour_graph(x, 40)
    again = layout(fuzzy_set(wide, 10), start, 3, seed=2, epochs=60, densmap=narrowed(wide, 10) if densmap else None)
    assert np.array_equal(again, ours)
    if not densmap:  # what the cut is for: umap-learn takes a wider graph as it is
        taken = umap.UMAP(n_neighbors=10, precomputed_knn=(wide.index, wide.distance), n_epochs=0, init=start[:, :2],
                          random_state=0, n_jobs=1).fit(x)  # fmt: skip
        assert taken.graph_.nnz > 2 * fuzzy.nnz


def test_a_start_is_the_laplacians_eigenvectors() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32) * np.array([4, 2, 1], np.float32)
    _, fuzzy, start = parts(x, 10, dims=4)
    weight = fuzzy.toarray().astype(np.float64)
    degree = weight.sum(0)
    _, vectors = np.linalg.eigh(np.eye(200) - weight / np.sqrt(degree[:, None] * degree))
    correlation = np.corrcoef(start.T, vectors[:, 1:5].T)[:4, 4:]
    np.testing.assert_allclose(np.abs(correlation), np.eye(4), atol=0.1)
    assert np.abs(start).max() == pytest.approx(10, abs=1e-3)
    assert np.array_equal(start, spectral_start(fuzzy, x, 4, seed=1))
    assert not np.array_equal(start, spectral_start(fuzzy, x, 4, seed=2))


def test_a_layout_of_parts_that_do_not_touch_is_finite_and_keeps_them_apart() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(1000 * number, 1, (30, 3)) for number in range(8)]).astype(np.float32)
    _, fuzzy, start = parts(x, 10)
    assert np.isfinite(start).all()
    found = layout(fuzzy, start, 5, epochs=60)  # more dimensions than the representation has
    assert np.isfinite(found).all()
    nearest = neighbour_graph(found, 10).index[:, 1:]
    assert (nearest // 30 == np.arange(240)[:, None] // 30).mean() > 0.95


# Trees


@pytest.mark.parametrize("engine", ["plscan", "hdbscan", pytest.param("fast_hdbscan", marks=pytest.mark.slow)])
@pytest.mark.parametrize("min_samples", [1, 10, 40])
def test_every_engine_finds_the_exact_tree(engine: Engine, min_samples: int) -> None:
    x = planted(bulk=300)
    distance = cdist(x.astype(np.float64), x.astype(np.float64))
    core = np.sort(distance, 1)[:, min_samples]  # column 0 is the point itself
    mutual = np.maximum(distance, np.maximum(core, core[:, None]))
    np.fill_diagonal(mutual, 0)
    tree = spanning_tree(x, min_samples, engine)
    np.testing.assert_allclose(tree.core, core, rtol=1e-6)
    np.testing.assert_allclose(tree.weight.sum(), minimum_spanning_tree(mutual).sum(), rtol=1e-6)
    np.testing.assert_allclose(tree.weight, mutual[tuple(tree.edges.T)], rtol=1e-6)
    assert (np.diff(tree.weight) >= 0).all()
    assert (tree.edges[:, 0] < tree.edges[:, 1]).all()
    assert np.unique(tree.edges).size == len(x) == len(tree.edges) + 1


def test_a_tree_needs_enough_points_and_an_engine_that_is_exact() -> None:
    with pytest.raises(DataError) as error:
        spanning_tree(planted()[:30], 30)
    assert (
        str(error.value) == "30 rows are too few for min_samples = 30: give at least 31 rows, or lower it to at most 29"
    )
    with pytest.raises(ValueError, match="fast_hdbscan's tree is approximate above 30 dimensions: use the engine plsc"):
        spanning_tree(planted(dims=31), 5, "fast_hdbscan")
    high = planted(dims=40, bulk=100)
    one, other = (spanning_tree(high, 5, engine).weight.sum() for engine in ("plscan", "hdbscan"))
    np.testing.assert_allclose(one, other, rtol=1e-6)


# Leaves


@pytest.mark.parametrize("method", ["leaf", "eom"])
@pytest.mark.parametrize(("min_samples", "epsilon"), [(1, 0.0), (1, 0.6), (5, 0.0), (20, 0.0)])
def test_clusters_are_hdbscans(method: Any, min_samples: int, epsilon: float) -> None:
    x = planted(bulk=1500)
    found = select(condense(spanning_tree(x, min_samples), 10), method, epsilon)
    theirs = reference(x, min_samples, method, epsilon)
    assert agreement(found.labels, theirs.labels_) > 0.99
    assert abs(len(found.table) - theirs.labels_.max() - 1) <= (min_samples > 1)  # equal distances: one leaf may differ
    both = (found.labels >= 0) & (theirs.labels_ >= 0)
    assert both.sum() > 200
    difference = np.abs(found.strength - theirs.probabilities_)[both]
    assert np.quantile(difference, 0.95) < 1e-6
    assert not found.strength[found.labels < 0].any()


def test_planted_groups_are_the_leaves_and_the_table_describes_them() -> None:
    x = planted()
    tree = spanning_tree(x, 20)
    found = select(condense(tree, 10))
    truth = np.concatenate([np.full(500, -1), np.repeat(np.arange(GROUPS), MEMBERS)])
    assert len(found.table) == GROUPS
    assert adjusted_rand_score(truth[500:], found.labels[500:]) > 0.95
    table = found.table
    assert table["size"].tolist() == np.bincount(found.labels[found.labels >= 0]).tolist()
    assert (np.diff(table["size"]) <= 0).all()
    assert (table["birth"] > 0).all()
    assert (table["persistence"] == table["death"] - table["birth"]).all()
    for number, row in table.iterrows():
        members = np.flatnonzero(found.labels == number)
        assert row["exemplar"] in members
        assert found.strength[int(row["exemplar"])] == 1.0
        assert row["death"] <= 1 / tree.core[members].min() * (1 + 1e-6)  # no cluster outlives its densest point
    assert found.strength[found.labels >= 0].min() > 0


def test_names_of_clusters_do_not_depend_on_the_order_of_rows() -> None:
    x = planted()
    order = np.random.default_rng(1).permutation(len(x))
    tree = spanning_tree(x, 1)
    one, other = (select(condense(each, 10)) for each in (tree, spanning_tree(x[order], 1)))
    assert len(one.table) > GROUPS
    assert np.array_equal(one.labels[order], other.labels)
    assert one.table.drop(columns="exemplar").equals(other.table.drop(columns="exemplar"))
    exemplars = one.table["exemplar"].to_numpy(), order[other.table["exemplar"]]
    assert np.array_equal(*(tree.core[each] for each in exemplars))  # two nearest to each other are equally dense


def test_persistence_selects_what_plscan_does() -> None:
    from fast_plscan import PLSCAN

    x = planted(bulk=1500)
    found = select(condense(spanning_tree(x, 20), 20), "persistence")
    theirs = PLSCAN(min_samples=20, min_cluster_size=20).fit(x)
    assert len(found.table) == theirs.labels_.max() + 1 == GROUPS
    assert agreement(found.labels, theirs.labels_) == 1.0


def test_a_smallest_density_leaves_out_the_faint_clusters() -> None:
    condensed = condense(spanning_tree(planted(), 20), 10)
    every = select(condensed)
    between = float(np.median(every.table["death"]))
    found = select(condensed, min_lambda=between)
    assert sorted(found.table["death"]) == sorted(every.table["death"])[GROUPS // 2 :]
    one = select(condensed, min_lambda=float(every.table["death"].max()))
    assert len(one.table) == 1
    assert set(one.labels) == {-1, 0}
    none(select(condensed, min_lambda=np.inf))


def none(found: Clusters) -> None:
    """No cluster: a table without rows, and all points unassigned."""
    assert found.table.empty
    assert list(found.table) == ["size", "birth", "death", "persistence", "exemplar"]
    assert (found.labels == -1).all()
    assert (found.strength == 0).all()


@pytest.mark.parametrize("method", ["leaf", "eom", "persistence"])
def test_one_blob_has_no_cluster(method: Any) -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    none(select(condense(spanning_tree(x, 50), 60), method))
    same = SpanningTree(np.array([[0, 1], [0, 2]]), np.zeros(2), np.zeros(3))  # the same point three times
    none(select(condense(same, 2), method))


@pytest.mark.parametrize("method", ["leaf", "eom", "persistence"])
def test_more_copies_than_min_samples_are_one_cluster_of_finite_membership(method: Any) -> None:
    x = planted()
    copied = np.concatenate([x, np.repeat(x[:1] + 9, 300, axis=0), np.repeat(x[500:501], 200, axis=0)])
    tree = spanning_tree(copied, 20)
    assert (tree.weight == 0).sum() == 299 + 200
    found = select(condense(tree, 10), method)
    (copies,) = set(found.labels[980:1280])
    assert (found.table["size"].iloc[copies], found.strength[980:1280].min()) == (300, 1.0)
    assert len(set(found.labels[1280:])) == 1
    assert np.isfinite(found.strength).all()
    assert np.isfinite(found.table).all(axis=None)
    assert found.strength.min() == 0.0
    assert found.strength.max() == 1.0
