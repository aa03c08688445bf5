"""InfoNCE in the CLIP form (two modalities) and the NT-Xent form (two views), over the global batch.

Under `torch.distributed` every rank scores its own rows against the columns of all ranks. The returned value
is the mean over this rank's rows: its mean over ranks is the loss of the joined batch, and DDP's averaged
gradient is the gradient of that loss (see `shared.distributed.gather_with_grad`).

Similarities and losses are computed in float32 (float64 for float64 inputs), inside bf16 autocast too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.distributed import gather_with_grad, rank_and_world_size


def clip_loss(a: Tensor, b: Tensor, temperature: float | Tensor, weight: float = 0.5, gather: bool = True) -> Tensor:
    r"""Symmetric InfoNCE between two modalities: ETP Eqs. 3-5, MMCL Eqs. 1-3.

    With r_ij = cos(a_i, b_j), over a global batch of K pairs:

    .. math::
        \ell^{a2b}_i = -\log \frac{\exp(r_{ii} / \tau)}{\sum_j \exp(r_{ij} / \tau)}, \qquad
        \ell^{b2a}_i = -\log \frac{\exp(r_{ii} / \tau)}{\sum_j \exp(r_{ji} / \tau)}

        L = \frac{1}{K} \sum_i \lambda \, \ell^{a2b}_i + (1 - \lambda) \, \ell^{b2a}_i

    ETP is :math:`\lambda = 1/2`. As in both papers' references (CLIP) the denominator holds the positive;
    MMCL Eq. 2 prints it without, and sums where this averages.

    Args:
        a: `(B, D)` embeddings of one modality, of any length (normalised here).
        b: `(B, D)` embeddings of the other; row i is the partner of `a[i]`.
        temperature: tau > 0, a number or a learnable 0-dim tensor.
        weight: lambda in [0, 1], the share of the direction a -> b.
        gather: Join the ranks' batches. False where every rank already holds all pairs, as in validation.

    Returns:
        0-dim loss, at least 0; log K when all embeddings coincide.

    Raises:
        ValueError: if the shapes differ or are not `(B, D)`, if the global batch holds fewer than two pairs,
            if the ranks' batch sizes differ, or if temperature or weight is out of range.

    Example:
        >>> clip_loss(torch.ones(8, 4), torch.ones(8, 4), temperature=0.07)  # log 8
        tensor(2.0794)
    """
    _check(a, b, temperature)
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}.")
    with torch.autocast(a.device.type, enabled=False):
        a, b = _unit(a), _unit(b)
        all_a, all_b, own = _global_batch(a, b, gather)
        a2b = F.cross_entropy(a @ all_b.T / temperature, own)
        b2a = F.cross_entropy(b @ all_a.T / temperature, own)
        return weight * a2b + (1 - weight) * b2a


def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float | Tensor, gather: bool = True) -> Tensor:
    r"""SimCLR's normalised temperature-scaled cross entropy (Chen et al. 2020, Eq. 1 and Algorithm 1).

    The K pairs of views give 2K embeddings z. With s_ij = cos(z_i, z_j) and p(i) the other view of i:

    .. math::
        L = -\frac{1}{2K} \sum_{i=1}^{2K} \log
            \frac{\exp(s_{i\,p(i)} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)}

    Args:
        z1: `(B, D)` embeddings of the first views, of any length (normalised here).
        z2: `(B, D)` embeddings of the second views; row i shows the same sample as `z1[i]`.
        temperature: tau > 0, a number or a learnable 0-dim tensor.
        gather: Join the ranks' batches; see `clip_loss`.

    Returns:
        0-dim loss, at least 0; log(2K - 1) when all embeddings coincide.

    Raises:
        ValueError: as `clip_loss`.

    Example:
        >>> nt_xent_loss(torch.ones(8, 4), torch.ones(8, 4), temperature=0.1)  # log 15
        tensor(2.7081)
    """
    _check(z1, z2, temperature)
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = _unit(z1), _unit(z2)
        all_z1, all_z2, own = _global_batch(z1, z2, gather)
        # Columns: all first, then all second views. Rows: this rank's first, then its second views.
        itself = torch.cat([own, own + len(all_z1)])
        other_view = torch.cat([own + len(all_z1), own])
        logits = torch.cat([z1, z2]) @ torch.cat([all_z1, all_z2]).T / temperature
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        return F.cross_entropy(logits, other_view)


@torch.no_grad()
def retrieval_accuracy(a: Tensor, b: Tensor) -> Tensor:
    """Share of rows whose most similar row of the other side (cosine) is their partner, over both directions.

    For logging: it looks at this process's batch only, so chance is 1 / B with the B of one rank.

    Args:
        a: `(B, D)`.
        b: `(B, D)`; row i is the partner of `a[i]`.

    Returns:
        0-dim float32 in [0, 1].

    Raises:
        ValueError: if the shapes differ or are not `(B, D)`.

    Example:
        >>> retrieval_accuracy(torch.eye(4), torch.eye(4)[[0, 1, 3, 2]])
        tensor(0.5000)
    """
    check_pairs(a, b)
    with torch.autocast(a.device.type, enabled=False):
        similarity = _unit(a) @ _unit(b).T
    partner = torch.arange(len(a), device=a.device)
    hits = torch.cat([similarity.argmax(1) == partner, similarity.argmax(0) == partner])
    return hits.float().mean()


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


def _global_batch(a: Tensor, b: Tensor, gather: bool) -> tuple[Tensor, Tensor, Tensor]:
    """All ranks' `a` and `b`, each `(K, D)`, and the positions `(B,)` of this rank's rows in them."""
    all_a, all_b = a, b
    if gather:
        all_a, all_b = gather_with_grad(torch.cat([a, b], dim=1)).chunk(2, dim=1)  # one collective for both
    if len(all_a) < 2:
        raise ValueError(
            "A contrastive loss needs at least 2 pairs in the global batch, got 1: there are no negatives. "
            "Raise batch_size or set drop_last=True."
        )
    rank = rank_and_world_size()[0] if gather else 0
    return all_a, all_b, rank * len(a) + torch.arange(len(a), device=a.device)


def _check(a: Tensor, b: Tensor, temperature: float | Tensor) -> None:
    check_pairs(a, b)
    if isinstance(temperature, Tensor) and temperature.ndim:
        raise ValueError(f"temperature must be a number or a 0-dim tensor, got shape {tuple(temperature.shape)}.")
    value = temperature.item() if isinstance(temperature, Tensor) else temperature
    if not 0 < value < math.inf:  # also catches NaN
        raise ValueError(f"temperature must be a finite number above 0, got {value}.")


def check_pairs(a: Tensor, b: Tensor) -> None:
    """Raise a ValueError unless `a` and `b` are paired embeddings `(B, D)`."""
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"Expected two paired embeddings of one shape (B, D), got {tuple(a.shape)} and {tuple(b.shape)}."
        )
