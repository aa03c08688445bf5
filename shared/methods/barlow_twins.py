"""Barlow Twins (Zbontar, Jing, Misra, LeCun, Deny 2021, "Self-supervised learning via redundancy reduction")."""

from typing import Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from shared.backbones import out_dim
from shared.backbones.heads import mlp
from shared.losses import barlow_twins_loss
from shared.methods.pretraining import Pretraining, Step


class BarlowTwins(Pretraining):
    """Coordinates that agree between two views and are uncorrelated with each other (Eq. 1).

    Args:
        encoder: `(B, ...) -> (B, encoder.out_dim)`.
        views: Two views of a batch, `(B, ...) -> ((B, ...), (B, ...))`; see `shared.augment.TwoViews`.
        projection_dim: Width of the projector's three layers (section 2.2: 8,192, which are 134 M weights).
        lambda_: Weight of the redundancy term of Eq. 1 (section 2.2: 0.005).
        optimizer: Makes the optimiser. The paper has LARS, which torch lacks, for batches of 2,048; Adam suits small
            batches.
        warmup_epochs: Epochs of linear warm-up; the paper has 10, for LARS.
        lr_schedule: A half cosine to 0, as in the paper (whose rate ends at a thousandth), or constant.
    """

    title = "Barlow Twins"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        projection_dim: int = 8192,
        lambda_: float = 0.005,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-5),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "cosine",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        self.views = views
        width = out_dim(encoder)
        self.projector = mlp([width, projection_dim, projection_dim, projection_dim])
        self.lambda_ = lambda_

    def step(self, batch: tuple[Tensor, ...]) -> Step:
        """Eq. 1; the views go through the network one after the other, as in the authors' code."""
        z1, z2 = (self.projector(self.encoder(view)) for view in self.views(batch[0]))
        return Step(barlow_twins_loss(z1, z2, self.lambda_, gather=self.training), z1)
