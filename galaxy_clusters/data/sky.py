"""Positions on the sky: which catalogue entries belong together, and links to pictures of the place.

Shapes: N positions, in degrees (ICRS).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

ARCSEC = np.pi / (180 * 3600)  # radians


def systems(ra: NDArray[np.float64], dec: NDArray[np.float64], link_arcsec: float = 30.0) -> NDArray[np.int64]:
    """Friends of friends: entries belong to one system where a chain of entries, each near the next, joins them.

    So a galaxy that a survey has shredded into many entries is one system.

    Args:
        ra: `(N,)` right ascensions.
        dec: `(N,)` declinations.
        link_arcsec: Largest distance of friends, in arc seconds.

    Returns:
        `(N,)` numbers of the systems, from 0, in the order of their first entry; -1 where the position is missing.
    """
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    chord = 2 * np.sin(min(link_arcsec * ARCSEC, np.pi) / 2)
    pairs = cKDTree(_unit_vectors(ra[known], dec[known])).query_pairs(chord, output_type="ndarray")
    joined = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(known), len(known)))
    found = connected_components(joined, directed=False)[1]
    _, first, place = np.unique(found, return_index=True, return_inverse=True)
    labels = np.full(len(ra), -1, dtype=np.int64)
    labels[known] = np.argsort(np.argsort(first))[place]
    return labels


def viewer_url(ra: float, dec: float) -> str:
    """The address of a page that shows this place, the Legacy Surveys' sky viewer."""
    return (
        f"https://www.legacysurvey.org/viewer?ra={ra:.6f}&dec={dec:.6f}&layer=ls-dr10&zoom=16&mark={ra:.6f},{dec:.6f}"
    )


def _unit_vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(..., 3)` unit vectors, which know neither poles nor a seam at ra 0."""
    longitude, latitude = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )
