"""A SYNTHETIC portrait from its numbers: an ellipsoid that is turned, lit and painted, before a patterned ground.

Each pixel of the head is carried back to the face as seen from the front, where the features are drawn; so they turn
and shorten with the head. The features' relief bends the surface that the light falls on.

A plane is `(H, W)` float32, a picture `(3, H, W)`.
"""

from math import cos, pi, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commin.data.synthetic.person import Colour, Person, View

CANVAS = 128  # pixels of either side that are drawn, then averaged
EDGE = 0.035  # width of an edge on the face: about a pixel of the canvas
RELIEF = 0.55  # how far the features' relief bends the light
Plane = NDArray[np.floating[Any]]  # of float32, or the drawing would take twice as long

_ACROSS = ((np.arange(CANVAS, dtype=np.float32) + 0.5) / (CANVAS / 2) - 1)[None, :]
_DOWN = _ACROSS.T


def draw_portrait(person: Person, view: View, side: int) -> NDArray[np.uint8]:
    """A picture `(side, side, 3)`.

    Args:
        person: Who.
        view: How.
        side: Pixels of either side; `CANVAS` is a multiple of it.
    """
    picture = _ground(view)
    x, y = _head_plane(person, view)
    _paint_hair_behind(picture, person, x, y)
    _paint_body(picture, person, view)
    _paint_head(picture, person, view, x, y)
    finer = CANVAS // side
    small = picture.reshape(3, side, finer, side, finer).mean(axis=(2, 4)).transpose(1, 2, 0)
    pixels: NDArray[np.uint8] = (255 * view.exposure * small).round().clip(0, 255).astype(np.uint8)
    return pixels


def _soft(inside: Plane, width: float = EDGE) -> Plane:
    """1 where a distance to an edge is positive, 0 where it is negative, with a soft edge."""
    covered: Plane = np.clip(inside / width + 0.5, 0, 1)
    return covered


def _bump(x: Plane, y: Plane, at_x: float, at_y: float, wide: float, high: float) -> Plane:
    """A Gaussian hill of height 1."""
    hill: Plane = np.exp(-(((x - at_x) / wide) ** 2) - ((y - at_y) / high) ** 2)
    return hill


def _tint(colour: Colour, red: float = 1, green: float | None = None, blue: float | None = None) -> Plane:
    """A colour as a picture of one pixel, its channels times a factor each (one number is for all)."""
    factors = (red, red if green is None else green, red if blue is None else blue)
    return (np.array(colour, np.float32) * np.array(factors, np.float32))[:, None, None]


def _lay(picture: Plane, colour: Plane, cover: Plane) -> None:
    """Lay a colour over the picture, where it covers it."""
    picture += (colour - picture) * cover


def _mixed(colours: tuple[Colour, Colour], share: Plane) -> Plane:
    """Two colours, with the second one's share."""
    first, second = map(_tint, colours)
    return first + (second - first) * share


def _around(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rows and columns that hold what is inside; none if nothing is."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return (
        slice(int(rows.min(initial=CANVAS)), int(rows.max(initial=0)) + 1),
        slice(int(columns.min(initial=CANVAS)), int(columns.max(initial=0)) + 1),
    )


def _ground(view: View) -> Plane:
    """The background: two colours that go over into each other, and a pattern."""
    a, b = cos(view.turn) * _ACROSS + sin(view.turn) * _DOWN, cos(view.turn) * _DOWN - sin(view.turn) * _ACROSS
    k = pi * view.waves / 2
    if view.pattern == "plain":
        pattern = np.zeros_like(a)
    elif view.pattern == "stripes":
        pattern = np.tanh(4 * np.sin(k * a))
    elif view.pattern == "tiles":
        pattern = np.tanh(4 * np.sin(k * a)) * np.tanh(4 * np.sin(k * b))
    elif view.pattern == "dots":
        pattern = np.tanh(6 * (np.cos(k * a) * np.cos(k * b) - 0.4))
    else:
        pattern = np.sin(k * a + 2 * np.sin(0.7 * k * b)) * np.sin(0.9 * k * b + 2 * np.sin(0.6 * k * a + 1))
    return _mixed(view.ground, 0.5 + 0.25 * a + 0.18 * pattern)


def _head_plane(person: Person, view: View) -> tuple[Plane, Plane]:
    """Where each pixel is on the picture of the head: x in halves of its width, y of its height."""
    x, y = _ACROSS - view.x, _DOWN - view.y
    along, aside = cos(view.roll) / view.size, sin(view.roll) / view.size
    x, y = along * x + aside * y, along * y - aside * x
    return x / (person.width * _narrowing(person, y)), y


