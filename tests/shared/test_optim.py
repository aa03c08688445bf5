"""The warm-up and cosine schedule as an optimizer sees it."""

import math

import pytest
import torch

from shared.optim import warmup_cosine


def rates(warmup: int, total: int, steps: int, lr: float = 0.4) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = warmup_cosine(optimizer, warmup, total)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_the_rate_of_every_step() -> None:
    cosine = [0.4 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates(4, 10, 13) == pytest.approx([0.1, 0.2, 0.3, 0.4, *cosine, 0, 0, 0], abs=1e-12)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert rates(0, 4, 5) == pytest.approx(
        [0.4, 0.4 * (1 + math.cos(math.pi / 4)) / 2, 0.2, 0.4 * (1 - math.cos(math.pi / 4)) / 2, 0], abs=1e-12
    )


def test_a_training_that_is_all_warm_up_is_no_division_by_zero() -> None:
    assert rates(3, 3, 4) == pytest.approx([0.4 / 3, 0.8 / 3, 0.4, 0.4])
