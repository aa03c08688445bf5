"""The nearest neighbours of each row of a representation: one graph serves all layouts (paper, section 3)."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from shared.data.problems import DataError

log = logging.getLogger(__name__)

Scaling = Literal["none", "standardise", "l2"]
Floats = NDArray[np.float32]

EXACT_ROWS = 50_000  # up to here, all pairs take less than the minute in which NN-descent compiles
SAME = 1e-7  # of the rows' size: differences of distances below it may be rounding errors


@dataclass(frozen=True)
class NeighbourGraph:
    """The k nearest rows of each of N rows, nearest first; the row itself is the first of them, as UMAP counts.

    Attributes:
        index: Row numbers `(N, k)`.
        distance: Euclidean distances `(N, k)`.
    """

    index: NDArray[np.int32]
    distance: Floats


def prepared(x: NDArray[Any], scaling: Scaling = "none") -> Floats:
    """A representation as the graph takes it: finite, without constant columns, scaled.

    Args:
        x: One row a galaxy `(N, D)`.
        scaling: `"none"` leaves the columns as they are (the paper's), `"standardise"` gives each mean 0 and deviation
            1, `"l2"` gives each row length 1, so that Euclidean neighbours are those by cosine.

    Returns:
        `(N, D')`; constant columns are left out, which changes no distance, and counted in the log.

    Raises:
        DataError: It is no table of finite numbers, every column is constant, or a row of zeros should get length 1.
    """
    return scaler(x, scaling)(x)


def scaler(x: NDArray[Any], scaling: Scaling = "none") -> Callable[[NDArray[Any]], Floats]:
    """What `prepared` does to a representation, to be done to other galaxies too.

    Args:
        x: The representation `(N, D)` whose columns, means and deviations are taken.
        scaling: As for `prepared`.

    Returns:
        Scales any rows `(M, D)` to `(M, D')`, and raises as `prepared` for a row of zeros.

    Raises:
        DataError: As `prepared`.
    """
    if x.ndim != 2 or not x.size:
        raise DataError(f"a representation is one row of numbers a galaxy, (N, D), got an array of shape {x.shape}")
    if not (finite := np.isfinite(x)).all():
        column = int((~finite.all(0)).argmax())
        raise DataError(
            f"{int((~finite).sum())} values of the representation are no finite numbers, the first in column {column}, "
            f"row {int((~finite[:, column]).argmax())}: leave such rows or columns out"
        )
    varies = x.max(0) > x.min(0)
    if not varies.any():
        raise DataError("every column of the representation is constant: there is nothing to cluster")
    if left_out := int((~varies).sum()):
        log.info("%d of %d columns of the representation are constant and left out", left_out, len(varies))
    wide = x[:, varies].astype(np.float64)
    mean, deviation = wide.mean(0), wide.std(0)

    def scale(rows: NDArray[Any]) -> Floats:
        wide = rows[:, varies].astype(np.float64)
        if scaling == "standardise":
            wide = (wide - mean) / deviation
        elif scaling == "l2":
            length = np.linalg.norm(wide, axis=1, keepdims=True)
            if not length.all():
                raise DataError(
                    f"row {int((length[:, 0] == 0).argmax())} is all zeros and has no direction: leave it out, or use "
                    "another scaling than l2"
                )
            wide /= length
        return wide.astype(np.float32)

    return scale


def check_enough(rows: int, needed: int, name: str) -> None:
    """Whether there are more rows than neighbours are asked for.

    Args:
        rows: Number of rows N.
        needed: Number of neighbours.
        name: The setting that asks for them.

    Raises:
        DataError: There are not.
    """
    if rows <= needed:
        raise DataError(
            f"{rows} rows are too few for {name} = {needed}: give at least {needed + 1} rows, or lower it to at most "
            f"{rows - 1}"
        )


def neighbour_graph(x: Floats, k: int, seed: int = 0, reproducible: bool = True) -> NeighbourGraph:
    """The k nearest rows of each row, itself included; exact up to `EXACT_ROWS` rows, by NN-descent above.

    Args:
        x: Representation `(N, D)`, as `prepared` returns it.
        k: Number of neighbours.
        seed: Of NN-descent's random numbers.
        reproducible: Whether NN-descent uses one thread.

    Raises:
        DataError: There are no more rows than neighbours.
    """
    check_enough(len(x), k, "neighbours")
    if len(x) <= EXACT_ROWS:
        return _exact(x, k)
    from pynndescent import NNDescent  # imported here: it compiles for seconds

    search = NNDescent(x, n_neighbors=k, random_state=seed, n_jobs=1 if reproducible else -1, max_candidates=60)
    return _own_first(*search.neighbor_graph)


def narrowed(graph: NeighbourGraph, k: int) -> NeighbourGraph:
    """The graph of fewer neighbours.

    UMAP does not cut a precomputed graph below 4,096 rows (umap-learn 0.5.12), and would lay out another graph.

    Raises:
        ValueError: It holds fewer than k neighbours.
    """
    if (held := graph.index.shape[1]) < k:
        raise ValueError(f"a graph of {held} neighbours holds no {k}")
    return NeighbourGraph(np.ascontiguousarray(graph.index[:, :k]), np.ascontiguousarray(graph.distance[:, :k]))


def recall(graph: NeighbourGraph, x: Floats, rows: int = 1000, seed: int = 0) -> float:
    """The share of true neighbours, the row itself apart, that a graph holds; those as near as the last one count.

    Args:
        graph: Of k neighbours.
        x: The representation `(N, D)` it was made from.
        rows: How many rows are compared with the distances to all others.
        seed: Of the draw of rows.
    """
    k, wide = graph.index.shape[1], x.astype(np.float64)
    drawn = np.random.default_rng(seed).permutation(len(x))[:rows]
    shares = []
    for row in drawn:
        distance = np.linalg.norm(wide - wide[row], axis=1)
        found = np.setdiff1d(graph.index[row], [row])  # without repetition
        last = np.partition(distance, k - 1)[k - 1]  # the row itself is one of the k
        shares.append((distance[found] <= last * (1 + 1e-6)).sum() / (k - 1))
    return float(np.mean(shares))


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, BLAS, OpenMP and Numba use one thread: sums of another order would be other numbers."""
    import fast_plscan  # noqa: F401 (only OpenMP that is loaded can be told)
    import numba
    from threadpoolctl import threadpool_limits

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        numba.set_num_threads(before)


def _exact(x: Floats, k: int) -> NeighbourGraph:
    """Equal distances are ordered by row number, so that the graph of fewer neighbours is the first columns of this."""
    centred = x - x.mean(0, dtype=np.float64).astype(np.float32)  # products of small numbers lose fewer digits
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(centred)
    distance, index = search.kneighbors(centred)
    wide, everyone = centred.astype(np.float64), np.arange(len(x))
    size = np.linalg.norm(wide) / len(x) ** 0.5
    for row in np.flatnonzero(distance[:, k] - distance[:, k - 1] <= SAME * size):  # which of equal ones is chance
        apart = np.linalg.norm(wide - wide[row], axis=1)
        index[row, :k] = np.lexsort((everyone, apart, everyone != row))[:k]
    index = index[:, :k]
    return _own_first(index, np.stack([np.linalg.norm(wide - wide[near], axis=1) for near in index.T], 1))


def _own_first(index: NDArray[Any], distance: NDArray[Any]) -> NeighbourGraph:
    """Order by distance, and by row number where it is equal; the row itself first, also if the search left it out."""
    rows = np.arange(len(index))[:, None]
    own = index == rows
    own[~own.any(1), -1] = True  # the furthest makes room
    index, distance = np.where(own, rows, index).astype(np.int32), np.where(own, -1, distance).astype(np.float32)
    order = np.lexsort((index, distance))
    near = np.take_along_axis(distance, order, 1)
    return NeighbourGraph(np.take_along_axis(index, order, 1), np.maximum(near, 0))
