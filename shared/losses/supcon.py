"""Supervised contrastive learning between two modalities, over the global batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.losses.info_nce import pair_logits, same_class


def supcon_loss(
    a: Tensor, b: Tensor, labels: Tensor, temperature: float | Tensor, weight: float = 0.5, gather: bool = True
) -> Tensor:
    r"""All pairs of the same class attract: MMCL section 4.6, with Khosla et al. 2020, Eq. 2 (the sum outside the log).

    With r_ij = cos(a_i, b_j) over a global batch of K pairs, and P(i) the set of all j of row i's class, i included:

    .. math::
        \ell^{a2b}_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log
            \frac{\exp(r_{ip} / \tau)}{\sum_j \exp(r_{ij} / \tau)}, \qquad
        \ell^{b2a}_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log
            \frac{\exp(r_{pi} / \tau)}{\sum_j \exp(r_{ji} / \tau)}

        L = \frac{1}{K} \sum_i \lambda \, \ell^{a2b}_i + (1 - \lambda) \, \ell^{b2a}_i

    Khosla et al. contrast all views with each other and so leave out the sample itself; between two modalities the
    partner is another embedding, so it is included. Each direction has its own normaliser, over rows or columns of r.
    (The authors' public code transposes that of the first direction for the second, so that lambda has no effect.)

    As in `shared.losses.info_nce`, the value is the mean over this rank's rows, its mean over ranks is the loss of the
    joined batch, and it is computed in float32 (float64 for float64 inputs), even inside bf16 autocast.

    Args:
        a: `(B, D)` embeddings of one modality, of any length (normalised here).
        b: `(B, D)` embeddings of the other; row i is the partner of `a[i]`.
        labels: `(B,)` integer classes. A row of class -1 has no label, and its partner is its only positive.
        temperature: tau > 0, a number or a learnable 0-dim tensor.
        weight: lambda in [0, 1], the share of the direction a -> b.
        gather: Whether to join the ranks' batches, see `clip_loss`.

    Returns:
        0-dim loss, at least 0; log K if all embeddings coincide. If all labels differ, it equals `clip_loss`.

    Raises:
        ValueError: As for `clip_loss`.

    Example:
        >>> a = torch.eye(2)[[0, 0, 1, 1]]  # one direction per class
        >>> supcon_loss(a, a, torch.tensor([0, 0, 1, 1]), temperature=0.1)  # the least it can be: log 2
        tensor(0.6932)
    """
    with torch.autocast(a.device.type, enabled=False):
        a2b, b2a, own = pair_logits(a, b, temperature, weight, gather)
        positives = same_class(labels, len(a), gather).scatter(1, own[:, None], True).to(a2b.dtype)
        share = positives / positives.sum(1, keepdim=True)
        return weight * F.cross_entropy(a2b, share) + (1 - weight) * F.cross_entropy(b2a, share)
