"""What the SYNTHETIC survey shows: populations of galaxies, and planted classes that the vote tree has no answer for.

Every galaxy is one model, components that share its light; kinds differ in the densities its numbers are drawn from.
Size, brightness and colour are drawn apart, so that planted classes share them with all galaxies that show features.

Shapes: H x W pixels, K clumps.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from galaxy_clusters.data.synthetic.render import Array, logarithmic_arms, offsets, ring, sersic, spots, turned

POPULATIONS = {"elliptical": 0.28, "spiral": 0.26, "barred": 0.18, "edge_on": 0.09, "merger": 0.07, "artefact": 0.12}
PLANTED = ("ring", "one_armed", "clumpy_bar", "shredded")
SHREDS = 12  # catalogue entries of a shredded galaxy
# Light of the components in z, r and g against the galaxy's mean: bulges are red, young stars in arms and clumps blue.
COLOURS = {
    "bulge": (1.15, 1, 0.8), "disc": (1, 1, 1), "bar": (1.06, 1, 0.9), "arms": (0.9, 1, 1.2), "ring": (0.98, 1, 1.05),
    "clumps": (0.92, 1, 1.15), "companion": (1, 1, 1), "tail": (0.95, 1, 1.1),
}  # fmt: skip
Spans = dict[str, tuple[float, float]]
COMMON: Spans = {
    "bulge": (0, 0.4), "disc": (0.45, 0.7), "sersic_index": (1, 3), "roundness": (0.8, 1), "axis_ratio": (0.45, 1),
    "position_angle": (0, math.pi), "bar_length": (0.7, 1.3), "bar_angle": (0, math.pi), "arm_count": (2, 4.2),
    "winding": (1.6, 5), "clump_count": (6, 16), "texture": (0, 2**31), "companion_angle": (0, 2 * math.pi),
}  # fmt: skip
# What a kind has of its own: uniform densities of `Shape`'s numbers. Components are parts, later divided by their sum.
DENSITIES: dict[str, Spans] = {
    "elliptical": {"bulge": (1, 1), "disc": (0, 0.1), "sersic_index": (2.5, 5), "roundness": (0.45, 1)},
    "spiral": {"arms": (0, 0.5), "clumps": (0, 0.1)},
    "barred": {"arms": (0, 0.45), "clumps": (0, 0.08), "bar": (0.1, 0.3)},
    "edge_on": {"axis_ratio": (0.1, 0.2), "roundness": (0.5, 0.8), "bulge": (0.02, 0.35)},
    "merger": {
        "companion": (0.25, 0.6), "separation": (1.2, 3), "tail": (0.15, 0.45), "arms": (0, 0.2), "clumps": (0, 0.15),
    },
    "ring": {
        "bulge": (0.3, 0.42), "disc": (0.03, 0.15), "ring": (0.5, 0.6), "ring_radius": (1.9, 2.7),
        "axis_ratio": (0.55, 1),
    },
    "one_armed": {
        "bulge": (0.08, 0.2), "disc": (0.25, 0.35), "arms": (0.45, 0.6), "arm_count": (1, 1), "winding": (2.7, 4.5),
        "axis_ratio": (0.55, 1),
    },
    "clumpy_bar": {
        "bulge": (0, 0.15), "disc": (0.35, 0.5), "bar": (0.3, 0.4), "bar_length": (1.1, 1.6), "clumps": (0.26, 0.36),
        "clump_scatter": (3, 3), "clump_count": (9, 17), "arms": (0, 0.08), "axis_ratio": (0.55, 1),
    },
    "shredded": {
        "bulge": (0.05, 0.2), "disc": (0.35, 0.5), "arms": (0.25, 0.35), "clumps": (0.25, 0.35),
        "clump_count": (16, 16), "axis_ratio": (0.6, 1),
    },
    "continuum": {
        "bulge": (0, 1), "disc": (0, 1), "sersic_index": (0.8, 5), "roundness": (0.3, 1), "axis_ratio": (0.15, 1),
        "arms": (0, 0.5), "arm_count": (2, 2), "winding": (-4, 4), "bar": (0, 0.3), "clumps": (0, 0.1),
        "clump_count": (10, 10), "companion": (0, 0.4), "separation": (0.5, 5), "tail": (0, 0.1),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A galaxy's form. Lengths are in scale lengths of its disc, angles in radians.

    Attributes:
        bulge: Share of the galaxy's light in this component, as the next seven; they sum to 1.
        sersic_index: Of the bulge.
        roundness: Axis ratio of the bulge.
        axis_ratio: Of the disc as it is seen.
        position_angle: Of its long axis.
        bar_length: Half the length of the bar.
        bar_angle: Of the bar in the plane of the disc.
        arm_count: Number of spiral arms.
        winding: How far an arm turns while its radius grows e-fold: the cotangent of its pitch angle.
        ring_radius: Of the ring in the plane of the disc.
        clump_count: K.
        clump_scatter: Of the clumps about the arms, along circles; a large one puts them anywhere.
        texture: Seed of the clumps.
        separation: Of the companion.
        companion_angle: Its direction.
    """

    bulge: float = 0.0
    disc: float = 0.0
    bar: float = 0.0
    arms: float = 0.0
    ring: float = 0.0
    clumps: float = 0.0
    companion: float = 0.0
    tail: float = 0.0
    sersic_index: float = 2.0
    roundness: float = 1.0
    axis_ratio: float = 1.0
    position_angle: float = 0.0
    bar_length: float = 1.0
    bar_angle: float = 0.0
    arm_count: int = 2
    winding: float = 3.0
    ring_radius: float = 2.2
    clump_count: int = 10
    clump_scatter: float = 0.2
    texture: int = 0
    separation: float = 2.0
    companion_angle: float = 0.0


