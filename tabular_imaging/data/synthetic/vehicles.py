"""Drawings of the SYNTHETIC vehicles: simple solids with sizes in mm, seen from some viewpoint and painted with PIL.

A vehicle is its side outline, swept across the width and tapered towards the roof and both ends. Projecting that
solid with a yaw, a pitch and a mild perspective gives side and three-quarter views in which length, height,
wheelbase, width and body type are those of the table, up to the unknown scale of a photograph.

Coordinates: x from the front (0) to the rear (length), y up from the ground, z to the viewer's side (half the width).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
Colour = tuple[float, float, float]  # 0 to 255

# fmt: off
COLOURS: dict[str, Colour] = {
    "Black": (28, 28, 32), "Blue": (35, 70, 150), "Brown": (95, 66, 46), "Green": (36, 92, 62), "Grey": (105, 108, 112),
    "Orange": (214, 104, 32), "Red": (168, 28, 34), "Silver": (176, 180, 184), "White": (232, 232, 228),
    "Yellow": (222, 184, 44),
}
# Side outlines as fractions of length and height: bonnet edge and its height, foot of the windscreen and its height,
# start and end of the roof, end of the rear window and its height, top of the tail and its height; then wheel radius
# and ground clearance in mm.
BODIES: dict[str, tuple[float, ...]] = {
    "Hatchback":   (0.020, 0.50, 0.235, 0.640, 0.420, 0.800, 0.965, 0.640, 0.990, 0.560, 315, 170),
    "Saloon":      (0.020, 0.52, 0.270, 0.660, 0.425, 0.660, 0.830, 0.690, 0.985, 0.650, 320, 170),
    "Estate":      (0.020, 0.50, 0.250, 0.640, 0.405, 0.900, 0.982, 0.630, 0.993, 0.560, 320, 170),
    "SUV":         (0.018, 0.57, 0.250, 0.660, 0.370, 0.870, 0.968, 0.640, 0.992, 0.560, 375, 230),
    "MPV":         (0.020, 0.50, 0.140, 0.600, 0.340, 0.880, 0.980, 0.620, 0.993, 0.530, 320, 175),
    "Coupe":       (0.022, 0.53, 0.320, 0.670, 0.480, 0.620, 0.900, 0.690, 0.985, 0.650, 335, 145),
    "Convertible": (0.022, 0.55, 0.300, 0.680, 0.420, 0.420, 0.800, 0.690, 0.985, 0.640, 325, 150),
    "Pickup":      (0.018, 0.55, 0.235, 0.630, 0.345, 0.560, 0.610, 0.600, 0.992, 0.600, 385, 250),
}
# fmt: on
WHITE_LAMP, RED_LAMP = (236, 238, 226), (176, 20, 24)
GLASS, ROOF, PAINT, BED = "glass", "roof", "paint", "bed"


@dataclass(frozen=True)
class Vehicle:
    """A vehicle as the table describes it, and the style of its model.

    Args:
        body: Body type, one of `BODIES`.
        length: Length in mm.
        height: Height from ground to roof in mm.
        width: Width without mirrors in mm.
        wheelbase: Distance between the axles in mm.
        colour: Colour, one of `COLOURS`.
        style: Six numbers in [-1, 1] that all vehicles of a model share: bonnet, screen, tail, belt, lamps and wheels.
    """

    body: str
    length: float
    height: float
    width: float
    wheelbase: float
    colour: str
    style: tuple[float, ...] = (0.0,) * 6


@dataclass(frozen=True)
class View:
    """The direction that the vehicle is seen from, its place in the photograph, and the light.

    Args:
        yaw: Angle in degrees by which the front (positive) or rear (negative) is turned towards the viewer; 0 is a side
            view.
        pitch: Angle in degrees at which the viewer looks down.
        scale: Pixels of the finished picture per mm, at the vehicle's middle.
        shift: Offset of the vehicle's middle from that of the picture, right and down, as fractions of the picture.
        faces_right: Whether the front is on the right.
        light: Direction that the light comes from: x, y, z.
        ambient: Share of the light that has no direction.
    """

    yaw: float
    pitch: float
    scale: float
    shift: tuple[float, float] = (0.0, 0.0)
    faces_right: bool = False
    light: tuple[float, float, float] = (-0.3, 0.8, 0.5)
    ambient: float = 0.55


def _rounded(corners: Array, radius: float, kinds: Sequence[str]) -> tuple[Array, list[str], list[int]]:
    """A polyline with its inner corners rounded, the kind of each segment, and the index of each corner's middle."""
    points, out, middles = [corners[0]], [], [0]
    for at in range(1, len(corners) - 1):
        before, corner, after = corners[at - 1], corners[at], corners[at + 1]
        lengths = np.linalg.norm(before - corner), np.linalg.norm(after - corner)
        start = corner + (before - corner) * min(radius / lengths[0], 0.45)
        end = corner + (after - corner) * min(radius / lengths[1], 0.45)
        curve = [(1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end for t in np.linspace(0, 1, 6)]
        out += [kinds[at - 1], *([kinds[at - 1] if kinds[at - 1] == kinds[at] else PAINT] * 5)]
        middles.append(len(points) + 3)
        points += curve
    return np.array([*points, corners[-1]]), [*out, kinds[-1]], [*middles, len(points)]


class _Solid:
    """A vehicle's outline, the landmarks on it, and half the width at a point."""

    def __init__(self, vehicle: Vehicle) -> None:
        nose, bonnet_y, foot, foot_y, roof_0, roof_1, deck, deck_y, tail, tail_y, self.wheel, self.clearance = BODIES[
            vehicle.body
        ]
        bonnet_s, screen_s, tail_s, belt_s, *_ = vehicle.style
        length, height = vehicle.length, vehicle.height
        self.vehicle, self.open = vehicle, vehicle.body == "Convertible"
        foot, roof_0 = foot + 0.022 * bonnet_s, roof_0 + 0.022 * bonnet_s + 0.018 * screen_s
        roof_1 = max(roof_1 + 0.022 * tail_s, roof_0 + 0.02)
        foot_y, deck_y = foot_y + 0.018 * belt_s, deck_y + 0.018 * belt_s
        self.bonnet_y = bonnet_y * height
        self.screen_top = np.array([roof_0 * length, height])
        self.screen_foot = np.array([foot * length, foot_y * height])
        roof = [] if self.open else [(roof_0 * length, height), (roof_1 * length, height * 0.985)]
        pick = vehicle.body == "Pickup"
        low = self.clearance + 0.06 * height
        corners = np.array([
            (0.012 * length, self.clearance), (0, low + 0.09 * height), (nose * length, bonnet_y * height),
            self.screen_foot, *roof, (deck * length, deck_y * height), (tail * length, tail_y * height),
            (length, low + 0.13 * height), (0.988 * length, self.clearance),
        ])  # fmt: skip
        cabin = [BED] if self.open else [GLASS, ROOF, PAINT if pick else GLASS]
        kinds = [PAINT, PAINT, PAINT, *cabin, BED if pick else PAINT, PAINT, PAINT]
        self.outline, self.kinds, middles = _rounded(corners, 0.09 * height, kinds)
        self.foot, self.deck = middles[3], middles[4 + len(roof)]
        self.nose_end, self.tail_start = middles[2], middles[5 + len(roof)]
        front = vehicle.wheelbase + (length - vehicle.wheelbase) * (0.40 if pick else 0.46)
        self.axles = (front - vehicle.wheelbase, front)

    def half_width(self, points: Array) -> Array:
        """Half the width at `(..., 2)` points of the side; it is smaller above the belt and at both ends."""
        v = self.vehicle
        belt = self.outline[self.foot, 1]
        above = np.clip((points[..., 1] - belt) / (v.height - belt), 0, 1)
        end = np.abs(2 * points[..., 0] / v.length - 1) ** 8
        half: Array = v.width / 2 * (1 - 0.22 * above - 0.14 * end)
        return half

    def at(self, points: Array, side: float | Array = 1.0) -> Array:
        """Points `(..., 3)`: those of the outline plane, moved sideways by a fraction of half the width."""
        return np.concatenate([points, (side * self.half_width(points))[..., None]], -1)


class _Painter:
    """Projects points in mm onto pixels and fills polygons, at `zoom` times the size of the finished picture."""

    DISTANCE = 13_000.0  # mm from the camera to the middle of the vehicle

    def __init__(self, vehicle: Vehicle, view: View, px: int, zoom: int) -> None:
        self.vehicle, self.view, self.size, self.zoom = vehicle, view, px * zoom, zoom
        self.image = Image.new("RGBA", (self.size, self.size), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)
        yaw, pitch = np.radians(view.yaw), np.radians(view.pitch)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        self.rotation = tilt @ turn
        light = np.array(view.light)
        self.light = light / np.linalg.norm(light)

    def project(self, points: Array) -> Array:
        """`(..., 3)` mm to `(..., 2)` pixels of the enlarged picture."""
        middle = np.array([self.vehicle.length / 2, self.vehicle.height / 2, 0])
        seen = (points - middle) @ self.rotation.T
        flat = seen[..., :2] * self.view.scale * self.zoom * (self.DISTANCE / (self.DISTANCE - seen[..., 2:]))
        flat *= (-1 if self.view.faces_right else 1, -1)
        placed: Array = flat + self.size * (0.5 + np.array(self.view.shift))
        return placed

    def facing(self, normal: Array) -> float:
        """Cosine between a normal and the direction to the viewer."""
        return float((self.rotation @ normal)[2])

    def shade(self, colour: Colour, normal: Array, gloss: float = 0.25) -> tuple[int, int, int]:
        """The colour under ambient and diffuse light, with a highlight."""
        diffuse = max(float(normal @ self.light), 0.0)
        level = self.view.ambient + (1.15 - self.view.ambient) * diffuse
        red, green, blue = (min(int(c * level + 255 * gloss * diffuse**6), 255) for c in colour)
        return red, green, blue

    def polygon(self, points: Array, colour: Sequence[int]) -> None:
        """Fill a polygon given in mm."""
        self.draw.polygon([(x, y) for x, y in self.project(points)], fill=tuple(colour))

    def line(self, points: Array, colour: Sequence[int], width_mm: float) -> None:
        """Draw a line given in mm."""
        width = max(round(width_mm * self.view.scale * self.zoom), 1)
        self.draw.line([(x, y) for x, y in self.project(points)], fill=tuple(colour), width=width, joint="curve")

    def gradient(self, points: Array, stops: Sequence[tuple[float, tuple[int, int, int]]]) -> None:
        """Fill a polygon given in mm with a gradient of colours from its top (0) to its bottom (1)."""
        flat = self.project(points)
        low, high = np.floor(flat.min(0)).astype(int), np.ceil(flat.max(0)).astype(int) + 1
        width, height = (high - low).tolist()
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon([(x, y) for x, y in flat - low], fill=255)
        down = np.linspace(0, 1, height)
        places = [place for place, _ in stops]
        column = np.stack([np.interp(down, places, [colour[i] for _, colour in stops]) for i in range(3)], -1)
        band = Image.fromarray(column[:, None].astype(np.uint8)).resize((width, height))
        self.image.paste(band, (int(low[0]), int(low[1])), mask)


def _disc(centre: Sequence[float], radius: float, corners: int = 36) -> Array:
    """A circle in a plane of constant z."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    x, y, z = centre
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle), np.full(corners, z)], -1)


def _mix(a: Sequence[float], b: Sequence[float], share: float) -> tuple[int, int, int]:
    red, green, blue = (int(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _paint_sweep(paint: _Painter, solid: _Solid) -> None:
    """Paint everything across the width that faces the viewer: front, bonnet, screens, roof, boot, rear."""
    colour, points = COLOURS[solid.vehicle.colour], solid.outline
    for at in sorted(range(len(points) - 1), key=lambda at: (solid.kinds[at] == ROOF, points[at, 1])):
        edge = points[at + 1] - points[at]
        normal = np.array([-edge[1], edge[0], 0]) / max(float(np.linalg.norm(edge)), 1e-9)
        if paint.facing(normal) <= 0:
            continue
        pair = points[at : at + 2]
        quad = np.concatenate([solid.at(pair, -1.0), solid.at(pair[::-1], 1.0)])
        kind = solid.kinds[at]
        if kind == GLASS:
            paint.polygon(quad, paint.shade(colour, normal))
            inner = np.stack([pair[0] + 0.03 * edge, pair[1] - 0.03 * edge])
            glass = np.concatenate([solid.at(inner, -0.90), solid.at(inner[::-1], 0.90)])
            paint.gradient(glass, [(0, (122, 140, 152)), (0.45, (62, 74, 84)), (1, (34, 40, 46))])
        elif kind == BED:
            paint.polygon(quad, (38, 36, 36))
        else:
            paint.polygon(quad, paint.shade(colour, normal))


def _paint_end(paint: _Painter, solid: _Solid, front: bool) -> None:
    """Paint the lamps, grille or tailgate line, number plate and bumper of the end that is visible."""
    if paint.facing(np.array([-1.0 if front else 1.0, 0, 0])) <= 0.03:
        return
    face = solid.outline[: solid.nose_end + 1] if front else solid.outline[solid.tail_start :][::-1]
    bottom, top = face[0, 1], face[-1, 1]
    lamps, grille = solid.vehicle.style[4], solid.vehicle.style[5]

    def patch(low: float, high: float, left: float, right: float) -> Array:
        ys = bottom + (top - bottom) * np.array([low, low, high, high])
        xs = np.interp(ys, face[:, 1], face[:, 0]) + (-6 if front else 6)
        return solid.at(np.stack([xs, ys], -1), np.array([left, right, right, left]))

    paint.polygon(patch(0.0, 0.22, -0.98, 0.98), (36, 36, 38))
    if front:
        half = 0.42 + 0.1 * grille
        paint.polygon(patch(0.42, 0.66 + 0.05 * grille, -half, half), (26, 26, 28))
        paint.polygon(patch(0.52, 0.56, -half, half), (150, 152, 154))
    else:
        paint.polygon(patch(0.50, 0.515, -0.9, 0.9), (40, 40, 42))
    lamp = WHITE_LAMP if front else RED_LAMP
    low, inner = 0.62 + 0.06 * lamps, 0.60 - 0.08 * lamps
    for left, right in ((-0.97, -inner), (inner, 0.97)):
        paint.polygon(patch(low, low + (0.20 if front else 0.28), left, right), lamp)
    paint.polygon(patch(0.26, 0.38, -0.28, 0.28), (232, 232, 226) if front else (226, 196, 60))


def _paint_cabin(paint: _Painter, solid: _Solid) -> None:
    """Paint the near side above the belt: pillars and side windows, or the screen and seats of an open car."""
    vehicle = solid.vehicle
    if solid.open:
        foot, top = solid.screen_foot, solid.screen_top
        pair = np.stack([foot, top])
        for x in (0.50, 0.66):  # seats and headrests, far ones first
            for side in (-0.45, 0.45):
                base = np.array([x * vehicle.length, foot[1]])
                for low, high, half in ((-0.02, 0.15, 0.030), (0.15, 0.21, 0.018)):
                    rect = np.array([(-half, low), (half, low), (half * 0.8, high), (-half * 0.4, high)])
                    seat = base + rect * (vehicle.length, vehicle.height)
                    paint.polygon(solid.at(seat, side), (58, 44, 38))
        if paint.facing(np.array([-1.0, 0.6, 0])) > 0:
            glass = np.concatenate([solid.at(pair, -0.95), solid.at(pair[::-1], 0.95)])
            paint.gradient(glass, [(0, (150, 164, 172)), (1, (84, 96, 104))])
        frame = np.concatenate([solid.at(pair, -1.0), solid.at(pair[::-1], 1.0)])
        paint.line(np.concatenate([frame, frame[:1]]), (34, 34, 36), 45)
        return
    cabin = solid.outline[solid.foot : solid.deck + 1]
    paint.polygon(solid.at(cabin), paint.shade(COLOURS[vehicle.colour], np.array([0, 0.25, 0.97])))
    middle = np.array([(cabin[0, 0] + cabin[-1, 0]) / 2, cabin[0, 1]])
    shrink = (0.80 if vehicle.body in ("Coupe", "Hatchback") else 0.86, 0.80)
    window = (cabin - middle) * shrink + middle + (0, 25)
    window[:, 1] = np.maximum(window[:, 1], np.interp(window[:, 0], cabin[[0, -1], 0], cabin[[0, -1], 1]) + 20)
    paint.gradient(solid.at(window), [(0, (116, 132, 142)), (0.4, (54, 64, 72)), (1, (30, 35, 40))])
    span = window[-1, 0] - window[0, 0]
    pillars = {"Coupe": (0.62,), "Pickup": (0.56,), "Estate": (0.42, 0.74), "MPV": (0.42, 0.72), "SUV": (0.44, 0.76)}
    for place in pillars.get(vehicle.body, (0.50,)):
        x = window[0, 0] + place * span
        roof = float(np.interp(x, cabin[:, 0], cabin[:, 1]))
        pillar = np.array([(x - 25, middle[1]), (x - 15, roof - 40)])
        paint.line(solid.at(pillar), (24, 24, 26), 60)
    if vehicle.body in ("SUV", "Estate"):  # roof rails
        rail = cabin[
            (cabin[:, 1] > 0.97 * vehicle.height) & (cabin[:, 0] > solid.screen_top[0] + 0.04 * vehicle.length)
        ]
        paint.line(solid.at(rail), (60, 62, 64), 32)


def _paint_side(paint: _Painter, solid: _Solid) -> None:
    """Paint the near side below the belt, with its doors, lamps and sill."""
    vehicle, colour = solid.vehicle, COLOURS[solid.vehicle.colour]
    points = solid.outline
    lower = np.concatenate([points[: solid.foot + 1], points[solid.deck :]])
    side = np.array([0, 0.05, 1.0])
    base = paint.shade(colour, side, 0.1)
    top = paint.shade(colour, np.array([0, 0.75, 0.66]))
    light, shade = _mix(base, (255, 255, 255), 0.07), _mix(base, (0, 0, 0), 0.35)
    paint.gradient(solid.at(lower), [(0, top), (0.16, base), (0.5, light), (1, shade)])
    belt, low = points[solid.foot], solid.clearance
    front, rear = solid.axles
    dark = _mix(base, (0, 0, 0), 0.55)
    first, last = belt[0] + 0.02 * vehicle.length, rear - solid.wheel * 1.05
    doors = (first, last) if vehicle.body in ("Coupe", "Convertible") else (first, (first + last) / 2 + 40, last)
    for x in doors:
        paint.line(solid.at(np.array([(x, low + 90), (x, belt[1] - 5)])), dark, 14)
    for x in doors[1:]:  # handles
        y = belt[1] - 0.07 * vehicle.height
        paint.line(solid.at(np.array([(x - 210, y), (x - 90, y)])), _mix(base, (255, 255, 255), 0.35), 24)
    crease = low + 0.62 * (belt[1] - low)
    paint.line(solid.at(np.array([(0.05 * vehicle.length, crease), (0.95 * vehicle.length, crease)])), dark, 8)
    sill = np.array([(front, low), (rear, low), (rear, low + 85), (front, low + 85)])
    paint.polygon(solid.at(sill), (30, 30, 32))
    lamp = 0.62 + 0.06 * vehicle.style[4]
    nose, tail = points[: solid.nose_end + 1], points[solid.tail_start :][::-1]
    for face, hue, reach in ((nose, WHITE_LAMP, 1), (tail, RED_LAMP, -1)):
        ys = face[0, 1] + (face[-1, 1] - face[0, 1]) * np.array([lamp, lamp + 0.2])
        xs = np.interp(ys, face[:, 1], face[:, 0])
        inner = xs + reach * 0.045 * vehicle.length
        corners = np.array([(xs[0], ys[0]), (inner[0], ys[0] + 20), (inner[1], ys[1]), (xs[1], ys[1])])
        paint.polygon(solid.at(corners, 1.005), hue)


def _paint_wheels(paint: _Painter, solid: _Solid, near: bool) -> None:
    half, radius = solid.vehicle.width / 2, solid.wheel
    spokes = 5 + round(2 * solid.vehicle.style[5])
    for x in solid.axles:
        if not near:
            paint.polygon(_disc((x, radius, -half * 0.92), radius), (14, 14, 15))
            continue
        arch = _disc((x, radius, half * 0.985), radius * 1.17)
        paint.polygon(arch[arch[:, 1] >= solid.clearance - 5], (18, 18, 19))
        paint.polygon(_disc((x, radius, half * 0.80), radius), (12, 12, 13))
        paint.polygon(_disc((x, radius, half * 0.985), radius), (26, 26, 28))
        paint.polygon(_disc((x, radius, half * 0.985), radius * 0.68), (60, 62, 64))
        for angle in np.arange(spokes) * 2 * np.pi / spokes + 0.4:
            rim = np.array([x, radius, half]) + 0.62 * radius * np.array([np.cos(angle), np.sin(angle), 0])
            paint.line(np.stack([np.array([x, radius, half]), rim]), (186, 188, 190), 62)
        paint.polygon(_disc((x, radius, half), radius * 0.16, 16), (150, 152, 154))


def footprint(vehicle: Vehicle, view: View, px: int) -> Array:
    """The vehicle's shadow: pixels `(36, 2)` of an ellipse on the ground, a little larger than the vehicle."""
    circle = _disc((0, 0, 0), 1.0)
    ground = np.stack(
        [(0.5 + 0.54 * circle[:, 0]) * vehicle.length, 0 * circle[:, 0], 0.62 * vehicle.width * circle[:, 1]], -1
    )
    return _Painter(vehicle, view, px, 1).project(ground)


def paint_vehicle(vehicle: Vehicle, view: View, px: int, zoom: int = 2) -> Image.Image:
    """The vehicle alone, with a transparent background.

    Args:
        vehicle: The vehicle, with its sizes, body, colour and style.
        view: The view that it is seen from.
        px: Side of the finished, square picture in pixels.
        zoom: Factor by which the picture is painted larger; the caller reduces it, which smooths the edges.

    Returns:
        The picture in RGBA, `(zoom * px, zoom * px)`.
    """
    paint, solid = _Painter(vehicle, view, px, zoom), _Solid(vehicle)
    _paint_wheels(paint, solid, near=False)
    floor = np.array([(solid.axles[0] - 200, solid.clearance), (solid.axles[1] + 200, solid.clearance)])
    paint.polygon(np.concatenate([solid.at(floor, -0.95), solid.at(floor[::-1], 0.95)]), (16, 16, 17))
    _paint_sweep(paint, solid)
    for front in (True, False):
        _paint_end(paint, solid, front)
    _paint_side(paint, solid)
    _paint_cabin(paint, solid)
    _paint_wheels(paint, solid, near=True)
    mirror = solid.at(solid.screen_foot[None] + np.array([[60, 30], [170, 30], [170, 120], [60, 120]]), 1.12)
    paint.polygon(mirror, paint.shade(COLOURS[vehicle.colour], np.array([-0.3, 0.3, 0.9])))
    return paint.image
