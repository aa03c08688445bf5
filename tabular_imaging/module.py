"""MMCL: multimodal contrastive learning with tabular and imaging data, as a LightningModule."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import nn

from shared.backbones import out_dim, projector
from shared.losses import clip_loss, retrieval_accuracy, supcon_loss
from shared.methods import Step
from tabular_imaging.data.module import ImageTableBatch
from tabular_imaging.data.schema import Fields
from tabular_imaging.methods.pretraining import TabularPretraining
from tabular_imaging.model.tabular import TabularEncoder

Labels = Literal["none", "false_negative_elimination", "supcon"]
Projector = Literal["linear", "mlp"]

# What the paper's Tables 2 and 3 call a setting that is not the default.
LABEL_TITLES: dict[Labels, str] = {"none": "", "false_negative_elimination": "FN Elimination", "supcon": "SupCon"}
FIELD_TITLES: dict[Fields, str] = {
    "all": "",
    "morphometric": "Morphometric Features",
    "non_morphometric": "Non-Morphometric Features",
}


class MMCL(TabularPretraining):
    """An augmented image and the corrupted table of the same sample attract each other (Hager et al. 2023, Eqs. 1-3).

    Args:
        encoder: Image encoder, `(B, C, H, W) -> (B, encoder.out_dim)` (section 4.2: ResNet50, 2048).
        views: One augmented view of a batch of images, as a tuple of one; see `shared.augment.Views`.
        table_encoder: Table encoder (section 4.2: an MLP with one hidden layer of 2048, 2048 wide).
        projection_dim: Width of both projections (section 4.2: 128).
        image_projector: Kind of the images' projector (section 4.2: an MLP with one hidden layer of the encoder's
            width); without batch norm.
        table_projector: Kind of the tables' projector (section 4.2: linear; the authors' code has an MLP here too).
        temperature: tau of Eq. 2 (the authors' code: 0.1).
        image_weight: lambda of Eq. 3, the share of the direction image -> table (the authors' code: 0.5).
        positive_in_denominator: False is Eq. 2 as printed; the authors' code has the CLIP loss, as section 3.1 says.
        corruption_rate: Share of a row's fields that are replaced (the authors' code, and SCARF: 0.3, rounded down).
        label_as_feature: Append the label to the table as one more categorical field (LaaF, section 3.3).
        labels: What the loss uses labels for (section 4.6): nothing, taking pairs of the same class out of the
            negatives, or making them positives.
        fields: Columns of the table to learn from (Table 2).
        optimizer: Makes the optimiser (the authors' code: Adam, 3e-3 and weight decay 1e-4).
        warmup_epochs: Epochs of linear warm-up (the authors' code: 10).
        lr_schedule: A half cosine to 0 as in the authors' code, or constant.
    """

    title = "MMCL"

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
        self.image_projector = projector(out_dim(encoder), projection_dim, image_projector, hidden_norm=False)
        self.table_projector = projector(table_encoder.out_dim, projection_dim, table_projector, hidden_norm=False)
        self.temperature = temperature
        self.image_weight = image_weight
        self.positive_in_denominator = positive_in_denominator
        self.labels = labels

    @classmethod
    def variant_title(cls, settings: Mapping[str, Any]) -> str:
        """What the paper's Tables 2 and 3 call it: its fields and what it does with labels, or MMCL where it is plain.

        Args:
            settings: The `init_args` of the model in a run's `config.yaml`.

        Example:
            >>> MMCL.variant_title({"fields": "all", "labels": "supcon", "label_as_feature": True})
            'SupCon + LaaF'
        """
        laaf = "LaaF" if settings["label_as_feature"] else ""
        changes = [FIELD_TITLES[settings["fields"]], LABEL_TITLES[settings["labels"]], laaf]
        return " + ".join(filter(None, changes)) or cls.title

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
