"""SCARF (Bahri, Jiang, Tay, Metzler 2022, "Self-supervised contrastive learning using random feature corruption")."""

from typing import Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor

from shared.backbones.heads import mlp
from shared.losses import clip_loss
from shared.methods import Step
from tabular_imaging.data.module import ImageTableBatch
from tabular_imaging.data.schema import Fields
from tabular_imaging.methods.pretraining import TabularPretraining
from tabular_imaging.model.tabular import TabularEncoder


class SCARF(TabularPretraining):
    """A row of a table and its corrupted copy attract each other, without images (Algorithm 1).

    The loss is Algorithm 1's: the row's own corrupted copy against those of the batch, in one direction.

    Args:
        encoder: Table encoder.
        projection_dim: Width of the projection. The paper's pre-training head has the encoder's width, 256; the authors
            of MMCL have 128.
        temperature: tau (section 4: 1; the authors of MMCL: 0.1).
        corruption_rate: c, the share of a row's fields that are replaced (section 4: 0.6; MMCL has 0.3).
        label_as_feature: Append the label to the table as one more categorical field.
        fields: Columns of the table to learn from.
        optimizer: Makes the optimiser (section 4: Adam, 1e-3).
        warmup_epochs: Epochs of linear warm-up; the paper has none.
        lr_schedule: Constant (the paper has no schedule), or a half cosine to 0.
    """

    title = "SCARF"

    def __init__(
        self,
        encoder: TabularEncoder,
        projection_dim: int = 256,
        temperature: float = 1.0,
        corruption_rate: float = 0.6,
        label_as_feature: bool = False,
        fields: Fields = "all",
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(
            encoder, encoder, corruption_rate, label_as_feature, fields, optimizer, warmup_epochs, lr_schedule
        )
        self.projector = mlp([encoder.out_dim, encoder.out_dim, projection_dim], hidden_norm=False)
        self.temperature = temperature

    def input_of(self, batch: ImageTableBatch) -> Tensor:
        """The table."""
        return self.select(batch.table, batch.target)

    def step(self, batch: ImageTableBatch) -> Step:
        """The rows and their corrupted copies as one batch, so that batch norm sees what the loss compares."""
        rows = torch.cat([self.input_of(batch), self.corrupted(batch)])
        z, z_corrupted = self.projector(self.encoder(rows)).chunk(2)
        return Step(clip_loss(z, z_corrupted, self.temperature, weight=1.0, gather=self.training), z)
