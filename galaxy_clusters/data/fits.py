"""Images of galaxies, FITS among them, to uint8 with one stretch for the whole survey; and images that show no galaxy.

Read by worker processes, so torch stays out, and astropy is imported where a FITS file is.

Shapes: N images of C channels, H x W pixels in a file and S x S prepared.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from shared.data.images import ImageSettings, ImageSource, load_image, load_image_of
from shared.data.problems import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz", ".fz")
CHUNK = 512  # images whose faults are sought at a time, so that they stay in the processor's cache
BLOCKS = 16  # an area of one colour is sought in this many blocks a side
FLAT = 1.0  # standard deviation, of 255 grey levels, below which an image is near-constant
MASKED = 0.1  # share of exactly constant blocks from which an image counts as masked


@dataclass(frozen=True)
class Stretch:
    """From fluxes to grey levels, the same for every image of a survey, so that surface brightness stays comparable.

    With t = (flux - low) / (high - low), the curve is f(t) = asinh(t / softening) / asinh(1 / softening).

    Attributes:
        kind: `"asinh"` takes the curve of each band; `"lupton"` that of the bands' mean, so that a galaxy's colour does
            not depend on its brightness (Lupton et al. 2004, equations 2 to 4).
        low: Flux that becomes black, in the survey's unit.
        high: Flux that becomes white.
        softening: Share of the range up to which the curve is about linear; above, it is logarithmic.

    Raises:
        ValueError: A value is out of its range.
    """

    kind: Literal["asinh", "lupton"]
    low: float
    high: float
    softening: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("asinh", "lupton"):
            raise ValueError(f"the stretch must be asinh or lupton, got {self.kind!r}")
        if not (self.high > self.low and self.softening > 0):
            raise ValueError(
                f"the stretch needs low < high and a positive softening, got {self.low}, {self.high} and "
                f"{self.softening}"
            )

    def __call__(self, flux: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Stretch the bands of an image, `(C, H, W)` of finite numbers, to uint8."""
        t = (flux.astype(np.float64) - self.low) / (self.high - self.low)
        if self.kind == "asinh":
            t = self._curve(t)
        else:
            mean = t.mean(0)
            t = t * np.divide(self._curve(mean), mean, out=np.zeros_like(mean), where=mean > 0)
            t /= np.maximum(t.max(0), 1)  # a pixel too bright keeps its colour
        stretched: NDArray[np.uint8] = np.rint(255 * t.clip(0, 1)).astype(np.uint8)
        return stretched

    def _curve(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.arcsinh(t / self.softening) / np.arcsinh(1 / self.softening))


@dataclass(frozen=True)
class SurveyImage:
    """An image to read, with what the reader needs to know; travels to worker processes.

    Attributes:
        path: A FITS file, or any that `shared.data.images.load_image` reads except an array.
        settings: Size, channels and fit. A single band fills all channels.
        stretch: For FITS, which needs one; other images are as they are.
        hdu: Name of the FITS extension with the image or cube; by default the first that holds an image.
        bands: For FITS, what the channels are: numbers are planes of the cube, counted from 0, names are extensions.
        crop: Side of the centred square that is shown, in the file's pixels; all of the image by default. Beyond the
            image it is black.

    Raises:
        ValueError: There are more or fewer bands than channels.
    """

    path: str
    settings: ImageSettings
    stretch: Stretch | None = None
    hdu: str | None = None
    bands: tuple[int | str, ...] | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and len(self.bands) != self.settings.channels:
            raise ValueError(f"{len(self.bands)} bands do not make {self.settings.channels} channels")


def crop_px(size_arcsec: NDArray[np.float64], pixel_scale: float, factor: float) -> NDArray[np.int64]:
    """The sides of crops that show every galaxy at the same share of its picture, whatever its apparent size.

    Args:
        size_arcsec: `(N,)` sizes, for instance Petrosian radii, in arc seconds.
        pixel_scale: Arc seconds a pixel.
        factor: Side of the crop in units of the size.

    Returns:
        `(N,)` pixels, at least 1.

    Raises:
        DataError: A size is missing or not positive.
    """
    wrong = np.flatnonzero(~(np.isfinite(size_arcsec) & (size_arcsec > 0)))
    if len(wrong):
        raise DataError(
            f"row {wrong[0] + 1} has the size {size_arcsec[wrong[0]]:g} arcsec ({len(wrong)} of {len(size_arcsec)} "
            "rows have no positive size): leave such rows out, or do not crop by size"
        )
    sides: NDArray[np.int64] = np.maximum(np.rint(factor * size_arcsec / pixel_scale), 1).astype(np.int64)
    return sides


def load_survey_image(source: SurveyImage) -> NDArray[np.uint8]:
    """Read one image as the cache keeps it: `(C, S, S)` uint8.

    Of FITS images, pixels without a value become black.

    Raises:
        DataError: As `load_image`; and a FITS file has no stretch, is damaged, holds no image or a cube whose bands are
            not named, or more than half of a band has no value.
    """
    name = source.path.lower()
    if name.endswith(".npy"):
        raise DataError(f"{source.path} is an array, which would be scaled by its own range: save it as FITS")
    if name.endswith(SUFFIXES):
        pixels = _stretched(source)
    elif source.crop is None:
        return load_image(ImageSource(source.path, source.settings))
    else:
        pixels = _at_own_size(source)
    if source.crop is not None:
        pixels = _centred(pixels, source.crop)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return load_image_of(picture, source.settings)


