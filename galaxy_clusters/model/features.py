"""Numbers that describe a galaxy's image without any training: the baseline beside every learned representation.

They do not change when the image is turned by a quarter or mirrored, and not when all of it becomes brighter by the
same amount, since the sky's level is taken from the border. The galaxy is expected in the centre.

Shapes: B images of C channels, S x S pixels; P = S * S; R rings around the centre; F numbers.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.augment.images import blur_matrix

RINGS = 8  # of equal width, out to the nearest border
ORDERS = (1, 2, 3, 4, 5, 6)  # of the azimuthal Fourier amplitudes
SHARES = (0.2, 0.5, 0.8)  # of the light, whose radii are found
APERTURES = (1.0, 2.0)  # standard deviations of the windows of the inner moments, in half-light radii
SOFT = 0.05  # brightness, of 1, up to which the scale is about linear
BATCH = 128  # images at a time, which bounds the memory
EPS = 1e-6


def feature_names(channels: int = 3) -> list[str]:
    """`(F,)`: what the numbers of `image_features` are; F is 104 for three channels."""
    rings = range(1, RINGS + 1)
    return [
        *(f"ring_{ring}_channel_{channel}" for channel in range(1, channels + 1) for ring in rings),
        *(f"ring_{ring}_fourier_{order}" for ring in rings for order in ORDERS),
        *(f"ring_{ring}_spread" for ring in rings),
        *(f"ring_{ring}_maximum" for ring in rings),
        *(f"asymmetry_channel_{channel}" for channel in range(1, channels + 1)),
        *(f"radius_{share:.0%}" for share in SHARES),
        "concentration",
        "gini",
        "m20",
        "size",
        "offset",
        "elongation",
        *(f"{name}_within_{aperture:g}" for aperture in APERTURES for name in ("offset", "elongation")),
    ]


def image_features(images: Tensor) -> Tensor:
    """Describe images by the numbers that `feature_names` names.

    Rings: the mean brightness in each ring by channel, the Fourier amplitudes |a_m| of brightness around it, its
    standard deviation and its maximum after a slight blur; all on a scale of asinh. Of the whole: 180-degree asymmetry,
    concentration C (Conselice 2003), Gini coefficient and M20 (Lotz et al. 2004), second moments.

    Args:
        images: `(B, C, S, S)` uint8, S at least 16.

    Returns:
        `(B, F)` float32, finite for any image.
    """
    return torch.cat([_features(part) for part in images.split(BATCH)]).float()


class _Grid(NamedTuple):
    """Where pixels lie, from the centre; symmetric to the last bit, or a quarter turn would move pixels between rings.

    Attributes:
        x, y: `(P,)` pixels.
        radii: Distances that occur, in pixels, ascending, up to the nearest border.
        at: `(P,)` place of each pixel in `radii`; the last place but one beyond the border.
        rings: `(P, R)`, 1 where a pixel is in a ring.
        waves: `(P, 2 M)` cosines and sines around the centre.
        border: `(P,)`, whether a pixel shows sky.
    """

    x: Tensor
    y: Tensor
    radii: Tensor
    at: Tensor
    rings: Tensor
    waves: Tensor
    border: Tensor


@lru_cache(maxsize=8)
def _grid(side: int, device: torch.device) -> _Grid:
    line = 2 * torch.arange(side, device=device) - (side - 1)  # twice the distance, a whole number
    y, x = (part.flatten() for part in torch.meshgrid(line, line, indexing="ij"))
    squares, at = torch.unique(x**2 + y**2, return_inverse=True)
    inside = int((squares <= side**2).sum())
    ring = (squares[at].double().sqrt() / side * RINGS).long()
    angle = torch.atan2(y.double(), x.double())[:, None] * torch.tensor(ORDERS, device=device)
    edge = max(side // 16, 1)
    border = torch.maximum(x.abs(), y.abs()) > side - 1 - 2 * edge
    return _Grid(
        x.double() / 2,
        y.double() / 2,
        squares[:inside].double().sqrt() / 2,
        at.clamp(max=inside),
        F.one_hot(ring.clamp(max=RINGS), RINGS + 1)[:, :RINGS].double(),
        torch.cat([angle.cos(), angle.sin()], 1) * (x**2 + y**2 > 0)[:, None],  # the middle pixel has no direction
        border,
    )


def _features(images: Tensor) -> Tensor:
    """`(B, F)` float64 of one batch."""
    grid = _grid(images.shape[-1], images.device)
    pixels = images.flatten(2).double() / 255
    pixels = pixels - pixels[..., grid.border].median(-1, keepdim=True).values
    grey = pixels.mean(1)
    light = grey.clamp(min=0) * (grid.at < len(grid.radii))
    radii = _growth(light, grid)
    half = radii[:, 1:2].clamp(min=1.0)
    side = images.shape[-1]
    return torch.cat(
        [
            *_ring_numbers(pixels, grey, grid),
            _asymmetry(pixels),
            radii / side,
            5 * torch.log10(radii[:, 2:] / radii[:, :1].clamp(min=0.5)),  # concentration
            _gini(light[:, grid.at < len(grid.radii)]),
            _m20(light, grid),
            *_moments(light, grid, side),
            *(number for aperture in APERTURES for number in _inner_moments(light, grid, aperture * half)),
        ],
        dim=1,
    )


def _soft(values: Tensor) -> Tensor:
    return torch.asinh(values / SOFT)


def _ring_numbers(pixels: Tensor, grey: Tensor, grid: _Grid) -> list[Tensor]:
    """`(B, C R)` means, `(B, R M)` Fourier amplitudes, `(B, R)` standard deviations and `(B, R)` maxima."""
    count = grid.rings.sum(0)
    by_channel = pixels @ grid.rings / count
    mean = grey @ grid.rings / count
    spread = (grey**2 @ grid.rings / count - mean**2).clamp(min=0).sqrt()
    waves = (grid.rings[:, :, None] * grid.waves[:, None]).flatten(1)
    cosine, sine = (grey @ waves).unflatten(1, (RINGS, 2, len(ORDERS))).unbind(2)
    amplitude = torch.hypot(cosine, sine) / count[:, None]
    blurred = _blurred(grey)
    maxima = [blurred[:, ring > 0].amax(1) for ring in grid.rings.unbind(1)]
    return [_soft(part).flatten(1) for part in (by_channel, amplitude, spread, torch.stack(maxima, 1))]


def _blurred(grey: Tensor) -> Tensor:
    """`(B, P)` after a Gaussian blur of one pixel."""
    side = round(grey.shape[1] ** 0.5)
    blur = blur_matrix(torch.ones(1, device=grey.device), side, 5)[0].double()
    blurred: Tensor = blur @ grey.view(-1, side, side) @ blur.mT
    return blurred.flatten(1)


def _asymmetry(pixels: Tensor) -> Tensor:
    """`(B, C)`: how much an image differs from itself turned by 180 degrees, as a share of its light."""
    return (pixels - pixels.flip(-1)).abs().sum(-1) / pixels.abs().sum(-1).clamp(min=1)


def _growth(light: Tensor, grid: _Grid) -> Tensor:
    """`(B, 3)`: the radii in pixels that hold the `SHARES` of the light, interpolated between pixels' radii."""
    profile = light.new_zeros(len(light), len(grid.radii) + 1).index_add_(1, grid.at, light)[:, :-1]
    curve = profile.cumsum(1)
    curve = curve / curve[:, -1:].clamp(min=EPS)
    found = []
    for share in SHARES:
        outer = (curve >= share).double().argmax(1, keepdim=True).clamp(min=1)
        low, high = curve.gather(1, outer - 1), curve.gather(1, outer)
        part = ((share - low) / (high - low).clamp(min=EPS)).clamp(0, 1)
        found.append(grid.radii[outer - 1].lerp(grid.radii[outer], part))
    return torch.cat(found, 1)


