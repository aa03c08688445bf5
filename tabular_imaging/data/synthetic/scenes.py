"""Photographs of the SYNTHETIC vehicles: a viewpoint, a place, the light and a camera, all of them random.

Nothing here depends on the vehicle's model, so all of it is nuisance: a method that distinguishes pictures by place,
light or framing learns nothing about the vehicle.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tabular_imaging.data.synthetic.vehicles import BODIES, COLOURS, Vehicle, View, footprint, paint_vehicle

Canvas = Image.Image
RGB = tuple[int, int, int]

MUTED = 0.4  # contrast of a place: with a busier background a small network would need more pictures
YAWS = ((-8.0, 8.0, 0.80), (14.0, 28.0, 0.10), (-28.0, -14.0, 0.10))  # side, front and rear views: degrees, share


def draw_view(vehicle: Vehicle, rng: np.random.Generator, px: int) -> View:
    """A viewpoint: side or three-quarter, with 4.9 to 5.7 m across the picture, or more for a longer vehicle."""
    low, high, _ = YAWS[rng.choice(len(YAWS), p=[share for *_, share in YAWS])]
    field = max(rng.uniform(4900, 5700), 1.12 * vehicle.length)  # mm across the picture
    return View(
        yaw=rng.uniform(low, high),
        pitch=rng.uniform(2, 9),
        scale=px / field,
        shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.02, 0.08)),
        faces_right=bool(rng.random() < 0.5),
        light=(rng.uniform(-0.8, 0.8), rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.9)),
        ambient=rng.uniform(0.45, 0.70),
    )


def _hue(rng: np.random.Generator, base: RGB, spread: int = 16) -> RGB:
    red, green, blue = np.clip(np.array(base) + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def _fade(px: int, top: RGB, bottom: RGB, start: int, end: int, canvas: Canvas) -> None:
    """Let the rows from `start` to `end` fade from one colour to another."""
    steps = np.linspace(0, 1, max(end - start, 1))[:, None]
    column = (np.array(top) * (1 - steps) + np.array(bottom) * steps).astype(np.uint8)
    canvas.paste(Image.fromarray(column[:, None]).resize((px, len(column))), (0, start))


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator, px: int, horizon: int) -> None:
    left = -int(rng.integers(0, px // 4))
    while left < px:
        width, height = rng.integers((px // 6, px // 5), px // 2).tolist()
        wall = _hue(rng, ((150, 112, 92), (186, 176, 160), (128, 128, 134), (170, 138, 104))[rng.integers(4)])
        draw.rectangle((left, horizon - height, left + width, horizon), fill=wall)
        dark = _hue(rng, (62, 70, 80))
        pitch, pane = int(rng.integers(px // 14, px // 8)), max(int(rng.integers(px // 34, px // 18)), 1)
        for x in range(left + pane, left + width - pane, pitch):
            for y in range(horizon - height + pane, horizon - pane, pitch):
                draw.rectangle((x, y, x + pane, y + int(pane * 1.3)), fill=dark)
        left += width + int(rng.integers(0, px // 12))
    draw.rectangle((0, horizon, px, horizon + px // 26), fill=_hue(rng, (164, 160, 154)))


def _trees(draw: ImageDraw.ImageDraw, rng: np.random.Generator, px: int, horizon: int) -> None:
    x = np.linspace(0, px, 24)
    for layer in range(2):
        hills = horizon - px * 0.05 * (2 - layer) * (1 + np.sin(x / px * rng.uniform(3, 9) + rng.uniform(0, 6)))
        draw.polygon([(0, px), *zip(x, hills, strict=True), (px, px)], fill=_hue(rng, (86 + 20 * layer, 112, 78)))
    for _ in range(rng.integers(2, 10)):
        x0, size = rng.uniform(0, px), rng.uniform(0.08, 0.22) * px
        green = _hue(rng, (58, 92, 48))
        draw.rectangle((x0 - size * 0.06, horizon - size * 0.5, x0 + size * 0.06, horizon), fill=(72, 56, 44))
        for _ in range(4):
            cx, cy = x0 + rng.normal(0, 0.2) * size, horizon - size * rng.uniform(0.6, 1.1)
            draw.ellipse((cx - size * 0.32, cy - size * 0.3, cx + size * 0.32, cy + size * 0.3), fill=green)


def _wall(draw: ImageDraw.ImageDraw, rng: np.random.Generator, px: int, horizon: int) -> None:
    brick, course = (
        _hue(rng, ((148, 84, 66), (176, 172, 166), (112, 112, 116))[rng.integers(3)]),
        max(px // int(rng.integers(24, 40)), 1),
    )
    joint = _hue(rng, (120, 112, 104))
    draw.rectangle((0, 0, px, horizon), fill=brick)
    for row, y in enumerate(range(0, horizon, course)):
        draw.line((0, y, px, y), fill=joint)
        for x in range(-(row % 2) * course, px, 2 * course):
            draw.line((x, y, x, y + course), fill=joint)
    if rng.random() < 0.6:
        x0, width = rng.uniform(0, 0.7) * px, rng.uniform(0.2, 0.5) * px
        draw.rectangle((x0, horizon - 0.42 * px, x0 + width, horizon), fill=_hue(rng, (96, 102, 112), 60))


def _hall(draw: ImageDraw.ImageDraw, rng: np.random.Generator, px: int, horizon: int) -> None:
    for x in np.arange(rng.uniform(0, 0.2), 1, rng.uniform(0.15, 0.4)):
        draw.line((x * px, 0, x * px, horizon), fill=_hue(rng, (140, 144, 150)), width=max(px // 100, 1))
    for _ in range(rng.integers(1, 4)):
        x0, y0 = rng.uniform(0, 0.8) * px, rng.uniform(0.05, 0.25) * px
        poster = (x0, y0, x0 + rng.uniform(0.12, 0.3) * px, y0 + rng.uniform(0.08, 0.18) * px)
        draw.rectangle(poster, fill=_hue(rng, (130, 110, 120), 110))


PLACES = (  # sky top, sky bottom, ground far, ground near, what stands on the horizon
    ((120, 160, 206), (200, 214, 226), (110, 110, 112), (78, 78, 82), _street),
    ((128, 170, 214), (214, 222, 222), (122, 140, 84), (96, 112, 62), _trees),
    ((170, 172, 176), (150, 150, 150), (150, 148, 144), (118, 116, 112), _wall),
    ((206, 208, 212), (226, 226, 226), (176, 176, 178), (132, 132, 136), _hall),
    ((74, 66, 110), (238, 160, 104), (92, 84, 88), (58, 54, 60), _street),
    ((150, 158, 166), (188, 192, 196), (94, 96, 98), (70, 72, 74), _trees),
)


def _place(rng: np.random.Generator, px: int, ground: float) -> Canvas:
    """A picture of a place without the vehicle, which is to stand `ground` px below the top."""
    canvas = Image.new("RGB", (px, px))
    sky, haze, far, near, build = PLACES[rng.integers(len(PLACES))]
    horizon = int(ground - px * rng.uniform(0.06, 0.22))
    _fade(px, _hue(rng, sky), _hue(rng, haze), 0, horizon, canvas)
    _fade(px, _hue(rng, far), _hue(rng, near), horizon, px, canvas)
    draw = ImageDraw.Draw(canvas)
    build(draw, rng, px, horizon)
    _fade(px, _hue(rng, far), _hue(rng, near), horizon + px // 26, px, canvas)
    if rng.random() < 0.4:  # a painted line on the ground
        y = rng.uniform(horizon + 0.1 * px, px)
        draw.line(
            (0, y, px, y + rng.uniform(-0.15, 0.15) * px), fill=_hue(rng, (214, 210, 190)), width=max(px // 60, 1)
        )
    for _ in range(rng.integers(0, 3)):  # posts
        x, top = rng.uniform(0, px), rng.uniform(0, 0.4) * px
        draw.line(
            (x, top, x, horizon + 0.05 * px),
            fill=_hue(rng, (70, 72, 76)),
            width=max(px // int(rng.integers(40, 110)), 1),
        )
    for _ in range(rng.choice(3, p=[0.75, 0.2, 0.05])):  # vehicles parked in the background
        bodies, colours = list(BODIES), list(COLOURS)
        size = (rng.uniform(3900, 4900), rng.uniform(1400, 1750), 1800, 2650)
        other = Vehicle(bodies[rng.integers(len(bodies))], *size, colours[rng.integers(len(colours))])
        low = horizon + rng.uniform(0.02, 0.05) * px
        scale = px / rng.uniform(11_000, 16_000)
        shift = (rng.uniform(-0.5, 0.5), low / px - 0.5 - size[1] / 2 * scale / px)
        parked = View(rng.uniform(-30, 30), 3, scale, shift, bool(rng.random() < 0.5))
        layer = paint_vehicle(other, parked, px, zoom=1)
        canvas.paste(layer, (0, 0), layer)
    texture = rng.normal(0, rng.uniform(1, 7), (px, px, 1)) * np.linspace(0.3, 1, px)[:, None, None]
    scene = np.asarray(canvas, np.float32)
    mean = scene.mean((0, 1))
    pixels = np.clip(mean + MUTED * (scene - mean) + texture, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2.0) * px / 200))


def _camera(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply exposure, contrast, white balance, fall-off towards the corners and noise."""
    px = len(picture)
    picture = (picture - 128) * rng.uniform(0.82, 1.12) + 128 * rng.uniform(0.80, 1.16)
    picture *= 1 + rng.uniform(-0.07, 0.07, 3).astype(np.float32)
    away = np.linspace(-1, 1, px, dtype=np.float32) ** 2
    picture *= (1 - rng.uniform(0, 0.22) * (away[:, None] + away) / 2)[..., None]
    picture += np.float32(rng.uniform(1, 7)) * rng.standard_normal(picture.shape, np.float32)
    return picture.clip(0, 255).astype(np.uint8)


def photograph(vehicle: Vehicle, rng: np.random.Generator, px: int) -> tuple[Canvas, View]:
    """A picture of a vehicle from a random viewpoint at a random place, and that viewpoint.

    Args:
        vehicle: The vehicle that is photographed.
        rng: Random generator that everything else is drawn from.
        px: Side of the square picture in pixels.

    Returns:
        The picture in RGB, `(px, px)`, and the view.
    """
    view = draw_view(vehicle, rng, px)
    shadow = footprint(vehicle, view, px)
    canvas = _place(rng, px, float(shadow[:, 1].mean()))
    mask = Image.new("L", (px, px))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in shadow], fill=int(rng.uniform(110, 210)))
    canvas.paste((12, 12, 16), (0, 0), mask.filter(ImageFilter.GaussianBlur(px * rng.uniform(0.006, 0.02))))
    layer = paint_vehicle(vehicle, view, px).resize((px, px), Image.Resampling.BOX)
    canvas.paste(layer, (0, 0), layer)
    if rng.random() < 0.3:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0) * px / 200))
    return Image.fromarray(_camera(np.asarray(canvas, np.float32), rng)), view
