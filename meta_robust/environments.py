"""Environments: changes of how images look, not of what they show, one for all images of a task's side.

The paper never says what an environment is (section III-A). These are the photometric ones; `module.RML` says which two
are drawn for an update.

Shapes: B images, S x S pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.augment.images import blur_matrix

GREY = (0.299, 0.587, 0.114)  # luma
COLOUR_KINDS = ("identity", "greyscale", "hue", "channels", "low_pass", "contrast")
GREY_KINDS = ("identity", "invert", "low_pass", "contrast")


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """As they are."""
    return images


def greyscale(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every pixel's luma."""
    weights = images.new_tensor(GREY).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def hue(images: Tensor, generator: torch.Generator) -> Tensor:
    """Colours turned about the grey axis by an angle from U(60, 300) degrees."""
    angle = torch.deg2rad(_uniform(60, 300, generator))
    third, root = 1 / 3, (1 / 3) ** 0.5
    cos, sin = angle.cos(), angle.sin()
    same, next_, last = cos + third * (1 - cos), third * (1 - cos) - root * sin, third * (1 - cos) + root * sin
    matrix = torch.stack([same, next_, last, last, same, next_, next_, last, same]).view(3, 3).to(images)
    return torch.einsum("ij,bjhw->bihw", matrix, images).clamp(0, 1)


def channels(images: Tensor, generator: torch.Generator) -> Tensor:
    """Channels exchanged at random, and each inverted with probability 1/2; never all as they are."""
    while True:
        order, inverted = torch.randperm(3, generator=generator), torch.rand(3, generator=generator) < 0.5
        if inverted.any() or not torch.equal(order, torch.arange(3)):
            break
    exchanged = images[:, order.to(images.device)]
    return torch.where(inverted.to(images.device).view(3, 1, 1), 1 - exchanged, exchanged)


def invert(images: Tensor, generator: torch.Generator) -> Tensor:
    """White is black, and black white."""
    return 1 - images


def low_pass(images: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian blur with a standard deviation from U(2 %, 5 %) of the side."""
    side = images.shape[-1]
    sigma = side * _uniform(0.02, 0.05, generator)
    matrix = blur_matrix(sigma[None], side, 2 * (side // 4) + 1)[0].to(images)
    return matrix @ images @ matrix.mT


def contrast(images: Tensor, generator: torch.Generator) -> Tensor:
    """Contrast about the mean of each image, times a factor from U(0.2, 0.5)."""
    centre = images.mean((1, 2, 3), keepdim=True)
    return centre + _uniform(0.2, 0.5, generator).to(images) * (images - centre)


def _uniform(low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((), generator=generator)


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    function.__name__: function for function in (identity, greyscale, hue, channels, invert, low_pass, contrast)
}


def check_kinds(kinds: Sequence[str], count: int) -> None:
    """Check a list of environments.

    Raises:
        ValueError: One is not known, one occurs twice, or there are fewer than `count`.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"no environment {unknown[0]!r}; there are: {', '.join(KINDS)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"an environment occurs twice in {', '.join(kinds)}: these two would be alike")
    if not 1 <= count <= len(kinds):
        raise ValueError(f"{count} environments cannot be drawn from {len(kinds)} kinds ({', '.join(kinds)})")


def draw_kinds(kinds: Sequence[str], count: int, update_seed: int) -> list[str]:
    """The kinds of an update's environments, without repetition: the same for all of its tasks."""
    order = torch.randperm(len(kinds), generator=seeded(update_seed))[:count]
    return [kinds[place] for place in order.tolist()]


def change(images: Tensor, kind: str, seed: int) -> Tensor:
    """Images as they look in an environment: one drawn change for all of them.

    Args:
        images: `(B, 3, S, S)` float32 in [0, 1].
        kind: A key of `KINDS`.
        seed: Of its strength.

    Returns:
        `(B, 3, S, S)` float32 in [0, 1].
    """
    return KINDS[kind](images, seeded(seed))


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU, so that a GPU draws the same."""
    return torch.Generator().manual_seed(seed)
