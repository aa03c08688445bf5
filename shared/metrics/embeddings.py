"""Collecting paired embeddings over a whole split."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class EmbeddingPairs(Metric):
    """Keeps pairs of embeddings `(B, D)`, and joins them over batches and processes.

    Example:
        >>> pairs = EmbeddingPairs()
        >>> pairs.update(torch.zeros(2, 3), torch.ones(2, 3))
        >>> pairs.update(torch.zeros(1, 3), torch.ones(1, 3))
        >>> [tuple(x.shape) for x in pairs.compute()]
        [(3, 3), (3, 3)]
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a: list[Tensor]
        self.b: list[Tensor]
        self.add_state("a", default=[], dist_reduce_fx="cat")
        self.add_state("b", default=[], dist_reduce_fx="cat")

    def update(self, a: Tensor, b: Tensor) -> None:
        """Add a batch of pairs."""
        self.a.append(a.float())
        self.b.append(b.float())

    def compute(self) -> tuple[Tensor, Tensor]:
        """All pairs so far, `(N, D)` each."""
        return torch.as_tensor(dim_zero_cat(self.a)), torch.as_tensor(dim_zero_cat(self.b))
