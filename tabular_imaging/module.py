"""MMCL: multimodal contrastive learning with tabular and imaging data, as a LightningModule."""

from typing import Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import nn

from shared.backbones.heads import projector
from shared.losses import clip_loss, retrieval_accuracy, supcon_loss
from shared.methods import Step
from tabular_imaging.data.module import ImageTableBatch
from tabular_imaging.data.schema import Fields
from tabular_imaging.methods.pretraining import TabularPretraining
from tabular_imaging.model.tabular import TabularEncoder

Labels = Literal["none", "false_negative_elimination", "supcon"]
Projector = Literal["linear", "mlp"]


class MMCL(TabularPretraining):
    """An augmented image and the corrupted table of the same sample attract each other (Hager et al. 2023, Eqs. 1-3).

    Args:
        encoder: Of images, `(B, C, H, W) -> (B, encoder.out_dim)` (section 4.2: ResNet50, 2048).
        views: One augmented view of a batch of images, as a tuple of one; see `shared.augment.Views`.
        table_encoder: Of tables (section 4.2: an MLP with one hidden layer of 2048, 2048 wide).
        projection_dim: Of both projections (section 4.2: 128).
        image_projector: Section 4.2: an MLP with one hidden layer of the encoder's width; without batch norm.
        table_projector: Section 4.2: linear. The authors' code has an MLP here too.
        temperature: tau of Eq. 2 (the authors' code: 0.1).
        image_weight: lambda of Eq. 3, the share of the direction image -> table (the authors' code: 0.5).
        positive_in_denominator: False is Eq. 2 as printed; the authors' code has the CLIP loss, as section 3.1 says.
        corruption_rate: Share of a row's fields that are replaced (the authors' code, and SCARF: 0.3, rounded down).
        label_as_feature: LaaF, section 3.3.
        labels: How the loss uses labels (section 4.6): not, to take same-class pairs out of the negatives, or to make
            them positives.
        fields: Columns to learn from (Table 2).
        optimizer: The authors' code: Adam, 3e-3 and weight decay 1e-4.
        warmup_epochs: The authors' code: 10.
        lr_schedule: The authors' code: cosine to 0.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        table_encoder: TabularEncoder,
        projection_dim: int = 128,
        image_projector: Projector = "mlp",
        table_projector: Projector = "linear",
        temperature: float = 0.1,
        image_weight: float = 0.5,
        positive_in_denominator: bool = True,
        corruption_rate: float = 0.3,
        label_as_feature: bool = False,
        labels: Labels = "none",
        fields: Fields = "all",
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=1e-4, fused=True),
        warmup_epochs: int = 10,
        lr_schedule: Literal["constant", "cosine"] = "cosine",
    ) -> None:
        super().__init__(
            encoder, table_encoder, corruption_rate, label_as_feature, fields, optimizer, warmup_epochs, lr_schedule
        )
        self.views = views
        width = int(encoder.out_dim)  # type: ignore[arg-type]
        self.image_projector = projector(width, projection_dim, image_projector, hidden_norm=False)
        self.table_projector = projector(table_encoder.out_dim, projection_dim, table_projector, hidden_norm=False)
        self.temperature = temperature
        self.image_weight = image_weight
        self.positive_in_denominator = positive_in_denominator
        self.labels = labels

    def step(self, batch: ImageTableBatch) -> Step:
        """Eqs. 1 to 3."""
        (view,) = self.views(batch.image)
        z_i = self.image_projector(self.encoder(view))
        z_t = self.table_projector(self.table_encoder(self.corrupted(batch)))
        if self.labels == "supcon":
            loss = supcon_loss(z_i, z_t, batch.target, self.temperature, self.image_weight, gather=self.training)
        else:
            loss = clip_loss(
                z_i,
                z_t,
                self.temperature,
                self.image_weight,
                gather=self.training,
                labels=batch.target if self.labels == "false_negative_elimination" else None,
                positive_in_denominator=self.positive_in_denominator,
            )
        return Step(loss, z_i, {"retrieval_accuracy": retrieval_accuracy(z_i, z_t)})
