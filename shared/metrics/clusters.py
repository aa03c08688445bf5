"""How well clusters agree with classes where most points belong to no cluster.

A point without a cluster, or without a class, has the label -1. A measure over all points would be decided by the many
that neither side assigns, so only points that either side assigns count, and -1 is a label like another among them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

UNASSIGNED = -1


class Match(NamedTuple):
    """The cluster that is most like a class.

    Attributes:
        label: Of the class.
        cluster: Of the cluster; -1 if none holds a member of the class.
        jaccard: Members of both over members of either, in [0, 1].
        purity: Share of the cluster's members that belong to the class.
        recall: Share of the class's members that belong to the cluster.
    """

    label: int
    cluster: int
    jaccard: float
    purity: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of purity and recall."""
        both = self.purity + self.recall
        return 2 * self.purity * self.recall / both if both else 0.0


def assigned(one: ArrayLike, other: ArrayLike) -> NDArray[np.bool_]:
    """`(N,)`: points that either labelling assigns."""
    found: NDArray[np.bool_] = (np.asarray(one) != UNASSIGNED) | (np.asarray(other) != UNASSIGNED)
    return found


def adjusted_rand(one: ArrayLike, other: ArrayLike) -> float:
    """Adjusted Rand index over the points that either labelling assigns; NaN if there is none.

    Example:
        >>> adjusted_rand([0, 0, 1, 1, -1, -1], [5, 5, 7, 7, -1, -1])
        1.0
    """
    return _over_assigned(adjusted_rand_score, one, other)


def adjusted_mutual_information(one: ArrayLike, other: ArrayLike) -> float:
    """Adjusted mutual information over the points that either labelling assigns; NaN if there is none."""
    return _over_assigned(adjusted_mutual_info_score, one, other)


def _over_assigned(score: Callable[..., float], one: ArrayLike, other: ArrayLike) -> float:
    keep = assigned(one, other)
    return float(score(np.asarray(one)[keep], np.asarray(other)[keep])) if keep.any() else float("nan")


def best_matches(classes: ArrayLike, clusters: ArrayLike) -> list[Match]:
    """For every class the cluster with the largest Jaccard index; of equal ones, the one with the smallest label.

    Args:
        classes: `(N,)` int labels, -1 for points of no class.
        clusters: `(N,)` int labels, -1 for points of no cluster.

    Example:
        >>> best_matches([0, 0, 0, -1, -1], [4, 4, -1, 4, -1])
        [Match(label=0, cluster=4, jaccard=0.5, purity=0.666..., recall=0.666...)]
    """
    names, row = np.unique(np.asarray(classes), return_inverse=True)
    groups, column = np.unique(np.asarray(clusters), return_inverse=True)
    both = coo_matrix((np.ones(len(row)), (row, column)), (len(names), len(groups))).toarray()
    of_class, of_cluster = both.sum(1), both.sum(0)
    found = []
    for place, name in enumerate(names):
        if name == UNASSIGNED:
            continue
        jaccard = both[place] / (of_class[place] + of_cluster - both[place])
        jaccard[groups == UNASSIGNED] = 0
        best = int(jaccard.argmax())
        if jaccard[best] == 0:
            found.append(Match(int(name), UNASSIGNED, 0.0, 0.0, 0.0))
            continue
        shared = both[place, best]
        found.append(
            Match(
                int(name),
                int(groups[best]),
                float(jaccard[best]),
                float(shared / of_cluster[best]),
                float(shared / of_class[place]),
            )
        )
    return found


def macro_f1(classes: ArrayLike, clusters: ArrayLike) -> float:
    """Mean over the classes of the best match's F1; NaN without a class."""
    found = best_matches(classes, clusters)
    return float(np.mean([match.f1 for match in found])) if found else float("nan")
