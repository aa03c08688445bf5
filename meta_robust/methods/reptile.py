"""Reptile (Nichol, Achiam and Schulman 2018): the start moves towards what tasks lead to, without a second derivative.

Shapes: n support and m query images, N ways.
"""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.adapt import class_weight
from meta_robust.environments import seeded
from meta_robust.methods.episodic import MetaStep, TaskClassifier, TaskImages, accuracy_of
from meta_robust.methods.maml import MAML
from meta_robust.model.norm import use_episode_norm


class Reptile(MAML):
    r"""First-order meta-learning by an inner Adam with :math:`\beta_1 = 0`, which is reset for each task.

    .. math:: \theta \leftarrow \theta + \epsilon \frac1T \sum_i (\theta'_i - \theta)

    A training task's support and query images are used alike. With `torch.optim.SGD` and a rate of 1 as optimiser,
    :math:`\epsilon` falls linearly from 1 to 0, as in the authors' code.

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`.
        optimizer: Makes the optimiser of the outer step.
        ways: N.
        shots: K.
        queries: Q; a training task has K + Q images a class (the authors: 15).
        inner_lr: Rate of the inner Adam.
        inner_steps: Steps in training.
        inner_batch: Images of a step.
        test_steps: Steps on new tasks.
        augment: Changes every training image on its own.
    """

    title = "Reptile"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=1.0),
        ways: int = 5,
        shots: int = 1,
        queries: int = 14,
        inner_lr: float = 1e-3,
        inner_steps: int = 8,
        inner_batch: int = 10,
        test_steps: int = 50,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, ways, shots, queries, inner_lr, inner_steps, test_steps, augment=augment)
        self.inner_batch = inner_batch

    def learn(self, images: Tensor, labels: Tensor, ways: int, steps: int, seed: int) -> nn.Module:
        """A copy of the network, trained on the images of a task."""
        net = copy.deepcopy(self.net)
        use_episode_norm(net)
        if ways != self.shape.ways:
            start = self.start(ways)
            net.head = nn.Linear(net.head.in_features, ways, device=self.device)
            net.head.weight.data, net.head.bias.data = (
                start[f"head.{name}"].detach().clone() for name in ("weight", "bias")
            )
        net.requires_grad_(True)
        optimizer = torch.optim.Adam(net.parameters(), self.inner_lr, betas=(0.0, 0.999))
        generator = seeded(seed % 2**63)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            while len(order) < min(self.inner_batch, len(images)):
                order = torch.cat([order, torch.randperm(len(images), generator=generator)])
            rows, order = order[: self.inner_batch], order[self.inner_batch :]
            logits = net(images[rows])
            loss = F.cross_entropy(logits, labels[rows], class_weight(labels, logits))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net

    def meta_gradient(self, tasks: list[TaskImages]) -> MetaStep:
        """The mean of :math:`\\theta - \\theta'_i`, times what is left of the training."""
        parameters = self.trained()
        total = [torch.zeros_like(parameter) for parameter in parameters]
        hits = []
        for task in tasks:
            images, labels = torch.cat([task.support, task.query]), torch.cat([task.support_label, task.query_label])
            learned = self.learn(images, labels, self.shape.ways, self.inner_steps, task.seed)
            with torch.no_grad():
                for sum_, old, new in zip(total, parameters, learned.parameters(), strict=True):
                    sum_ += (old - new) / len(tasks)
                hits.append(accuracy_of(learned(task.query), task.query_label))
        left = 1 - self.global_step / max(1, self.trainer.estimated_stepping_batches)
        accuracy = torch.stack(hits).mean()
        return MetaStep([left * gradient for gradient in total], {"accuracy": accuracy})

    def task_classifier(self, support: Tensor, labels: Tensor, ways: int) -> TaskClassifier:
        """See `EpisodicMethod.task_classifier`."""
        with torch.enable_grad():
            net = self.learn(support, labels, ways, self.test_steps, seed=0)
        return partial(self.predict_with, dict(net.named_parameters()), support)
