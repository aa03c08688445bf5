"""Conv-4, the encoder of the paper's table and of most of the few-shot literature.

Shapes: B images, C channels, S x S pixels, D features.
"""

import torch
from torch import Tensor, nn

from shared.backbones.images import IMAGENET_MEAN, IMAGENET_STD

BLOCKS = 4


class Conv4(nn.Module):
    """Four blocks of 3 x 3 convolution, batch norm, ReLU and 2 x 2 max-pooling: `(B, 3, S, S) -> (B, D)`.

    Args:
        image_px: S.
        width: Channels of every block; 64 in Vinyals et al. (2016) and Chen et al. (2019), 32 in Finn et al. (2017).
        pooled: Number of blocks, from the first, that are pooled; Relation Networks need a larger map: 2, unpadded.
        flatten: Whether the features are a vector, or a map `(B, width, s, s)` as `map_shape` says.

    Attributes:
        out_dim: D: `width * s * s`, for 84 pixels and width 64 as published 1,600.
        map_shape: `(width, s, s)`.

    Raises:
        ValueError: The images are too small for so many pools.

    Example:
        >>> encoder = Conv4(image_px=84, width=64)
        >>> encoder.out_dim, encoder(torch.zeros(2, 3, 84, 84, dtype=torch.uint8)).shape
        (1600, torch.Size([2, 1600]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_px: int = 84, width: int = 64, pooled: int = BLOCKS, flatten: bool = True) -> None:
        super().__init__()
        side = image_px >> pooled
        if side < 1:
            raise ValueError(f"images of {image_px} pixels are too small for {pooled} pools; at least {1 << pooled}")
        blocks: list[nn.Module] = []
        for block in range(BLOCKS):
            blocks += [nn.Conv2d(width if block else 3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)] if block < pooled else []
        self.blocks = nn.Sequential(*blocks)
        self.flatten = flatten
        self.image_px = image_px
        self.map_shape = (width, side, side)
        self.out_dim = width * side * side
        # For every data set: a network must not know the statistics of the target's images.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of uint8 images, or of float images in [0, 1]."""
        x = x / 255 if x.dtype == torch.uint8 else x
        features: Tensor = self.blocks((x - self.mean) / self.std)
        return features.flatten(1) if self.flatten else features
