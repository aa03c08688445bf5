"""Small networks and tasks that the tests of meta_robust share."""

from types import SimpleNamespace
from typing import Any

import torch

from meta_robust.methods import EpisodicMethod
from meta_robust.methods.episodic import TaskImages
from meta_robust.model import Conv4

STEPS = 100


def encoder(**changes: Any) -> Conv4:
    torch.manual_seed(0)
    return Conv4(image_px=16, width=4, **changes)


def task(seed: int = 0, ways: int = 3, shots: int = 2, queries: int = 4) -> TaskImages:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(ways * (shots + queries), 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.arange(ways)
    return TaskImages(
        images[: ways * shots],
        labels.repeat_interleave(shots),
        images[ways * shots :],
        labels.repeat(queries),
        seed,
        7,
        0,
    )


def ready(model: Any, tasks: int = 4) -> Any:
    """A method in float64, half-way through a training of 100 updates."""
    model.double()
    cls = type(model)
    model.__class__ = type(
        cls.__name__, (cls,), {"global_step": STEPS // 2, "trainer": SimpleNamespace(estimated_stepping_batches=STEPS)}
    )
    model.tasks_of_update = tasks
    assert isinstance(model, EpisodicMethod)
    return model
