"""For contrastive learning on several processes: a gather that back-propagates and a global batch norm.

Only the public collectives `all_gather` and `all_reduce` are used. They run on both gloo (CPU) and NCCL (CUDA);
`torch.distributed.nn.functional` is deprecated, and the functional collectives are private and were renamed between
torch 2.6 and 2.14.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and the number of processes; `(0, 1)` without `torch.distributed`."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def mean_over_processes(values: list[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all processes, by one collective; the tensors themselves with one process."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return values
    joined = torch.cat([value.flatten() for value in values])
    dist.all_reduce(joined)
    parts = (joined / world_size).split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]


class _Gather(torch.autograd.Function):
    """Concatenation over ranks; the backward pass sums the ranks' gradients for this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rank, world_size = rank_and_world_size()
        ctx.rows = slice(rank * len(x), (rank + 1) * len(x))
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # A copy, because the reduction works in place and autograd may hold the same tensor elsewhere.
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[ctx.rows]


def gather_with_grad(x: Tensor) -> Tensor:
    """Concatenates `x` over all ranks, in rank order, and lets the gradient flow back to every rank.

    The gradient that arrives at `x` is that of the *sum* of the ranks' losses. With DDP, which averages
    parameter gradients over ranks, the step is therefore that of the *mean* of the ranks' losses: a loss that
    each rank averages over its own rows of the global batch trains as one process would on the joined batch.

    The comparison of batch sizes costs one small collective and a device synchronisation.

    Args:
        x: `(B, ...)`, with the same B on every rank.

    Returns:
        `(world_size * B, ...)`; `x` itself with one process.

    Raises:
        ValueError: The ranks' batch sizes differ; raised on every rank.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return x
    size = torch.tensor([len(x)], device=x.device)
    sizes = [torch.empty_like(size) for _ in range(world_size)]
    dist.all_gather(sizes, size)
    batch_sizes = torch.cat(sizes).tolist()
    if len(set(batch_sizes)) > 1:
        raise ValueError(
            f"The ranks hold different batch sizes {batch_sizes}, so their batches cannot be joined. "
            "Set drop_last=True on the training DataLoader."
        )
    gathered: Tensor = _Gather.apply(x)
    return gathered


class Moments(NamedTuple):
    """Statistics of each of C channels over the batches of all processes.

    Attributes:
        mean: `(C,)`.
        var: `(C,)`, the biased variance.
        size: Number of values of a channel, 0-dim.
    """

    mean: Tensor
    var: Tensor
    size: Tensor

    @property
    def unbiased_var(self) -> Tensor:
        """`(C,)`."""
        return self.var * self.size / (self.size - 1)

    def normalise(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """Batch norm of `(B, C, ...)` with these statistics, through which gradients flow."""
        shape = [1, -1] + [1] * (x.ndim - 2)
        out = (x - self.mean.view(shape)) * torch.rsqrt(self.var + eps).view(shape)
        if weight is not None and bias is not None:
            out = out * weight.view(shape) + bias.view(shape)
        return out


def global_moments(x: Tensor) -> Moments:
    """The statistics of `(B, C, ...)` over all processes; B may differ between them."""
    local_var, local_mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    count = x.new_tensor([x.numel() / x.shape[1]])
    # One row per rank: means, variances, number of values.
    rows = gather_with_grad(torch.cat([local_mean, local_var, count])[None])
    means, variances, counts = rows.split([x.shape[1], x.shape[1], 1], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    return Moments(mean, (counts * (variances + (means - mean) ** 2)).sum(0) / total, total)


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the batches of all ranks, on the CPU too. Made by `convert_batchnorm`.

    `nn.SyncBatchNorm` refuses CPU tensors as soon as `torch.distributed` is initialised, and DDP refuses a CPU module
    that contains one (so this is not a subclass of it). The state-dict keys are those of `nn.BatchNorm1d`, and so is
    the computation in evaluation and with one process. The input is `(B, C)` or `(B, C, ...)`; B may differ between
    ranks.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises `(B, C, ...)` per channel with the statistics of the global batch."""
        if not self.training or rank_and_world_size()[1] == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        moments = global_moments(x)
        if self.track_running_stats:
            self._update_running_stats(moments.mean.detach(), moments.unbiased_var.detach())
        return moments.normalise(x, self.weight, self.bias, self.eps).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Torch's hook for 1d, 2d and 3d; every layout with channels second is accepted here."""

    def _update_running_stats(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None  # all three exist when track_running_stats is set
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # momentum=None asks for the cumulative average, as in torch.
        momentum = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased_var.to(self.running_var.dtype), momentum)


def convert_batchnorm(module: nn.Module) -> nn.Module:
    """Makes every `BatchNorm*d` in `module` use the statistics of the global batch.

    With NCCL they become torch's `nn.SyncBatchNorm`, otherwise `GlobalBatchNorm`. Parameters and buffers are shared and
    the state dict keeps its keys, so checkpoints can be moved between the forms. Call it after `torch.distributed` is
    initialised and before DDP wraps the module; in Lightning, call it from `configure_model`.

    Returns:
        The converted module, which replaces `module`.

    Raises:
        TypeError: A layer is of a subclass of torch's batch norms, which may do more (an activation, say).

    Example:
        >>> net = convert_batchnorm(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
        >>> type(net[1]).__name__, list(net[1].state_dict())
        ('GlobalBatchNorm', ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'])
    """
    known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, GlobalBatchNorm)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    for name, layer in layers.items():
        if type(layer) not in known:
            raise TypeError(
                f"Layer {name!r} is a {type(layer).__name__}, which has no synchronised form here. "
                "Build the network with torch's own BatchNorm layers."
            )
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == dist.Backend.NCCL:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for layer in layers.values():
        layer.__class__ = GlobalBatchNorm  # another forward; the state is the same
    return module
