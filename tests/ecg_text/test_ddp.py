"""Two processes train as one does on the same global batch."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from ecg_text.cli import main

# SGD, because Adam's first steps have the size of the learning rate however small, and however rounded, a gradient is.
# Two steps, because rounding grows until some ReLU's input changes its sign, on some processors in the third.
SETTINGS = [
    *("--model.init_args.optimizer", "torch.optim.SGD"),
    *("--model.init_args.optimizer.init_args.lr", "0.01"),
    *("--trainer.max_epochs", "1"),
    *("--trainer.limit_train_batches", "2"),
]


@pytest.mark.slow
def test_two_processes_equal_one_on_the_global_batch(command_line, tmp_path: Path) -> None:
    one = main(command_line("fit", tmp_path / "one", *SETTINGS)).run_dir
    distributed = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    arguments = command_line("fit", tmp_path / "two", *SETTINGS, *distributed)
    done = subprocess.run([sys.executable, "-m", "ecg_text", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr
    two = tmp_path / "two" / one.relative_to(tmp_path / "one")

    names = [{path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (one, two)]
    assert names[0] == names[1]
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")

    # The same rows, so the second process logged none; the same values, so they are of the global batch. The spread of
    # the embeddings is that of a process's own share.
    tables = [pd.read_csv(run / "metrics.csv") for run in (one, two)]
    tables = [table.drop(columns=table.filter(regex="^throughput/|/feature_std$").columns) for table in tables]
    pd.testing.assert_frame_equal(tables[1][tables[0].columns], tables[0], rtol=0, atol=1e-4)
