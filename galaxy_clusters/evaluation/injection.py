"""Injection and recovery: the smallest class that a chain could have found, measured through the chain itself.

Copies of a galaxy are scattered around it in the representation, and the chain runs on all. A curve for Gaussian blobs
in the layout would leave out what UMAP does to a small class. (The paper, section 3, argues that `n_neighbors` and
`min_samples` leave rare classes whole, and does not measure it.)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.isotonic import isotonic_regression

from galaxy_clusters.clustering.chain import fingerprint
from galaxy_clusters.clustering.graph import check_enough
from galaxy_clusters.evaluation import Points, ToLabels, replicated
from shared.data.problems import DataError
from shared.metrics.clusters import best_matches

LENGTH = 10  # displacements are measured in the distance to this neighbour
LOCAL = 100  # neighbours whose covariance gives the directions
RECOVERED = 0.5  # a larger best-match Jaccard index is a recovery
PIECE = 0.2  # of a class in a cluster, for the cluster to count as a piece of it
CROWDED = 0.2  # more injected than this share of the galaxies would be another data set


def inject(x: Points, seed_row: int, count: int, scatter: float, seed: int | tuple[int, int]) -> Points:
    """A representation with copies of one galaxy, scattered around it.

    Args:
        x: Representation `(N, D)` in which the chain measures distances, that is as `graph.prepared` returns it.
        seed_row: The galaxy that is copied.
        count: Number of copies.
        scatter: Length of every copy's displacement, in units of the galaxy's distance to its tenth neighbour.
        seed: Of the displacements, whose directions have the covariance of the galaxy's `LOCAL` nearest neighbours.

    Returns:
        `(N + count, D)`; the copies are the last rows.

    Raises:
        DataError: There are not enough rows for `LOCAL` neighbours.
    """
    check_enough(len(x), LOCAL, "neighbours")
    rng = np.random.default_rng(seed)
    away = np.linalg.norm(x.astype(np.float64) - x[seed_row], axis=1)
    near = np.argsort(away, kind="stable")
    local = x[near[: LOCAL + 1]].astype(np.float64)
    # Normal weights of the centred neighbours have their covariance, which is singular where columns are many.
    drawn = rng.standard_normal((count, len(local))) @ (local - local.mean(0))
    length = np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    moved = drawn / length * (scatter * away[near[LENGTH]])
    return np.concatenate([x, (x[seed_row] + moved).astype(x.dtype)])


def detectability(
    x: Points,
    chain: ToLabels,
    counts: Sequence[int],
    scatters: Sequence[float],
    seeds: Sequence[int],
    path: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Which injected classes come back, by their number of members and scatter.

    One run of the chain holds a class of every number, each around a random galaxy of its own, so there are as many
    runs as scatters times seeds. The same seed injects around the same galaxies at every scatter.

    Args:
        x: Representation `(N, D)`, see `inject`.
        chain: From a representation to labels.
        counts: Numbers of members.
        scatters: See `inject`.
        seeds: One repetition each.
        path: File that keeps what is done, see `replicated`.
        settings: What the chain depends on, kept with it.

    Returns:
        A row a class: `scatter`, `seed`, `seed_row`, `count`, `jaccard` of the best match in [0, 1], its `purity` and
        `recall`, `recovered` (`jaccard` above 0.5), and `pieces`, the number of clusters that hold a fifth of it or
        more. Members are the copies alone.

    Raises:
        DataError: All classes together have more than a fifth as many members as there are galaxies; or see `inject`
            and `replicated`.
    """
    if sum(counts) > CROWDED * len(x):
        raise DataError(
            f"{sum(counts)} injected galaxies beside {len(x)} would change the whole: inject at most "
            f"{int(CROWDED * len(x))} in all, or in several calls"
        )
    runs = [(float(scatter), int(seed)) for scatter in scatters for seed in seeds]

    def run(number: int) -> list[dict[str, Any]]:
        scatter, seed = runs[number]
        rows = np.random.default_rng(seed).choice(len(x), len(counts), replace=False)
        classes = np.repeat(np.arange(-1, len(counts)), [len(x), *counts])
        copies = [
            inject(x, row, count, scatter, (seed, place))[len(x) :]
            for place, (row, count) in enumerate(zip(rows, counts, strict=True))
        ]
        labels = chain(np.concatenate([x, *copies]))
        matches = best_matches(classes, labels)
        return [
            {"scatter": scatter, "seed": seed, "seed_row": int(row), "count": int(count), "jaccard": match.jaccard,
             "purity": match.purity, "recall": match.recall, "recovered": match.jaccard > RECOVERED,
             "pieces": _pieces(labels[classes == match.label])}
            for row, count, match in zip(rows, counts, matches, strict=True)
        ]  # fmt: skip

    known = {"data": fingerprint(x), "counts": list(counts), "runs": runs, **(settings or {})}
    done = replicated(run, len(runs), "injection", path, known)
    return pd.DataFrame([row for rows in done for row in rows])


