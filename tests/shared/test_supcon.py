"""Supervised contrast between modalities against the written equations, in both directions.

Two processes against one are in test_info_nce.py, which spawns them once for all contrastive losses.
"""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from torch import Tensor

from shared.losses import clip_loss, supcon_loss

LABELS = [2, 0, -1, 2, 0, 2, -1, 5]


def oracle(a: np.ndarray, b: np.ndarray, labels: list[int], tau: float, weight: float) -> float:
    """MMCL 4.6 with Khosla et al.'s Eq. 2, in loops over rows, positives and columns."""

    def direction(x: np.ndarray, y: np.ndarray) -> float:
        total = 0.0
        for i in range(len(x)):
            similarity = [
                float(x[i] @ y[j]) / math.sqrt(float(x[i] @ x[i]) * float(y[j] @ y[j])) for j in range(len(y))
            ]
            normaliser = sum(math.exp(value / tau) for value in similarity)
            positives = [j for j in range(len(y)) if j == i or (labels[j] == labels[i] and labels[i] != -1)]
            total -= sum(math.log(math.exp(similarity[p] / tau) / normaliser) for p in positives) / len(positives)
        return total / len(x)

    return weight * direction(a, b) + (1 - weight) * direction(b, a)


def embeddings(batch: int = len(LABELS), dim: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64).to(dtype)
    return a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("tau", [0.07, 0.5])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_value_and_gradients_equal_the_written_equations(weight: float, tau: float) -> None:
    """At weight 0 (table to image alone) and 1 (image to table alone) too: each direction is trained by itself."""
    a, b = embeddings()
    value = supcon_loss(a, b, torch.tensor(LABELS), tau, weight)
    value.backward()
    x = torch.stack([a, b]).detach().numpy()
    assert value.item() == pytest.approx(oracle(*x, LABELS, tau, weight), rel=1e-12)
    expected = approx_fprime(x.ravel(), lambda flat: oracle(*flat.reshape(x.shape), LABELS, tau, weight), 1e-7)
    np.testing.assert_allclose(torch.stack([a.grad, b.grad]).numpy().ravel(), expected, rtol=1e-4, atol=1e-5)


def test_lambda_matters_and_is_the_share_of_the_direction_a_to_b() -> None:
    a, b = embeddings()
    labels = torch.tensor(LABELS)
    a2b, b2a = (supcon_loss(a, b, labels, 0.1, weight).item() for weight in (1.0, 0.0))
    assert abs(a2b - b2a) > 0.1
    assert supcon_loss(a, b, labels, 0.1, 0.2).item() == pytest.approx(0.2 * a2b + 0.8 * b2a, rel=1e-12)
    assert supcon_loss(b, a, labels, 0.1, 0.2).item() == pytest.approx(0.2 * b2a + 0.8 * a2b, rel=1e-12)


def test_without_two_labels_alike_it_is_the_clip_loss() -> None:
    a, b = embeddings()
    expected = clip_loss(a, b, 0.1, weight=0.3).item()
    for labels in (torch.arange(len(a)), torch.full((len(a),), -1)):
        assert supcon_loss(a, b, labels, 0.1, weight=0.3).item() == pytest.approx(expected, rel=1e-12)


def test_closed_form_values() -> None:
    same = torch.ones(16, 4, dtype=torch.float64)
    assert supcon_loss(same, same, torch.arange(16) // 4, 0.07).item() == pytest.approx(math.log(16), abs=1e-12)
    # Four classes of four at one point each, orthogonal to the others: positives at exp(1 / tau), negatives at 1.
    apart = torch.eye(4, dtype=torch.float64).repeat_interleave(4, 0)
    expected = math.log(4 + 12 * math.exp(-2))
    assert supcon_loss(apart, apart, torch.arange(16) // 4, 0.5).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("batch", "tau"), [(512, 0.05), (16, 1e-3)])  # exp(1 / 1e-3) overflows even float64
def test_value_and_gradient_are_finite_at_low_temperature_in_bf16(batch: int, tau: float) -> None:
    a, b = embeddings(batch, 32, torch.bfloat16)
    labels = torch.arange(batch) % 5 - 1
    value = supcon_loss(a, b, labels, tau)
    value.backward()
    assert value.dtype == torch.float32
    assert all(x.isfinite().all() for x in (value, a.grad, b.grad))
    assert a.grad.abs().sum() > 0
    assert value.item() == pytest.approx(supcon_loss(a.double(), b.double(), labels, tau).item(), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert supcon_loss(a, b, labels, tau).item() == value.item()


def test_a_class_gathers_across_the_modalities() -> None:
    a, b = embeddings(12, 8)
    labels = torch.arange(12) // 4
    optimizer = torch.optim.SGD([a, b], lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        supcon_loss(a, b, labels, 0.1).backward()
        optimizer.step()
    similarity = torch.cosine_similarity(a[:, None], b, dim=2)
    alike = labels[:, None] == labels
    assert similarity[alike].min() > similarity[~alike].max() + 0.3


@pytest.mark.parametrize(
    ("shape", "temperature", "weight", "message"),
    [
        ((4, 3), 0.0, 0.5, "temperature must be a finite number above 0, got 0.0."),
        ((4, 3), 0.1, -0.1, "weight must lie in [0, 1], got -0.1."),
        ((3, 3), 0.1, 0.5, "Expected two paired embeddings of one shape (B, D), got (3, 3) and (4, 3)."),
    ],
)
def test_bad_input_is_named(shape: tuple[int, int], temperature: float, weight: float, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        supcon_loss(torch.ones(shape), torch.ones(4, 3), torch.arange(len(torch.ones(shape))), temperature, weight)
    assert str(error.value) == message
