"""The orthonormal cosine transform (DCT-II), in which images have nearly independent coefficients."""

import math

import torch
from torch import Tensor


def cosine_transform(n: int) -> Tensor:
    """The matrix `(n, n)` of the transform of n numbers, float64: coefficients are `matrix @ numbers`.

    Example:
        >>> matrix = cosine_transform(4)
        >>> torch.allclose(matrix @ matrix.mT, torch.eye(4, dtype=torch.float64))
        True
    """
    place = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * place[:, None] * (place + 0.5)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
