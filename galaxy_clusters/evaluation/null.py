"""What smooth data alone would show: resamples without small structure, and the chance of each cluster in them.

A clustering of smooth data has leaves too, so their number is no evidence. The chain is run again on data with the bulk
shape of the representation and no structure smaller than a few hundred galaxies, and a cluster counts for as much as
it exceeds the most prominent one of those runs. (The paper, section 5, has no measure of validity.)

Shapes: N galaxies, D columns, K neighbours, M Gaussians, A = min(K, D) axes, R replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors

from galaxy_clusters.clustering.chain import fingerprint
from galaxy_clusters.clustering.graph import check_enough, neighbour_graph, one_thread
from galaxy_clusters.clustering.leaves import Clusters
from galaxy_clusters.evaluation import Points, ToClusters, replicated

Floats = NDArray[np.float64]

NEIGHBOURS = 200  # structure of fewer galaxies is smoothed away
NUMBERS = 250_000_000  # that the axes of all Gaussians take, a gigabyte; there are as many Gaussians as that allows
PASSES = 10  # of the weights; more of them follow the noise of single galaxies
NEAR, FAR = 10, 50  # neighbours whose distances must agree
TOLERANCE = 0.05
CHECKED = 2000  # galaxies from which distances are measured
HALVINGS = 6  # of the range of the sharpness
DRAWS = 5  # that the scale is fitted to in the end
WIDEST = 3.0  # of the scale
SHARPEST = 5.0


@dataclass(frozen=True)
class SmoothNull:
    """A smooth density with the bulk shape of a representation: a mixture of its local Gaussians.

    Attributes:
        mean: Centres `(M, D)`.
        axes: Orthonormal local principal axes `(M, A, D)`, one a row, the longest first.
        variance: Along each axis `(M, A)`.
        weight: Share of the draws from each Gaussian `(M,)`.
        sharpness: By how much minor axes are shrunk, 0 for not at all.
        scale: Factor of all deviations.
    """

    mean: Points
    axes: Points
    variance: Floats
    weight: Floats
    sharpness: float = 0.0
    scale: float = 1.0

    def draw(self, count: int, seed: int | tuple[int, int]) -> Points:
        """New points `(count, D)`, a function of the seed alone."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.mean), count, p=self.weight)
        noise = rng.standard_normal((count, self.variance.shape[1]), dtype=np.float32)
        noise *= self._deviation()[chosen]
        made = self.mean[chosen]
        for anchor in np.unique(chosen):
            rows = np.flatnonzero(chosen == anchor)
            made[rows] += noise[rows] @ self.axes[anchor]
        return made

    def _deviation(self) -> Points:
        """Along each axis `(M, A)`: the variance l becomes l (l / largest)^sharpness, their sum stays."""
        total = self.variance.sum(1, keepdims=True)
        largest = np.maximum(self.variance.max(1, keepdims=True), np.finfo(np.float64).tiny)
        shrunk = self.variance * (self.variance / largest) ** self.sharpness
        kept = total / np.maximum(shrunk.sum(1, keepdims=True), np.finfo(np.float64).tiny)
        return np.asarray(self.scale * np.sqrt(shrunk * kept), np.float32)


