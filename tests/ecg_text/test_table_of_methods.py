"""From training to the paper's Table 1 through the real `main`: ETP and SimCLR on the small SYNTHETIC set."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import LightningModule

import ecg_text
from ecg_text.cli import main
from shared.checkpoint import load_module
from shared.runs.scores import read_scores

TABLE_1 = str(Path(ecg_text.__file__).parent / "configs" / "tables" / "table1.yaml")
SMALL = ["--random_inits", "1", "--resamples", "20", "--wandb", "disabled", "--threads", "1", "--missing_only", "true"]
EVALUATION = "evaluation/ptbxl_synthetic"


@pytest.fixture(scope="module")
def variants(trained, command_line, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of SimCLR (trained here) and ETP, evaluated in one call, SimCLR first."""
    root = tmp_path_factory.mktemp("grid")
    simclr = main(command_line("fit", root, "--model.init_args.projection_dim", "16", method="simclr")).run_dir.parent
    etp = simclr.parent / "etp"
    shutil.copytree(trained.folder, etp / "seed_0", ignore=shutil.ignore_patterns("wandb"))
    main(["evaluate", "--run", str(simclr), str(etp), *SMALL])
    return [simclr, etp]


def test_a_method_without_text_has_a_linear_protocol_only_and_its_figures(variants: list[Path]) -> None:
    simclr, _ = variants
    protocols = {run.name: set(pd.read_csv(run / EVALUATION / "classes.csv")["protocol"]) for run in variants}
    assert protocols == {"simclr": {"linear"}, "etp": {"linear", "zero_shot"}}
    assert pd.read_csv(simclr / EVALUATION / "classes.csv")["method"].unique().tolist() == ["Random init", "SimCLR"]
    assert {path.name for path in (simclr / "seed_0" / "figures").iterdir()} == {"ptbxl_synthetic_linear.png"}


def test_random_init_is_the_same_whichever_method_it_is_compared_with(variants: list[Path]) -> None:
    kept = [read_scores(run / EVALUATION).scores["linear"]["Random init"] for run in variants]
    np.testing.assert_array_equal(*kept)
    encoders = []
    for run in variants:
        torch.manual_seed(1000)
        model = load_module(run / "seed_0" / "checkpoints" / "best.ckpt", LightningModule, weights=False)
        encoders.append(model.encoder.state_dict())
    assert all(torch.equal(value, encoders[1][name]) for name, value in encoders[0].items())


def test_a_second_call_evaluates_only_what_has_been_trained_since(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    simclr, etp = variants
    table = main(["evaluate", "--run", str(simclr), str(etp), *SMALL])
    assert f"{simclr / EVALUATION} is up to date" in capsys.readouterr().out
    assert set(table["method"]) == {"Random init", "SimCLR", "ETP"}
    main(["evaluate", "--run", str(etp), *SMALL, "--prompts", "clinical"])
    assert "is up to date" not in capsys.readouterr().out
    assert "zero_shot:clinical" in set(pd.read_csv(etp / EVALUATION / "classes.csv")["protocol"])
    checkpoint = simclr / "seed_0" / "checkpoints" / "best.ckpt"
    later = (simclr / EVALUATION / "classes.csv").stat().st_mtime + 10
    os.utime(checkpoint, (later, later))
    before = (etp / EVALUATION / "classes.csv").stat().st_mtime
    main(["evaluate", "--run", str(simclr), str(etp), *SMALL])
    assert f"{simclr / EVALUATION} is up to date" not in capsys.readouterr().out
    assert (etp / EVALUATION / "classes.csv").stat().st_mtime == before


def test_the_table_is_printed_from_what_evaluate_wrote(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["table", "--table", TABLE_1, "--runs", *map(str, variants)])
    printed = capsys.readouterr().out
    assert "SYNTHETIC DATA: ours says nothing about patients, and is no result." in printed
    average = pd.read_csv(variants[0] / EVALUATION / "classes.csv").query("`class` == 'Average' and method == 'SimCLR'")
    assert f"{100 * average['auroc'].item():.1f}" in printed


def test_any_methods_encoder_embeds_a_folder_of_records(
    variants: list[Path], synthetic_root: Path, tmp_path: Path
) -> None:
    for name in ("00001_lr.hea", "00001_lr.dat"):
        shutil.copy(synthetic_root / "records100" / "00000" / name, tmp_path / name)
    checkpoint = variants[0] / "seed_0" / "checkpoints" / "best.ckpt"
    output = tmp_path / "embedded.parquet"
    main(["embed", "--checkpoint", str(checkpoint), "--records", str(tmp_path), "--output", str(output)])
    (embedding,) = pd.read_parquet(output)["embedding"]
    assert embedding.shape == (64,)  # the encoder's 8 * width, not the projector's 16
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_random_init_is_not_shared_between_runs_whose_signals_are_prepared_otherwise(
    variants: list[Path], command_line, tmp_path: Path
) -> None:
    small = ["--model.init_args.projection_dim", "16", "--data.init_args.normalize", "none"]
    other = main(command_line("fit", tmp_path, *small, method="simclr")).run_dir.parent
    main(["evaluate", "--run", str(variants[0]), str(other), *SMALL[:-2]])
    kept = [read_scores(run / EVALUATION).scores["linear"]["Random init"] for run in (variants[0], other)]
    assert kept[0].shape == kept[1].shape
    assert not np.allclose(*kept)
