"""Batch norm that is told whose statistics to use: the batch's own, the support's alone, or running ones.

Shapes: B images, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.distributed import global_moments, mean_over_processes, rank_and_world_size

# transductive: of the images at hand, so a query's prediction depends on the other queries; support: of the support
# images alone; running: of the training, as in an ordinary network.
BatchNormMode = Literal["transductive", "support", "running"]


@dataclass
class Norm:
    """What all batch norms of a network are told; they share one of these.

    Attributes:
        mode: Whose statistics are used.
        support: With `support`, the number of leading images of a batch whose statistics are used for all.
        keeps: Whether the statistics of each pass are kept for `update_running`.
        joined: Whether a batch is spread over all processes, whose images then count together. A task is not.
    """

    mode: BatchNormMode = "transductive"
    support: int = 0
    keeps: bool = False
    joined: bool = False

    @contextmanager
    def set(self, mode: BatchNormMode, support: int = 0, keeps: bool = False, joined: bool = False) -> Iterator[None]:
        """Tell all layers, for the time of a `with` block."""
        before = vars(self).copy()
        self.mode, self.support, self.keeps, self.joined = mode, support, keeps, joined
        try:
            yield
        finally:
            vars(self).update(before)


class EpisodeNorm(nn.BatchNorm2d):
    """Batch norm as its `Norm` says, whether in training mode or not. Made by `use_episode_norm`.

    Torch's own would overwrite its running statistics in every pass in training mode, those of test episodes included.
    The state dict is that of `nn.BatchNorm2d`.
    """

    norm: Any  # a Norm; torch declares attributes of modules to be tensors or modules
    kept: Any  # means and variances of the last passes

    def forward(self, input: Tensor) -> Tensor:
        """Normalises `(B, C, H, W)`."""
        if self.norm.mode == "running":
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0, self.eps)
        if self.norm.joined and rank_and_world_size()[1] > 1:
            moments = global_moments(input)
            if self.norm.keeps:
                self.kept.append((moments.mean.detach(), moments.unbiased_var.detach()))
            return moments.normalise(input, self.weight, self.bias, self.eps)
        if self.norm.keeps:
            rows = input.detach()
            var, mean = torch.var_mean(rows, dim=(0, 2, 3))
            self.kept.append((mean, var))
        if self.norm.mode == "transductive":
            return F.batch_norm(input, None, None, self.weight, self.bias, True, 0, self.eps)
        var, mean = torch.var_mean(input[: self.norm.support], dim=(0, 2, 3), correction=0)
        return F.batch_norm(input, mean, var, self.weight, self.bias, False, 0, self.eps)


def use_episode_norm(net: nn.Module) -> Norm:
    """Turn the 2-d batch norms of a network into `EpisodeNorm`s that share the returned `Norm`."""
    norm = Norm()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = EpisodeNorm  # another forward; the state is the same
            vars(layer).update(norm=norm, kept=[])
    return norm


@torch.no_grad()
def update_running(net: nn.Module) -> None:
    """Move the running statistics towards the mean of those that the last passes kept, over all processes."""
    for layer in net.modules():
        if isinstance(layer, EpisodeNorm) and layer.kept:
            own = [torch.stack(values).mean(0) for values in zip(*layer.kept, strict=True)]
            mean, var = mean_over_processes(own)
            layer.kept.clear()
            assert layer.running_mean is not None  # as tracked
            assert layer.running_var is not None
            momentum = 0.1 if layer.momentum is None else layer.momentum
            layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
            layer.running_var.lerp_(var.to(layer.running_var.dtype), momentum)
