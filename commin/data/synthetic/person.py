"""What a SYNTHETIC portrait shows: who (`Person`), and how on that picture (`View`); both are plain numbers.

Lengths on the face are in halves of its height, from a point between the eyes: x to the right, y down, so that the
crown is near -1 and the chin near 1. Angles are in radians.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Colour = tuple[float, float, float]  # red, green and blue in [0, 1]

SKIN: tuple[Colour, ...] = (
    (0.30, 0.19, 0.14), (0.45, 0.29, 0.20), (0.62, 0.42, 0.30),
    (0.76, 0.55, 0.41), (0.87, 0.68, 0.55), (0.95, 0.80, 0.70),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (0.07, 0.06, 0.06), (0.20, 0.12, 0.08), (0.36, 0.22, 0.12),
    (0.52, 0.22, 0.10), (0.78, 0.62, 0.36), (0.68, 0.67, 0.66),
)  # fmt: skip
PATTERNS = ("plain", "stripes", "tiles", "dots", "leaves")
IRIS: tuple[Colour, ...] = ((0.22, 0.13, 0.07), (0.38, 0.27, 0.12), (0.28, 0.40, 0.24), (0.28, 0.44, 0.62))


@dataclass(frozen=True)
class Person:
    """What stays the same on all pictures of a person: colours, the outline, the features and their places, the hair.

    Attributes:
        skin: Colour.
        hair: Colour.
        iris: Colour.
        width: Of the head, of its height.
        jaw: By how much the head narrows towards the chin.
        eye_gap: Of an eye from the middle.
        eye_size: Half the width of an eye.
        eye_shape: Height of an eye, of its width.
        eye_tilt: Of the eyes outwards.
        brow: Thickness of a brow.
        brow_gap: Between an eye and its brow.
        brow_tilt: Of the brows outwards.
        nose: y of its tip.
        nose_width: Half of it.
        mouth: y of the mouth.
        mouth_width: Half of it.
        lips: Thickness of a lip.
        hairline: y of it in the middle; below -1 there is no hair on the head.
        volume: How far the hair stands off.
        length: y to which the hair falls.
        parting: x of the parting.
        curl: 0 for straight strands to 1 for curls.
        strands: Number of strands from ear to ear.
        beard: 0 for none to 1 for a dark one.
        freckles: Number of them.
        glasses: 0 for none, otherwise the radius of a glass.
        seed: Of the freckles' places and the strands.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    width: float
    jaw: float
    eye_gap: float
    eye_size: float
    eye_shape: float
    eye_tilt: float
    brow: float
    brow_gap: float
    brow_tilt: float
    nose: float
    nose_width: float
    mouth: float
    mouth_width: float
    lips: float
    hairline: float
    volume: float
    length: float
    parting: float
    curl: float
    strands: float
    beard: float
    freckles: int
    glasses: float
    seed: int


@dataclass(frozen=True)
class View:
    """What differs from picture to picture of a person.

    Attributes:
        yaw: The head's turn to the right.
        pitch: The head's nod down.
        roll: The head's tilt.
        size: Half the height of the head, of half the picture.
        x: Place of the head, of half the picture.
        y: Likewise.
        light: Direction that the light comes from: to the right, down and to the front.
        contrast: Of the light, 0 for none.
        exposure: Factor on all brightness.
        smile: Of the mouth's corners, up.
        open: Of the mouth, 0 to 1.
        lids: Opening of the eyes, 0 to 1.
        raised: Of the brows, up.
        gaze: Of the eyes to the right, -1 to 1.
        ground: Colours of the background.
        pattern: Its pattern, one of `PATTERNS`.
        waves: Of the pattern across the picture.
        turn: Of the pattern.
        clothes: Colours of the clothes.
        stripes: Of the clothes, across the picture.
    """

    yaw: float
    pitch: float
    roll: float
    size: float
    x: float
    y: float
    light: tuple[float, float, float]
    contrast: float
    exposure: float
    smile: float
    open: float
    lids: float
    raised: float
    gaze: float
    ground: tuple[Colour, Colour]
    pattern: str
    waves: float
    turn: float
    clothes: tuple[Colour, Colour]
    stripes: float


