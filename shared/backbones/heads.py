"""Projection heads."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(dims: Sequence[int], output_norm: bool = False, hidden_norm: bool = True) -> nn.Sequential:
    """Linear - BatchNorm - ReLU for every layer but the last, which is linear: `(B, dims[0]) -> (B, dims[-1])`.

    A layer that batch norm follows has no bias, because it would change nothing.

    Args:
        dims: Widths from the input to the output, at least two.
        output_norm: Whether the last layer is followed by batch norm too, without scale and shift.
        hidden_norm: Whether the layers before it are followed by batch norm.

    Raises:
        ValueError: for fewer than two widths.

    Example:
        >>> [type(layer).__name__ for layer in mlp([8, 16, 4], output_norm=True)]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d']
    """
    if len(dims) < 2:
        raise ValueError(f"dims must hold at least an input and an output width, got {list(dims)}")
    layers: list[nn.Module] = []
    for in_dim, out_dim in pairwise(dims[:-1]):
        layers.append(nn.Linear(in_dim, out_dim, bias=not hidden_norm))
        layers += [*([nn.BatchNorm1d(out_dim)] if hidden_norm else []), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(dims[-2], dims[-1], bias=not output_norm))
    if output_norm:
        layers.append(nn.BatchNorm1d(dims[-1], affine=False))
    return nn.Sequential(*layers)


def projector(
    in_dim: int,
    out_dim: int,
    kind: Literal["linear", "mlp"] = "linear",
    hidden_dim: int | None = None,
    hidden_norm: bool = True,
) -> nn.Module:
    """A projection head `(B, in_dim) -> (B, out_dim)`.

    Args:
        in_dim: Width of the encoder's features.
        out_dim: Width of the embedding.
        kind: `"linear"`, or `"mlp"`: Linear - BatchNorm - ReLU - Linear.
        hidden_dim: Width of the MLP's hidden layer; `in_dim` by default.
        hidden_norm: Whether the MLP has its batch norm.

    Raises:
        ValueError: The kind is neither of the two.

    Example:
        >>> import torch
        >>> projector(8, 4, kind="mlp")(torch.randn(2, 8)).shape
        torch.Size([2, 4])
    """
    if kind == "linear":
        return nn.Linear(in_dim, out_dim)
    if kind != "mlp":
        raise ValueError(f"projector must be 'linear' or 'mlp', got {kind!r}")
    return mlp([in_dim, hidden_dim or in_dim, out_dim], hidden_norm=hidden_norm)
