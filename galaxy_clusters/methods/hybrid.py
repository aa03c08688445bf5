"""Votes and self-supervision together: what the paper's discussion asks for (section 5; Walmsley et al. 2022)."""

from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import nn

from galaxy_clusters.module import GalaxyVotes
from shared.backbones import out_dim
from shared.backbones.heads import mlp
from shared.losses import nt_xent_loss
from shared.methods import Step


class Hybrid(GalaxyVotes):
    """The likelihood of the votes plus SimCLR's loss, on two views of every galaxy.

    Args:
        encoder: As for `GalaxyVotes`.
        views: Two augmented views of a batch of images; see `shared.augment.Views`.
        schema: As for `GalaxyVotes`.
        frozen_epochs: As for `GalaxyVotes`.
        dropout: As for `GalaxyVotes`.
        contrastive_weight: Of SimCLR's loss.
        projection_dim: Width of SimCLR's projector.
        temperature: Of SimCLR's loss.
        optimizer: Makes the optimiser.
        warmup_epochs: Epochs of linear warm-up.
        lr_schedule: Constant, or a half cosine to 0.
    """

    title = "Votes and SimCLR"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        schema: str = "desi",
        frozen_epochs: int = 0,
        dropout: float = 0.2,
        contrastive_weight: float = 1.0,
        projection_dim: int = 128,
        temperature: float = 0.1,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(encoder, views, schema, frozen_epochs, dropout, optimizer, warmup_epochs, lr_schedule)
        width = out_dim(encoder)
        self.projector = mlp([width, width, projection_dim])
        self.contrastive_weight, self.temperature = contrastive_weight, temperature

    def step(self, batch: Any) -> Step:
        """Both losses on both views; also in validation, whose draws depend on the batch's number alone."""
        features = self.encoder(torch.cat(self.views(batch.image)))
        first, second = self.projector(features).chunk(2)
        contrastive = nt_xent_loss(first, second, self.temperature, gather=self.training)
        votes = self.votes_loss(features, torch.cat([batch.votes, batch.votes]))
        terms = {"votes": votes, "contrastive": contrastive}
        return Step(votes + self.contrastive_weight * contrastive, features, terms)
