import math
import re

import numpy as np
import pytest
import torch

from shared.losses import negative_cosine


def oracle(p: np.ndarray, z: np.ndarray) -> float:
    """SimSiam Eq. 1, averaged over the batch, with loops."""
    total = 0.0
    for row_p, row_z in zip(p, z, strict=True):
        dot = sum(a * b for a, b in zip(row_p, row_z, strict=True))
        total -= dot / math.sqrt(sum(a * a for a in row_p)) / math.sqrt(sum(b * b for b in row_z))
    return total / len(p)


def pair(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    p = 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return p.to(dtype), (p + torch.randn(6, 5, generator=generator, dtype=torch.float64)).to(dtype)


def test_value_is_the_papers_equation() -> None:
    p, z = pair()
    assert negative_cosine(p, z).item() == pytest.approx(oracle(p.numpy(), z.numpy()), abs=1e-12)


def test_gradient_flows_to_the_predictions_alone_and_is_that_of_the_equation() -> None:
    p, z = (x.requires_grad_() for x in pair())
    negative_cosine(p, z).backward()
    assert z.grad is None
    values, target, step = p.detach().numpy().copy(), z.detach().numpy(), 1e-6
    expected = np.empty_like(values)
    for index in np.ndindex(*values.shape):
        above, below = values.copy(), values.copy()
        above[index] += step
        below[index] -= step
        expected[index] = (oracle(above, target) - oracle(below, target)) / (2 * step)
    np.testing.assert_allclose(p.grad.numpy(), expected, rtol=0, atol=1e-8)


def test_the_extremes() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    assert negative_cosine(x, 5 * x).item() == pytest.approx(-1)
    assert negative_cosine(x, -x).item() == pytest.approx(1)
    assert negative_cosine(torch.zeros(4, 3), torch.zeros(4, 3)).item() == 0  # a collapse to zero is no NaN


def test_half_precision_is_computed_in_float32_and_is_finite() -> None:
    p, z = pair(torch.bfloat16)
    expected = oracle(p.double().numpy(), z.double().numpy())
    with torch.autocast("cpu", torch.bfloat16):
        loss = negative_cosine(p.requires_grad_(), z)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize(("p", "z"), [((4, 3), (4, 2)), ((4, 3), (3, 3)), ((3,), (3,))])
def test_shapes_that_do_not_pair_are_named(p: tuple[int, ...], z: tuple[int, ...]) -> None:
    message = f"Expected two paired embeddings of one shape (B, D), got {p} and {z}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        negative_cosine(torch.ones(p), torch.ones(z))
