"""Systems on the sky against brute force, with astropy's distances, at the seam and at the poles too."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from galaxy_clusters.data.sky import systems, viewer_url


def positions(centre_ra: float, centre_dec: float, count: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions within a few arc minutes, many of them within 30 arc seconds of another."""
    rng = np.random.default_rng(3)
    centre = SkyCoord(centre_ra, centre_dec, unit="deg")
    angles, distances = rng.uniform(0, 360, count) * units.deg, 4 * rng.uniform(0, 1, count) ** 0.5 * units.arcmin
    found = centre.directional_offset_by(angles, distances)
    return found.ra.deg, found.dec.deg


def brute_force(ra: NDArray[np.float64], dec: NDArray[np.float64], link: float) -> list[int]:
    sky = SkyCoord(ra, dec, unit="deg")
    near = sky[:, None].separation(sky[None]).arcsec <= link
    label = list(range(len(ra)))
    for _ in ra:  # the smallest number spreads by one friend at a time
        label = [min(label[other] for other in np.flatnonzero(row)) for row in near]
    numbers = {first: number for number, first in enumerate(dict.fromkeys(label))}
    return [numbers[first] for first in label]


@pytest.mark.parametrize("centre", [(150.0, 2.0), (0.0, 0.0), (10.0, 90.0), (200.0, -90.0), (359.99, 80.0)])
def test_systems_are_those_of_brute_force(centre: tuple[float, float]) -> None:
    ra, dec = positions(*centre)
    found = systems(ra, dec, 30)
    assert found.tolist() == brute_force(ra, dec, 30)
    assert 10 < found.max() + 1 < 50


def test_a_chain_is_one_system_the_threshold_is_the_link_and_missing_positions_are_in_none() -> None:
    ra = np.array([10.0, 200.0, 10.0 + 25 / 3600, np.nan, 10.0 + 50 / 3600, 200.0 + 31 / 3600])
    dec = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    assert systems(ra, dec).tolist() == [0, 1, 0, -1, 0, 2]
    assert systems(ra, dec, 24).tolist() == [0, 1, 2, -1, 3, 4]
    assert systems(ra, dec, 648000).tolist() == [0, 0, 0, -1, 0, 0]
    assert systems(ra[3:4], dec[3:4]).tolist() == [-1]


def test_links_name_the_place() -> None:
    assert viewer_url(1.0466249, -2.5) == (
        "https://www.legacysurvey.org/viewer?ra=1.046625&dec=-2.500000&layer=ls-dr10&zoom=16&mark=1.046625,-2.500000"
    )
