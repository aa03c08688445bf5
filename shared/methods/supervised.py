"""Supervised training: an encoder and a linear classifier, with labels."""

from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from shared.backbones import out_dim
from shared.methods.pretraining import Pretraining, Step


@runtime_checkable
class LabelledData(Protocol):
    """A data module with classes.

    Attributes:
        classes: Their names, in the order of the targets.
        metric: `accuracy` or `auroc`, what is looked at.
        purpose: Which samples its loaders give; see `shared.data.module.DataModule`.
    """

    classes: list[str]
    metric: str
    purpose: str


class LabelledBatch(Protocol):
    """What is asked of a batch: images `(B, C, S, S)`, and targets `(B,)` int64."""

    @property
    def image(self) -> Tensor: ...  # noqa: D102

    @property
    def target(self) -> Tensor: ...  # noqa: D102


class Supervised(Pretraining):
    """Cross-entropy on labelled images: the samples that a pre-trained encoder is fine-tuned on.

    Each epoch logs `val/accuracy`, or `val/auroc` where that is the data's metric. The best epoch is chosen by it.

    Args:
        encoder: Image encoder, `(B, C, H, W) -> (B, encoder.out_dim)`.
        views: One augmented view of a batch of images, as a tuple of one; see `shared.augment.Views`.
        optimizer: Makes the optimiser.
        warmup_epochs: Epochs of linear warm-up.
        lr_schedule: Constant, or a half cosine to 0.
    """

    title = "Supervised"
    quality: Metric

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        self.views = views
        self.classes: list[str] = []
        self.head = nn.Linear(out_dim(encoder), 0)

    def use_classes(self, classes: list[str]) -> None:
        """Choose the classifier's classes; where they change, the classifier is a fresh one."""
        if classes != self.classes:
            self.classes = list(classes)
            self.head = nn.Linear(self.head.in_features, len(classes))

    def setup(self, stage: str) -> None:
        """Take the classes from the data module, and ask it for labelled samples."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, LabelledData):
            raise TypeError(f"Supervised needs a data module with classes, got {type(data).__name__}")
        self.use_classes(data.classes)
        data.purpose = "evaluate"
        self.metric = data.metric
        if data.metric == "accuracy":
            self.quality = MulticlassAccuracy(len(data.classes), average="micro")
        else:
            self.quality = MulticlassAUROC(len(data.classes))  # of two classes, either's area

    def step(self, batch: LabelledBatch) -> Step:
        """Cross-entropy, on augmented images in training and on the images as they are in validation."""
        (view,) = self.views(batch.image) if self.training else (batch.image,)
        logits = self.head(self.encoder(view))
        return Step(F.cross_entropy(logits, batch.target), logits)

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """The loss, and the metric over the epoch."""
        step = self.step(batch)
        self._log("val", step, len(batch.target))
        self.quality.update(step.embedding.float().softmax(1), batch.target)
        self.log(f"val/{self.metric}", self.quality, prog_bar=True, on_step=False, on_epoch=True)

    def scores(self, features: Tensor) -> Tensor:
        """Logits of encoded images, `(B, D) -> (B, C)`."""
        logits: Tensor = self.head(features)
        return logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the classes beside plain hyper-parameters."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self.classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A classifier of the size it was trained with."""
        self.use_classes(list(checkpoint["classes"]))