def _pieces(labels: NDArray[np.int64]) -> int:
    """Number of clusters that hold a good part of a class."""
    return int((np.unique(labels[labels >= 0], return_counts=True)[1] >= PIECE * len(labels)).sum())


class SmallestFindable(NamedTuple):
    """The smallest class that is recovered in a given share of cases.

    Attributes:
        members: Its size; infinite if no tested number is recovered so often. If the smallest tested number
            already is, it is that number, and the truth may be smaller.
        low: From 95% Wilson intervals of the shares: smaller classes are recovered more rarely than the share.
        high: Larger classes are recovered at least as often; infinite if that is not shown for any tested number.
    """

    members: float
    low: float
    high: float


def smallest_findable(table: pd.DataFrame, scatter: float, share: float = 0.5) -> SmallestFindable:
    """The number of members at which the recovered share, which can only grow with it, reaches a value.

    The shares at the tested numbers are made monotone by isotonic regression and interpolated in the logarithm of the
    number. The ends are where the monotone upper and lower Wilson ends reach the share.

    Args:
        table: As `detectability` returns it.
        scatter: Whose classes.
        share: In (0, 1): 0.5 for the smallest class found as often as not, 0.9 for one found with some certainty.

    Raises:
        DataError: No class was injected with that scatter.
        ValueError: `share` is not in (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie strictly between 0 and 1, got {share}")
    chosen = table[np.isclose(table["scatter"], scatter)]
    if chosen.empty:
        known = ", ".join(f"{value:g}" for value in sorted(table["scatter"].unique()))
        raise DataError(f"nothing was injected with scatter {scatter:g}, only with {known}")
    by_count = chosen.groupby("count")["recovered"].agg(["sum", "size"]).sort_index()
    counts = by_count.index.to_numpy(np.float64)
    intervals = [
        binomtest(int(found), int(tried)).proportion_ci(0.95, "wilson")
        for found, tried in zip(by_count["sum"], by_count["size"], strict=True)
    ]
    weight = by_count["size"].to_numpy(np.float64)
    middle = by_count["sum"].to_numpy(np.float64) / weight
    curves = [middle, np.array([each.high for each in intervals]), np.array([each.low for each in intervals])]
    return SmallestFindable(*(_reaches(counts, isotonic_regression(curve, sample_weight=weight), share)
                              for curve in curves))  # fmt: skip


def _reaches(counts: NDArray[np.float64], shares: NDArray[np.float64], share: float) -> float:
    """Where a monotone curve first reaches a value."""
    if shares[-1] < share:
        return float("inf")
    place = int(np.searchsorted(shares, share))  # the first that is at least so large
    if place == 0:
        return float(counts[0])
    part = (share - shares[place - 1]) / (shares[place] - shares[place - 1])
    ends = np.log(counts[place - 1 : place + 1])
    return float(np.exp(ends[0] + part * (ends[1] - ends[0])))