def _narrowing(person: Person, y: Plane) -> Plane:
    """Width of the head at each height, of its largest."""
    narrowed: Plane = 1 - person.jaw * np.clip(y - 0.05, 0, 1.2) ** 1.5
    return narrowed


def _paint_hair_behind(picture: Plane, person: Person, x: Plane, y: Plane) -> None:
    """Hair that falls behind the face."""
    if person.hairline < -1:
        return
    sides = 1 + person.volume - np.abs(x * _narrowing(person, y))  # hair does not narrow with the jaw
    cover = _soft(sides) * _soft(person.length - y, 0.15) * _soft(y + 0.1, 0.2)
    strands = 0.55 + 0.18 * np.sin(person.strands * x + 2 * person.curl * np.sin(9 * y) + person.seed % 7)
    _lay(picture, strands * _tint(person.hair), cover)


def _paint_body(picture: Plane, person: Person, view: View) -> None:
    """Neck, shoulders and clothes."""
    across, down = _ACROSS - view.x, _DOWN - view.y
    neck = _soft(0.5 * view.size - np.abs(across) - 0.05 * down) * _soft(down - 0.2)
    _lay(picture, _tint(person.skin, 0.62), neck)
    shoulders = 1 - (across / 0.95) ** 4 - ((down - 1.25) / 0.52) ** 2
    collar = np.abs(across) / 0.30 + (1.02 - down) / 0.26
    cover = _soft(shoulders, 0.08) * _soft(np.maximum(collar - 0.95, down - 1.0), 0.06)
    striped = 0.5 + 0.5 * np.tanh(3 * np.sin(pi / 2 * view.stripes * (down + 0.3 * across)))
    folds = 0.9 + 0.1 * np.sin(9 * across + 4 * down)
    _lay(picture, _mixed(view.clothes, striped) * folds, cover)


def _paint_head(picture: Plane, person: Person, view: View, x: Plane, y: Plane) -> None:
    """Ears, face, glasses and hair."""
    around = _around((np.abs(x) < 1.3) & (np.abs(y) < 1.3))
    picture, x, y = picture[:, *around], x[around], y[around]
    radius = x**2 + y**2
    z = np.sqrt(np.clip(1 - radius, 0.0025, 1))
    face_x, face_z = cos(view.yaw) * x - sin(view.yaw) * z, sin(view.yaw) * x + cos(view.yaw) * z
    face_y = cos(view.pitch) * y - sin(view.pitch) * face_z
    for sign in (-1, 1):
        ear = 1 - ((x - sign) / 0.13) ** 2 - ((y - 0.08) / 0.2) ** 2
        _lay(picture, _tint(person.skin, 0.75), _soft(ear, 0.4))
    light = _light(view, x, y, z, _relief(person, view, face_x, face_y))
    _lay(picture, _face(person, view, face_x, face_y) * light, _soft(1 - np.sqrt(radius)))
    _paint_glasses(picture, person, face_x, face_y, _soft(1.02 - radius, 0.05))
    _paint_hair(picture, person, x, y, face_x, face_y, light)


def _relief(person: Person, view: View, x: Plane, y: Plane) -> Plane:
    """Height of the features over the head."""
    tip, wide = person.nose, person.nose_width
    ridge = np.exp(-((x / (0.5 * wide)) ** 2)) * np.clip((y + 0.15) / (tip + 0.15), 0, 1) * _soft(tip + 0.06 - y, 0.15)
    height = 0.20 * ridge + 0.09 * _bump(x, y, 0, tip, 0.7 * wide, 0.09)
    for sign in (-1, 1):
        height += 0.05 * _bump(x, y, sign * wide, tip + 0.03, 0.07, 0.06)
        height -= 0.10 * _bump(x, y, sign * person.eye_gap, 0, 1.3 * person.eye_size, 0.16)
        height += 0.06 * _bump(x, y, sign * 0.5, 0.33, 0.2, 0.16 + view.smile)
        height += 0.04 * _bump(x, y, sign * person.eye_gap, -person.brow_gap, 0.25, 0.07)
    height += 0.06 * _bump(x, y, 0, person.mouth + 0.05, person.mouth_width, 0.12)
    found: Plane = height + 0.06 * _bump(x, y, 0, 0.95, 0.2, 0.14)
    return found