def draw_person(rng: np.random.Generator) -> Person:
    """A person at random."""
    tone = rng.random()
    dark = tone < 0.45
    shade = rng.beta(1.2, 2.5) if dark else rng.random()
    beard, long = rng.random() < 0.3, rng.random() < 0.45
    return Person(
        skin=_between(SKIN, tone),
        hair=_between(HAIR, 0.5 * shade if dark else shade),
        iris=_between(IRIS, 0.3 * rng.random() if dark else rng.random()),
        width=rng.uniform(0.70, 0.86),
        jaw=rng.uniform(0.02, 0.30),
        eye_gap=rng.uniform(0.35, 0.46),
        eye_size=rng.uniform(0.15, 0.21),
        eye_shape=rng.uniform(0.40, 0.62),
        eye_tilt=rng.uniform(-0.15, 0.20),
        brow=rng.uniform(0.025, 0.075),
        brow_gap=rng.uniform(0.15, 0.24),
        brow_tilt=rng.uniform(-0.12, 0.30),
        nose=rng.uniform(0.30, 0.44),
        nose_width=rng.uniform(0.11, 0.20),
        mouth=rng.uniform(0.60, 0.70),
        mouth_width=rng.uniform(0.22, 0.38),
        lips=rng.uniform(0.035, 0.085),
        hairline=-1.2 if rng.random() < 0.08 else rng.uniform(-0.80, -0.48),
        volume=rng.uniform(0.04, 0.26),
        length=rng.uniform(0.5, 1.5) if long and not beard else rng.uniform(-0.3, 0.2),
        parting=rng.uniform(-0.6, 0.6),
        curl=float(rng.random() < 0.35) * rng.uniform(0.5, 1.0),
        strands=rng.uniform(14, 26),
        beard=float(beard) * rng.uniform(0.3, 1.0),
        freckles=int(rng.random() < 0.3) * int(rng.integers(15, 50)),
        glasses=float(rng.random() < 0.25) * rng.uniform(0.24, 0.32),
        seed=int(rng.integers(2**31)),
    )


def draw_view(rng: np.random.Generator) -> View:
    """How a person is seen, at random."""
    turn = rng.uniform(-0.7, 0.7)
    up = rng.uniform(-0.9, 0.1)
    light = np.array([turn, up, 0.9])
    right, down, front = (light / np.linalg.norm(light)).tolist()
    happy = rng.random()
    return View(
        yaw=float(np.clip(rng.normal(0, 0.13), -0.4, 0.4)),
        pitch=float(np.clip(rng.normal(0, 0.08), -0.25, 0.25)),
        roll=rng.normal(0, 0.04),
        size=rng.uniform(0.74, 0.79),
        x=rng.normal(0, 0.02),
        y=rng.normal(0.04, 0.02),
        light=(right, down, front),
        contrast=rng.uniform(0.30, 0.50),
        exposure=rng.uniform(0.94, 1.06),
        smile=0.14 * happy - 0.03,
        open=max(0.0, rng.normal(0.1, 0.3)),
        lids=rng.uniform(0.65, 1.0) if rng.random() < 0.95 else 0.1,
        raised=rng.uniform(-0.02, 0.05),
        gaze=rng.normal(0, 0.25),
        ground=(_muted(rng), _muted(rng)),
        pattern=PATTERNS[int(rng.integers(len(PATTERNS)))],
        waves=rng.uniform(5, 11),
        turn=rng.uniform(0, np.pi),
        clothes=(_muted(rng), _muted(rng)),
        stripes=float(rng.random() < 0.5) * rng.uniform(8, 14),
    )


def _between(colours: tuple[Colour, ...], place: float) -> Colour:
    """A colour of a scale, at a place in [0, 1]."""
    at = np.linspace(0, 1, len(colours))
    red, green, blue = (float(np.interp(place, at, channel)) for channel in zip(*colours, strict=True))
    return red, green, blue


def _muted(rng: np.random.Generator) -> Colour:
    """A colour that is not bright."""
    red, green, blue = (rng.uniform(0.38, 0.58) + rng.uniform(-0.11, 0.11, 3)).tolist()
    return red, green, blue


def plain(person: Person) -> dict[str, Any]:
    """A person as a row of a table; a colour has three columns."""
    row: dict[str, Any] = {}
    for name, value in vars(person).items():
        if isinstance(value, tuple):
            row |= {f"{name}_{channel}": part for channel, part in zip(("red", "green", "blue"), value, strict=True)}
        else:
            row[name] = value
    return row
