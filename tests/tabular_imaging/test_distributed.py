"""Two processes train MMCL as one does on the same global batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shared.augment import Views
from tabular_imaging import MMCL, ImageTableBatch, TabularEncoder
from tabular_imaging.data.columns import Column
from tabular_imaging.data.schema import Schema
from tests.processes import rows_of

GLOBAL_BATCH = 6
LABELS = ("none", "false_negative_elimination", "supcon")
SCHEMA = Schema(
    (Column("length", "continuous"), Column("body", "categorical", categories=("suv", "van"))),
    target="model",
    classes=("a", "b"),
)


class Encoder(nn.Sequential):
    """`(B, 1, 2, 2) -> (B, 5)`, with batch norm, whose statistics must be those of the global batch."""

    out_dim = 5

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5))


class Stepper(nn.Module):
    """What DDP wraps: Lightning too sends `training_step` through the wrapper's forward."""

    def __init__(self, model: MMCL) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ImageTableBatch) -> Tensor:
        return self.model.step(batch).loss


def make(labels: Any) -> MMCL:
    """In float64. No corruption: each process draws its own."""
    torch.manual_seed(0)
    model = MMCL(
        Encoder(),
        Views(nn.Identity(), count=1),
        TabularEncoder(hidden_dim=7, out_dim=6),
        projection_dim=3,
        corruption_rate=0.0,
        image_weight=0.3,
        labels=labels,
    )
    model.use_schema(SCHEMA)
    batch = samples(slice(None))
    model.marginals = model.select(batch.table, batch.target)
    model.configure_model()  # the conversion of the batch norms, as Lightning calls it
    return model.double()


def samples(rows: slice) -> ImageTableBatch:
    """Of the global batch; pairs of one class lie within a process and across the two, and one sample has no label."""
    draw = torch.Generator().manual_seed(1)
    image = torch.randn(GLOBAL_BATCH, 1, 2, 2, generator=draw, dtype=torch.float64)
    length = torch.randn(GLOBAL_BATCH, generator=draw, dtype=torch.float64)
    table = torch.stack([length, torch.tensor([0.0, 1, 1, 0, 1, 0])], dim=1)
    target = torch.tensor([0, 1, 0, 1, -1, 0])
    return ImageTableBatch(image[rows], table[rows], target[rows], torch.arange(GLOBAL_BATCH)[rows])


def optimise(model: MMCL, wrapped: nn.Module, batch: ImageTableBatch) -> list[float]:
    """Losses of two steps of SGD; Adam's first steps have one size however small, and however rounded, a gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = wrapped(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def worker(rank: int) -> dict[str, Any]:
    batch = samples(rows_of(rank, GLOBAL_BATCH))
    results = {}
    for labels in LABELS:
        model = make(labels)
        losses = optimise(model, DistributedDataParallel(Stepper(model)), batch)
        results[labels] = losses, model.state_dict()
    return results


@pytest.fixture(scope="module")
def ranks(two_processes: Callable[..., list[Any]]) -> list[Any]:
    """What each of two processes computed; one call serves all."""
    return two_processes(worker)


@pytest.mark.parametrize("labels", LABELS)
def test_two_processes_step_as_one_does_on_the_global_batch(labels: str, ranks: list[Any]) -> None:
    one = make(labels)
    losses = optimise(one, Stepper(one), samples(slice(None)))
    np.testing.assert_allclose(np.mean([rank[labels][0] for rank in ranks], axis=0), losses, rtol=0, atol=1e-9)
    for _, state in (rank[labels] for rank in ranks):
        assert state.keys() == one.state_dict().keys()
        for name, value in one.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-9, msg=name)


def test_labels_change_what_is_learned(ranks: list[Any]) -> None:
    found = [ranks[0][labels][0][0] for labels in LABELS]
    assert len({round(loss, 6) for loss in found}) == len(LABELS)
