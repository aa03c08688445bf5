"""Barlow Twins' redundancy reduction, over the global batch."""

import torch
from torch import Tensor

from shared.distributed import gather_with_grad
from shared.losses.info_nce import check_pairs

EPS = 1e-5  # added to the variance, as in batch norm: a coordinate that never varies correlates with nothing


def barlow_twins_loss(z1: Tensor, z2: Tensor, lambda_: float = 0.005, gather: bool = True) -> Tensor:
    r"""Pulls the cross-correlation matrix of two views' embeddings to the identity (Zbontar et al. 2021, Eqs. 1 and 2).

    With the K samples b of the global batch, and both embeddings centred over it:

    .. math::
        C_{ij} = \frac{\sum_b z^1_{bi} z^2_{bj}}{\sqrt{\sum_b (z^1_{bi})^2} \sqrt{\sum_b (z^2_{bj})^2}}, \qquad
        L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

    The D x D matrix C is never formed. Off its diagonal only the sum of squares is needed. With standardised embeddings
    Z this is :math:`\lVert C \rVert_F^2 = \langle Z^1 Z^{1\top}, Z^2 Z^{2\top} \rangle / K^2` minus the diagonal's
    part, which takes two K x K matrices, while the paper's D is 8,192.

    The sums are those of the paper and of the authors' code: neither divided by D nor scaled. (An early version of that
    code multiplied the loss by 0.024, with learning rates to match; Adam's steps hardly depend on such a factor.)

    The loss is computed in float32 (float64 for float64 inputs), even inside bf16 autocast. Every rank returns the loss
    of the joined batch, and DDP's averaged gradient is its gradient (see `shared.distributed.gather_with_grad`).

    Args:
        z1: `(B, D)` embeddings of the first views, as they leave the projector.
        z2: `(B, D)` embeddings of the second views; row i shows the same sample as `z1[i]`.
        lambda_: Weight of the redundancy term, at least 0 (section 2.2: 0.005).
        gather: Whether to join the ranks' batches. If False, every rank only sees its own, as in validation.

    Returns:
        0-dim loss, at least 0; D if an embedding has collapsed to one point.

    Raises:
        ValueError: The shapes differ or are not `(B, D)`, the global batch holds fewer than two samples, the ranks'
            batch sizes differ, or lambda_ is negative.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> barlow_twins_loss(z, z).round(decimals=4)
        tensor(0.)
        >>> barlow_twins_loss(z, z[:, [1, 0]], lambda_=0.1)  # C = [[0, 1], [1, 0]]
        tensor(2.2000)
    """
    check_pairs(z1, z2)
    if not lambda_ >= 0:  # also catches NaN
        raise ValueError(f"lambda_ must be at least 0, got {lambda_}.")
    dtype = torch.promote_types(z1.dtype, torch.float32)
    with torch.autocast(z1.device.type, enabled=False):
        z = torch.cat([z1, z2], dim=1).to(dtype)
        if gather:
            z = gather_with_grad(z)
        size = len(z)
        if size < 2:
            raise ValueError(
                "Barlow Twins needs at least 2 samples in the global batch, got 1: nothing can correlate. "
                "Raise batch_size or set drop_last=True."
            )
        variance, mean = torch.var_mean(z, dim=0, correction=0)
        z1, z2 = ((z - mean) * torch.rsqrt(variance + EPS)).chunk(2, dim=1)
        diagonal = (z1 * z2).mean(0)
        all_squares = ((z1 @ z1.T) * (z2 @ z2.T)).sum() / size**2
        return (1 - diagonal).square().sum() + lambda_ * (all_squares - diagonal.square().sum())
