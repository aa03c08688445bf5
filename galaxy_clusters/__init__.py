"""Rare classes of galaxies in the representations of a model (Walmsley and Scaife 2023).

Example:
    >>> import torch
    >>> from galaxy_clusters import Bottleneck, GalaxyVotes
    >>> from shared.augment import ImageAugment, Views
    >>> from shared.backbones import ImageEncoder
    >>> encoder = Bottleneck(ImageEncoder("resnet18", image_px=32, channels=[8, 8, 16, 16]), dim=128)
    >>> model = GalaxyVotes(encoder, Views(ImageAugment(size=32), count=1), schema="desi").eval()
    >>> features = model(torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8))
    >>> features.shape, model.fractions(features).shape  # the representation, and shares of 34 answers
    (torch.Size([2, 128]), torch.Size([2, 34]))
"""

from typing import TYPE_CHECKING

from shared.lazy import public_names
from shared.trusted import trust

if TYPE_CHECKING:
    from galaxy_clusters.clustering.chain import ChainSettings, cluster
    from galaxy_clusters.data.fits import Stretch
    from galaxy_clusters.data.module import GalaxyBatch, SurveyDataModule
    from galaxy_clusters.methods import Hybrid
    from galaxy_clusters.model import Bottleneck
    from galaxy_clusters.module import GalaxyVotes

__all__ = [
    "Bottleneck",
    "ChainSettings",
    "GalaxyBatch",
    "GalaxyVotes",
    "Hybrid",
    "Stretch",
    "SurveyDataModule",
    "cluster",
]

_FILES = {
    "Bottleneck": "model",
    "ChainSettings": "clustering.chain",
    "GalaxyBatch": "data.module",
    "GalaxyVotes": "module",
    "Hybrid": "methods",
    "Stretch": "data.fits",
    "SurveyDataModule": "data.module",
    "cluster": "clustering.chain",
}

trust(__name__)  # checkpoints may name this package's classes

__getattr__ = public_names(__name__, _FILES)
