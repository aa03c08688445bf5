"""What needs a GPU. Where there is none, pytest says that these were skipped."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ecg_text.cli import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: training on a GPU is not tested here"),
]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_steps_on_a_gpu(command_line, tmp_path: Path, precision: str) -> None:
    gpu = ["--trainer.accelerator", "gpu", "--trainer.precision", precision]
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    cli = main(command_line("fit", tmp_path, *gpu, *short))
    assert cli.trainer.strategy.root_device.type == "cuda"
    assert all(parameter.dtype == torch.float32 for parameter in cli.model.parameters())
    metrics = pd.read_csv(cli.run_dir / "metrics.csv")
    assert metrics["train/loss"].notna().sum() == 1
    # log(16) is chance; float32 and bf16 start from the same weights.
    assert metrics["train/loss"].dropna().between(0.5, 6).all()
    main(["test", *command_line("test", tmp_path, *gpu)[1:]])


def test_a_bf16_step_is_close_to_float32(command_line, tmp_path: Path) -> None:
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        gpu = ["--trainer.accelerator", "gpu", "--trainer.precision", precision]
        short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
        cli = main(command_line("fit", tmp_path / precision, *gpu, *short))
        losses.append(pd.read_csv(cli.run_dir / "metrics.csv")["train/loss"].dropna().item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