def _light(view: View, x: Plane, y: Plane, z: Plane, relief: Plane) -> Plane:
    """Brightness of each pixel of the head, about 1."""
    down, right = np.gradient(relief, 2 / CANVAS / view.size)
    normal = np.stack([x - RELIEF * right, y - RELIEF * down, z])
    lit = np.tensordot(np.array(view.light, np.float32), normal, 1) / np.sqrt((normal**2).sum(0))
    lit = np.clip(lit, 0, 1)
    brightness: Plane = 1.05 - view.contrast + 1.15 * view.contrast * lit + 0.12 * lit**24
    return brightness


def _face(person: Person, view: View, x: Plane, y: Plane) -> Plane:
    """Colours of the face without light."""
    face = np.tile(_tint(person.skin), (1, *x.shape))
    blush = _bump(x, y, -0.5, 0.35, 0.22, 0.18) + _bump(x, y, 0.5, 0.35, 0.22, 0.18)
    _lay(face, _tint(person.skin, 1.02, 0.80, 0.78), 0.25 * blush)
    _paint_freckles(face, person, x, y)
    _paint_beard(face, person, x, y)
    for sign in (-1, 1):
        _paint_eye(face, person, view, sign, x, y)
        nostril = _bump(x, y, sign * 0.55 * person.nose_width, person.nose + 0.07, 0.05, 0.03)
        _lay(face, _tint(person.skin, 0.35), 0.8 * nostril)
    _lay(face, _tint(person.skin, 0.6), 0.5 * _bump(x, y, 0, person.nose + 0.1, 0.8 * person.nose_width, 0.035))
    _paint_mouth(face, person, view, x, y)
    return face


def _paint_freckles(face: Plane, person: Person, x: Plane, y: Plane) -> None:
    """Small darker spots on cheeks, nose and brow, the same on all pictures."""
    rng = np.random.default_rng(person.seed)
    places = rng.normal((0, 0.12), (0.42, 0.28), (person.freckles, 2))
    spots = np.zeros_like(x)
    for (at_x, at_y), size in zip(places.tolist(), rng.uniform(0.02, 0.04, person.freckles).tolist(), strict=True):
        near = _around((np.abs(x - at_x) < 3 * size) & (np.abs(y - at_y) < 3 * size))
        spots[near] += _bump(x[near], y[near], at_x, at_y, size, size)
    _lay(face, _tint(person.skin, 0.62, 0.50, 0.45), np.clip(0.7 * spots, 0, 1))


def _paint_beard(face: Plane, person: Person, x: Plane, y: Plane) -> None:
    """Hair on cheeks and chin and above the lip, finely grained."""
    if not person.beard:
        return
    cheeks = _soft(y + 0.55 * x**2 - person.mouth + 0.02, 0.2)
    lip = _bump(x, y, 0, person.mouth - 0.13, person.mouth_width, 0.05)
    grain = 0.75 + 0.25 * np.sin(37 * x + 5 * np.sin(23 * y)) * np.sin(41 * y + 3)
    _lay(face, _tint(person.hair, 0.8), 0.85 * person.beard * np.clip(cheeks + lip, 0, 1) * grain)


def _paint_eye(face: Plane, person: Person, view: View, sign: int, x: Plane, y: Plane) -> None:
    """White, iris, pupil and lids of an eye, and its brow."""
    size, at = person.eye_size, sign * person.eye_gap
    _lay(face, _tint(person.skin, 0.8), 0.5 * _bump(x, y, at, 0, 1.3 * size, 0.9 * size))
    around = _around((np.abs(x - at) < 2 * size) & (np.abs(y + 0.15) < 0.35))
    face, x, y = face[:, *around], x[around] - at, y[around]
    ex, ey, edge = x / size, y / size + sign * person.eye_tilt * x / size, EDGE / size
    opening = person.eye_shape * view.lids * np.clip(1 - ex**2, 0, 1)
    white = _soft(np.minimum(opening - np.abs(ey), 1 - np.abs(ex)), edge)
    away = np.hypot(ex - 0.3 * view.gaze, ey)
    glint = np.hypot(ex - 0.3 * view.gaze - 0.18, ey + 0.18)
    _lay(face, _tint((0.90, 0.89, 0.87)), white)
    _lay(face, _tint(person.iris), white * _soft(0.52 - away, edge))
    _lay(face, _tint((0.03, 0.03, 0.03)), white * _soft(0.24 - away, edge))
    _lay(face, _tint((0.97, 0.97, 0.97)), white * _soft(0.13 - glint, edge))
    lid = _soft(0.13 - np.abs(ey + opening), edge) * _soft(1.08 - np.abs(ex), edge)
    _lay(face, _tint(person.hair, 0.3), 0.9 * lid)
    outwards = sign * x / (1.45 * size)
    middle = 0.05 * outwards**2 - 0.12 * person.brow_tilt * outwards - 0.05 - person.brow_gap - view.raised
    brow = _soft(person.brow * (1 - 0.35 * outwards) - np.abs(y - middle)) * _soft(1 - np.abs(outwards), 0.2)
    _lay(face, _tint(person.hair, 0.75), 0.85 * brow)


