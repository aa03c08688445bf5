"""Images from disk to one uint8 array `(C, S, S)` each, and the cache of them.

Read by worker processes, so torch stays out.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.data.arrays import ArrayCache, Reader, build_cache, fingerprint
from shared.data.problems import DataError, Problems

Fit = Literal["pad", "stretch", "crop"]
MODES = {1: "L", 3: "RGB"}  # what Pillow calls images of that many channels
BILINEAR = Image.Resampling.BILINEAR  # antialiased, as Pillow resizes


@dataclass(frozen=True)
class ImageSettings:
    """How images are prepared; part of a cache's identity.

    Attributes:
        size: S, pixels of either side.
        channels: C; 1 (grey) or 3 (RGB) for image files, any number for arrays.
        fit: How an image that is not square becomes so: `"pad"` keeps all of it, centred on black; `"stretch"` squashes
            it; `"crop"` keeps its centre. The frame is always filled, so an image smaller than S is enlarged: a crop
            is then the same share of every picture, whatever its resolution.

    Raises:
        ValueError: A setting is out of its range.
    """

    size: int = 300
    channels: int = 3
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels < 1:
            raise ValueError(f"size and channels must be at least 1, got {self.size} and {self.channels}")
        if self.fit not in ("pad", "stretch", "crop"):
            raise ValueError(f"fit must be pad, stretch or crop, got {self.fit!r}")


@dataclass(frozen=True)
class ImageSource:
    """An image to read, with what the reader needs to know; travels to worker processes."""

    path: str
    settings: ImageSettings


def inside(root: str | Path, path: str | Path) -> Path:
    """A path that a table gives, where it is within the data's root.

    Args:
        root: The folder that relative paths start from.
        path: Relative or absolute.

    Returns:
        The file's path, without `..` and symbolic links; whether there is such a file is for its reader to say.

    Raises:
        DataError: It leads out of the root, also by a symbolic link, or no file can have that name.
    """
    try:
        root = Path(root).resolve()
        found = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a NUL, a loop of links
        raise DataError(f"{str(path)!r} is not the path of a file ({error})") from error
    if not found.is_relative_to(root):
        raise DataError(f"{str(path)!r} leads out of the data's root {root}: give a path within it, or another root")
    return found


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read one image as the cache keeps it: `(C, S, S)` uint8.

    Image files are turned as their EXIF orientation says, made grey or RGB, and fitted by antialiased bilinear
    interpolation. Where they are transparent, black shows through; 16 bits a pixel are scaled to 8 by their type's
    range. A `.npy` array `(C, H, W)` of real numbers is not resized: it is padded with zeros to S x S, centred, and one
    minimum and maximum over all of it become 0 and 255 (MMCL, section 4.1, for cardiac images).

    Raises:
        DataError: There is no such file; it is not an image, damaged, or of too many pixels; an array has another
            shape, is larger than S, or holds values that are not numbers.
    """
    path = Path(source.path)
    if not path.is_file():
        raise DataError(f"no image file {path}")
    settings = source.settings
    if path.suffix == ".npy":
        return _load_array(path, settings)
    return _as_array(_fitted(read_picture(path, settings.channels, settings.size), settings))


def read_picture(path: Path, channels: int, side: int | None = None) -> Image.Image:
    """Read an image file at its own size, turned and in grey or RGB as `load_image` says.

    Args:
        path: The file.
        channels: 1 or 3.
        side: Pixels that it will be resized to, so that a JPEG several times too large need not be decoded in full.

    Raises:
        DataError: As `load_image`.
    """
    mode = MODES.get(channels)
    if mode is None:
        raise DataError(f"{path} is an image file, which has 1 or 3 channels, not {channels}: use .npy arrays")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if side is not None:  # a JPEG is decoded at a fraction of its size, in a fraction of the time
                    opened.draft(mode, (2 * side, 2 * side))
                return _to_mode(ImageOps.exif_transpose(opened), mode, path)
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which may be an attack: save it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image of a format that Pillow reads") from error
    except Exception as error:  # Pillow lets the errors of its many decoders through
        raise DataError(f"{path} cannot be decoded, it may be truncated or damaged ({error})") from error


def load_image_of(picture: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """A picture in memory as the cache keeps it: `(C, S, S)` uint8, see `load_image`."""
    return _as_array(_fitted(picture.convert(MODES[settings.channels]), settings))


def image_cache(
    folder: Path,
    paths: Sequence[str | Path],
    names: Sequence[str],
    settings: ImageSettings,
    problems: Problems,
    workers: int | None = None,
    read: Reader | None = None,
) -> ArrayCache:
    """The images as one memory map `(N, C, S, S)` uint8; see `shared.data.arrays.build_cache`.

    Args:
        folder: Parent of the caches.
        paths: Image files or `.npy` arrays, one a row; see `load_image`.
        names: How messages name each row.
        settings: How they are prepared. Another setting, or a file of another size or time, gives another cache.
        problems: Gets every image that cannot be used.
        workers: Processes that read.
        read: Reads an `ImageSource`, in the place of `load_image`.

    Raises:
        DataError: As `build_cache`.
    """
    files = [str(path) for path in paths]
    return build_cache(
        folder,
        [ImageSource(file, settings) for file in files],
        names,
        read or load_image,
        row_shape=(settings.channels, settings.size, settings.size),
        dtype="uint8",
        settings={"image": str(settings), "files": fingerprint(files)},
        problems=problems,
        workers=workers,
    )


def _as_array(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _to_mode(picture: Image.Image, mode: str, path: Path) -> Image.Image:
    if picture.mode == "F":
        raise DataError(f"{path} has pixels of float, whose range is unknown: save it with 8 or 16 bits, or as .npy")
    if picture.mode.startswith("I"):  # convert would clip instead of scale
        values = np.asarray(picture)
        limit = np.iinfo(np.uint16).max
        if values.min() < 0 or values.max() > limit:
            raise DataError(f"{path} has pixels outside [0, {limit}]: save it with 8 or 16 bits, or as .npy")
        picture = Image.fromarray(np.rint(values / (limit / 255)).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return picture.convert(mode)


def _fitted(picture: Image.Image, settings: ImageSettings) -> Image.Image:
    square = (settings.size, settings.size)
    if settings.fit == "stretch":
        return picture.resize(square, BILINEAR)
    if settings.fit == "crop":
        return ImageOps.fit(picture, square, BILINEAR)
    return ImageOps.pad(picture, square, BILINEAR, color=0)


def _load_array(path: Path, settings: ImageSettings) -> NDArray[np.uint8]:
    try:
        # Mapped, so that a header that claims terabytes is refused before they are read.
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array that NumPy can read without running code ({error})") from error
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path} holds {values.dtype}, expected real numbers")
    expected = f"expected ({settings.channels}, at most {settings.size}, at most {settings.size})"
    if values.ndim != 3 or len(values) != settings.channels or max(values.shape[1:]) > settings.size:
        raise DataError(f"{path} holds an array of shape {values.shape}, {expected}")
    numbers = values.astype(np.float64)
    bad = int((~np.isfinite(numbers)).sum())
    if bad:
        raise DataError(f"{path} holds {bad} values that are NaN or infinite")
    margins = [settings.size - extent for extent in numbers.shape[1:]]
    numbers = np.pad(numbers, [(0, 0), *((margin // 2, margin - margin // 2) for margin in margins)])
    low, spread = numbers.min(), np.ptp(numbers)
    scaled: NDArray[np.uint8] = np.rint((numbers - low) * (255 / spread if spread else 0)).astype(np.uint8)
    return scaled
