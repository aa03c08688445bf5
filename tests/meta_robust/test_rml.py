"""RML against MAML, against its objective written down anew, and over chunks and processes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from meta_robust import MAML, RML
from meta_robust.environments import change, draw_kinds
from meta_robust.losses import invariance_gradient
from shared.distributed import mean_over_processes
from tests.meta_robust.nets import encoder, ready, task

SHAPE: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 4, "inner_steps": 2, "inner_lr": 0.1}
KINDS = ["identity", "invert", "contrast"]


def rml(**settings: Any) -> Any:
    return ready(RML(encoder(), **{**SHAPE, "environments": KINDS, **settings}))


def test_g_is_the_gradient_of_the_risk_with_respect_to_a_factor_of_the_logits() -> None:
    logits, labels = torch.randn(20, 5, dtype=torch.float64), torch.randint(5, (20,))
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(F.cross_entropy(factor * logits, labels), factor)
    torch.testing.assert_close(invariance_gradient(logits, labels).mean(), expected)


def test_one_unchanged_environment_without_a_penalty_is_maml() -> None:
    maml = ready(MAML(encoder(), **SHAPE))
    same = rml(environments=["identity"], count=1, pairing="same", penalty="none")
    same.load_state_dict(maml.state_dict())
    tasks = [task(seed) for seed in range(4)]
    for one, other in zip(maml.meta_gradient(tasks).gradients, same.meta_gradient(tasks).gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def objective(model: Any, tasks: list[Any], weight: float) -> Tensor:
    """Eq. 6 with the penalty of Eq. 2, written down for `cross`: adapt in one environment, predict in the other."""
    start = dict(model.net.named_parameters())
    logits: list[list[Tensor]] = [[], []]
    labels = []
    for each in tasks:
        kinds = draw_kinds(KINDS, 2, each.update_seed)
        sides = [
            [change(images, kind, each.seed + e) for images in (each.support, each.query)]
            for e, kind in enumerate(kinds)
        ]
        for e in range(2):
            adapted = start
            for _ in range(2):
                loss = F.cross_entropy(functional_call(model.net, adapted, (sides[e][0],)), each.support_label)
                found = torch.autograd.grad(loss, list(adapted.values()), create_graph=True)
                adapted = {name: value - 0.1 * g for (name, value), g in zip(adapted.items(), found, strict=True)}
            logits[1 - e].append(functional_call(model.net, adapted, (sides[1 - e][1],)))
        labels.append(each.query_label)
    total = torch.zeros((), dtype=torch.float64)
    for found in logits:
        factor = torch.ones((), dtype=torch.float64, requires_grad=True)
        risk = F.cross_entropy(factor * torch.cat(found), torch.cat(labels))
        (g,) = torch.autograd.grad(risk, factor, create_graph=True)
        total = total + (risk + weight * g**2) / 2
    return total / max(1.0, weight)


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_the_gradient_is_that_of_the_objective(weight: float) -> None:
    model, tasks = rml(penalty_weight=weight), [task(seed) for seed in range(3)]
    step = model.meta_gradient(tasks)
    value = objective(model, tasks, weight)
    assert float(step.logs["loss"]) == pytest.approx(float(value))
    for mine, expected in zip(step.gradients, torch.autograd.grad(value, model.trained()), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("penalty", ["irmv1", "irmv1_split"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_give_the_same_gradient(penalty: str, chunk: int) -> None:
    tasks = [task(seed) for seed in range(4)]
    whole = rml(penalty=penalty).meta_gradient(tasks)
    parts = rml(penalty=penalty, chunk=chunk).meta_gradient(tasks)
    for one, other in zip(whole.gradients, parts.gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_maml_differentiates_through_the_adaptation_and_batch_norm() -> None:
    model, tasks = ready(MAML(encoder(), **SHAPE)), [task(1)]
    gradients = model.meta_gradient(tasks).gradients
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in gradients]
    expected = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))

    def moved(by: float) -> float:
        with torch.no_grad():
            for parameter, step in zip(model.trained(), direction, strict=True):
                parameter += by * step
        return float(model.task_loss(tasks[0])[0])

    size = 1e-6
    high, low = moved(size), moved(-2 * size)
    assert (high - low) / (2 * size) == pytest.approx(float(expected), rel=1e-4)


def _gradients(rank: int, penalty: str, environments: list[str], pairing: str) -> list[Tensor]:
    model = rml(penalty=penalty, environments=environments, pairing=pairing)
    return mean_over_processes(model.meta_gradient([task(seed) for seed in range(2 * rank, 2 * rank + 2)]).gradients)


@pytest.mark.parametrize(
    ("penalty", "environments", "pairing"), [("irmv1", KINDS, "cross"), ("irmv1_split", [], "same")]
)
def test_two_processes_equal_one(
    two_processes: Callable[..., list[Any]], penalty: str, environments: list[str], pairing: str
) -> None:
    one = rml(penalty=penalty, environments=environments, pairing=pairing)
    expected = one.meta_gradient([task(seed) for seed in range(4)]).gradients
    for found in two_processes(_gradients, penalty, environments, pairing):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"environments": ["identity", "fog"]}, "no environment 'fog'"),
        ({"environments": ["identity", "identity"]}, "occurs twice"),
        ({"environments": ["identity"]}, "2 environments cannot be drawn from 1 kinds"),
        ({"environments": []}, "pairing cross needs at least two photometric environments"),
    ],
)
def test_wrong_environments_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RML(encoder(), **SHAPE, **settings)


def test_environments_that_look_alike_on_the_images_are_refused() -> None:
    model = RML(encoder(), **SHAPE, environments=["identity", "greyscale"])
    grey = torch.rand(8, 1, 16, 16).expand(-1, 3, -1, -1)
    with pytest.raises(ValueError, match="identity and greyscale look alike on these images"):
        model.check_environments(grey)
    model.check_environments(torch.rand(8, 3, 16, 16))