def _paint_mouth(face: Plane, person: Person, view: View, x: Plane, y: Plane) -> None:
    """Lips, teeth, the dark between them, and the folds of a smile."""
    wide = person.mouth_width * (1 + 1.2 * view.smile)
    mx = np.abs(x / wide)
    arch = np.clip(1 - mx**2, 0, 1)
    middle = person.mouth + view.smile * (0.5 - 1.4 * mx**2)
    gap = 0.09 * view.open * arch
    upper = middle - gap - person.lips * arch * (0.8 + 0.25 * mx)
    lower = middle + gap + 1.25 * person.lips * np.sqrt(arch)
    _lay(
        face,
        _tint(person.skin, 0.86, 0.56, 0.54),
        0.9 * _soft(np.minimum(y - upper, lower - y)) * _soft(1.04 - mx, 0.1),
    )
    inside = _soft(gap - np.abs(y - middle)) * _soft(1 - mx, 0.1)
    _lay(face, _tint((0.20, 0.06, 0.06)), inside)
    _lay(face, _tint((0.90, 0.88, 0.84)), inside * _soft(middle - y + 0.3 * gap))
    line = _soft(0.015 - np.abs(y - middle)) * _soft(1.02 - mx, 0.1)
    _lay(face, _tint(person.skin, 0.35), 0.7 * line * (1 - inside))
    folds = _bump(np.abs(x), y, wide + 0.09, person.mouth - 0.12, 0.04, 0.14)
    _lay(face, _tint(person.skin, 0.7), min(max(5 * view.smile, 0.0), 0.6) * folds)


def _paint_glasses(picture: Plane, person: Person, x: Plane, y: Plane, head: Plane) -> None:
    """Two round frames and the bridge."""
    if not person.glasses:
        return
    x = np.abs(x)
    bridge = _soft(0.02 - np.abs(y + 0.03)) * _soft(person.eye_gap - person.glasses - x)
    frames = _soft(0.025 - np.abs(np.hypot(x - person.eye_gap, 1.15 * y) - person.glasses))
    _lay(picture, _tint((0.08, 0.07, 0.08)), 0.9 * np.maximum(bridge, frames) * head)


def _paint_hair(picture: Plane, person: Person, x: Plane, y: Plane, face_x: Plane, face_y: Plane, light: Plane) -> None:
    """Hair on the head, in strands or curls, down to the hairline."""
    if person.hairline < -1:
        return
    wide = 1 + person.volume
    away = face_x - person.parting
    line = person.hairline - 0.10 + 0.85 * np.abs(face_x) ** 3 + 0.10 * np.cos(3 * away)
    line = line + 0.03 * np.sin(person.strands * face_x + person.seed % 11)
    scalp = _soft(np.minimum(line - face_y, 0.25 - y), 0.06)
    beyond = (x**2 + y**2 > 1) & (y < min(person.length, 0.25))
    cover = _soft(1 - np.hypot(x, y + 0.02) / wide) * np.maximum(scalp, beyond)
    angle = np.arctan2(away, 1.15 + np.abs(face_y))
    straight = np.sin(1.6 * person.strands * angle + 2.5 * np.sin(3 * face_y + person.seed % 5))
    curls = np.sin(15 * face_x + 3 * np.sin(9 * face_y)) * np.sin(14 * face_y + person.seed % 5)
    strands = (1 - person.curl) * straight + person.curl * curls
    sheen = np.exp(-(((face_y + 0.75) / 0.18) ** 2))
    shade = light * (0.78 + 0.19 * strands + 0.35 * sheen * (1 + strands))
    _lay(picture, shade * _tint(person.hair) + 0.01 * sheen, cover)
