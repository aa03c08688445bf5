"""Pixels of the SYNTHETIC survey: profiles of light, the telescope that blurs and adds noise, its faults, and colours.

Light is surface brightness in nanomaggies per square arcsecond, as bands z, r, g that become red, green and blue.
Shapes: S x S pixels, `(3, S, S)`, the first row on top.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]

FIELD = 32.0  # arcsec, side of an image
FINER = 2  # light is drawn this much finer, then averaged
SKY_NOISE = 0.03  # nanomaggies per arcsec: standard deviation of the sky's light in one square arcsecond
PHOTON_NOISE = 0.002  # variance of light itself, per nanomaggie
BANDS = np.array([0.65, 1.0, 1.76])  # z, r, g: makes a galaxy of common colours about white
SOFTENING, BRIGHTNESS = 20.0, 0.23  # of the asinh stretch: faint light is linear, a core does not burn out
BLACK = 0.05  # of the empty sky, so that noise is seen on both sides


@dataclass(frozen=True)
class Exposure:
    """What is the same for all images of a brick of the sky.

    Attributes:
        psf_fwhm: Full width at half maximum of a star, arcsec.
        glow: Colour of a background that was subtracted badly, `(3,)`; it doubles over the image from left to right.
    """

    psf_fwhm: float
    glow: tuple[float, float, float] = (0.0, 0.0, 0.0)


def offsets(pixels: int, extent: float) -> Array:
    """Distances of pixels from the middle of a line of that extent, `(pixels,)`."""
    return ((np.arange(pixels) + 0.5) / pixels - 0.5) * extent


def turned(x: Array, y: Array, angle: float, axis_ratio: float = 1.0) -> tuple[Array, Array]:
    """Coordinates along and across a direction, the latter stretched: of points in the plane of an inclined disc."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, (cos * y - sin * x) / axis_ratio


def sersic(radius: Array, index: float) -> Array:
    """Sersic's profile with half of the light within radius 1; 1 is an exponential disc, 4 an elliptical galaxy."""
    b = 2 * index - 1 / 3
    softened = np.sqrt(radius**2 + 0.05**2)  # a cusp between two pixels would be as bright as the grid is fine
    profile: Array = np.exp(-b * (softened ** (1 / index) - 1))
    return profile


def logarithmic_arms(radius: Array, angle: Array, count: int, winding: float, inner: float) -> Array:
    """How much of a disc's light belongs to its arms, in (0, 1]: logarithmic spirals that begin at a radius.

    Args:
        radius: In the plane of the disc.
        angle: Likewise, radians.
        count: Number of arms; one is made as wide as each of several.
        winding: How far an arm turns while its radius grows e-fold, radians: the cotangent of its pitch angle.
        inner: Radius where they begin.
    """
    phase = count * (angle - winding * np.log(radius + 1e-3))
    share: Array = np.exp(6 / count * (np.cos(phase) - 1)) / (1 + np.exp((inner - radius) / 0.12))
    return share


def ring(radius: Array) -> Array:
    """A ring of radius 1 that is detached from the core: a crest, and a faint envelope outside of it.

    The envelope makes the ring's light fall off as that of other galaxies, so that size and brightness as they are
    measured on the picture do not give it away.
    """
    beyond = radius - 1
    crest = np.exp(-0.5 * (beyond / 0.16) ** 2)
    envelope: Array = 0.5 * (1 - crest) * np.exp(-beyond.clip(0) / 0.8) * (beyond > 0)
    return crest + envelope


def spots(x: Array, y: Array, places: Array, sizes: Array, fluxes: Array) -> Array:
    """The sum of round Gaussians.

    Args:
        x: `(1, W)`.
        y: `(H, 1)`.
        places: `(K, 2)`.
        sizes: `(K,)`, standard deviations.
        fluxes: `(K,)`.

    Returns:
        `(H, W)`.
    """
    across, down = (
        np.exp(-0.5 * ((line.ravel() - centre[:, None]) / sizes[:, None]) ** 2)
        for line, centre in ((x, places[:, 0]), (y, places[:, 1]))
    )
    peaks = fluxes / (2 * math.pi * sizes**2)
    summed: Array = (peaks[:, None] * down).T @ across
    return summed


def expose(light: Array, exposure: Exposure, rng: np.random.Generator) -> Array:
    """What a camera records of light: blurred, on its pixels, with the brick's background and noise.

    Args:
        light: `(3, FINER * S, FINER * S)`.
        exposure: Of the brick.
        rng: Of the noise.

    Returns:
        `(3, S, S)`.
    """
    fine = light.shape[-1]
    side = fine // FINER
    sigma = exposure.psf_fwhm / 2.355 * fine / FIELD
    blurred = gaussian_filter(light.astype(np.float32), (0, sigma, sigma), mode="nearest", truncate=3.5)
    seen = blurred.reshape(3, side, FINER, side, FINER).mean((2, 4), dtype=np.float64)
    seen += np.array(exposure.glow)[:, None, None] * np.linspace(0.5, 1.5, side)
    variance = (SKY_NOISE**2 + PHOTON_NOISE * seen.clip(0)) * (side / FIELD) ** 2
    noise = np.sqrt(variance) * rng.standard_normal(seen.shape)
    recorded: Array = seen + noise
    return recorded


