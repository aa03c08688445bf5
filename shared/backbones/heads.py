"""Projection heads."""

from typing import Literal

from torch import nn


def projector(
    in_dim: int, out_dim: int, kind: Literal["linear", "mlp"] = "linear", hidden_dim: int | None = None
) -> nn.Module:
    """A projection head `(B, in_dim) -> (B, out_dim)`.

    Args:
        in_dim: Width of the encoder's features.
        out_dim: Width of the embedding.
        kind: `"linear"`, or `"mlp"`: Linear - BatchNorm - ReLU - Linear.
        hidden_dim: Of the MLP; `in_dim` by default.

    Example:
        >>> import torch
        >>> projector(8, 4, kind="mlp")(torch.randn(2, 8)).shape
        torch.Size([2, 4])
    """
    if kind == "linear":
        return nn.Linear(in_dim, out_dim)
    if kind != "mlp":
        raise ValueError(f"projector must be 'linear' or 'mlp', got {kind!r}")
    hidden_dim = hidden_dim or in_dim
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, out_dim),
    )
