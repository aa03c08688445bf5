"""A SYNTHETIC few-shot set in which colour tells the class, and a shifted one in which it says nothing.

A class is an outline of a few harmonics. In the set itself every class has colours of its own, so that colour alone
solves every training task; in the shifted set, the same kind of outlines have random colours. A method that relies on
colour must fail there, one that relies on shape need not. With two cues the ground's grain does the same: changed
colours do not touch it, a blur takes it away.
"""

import colorsys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from shared.data.files import write_whole
from shared.data.synthetic import is_complete, start_set

SIDE = 24  # pixels
FINER = 4  # pixels are drawn this much finer, then averaged
HARMONICS = 5
GRAIN = 0.25  # largest amplitude of the ground's grain, a chequerboard of single pixels; of 1
README = """SYNTHETIC images, made by `python -m meta_robust synthetic`: outlines of random shapes, one shape a class.
images/          base, validation and novel classes; each class has {cues} of its own
shifted/images/  validation and novel classes of the same kind; every image has random {cues}
classes.csv      the part of each class
"""


class Look(NamedTuple):
    """What says nothing about the shape: hues of line and ground, and the amplitude of the ground's grain."""

    line: float
    ground: float
    grain: float


def write_synthetic(
    root: Path, base: int = 60, validation: int = 16, novel: int = 24, per_class: int = 20, cues: int = 1
) -> None:
    """Write the SYNTHETIC set; a folder that holds it already is left alone.

    Args:
        root: Folder to write into.
        base: Number of base classes.
        validation: Number of validation classes, in the set and in the shifted one.
        novel: Number of novel classes, in the set and in the shifted one.
        per_class: Images a class.
        cues: 1, colour, or 2, also the grain of the ground.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: `cues` is neither 1 nor 2.
    """
    if cues not in (1, 2):
        raise ValueError(f"cues must be 1 (colour) or 2 (colour and grain), got {cues}")
    counts = {"base": base, "validation": validation, "novel": novel}
    settings: dict[str, Any] = {**counts, "per_class": per_class, "cues": cues, "version": 2}
    last = "shifted/classes.csv"
    if is_complete(root, settings, last):
        return
    start_set(root, settings, README.format(cues="colours" if cues == 1 else "colours and grain"))
    for folder, parts, shifted in ((root, counts, False), (root / "shifted", {**counts, "base": 0}, True)):
        rows = ["class,split"]
        classes = [(part, number) for part, count in parts.items() for number in range(count)]
        for part, number in tqdm(classes, desc=f"write {folder}", unit="class"):
            name = f"{'shifted_' if shifted else ''}{part}_{number:02d}"
            rows.append(f"{name},{part}")
            _write_class(folder / "images" / name, name, per_class, cues, shifted)
        write_whole(folder / "classes.csv", "\n".join(rows) + "\n")


def _write_class(folder: Path, name: str, count: int, cues: int, shifted: bool) -> None:
    rng = np.random.default_rng(list(name.encode()))
    folder.mkdir(parents=True, exist_ok=True)
    shape, look = _draw_shape(rng), _draw_look(cues, rng)
    for number in range(count):
        picture = _picture(shape, _draw_look(cues, rng) if shifted else look, rng)
        picture.save(folder / f"{number:02d}.png")


def _draw_shape(rng: np.random.Generator) -> NDArray[np.complex128]:
    """Complex amplitudes of a class's harmonics; the higher ones are smaller."""
    order = np.arange(2, 2 + HARMONICS)
    values: NDArray[np.complex128] = rng.normal(size=(HARMONICS, 2)) @ np.array([1, 1j]) * 0.6 / order**0.7
    return values


def _draw_look(cues: int, rng: np.random.Generator) -> Look:
    return Look(float(rng.random()), float(rng.random()), GRAIN * float(rng.random()) if cues == 2 else 0.0)


def _picture(shape: NDArray[np.complex128], look: Look, rng: np.random.Generator) -> Image.Image:
    """An outline, turned, moved, scaled and deformed a little, a bright line on a darker ground."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    deformed = shape + 0.03 * rng.normal(size=(HARMONICS, 2)) @ np.array([1, 1j])
    waves = np.exp(1j * np.outer(np.arange(2, 2 + HARMONICS), angles))
    radius = np.exp(0.55 * (deformed[:, None] * waves).real.sum(0))
    side = SIDE * FINER
    scale = rng.uniform(0.36, 0.44) * side / radius.max()
    points = scale * radius * np.exp(1j * (angles + rng.normal(scale=0.08)))
    centre = side / 2 + side * rng.uniform(-0.03, 0.03, size=2)
    line, ground = (_rgb(hue, value, rng) for hue, value in ((look.line, 1.0), (look.ground, 0.45)))
    picture = Image.new("RGB", (side, side), ground)
    outline = [(float(point.real + centre[0]), float(point.imag + centre[1])) for point in points]
    ImageDraw.Draw(picture).line([*outline, *outline[:2]], fill=line, width=2 * FINER)
    return _with_grain(picture.resize((SIDE, SIDE), Image.Resampling.BOX), look.grain)


def _with_grain(picture: Image.Image, amplitude: float) -> Image.Image:
    """A chequerboard of single pixels laid over the picture."""
    if not amplitude:
        return picture
    board = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, amplitude, -amplitude)
    pixels = np.asarray(picture, np.float64) + 255 * board[:, :, None]
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _rgb(hue: float, value: float, rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue + rng.normal(scale=0.01), 0.8, value)
    return round(255 * red), round(255 * green), round(255 * blue)