def image_faults(pixels: NDArray[np.uint8]) -> pd.DataFrame:
    """Which images hardly show a galaxy.

    Args:
        pixels: `(N, C, S, S)`.

    Returns:
        N rows: the flags `blank` (one colour), `near_constant` (the standard deviation of every channel is below
        `FLAT`) and `masked` (the middle eighth has one colour, or more than `MASKED` of the image lies in blocks that
        have), and `constant_share`, that share. One colour means exactly one, which neither sky nor galaxy has.
    """
    width = pixels.shape[-1]
    side = max(width // BLOCKS, 2)  # of a block
    count = width // side
    middle = slice(width * 7 // 16, max(width * 9 // 16, width * 7 // 16 + 2))
    parts = []
    for start in range(0, len(pixels), CHUNK):
        chunk = pixels[start : start + CHUNK]
        blocks = chunk[..., : count * side, : count * side].reshape(*chunk.shape[:2], count, side, count, side)
        share = (blocks == blocks[:, :, :, :1, :, :1]).all((1, 3, 5)).mean((1, 2))
        centre = chunk[..., middle, middle]
        deviation = chunk.reshape(*chunk.shape[:2], -1).std(-1, dtype=np.float32).max(1)
        parts.append(
            pd.DataFrame(
                {
                    "blank": (chunk == chunk[..., :1, :1]).all((1, 2, 3)),
                    "near_constant": deviation < FLAT,
                    "masked": (share > MASKED) | (centre == centre[..., :1, :1]).all((1, 2, 3)),
                    "constant_share": share,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def faults_of(pixels: NDArray[np.uint8]) -> list[str]:
    """What is wrong with each of `(N, C, S, S)` images: `blank, near_constant, masked`, or empty text."""
    flags = image_faults(pixels).drop(columns="constant_share")
    return [", ".join(flags.columns[row]) for row in flags.to_numpy()]


def _stretched(source: SurveyImage) -> NDArray[np.uint8]:
    """The bands of a FITS file, `(1 or C, H, W)`."""
    if source.stretch is None:
        raise DataError(f"{source.path} holds fluxes, which need a stretch: asinh or lupton, with low and high")
    flux = _read_flux(source)
    valid = np.isfinite(flux)
    missing = int((~valid).sum())
    if missing:
        worst = float(1 - valid.mean((1, 2)).min())
        if worst > 0.5:
            raise DataError(f"{source.path} has no value in {worst:.0%} of its pixels, at most half may be missing")
        log.info("%s: %d pixels without a value become black", source.path, missing)
        flux = np.where(valid, flux, source.stretch.low)
    return source.stretch(flux)


def _read_flux(source: SurveyImage) -> NDArray[np.floating[Any]]:
    from astropy.io import fits  # takes a while

    if not Path(source.path).is_file():
        raise DataError(f"no image file {source.path}")
    try:
        with fits.open(source.path, memmap=False) as file:
            if source.bands is None:
                return _plane(source, _extension(source, file, source.hdu))[None]
            planes = [
                _plane(source, _extension(source, file, band))
                if isinstance(band, str)
                else _plane(source, _extension(source, file, source.hdu), band)
                for band in source.bands
            ]
    except DataError:
        raise
    except Exception as error:  # astropy lets the errors of NumPy and zlib through
        raise DataError(
            f"{source.path} cannot be read as FITS, it may be truncated or damaged ({str(error).splitlines()[0]})"
        ) from error
    if len({plane.shape for plane in planes}) > 1:
        raise DataError(f"{source.path} has bands of several shapes: {', '.join(str(plane.shape) for plane in planes)}")
    return np.stack(planes)


def _extension(source: SurveyImage, file: Any, name: str | None) -> Any:
    """The named HDU, or the first one with an image: the primary one is often empty."""
    images = [hdu for hdu in file if hdu.is_image and len(hdu.shape)]
    for hdu in images:
        if name is None or hdu.name == name.upper():
            return hdu
    held = f"its images are {', '.join(hdu.name or '(without a name)' for hdu in images)}" if images else "it has none"
    raise DataError(f"{source.path} holds no image{f' called {name}' if name else ''}: {held}")


def _plane(source: SurveyImage, hdu: Any, number: int | None = None) -> NDArray[np.floating[Any]]:
    """An image `(H, W)`, or one of a cube's."""
    shape = hdu.shape
    values = hdu.data.reshape([extent for place, extent in enumerate(shape) if extent > 1 or place >= len(shape) - 2])
    if number is not None:
        if values.ndim != 3 or not 0 <= number < len(values):
            raise DataError(f"{source.path} holds an image of shape {shape}, which has no plane {number}")
        values = values[number]
    if values.ndim != 2:
        raise DataError(
            f"{source.path} holds an image of shape {shape}, expected (height, width): name the planes that are its "
            "channels with bands, such as [2, 1, 0]"
        )
    return np.asarray(values, np.float32)


def _at_own_size(source: SurveyImage) -> NDArray[np.uint8]:
    """An image file's pixels as they are, on a square; what is wrong with a file is for `load_image` to say."""
    side = 1
    with suppress(Exception), Image.open(source.path) as opened:
        side = max(opened.size)
    return load_image(ImageSource(source.path, replace(source.settings, size=side, fit="pad")))


def _centred(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The central `side` x `side` pixels, with black beyond the image."""
    margins = [(max(side - extent, 0) // 2, max(side - extent + 1, 0) // 2) for extent in pixels.shape[1:]]
    padded = np.pad(pixels, [(0, 0), *margins])
    top, left = ((extent - side) // 2 for extent in padded.shape[1:])
    return padded[:, top : top + side, left : left + side]
