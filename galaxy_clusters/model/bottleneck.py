"""A narrow representation on top of any encoder (section 3).

Shapes: B galaxies, D features of the encoder, d of the bottleneck.
"""

import torch
from torch import Tensor, nn

from shared.backbones import out_dim


class Bottleneck(nn.Module):
    """An encoder whose features pass through a layer of `dim` numbers, which become the representation.

    The paper says only that the networks are retrained with a representation of 128 numbers; a linear layer and layer
    normalisation are our choice, so that no direction is longer than another for its scale alone.

    Args:
        encoder: `(B, C, S, S) -> (B, encoder.out_dim)`, an `ImageEncoder` with pre-trained weights, say.
        dim: d (section 3: 128); 0 keeps the encoder's own features, for comparison.
        zoom: By how much images as they are stored (uint8) are enlarged about their centre. Augmented images (float)
            are not: their crops are the zoom in training. Zoobot trains at 1.2 to 1.4 and predicts at 1.2.

    Raises:
        ValueError: `zoom` is below 1.

    Attributes:
        out_dim: d.
        frozen: Whether the encoder below is left as it is: in eval mode, and without a gradient.

    Example:
        >>> from shared.backbones import ImageEncoder
        >>> net = Bottleneck(ImageEncoder("resnet18", layers=[1, 1, 1, 1], channels=[8, 8, 16, 16]), dim=4)
        >>> net(torch.rand(2, 3, 32, 32)).shape, net.out_dim
        (torch.Size([2, 4]), 4)
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, zoom: float = 1.2) -> None:
        super().__init__()
        if zoom < 1:
            raise ValueError(f"zoom must be at least 1, got {zoom}")
        self.zoom = zoom
        self.encoder = encoder
        self.out_dim = dim or out_dim(encoder)
        self.project: nn.Module = nn.Identity()
        if dim:
            self.project = nn.Sequential(nn.Linear(out_dim(encoder), dim), nn.LayerNorm(dim))
        self.frozen = False

    def train(self, mode: bool = True) -> "Bottleneck":
        """As `nn.Module.train`; an encoder that is frozen stays in eval mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, S, S) -> (B, d)`."""
        found: Tensor = self.project(self.wide(images))
        return found

    def wide(self, images: Tensor) -> Tensor:
        """The encoder's own features `(B, encoder.out_dim)`, of the images as `forward` shows them to it."""
        if images.dtype == torch.uint8 and self.zoom > 1:
            shown = round(images.shape[-1] / self.zoom)
            start = (images.shape[-1] - shown) // 2
            images = images[..., start : start + shown, start : start + shown]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Tensor = self.encoder(images)
        return features
