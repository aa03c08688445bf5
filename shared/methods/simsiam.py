"""SimSiam (Chen & He 2021, "Exploring simple Siamese representation learning")."""

from typing import Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from shared.backbones import out_dim
from shared.backbones.heads import mlp
from shared.losses import negative_cosine
from shared.methods.pretraining import Pretraining, Step


class SimSiam(Pretraining):
    """Each view's prediction of the other's projection, which gets no gradient: Eq. 4 and Algorithm 1.

    It has no negatives and no second network, so watch `feature_std`: the loss alone is lowest (-1) at a collapse.

    A departure: the paper keeps the predictor's learning rate constant (Table 1: 68.1 against 67.7 per cent when it
    decays with the rest); here it decays.

    Args:
        encoder: `(B, ...) -> (B, encoder.out_dim)`.
        views: Two views of a batch, `(B, ...) -> ((B, ...), (B, ...))`; see `shared.augment.TwoViews`.
        projection_dim: Width of the projector's three layers, each with batch norm (section 3: 2,048); the output's has
            no scale and shift, as in the authors' code (section 4.4 finds it as good).
        predictor_hidden_dim: Hidden width of the predictor, Linear - BatchNorm - ReLU - Linear (section 3: 512).
        optimizer: Makes the optimiser. Section 3: SGD with momentum 0.9, weight decay 1e-4 and a rate of
            0.05 batch / 256; the default is that of a batch of 256.
        warmup_epochs: Epochs of linear warm-up; the paper has none.
        lr_schedule: A half cosine to 0, as in the paper, or constant.
    """

    title = "SimSiam"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        projection_dim: int = 2048,
        predictor_hidden_dim: int = 512,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "cosine",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        self.views = views
        width = out_dim(encoder)
        self.projector = mlp([width, projection_dim, projection_dim, projection_dim], output_norm=True)
        self.predictor = mlp([projection_dim, predictor_hidden_dim, projection_dim])

    def step(self, batch: tuple[Tensor, ...]) -> Step:
        """Eq. 4; the views go through the network one after the other, as in Algorithm 1."""
        x1, x2 = self.views(batch[0])
        z1, z2 = self.projector(self.encoder(x1)), self.projector(self.encoder(x2))
        first, second = negative_cosine(self.predictor(z1), z2), negative_cosine(self.predictor(z2), z1)
        return Step((first + second) / 2, z1)
