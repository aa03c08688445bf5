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


def enrichment(labels: Labels, attributes: pd.DataFrame) -> pd.DataFrame:
    """Each cluster against the sample in each attribute.

    Args:
        labels: Clusters `(N,)`.
        attributes: A row a galaxy, of columns that nothing before has used: boolean ones say who belongs to a class,
            numbers are compared by rank. Galaxies without a value do not count.

    Returns:
        A row a cluster and attribute: `cluster`, `attribute`, `size` (members with a value), `value` (share of a class
        among them, or their median), `sample` (that of all galaxies), `p`: for a class the hypergeometric chance of at
        least as many, for a number that of ranks at least as different (Mann and Whitney, both sides; NaN if the
        cluster or the rest has no value), and `p_holm`, corrected for the number of rows.

    Raises:
        DataError: An attribute is neither true or false nor a number, or there is another number of rows.
    """
    _same_rows(labels, len(attributes))
    names = np.unique(labels[labels != UNASSIGNED])
    found = []
    for attribute, column in attributes.items():
        values = _numbers(str(attribute), column)
        known = ~np.isnan(values)
        of_class = pd.api.types.is_bool_dtype(column.dropna().infer_objects())
        for name in names:
            inside, rest = values[known & (labels == name)], values[known & (labels != name)]
            row = {"cluster": int(name), "attribute": str(attribute), "size": len(inside)}
            if of_class:
                p = float(hypergeom.sf(inside.sum() - 1, known.sum(), values[known].sum(), len(inside)))
                value, sample = _mean(inside), _mean(values[known])
            else:
                p = float(mannwhitneyu(inside, rest).pvalue) if len(inside) and len(rest) else np.nan
                value, sample = _median(inside), _median(values[known])
            found.append(row | {"value": value, "sample": sample, "p": p})
    table = pd.DataFrame(found, columns=["cluster", "attribute", "size", "value", "sample", "p"])
    return table.assign(p_holm=holm(table["p"]))


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
    _same_rows(positive, len(x))
    members = np.flatnonzero(positive)
    if not len(members):
        raise DataError("the class has no member, so its neighbours have no purity")
    check_enough(len(x), k, "neighbours")
    value, low, high, _ = interval(mean_values(positive[_nearest_others(x, members, k)].mean(1)))
    return Purity(value, low, high, (len(members) - 1) / (len(x) - 1))


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
