"""The exact minimum spanning tree of mutual reachability distances, by three engines (paper, section 3).

The mutual reachability distance of two points is the largest of their distance and both core distances (Campello et
al. 2013), the core distance that to the `min_samples`-th nearest other point. Here, as in hdbscan, fast_hdbscan and
fast_plscan, the point itself is not counted; in scikit-learn it is, so one more is the same there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from galaxy_clusters.clustering.graph import check_enough

Engine = Literal["plscan", "fast_hdbscan", "hdbscan"]
Points = NDArray[np.float64]
# Edges (N-1, 2), and the min_samples-th nearest other point of each point (N,).
Found = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class SpanningTree:
    """A minimum spanning tree of N points.

    Attributes:
        edges: Pairs of points `(N-1, 2)`, shortest first, the smaller number before the larger.
        weight: Their mutual reachability distances `(N-1,)`.
        core: Core distances `(N,)`.
    """

    edges: NDArray[np.int64]
    weight: Points
    core: Points


def spanning_tree(x: NDArray[Any], min_samples: int = 300, engine: Engine = "plscan") -> SpanningTree:
    """The exact minimum spanning tree of points under the mutual reachability distance.

    Args:
        x: Points `(N, D)`, a layout as a rule.
        min_samples: Which nearest other point the core distance reaches; the paper's is 300.
        engine: `"plscan"` (compiled, the fastest), `"fast_hdbscan"` (compiles itself at the first call, up to 30
            dimensions) or `"hdbscan"` (the reference). The first two compare distances in float32, which is what UMAP
            returns; the distances in the tree are float64 for all.

    Raises:
        DataError: There are no more points than `min_samples`.
        ValueError: The engine has no exact tree for so many dimensions.
    """
    check_enough(len(x), min_samples, "min_samples")
    points = np.ascontiguousarray(x, np.float64)
    edges, furthest = ENGINES[engine](points, min_samples)
    edges = np.sort(edges.astype(np.int64), axis=1)
    core = np.linalg.norm(points - points[furthest], axis=1)
    apart = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    weight = np.maximum(apart, core[edges].max(1))
    order = np.lexsort((edges[:, 1], edges[:, 0], weight))  # equal weights in an order that no engine decides
    return SpanningTree(edges[order], weight[order], core)


def _plscan(points: Points, min_samples: int) -> Found:
    from fast_plscan import compute_mutual_spanning_tree

    _, tree, near, _ = compute_mutual_spanning_tree(points.astype(np.float32), min_samples=min_samples)
    return np.stack([tree.parent, tree.child], 1), near[:, min_samples]


def _fast_hdbscan(points: Points, min_samples: int) -> Found:
    from fast_hdbscan.hdbscan import compute_minimum_spanning_tree

    if points.shape[1] > 30:
        raise ValueError("fast_hdbscan's tree is approximate above 30 dimensions: use the engine plscan or hdbscan")
    tree, near, _ = compute_minimum_spanning_tree(points.astype(np.float32), min_samples, reproducible=True)
    return tree[:, :2], near[:, min_samples - 1]


def _hdbscan(points: Points, min_samples: int) -> Found:
    from hdbscan import HDBSCAN
    from sklearn.neighbors import KDTree

    found = HDBSCAN(min_samples=min_samples, algorithm="boruvka_kdtree", approx_min_span_tree=False,
                    gen_min_span_tree=True, core_dist_n_jobs=1).fit(points)  # fmt: skip
    near = KDTree(points).query(points, min_samples + 1, return_distance=False)
    return found.minimum_spanning_tree_.to_numpy()[:, :2], near[:, min_samples]


ENGINES: dict[Engine, Callable[[Points, int], Found]] = {
    "plscan": _plscan, "fast_hdbscan": _fast_hdbscan, "hdbscan": _hdbscan,
}  # fmt: skip
