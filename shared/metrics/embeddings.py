"""Collecting paired embeddings over a whole split."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class EmbeddingPairs(Metric):
    """Keeps pairs of embeddings `(B, D)`, and joins them over batches and processes in the order of their index.

    So what is computed from them does not depend on how many processes shared the work.

    Example:
        >>> pairs = EmbeddingPairs()
        >>> pairs.update(torch.full((1, 2), 7.0), torch.full((1, 2), 8.0), torch.tensor([1]))
        >>> pairs.update(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0]))
        >>> pairs.compute()[0].tolist()
        [[0.0, 0.0], [7.0, 7.0]]
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a: list[Tensor]
        self.b: list[Tensor]
        self.index: list[Tensor]
        self.add_state("a", default=[], dist_reduce_fx="cat")
        self.add_state("b", default=[], dist_reduce_fx="cat")
        self.add_state("index", default=[], dist_reduce_fx="cat")

    def update(self, a: Tensor, b: Tensor, index: Tensor) -> None:
        """Add a batch of pairs, with the index `(B,)` of each in the split."""
        self.a.append(a.float())
        self.b.append(b.float())
        self.index.append(index)

    def compute(self) -> tuple[Tensor, Tensor]:
        """All pairs so far, `(N, D)` each, in ascending order of their index."""
        order = torch.argsort(dim_zero_cat(self.index))
        return dim_zero_cat(self.a)[order], dim_zero_cat(self.b)[order]
