"""The loss of volunteers' votes, with which Galaxy Zoo's encoders are trained.

Shapes: B galaxies, A answers of Q questions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def votes_nll(concentration: Tensor, votes: Tensor, sizes: Sequence[int]) -> Tensor:
    r"""Negative log-likelihood of the votes on every question, a Dirichlet-multinomial (Walmsley et al. 2022).

    .. math:: -\ln \left[ \binom{N}{k} \frac{B(k + \alpha)}{B(\alpha)} \right], \quad N = \sum_a k_a

    A question that nobody answered contributes exactly 0. All questions are computed at once.

    Args:
        concentration: `(B, A)`, :math:`\alpha > 0` of every answer, the answers of a question side by side.
        votes: `(B, A)`, numbers of votes :math:`k`, 0 where a question was not asked.
        sizes: `(Q,)`, number of answers of each question.

    Returns:
        `(B, Q)`, in float32 or better whatever the arguments' precision.

    Raises:
        ValueError: The questions do not have A answers together.

    Example:
        >>> votes_nll(torch.ones(1, 2), torch.tensor([[3.0, 1.0]]), [2]).exp()  # at 1, 1 all five outcomes are alike
        tensor([[5.]])
    """
    if sum(sizes) != concentration.shape[1] or concentration.shape != votes.shape:
        raise ValueError(
            f"questions with {sum(sizes)} answers do not fit concentrations {tuple(concentration.shape)} and votes "
            f"{tuple(votes.shape)}"
        )
    with torch.autocast(concentration.device.type, enabled=False):  # lgamma of close numbers needs all the digits
        alpha = concentration if concentration.dtype == torch.float64 else concentration.float()
        k = votes.to(alpha)
        asked = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes))).to(k.device)
        answers = torch.stack([torch.lgamma(alpha + k) - torch.lgamma(alpha) - torch.lgamma(k + 1), alpha, k])
        known, total_alpha, total = answers.new_zeros(3, len(k), len(sizes)).index_add(2, asked, answers)
        found: Tensor = known + torch.lgamma(total + 1) + torch.lgamma(total_alpha) - torch.lgamma(total + total_alpha)
        return -found


def expected_fractions(concentration: Tensor, sizes: Sequence[int]) -> Tensor:
    """Expected share of each answer among the votes on its question, `(B, A)`.

    Args:
        concentration: As for `votes_nll`.
        sizes: As for `votes_nll`.
    """
    parts = concentration.split(list(sizes), dim=1)
    return torch.cat([part / part.sum(1, keepdim=True) for part in parts], dim=1)