def picture(recorded: Array) -> NDArray[np.uint8]:
    """As astronomers show it, `(3, S, S) -> (S, S, 3)`: one asinh stretch for all bands, which keeps colours."""
    bands = BRIGHTNESS * BANDS[:, None, None] * recorded
    mean = bands.mean(0).clip(1e-6)
    shown = BLACK + bands * (np.arcsinh(SOFTENING * mean) / (math.sqrt(SOFTENING) * mean))
    pixels: NDArray[np.uint8] = (255 * shown.clip(0, 1)).round().astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def satellite_trail(recorded: Array, exposure: Exposure, rng: np.random.Generator) -> Array:
    """A straight track across the image; the bands are taken one after another, so that it is in one of them."""
    x, y = _grid(recorded)
    _, across = turned(x, y, rng.uniform(0, math.pi))
    width = exposure.psf_fwhm / 2.355 * rng.uniform(0.9, 1.3)
    track = rng.uniform(1, 4) * np.exp(-0.5 * ((across - rng.uniform(-6, 6)) / width) ** 2)
    added: Array = _in_band(rng, 0.02)[:, None, None] * track
    return recorded + added


def saturated_star(recorded: Array, exposure: Exposure, rng: np.random.Generator) -> Array:
    """A star that is too bright: a burnt-out core with a halo, four spikes, and charge that bled along its columns."""
    x, y = _grid(recorded)
    x, y = x - rng.uniform(-4, 4), y - rng.uniform(-4, 4)
    width = exposure.psf_fwhm / 2.355
    radius = np.hypot(x, y)
    star = 400 * np.exp(-0.5 * (radius / (2.2 * width)) ** 2) + 6 / (1 + (radius / 1.5) ** 2) ** 1.3
    tilt = rng.normal(math.pi / 4, 0.03)  # the spider that holds the mirror stands almost still
    for along, across in (turned(x, y, tilt), turned(x, y, tilt + math.pi / 2)):
        star += 12 * np.exp(-np.abs(along) / rng.uniform(3, 5) - 0.5 * (across / (0.7 * width)) ** 2)
    bled = 30 * (np.abs(x) < 0.6) * (np.abs(y) < rng.uniform(8, 20))
    tint = np.array([1.1, 1, 0.9]) ** rng.uniform(-2, 2)
    added: Array = tint[:, None, None] * star + np.array([0.3, 1.0, 0.3])[:, None, None] * bled
    return recorded + added


def bad_rows(recorded: Array, exposure: Exposure, rng: np.random.Generator) -> Array:
    """A strip of rows that were not read in one or all bands, or read with much noise."""
    _, y = _grid(recorded)
    strip = np.abs(y - rng.uniform(-8, 8)) < rng.uniform(2, 5)
    spoilt = np.ones(3) if rng.random() < 0.3 else _in_band(rng, 0.0)
    noisy = rng.normal(0.3, 0.8, (3, recorded.shape[1], 1)) + rng.normal(0, 0.5, recorded.shape)
    instead = noisy if rng.random() < 0.5 else np.full_like(recorded, -0.6)
    return np.where(strip & (spoilt[:, None, None] > 0), instead, recorded)


def ghost(recorded: Array, exposure: Exposure, rng: np.random.Generator) -> Array:
    """Light of a bright star outside the image that was reflected: the telescope's pupil, a disc with a hole."""
    x, y = _grid(recorded)
    radius = np.hypot(x - rng.uniform(-5, 5), y - rng.uniform(-5, 5))
    size = rng.uniform(9, 14)
    disc = 1 / (1 + np.exp((radius - size) / 0.4)) - 1 / (1 + np.exp((radius - 0.35 * size) / 0.4))
    edge = 0.6 * np.exp(-0.5 * ((radius - size) / 0.8) ** 2)
    added: Array = rng.uniform(0.15, 0.4) * _in_band(rng, 0.4)[:, None, None] * (disc + edge)
    return recorded + added


ARTEFACTS: dict[str, Callable[[Array, Exposure, np.random.Generator], Array]] = {
    function.__name__: function for function in (satellite_trail, saturated_star, bad_rows, ghost)
}


def _grid(recorded: Array) -> tuple[Array, Array]:
    line = offsets(recorded.shape[-1], FIELD)
    return line[None], -line[:, None]


def _in_band(rng: np.random.Generator, others: float) -> Array:
    """1 for a random band, `(3,)`, less for the others."""
    share = np.full(3, others)
    share[rng.integers(3)] = 1
    return share
