"""From a spanning tree to clusters: the condensed tree and what is selected from it (paper, section 3).

Density is written lambda, 1 / distance, as in HDBSCAN (Campello et al. 2013; McInnes and Healy 2017).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.clustering.tree import SpanningTree

Selection = Literal["leaf", "eom", "persistence"]
Numbers = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Condensed:
    """A tree of clusters: where a cluster splits into two of at least `min_cluster_size` points, both are its children.

    Cluster 0 is all points; a parent has a smaller number than its children.

    Attributes:
        parent: Parent of each cluster `(C,)`, -1 for cluster 0.
        birth: Density at which each cluster splits off its parent `(C,)`, 0 for cluster 0.
        size: Number of points of each `(C,)`.
        cluster: The smallest cluster that each point was in `(N,)`.
        density: The density at which each point left it `(N,)`, finite.
        core: Core distance of each point `(N,)`.
        persistent: The clusters that PLSCAN selects: the leaves at the minimum cluster size at which leaves persist
            longest in total (Bot et al. 2025).
    """

    parent: Numbers
    birth: Values
    size: Numbers
    cluster: Numbers
    density: Values
    core: Values
    persistent: Numbers


@dataclass(frozen=True)
class Clusters:
    """Clusters, the largest first; of equal sizes, the denser, then the one with the first point.

    Attributes:
        labels: Cluster of each point `(N,)`, -1 where it is in none.
        strength: Membership `(N,)` in [0, 1]: the density at which the point left its cluster, of the largest at which
            the cluster is one; 0 for points in none.
        table: A row a cluster: `size`, `birth` and `death` (densities at which it begins, and at which it ends or
            splits), `persistence` (death - birth), `exemplar` (the row of its densest point).
    """

    labels: Numbers
    strength: Values
    table: pd.DataFrame


def condense(tree: SpanningTree, min_cluster_size: int = 10) -> Condensed:
    """The condensed tree of a spanning tree.

    Points at the same place are never torn apart. Their density, infinite by definition, is that of the closest pair
    which is apart.

    Args:
        tree: Of `spanning_tree`.
        min_cluster_size: The fewest points of a cluster, at least 2; the paper's is 10.
    """
    from fast_plscan import clusters_from_spanning_forest
    from fast_plscan._api import SpanningTree as Forest  # there is no public name for what the public function takes

    points = len(tree.core)
    edges = tree.edges.astype(np.uint32)
    forest = Forest(edges[:, 0].copy(), edges[:, 1].copy(), tree.weight.astype(np.float32))
    _, persistent, _, _, found, _ = clusters_from_spanning_forest(forest, points, min_cluster_size=min_cluster_size)

    apart = tree.weight[tree.weight > 0]
    closest = apart[0] if len(apart) else 1.0
    lambdas = 1 / np.maximum(found.distance.astype(np.float64), closest)
    is_cluster = found.child >= points
    splits = np.flatnonzero(is_cluster)
    child, above = (ids[splits].astype(np.int64) - points for ids in (found.child, found.parent))
    count = int(found.parent.max()) + 1 - points
    parent, birth, size = np.zeros(count, np.int64), np.zeros(count), np.full(count, points)
    parent[child], birth[child], size[child] = above, lambdas[splits], found.child_size[splits]

    # fast_plscan holds a second cluster of all points, which is no child; a split at distance 0 is none.
    stays = np.zeros(count, bool)
    stays[child] = found.distance[splits] > 0
    joined = np.arange(count)
    for number in np.flatnonzero(~stays[1:]) + 1:
        joined[number] = joined[parent[number]]
    kept, renumbered = np.unique(joined, return_inverse=True)

    cluster, density = np.empty(points, np.int64), np.empty(points)
    left = found.child[~is_cluster]
    cluster[left] = renumbered[found.parent[~is_cluster].astype(np.int64) - points]
    density[left] = lambdas[~is_cluster]
    parent = renumbered[parent[kept]]
    parent[0] = -1
    chosen = np.unique(renumbered[persistent.astype(np.int64)])
    return Condensed(parent, birth[kept], size[kept], cluster, density, tree.core, chosen[chosen > 0])


def select(
    condensed: Condensed, method: Selection = "leaf", epsilon: float = 0.0, min_lambda: float | None = None
) -> Clusters:
    """Clusters from a condensed tree; all points together are never one.

    Args:
        condensed: Of `condense`.
        method: `"leaf"` takes the clusters that split no further (the paper's), `"eom"` those with the largest excess
            of mass (hdbscan's default), `"persistence"` those of PLSCAN.
        epsilon: Splits at distances below it are undone (Malzer and Baum 2020).
        min_lambda: Clusters that end below this density are left out.
    """
    parent, birth = condensed.parent, condensed.birth
    death = _deaths(condensed)
    if method == "leaf":
        chosen = np.setdiff1d(np.arange(1, len(parent)), parent)
    else:
        chosen = _excess_of_mass(condensed) if method == "eom" else condensed.persistent
    if epsilon > 0:
        chosen = np.unique([_without_splits(number, parent, birth, 1 / epsilon) for number in chosen]).astype(np.int64)
    if min_lambda is not None:
        chosen = chosen[death[chosen] >= min_lambda]

    owner = np.full(len(parent), -1)
    owner[chosen] = chosen
    for number in range(1, len(parent)):  # parents come first
        if owner[number] < 0:
            owner[number] = owner[parent[number]]
    return _named(condensed, owner[condensed.cluster], death)


def _deaths(condensed: Condensed) -> Values:
    """The largest density at which each cluster is one: its last point leaves, or it splits."""
    death = np.zeros(len(condensed.parent))
    np.maximum.at(death, condensed.cluster, condensed.density)
    np.maximum.at(death, condensed.parent[1:], condensed.birth[1:])
    return death


def _excess_of_mass(condensed: Condensed) -> Numbers:
    """Clusters that are more stable than all that is selected below them (Campello et al. 2013, section 5)."""
    parent, birth, size = condensed.parent, condensed.birth, condensed.size
    count = len(parent)
    stability = np.bincount(condensed.cluster, condensed.density - birth[condensed.cluster], count)
    stability += np.bincount(parent[1:], (birth[1:] - birth[parent[1:]]) * size[1:], count)
    below = np.zeros(count)
    best = np.zeros(count, bool)
    for number in range(count - 1, 0, -1):  # children come first
        best[number] = below[number] <= stability[number]
        below[parent[number]] += max(below[number], stability[number])
    covered = np.zeros(count, bool)
    for number in range(1, count):
        covered[number] = covered[parent[number]] or best[parent[number]]
    return np.flatnonzero(best & ~covered)


def _without_splits(number: int, parent: Numbers, birth: Values, density: float) -> int:
    """The cluster that a cluster belongs to once splits above a density are undone; at most a child of cluster 0."""
    while birth[number] > density and parent[number] > 0:
        number = int(parent[number])
    return number


def _named(condensed: Condensed, owner: Numbers, death: Values) -> Clusters:
    """Labels in order of size, and what is known of each cluster."""
    assigned = owner >= 0
    numbers, first, size = np.unique(owner[assigned], return_index=True, return_counts=True)
    order = np.lexsort((first, -death[numbers], -size))
    numbers, size = numbers[order], size[order]
    label = np.full(len(condensed.parent), -1)
    label[numbers] = np.arange(len(numbers))
    labels = np.where(assigned, label[owner], -1)
    ends = death[owner]
    strength = np.where(assigned, np.minimum(condensed.density, ends) / ends, 0.0)
    densest = np.lexsort((condensed.core, -condensed.density, labels))  # stable: of equal ones the first row
    exemplar = densest[np.searchsorted(labels[densest], np.arange(len(numbers)))]
    birth = condensed.birth[numbers]
    table = pd.DataFrame({"size": size, "birth": birth, "death": death[numbers], "persistence": death[numbers] - birth,
                          "exemplar": exemplar})  # fmt: skip
    return Clusters(labels, strength, table.rename_axis("cluster"))
