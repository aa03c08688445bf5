"""The two forms of an image: uint8 as it is stored, and float32 in [-1, 1], the range of the prior."""

import torch
from torch import Tensor, nn


def to_float(image: Tensor) -> Tensor:
    """Uint8 images `(..., 3, H, W)` as float32 in [-1, 1].

    Example:
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return image.float() / 127.5 - 1


def training_images(image: Tensor, augment: nn.Module | None) -> Tensor:
    """Uint8 images in [-1, 1], each changed on its own where there is an augmentation, which gives floats in [0, 1]."""
    return to_float(image) if augment is None else augment(image) * 2 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Images in [-1, 1] as the nearest uint8; values outside are clipped, as a file of a picture must.

    Example:
        >>> to_uint8(torch.tensor([-1.2, 0.0, 1.0]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
