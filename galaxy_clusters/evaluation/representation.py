"""From images to a representation: a trained encoder or training-free numbers, averaged over a galaxy's orientations.

Shapes: B galaxies, C bands, S x S pixels, D numbers, A answers.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from galaxy_clusters.model.bottleneck import Bottleneck
from galaxy_clusters.model.features import feature_names, image_features
from galaxy_clusters.module import GalaxyVotes
from shared.backbones import out_dim
from shared.checkpoint import load_module, weight_bytes
from shared.data.problems import DataError
from shared.methods import Pretraining

VIEWS = 8  # rotations by quarter turns, and their mirror images
Control = Literal["turned", "untrained", "wide"]


@dataclass(frozen=True)
class Representation:
    """What makes vectors of images.

    Attributes:
        name: What made them: a digest of the weights, or of what needs no training; views are part of it.
        dim: D.
        embed: `(B, C, S, S)` uint8 to `(B, D)` float32, both on the CPU; the work is done on a GPU where there is one.
        fractions: `(B, D)` to `(B, A)`, predicted shares of the votes, likewise; None without votes.
        columns: `(A,)`, names of these shares.
    """

    name: str
    dim: int
    embed: Callable[[Tensor], Tensor]
    fractions: Callable[[Tensor], Tensor] | None = None
    columns: tuple[str, ...] = ()


def trained(checkpoint: Path, views: int = 1, control: Control | None = None) -> Representation:
    """The representation of a checkpoint's encoder, or one to compare it with.

    Args:
        checkpoint: Of any method of this package, or of `shared.methods`.
        views: 1, the image as it is, or 8, the mean over quarter turns and mirror images.
        control: `"turned"`: of images that are turned by a quarter; `"untrained"`: by the same encoder with random
            weights; `"wide"`: the encoder's features below the bottleneck.

    Raises:
        DataError: `control` is `"wide"` and there is no bottleneck.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load_module(checkpoint, Pretraining, weights=control != "untrained")  # type: ignore[type-abstract]
    encoder = model.eval().encoder
    if control == "wide" and not isinstance(encoder, Bottleneck):
        raise DataError(f"the encoder of {checkpoint} has no bottleneck: leave out --control wide")
    digest = hashlib.sha256()
    for part in weight_bytes(encoder):
        digest.update(part)

    device = _device()
    model.to(device)

    @torch.inference_mode()
    def embed(images: Tensor) -> Tensor:
        images = torch.rot90(images, 1, (2, 3)) if control == "turned" else images
        views_of = oriented(images.to(device), views)
        return torch.stack([features(view) for view in views_of]).mean(0).float().cpu()

    features: Callable[[Tensor], Tensor] = model
    dim = out_dim(encoder)
    if isinstance(encoder, Bottleneck) and control == "wide":
        features, dim = encoder.wide, out_dim(encoder.encoder)
    name = f"{digest.hexdigest()[:16]} views {views}{f' {control}' if control else ''}"
    if not isinstance(model, GalaxyVotes) or control in ("untrained", "wide"):
        return Representation(name, dim, embed)
    fractions_of = model.fractions

    @torch.inference_mode()
    def fractions(features: Tensor) -> Tensor:
        return fractions_of(features.to(device)).cpu()

    columns = tuple(f"{column}_fraction" for column in model.schema.columns)
    return Representation(name, dim, embed, fractions, columns)


def untrained(channels: int = 3) -> Representation:
    """Numbers that need no training and do not depend on the orientation, see `model.features`."""
    device, dim = _device(), len(feature_names(channels))
    return Representation(f"features {dim}", dim, lambda images: image_features(images.to(device)).cpu())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def oriented(images: Tensor, views: int) -> list[Tensor]:
    """`(B, C, S, S)` as it is, or in its eight orientations.

    Raises:
        ValueError: `views` is neither 1 nor 8.
    """
    if views == 1:
        return [images]
    if views != VIEWS:
        raise ValueError(f"views must be 1 or {VIEWS}, all quarter turns and mirror images, got {views}")
    turned = [torch.rot90(images, quarter, (2, 3)) for quarter in range(4)]
    return [*turned, *(view.flip(3) for view in turned)]
