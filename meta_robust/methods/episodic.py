"""What the few-shot methods share: the meta-update over tasks, its logs, validation on tasks, and checkpoints.

Not `shared.methods.Pretraining`: the batch statistics of a task are its own, and its gradient is found task by task.

Shapes: T tasks, n support and m query images, N ways, D features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.data.episodes import EpisodeBatch, TaskShape
from meta_robust.data.module import FewShotDataModule
from meta_robust.environments import seeded
from meta_robust.model.norm import BatchNormMode, Norm, update_running, use_episode_norm
from shared.augment import ImageAugment
from shared.data.problems import DataError
from shared.distributed import mean_over_processes
from shared.methods import Method

# Of queries `(m, 3, S, S)`, and whose statistics batch norm uses, to logits `(m, N)` without a graph.
TaskClassifier = Callable[[Tensor, BatchNormMode], Tensor]


class TaskImages(NamedTuple):
    """One task as a method gets it.

    Attributes:
        support: `(n, 3, S, S)` float32 in [0, 1], augmented in training.
        support_label: `(n,)` in [0, N).
        query: `(m, 3, S, S)`.
        query_label: `(m,)`.
        seed: For whatever else is drawn for the task.
        update_seed: For what all tasks of an update share.
        group: Number of the group of classes that it was drawn from.
    """

    support: Tensor
    support_label: Tensor
    query: Tensor
    query_label: Tensor
    seed: int
    update_seed: int
    group: int


class MetaStep(NamedTuple):
    """What a meta-batch gives on one process.

    Attributes:
        gradients: Of each trained parameter, in order; the mean over this process's tasks.
        logs: Values to log, 0-dim.
    """

    gradients: list[Tensor]
    logs: dict[str, Tensor]


def unit(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255


class EpisodicMethod(Method, ABC):
    """A few-shot method. A subclass says what a task's loss is and how queries are classified.

    The update is computed by hand, as the gradients of the tasks are found one after the other: memory does not grow
    with their number, and with several processes their mean is taken explicitly (DDP's hooks would not see it).

    Logged each epoch: `train/loss`, `train/accuracy` and what else a method has; on tasks of validation classes
    `val/loss`, `val/accuracy`, and `val/accuracy_alone` where no query depends on the others (see `mode_alone`).

    Args:
        optimizer: Makes the optimiser of the trained parameters.
        ways: N.
        shots: K, support images a class in training and validation.
        queries: Q, query images a class.
        augment: Changes every training image on its own; None leaves them.

    Attributes:
        bn_modes: Whose statistics batch norm can use when the method classifies; the first is its own choice.
        trains_on: Whether it is trained on tasks or on images.
        norm: What all of its batch norms are told.
        accuracy_alone: `val/accuracy_alone` when the checkpoint was written; None if that is not known.
    """

    bn_modes: ClassVar[tuple[BatchNormMode, ...]]
    trains_on: ClassVar[Literal["tasks", "images"]] = "tasks"
    norm: Norm

    def __init__(
        self, optimizer: OptimizerCallable, ways: int, shots: int, queries: int, augment: nn.Module | None
    ) -> None:
        super().__init__(optimizer)
        self.automatic_optimization = self.trains_on == "images"
        self.shape = TaskShape(ways, shots, queries)
        self.augment = augment
        self.accuracy_alone: float | None = None

    def use_norm(self) -> None:
        """Let the batch norms follow `self.norm`; a subclass calls it once its networks are there."""
        self.norm = use_episode_norm(self)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """The encoder's features `(B, ...)` of images, without any adaptation."""

    @abstractmethod
    def task_loss(self, task: TaskImages) -> tuple[Tensor, Tensor]:
        """The loss of a training task, 0-dim, and the logits `(m, N)` of its queries."""

    @abstractmethod
    def task_classifier(self, support: Tensor, labels: Tensor, ways: int) -> TaskClassifier:
        """What a new task's support teaches: a classifier of its queries, see `classify`."""

    @property
    def mode_alone(self) -> BatchNormMode:
        """The first of `bn_modes` by which no query depends on the others."""
        return next(mode for mode in self.bn_modes if mode != "transductive")

    def classify(
        self, support: Tensor, labels: Tensor, query: Tensor, ways: int, bn_mode: BatchNormMode | None = None
    ) -> Tensor:
        """Logits of a new task's queries; any number of ways and shots, a class may have more of them than another.

        Args:
            support: `(n, 3, S, S)` uint8, or float in [0, 1].
            labels: `(n,)` in [0, ways).
            query: `(m, 3, S, S)`.
            ways: N.
            bn_mode: One of `bn_modes`; the first by default.

        Returns:
            `(m, N)`, without a graph.
        """
        return self.task_classifier(support, labels, ways)(query, bn_mode or self.bn_modes[0])

    def forget_class_order(self) -> None:
        """Let all classes of a task start alike, where training has given each place of a task a start of its own."""

    def meta_gradient(self, tasks: list[TaskImages]) -> MetaStep:
        """The mean over the tasks of the gradients of their losses."""
        parameters = self.trained()
        total = [torch.zeros_like(parameter) for parameter in parameters]
        losses, hits = [], []
        for task in tasks:
            loss, logits = self.task_loss(task)
            found = torch.autograd.grad(loss / len(tasks), parameters)
            torch._foreach_add_(total, found)
            losses.append(loss.detach())
            hits.append(accuracy_of(logits, task.query_label))
        return MetaStep(total, {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(hits).mean()})

    def outer_gradients(self, gradients: list[Tensor]) -> list[Tensor]:
        """What the optimiser gets, of the mean gradients over all processes."""
        return gradients

    def trained(self) -> list[nn.Parameter]:
        """The trained parameters, in order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def setup(self, stage: str) -> None:
        """Tell the data module which tasks are needed."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, FewShotDataModule):
            raise TypeError(f"{type(self).__name__} needs one of meta_robust's data modules, got {type(data).__name__}")
        data.shape, data.trains_on = self.shape, self.trains_on
        for encoder in self.modules():
            size = getattr(encoder, "image_px", None)
            if size is not None and size != data.image_settings.size:
                raise DataError(
                    f"the encoder takes images of {size} pixels, and the data gives {data.image_settings.size}: change "
                    "--model.init_args.encoder.init_args.image_px or --data.init_args.image_px"
                )

    def tasks(self, batch: EpisodeBatch) -> Iterator[TaskImages]:
        """The tasks of a batch; in training, each image augmented by its task's own draws."""
        for place in range(len(batch.seed)):
            seed = int(batch.seed[place])
            sides = [batch.support[place], batch.query[place]]
            if self.training and self.augment is not None:
                sides = [augmented(self.augment, side, seed + number) for number, side in enumerate(sides)]
            else:
                sides = [unit(side) for side in sides]
            yield TaskImages(
                sides[0],
                batch.support_label[place],
                sides[1],
                batch.query_label[place],
                seed,
                int(batch.update_seed[place]),
                int(batch.group[place]),
            )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """One meta-update."""
        step = self.meta_gradient(list(self.tasks(batch)))
        gradients = self.outer_gradients(mean_over_processes(step.gradients))
        for parameter, gradient in zip(self.trained(), gradients, strict=True):
            parameter.grad = gradient
        optimizer = self.optimizers()
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        update_running(self)
        for name, value in step.logs.items():
            self._log(f"train/{name}", value, len(batch.seed))

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        """Loss and accuracy on tasks of validation classes."""
        own, alone = self.bn_modes[0], self.mode_alone
        for task in self.tasks(batch):
            classifier = self.task_classifier(task.support, task.support_label, self.shape.ways)
            logits = classifier(task.query, own)
            self._log("val/loss", F.cross_entropy(logits, task.query_label), 1)
            self._log("val/accuracy", accuracy_of(logits, task.query_label), 1)
            if alone != own:
                logits = classifier(task.query, alone)
            self._log("val/accuracy_alone", accuracy_of(logits, task.query_label), 1)

    def _log(self, name: str, value: Tensor, tasks: int) -> None:
        shown = name.endswith(("loss", "accuracy"))
        self.log(name, value, prog_bar=shown, on_step=False, on_epoch=True, batch_size=tasks, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The given optimiser of the trained parameters."""
        return self.optimizer(self.trained())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keep `accuracy_alone`, which `classify` prints."""
        super().on_save_checkpoint(checkpoint)
        if (accuracy := self.trainer.callback_metrics.get("val/accuracy_alone")) is not None:
            checkpoint["accuracy_alone"] = float(accuracy)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what `on_save_checkpoint` kept."""
        self.accuracy_alone = checkpoint.get("accuracy_alone")

    @torch.no_grad()
    def embed(self, images: Tensor, bn_mode: BatchNormMode = "running", support: int = 0) -> Tensor:
        """Features `(B, ...)` of uint8 images, or of float images in [0, 1]; see `Norm` for the other two."""
        with self.norm.set(bn_mode, support):
            return self.encode(images)


def accuracy_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of `(m,)` labels that the logits `(m, N)` are right about, 0-dim."""
    return (logits.argmax(1) == labels).float().mean()


def augmented(augment: nn.Module, images: Tensor, seed: int) -> Tensor:
    """uint8 images, each changed on its own, by draws of this seed."""
    if not isinstance(augment, ImageAugment):
        raise TypeError(f"augment must be a shared.augment.ImageAugment, got {type(augment).__name__}")
    return augment.apply_drawn(images, augment.draw(images, seeded(seed % 2**63)))


class FeatureMethod(EpisodicMethod):
    """A method that classifies queries by the features of a frozen encoder: these can be computed once for all tasks.

    Attributes:
        encoder: `(B, 3, S, S) -> (B, D)`.
    """

    bn_modes: ClassVar[tuple[BatchNormMode, ...]] = ("running", "support")
    encoder: nn.Module

    def encode(self, images: Tensor) -> Tensor:
        """The encoder's features."""
        features: Tensor = self.encoder(images)
        return features

    @abstractmethod
    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Logits `(T, m, N)` of queries from features: `(T, n, D)`, `(T, n)` and `(T, m, D)`."""

    @torch.no_grad()
    def classify_features(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """As `compare`, without a graph; batch norms of the comparison itself use running statistics."""
        with self.norm.set("running"):
            return self.compare(support, labels, query, ways)

    def task_classifier(self, support: Tensor, labels: Tensor, ways: int) -> TaskClassifier:
        """See `EpisodicMethod.task_classifier`."""

        def classifier(query: Tensor, bn_mode: BatchNormMode) -> Tensor:
            both = self.embed(torch.cat([support, query]), bn_mode, len(support))
            return self.classify_features(both[None, : len(support)], labels[None], both[None, len(support) :], ways)[0]

        return classifier

    def task_loss(self, task: TaskImages) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the queries; batch norm sees the whole task, and its running statistics follow."""
        with self.norm.set("transductive", keeps=True):
            both = self.encode(torch.cat([task.support, task.query]))
        support, query = both[None, : len(task.support)], both[None, len(task.support) :]
        logits = self.compare(support, task.support_label[None], query, self.shape.ways)[0]
        return F.cross_entropy(logits, task.query_label), logits


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean features of each class: `(T, n, D)` and `(T, n)` to `(T, N, D)`."""
    chosen = F.one_hot(labels, ways).to(features.dtype)
    return chosen.mT @ features / chosen.sum(1)[..., None]
