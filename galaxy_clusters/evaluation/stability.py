"""Whether clusters come back: from most of the galaxies, from another seed, from rotated images; and their separation.

Subsamples are drawn without replacement: the copies of galaxies that a bootstrap draws are clusters of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from galaxy_clusters.clustering.chain import fingerprint
from galaxy_clusters.evaluation import Labels, Points, ToLabels, replicated
from shared.data.problems import DataError
from shared.metrics import interval, mean_values
from shared.metrics.clusters import UNASSIGNED, best_matches

Floats = NDArray[np.float64]

SHARE = 0.8  # of the galaxies in a subsample


class Rerun(NamedTuple):
    """Labels of another run of the chain.

    Attributes:
        rows: The galaxies it held `(n,)`.
        labels: Their clusters `(n,)`, under names of its own.
    """

    rows: NDArray[np.int64]
    labels: Labels


def subsamples(
    x: Points,
    chain: ToLabels,
    runs: int,
    seed: int = 0,
    path: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> list[Rerun]:
    """The chain on 80% of the galaxies, drawn without replacement, as often as asked.

    Density falls with the number of galaxies, so a class of few more than `min_samples` members may be lost for that
    alone.

    Args:
        x: Representation `(N, D)`.
        chain: From a representation to labels.
        runs: How many subsamples.
        seed: Of the draws.
        path: File that keeps what is done, see `replicated`.
        settings: What the chain depends on, kept with it.
    """

    def drawn(number: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((seed, number))
        return np.sort(rng.choice(len(x), round(SHARE * len(x)), replace=False))

    known = {"data": fingerprint(x), "seed": seed, "share": SHARE, **(settings or {})}
    found = replicated(lambda number: chain(x[drawn(number)]).tolist(), runs, "subsamples", path, known)
    return [Rerun(drawn(number), np.array(labels, np.int64)) for number, labels in enumerate(found)]


def seeds(
    x: Points,
    chain: Callable[[Points, int], Labels],
    numbers: Sequence[int],
    path: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> list[Rerun]:
    """The chain on all galaxies with other seeds of the layout.

    Args:
        x: Representation `(N, D)`.
        chain: From a representation and a seed to labels.
        numbers: The seeds, without that of the clusters in question.
        path: File that keeps what is done, see `replicated`.
        settings: What the chain depends on, kept with it.
    """
    known = {"data": fingerprint(x), "seeds": list(numbers), **(settings or {})}
    found = replicated(lambda place: chain(x, numbers[place]).tolist(), len(numbers), "seeds", path, known)
    return [Rerun(np.arange(len(x)), np.array(labels, np.int64)) for labels in found]


def stability(labels: Labels, reruns: Sequence[Rerun]) -> pd.DataFrame:
    """How well the clusters come back in other runs: the best Jaccard index over the galaxies that both hold.

    Args:
        labels: The clusters in question `(N,)`.
        reruns: See `subsamples` and `seeds`.

    Returns:
        A row a cluster, named by it: `stability`, the mean over the runs that held a member, in [0, 1], `stability_low`
        and `stability_high`, its 95% interval over the runs (of these galaxies: other galaxies may differ more), NaN
        for fewer than two, and `runs`, their number.

    Raises:
        DataError: There are no runs.
    """
    if not reruns:
        raise DataError("there are no other runs to compare with: ask for at least 2")
    found: dict[int, list[float]] = {int(label): [] for label in np.unique(labels[labels != UNASSIGNED])}
    for rows, others in reruns:
        for match in best_matches(labels[rows], others):
            found[match.label].append(match.jaccard)
    table = []
    for values in found.values():
        value, low, high, _ = interval(mean_values(values)) if values else (np.nan,) * 4
        table.append({"stability": value, "stability_low": low, "stability_high": high, "runs": len(values)})
    columns = ["stability", "stability_low", "stability_high", "runs"]
    return pd.DataFrame(table, pd.Index(list(found), name="cluster"), columns)


def kept_when_changed(x: Points, changed: Points, labels: Labels, k: int = 10) -> pd.DataFrame:
    """Whether a galaxy whose image was changed, by a rotation as a rule, stays in its cluster.

    A galaxy belongs where most of its k nearest neighbours among the others do (-1 among the possibilities). That is
    asked of it as it was and as it is now, since a cluster that loses its members without any change is no measure.

    Args:
        x: Representation `(N, D)`.
        changed: That of the same galaxies, from changed images `(N, D)`.
        labels: Clusters `(N,)` of `x`.
        k: Number of neighbours.

    Returns:
        A row a cluster, named by it: `kept`, the share of members whose changed vector belongs to it, `kept_unchanged`,
        the share of those whose own vector does, and `moved`, the median distance between both in units of the
        distance to the k-th neighbour.

    Raises:
        DataError: The two differ in shape.
    """
    if x.shape != changed.shape:
        raise DataError(f"representations of the same galaxies must have one shape, got {x.shape} and {changed.shape}")
    search = NearestNeighbors(n_neighbors=k + 1).fit(x)
    members = np.flatnonzero(labels != UNASSIGNED)
    before, reach = _majority(search, x[members], members, labels, k)
    after, _ = _majority(search, changed[members], members, labels, k)
    own = labels[members]
    moved = np.linalg.norm(x[members].astype(np.float64) - changed[members], axis=1) / np.maximum(reach, 1e-300)
    table = pd.DataFrame({"cluster": own, "kept": after == own, "kept_unchanged": before == own, "moved": moved})
    return table.groupby("cluster").agg({"kept": "mean", "kept_unchanged": "mean", "moved": "median"})


def _majority(
    search: NearestNeighbors, vectors: Points, rows: NDArray[np.int64], labels: Labels, k: int
) -> tuple[Labels, Floats]:
    """The commonest label among the k nearest other galaxies, and the distance to the k-th; of equals the smallest."""
    distance, near = search.kneighbors(vectors)
    other = near != rows[:, None]
    other[other.all(1), -1] = False  # the galaxy itself is not among them, so one is too many
    near, distance = near[other].reshape(-1, k), distance[other].reshape(-1, k)
    names, codes = np.unique(labels, return_inverse=True)
    votes = (codes[near][:, :, None] == np.arange(len(names))).sum(1)
    return names[votes.argmax(1)], distance[:, -1]


@dataclass(frozen=True)
class Validity:
    """Density-based validity of a clustering.

    Attributes:
        value: In [-1, 1], NaN where it is undefined. Comparable within one data set alone.
        undefined: Why it is; empty where it is not.
    """

    value: float
    undefined: str = ""


def density_validity(coordinates: Points, labels: Labels) -> Validity:
    """Density-based cluster validation (DBCV, Moulavi et al. 2014): density within clusters against that between them.

    Its densities are powers with the number of dimensions, which overflow in a representation of 128: give the layout.
    Galaxies at one place count once, since their density is infinite.

    Args:
        coordinates: `(N, D)`, the layout as a rule.
        labels: Clusters `(N,)`.
    """
    from hdbscan.validity import validity_index  # imported here: it takes seconds

    _, first = np.unique(coordinates, axis=0, return_index=True)
    kept, points = labels[np.sort(first)], coordinates[np.sort(first)].astype(np.float64)
    names, sizes = np.unique(kept[kept != UNASSIGNED], return_counts=True)
    if len(names) < 2:
        return Validity(np.nan, f"it compares clusters, and there {'is one' if len(names) else 'are none'}")
    if sizes.min() < 3:
        return Validity(np.nan, f"cluster {names[sizes.argmin()]} has fewer than 3 members at different places")
    # Densities are distances to the power of minus D: in units of a usual distance these are numbers, if any are.
    nearest = np.concatenate(
        [
            NearestNeighbors(n_neighbors=1).fit(own).kneighbors()[0][:, 0]
            for own in (points[kept == name] for name in names)
        ]
    )
    usual = float(np.median(nearest))
    dimensions = coordinates.shape[1]
    value = np.nan
    if np.abs(np.log(nearest / usual)).max() * dimensions < np.log(np.finfo(np.float64).max):
        value = float(validity_index(points / usual, kept))
    if not np.isfinite(value):
        return Validity(np.nan, f"the densities overflow in {dimensions} dimensions")
    return Validity(value)
