"""A run killed with SIGKILL in mid-epoch, and the same command typed again."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from ecg_text.cli import main
from tests.killed import finished_epochs, kill_after

EPOCHS = 5
AUGMENT = {
    "class_path": "shared.augment.Augment",
    "init_args": {
        "transforms": [
            {"class_path": "shared.augment.Window", "init_args": {"fraction": 0.5}},
            {"class_path": "shared.augment.Scale"},
            {"class_path": "shared.augment.Jitter"},
            {"class_path": "shared.augment.ChannelMask"},
        ]
    },
}
SETTINGS = [
    *("--model.init_args.augment", json.dumps(AUGMENT)),
    *("--model.init_args.lr_schedule", "cosine"),
    *("--model.init_args.warmup_epochs", "1"),
    *("--trainer.max_epochs", str(EPOCHS)),
]


@pytest.mark.slow
def test_a_killed_run_typed_again_ends_as_the_uninterrupted_one(
    command_line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command_line("fit", tmp_path / "killed", *SETTINGS)
    folder = tmp_path / "killed" / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"
    kill_after(2, "ecg_text", arguments, folder)
    interrupted = finished_epochs(folder)
    assert 2 <= interrupted < EPOCHS
    assert not (folder / "results.json").exists()

    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert 0 < checkpoint["callbacks"]["RunRecord"]["seconds"] < 90
    checkpoint["callbacks"]["RunRecord"]["seconds"] = 1000.0
    torch.save(checkpoint, last)
    # Typed again, and stopped once more before training goes on: what was logged must not be lost.
    (folder / "metrics.earlier.csv").write_bytes((folder / "metrics.csv").read_bytes())
    (folder / "metrics.csv").unlink()

    main(arguments)
    assert f"resuming {folder} from its last finished epoch" in capsys.readouterr().out
    whole = main(command_line("fit", tmp_path / "whole", *SETTINGS)).run_dir

    for name in ("last", "best"):
        resumed, expected = (
            torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (folder, whole)
        )
        assert (resumed["epoch"], resumed["global_step"]) == (expected["epoch"], expected["global_step"])
        for key, value in resumed["state_dict"].items():
            torch.testing.assert_close(value, expected["state_dict"][key], rtol=0, atol=1e-6, msg=f"{name}: {key}")
    assert {path.name for path in folder.rglob("*")} == {path.name for path in whole.rglob("*")}

    metrics = [pd.read_csv(run / "metrics.csv") for run in (folder, whole)]
    assert set(metrics[0].columns) == set(metrics[1].columns)
    for column in ("train/loss", "val/loss", "val/auroc", "lr-Adam", "throughput/data_wait"):
        resumed, expected = (table.loc[table[column].notna(), ["step", column]] for table in metrics)
        assert len(resumed) == EPOCHS
        assert resumed["step"].tolist() == expected["step"].tolist()
        if not column.startswith("throughput/"):
            assert resumed[column].tolist() == pytest.approx(expected[column].tolist(), abs=1e-6), column
    results = json.loads((folder / "results.json").read_text())
    assert results["fit/epochs"] == EPOCHS
    assert 1000 < results["fit/seconds"] < 1200  # the hours of a table count both parts of the training
