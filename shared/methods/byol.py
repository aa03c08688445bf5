"""BYOL (Grill et al. 2020, "Bootstrap your own latent")."""

import copy
from math import cos, pi
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from shared.backbones import out_dim
from shared.backbones.heads import mlp
from shared.losses import negative_cosine
from shared.methods.pretraining import Pretraining, Step


def target_momentum(step: int, total_steps: float, tau_base: float = 0.996) -> float:
    r"""The share that the target keeps of itself: :math:`\tau = 1 - (1 - \tau_{base}) (\cos(\pi k / K) + 1) / 2`.

    Args:
        step: k, the number of optimiser steps before this one (section 3.3).
        total_steps: K, the number of steps of the whole training.
        tau_base: The share at the first step; it rises to 1.

    Example:
        >>> [round(target_momentum(k, 4), 4) for k in range(5)]
        [0.996, 0.9966, 0.998, 0.9994, 1.0]
    """
    return 1 - (1 - tau_base) * (cos(pi * step / total_steps) + 1) / 2


class BYOL(Pretraining):
    """One view's prediction of the other's projection by a slowly moving copy of the network; no negatives (Eq. 2).

    The target (encoder and projector) is the moving average of the online network's *parameters*: it gets no gradient,
    the optimiser does not know it, and it moves once an optimiser step. Its batch norms work as in the authors' code:
    on the batch's own statistics in training, and with running statistics that it gathers from what it sees itself
    (they are not averaged with the online network's), for validation.

    Args:
        encoder: `(B, ...) -> (B, encoder.out_dim)`; that of the online network, which is the one to keep.
        views: Two views of a batch, `(B, ...) -> ((B, ...), (B, ...))`; see `shared.augment.TwoViews`.
        hidden_dim: Hidden width of projector and predictor, each Linear - BatchNorm - ReLU - Linear (section 3.3:
            4,096).
        projection_dim: Width of the projections (section 3.3: 256).
        tau_base: Momentum of the target at the first step (section 3.3: 0.996); see `target_momentum`.
        optimizer: Makes the optimiser. The paper has LARS, which torch lacks, for batches of 4,096; Adam suits small
            batches.
        warmup_epochs: Epochs of linear warm-up; the paper has 10, for LARS.
        lr_schedule: A half cosine to 0, as in the paper, or constant.

    Raises:
        ValueError: if tau_base is not in [0, 1].
    """

    title = "BYOL"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        tau_base: float = 0.996,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-5),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "cosine",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        if not 0 <= tau_base <= 1:
            raise ValueError(f"tau_base must lie in [0, 1], got {tau_base}")
        self.views = views
        self.projector = mlp([out_dim(encoder), hidden_dim, projection_dim])
        self.predictor = mlp([projection_dim, hidden_dim, projection_dim])
        self.target = copy.deepcopy(nn.Sequential(encoder, self.projector)).requires_grad_(False)
        self.tau_base = tau_base

    def step(self, batch: tuple[Tensor, ...]) -> Step:
        """Eq. 2 in both directions, as a sum; the views go through the networks one after the other, as in the paper.

        The loss lies in [0, 8].
        """
        x1, x2 = self.views(batch[0])
        z1, z2 = self.projector(self.encoder(x1)), self.projector(self.encoder(x2))
        with torch.no_grad():
            target1, target2 = self.target(x1), self.target(x2)
        first = 2 + 2 * negative_cosine(self.predictor(z1), target2)
        second = 2 + 2 * negative_cosine(self.predictor(z2), target1)
        return Step(first + second, z1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step, then the target's. Lightning calls this once for each accumulated batch."""
        tau = target_momentum(self.trainer.global_step, self.trainer.estimated_stepping_batches, self.tau_base)
        super().optimizer_step(*args, **kwargs)
        self.update_target(tau)

    @torch.no_grad()
    def update_target(self, tau: float) -> None:
        r"""Eq. 1: :math:`\xi \leftarrow \tau \xi + (1 - \tau) \theta`, on parameters and not on buffers."""
        online = [*self.encoder.parameters(), *self.projector.parameters()]
        for xi, theta in zip(self.target.parameters(), online, strict=True):
            xi.lerp_(theta, 1 - tau)
