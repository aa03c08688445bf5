"""Seeding, the run's record and predictions, without a whole training."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from shared import callbacks
from shared.callbacks import PredictionWriter, SeedEachEpoch, Throughput
from shared.runs import results
from shared.runs.results import environment, update_results


def draws(seed: int, epoch: int, rank: int) -> tuple[float, ...]:
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    SeedEachEpoch(seed).on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_an_epochs_draws_depend_on_seed_epoch_and_rank_alone() -> None:
    first = draws(0, 3, 0)
    random.random(), torch.rand(9)
    assert draws(0, 3, 0) == first
    others = [draws(1, 3, 0), draws(0, 4, 0), draws(0, 3, 1)]
    assert len({first, *others}) == 4


def test_later_batches_are_not_seeded_again() -> None:
    first = draws(0, 0, 0)
    trainer: Any = SimpleNamespace(current_epoch=0, global_rank=0)
    SeedEachEpoch(0).on_train_batch_start(trainer, None, None, 1)  # type: ignore[arg-type]
    assert float(torch.rand(())) != first[2]


def test_throughput_counts_the_global_batch_and_the_waiting_but_no_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    # epoch; start, end of step 1; end of a validation in mid-epoch; start, end of step 2; one after the last step
    clock = iter([10.0, 11.0, 13.0, 113.0, 114.0, 118.0, 900.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    logged: dict[str, float] = {}
    trainer: Any = SimpleNamespace(world_size=4, is_last_batch=False)
    module: Any = SimpleNamespace(log_dict=lambda values, **_: logged.update(values))
    callback = Throughput()
    callback.on_train_epoch_start(trainer, module)
    for _ in range(2):
        callback.on_train_batch_start(trainer, module, None, 0)
        callback.on_train_batch_end(trainer, module, None, (torch.zeros(5, 2),), 0)
        callback.on_validation_end(trainer, module)
    callback.on_train_epoch_end(trainer, module)
    assert logged["throughput/samples_per_second"] == pytest.approx(2 * 5 * 4 / 8)
    assert logged["throughput/data_wait"] == pytest.approx((1 + 1) / 8)
    assert 0.01 < logged["throughput/peak_memory_gb"] < 1000


def test_results_are_merged(tmp_path: Path) -> None:
    update_results(tmp_path, {"a": 1.0, "b": 2.0})
    update_results(tmp_path, {"b": 3.0})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 1.0, "b": 3.0}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_environment_can_be_written_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results.shutil, "which", lambda name: None)
    lines = environment().splitlines()
    assert lines[0] == "revision: not a git checkout"
    assert any(line.startswith("numpy==") for line in lines)


@pytest.mark.parametrize(("world_size", "name"), [(1, "predictions.parquet"), (2, "predictions_1.parquet")])
def test_predictions_of_all_batches_are_one_table(tmp_path: Path, world_size: int, name: str) -> None:
    trainer: Any = SimpleNamespace(global_rank=world_size - 1, world_size=world_size)
    batches = [{"id": ["a", "b"], "score": [0.1, 0.2]}, {"id": ["c"], "score": [0.3]}]
    PredictionWriter(str(tmp_path / "run")).write_on_epoch_end(trainer, None, batches, None)  # type: ignore[arg-type]
    table = pd.read_parquet(tmp_path / "run" / name)
    assert table.to_dict("list") == {"id": ["a", "b", "c"], "score": [0.1, 0.2, 0.3]}