def _gini(light: Tensor) -> Tensor:
    """`(B, 1)`: 0 where all pixels are equally bright, 1 where one has all the light."""
    count = light.shape[1]
    rank = 2 * torch.arange(1, count + 1, device=light.device) - count - 1
    scale = (count - 1) * light.sum(1, keepdim=True)
    return (rank * light.sort(1).values).sum(1, keepdim=True) / scale.clamp(min=EPS)


def _m20(light: Tensor, grid: _Grid) -> Tensor:
    """`(B, 1)`: log10 of the share of the second moment that the brightest pixels with 20% of the light have."""
    x, y, _ = _centroid(light, grid)
    moment = light * ((grid.x - x) ** 2 + (grid.y - y) ** 2)
    brightest = light.sort(1, descending=True).values
    sums = brightest.cumsum(1)  # in an order that no turn changes, not even in the last bit
    last = (sums - brightest < 0.2 * sums[:, -1:]).sum(1, keepdim=True).clamp(min=1) - 1
    bright = light >= brightest.gather(1, last)  # pixels as bright as the last are in, wherever they lie
    return torch.log10(((moment * bright).sum(1) / moment.sum(1).clamp(min=EPS)).clamp(min=1e-4))[:, None]


def _moments(light: Tensor, grid: _Grid, side: int) -> list[Tensor]:
    """Three of `(B, 1)`: the root mean square radius, how far the centroid is off, and the elongation, in [0, 1]."""
    x, y, total = _centroid(light, grid)
    xx, yy, xy = _second(light, grid.x - x, grid.y - y, total)
    return [(xx + yy).sqrt() / side, torch.hypot(x, y) / side, _elongation(xx, yy, xy)]


def _inner_moments(light: Tensor, grid: _Grid, width: Tensor) -> list[Tensor]:
    """Two of `(B, 1)`: offset in units of the width, and elongation, seen through a Gaussian window on the centre."""
    seen = light * torch.exp(-(grid.x**2 + grid.y**2) / (2 * width**2))
    x, y, total = _centroid(seen, grid)
    return [torch.hypot(x, y) / width, _elongation(*_second(seen, grid.x, grid.y, total))]


def _centroid(light: Tensor, grid: _Grid) -> tuple[Tensor, Tensor, Tensor]:
    total = light.sum(1, keepdim=True).clamp(min=EPS)
    return (light @ grid.x)[:, None] / total, (light @ grid.y)[:, None] / total, total


def _second(light: Tensor, x: Tensor, y: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    xx, yy, xy = ((light * product).sum(1, keepdim=True) / total for product in (x * x, y * y, x * y))
    return xx, yy, xy


def _elongation(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """(a^2 - b^2) / (a^2 + b^2) of the axes a and b: 0 for a circle, 1 for a line."""
    return torch.hypot(xx - yy, 2 * xy) / (xx + yy).clamp(min=EPS)
