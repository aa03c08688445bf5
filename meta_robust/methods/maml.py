"""MAML (Finn, Abbeel and Levine 2017): a start from which a few steps of gradient descent learn a task.

Shapes: n support and m query images, N ways, D features.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call

from meta_robust.adapt import Order, Parameters, adapt
from meta_robust.methods.episodic import EpisodicMethod, TaskClassifier, TaskImages
from meta_robust.model.norm import BatchNormMode
from shared.backbones import out_dim


class Classifier(nn.Module):
    """An encoder with a linear head.

    Args:
        encoder: `(B, 3, S, S) -> (B, D)`.
        ways: N.
        shared_head: Whether all classes start from one row: the result then does not depend on the classes' order.
    """

    def __init__(self, encoder: nn.Module, ways: int, shared_head: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(out_dim(encoder), 1 if shared_head else ways)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, N)`."""
        logits: Tensor = self.head(self.encoder(x))
        return logits


class MAML(EpisodicMethod):
    r"""Gradient descent through gradient descent.

    .. math:: \theta'_i = \theta - \alpha \nabla_\theta L^{tr}_{T_i}(f_\theta), \quad
        \theta \leftarrow \theta - \eta \nabla_\theta \frac1T \sum_i L^{val}_{T_i}(f_{\theta'_i})

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`.
        optimizer: Makes the optimiser of the outer step.
        ways: N.
        shots: K.
        queries: Q.
        inner_lr: :math:`\alpha`.
        inner_steps: Steps of adaptation in training.
        test_steps: Steps of adaptation to new tasks.
        order: `second` differentiates through the adaptation, `first` takes its gradients for constants;
            `first_then_second` does so for the first half of the training.
        shared_head: Whether the head starts with the same row for every class.
        augment: Changes every training image on its own.
    """

    title = "MAML"
    bn_modes: ClassVar[tuple[BatchNormMode, ...]] = ("transductive", "support")

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        test_steps: int = 10,
        order: Literal["second", "first", "first_then_second"] = "second",
        shared_head: bool = False,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__(optimizer, ways, shots, queries, augment)
        self.net = Classifier(encoder, ways, shared_head)
        self.use_norm()
        self.inner_lr, self.inner_steps, self.test_steps = inner_lr, inner_steps, test_steps
        self.order = order

    def encode(self, images: Tensor) -> Tensor:
        """The encoder's features `(B, D)`."""
        features: Tensor = self.net.encoder(images)
        return features

    def start(self, ways: int) -> Parameters:
        """What a task starts from; for another number of classes, all rows of the head are the learned ones' mean."""
        found: Parameters = dict(self.net.named_parameters())
        for name in ("head.weight", "head.bias"):
            if len(found[name]) != ways:
                mean = found[name].mean(0, keepdim=True)
                found[name] = mean.expand(ways, *mean.shape[1:])
        return found

    def forward_with(self, parameters: Parameters, images: Tensor) -> Tensor:
        """Logits of the network with these parameters."""
        logits: Tensor = functional_call(self.net, parameters, (images,))
        return logits

    def adapted(self, support: Tensor, labels: Tensor, order: Order | None = None) -> Parameters:
        """Parameters adapted to a training task, through which the gradient flows to the start, by default as set."""
        return adapt(
            self.forward_with,
            self.start(self.shape.ways),
            support,
            labels,
            self.inner_lr,
            self.inner_steps,
            order or self._order(),
        )

    def _order(self) -> Order:
        if self.order != "first_then_second":
            return self.order
        steps = self.trainer.estimated_stepping_batches
        return "first" if self.global_step < steps / 2 else "second"

    def task_loss(self, task: TaskImages) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the queries under the adapted parameters."""
        logits = self.forward_with(self.adapted(task.support, task.support_label), task.query)
        return F.cross_entropy(logits, task.query_label), logits

    def task_classifier(self, support: Tensor, labels: Tensor, ways: int) -> TaskClassifier:
        """See `EpisodicMethod.task_classifier`."""
        with torch.enable_grad():  # Lightning turns gradients off in validation
            start = {name: value.detach().requires_grad_() for name, value in self.start(ways).items()}
            adapted = adapt(self.forward_with, start, support, labels, self.inner_lr, self.test_steps, "none")
        return partial(self.predict_with, adapted, support)

    @torch.no_grad()
    def forget_class_order(self) -> None:
        """All rows of the head become their mean."""
        for values in (self.net.head.weight, self.net.head.bias):
            values.copy_(values.mean(0, keepdim=True).expand_as(values))

    @torch.no_grad()
    def predict_with(self, parameters: Parameters, support: Tensor, query: Tensor, bn_mode: BatchNormMode) -> Tensor:
        """Logits of the queries; batch norm sees the queries together, or only the support."""
        if bn_mode == "transductive":
            return self.forward_with(parameters, query)
        with self.norm.set("support", len(support)):
            return self.forward_with(parameters, torch.cat([support, query]))[len(support) :]

    @classmethod
    def variant_title(cls, settings: Mapping[str, Any]) -> str:
        """The method; first-order MAML is named as such."""
        return f"{cls.title}, first order" if settings.get("order") == "first" else cls.title
