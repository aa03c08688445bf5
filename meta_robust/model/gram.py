r"""The heads of Baseline and Baseline++ on frozen features, by CloserLook's SGD in the space of a task's images.

Every gradient of a linear head is a combination of the images' features, and weight decay shrinks the start. So the
head stays :math:`W = c W_0 + A F`, where F are the n features, and the steps need only the Gram matrix :math:`F F^T`: n
is 5 or 25, where D is 1,600. All tasks are trained at once. Nothing is approximated: in float64 the logits are those of
the loop over the tasks to 1e-12.

Shapes: T tasks, n support and m query images, N ways, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class HeadTraining:
    """CloserLook's SGD of a new head (`methods/baselinefinetune.py`).

    Attributes:
        lr: Learning rate.
        momentum: Of the velocity.
        dampening: Of the gradient in the velocity, except in the first step.
        weight_decay: L2 penalty of all parameters of the head.
        epochs: Passes over the support images.
        batch_size: Images of a step.
    """

    lr: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 1e-3
    epochs: int = 100
    batch_size: int = 4

    def batches(self, order: Tensor) -> Iterator[Tensor]:
        """Places `(b,)` of the images of each step, from `(epochs, n)` permutations."""
        for permutation in order:
            yield from permutation.split(self.batch_size)

    def order(self, images: int, generator: torch.Generator) -> Tensor:
        """A permutation of a task's images for each epoch, `(epochs, n)`; all tasks take their images in this order."""
        return torch.rand(self.epochs, images, generator=generator).argsort(1)


class _Velocity:
    """SGD with momentum, dampening and weight decay, on tensors that are updated in place."""

    def __init__(self, settings: HeadTraining, *values: Tensor) -> None:
        self.settings, self.values = settings, values
        self.velocity = [torch.zeros_like(value) for value in values]
        self.is_first = True

    def step(self, *gradients: Tensor) -> None:
        new = 1.0 if self.is_first else 1 - self.settings.dampening
        for value, velocity, gradient in zip(self.values, self.velocity, gradients, strict=True):
            velocity.mul_(self.settings.momentum).add_(gradient + self.settings.weight_decay * value, alpha=new)
            value.sub_(self.settings.lr * velocity)
        self.is_first = False


class _Problem(NamedTuple):
    """Support features in their own space.

    Attributes:
        gram: `(T, n, n)`, symmetric.
        start: `(T, N, n)` products of the start's rows with the features.
        query: `(T, m, n)` products of the queries with the features.
        query_start: `(T, m, N)`.
        one_hot: `(T, n, N)`.
        share: `(T, n)` weight of an image, so that every class weighs alike; all 1 with equal shots.
    """

    gram: Tensor
    start: Tensor
    query: Tensor
    query_start: Tensor
    one_hot: Tensor
    share: Tensor


def _problem(weight: Tensor, support: Tensor, labels: Tensor, query: Tensor) -> _Problem:
    one_hot = F.one_hot(labels, weight.shape[1]).to(support.dtype)
    share = (one_hot / one_hot.sum(1, keepdim=True)).sum(2) * labels.shape[1] / weight.shape[1]
    return _Problem(support @ support.mT, weight @ support.mT, query @ support.mT, query @ weight.mT, one_hot, share)


def _error(logits: Tensor, problem: _Problem, batch: Tensor) -> Tensor:
    """Gradient `(T, b, N)` of the batch's mean cross-entropy with respect to its logits `(T, b, N)`."""
    wanted, share = problem.one_hot[:, batch], problem.share[:, batch, None]
    return share * (logits.softmax(2) - wanted) / len(batch)


@torch.no_grad()
def linear_head_logits(
    weight: Tensor, bias: Tensor, support: Tensor, labels: Tensor, query: Tensor, order: Tensor, settings: HeadTraining
) -> Tensor:
    r"""Query logits of linear heads after their training: :math:`W = c W_0 + A F`, and the bias.

    Args:
        weight: `(T, N, D)` start of the weights.
        bias: `(T, N)`.
        support: `(T, n, D)`.
        labels: `(T, n)` in [0, N).
        query: `(T, m, D)`.
        order: `(epochs, n)`, see `HeadTraining.order`.
        settings: Of the SGD.

    Returns:
        `(T, m, N)`.
    """
    problem = _problem(weight, support, labels, query)
    kept = weight.new_ones(1)
    mixed, bias = torch.zeros_like(problem.start), bias.clone()
    descent = _Velocity(settings, kept, mixed, bias)
    for batch in settings.batches(order):
        logits = kept * problem.start[..., batch] + mixed @ problem.gram.index_select(1, batch).mT + bias[..., None]
        error = _error(logits.mT, problem, batch)
        gradient = torch.zeros_like(mixed).index_copy_(2, batch, error.mT)
        descent.step(torch.zeros_like(kept), gradient, error.sum(1))
    return kept * problem.query_start + problem.query @ mixed.mT + bias[:, None]


@torch.no_grad()
def cosine_head_logits(
    weight: Tensor, gain: Tensor, support: Tensor, labels: Tensor, query: Tensor, order: Tensor, settings: HeadTraining,
    scale: float,
) -> Tensor:  # fmt: skip
    r"""Query logits of heads of Baseline++ after their training, :math:`s \, g_k \, v_k \cdot x / \lVert v_k \rVert`.

    The direction :math:`v = c v_0 + A F` of a class has its length from the Gram matrix, and its own c.

    Args:
        weight: `(T, N, D)` start of the directions v.
        gain: `(T, N)` start of the lengths g.
        support: `(T, n, D)` features of length 1.
        labels: `(T, n)` in [0, N).
        query: `(T, m, D)`, of length 1.
        order: `(epochs, n)`, see `HeadTraining.order`.
        settings: Of the SGD.
        scale: s.

    Returns:
        `(T, m, N)`.
    """
    problem = _problem(weight, support, labels, query)
    square = weight.square().sum(2)
    kept, mixed, gain = torch.ones_like(square), torch.zeros_like(problem.start), gain.clone()
    descent = _Velocity(settings, kept, mixed, gain)

    def length(product: Tensor) -> Tensor:
        inside = 2 * kept * (mixed * problem.start).sum(2) + (product * mixed).sum(2)
        return (kept.square() * square + inside).sqrt()

    for batch in settings.batches(order):
        product = mixed @ problem.gram
        norm = length(product)
        along = kept[..., None] * problem.start[..., batch] + product[..., batch]  # v . x
        cosine = along / norm[..., None]
        error = _error((scale * gain[..., None] * cosine).mT, problem, batch).mT * scale  # (T, N, b)
        of_gain = (error * cosine).sum(2)
        # d(v . x / |v|)/dv = x / |v| - (v . x) v / |v|^3, and v itself is c v_0 + A F.
        factor = gain / norm
        shrink = factor * of_gain / norm
        gradient = torch.zeros_like(mixed).index_copy_(2, batch, factor[..., None] * error)
        descent.step(-shrink * kept, gradient - shrink[..., None] * mixed, of_gain)
    norm = length(mixed @ problem.gram)
    along = kept[:, None] * problem.query_start + problem.query @ mixed.mT
    return scale * (gain / norm)[:, None] * along