def fit_smooth(x: Points, neighbours: int = NEIGHBOURS, seed: int = 0) -> SmoothNull:
    """The smooth density of a representation.

    Around each galaxy stands the Gaussian with the mean and covariance of its nearest neighbours. Three things make
    draws from them as dense as the data:

    - Weights. A galaxy in the middle is a neighbour of many and one at the edge of few, so that Gaussians of equal
      weight would draw the whole together (to two thirds of its width with heavy tails). Weights are chosen, by
      expectation maximisation, such that all galaxies are drawn from equally often as neighbours; mean and covariance
      of the whole are then those of the data.
    - Sharpness. Where galaxies lie on a curved sheet, a Gaussian of a few hundred is thicker than the sheet, and its
      points have near neighbours too far away. Its minor axes are shrunk.
    - Scale, of all deviations together.

    The last two are two numbers for the whole representation, fitted to the median distances to the 10th and the 50th
    neighbour, which few galaxies in clusters do not change; `check_resample` says whether they could be.

    Args:
        x: Representation `(N, D)` in which the chain measures distances, that is as `graph.prepared` returns it.
        neighbours: K. Structure of fewer galaxies is smoothed away, larger clusters are part of the bulk. More than a
            tenth of all may be too many for a strongly curved representation.
        seed: Of the draws that are compared with the data, and of the choice of galaxies where there are too many.

    Raises:
        DataError: There are no more rows than neighbours.
    """
    check_enough(len(x), max(neighbours, FAR), "neighbours")
    near = neighbour_graph(x, neighbours).index
    columns, axes_each = x.shape[1], min(neighbours, x.shape[1])
    if len(x) > (anchors := NUMBERS // (columns * axes_each)):
        near = near[np.random.default_rng(seed).choice(len(x), anchors, replace=False)]
    mean, axes = np.empty((len(near), columns), np.float32), np.empty((len(near), axes_each, columns), np.float32)
    variance = np.empty((len(near), axes_each))
    with one_thread():  # so that a resumed loop has the same null
        for anchor, rows in enumerate(near):
            own = x[rows].astype(np.float64)
            mean[anchor] = middle = own.mean(0)
            _, deviation, axes[anchor] = np.linalg.svd(own - middle, full_matrices=False)
            variance[anchor] = np.square(deviation) / (neighbours - 1)
        return _like(x, SmoothNull(mean, axes, variance, _weights(near, len(x))), seed)


def smooth_resample(x: Points, neighbours: int = NEIGHBOURS, seed: int = 0) -> Points:
    """As many new points as galaxies from the smooth density of a representation, see `fit_smooth`."""
    return fit_smooth(x, neighbours, seed).draw(len(x), seed)


def permuted(x: Points, seed: int) -> Points:
    """Each column in an order of its own: no fair null, since independent columns with heavy tails make islands."""
    return np.random.default_rng(seed).permuted(x, axis=0)


@dataclass(frozen=True)
class ResampleCheck:
    """Whether a resample is as dense as the data.

    Attributes:
        near: Median distance to the 10th neighbour, of the resample over that of the data.
        far: The same for the 50th.
        fair: Whether both are within 5% of one: only then does a p-value mean anything.
        reason: Says so.
    """

    near: float
    far: float
    fair: bool
    reason: str


def check_resample(x: Points, resampled: Points) -> ResampleCheck:
    """Compare the distances to the 10th and 50th neighbour within a resample with those within the data.

    Args:
        x: Representation `(N, D)`.
        resampled: `(N, D)`.

    Raises:
        ValueError: The two differ in shape.
        DataError: There are 50 rows or fewer.
    """
    if x.shape != resampled.shape:
        raise ValueError(f"a resample of shape {resampled.shape} cannot be compared with data of shape {x.shape}")
    near, far = _distances(resampled) / np.maximum(_distances(x), np.finfo(np.float64).tiny)
    fair = bool(max(abs(near - 1), abs(far - 1)) <= TOLERANCE)
    said = f"median distances to the {NEAR}th and {FAR}th neighbour are {near:.3f} and {far:.3f} of the data's"
    allowed = f"within {TOLERANCE:.0%}" if fair else f"more than {TOLERANCE:.0%} off, so no p-value is given"
    return ResampleCheck(float(near), float(far), fair, f"{said}: {allowed}")


def _weights(near: NDArray[np.int32], rows: int) -> Floats:
    """Weights of neighbourhoods `(M,)` by which every galaxy is drawn equally often, by expectation maximisation."""
    anchors, k = near.shape
    holds = csr_matrix((np.full(near.size, 1 / k), near.ravel(), np.arange(0, near.size + 1, k)), (anchors, rows))
    weight = np.full(anchors, 1 / anchors)
    for _ in range(PASSES):
        drawn = holds.T @ weight
        weight = weight * (holds @ np.divide(1 / rows, drawn, out=np.zeros(rows), where=drawn > 0))
    found: Floats = weight / weight.sum()
    return found


def _like(x: Points, null: SmoothNull, seed: int) -> SmoothNull:
    """The null whose median distances to the near and the far neighbour are those of the data, as closely as can be."""
    data = _distances(x)
    if not data.all():  # more copies than neighbours: there is nothing to compare with
        return null
    null, near, far = _scaled(null, data, len(x), seed)
    best, furthest = null, max(abs(near), abs(far))
    low, high = 0.0, SHARPEST
    for _ in range(HALVINGS if near > far else 0):  # only where it is thicker than the data
        middle = (low + high) / 2
        null, near, far = _scaled(replace(null, sharpness=middle), data, len(x), seed)
        low, high = (middle, high) if near > far else (low, middle)
        if (off := max(abs(near), abs(far))) < furthest:
            best, furthest = null, off
    # One draw is off by a few per cent of its own, which all replicates would inherit.
    return _moved(best, float(np.mean([_off(best, data, len(x), (seed, draw)) for draw in range(DRAWS)])))


def _scaled(null: SmoothNull, data: Floats, rows: int, seed: int) -> tuple[SmoothNull, float, float]:
    """The null with the scale that fits, and the logarithms of its two distances over those of the data."""
    for left in (2, 1, 0):  # distances do not grow quite as deviations do
        near, far = _off(null, data, rows, seed)
        if left:
            null = _moved(null, (near + far) / 2)
    return null, float(near), float(far)


def _off(null: SmoothNull, data: Floats, rows: int, seed: int | tuple[int, int]) -> Floats:
    """Logarithms of both distances `(2,)` of a draw over those of the data."""
    return np.asarray(np.log(np.maximum(_distances(null.draw(rows, seed)), np.finfo(np.float64).tiny) / data))


def _moved(null: SmoothNull, off: float) -> SmoothNull:
    """The null with another scale; a factor beyond `WIDEST` mends nothing."""
    return replace(null, scale=float(np.clip(null.scale * np.exp(-off), 1 / WIDEST, WIDEST)))


def _distances(x: Points) -> Floats:
    """Median distances `(2,)` to the near and the far neighbour, from evenly spread rows."""
    check_enough(len(x), FAR, "neighbours")
    search = NearestNeighbors(n_neighbors=FAR + 1, algorithm="brute").fit(x)
    rows = np.linspace(0, len(x) - 1, min(len(x), CHECKED)).astype(int)
    found, _ = search.kneighbors(x[rows])
    return np.asarray(np.median(found[:, [NEAR, FAR]], axis=0), np.float64)


def prominence(clusters: Clusters) -> Floats:
    r"""How prominent each cluster is: a signal-to-noise ratio `(C,)`, at least 0.

    .. math:: \sqrt{n} \; \frac{1}{n} \sum_{i \in C} \log \frac{\lambda_i}{\lambda_{birth}}

    over its n members, :math:`\lambda_i` the density (one over distance) at which a member leaves the cluster and
    :math:`\lambda_{birth}` that at which the cluster leaves the rest. The mean is the contrast of its members with the
    saddle that joins it to the rest; a ratio, so it means the same in dense and in sparse regions and in layouts of any
    scale, and a mean, so that one close pair does not decide, as it does for the persistence. The contrast of a
    chance clump of Poisson noise falls with the root of its size; the factor makes large and small clusters comparable.

    Args:
        clusters: As `leaves.select` returns them.
    """
    size = clusters.table["size"].to_numpy(np.float64)
    own = clusters.labels >= 0
    label = clusters.labels[own]
    left = clusters.strength[own] * clusters.table["death"].to_numpy(np.float64)[label]
    contrast = np.log(np.maximum(left / clusters.table["birth"].to_numpy(np.float64)[label], 1))
    ratio: Floats = np.bincount(label, contrast, len(size)) / np.sqrt(size)
    return ratio


def null_statistics(
    null: SmoothNull,
    chain: ToClusters,
    count: int,
    replicates: int = 39,
    seed: int = 0,
    path: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> list[Floats]:
    """The prominence of every cluster that the chain finds in each of R resamples.

    Args:
        null: See `fit_smooth`.
        chain: From a representation to clusters, the same as for the data.
        count: Number of galaxies in each, that of the data.
        replicates: R; p-values are at least 1 / (1 + R).
        seed: Of the resamples.
        path: File that keeps what is done, see `replicated`.
        settings: What the chain depends on, kept with it.
    """
    known = {"null": fingerprint(null.mean), "count": count, "seed": seed, **(settings or {})}

    def one(number: int) -> Any:
        return prominence(chain(null.draw(count, (seed, DRAWS + number)))).tolist()  # others fitted the scale

    return [np.array(found) for found in replicated(one, replicates, "smooth resamples", path, known)]


@dataclass(frozen=True)
class AgainstNull:
    """The clusters of the data beside those of smooth resamples.

    Attributes:
        table: See `family_wise_p`; with NaN for `p_family` and `expected_false` if the resamples are not fair.
        check: Whether they are, and why not.
        clusters: Number of clusters of each resample; empty if they are not fair.
    """

    table: pd.DataFrame
    check: ResampleCheck
    clusters: tuple[int, ...]


def against_null(
    x: Points,
    clusters: Clusters,
    chain: ToClusters,
    neighbours: int = NEIGHBOURS,
    replicates: int = 39,
    seed: int = 0,
    path: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> AgainstNull:
    """The family-wise p-value of each cluster; if the resamples are not as dense as the data, none, and no chain runs.

    Args:
        x: Representation `(N, D)`, see `fit_smooth`.
        clusters: What the chain finds in it, for the one setting that was chosen beforehand.
        chain: From a representation to clusters.
        neighbours: See `fit_smooth`.
        replicates: See `null_statistics`.
        seed: Of everything random.
        path: File that keeps what is done, see `replicated`.
        settings: What the chain depends on, kept with it.

    Raises:
        DataError: There are no more rows than neighbours, or see `replicated`.
    """
    observed = prominence(clusters)
    null = fit_smooth(x, neighbours, seed)
    check = check_resample(x, null.draw(len(x), (seed, replicates + DRAWS)))  # one that is used for nothing else
    if not check.fair:
        unknown = family_wise_p(observed, [observed]).assign(p_family=np.nan, expected_false=np.nan)
        return AgainstNull(unknown, check, ())
    found = null_statistics(null, chain, len(x), replicates, seed, path, settings)
    return AgainstNull(family_wise_p(observed, found), check, tuple(len(each) for each in found))


def family_wise_p(observed: Floats, replicates: Sequence[Floats]) -> pd.DataFrame:
    """The chance that smooth data show any cluster as prominent as each one of the data.

    Args:
        observed: Statistic of each cluster of the data `(C,)`.
        replicates: Statistics of all clusters of each of R resamples.

    Returns:
        A row a cluster, named by its place: `statistic`; `p_family` = (1 + b) / (1 + R), b the number of resamples
        whose largest statistic is at least as large (no clusters count as none); `expected_false`, the mean number of
        clusters of a resample whose statistic is at least as large.

    Raises:
        ValueError: There are no resamples.

    Example:
        >>> family_wise_p(np.array([5.0, 1.0]), [np.array([2.0, 1.5]), np.array([0.5]), np.array([])])
                 statistic  p_family  expected_false
        cluster
        0              5.0      0.25        0.000000
        1              1.0      0.50        0.666667
    """
    if not len(replicates):
        raise ValueError("a p-value needs at least one resample")
    reached = np.array([[np.count_nonzero(found >= value) for value in observed] for found in replicates])
    reached = reached.reshape(len(replicates), len(observed))
    p = (1 + (reached > 0).sum(0)) / (1 + len(replicates))
    table = pd.DataFrame({"statistic": observed, "p_family": p, "expected_false": reached.mean(0)})
    return table.rename_axis("cluster")
