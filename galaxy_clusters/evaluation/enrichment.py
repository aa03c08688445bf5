"""Whether clusters hold more of a held-out attribute than the sample does, and than other patches of the same space do.

A representation that arranges galaxies by appearance has patches full of any class anywhere, so a small p-value of a
cluster is no evidence for the clustering. What counts is the comparison with as many random patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import hypergeom, mannwhitneyu
from sklearn.neighbors import NearestNeighbors

from galaxy_clusters.clustering.graph import check_enough
from galaxy_clusters.evaluation import Labels, Points
from shared.data.problems import DataError
from shared.metrics import holm, interval, mean_values
from shared.metrics.clusters import UNASSIGNED

Rows = NDArray[np.int64]


def enrichment(x: Points, labels: Labels, attributes: pd.DataFrame, draws: int = 100, seed: int = 0) -> pd.DataFrame:
    """Each cluster against the sample in each attribute, and against random patches of the same space.

    Args:
        x: Representation `(N, D)`.
        labels: Clusters `(N,)`.
        attributes: A row a galaxy, of columns that nothing before has used: boolean ones say who belongs to a class,
            numbers are compared by rank. Galaxies without a value do not count.
        draws: How often patches are drawn, one for each cluster and of its size.
        seed: Of the draws.

    Returns:
        A row a cluster and attribute: `cluster`, `attribute`, `size` (members with a value), `value` (share of a class
        among them, or their median), `sample` (that of all galaxies), `p`: for a class the hypergeometric chance of at
        least as many, for a number that of ranks at least as different (Mann and Whitney, both sides; NaN if the
        cluster or the rest has no value), `p_holm`, corrected for the number of rows, and `patches_as_good`, the share
        of draws in which a patch has a p at least as small.

    Raises:
        DataError: An attribute is neither true or false nor a number, or there is another number of rows.
    """
    _same_rows(labels, len(attributes))
    names, sizes = np.unique(labels[labels != UNASSIGNED], return_counts=True)
    drawn = [random_patches(x, sizes.tolist(), (seed, draw)) for draw in range(draws)] if len(names) else []
    found = []
    for attribute, column in attributes.items():
        values = _numbers(str(attribute), column)
        known = values[~np.isnan(values)]
        of_class = pd.api.types.is_bool_dtype(column.dropna().infer_objects())
        middle = _mean if of_class else _median
        of_patches = [np.fmin.reduce([_p(values, rows, of_class) for rows in patches]) for patches in drawn]
        for name in names:
            inside, p = values[labels == name], _p(values, np.flatnonzero(labels == name), of_class)
            inside = inside[~np.isnan(inside)]
            as_good = np.nan if np.isnan(p) else float((np.array(of_patches) <= p * (1 + 1e-9)).mean())
            found.append((int(name), str(attribute), len(inside), middle(inside), middle(known), p, as_good))
    table = pd.DataFrame(found, columns=["cluster", "attribute", "size", "value", "sample", "p", "patches_as_good"])
    return table.assign(p_holm=holm(table["p"]))


def _p(values: NDArray[np.float64], rows: Rows, of_class: bool) -> float:
    """The chance that some rows differ as much from the others, or hold as many of a class; NaN is no value."""
    chosen = np.isin(np.arange(len(values)), rows)
    known = ~np.isnan(values)
    inside, rest = values[known & chosen], values[known & ~chosen]
    if of_class:
        return float(hypergeom.sf(inside.sum() - 1, known.sum(), values[known].sum(), len(inside)))
    return float(mannwhitneyu(inside, rest).pvalue) if len(inside) and len(rest) else np.nan


def random_patches(x: Points, sizes: Sequence[int], seed: int | tuple[int, int]) -> list[Rows]:
    """Patches of a representation: a random galaxy and its nearest neighbours, for each size.

    Args:
        x: Representation `(N, D)`.
        sizes: Numbers of galaxies, the random one included.
        seed: Of the draw of galaxies. Patches may overlap.

    Returns:
        Rows of each patch.

    Raises:
        DataError: A patch would hold all galaxies.
    """
    check_enough(len(x), max(sizes), "the size of a patch")
    centres = np.random.default_rng(seed).integers(len(x), size=len(sizes))
    near = np.column_stack([centres, _nearest_others(x, centres, max(sizes) - 1)])
    return [row[:size] for row, size in zip(near, sizes, strict=True)]


@dataclass(frozen=True)
class AgainstPatches:
    """The most enriched cluster beside the most enriched of as many random patches of the same sizes.

    Attributes:
        cluster: The most enriched one, by its p-value.
        size: Its members.
        hits: Those of the class.
        base_rate: Share of the class in the sample.
        p: Hypergeometric, of the cluster alone.
        patch_p: Median over the draws of the best patch's.
        share: Of the draws whose best patch is at least as enriched; NaN without a cluster.
        draws: Their number.
    """

    cluster: int
    size: int
    hits: int
    base_rate: float
    p: float
    patch_p: float
    share: float
    draws: int


def against_patches(
    x: Points, labels: Labels, positive: NDArray[np.bool_], draws: int = 100, seed: int = 0
) -> AgainstPatches:
    """Whether a clustering finds a class better than random patches of the same space do.

    Args:
        x: Representation `(N, D)`.
        labels: Clusters `(N,)`.
        positive: Who belongs to the class `(N,)`.
        draws: How often patches are drawn, one for each cluster and of its size.
        seed: Of the draws.

    Raises:
        DataError: There is another number of rows.
    """
    _same_rows(labels, len(positive))
    names, sizes = np.unique(labels[labels != UNASSIGNED], return_counts=True)
    rate = float(np.mean(positive))
    if not len(names):
        return AgainstPatches(UNASSIGNED, 0, 0, rate, np.nan, np.nan, np.nan, draws)
    hits = np.array([int(positive[labels == name].sum()) for name in names])
    # Logarithms, since p-values of large clusters are no numbers.
    log_p = hypergeom.logsf(hits - 1, len(x), positive.sum(), sizes)
    best = int(log_p.argmin())
    of_patches = np.empty(draws)
    for draw in range(draws):
        in_patch = [int(positive[rows].sum()) for rows in random_patches(x, sizes.tolist(), (seed, draw))]
        of_patches[draw] = hypergeom.logsf(np.array(in_patch) - 1, len(x), positive.sum(), sizes).min()
    share = float((of_patches <= log_p[best] + 1e-9).mean())  # equal ones are as enriched
    p, patch_p = np.exp(log_p[best]), np.exp(np.median(of_patches))
    return AgainstPatches(
        int(names[best]), int(sizes[best]), int(hits[best]), rate, float(p), float(patch_p), share, draws
    )


@dataclass(frozen=True)
class Purity:
    """The share of a class among the neighbours of its members.

    Attributes:
        value: In [0, 1].
        low: Lower end of its 95% interval over the members.
        high: Upper end.
        base_rate: Share of the class among the other galaxies, which neighbours at random would have.
    """

    value: float
    low: float
    high: float
    base_rate: float


def neighbour_purity(x: Points, positive: NDArray[np.bool_], k: int = 10) -> Purity:
    """Mean share of a class among the k nearest neighbours of each of its members, itself not counted.

    Args:
        x: Representation `(N, D)`.
        positive: Who belongs to the class `(N,)`.
        k: Number of neighbours.

    Raises:
        DataError: The class has no member, or there are too few rows.
    """
    shares = neighbour_shares(x, positive, k)
    value, low, high, _ = interval(mean_values(shares))
    return Purity(value, low, high, (len(shares) - 1) / (len(x) - 1))


def neighbour_shares(x: Points, positive: NDArray[np.bool_], k: int = 10) -> NDArray[np.float64]:
    """Share of a class among the k nearest neighbours of each of its members, in their order, itself not counted.

    Args:
        x: As for `neighbour_purity`, as all below.
        positive: `(N,)`.
        k: Number of neighbours.

    Raises:
        DataError: As `neighbour_purity`.
    """
    _same_rows(positive, len(x))
    members = np.flatnonzero(positive)
    if not len(members):
        raise DataError("the class has no member, so its neighbours have no purity")
    check_enough(len(x), k, "neighbours")
    shares: NDArray[np.float64] = positive[_nearest_others(x, members, k)].mean(1)
    return shares


def _nearest_others(x: Points, rows: Rows, k: int) -> Rows:
    """The k galaxies nearest to each of some, nearest first, itself left out; copies of it stay."""
    near = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x).kneighbors(x[rows], return_distance=False)
    own = near == rows[:, None]
    own[~own.any(1), 0] = True  # more copies than neighbours: one of them makes room
    return np.asarray(near[~own].reshape(len(rows), k), np.int64)


def _same_rows(labels: NDArray[np.generic], rows: int) -> None:
    if len(labels) != rows:
        raise DataError(f"there are {len(labels)} labels and {rows} rows of attributes: give one row a galaxy")


def _numbers(name: str, column: "pd.Series[float]") -> NDArray[np.float64]:
    try:
        return np.asarray(column.astype("Float64").to_numpy(np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        raise DataError(
            f"the attribute {name} is neither true or false nor a number: make a column of each of its classes"
        ) from None


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else np.nan


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else np.nan
