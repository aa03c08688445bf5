"""What the methods with a table encoder share: which fields they see, and the schema that goes with the weights."""

from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from shared.data.problems import DataError
from shared.methods import Pretraining
from tabular_imaging.data.module import ImageTableBatch, TabularImagingDataModule
from tabular_imaging.data.schema import Fields, Schema
from tabular_imaging.model.tabular import TabularEncoder, corrupt


class TabularPretraining(Pretraining):
    """A method that learns a table encoder, alone or beside an image encoder. A subclass has `title` and `step`.

    The table encoder is built when the data are known; a checkpoint keeps the schema, and so rebuilds it alone.

    Args:
        encoder: What the training is for, `(B, ...) -> (B, encoder.out_dim)`.
        table_encoder: `(B, M) -> (B, table_encoder.out_dim)`; may be `encoder` itself.
        corruption_rate: Share of a row's fields that are replaced in training (SCARF).
        label_as_feature: Append the label to the table as one more categorical field (section 3.3).
        fields: Columns of the table to learn from (Table 2).
        optimizer: Makes the optimiser of the trained parameters.
        warmup_epochs: Epochs of linear warm-up of the learning rate.
        lr_schedule: `constant`, or a half cosine to 0.
    """

    marginals: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        table_encoder: TabularEncoder,
        corruption_rate: float,
        label_as_feature: bool,
        fields: Fields,
        optimizer: OptimizerCallable,
        warmup_epochs: int,
        lr_schedule: Literal["constant", "cosine"],
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        self.table_encoder = table_encoder
        self.corruption_rate = corruption_rate
        self.label_as_feature = label_as_feature
        self.fields = fields
        self.schema: Schema | None = None
        self.columns: list[int] = []  # positions of the model's fields in the data's table
        self.register_buffer("marginals", torch.empty(0), persistent=False)  # the training rows' fields

    def use_schema(self, schema: Schema) -> None:
        """Choose the fields and build the table encoder for them.

        Args:
            schema: Schema of all columns of the data.

        Raises:
            DataError: The encoder was built for other fields.
        """
        chosen = schema.select(self.fields, label_as_feature=self.label_as_feature)
        if self.schema is None:
            self.table_encoder.build(chosen.cardinalities)
            self.schema = chosen
        elif self.schema != chosen:
            raise DataError(
                f"the model was trained on other fields than the data's: {self.schema.difference(chosen)}. Use the "
                "table it was trained on, or train again (--run.overwrite true)"
            )
        positions = {name: index for index, name in enumerate(schema.names)}
        self.columns = [positions[name] for name in chosen.names if name in positions]

    def setup(self, stage: str) -> None:
        """Take the schema and, to corrupt with, the training rows from the data module."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, TabularImagingDataModule):
            raise TypeError(
                f"{type(self).__name__} needs one of tabular_imaging's data modules, got {type(data).__name__}"
            )
        self.use_schema(data.schema)
        if stage in ("fit", "validate"):
            rows = data.rows("train", "pretrain")
            table, target = torch.from_numpy(data.table[rows]), torch.from_numpy(data.target[rows])
            self.marginals = self.select(table, target).to(self.device)

    def select(self, table: Tensor, target: Tensor) -> Tensor:
        """The fields that this model sees, `(B, M) -> (B, M')`; the label is the last where it is a feature."""
        chosen = table[:, self.columns]
        return torch.cat([chosen, target[:, None].to(chosen)], dim=1) if self.label_as_feature else chosen

    def corrupted(self, batch: ImageTableBatch) -> Tensor:
        """The batch's fields `(B, M')`, of which a share is replaced by those of training rows."""
        return corrupt(self.select(batch.table, batch.target), self.marginals, self.corruption_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the schema beside plain hyper-parameters."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["schema"] = None if self.schema is None else self.schema.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the table encoder for the fields it was trained on."""
        saved = Schema.from_dict(checkpoint["schema"])
        if self.schema is None:
            self.table_encoder.build(saved.cardinalities)
            self.schema = saved
        elif self.schema != saved:
            raise DataError(
                f"the data's fields are not those of the checkpoint: {saved.difference(self.schema)}. Use the table it "
                "was trained on"
            )
