import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.losses import barlow_twins_loss
from tests.processes import WORLD_SIZE, rows_of

GLOBAL_BATCH = 8


def oracle(z1: np.ndarray, z2: np.ndarray, lambda_: float) -> float:
    """Eqs. 1 and 2 of the paper with loops, the matrix made entry by entry; 1e-5 is beside the variance."""
    batch, dim = z1.shape

    def centred(z: np.ndarray, i: int) -> list[float]:
        mean = sum(z[b, i] for b in range(batch)) / batch
        return [z[b, i] - mean for b in range(batch)]

    def length(column: list[float]) -> float:
        return math.sqrt(sum(value * value for value in column) + batch * 1e-5)

    loss = 0.0
    for i in range(dim):
        for j in range(dim):
            a, b = centred(z1, i), centred(z2, j)
            c = sum(x * y for x, y in zip(a, b, strict=True)) / length(a) / length(b)
            loss += (1 - c) ** 2 if i == j else lambda_ * c**2
    return loss


def pair(batch: int, dim: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Two noisy views; the halves of the batch have other means, so that a rank's own statistics would be others."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    z[batch // 2 :] += 2
    other = z + torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return (3 * z + 1).to(dtype), other.to(dtype)


@pytest.mark.parametrize(("batch", "dim"), [(GLOBAL_BATCH, 5), (4, 9), (2, 3)])
@pytest.mark.parametrize("lambda_", [0.005, 0.7, 0.0])
def test_value_is_the_papers_equation(batch: int, dim: int, lambda_: float) -> None:
    z1, z2 = pair(batch, dim)
    expected = oracle(z1.numpy(), z2.numpy(), lambda_)
    assert barlow_twins_loss(z1, z2, lambda_).item() == pytest.approx(expected, rel=1e-12)
    # The off-diagonal part is a difference of sums; float32 must not lose it.
    assert barlow_twins_loss(z1.float(), z2.float(), lambda_).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_that_of_the_equation_for_both_views() -> None:
    z1, z2 = (x.requires_grad_() for x in pair(4, 3))
    barlow_twins_loss(z1, z2, 0.3).backward()
    views = [z1.detach().numpy().copy(), z2.detach().numpy().copy()]
    for view, z in zip(views, (z1, z2), strict=True):
        expected, step = np.empty_like(view), 1e-6
        for index in np.ndindex(*view.shape):
            value = view[index]
            view[index] = value + step
            above = oracle(*views, 0.3)
            view[index] = value - step
            expected[index] = (above - oracle(*views, 0.3)) / (2 * step)
            view[index] = value
        np.testing.assert_allclose(z.grad.numpy(), expected, rtol=0, atol=1e-7)


def test_a_collapse_costs_one_a_coordinate_and_has_finite_gradients() -> None:
    z1, z2 = (torch.full((6, 5), value, requires_grad=True) for value in (0.3, 7.1))
    loss = barlow_twins_loss(z1, z2)
    loss.backward()
    assert loss.item() == pytest.approx(5, abs=1e-3)
    assert torch.isfinite(z1.grad).all()


def test_scale_and_mean_of_a_coordinate_do_not_matter() -> None:
    z1, z2 = pair(8, 4)
    moved = z1 * torch.tensor([2.0, 5.0, 1.0, 3.0]) + 4
    assert barlow_twins_loss(moved, z2).item() == pytest.approx(barlow_twins_loss(z1, z2).item(), rel=1e-4)


def test_half_precision_is_computed_in_float32_and_is_finite() -> None:
    z1, z2 = pair(8, 64, torch.bfloat16)
    expected = oracle(z1.double().numpy(), z2.double().numpy(), 0.005)
    with torch.autocast("cpu", torch.bfloat16):
        loss = barlow_twins_loss(z1.requires_grad_(), z2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.isfinite(z1.grad).all()


@pytest.mark.parametrize(
    ("shape", "lambda_", "message"),
    [
        ((1, 3), 0.1, "Barlow Twins needs at least 2 samples in the global batch, got 1: nothing can correlate. "
                      "Raise batch_size or set drop_last=True."),
        ((4, 3), -0.1, "lambda_ must be at least 0, got -0.1."),
        ((4, 3), math.nan, "lambda_ must be at least 0, got nan."),
        ((4,), 0.1, "Expected two paired embeddings of one shape (B, D), got (4,) and (4,)."),
    ],
)  # fmt: skip
def test_bad_input_is_named(shape: tuple[int, ...], lambda_: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        barlow_twins_loss(torch.ones(shape), torch.ones(shape), lambda_)


def test_the_papers_width_needs_no_matrix_of_its_square() -> None:
    """8,192 x 8,192 float32 values are 268 MB; a batch of 16 makes nothing larger than its embeddings."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    z1, z2 = (torch.randn(16, 8192, requires_grad=True) for _ in range(2))
    with Watch():
        barlow_twins_loss(z1, z2).backward()
    assert largest == 2 * z1.numel()


def worker(rank: int) -> tuple[float, Tensor | None, Tensor | None, float]:
    own = rows_of(rank, GLOBAL_BATCH)
    z1, z2 = (x[own].clone().requires_grad_() for x in pair(GLOBAL_BATCH, 5))
    loss = barlow_twins_loss(z1, z2, 0.3)
    loss.backward()
    alone = barlow_twins_loss(z1, z2, 0.3, gather=False)
    return loss.item(), z1.grad, z2.grad, alone.item()


def test_two_processes_give_the_loss_and_gradient_of_the_joined_batch(two_processes: Callable[..., list[Any]]) -> None:
    losses, grads1, grads2, alone = zip(*two_processes(worker), strict=True)
    z1, z2 = (x.requires_grad_() for x in pair(GLOBAL_BATCH, 5))
    joined = barlow_twins_loss(z1, z2, 0.3)
    joined.backward()
    assert losses == pytest.approx([joined.item()] * WORLD_SIZE, abs=1e-10)
    # The sum of the ranks' losses is differentiated; DDP divides by the world size.
    torch.testing.assert_close(torch.cat(grads1) / WORLD_SIZE, z1.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cat(grads2) / WORLD_SIZE, z2.grad, rtol=0, atol=1e-10)
    halves = [tuple(x.detach().chunk(WORLD_SIZE)[rank] for x in (z1, z2)) for rank in range(WORLD_SIZE)]
    assert alone == pytest.approx([barlow_twins_loss(a, b, 0.3).item() for a, b in halves], abs=1e-10)
