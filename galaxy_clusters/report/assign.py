"""New galaxies to frozen clusters, by their neighbours in the representation, or to none.

UMAP is left out: it cannot transform with densMAP, and hdbscan's own prediction invents labels after an epsilon cut.

Shapes: N frozen galaxies, M new ones, D numbers each.
"""

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from galaxy_clusters.clustering.graph import NeighbourGraph, check_enough
from shared.data.problems import DataError
from shared.metrics.clusters import UNASSIGNED

log = logging.getLogger(__name__)

Labels = NDArray[np.int64]
Values = NDArray[np.float64]

REACH = 0.99  # quantile of the members' distances that bounds a cluster
DOUBTFUL = 2 / 3  # share of right assignments below which a rule is warned of


@dataclass(frozen=True)
class Rule:
    """When a galaxy belongs to a frozen cluster, and how well that is known.

    Attributes:
        k: Number of neighbours that vote.
        share: The smallest share of the votes for a cluster.
        limit: By cluster, the largest distance to its nearest member.
        kept: Share of the clusters' members that get their cluster, each left out in turn.
        right: Share that is in that very cluster of the frozen galaxies that get a cluster, each left out in turn. The
            others are mostly unassigned neighbours of a cluster, some of which belong to it.
    """

    k: int
    share: float
    limit: dict[int, float]
    kept: float
    right: float


class Assigned(NamedTuple):
    """Clusters of galaxies.

    Attributes:
        labels: `(M,)`, -1 for none.
        share: `(M,)` share of the votes for the cluster that has most, in [0, 1].
        ratio: `(M,)` distance to the nearest member of that cluster over the cluster's limit; infinite where no
            neighbour is in a cluster.
    """

    labels: Labels
    share: Values
    ratio: Values


def calibrate(graph: NeighbourGraph, labels: Labels, k: int = 10, kept: float = 0.95) -> Rule:
    """The strictest rule that still gives a share of the clusters' members their cluster, each left out in turn.

    A cluster's limit is the 99% quantile of its members' distances to its next member. Where not even the rule that
    asks for no share gives so many members their cluster, it is taken and a warning says so.

    Args:
        graph: Nearest neighbours of the frozen galaxies among themselves, the row itself first.
        labels: `(N,)` their clusters, -1 for none.
        k: Number of neighbours that vote.
        kept: Share of the members, in (0, 1].

    Raises:
        DataError: No galaxy is in a cluster, or the graph has too few neighbours.
    """
    labels = np.asarray(labels, np.int64)
    member = labels != UNASSIGNED
    if not member.any():
        raise DataError("no galaxy is in a cluster, so there is nothing to assign others to")
    if graph.index.shape[1] < k + 2:  # itself, the k that vote, and the one that sets the scale
        raise DataError(f"{k} votes need a graph of {k + 2} neighbours, it has {graph.index.shape[1]}: lower k")
    neighbour, distance = labels[graph.index[:, 1 : k + 2]], graph.distance[:, 1 : k + 2].astype(np.float64)
    own = np.where(neighbour == labels[:, None], distance, np.inf)[:, :-1].min(1)
    limit = {int(label): _reach(own[labels == label]) for label in np.unique(labels[member])}
    found = _vote(neighbour, distance, limit)
    near = found.ratio <= 1
    right = near & member & (found.labels == labels)
    needed = int(np.ceil(kept * member.sum()))
    shares = np.sort(found.share[right])[::-1]
    share = float(shares[min(needed, len(shares)) - 1]) if len(shares) else 0.0
    given = near & (found.share >= share)
    hits = int((right & given).sum())
    rule = Rule(k, share, limit, hits / int(member.sum()), hits / max(int(given.sum()), 1))
    if len(shares) < needed:
        log.warning("%.0f%% of the clusters' members get their cluster back by their neighbours, fewer than the %.0f%% "
                    "asked for: these clusters are not compact in the representation",
                    100 * rule.kept, 100 * kept)  # fmt: skip
    if rule.right < DOUBTFUL:
        log.warning("%.0f%% of the frozen galaxies that the rule assigns are in that cluster, the others in none or in "
                    "another: a smaller `kept` is stricter", 100 * rule.right)  # fmt: skip
    return rule


def assign(new: NDArray[Any], frozen: NDArray[Any], labels: Labels, rule: Rule) -> Assigned:
    """The frozen cluster that each new galaxy belongs to, or none.

    The k nearest frozen galaxies vote, each with 1 - (d / d')^2, d' being the distance of the one after them; one
    without a cluster votes for none. A galaxy is assigned if the cluster with most votes has the rule's share, and its
    nearest member is within the cluster's limit.

    Args:
        new: Representation `(M, D)`, scaled as that of the frozen galaxies.
        frozen: `(N, D)`, as the graph of `calibrate` was made from.
        labels: `(N,)`.
        rule: Of `calibrate`.

    Raises:
        DataError: There are too few frozen galaxies.
    """
    from sklearn.neighbors import NearestNeighbors

    check_enough(len(frozen), rule.k + 1, "k + 1")
    search = NearestNeighbors(n_neighbors=rule.k + 1, algorithm="brute").fit(frozen)
    index = search.kneighbors(new, return_distance=False)
    # Without the rounding errors of the search, so that a copy of a frozen galaxy is at distance 0.
    distance = np.sqrt(np.square(new[:, None] - frozen[index], dtype=np.float64).sum(2))
    found = _vote(np.asarray(labels, np.int64)[index], distance, rule.limit)
    accepted = (found.share >= rule.share) & (found.ratio <= 1)
    return found._replace(labels=np.where(accepted, found.labels, UNASSIGNED))


def _reach(distance: Values) -> float:
    """The distance within which a cluster's members have its next member; 0 where none has one among its neighbours."""
    known = distance[np.isfinite(distance)]
    return float(np.quantile(known, REACH)) if len(known) else 0.0


def _vote(neighbour: Labels, distance: Values, limit: dict[int, float]) -> Assigned:
    """The cluster with most votes of k neighbours; k + 1 are given, nearest first."""
    # Where all are equally far, or at no distance, all votes weigh the same.
    scale = np.maximum(distance[:, -1:], np.finfo(np.float64).tiny)
    weight = np.maximum(1 - (distance[:, :-1] / scale) ** 2, 1e-9)
    weight /= weight.sum(1, keepdims=True)
    voted, distance = neighbour[:, :-1], distance[:, :-1]
    votes = np.stack([(weight * (voted == one[:, None])).sum(1) for one in voted.T], axis=1)
    votes[voted == UNASSIGNED] = 0
    rows, best = np.arange(len(voted)), votes.argmax(1)
    labels = voted[rows, best]
    nearest = np.where(voted == labels[:, None], distance, np.inf).min(1)
    bound = np.array([limit.get(int(label), 0.0) for label in labels])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(nearest == 0, 0.0, nearest / bound)
    return Assigned(labels, votes[rows, best], np.where(labels == UNASSIGNED, np.inf, ratio))
