"""From training to the paper's Table 1 through the real `main`: ETP and SimCLR on the small SYNTHETIC set."""

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
from shared.runs.scores import Outcome, Scores

TABLE_1 = str(Path(ecg_text.__file__).parent / "configs" / "tables" / "table1.yaml")
SMALL = ["--random_inits", "1", "--wandb", "disabled", "--threads", "1", "--missing_only", "true"]
EVALUATION = "evaluation/ptbxl_synthetic"


def random_init(run: Path) -> Outcome:
    """Of linear evaluation."""
    return Scores.read(run / EVALUATION).found["linear"]["Random init"]


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
    protocols = {run.name: set(pd.read_csv(run / EVALUATION / "results.csv")["protocol"]) for run in variants}
    assert protocols == {"simclr": {"linear"}, "etp": {"linear", "zero_shot", "zero_shot_probability"}}
    assert pd.read_csv(simclr / EVALUATION / "results.csv")["method"].unique().tolist() == ["Random init", "SimCLR"]
    assert {path.name for path in (simclr / "seed_0" / "figures").iterdir()} == {"ptbxl_synthetic_linear.png"}


def test_random_init_is_the_same_whichever_method_it_is_compared_with(variants: list[Path]) -> None:
    np.testing.assert_array_equal(*(random_init(run).test for run in variants))
    encoders = []
    for run in variants:
        torch.manual_seed(1000)
        model = load_module(run / "seed_0" / "checkpoints" / "best.ckpt", LightningModule, weights=False)
        encoders.append(model.encoder.state_dict())
    assert all(torch.equal(value, encoders[1][name]) for name, value in encoders[0].items())


def test_a_second_call_evaluates_only_what_has_changed_since(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    simclr, etp = variants
    checkpoint = simclr / "seed_0" / "checkpoints" / "best.ckpt"

    def up_to_date(*arguments: str) -> set[str]:
        table = main(["evaluate", "--run", str(simclr), str(etp), *SMALL, *arguments])
        assert set(table["method"]) == {"Random init", "SimCLR", "ETP (n-grams)"}
        said = capsys.readouterr().out
        return {run.name for run in variants if f"{run / EVALUATION} is up to date" in said}

    checkpoint.touch()  # its content counts
    assert up_to_date() == {"simclr", "etp"}
    assert up_to_date("--prompts", "clinical") == set()
    assert "zero_shot_clinical" in set(pd.read_csv(etp / EVALUATION / "results.csv")["protocol"])
    assert up_to_date("--prompts", "clinical") == {"simclr", "etp"}
    assert up_to_date() == {"simclr", "etp"}  # there is more than is asked for
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).mul_(2)
    torch.save(content, checkpoint)
    assert up_to_date() == {"etp"}


def test_the_table_is_printed_from_what_evaluate_wrote(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["table", "--table", TABLE_1, "--run", *map(str, variants)])
    printed = capsys.readouterr().out
    assert "SYNTHETIC DATA: ours says nothing about the world, and is no result." in printed
    average = pd.read_csv(variants[0] / EVALUATION / "results.csv").query("`class` == 'Average' and method == 'SimCLR'")
    area, low, high = (f"{100 * average[key].item():.1f}" for key in ("auroc", "auroc_low", "auroc_high"))
    assert f" {area} [{low}, {high}] " in printed
    assert "One pre-trained model per method: the intervals cover the noise of the samples, but not that" in printed


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
    one, two = (random_init(run).test for run in (variants[0], other))
    assert one is not None
    assert two is not None
    assert one.shape == two.shape
    assert not np.allclose(one, two)