@dataclass(frozen=True)
class Appearance:
    """What says nothing about the form.

    Attributes:
        half_light_radius: Arcsec.
        mag_r: Total brightness, magnitudes.
        g_r: Colour, magnitudes.
        r_z: Colour, magnitudes.
    """

    half_light_radius: float
    mag_r: float
    g_r: float
    r_z: float


def draw_appearance(red: bool, rng: np.random.Generator) -> Appearance:
    """Size, brightness and colour, from the same densities for every kind, but that ellipticals are redder."""
    mag = rng.triangular(15.5, 17.3, 18.3)
    radius = 3.4 * math.exp(-0.12 * (mag - 17) + rng.normal(0, 0.2))
    g_r = rng.normal(0.8 if red else 0.62, 0.08)
    return Appearance(float(np.clip(radius, 2.2, 6.0)), mag, g_r, 0.65 * g_r + rng.normal(0, 0.04))


def draw_shape(kind: str, rng: np.random.Generator) -> Shape:
    """The form of a galaxy.

    Args:
        kind: A key of `DENSITIES`.
        rng: Of every number.
    """
    drawn: dict[str, Any] = {name: rng.uniform(*span) for name, span in (COMMON | DENSITIES[kind]).items()}
    drawn["winding"] *= rng.choice([-1, 1])
    drawn |= {name: int(drawn[name]) for name in ("arm_count", "clump_count", "texture")}
    components = [name for name in COLOURS if name in drawn]
    total = sum(drawn[name] for name in components)
    return Shape(**drawn | {name: drawn[name] / total for name in components})


def light(shape: Shape, appearance: Appearance, x: Array, y: Array) -> Array:
    """Surface brightness of a galaxy before it is observed.

    Args:
        shape: Its form.
        appearance: Its size, brightness and colour; of the widest halos some light is beyond what is measured.
        x: `(1, W)` arcsec from its centre, to the right.
        y: `(H, 1)` arcsec from its centre, up.

    Returns:
        `(3, H, W)` in the bands z, r, g, nanomaggies per square arcsecond.
    """
    scale, totals = _measure(shape, appearance.half_light_radius)
    shares = {name: getattr(shape, name) * np.array(COLOURS[name]) for name in totals}
    magnitudes = appearance.mag_r + np.array([-appearance.r_z, 0, appearance.g_r])
    fluxes = 10 ** (-0.4 * (magnitudes - 22.5)) / np.sum(list(shares.values()), axis=0)
    brightness = np.zeros((3, y.size, x.size))
    for name, part in _components(shape, x / scale, y / scale).items():
        brightness += (fluxes * shares[name] / (totals[name] * scale**2))[:, None, None] * part
    return brightness


