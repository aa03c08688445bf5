"""InfoNCE in the CLIP form (two modalities) and the NT-Xent form (two views), over the global batch.

Under `torch.distributed` every rank scores its own rows against the columns of all ranks. The returned value
is the mean over this rank's rows: its mean over ranks is the loss of the joined batch, and DDP's averaged
gradient is the gradient of that loss (see `shared.distributed.gather_with_grad`).

Similarities and losses are computed in float32 (float64 for float64 inputs), even inside bf16 autocast.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.distributed import gather_with_grad, rank_and_world_size


def clip_loss(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor,
    weight: float = 0.5,
    gather: bool = True,
    labels: Tensor | None = None,
    positive_in_denominator: bool = True,
) -> Tensor:
    r"""Symmetric InfoNCE between two modalities: ETP Eqs. 3-5, MMCL Eqs. 1-3.

    With r_ij = cos(a_i, b_j), over a global batch of K pairs:

    .. math::
        \ell^{a2b}_i = -\log \frac{\exp(r_{ii} / \tau)}{\sum_j \exp(r_{ij} / \tau)}, \qquad
        \ell^{b2a}_i = -\log \frac{\exp(r_{ii} / \tau)}{\sum_j \exp(r_{ji} / \tau)}

        L = \frac{1}{K} \sum_i \lambda \, \ell^{a2b}_i + (1 - \lambda) \, \ell^{b2a}_i

    For ETP :math:`\lambda = 1/2`. As in both papers' references (CLIP) the denominator includes the positive; MMCL Eq.
    2 is printed without it, and with a sum in place of the mean.

    With `labels` the false negatives are eliminated (MMCL section 4.6 and Table 3): the denominators lose every
    j != i of row i's class. The positive is still only the pair itself.

    A row has no negative left only if the whole global batch has the same class. With the positive in the denominator
    its loss is then 0, as the equation says. Without it the equation has no value, and the row is left out of the mean;
    since this happens to all rows at once, the result is 0 too, with a gradient of 0: such a batch teaches nothing.

    Args:
        a: `(B, D)` embeddings of one modality, of any length (normalised here).
        b: `(B, D)` embeddings of the other; row i is the partner of `a[i]`.
        temperature: tau > 0, a number or a learnable 0-dim tensor.
        weight: lambda in [0, 1], the share of the direction a -> b.
        gather: Whether to join the ranks' batches; False if every rank already holds all pairs, as in validation.
        labels: `(B,)` integer classes, to eliminate false negatives. A row of class -1 has no label: it is a negative
            of every other row, and every other row is one of its negatives.
        positive_in_denominator: Whether the denominators include j = i; False is MMCL Eq. 2 as printed.

    Returns:
        0-dim loss, at least 0; log K if all embeddings coincide. Without the positive in the denominator it may be
        negative, and coinciding embeddings give log(K - 1).

    Raises:
        ValueError: The shapes differ or are not `(B, D)`, the global batch holds fewer than two pairs, the ranks' batch
            sizes differ, temperature or weight is out of range, or the labels are not `(B,)` integers.

    Example:
        >>> clip_loss(torch.ones(8, 4), torch.ones(8, 4), temperature=0.07)  # log 8
        tensor(2.0794)
        >>> clip_loss(torch.ones(8, 4), torch.ones(8, 4), 0.07, labels=torch.arange(8) // 2)  # pairs of a class: log 7
        tensor(1.9459)
    """
    with torch.autocast(a.device.type, enabled=False):
        a2b, b2a, own = pair_logits(a, b, temperature, weight, gather)
        left_out = None
        if labels is not None or not positive_in_denominator:
            same = torch.zeros_like(a2b, dtype=torch.bool) if labels is None else same_class(labels, len(a), gather)
            left_out = same.scatter(1, own[:, None], not positive_in_denominator)
        return weight * _cross_entropy(a2b, own, left_out) + (1 - weight) * _cross_entropy(b2a, own, left_out)


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
        gather: Whether to join the ranks' batches, see `clip_loss`.

    Returns:
        0-dim loss, at least 0; log(2K - 1) if all embeddings coincide.

    Raises:
        ValueError: As for `clip_loss`.

    Example:
        >>> nt_xent_loss(torch.ones(8, 4), torch.ones(8, 4), temperature=0.1)  # log 15
        tensor(2.7081)
    """
    _check(z1, z2, temperature)
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = _unit(z1), _unit(z2)
        all_z1, all_z2, own = _global_batch(z1, z2, gather)
        # Columns are all first views, then all second views; rows are this rank's first views, then its second ones.
        itself = torch.cat([own, own + len(all_z1)])
        other_view = torch.cat([own + len(all_z1), own])
        logits = torch.cat([z1, z2]) @ torch.cat([all_z1, all_z2]).T / temperature
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        return F.cross_entropy(logits, other_view)


@torch.no_grad()
def retrieval_accuracy(a: Tensor, b: Tensor) -> Tensor:
    """Share of rows whose most similar row (by cosine) on the other side is their partner, over both directions.

    This is for logging: it only looks at this process's batch, so chance is 1 / B with the B of one rank.

    Args:
        a: `(B, D)` embeddings of one side.
        b: `(B, D)` embeddings of the other; row i is the partner of `a[i]`.

    Returns:
        0-dim float32 in [0, 1].

    Raises:
        ValueError: The shapes differ or are not `(B, D)`.

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


def pair_logits(
    a: Tensor, b: Tensor, temperature: float | Tensor, weight: float, gather: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities, divided by the temperature, of this rank's rows to all partners, for a loss in two directions.

    Call it with autocast off. Arguments and errors are those of `clip_loss`.

    Returns:
        `(B, K)` logits of a -> b, `(B, K)` logits of b -> a, and `(B,)` columns of the rows' own partners.
    """
    _check(a, b, temperature)
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}.")
    a, b = _unit(a), _unit(b)
    all_a, all_b, own = _global_batch(a, b, gather)
    return a @ all_b.T / temperature, b @ all_a.T / temperature, own


def same_class(labels: Tensor, batch_size: int, gather: bool) -> Tensor:
    """`(B, K)` bool: whether this rank's row i and column j of the global batch share a class.

    A negative label is not a class: a row that has one shares it with no row, not even itself.

    Raises:
        ValueError: The labels are not `(B,)` integers.
    """
    if labels.shape != (batch_size,) or labels.is_floating_point():
        raise ValueError(
            f"labels must be integers of shape ({batch_size},), one a pair, got {labels.dtype} {tuple(labels.shape)}."
        )
    all_labels = gather_with_grad(labels) if gather else labels
    return (labels[:, None] == all_labels) & (labels[:, None] >= 0)


def _cross_entropy(logits: Tensor, own: Tensor, left_out: Tensor | None) -> Tensor:
    """Mean of -log softmax at `own`, without the columns `left_out` `(B, K)` in the denominators."""
    if left_out is None:
        return F.cross_entropy(logits, own)
    denominator = logits.masked_fill(left_out, -torch.inf).logsumexp(1)
    losses = denominator - logits.gather(1, own[:, None])[:, 0]
    # A row has no denominator only if the global batch has a single class; then no row of any rank has one.
    return losses.masked_fill(left_out.all(1), 0).mean()


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
