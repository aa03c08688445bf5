r"""The penalty of invariant risk minimisation (Eq. 2), from the logits alone.

For the cross-entropy, the gradient of the risk with respect to a factor w of all logits has a closed form at w = 1:

.. math:: g = \nabla_{w|w=1} R(w \Phi) = \frac1n \sum_i \Big(\sum_k p_{ik} z_{ik} - z_{i,y_i}\Big)

so IRMv1 costs nothing, and a meta-gradient of it is a second-order one, not a third-order one.

Shapes: n images, N ways.
"""

import torch
from torch import Tensor


def invariance_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Each image's part of g, :math:`\sum_k p_{ik} z_{ik} - z_{i,y_i}`; g is their mean, IRMv1's penalty its square.

    Args:
        logits: `(n, N)`, computed with in float32 or more.
        labels: `(n,)` int64.

    Returns:
        `(n,)`.

    Example:
        >>> invariance_gradient(torch.tensor([[2.0, 2.0]]), torch.tensor([0]))  # no factor improves these
        tensor([0.])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits.softmax(1) * logits).sum(1) - logits.gather(1, labels[:, None]).squeeze(1)