def clump_places(shape: Shape, half_light_radius: float) -> Array:
    """Where the clumps of a galaxy are, `(K, 2)` arcsec to the right and up from its centre."""
    return _clumps(shape) * _measure(shape, half_light_radius)[0]


def _measure(shape: Shape, half_light_radius: float) -> tuple[float, dict[str, float]]:
    """Arcsec of a scale length, so that half of all light is within a radius; the sum of each component's profile."""
    line = offsets(72, 16)
    x, y, area = line[None], line[:, None], (line[1] - line[0]) ** 2
    parts = _components(shape, x, y)
    totals = {name: float(part.sum() * area) for name, part in parts.items()}
    seen = np.sum([getattr(shape, name) / totals[name] * area * part for name, part in parts.items()], axis=0)
    radius = np.hypot(x - (seen * x).sum(), y - (seen * y).sum()).ravel()
    order = radius.argsort()
    within = seen.ravel()[order].cumsum()
    return half_light_radius / float(np.interp(0.5, within, radius[order])), totals


def _components(shape: Shape, x: Array, y: Array) -> dict[str, Array]:
    """Profiles of the components that have light, not normalised."""
    u, v = turned(x, y, shape.position_angle, shape.axis_ratio)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    parts: dict[str, Array] = {}
    if shape.bulge:
        along, across = turned(x, y, shape.position_angle, shape.roundness)
        size = 0.5 + shape.bulge**4  # three times as large where it is all there is
        parts["bulge"] = sersic(np.hypot(along, across) / size, shape.sersic_index)
    if shape.disc:
        parts["disc"] = np.exp(-radius)
    if shape.bar:
        along, across = (line / shape.bar_length for line in turned(u, v, shape.bar_angle))
        parts["bar"] = np.exp(-((along**2) ** 2) - (across / 0.22) ** 2)
    if shape.arms:
        inner = 0.8 * shape.bar_length if shape.bar else 0.5
        arms = logarithmic_arms(radius, angle - shape.bar_angle, shape.arm_count, shape.winding, inner)
        parts["arms"] = arms * np.exp(-radius / 1.3)
    if shape.ring:
        parts["ring"] = ring(radius / shape.ring_radius) * (1 + 0.4 * np.cos(angle - shape.companion_angle))
    if shape.clumps:
        rng = np.random.default_rng([shape.texture, 1])
        sizes, fluxes = rng.uniform(0.08, 0.2, shape.clump_count), 0.4 + rng.exponential(0.8, shape.clump_count)
        parts["clumps"] = spots(x, y, _clumps(shape), sizes, fluxes)
    if shape.companion:
        right, up = (shape.separation * part(shape.companion_angle) for part in (math.cos, math.sin))
        along, across = turned(x - right, y - up, 2 * shape.companion_angle, 0.65)
        parts["companion"] = sersic(np.hypot(along, across) / 0.7, 1.5)
    if shape.tail:
        tails = logarithmic_arms(radius, angle - shape.companion_angle, 2, shape.winding / 3, 1.0)
        parts["tail"] = tails * np.exp(-radius / 1.8) * (1 + 0.8 * np.cos(angle - shape.companion_angle))
    return parts


def _clumps(shape: Shape) -> Array:
    """Places of the clumps along the arms, `(K, 2)` scale lengths on the sky."""
    rng = np.random.default_rng([shape.texture, 0])
    radius = 0.4 + 2.6 * rng.random(shape.clump_count) ** 1.8
    arm = rng.integers(shape.arm_count, size=shape.clump_count) * 2 * math.pi / shape.arm_count
    ridge = shape.bar_angle + shape.winding * np.log(radius) + arm
    angle = ridge + shape.clump_scatter * rng.normal(size=shape.clump_count)
    along, across = radius * np.cos(angle), radius * np.sin(angle) * shape.axis_ratio
    right, up = turned(along, across, -shape.position_angle)
    return np.stack([right, up], 1)
