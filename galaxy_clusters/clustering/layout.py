"""UMAP in three steps, so that layouts of the same neighbours share what they can (paper, section 3).

`umap.UMAP` does the same in one call, and does all of it again for every number of dimensions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA

from galaxy_clusters.clustering.graph import Floats, NeighbourGraph, narrowed

# umap-learn's defaults, but for min_dist, of which the paper is silent: 0 packs clusters densely.
MIN_DIST, SPREAD = 0.0, 1.0
LEARNING_RATE, REPULSION, NEGATIVE_SAMPLES = 1.0, 1.0, 5
DENSMAP = {"lambda": 2.0, "frac": 0.3, "var_shift": 0.1}
SIDE, NOISE = 10.0, 1e-4  # largest coordinate of a start, and the deviation of its noise


def fuzzy_set(graph: NeighbourGraph, k: int) -> csr_matrix:
    """UMAP's fuzzy simplicial set of the first k neighbours: symmetric strengths in (0, 1], `(N, N)`.

    Raises:
        ValueError: The graph holds fewer than k neighbours.
    """
    from umap.umap_ import fuzzy_simplicial_set  # imported here: it takes seconds

    near = narrowed(graph, k)
    # Of the data it needs the number of rows alone, and of the random state nothing, once the neighbours are known.
    strengths, _, _ = fuzzy_simplicial_set(
        near.index, k, None, "euclidean", knn_indices=near.index, knn_dists=near.distance
    )
    return csr_matrix(strengths)


def spectral_start(fuzzy: csr_matrix, x: Floats, dims: int, seed: int = 0) -> Floats:
    """Where points start: eigenvectors of the fuzzy set's Laplacian, with a little noise.

    The first columns are the start of fewer dimensions. Where the fuzzy set is not connected, eigenvectors only say
    which part a point is in, and UMAP's own way out uses other columns for each number of dimensions; principal
    components of the representation are the start then.

    Args:
        fuzzy: Of `fuzzy_set`, `(N, N)`.
        x: The representation `(N, D)`.
        dims: Number of dimensions.
        seed: Of the noise.

    Returns:
        Coordinates `(N, dims)` between -10 and 10.
    """
    from umap.spectral import spectral_layout

    random = np.random.RandomState(seed)
    if len(x) > 2 * dims and connected_components(fuzzy, directed=False)[0] == 1:
        start = spectral_layout(None, fuzzy, dims, random)
    else:
        start = np.zeros((len(x), dims))
        found = min(dims, *x.shape)
        start[:, :found] = PCA(found, svd_solver="covariance_eigh").fit_transform(x)
    scaled: NDArray[np.float64] = start * (SIDE / np.abs(start).max()) + random.normal(scale=NOISE, size=start.shape)
    return scaled.astype(np.float32)


def layout(
    fuzzy: csr_matrix,
    start: Floats,
    dims: int,
    seed: int = 0,
    reproducible: bool = True,
    epochs: int | None = None,
    densmap: NeighbourGraph | None = None,
) -> Floats:
    """UMAP's layout of a fuzzy set.

    Args:
        fuzzy: Of `fuzzy_set`, `(N, N)`.
        start: Of `spectral_start`, with at least so many columns.
        dims: Number of dimensions; the paper's is 5.
        seed: Of the sampling.
        reproducible: One thread and the same numbers again; without it, threads write in no fixed order.
        epochs: Rounds of optimisation; None: 500 up to 10,000 rows and 200 above, and 200 more for densMAP.
        densmap: The graph of the fuzzy set, of exactly its neighbours, where densMAP shall keep densities (paper,
            section 5).

    Returns:
        Coordinates `(N, dims)`, finite.
    """
    from umap.umap_ import find_ab_params, simplicial_set_embedding

    a, b = find_ab_params(SPREAD, MIN_DIST)
    density = {} if densmap is None else {**DENSMAP, "graph_dists": _distances(densmap)}
    random = np.random.RandomState(seed)
    coordinates, _ = simplicial_set_embedding(
        None,
        fuzzy,
        dims,
        LEARNING_RATE,
        a,
        b,
        REPULSION,
        NEGATIVE_SAMPLES,
        epochs,
        start[:, :dims],
        random,
        "euclidean",
        {},
        densmap is not None,
        density,
        False,  # no densities among the results
        parallel=not reproducible,
    )
    return np.asarray(coordinates, np.float32)


def _distances(graph: NeighbourGraph) -> Any:
    """The distance of each pair of which one is a neighbour of the other, as densMAP looks them up."""
    rows = np.repeat(np.arange(len(graph.index)), graph.index.shape[1])
    flat: NDArray[np.int32] = graph.index.ravel()
    one_way = coo_matrix((graph.distance.ravel(), (rows, flat)), shape=(len(graph.index),) * 2)
    return one_way.maximum(one_way.T).todok()
