"""AlexNet's convolutions (Krizhevsky 2014), which timm does not have.

Shapes: B batch, S x S pixels.
"""

import torch
from torch import Tensor, nn

from shared.augment import resize
from shared.backbones.images import IMAGENET_MEAN, IMAGENET_STD
from shared.backbones.weights import load_weights


class AlexNet(nn.Module):
    """The convolutions of torchvision's AlexNet, under its names: `(B, 3, H, W) -> (B, D)`, flattened.

    Args:
        image_px: S, to which uint8 images are resized.
        weights: File of weights (`features.0.weight`, ...), see `load_weights`; None leaves them random.

    Attributes:
        out_dim: D: 1,024 for 96 pixels.

    Raises:
        ValueError: The images are smaller than 63 pixels; or see `load_weights`.

    Example:
        >>> encoder = AlexNet(image_px=96)
        >>> encoder.out_dim, encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        (1024, torch.Size([2, 1024]))
    """

    machine_arguments = ("weights",)  # a checkpoint holds them itself
    mean: Tensor
    std: Tensor

    def __init__(self, image_px: int = 96, weights: str | None = None) -> None:
        super().__init__()
        if image_px < 63:
            raise ValueError(f"AlexNet needs images of at least 63 pixels, got {image_px}")
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.image_px = image_px
        if weights is not None:
            load_weights(self, weights)
        with torch.no_grad():
            self.out_dim = self(torch.zeros(1, 3, image_px, image_px)).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Features of uint8 images of any size, or of float images in [0, 1], taken as they are."""
        if x.dtype == torch.uint8:
            x = resize(x, self.image_px)
        features: Tensor = self.features((x - self.mean) / self.std).flatten(1)
        return features
