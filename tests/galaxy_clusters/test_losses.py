"""The votes' likelihood against scipy's and against a loop over questions, with gradients; the bottleneck."""

import numpy as np
import pytest
import torch
from scipy.stats import dirichlet_multinomial
from torch import Tensor

from galaxy_clusters.losses import expected_fractions, votes_nll
from galaxy_clusters.model.bottleneck import Bottleneck
from shared.backbones import Pixels

SIZES = [3, 4, 2, 5]
RNG = np.random.default_rng(0)


def drawn(batch: int = 6) -> tuple[Tensor, Tensor]:
    """Concentrations in (1, 101) and votes, some questions without any."""
    alpha = torch.from_numpy(1 + 100 * RNG.random((batch, sum(SIZES)))).requires_grad_()
    votes = torch.from_numpy(RNG.integers(0, 20, (batch, sum(SIZES))))
    votes[0, :3] = 0
    votes[1] = 0
    return alpha, votes


def loop(alpha: Tensor, votes: Tensor) -> Tensor:
    """Question by question, from factorials as sums of logarithms."""

    def log_factorial(n: int) -> float:
        return float(np.log(np.arange(1, n + 1)).sum())

    rows = []
    for a, k in zip(alpha, votes, strict=True):
        found = []
        for part, counts in zip(a.split(SIZES), k.split(SIZES), strict=True):
            rising = sum(
                (part[answer] + step).log() for answer, count in enumerate(counts.tolist()) for step in range(count)
            )
            whole = sum((part.sum() + step).log() for step in range(int(counts.sum())))
            ways = log_factorial(int(counts.sum())) - sum(log_factorial(count) for count in counts.tolist())
            found.append(-(ways + rising - whole) + 0 * part.sum())
        rows.append(torch.stack(found))
    return torch.stack(rows)


def test_the_likelihood_is_the_dirichlet_multinomials_with_its_gradient() -> None:
    alpha, votes = drawn()
    found = votes_nll(alpha, votes, SIZES)
    a, k = alpha.detach().numpy(), votes.numpy()
    ends = np.cumsum(SIZES)
    for row in range(len(a)):
        for question, (start, end) in enumerate(zip(ends - SIZES, ends, strict=True)):
            counts = k[row, start:end]
            expected = -dirichlet_multinomial.logpmf(counts, a[row, start:end], counts.sum())
            assert found[row, question].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found[1].abs().max() == found[0, 0].abs() == 0  # nobody was asked
    (gradient,) = torch.autograd.grad(found.sum(), alpha)
    theirs = loop(alpha, votes)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs.sum(), alpha)[0], rtol=0, atol=1e-10)


def test_half_precision_is_lifted_to_float32() -> None:
    alpha, votes = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        found = votes_nll(alpha.float(), votes, SIZES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), votes_nll(alpha, votes, SIZES), rtol=0, atol=2e-3)


def test_expected_fractions_add_up_to_1_in_every_question() -> None:
    fractions = expected_fractions(drawn()[0], SIZES)
    sums = torch.stack([part.sum(1) for part in fractions.split(SIZES, dim=1)])
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"questions with 14 answers do not fit concentrations \(6, 13\) and votes"):
        votes_nll(drawn()[0][:, :-1], drawn()[1], SIZES)


def test_a_frozen_encoder_below_a_bottleneck_stays_as_it_is() -> None:
    below = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), Pixels(4, cells=2))
    below.out_dim = 16  # type: ignore[assignment]
    net = Bottleneck(below, dim=5)
    net.frozen = True
    net.train()
    before = below[1].running_mean.clone()
    net(torch.rand(4, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is None for parameter in below.parameters())
    assert torch.equal(below[1].running_mean, before)
    assert net.project[0].weight.grad is not None
    net.frozen = False
    net.train()
    net(torch.rand(4, 3, 8, 8)).pow(2).sum().backward()
    assert below[0].weight.grad is not None
    assert not torch.equal(below[1].running_mean, before)


def test_stored_images_are_zoomed_and_augmented_ones_are_not() -> None:
    below = Pixels(3, cells=2)
    net = Bottleneck(below, dim=8, zoom=1.5)
    stored = torch.randint(256, (2, 3, 12, 12), dtype=torch.uint8)
    torch.testing.assert_close(net(stored), net(stored[..., 2:10, 2:10].float() / 255))
    assert not torch.allclose(net(stored), net(stored.float() / 255))
    torch.testing.assert_close(net.wide(stored), below(stored[..., 2:10, 2:10]))
    full = Bottleneck(below, dim=0, zoom=1.5)
    assert full.out_dim == 12
    torch.testing.assert_close(full(stored), net.wide(stored))
    with pytest.raises(ValueError, match=r"zoom must be at least 1, got 0\.9"):
        Bottleneck(below, zoom=0.9)
