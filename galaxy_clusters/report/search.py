"""Search by example, near duplicates and outliers in a representation.

Shapes: N galaxies, D numbers each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from galaxy_clusters.clustering.graph import NeighbourGraph
from shared.data.files import whole
from shared.data.problems import DataError
from shared.data.tables import nearest, read_csv

Rows = NDArray[np.int64]
Values = NDArray[np.float64]
Mark = Literal["like", "unlike"]

UNLIKE = 0.25  # weight of unlike marks
TO_DEVIATION = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation
MEAN_TO_DEVIATION = 1.2533  # likewise, over its mean absolute deviation


class Ranking(NamedTuple):
    """Galaxies in the order of a search.

    Attributes:
        rows: `(N - marked,)` all but the marked ones, the best first.
        score: Of each of them, only to be compared within a search.
        how: What the score is, in words.
    """

    rows: Rows
    score: Values
    how: str


def search(x: NDArray[Any], like: Sequence[int], unlike: Sequence[int] = ()) -> Ranking:
    """Rank galaxies by their likeness to marked ones (Rocchio 1971).

    The score is the mean cosine to the ones marked like, less a quarter of that to the ones marked unlike, with the
    mean of all galaxies as the origin. Unlike marks count less, since they are mostly look-alikes from the top of a
    ranking, in the same direction as the class: with full weight, or as a logistic regression's other class, they sent
    the class itself away (edge-ons of Galaxy Zoo 1 by colour profiles, eight marks of either kind: average precision
    0.10 and 0.09, with a quarter 0.60).

    Args:
        x: Representation `(N, D)`.
        like: Rows of galaxies of the kind that is looked for, at least one.
        unlike: Rows of galaxies that are not of that kind.

    Raises:
        DataError: No galaxy is marked like.
    """
    if not len(like):
        raise DataError("a search needs a galaxy to start from: mark at least one with --like ID")
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    direction = centred[list(like)].mean(0)
    how = f"mean cosine to {len(like)} like"
    if len(unlike):
        direction -= UNLIKE * centred[list(unlike)].mean(0)
        how += f", less {UNLIKE:g} of that to {len(unlike)} unlike"
    score = centred @ direction
    order = np.argsort(-score, kind="stable")
    order = order[~np.isin(order, [*like, *unlike])]
    return Ranking(order, score[order], how)


def rows_of(ids: Sequence[str], known: Sequence[str]) -> list[int]:
    """Rows of galaxies.

    Args:
        ids: Identifiers of some galaxies.
        known: Identifiers of all, `(N,)`.

    Raises:
        DataError: One is not among them; the message names the one that is most like it.
    """
    row = {name: place for place, name in enumerate(known)}
    for name in ids:
        if name not in row:
            raise DataError(f"there is no galaxy with the id {name!r}{nearest(name, known)}")
    return [row[name] for name in ids]


def extend_marks(path: Path, like: Sequence[str], unlike: Sequence[str], known: Sequence[str]) -> dict[str, Mark]:
    """Add marks to a file of them and give all: of two marks of a galaxy, the later one holds.

    Args:
        path: CSV with the columns `id` and `mark` (like or unlike), which is made if it is not there.
        like: Identifiers to mark like.
        unlike: Identifiers to mark unlike.
        known: Identifiers of all galaxies, `(N,)`.

    Raises:
        DataError: There is no such galaxy, one is to be marked both, or the file holds something else.
    """
    rows_of([*like, *unlike], known)
    if both := sorted(set(like) & set(unlike)):
        raise DataError(f"{both[0]} is marked both like and unlike: decide for one")
    marks: dict[str, Mark] = {}
    if path.exists():
        there = set(known)
        frame = read_csv(path, ["id", "mark"], dtype=str, keep_default_na=False)
        for row, (name, mark) in enumerate(zip(frame["id"], frame["mark"], strict=True), 2):
            if mark not in ("like", "unlike") or not name:
                raise DataError(f"{path}: line {row} marks {name!r} as {mark!r}, expected an id and like or unlike")
            if name not in there:
                hint = nearest(name, known) or ": take that line out, or give another file with --marks"
                raise DataError(f"{path}: line {row} marks the galaxy {name!r}, which is not among the embedded{hint}")
            marks[name] = mark
    marks.update((name, "like") for name in like)
    marks.update((name, "unlike") for name in unlike)
    with whole(path) as part:
        pd.DataFrame({"id": list(marks), "mark": list(marks.values())}).to_csv(part, index=False)
    return marks


def near_duplicates(graph: NeighbourGraph, quantile: float = 0.001) -> Rows:
    """Groups of galaxies that are identical or nearly so, such as entries of one galaxy.

    Two are nearly identical if their distance is at most the given quantile of the distances to the nearest neighbour
    that are not 0; a group is whatever a chain of such pairs joins.

    Args:
        graph: Nearest neighbours, the row itself first.
        quantile: In [0, 1].

    Returns:
        `(N,)` number of each galaxy's group, -1 for one that has no near duplicate.
    """
    count = len(graph.index)
    nearest = graph.distance[:, 1]
    limit = np.quantile(nearest[nearest > 0], quantile) if nearest.any() else 0.0
    row, place = np.nonzero(graph.distance[:, 1:] <= limit)
    links = coo_matrix((np.ones(len(row)), (row, graph.index[row, place + 1])), (count, count))
    group = connected_components(links, directed=False)[1]
    alone = np.bincount(group)[group] == 1
    groups = np.full(count, -1)
    groups[~alone] = np.unique(group[~alone], return_inverse=True)[1]
    return groups


def outliers(graph: NeighbourGraph, k: int = 10) -> tuple[Values, Values]:
    """How far galaxies are from all others.

    Args:
        graph: Nearest neighbours, the row itself first.
        k: Number of neighbours that count.

    Returns:
        `(N,)` mean distance to the k nearest neighbours, and `(N,)` its robust z: the difference from the median in
        units of the median absolute deviation times 1.4826; where more than half of the distances are equal, of the
        mean absolute deviation times 1.2533 (Iglewicz and Hoaglin 1993). All 0 where all are equal.

    Raises:
        DataError: The graph has fewer neighbours.
    """
    if graph.distance.shape[1] <= k:
        raise DataError(f"the graph has {graph.distance.shape[1] - 1} neighbours beside each galaxy, k is {k}: lower k")
    distance = graph.distance[:, 1 : k + 1].mean(1, dtype=np.float64)
    apart = distance - np.median(distance)
    scale = TO_DEVIATION * np.median(np.abs(apart)) or MEAN_TO_DEVIATION * np.abs(apart).mean()
    return distance, apart / scale if scale else np.zeros_like(apart)
