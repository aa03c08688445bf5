"""Adaptation of a network to a task by gradient descent, through which the outer gradient flows (Eqs. 3 and 4).

`torch.func.functional_call` and `torch.autograd.grad`: `higher` and `learn2learn`, which others use, are no longer
maintained, and `vmap` over `torch.func.grad` is slower on a CPU and gives wrong second-order gradients through an
affine batch norm.

Shapes: n support images, N ways.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Parameters = dict[str, Tensor]
Forward = Callable[[Parameters, Tensor], Tensor]  # of parameters and images, to logits
Order = Literal["second", "first", "none"]


def adapt(
    forward: Forward,
    start: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    lr: float,
    steps: int,
    order: Order = "second",
) -> Parameters:
    r"""The parameters after some steps of gradient descent on a task's support set.

    .. math:: \theta'_i = \theta - \alpha \nabla_\theta L^{tr}_{T_i}(f_\theta)

    (RML, Eq. 4, with one step.) The loss is the cross-entropy, in which every class weighs alike.

    Args:
        forward: Logits `(n, N)` of the parameters on images.
        start: The parameters :math:`\theta` by name.
        images: `(n, C, S, S)` support images.
        labels: `(n,)` classes in [0, N).
        lr: Step size :math:`\alpha`.
        steps: Number of steps.
        order: How the result depends on the start: with `second`, as it does (MAML); with `first`, as if the gradients
            were constants (first-order MAML); with `none`, not at all, which keeps no graph.

    Returns:
        The adapted parameters.
    """
    adapted = dict(start)
    for _ in range(steps):
        logits = forward(adapted, images)
        loss = F.cross_entropy(logits, labels, class_weight(labels, logits))
        found = torch.autograd.grad(loss, list(adapted.values()), create_graph=order == "second")
        gradients = zip(adapted.items(), found, strict=True)
        adapted = {name: value - lr * gradient for (name, value), gradient in gradients}
        if order == "none":
            adapted = {name: value.detach().requires_grad_() for name, value in adapted.items()}
    return adapted


def class_weight(labels: Tensor, logits: Tensor) -> Tensor:
    """Weights `(N,)` with which the cross-entropy of logits `(n, N)` is the mean over the classes of their means."""
    return 1 / torch.bincount(labels, minlength=logits.shape[1]).clamp(min=1).to(logits.dtype)
