"""Baseline and Baseline++ (Chen et al. 2019, "A Closer Look at Few-shot Classification").

An encoder is trained to tell the base classes apart; on a new task it is frozen, and a new head is trained.

Shapes: T tasks, n support and m query images, N ways, D features.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.data.module import FewShotDataModule, ImageBatch
from meta_robust.environments import seeded
from meta_robust.methods.episodic import FeatureMethod, augmented, unit
from meta_robust.model.gram import HeadTraining, cosine_head_logits, linear_head_logits
from meta_robust.model.norm import update_running
from shared.backbones import out_dim

EPSILON = 1e-5  # added to a feature's length, as in CloserLook
FEW, SCALE_OF_FEW, SCALE_OF_MANY = 200, 2.0, 10.0  # classes of a head, and the scale of its cosines (CloserLook)


class CosineHead(nn.Module):
    """Cosines of features with a learned direction for each class, times a learned gain and a fixed scale.

    Args:
        dim: D.
        classes: Number of classes.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.Linear(dim, classes, bias=False).weight.detach().clone())
        self.gain = nn.Parameter(self.direction.detach().norm(dim=1))  # as torch's weight norm starts
        self.scale = cosine_scale(classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        cosine = F.linear(unit_length(x), F.normalize(self.direction, dim=1))
        logits: Tensor = self.scale * self.gain * cosine
        return logits


def cosine_scale(classes: int) -> float:
    """The scale of the cosines in a head of so many classes."""
    return SCALE_OF_FEW if classes <= FEW else SCALE_OF_MANY


def unit_length(x: Tensor) -> Tensor:
    """Features `(..., D)` divided by their length, to which CloserLook adds a little."""
    length: Tensor = x.norm(dim=-1, keepdim=True) + EPSILON
    return x / length


class Baseline(FeatureMethod):
    """Cross-entropy on the base classes; on a task, a new linear head by 100 epochs of SGD, see `model/gram.py`.

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`.
        optimizer: Makes the optimiser of the training on base classes.
        ways: N, in validation.
        shots: K, in validation.
        queries: Q, in validation.
        augment: Changes every training image on its own.
        new_head: How a task's head is trained.
    """

    title = "Baseline"
    trains_on: ClassVar[Literal["tasks", "images"]] = "images"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        augment: nn.Module | None = None,
        new_head: HeadTraining = HeadTraining(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(optimizer, ways, shots, queries, augment)
        self.encoder = encoder
        self.head: nn.Module = nn.Identity()
        self.classes = 0
        # A checkpoint holds plain values.
        self.new_head = HeadTraining(**new_head) if isinstance(new_head, dict) else new_head
        self.use_norm()

    def base_head(self, classes: int) -> nn.Module:
        """A fresh head over the base classes."""
        return nn.Linear(out_dim(self.encoder), classes)

    def use_classes(self, classes: int) -> None:
        """Choose the number of base classes; where it changes, the head is a fresh one."""
        if classes != self.classes:
            self.classes, self.head = classes, self.base_head(classes)

    def setup(self, stage: str) -> None:
        """Take the number of base classes from the data module."""
        super().setup(stage)
        data: FewShotDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit":
            self.use_classes(len(data.base_classes))

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Cross-entropy on images of base classes; batch norm is as usual, over the batch of all processes."""
        images = unit(batch.image)
        if self.augment is not None:
            images = augmented(self.augment, batch.image, torch.initial_seed() + int(batch.row[0]) + self.global_step)
        with self.norm.set("transductive", keeps=True, joined=True):
            logits = self.head(self.encoder(images))
        loss: Tensor = F.cross_entropy(logits, batch.label)
        self._log("train/loss", loss.detach(), len(batch.label))
        self._log("train/accuracy", (logits.argmax(1) == batch.label).float().mean(), len(batch.label))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the running statistics follow."""
        update_running(self)

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Logits of the queries by a new head for each task; all tasks start from the same head."""
        # float64: in float32 the 700 steps of five shots leave a difference of 3e-4.
        support, query = self.features(support).double(), self.features(query).double()
        generator = seeded(0)
        bound = support.shape[2] ** -0.5  # as torch starts a linear layer
        start = (2 * torch.rand(ways, support.shape[2] + 1, generator=generator, dtype=torch.float64) - 1) * bound
        order = self.new_head.order(support.shape[1], generator)
        start, order = start.to(support.device), order.to(support.device)
        weight = start[:, :-1].expand(len(support), -1, -1)
        return self.head_logits(weight, start[:, -1], support, labels, query, order).float()

    def features(self, features: Tensor) -> Tensor:
        """The features that a new head sees."""
        return features

    def head_logits(
        self, weight: Tensor, bias: Tensor, support: Tensor, labels: Tensor, query: Tensor, order: Tensor
    ) -> Tensor:
        """See `linear_head_logits`; the bias `(N,)` is the same for all tasks."""
        bias = bias.expand(len(support), -1)
        return linear_head_logits(weight, bias, support, labels, query, order, self.new_head)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the number of classes beside plain hyper-parameters."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self.classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A head of the size it was trained with."""
        super().on_load_checkpoint(checkpoint)
        self.use_classes(int(checkpoint["classes"]))


class BaselinePlusPlus(Baseline):
    """As Baseline, with cosines in place of products, in training and in the new head."""

    title = "Baseline++"

    def base_head(self, classes: int) -> nn.Module:
        """A fresh head over the base classes."""
        return CosineHead(out_dim(self.encoder), classes)

    def features(self, features: Tensor) -> Tensor:
        """Features of length 1."""
        return unit_length(features)

    def head_logits(
        self, weight: Tensor, bias: Tensor, support: Tensor, labels: Tensor, query: Tensor, order: Tensor
    ) -> Tensor:
        """See `cosine_head_logits`; there is no bias, and the gain starts as the length of the direction."""
        gain, scale = weight.norm(dim=2), cosine_scale(weight.shape[1])
        return cosine_head_logits(weight, gain, support, labels, query, order, self.new_head, scale)
