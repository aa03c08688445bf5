"""Whether a picture is like those that a model was trained on: otherwise a prior invents what it knows into it.

Shapes: B images, T training images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE_PX = 8
USUAL = 0.95  # share of validation images that count as alike


def coarse(image: Tensor) -> Tensor:
    """The coarse part of uint8 images: 8 x 8 pixels in [0, 1], flat, `(B, 192)`."""
    return F.adaptive_avg_pool2d(image.float() / 255, COARSE_PX).flatten(1)


@dataclass(frozen=True)
class Familiarity:
    """What a model knows.

    Attributes:
        known: `(T, 192)`, the coarse parts of training images.
        limit: Distance to the nearest of them within which most validation images are.
    """

    known: Tensor
    limit: float

    @staticmethod
    def of(trained_on: Tensor, validation: Tensor) -> "Familiarity":
        """From uint8 images."""
        known = coarse(trained_on)
        distance = torch.cdist(coarse(validation), known).min(1).values
        return Familiarity(known, float(distance.quantile(USUAL)))

    def distance(self, image: Tensor) -> Tensor:
        """Of uint8 images, the distance to the nearest training image's coarse part, over the limit: `(B,)`."""
        return torch.cdist(coarse(image), self.known).min(1).values / self.limit
