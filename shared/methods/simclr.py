"""SimCLR (Chen, Kornblith, Norouzi, Hinton 2020, "A simple framework for contrastive learning")."""

from typing import Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from shared.backbones import out_dim
from shared.backbones.heads import mlp
from shared.losses import nt_xent_loss
from shared.methods.pretraining import Pretraining, Step


class SimCLR(Pretraining):
    """Two views of a sample attract each other, and repel the other samples of the batch (NT-Xent, Eq. 1).

    Args:
        encoder: `(B, ...) -> (B, encoder.out_dim)`.
        views: Two views of a batch, `(B, ...) -> ((B, ...), (B, ...))`; see `shared.augment.TwoViews`.
        projection_dim: Width of the projector's output (section 2.3: 128).
        temperature: tau of Eq. 1 (Table 5: 0.1 is best).
        optimizer: Makes the optimiser. The paper has LARS, which torch lacks, for batches of 4,096; Adam suits small
            batches.
        warmup_epochs: Epochs of linear warm-up; the paper has 10, for LARS.
        lr_schedule: A half cosine to 0, as in the paper, or constant.
    """

    title = "SimCLR"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        projection_dim: int = 128,
        temperature: float = 0.1,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-5),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "cosine",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        self.views = views
        width = out_dim(encoder)
        self.projector = mlp([width, width, projection_dim])  # section 4.2, Fig. 8: "nonlinear"
        self.temperature = temperature

    def step(self, batch: tuple[Tensor, ...]) -> Step:
        """Both views as one batch, so that batch norm sees what the loss compares."""
        z1, z2 = self.projector(self.encoder(torch.cat(self.views(batch[0])))).chunk(2)
        return Step(nt_xent_loss(z1, z2, self.temperature, gather=self.training), z1)
