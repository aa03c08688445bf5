"""The negative cosine of SimSiam and BYOL, which train without negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.losses.info_nce import check_pairs


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    r"""The negative mean cosine of predictions and their targets; no gradient flows to the targets.

    This is SimSiam's D (Chen & He 2021, Eqs. 1 and 3); :math:`2 + 2 D` is BYOL's squared distance of unit vectors
    (Grill et al. 2020, Eq. 2):

    .. math::
        D(p, z) = -\frac{1}{B} \sum_i \frac{p_i}{\lVert p_i \rVert} \cdot
            \frac{\mathrm{stopgrad}(z_i)}{\lVert z_i \rVert}

    A sample is only compared with itself, so under DDP the mean over ranks is the joined batch's loss without a gather.
    The loss is computed in float32 (float64 for float64 inputs), even inside bf16 autocast.

    Args:
        p: `(B, D)` predictions, of any length.
        z: `(B, D)` targets, of any length, which are detached here; row i belongs to `p[i]`.

    Returns:
        0-dim loss in [-1, 1].

    Raises:
        ValueError: The shapes differ or are not `(B, D)`.

    Example:
        >>> negative_cosine(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
        tensor(-0.5000)
    """
    check_pairs(p, z)
    dtype = torch.promote_types(p.dtype, torch.float32)
    with torch.autocast(p.device.type, enabled=False):
        return -F.cosine_similarity(p.to(dtype), z.detach().to(dtype), dim=1).mean()
