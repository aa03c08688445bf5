"""Matching Networks (Vinyals et al. 2016).

Shapes: T tasks, n support and m query images, N ways, D features.
"""

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.methods.episodic import FeatureMethod
from meta_robust.model.matching import FullContext
from shared.backbones import out_dim

SCALE = 100.0  # of the cosines in the softmax; CloserLook has the same


def matching_log_probabilities(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    r"""Log-probabilities of a class by the attention that a query pays to the class's support images.

    .. math:: P(y | x) = \sum_i a(x, x_i) y_i, \quad a(x, x_i) = \mathrm{softmax}_i(s \cos(f(x), g(x_i)))

    (Vinyals et al., Eqs. 1 and 2; the paper has no s, without which the attention is almost uniform.) A class with more
    images than others weighs alike: its attention is divided by their number.

    Args:
        support: `(T, n, D)`.
        labels: `(T, n)` in [0, N).
        query: `(T, m, D)`.
        ways: N.

    Returns:
        `(T, m, N)`.
    """
    cosine = F.normalize(query, dim=2) @ F.normalize(support, dim=2).mT
    chosen = F.one_hot(labels, ways).to(cosine.dtype)
    each = (SCALE * cosine)[:, :, None] + torch.log(chosen / chosen.sum(1, keepdim=True)).mT[:, None]
    return each.logsumexp(3).log_softmax(2)


class MatchingNetwork(FeatureMethod):
    """A nearest neighbour by cosine that is trained end to end.

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`.
        optimizer: Makes the optimiser.
        ways: N.
        shots: K.
        queries: Q.
        fce: Whether images are embedded in the context of the support set.
        augment: Changes every training image on its own.
    """

    title = "Matching Network"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        fce: bool = True,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__(optimizer, ways, shots, queries, augment)
        self.encoder = encoder
        self.context = FullContext(out_dim(encoder)) if fce else None
        self.use_norm()

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `matching_log_probabilities`."""
        if self.context is not None:
            embedded = [self.context(*pair) for pair in zip(support, query, strict=True)]
            support, query = (torch.stack(side) for side in zip(*embedded, strict=True))
        return matching_log_probabilities(support, labels, query, ways)
