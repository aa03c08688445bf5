"""Prototypical Networks (Snell, Swersky and Zemel 2017).

Shapes: T tasks, n support and m query images, N ways, D features.
"""

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.methods.episodic import FeatureMethod, class_means


def prototype_logits(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    r"""Minus the squared Euclidean distance to each class's mean (Snell et al., Eq. 2).

    It is computed as :math:`-(\lVert x \rVert^2 - 2 x \cdot c + \lVert c \rVert^2)`, in one matrix product.

    Args:
        support: `(T, n, D)`.
        labels: `(T, n)` in [0, N).
        query: `(T, m, D)`.
        ways: N.

    Returns:
        `(T, m, N)`.
    """
    means = class_means(support, labels, ways)
    return 2 * query @ means.mT - query.square().sum(2, keepdim=True) - means.square().sum(2)[:, None]


class PrototypicalNetwork(FeatureMethod):
    """The nearest class mean in an embedding that is trained for it.

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`.
        optimizer: Makes the optimiser.
        ways: N.
        shots: K.
        queries: Q.
        augment: Changes every training image on its own.
    """

    title = "Prototypical Network"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__(optimizer, ways, shots, queries, augment)
        self.encoder = encoder
        self.use_norm()

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `prototype_logits`."""
        return prototype_logits(support, labels, query, ways)
