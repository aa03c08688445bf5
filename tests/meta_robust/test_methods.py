"""Baseline's heads against CloserLook's loop, the metric methods against their equations, and what all must keep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import meta_robust
from benchmarks.rml import closer_look
from meta_robust.data.module import ImageBatch
from meta_robust.methods.matching import SCALE, matching_log_probabilities
from meta_robust.methods.prototypical import prototype_logits
from meta_robust.model.gram import HeadTraining, cosine_head_logits, linear_head_logits
from shared.distributed import mean_over_processes
from tests.meta_robust.nets import encoder, ready, task

METHODS = ["MAML", "RML", "Reptile", "MetaLearnerLSTM", "PrototypicalNetwork", "MatchingNetwork", "RelationNetwork"]


def method(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    changes = {"pooled": 2, "flatten": False} if name == "RelationNetwork" else {}
    return getattr(meta_robust, name)(encoder(**changes), ways=3, shots=2, queries=4, **settings)


@pytest.mark.parametrize("cosine", [False, True])
def test_heads_in_gram_space_equal_the_loop_over_tasks(cosine: bool) -> None:
    torch.manual_seed(1)
    tasks, ways, shots, dim = 2, 3, 3, 20
    settings = HeadTraining(epochs=20)
    support = torch.rand(tasks, ways * shots, dim, dtype=torch.float64)
    query = torch.rand(tasks, 7, dim, dtype=torch.float64)
    labels = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
    weight, bias = torch.randn(tasks, ways, dim, dtype=torch.float64), torch.randn(tasks, ways, dtype=torch.float64)
    order = settings.order(ways * shots, torch.Generator().manual_seed(1))
    if cosine:
        support, query = F.normalize(support, dim=2), F.normalize(query, dim=2)
        found = cosine_head_logits(weight, weight.norm(dim=2), support, labels, query, order, settings, 2.0)
    else:
        found = linear_head_logits(weight, bias, support, labels, query, order, settings)
    for place in range(tasks):
        other = weight[place].norm(dim=1) if cosine else bias[place]
        expected = closer_look(weight[place], other, support[place], labels[place], query[place], order, cosine)
        torch.testing.assert_close(found[place], expected, rtol=0, atol=1e-11)


def test_prototypes_are_class_means() -> None:
    support, query = torch.randn(1, 5, 6, dtype=torch.float64), torch.randn(1, 4, 6, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 0, 1, 1]])
    means = torch.stack([support[0][labels[0] == way].mean(0) for way in range(2)])
    expected = -((query[0][:, None] - means) ** 2).sum(2)
    torch.testing.assert_close(prototype_logits(support, labels, query, 2)[0], expected)


def test_matching_sums_the_attention_of_a_class() -> None:
    support, query = torch.randn(1, 4, 6, dtype=torch.float64), torch.randn(1, 3, 6, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 0, 1]])
    cosine = F.cosine_similarity(query[0][:, None], support[0], dim=2)
    attention = (SCALE * cosine).softmax(1)
    expected = torch.stack([attention[:, labels[0] == way].sum(1) for way in range(2)], 1)
    torch.testing.assert_close(matching_log_probabilities(support, labels, query, 2)[0].exp(), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_meta_step_reaches_every_parameter_and_leaves_running_statistics_alone(name: str) -> None:
    model = ready(method(name))
    before = {key: value.clone() for key, value in model.named_buffers()}
    step = model.meta_gradient([task(seed) for seed in range(2)])
    assert len(step.gradients) == len(model.trained())
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in step.gradients)
    for key, value in model.named_buffers():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", [*METHODS, "Baseline", "BaselinePlusPlus"])
def test_unequal_shots_and_other_numbers_of_classes_can_be_classified_again_to_the_bit(name: str) -> None:
    model = method(name).eval()
    images, labels = torch.rand(9, 3, 16, 16), torch.tensor([0, 0, 0, 1, 2, 3])
    found = [model.classify(images[:6], labels, images[6:], 4) for _ in range(2)]
    assert found[0].shape == (3, 4)
    assert torch.equal(*found)
    assert not found[0].requires_grad


@pytest.mark.parametrize("name", [*METHODS, "Baseline", "BaselinePlusPlus"])
def test_support_statistics_make_a_prediction_independent_of_the_other_queries(name: str) -> None:
    model = method(name).eval().double()
    each = task(3)
    arguments = (each.support, each.support_label)
    whole = model.classify(*arguments, each.query, 3, "support")
    alone = model.classify(*arguments, each.query[:1], 3, "support")
    torch.testing.assert_close(whole[:1], alone)


def _step(rank: int, world_size: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Gradients of the base classes' loss, averaged as DDP does, and the running statistics after the step."""
    model = method("Baseline")
    model.use_classes(3)
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    rows = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
    batch = ImageBatch(images[rows], (torch.arange(8) % 3)[rows], torch.arange(8)[rows])
    model.log = lambda *args, **kwargs: None
    loss = model.training_step(batch, 0)
    gradients = mean_over_processes(list(torch.autograd.grad(loss, model.trained())))
    model.on_train_batch_end(None, batch, 0)
    return gradients, {name: value for name, value in model.named_buffers() if "running" in name}


def test_two_processes_train_on_base_classes_as_one(two_processes: Callable[..., list[Any]]) -> None:
    gradients, statistics = _step(0, 1)
    for found, state in two_processes(_step, 2):
        for a, b in zip(found, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        for name, value in statistics.items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
