"""The shipped commands through the real `main([...])`, on a small SYNTHETIC set: files written, and resuming."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from shared.methods import Supervised
from tabular_imaging.cli import main

FILES = {
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "config.yaml",
    "data.json",
    "environment.txt",
    "metrics.csv",
    "results.json",
    "samples.csv",
    "schema.json",
}


@pytest.mark.parametrize("method", ["simclr", "supervised", "scarf"])
def test_a_method_trains_and_writes_these_files(command_line, tmp_path: Path, method: str) -> None:
    main(command_line("fit", tmp_path, method=method))
    folder = tmp_path / "tabular_imaging" / "dvm_synthetic" / method / "seed_0"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == FILES
    samples = pd.read_csv(folder / "samples.csv")
    assert samples["split"].value_counts().to_dict().keys() == {"train", "val", "test"}
    assert samples["id"].is_unique
    losses = pd.read_csv(folder / "metrics.csv")["train/loss"].dropna()
    assert len(losses) == 2
    assert torch.isfinite(torch.tensor(losses.to_numpy())).all()


def test_the_same_command_again_leaves_a_finished_run_alone(
    command_line, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "seed_0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    main(command_line("fit", trained.parents[2]))
    assert "has already finished" in capsys.readouterr().out
    assert (trained / "seed_0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_killed_run_typed_again_ends_as_the_uninterrupted_one(
    command_line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = ("--trainer.max_epochs", "6")
    arguments = command_line("fit", tmp_path / "killed", *epochs, variant="mmcl_laaf")
    folder = tmp_path / "killed" / "tabular_imaging" / "dvm_synthetic" / "mmcl_laaf" / "seed_0"
    process = subprocess.Popen([sys.executable, "-m", "tabular_imaging", *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not (folder / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "results.json").exists()
    main(arguments)
    assert f"resuming {folder} from its last finished epoch" in capsys.readouterr().out
    main(command_line("fit", tmp_path / "whole", *epochs, variant="mmcl_laaf"))
    resumed, expected = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
        for path in (folder, tmp_path / "whole" / folder.relative_to(tmp_path / "killed"))
    )
    assert resumed["global_step"] == expected["global_step"]
    assert resumed["schema"] == expected["schema"]
    for key, value in resumed["state_dict"].items():
        torch.testing.assert_close(value, expected["state_dict"][key], rtol=0, atol=1e-6, msg=key)


def test_a_stopped_run_says_so_with_an_exit_status_and_one_without_an_epoch_may_be_changed(
    command_line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Supervised, batch: object) -> None:
        raise SIGTERMException  # what Lightning makes of the signal; its own exit status is 0

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "step", stopped)
        with pytest.raises(SystemExit) as stop:
            main(command_line("fit", tmp_path, method="supervised"))
    folder = tmp_path / "tabular_imaging" / "dvm_synthetic" / "supervised" / "seed_0"
    assert stop.value.code == f"stopped; the same command resumes from the last epoch in {folder}"
    assert (folder / "config.yaml").is_file()
    assert not (folder / "checkpoints" / "last.ckpt").exists()
    main(command_line("fit", tmp_path, "--data.init_args.batch_size", "8", method="supervised"))
    assert "batch_size: 8" in (folder / "config.yaml").read_text()
