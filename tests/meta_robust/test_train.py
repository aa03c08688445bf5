"""Whole commands on a small SYNTHETIC set: train, evaluate, table; files, floor rows, resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from meta_robust.cli import main
from meta_robust.data.synthetic import write_synthetic
from meta_robust.evaluation.tables import CONFIGS
from meta_robust.verbs import pipelines
from shared.cli import compose
from shared.evaluation import read_method_table
from shared.runs.configs import as_flags
from shared.runs.scores import Scores
from tests.killed import finished_epochs, kill_after
from tests.recorded import record

SMALL = [
    "--data.init_args.updates_per_epoch",
    "2",
    "--data.init_args.val_episodes",
    "2",
    "--trainer.max_epochs",
    "2",
    "--model.init_args.queries",
    "5",
    "--run.wandb",
    "disabled",
    "--trainer.enable_progress_bar",
    "false",
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_synthetic(tmp_path / "set", base=8, validation=5, novel=6, per_class=11)
    return tmp_path / "set"


def fit_words(root: Path, method: str, *more: str) -> list[str]:
    files = [word for file in CONFIGS.stack(method, "synthetic", "demo") for word in ("--config", str(file))]
    width = ["--model.init_args.encoder.init_args.width", "16"]
    return ["fit", *files, "--data.init_args.root", str(root), *width, *SMALL, *more]


def fit(root: Path, method: str, *more: str) -> None:
    main(fit_words(root, method, *more))


def test_methods_are_trained_evaluated_on_the_same_tasks_and_compared(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for method in ("maml", "baseline_pp"):
        fit(root, method, "--data.init_args.batch_size", "4")
        folders.append(f"runs/meta_robust/rml_synthetic/{method}")
    asked = ["--settings.episodes", "6", "--settings.queries", "5", "--settings.shots", "[1]", "--wandb", "disabled"]
    main(["evaluate", "--run", *folders, *asked])
    shifted = ["--data", "synthetic_shifted", "--root", str(root / "shifted"), "--profile", "demo"]
    main(["evaluate", "--run", *folders, *shifted, *asked])
    for dataset in ("rml_synthetic", "rml_shifted"):
        one, other = (Scores.read(Path(folder) / "evaluation" / dataset) for folder in folders)
        assert one.same_samples(other)
        assert len(one.samples) == 6 * 25
        assert one.samples[0].startswith("0/")
        assert one.floors == ["Pixels", "Random init"]
    table = pd.read_csv(Path(folders[0]) / "evaluation" / "rml_synthetic" / "results.csv")
    assert set(table["protocol"]) == {"1shot", "1shot_support"}
    figures = Path(folders[0]) / "seed_0" / "figures"
    assert {path.name for path in figures.iterdir()} >= {
        f"rml_synthetic_{name}.png" for name in ("accuracy", "tasks", "confusions")
    }
    assert table["bn_mode"].dropna().tolist() == ["transductive", "support"]
    assert table["select"].dropna().unique().tolist() == ["target"]
    capsys.readouterr()
    for name in ("table1", "table2"):
        main(["table", "--table", str(CONFIGS.folder / "tables" / f"{name}.yaml"), "--run", *folders])
    printed = " ".join(capsys.readouterr().out.split())
    assert "evaluated on rml_synthetic" in printed
    assert "evaluated on rml_shifted" in printed
    assert "SYNTHETIC DATA" in printed
    kinds = ["identity", "hue"]
    table = main(["environments", "--run", folders[0], "--kinds", *kinds, "--episodes", "2"])
    assert table[["support", "query"]].to_numpy().tolist() == [[one, other] for one in kinds for other in kinds]
    alone = table.set_index(["support", "query"])["colour_alone"]
    assert alone["identity", "identity"] > 0.9 > 0.4 > alone["identity", "hue"]  # the planted cue, and without it
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    assert "worst: adapted in" in capsys.readouterr().out
    assert (Path(folders[0]) / "evaluation" / "rml_synthetic" / "environments.csv").is_file()
    assert (Path(folders[0]) / "seed_0" / "figures" / "rml_synthetic_environments.png").is_file()


@pytest.mark.slow
def test_a_killed_training_typed_again_ends_in_the_same_weights_to_the_bit(root: Path) -> None:
    settings = ["--data.init_args.updates_per_epoch", "20", "--trainer.max_epochs", "3"]
    killed, whole = (Path(f"runs/meta_robust/rml_synthetic/{name}/seed_0") for name in ("killed", "whole"))
    kill_after(1, "meta_robust", fit_words(root, "rml", "--run.variant", "killed", *settings), killed)
    assert 1 <= finished_epochs(killed) < 3
    assert not (killed / "results.json").exists()
    for name in ("killed", "whole"):
        fit(root, "rml", "--run.variant", name, *settings)
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (killed, whole))
    assert one["global_step"] == other["global_step"] == 60
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    lambdas = [pd.read_csv(run / "metrics.csv")["train/lambda"].dropna().tolist() for run in (killed, whole)]
    assert lambdas[0] == lambdas[1]


def test_a_set_of_two_cues_is_trained_on_as_it_was_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    called = record(monkeypatch, pipelines)
    root = tmp_path / "set"
    write_synthetic(root, base=2, validation=1, novel=1, per_class=2, cues=2)
    main(["train", "--profile", "demo", "--root", str(root), "--methods", "maml"])
    assert called[0] == ("synthetic", [str(root), "base=2", "validation=1", "novel=1", "per_class=2", "cues=2"])
    with pytest.raises(ValueError, match=r"cues must be 1 \(colour\) or 2 \(colour and grain\), got 3"):
        write_synthetic(root, cues=3)


def test_the_grain_is_a_cue_in_the_set_and_random_in_the_shifted_one(tmp_path: Path) -> None:
    write_synthetic(tmp_path, base=0, validation=0, novel=6, per_class=4, cues=2)
    spread = []
    for folder in (tmp_path / "images", tmp_path / "shifted" / "images"):
        amplitudes = np.array([[grain(path) for path in sorted(each.iterdir())] for each in sorted(folder.iterdir())])
        spread.append(amplitudes.std(axis=1).mean() / amplitudes.std())
    assert spread[0] < 0.2 < 0.7 < spread[1]


def grain(path: Path) -> float:
    """Amplitude of the chequerboard in an image's corners, in grey levels."""
    pixels = np.asarray(Image.open(path), float).mean(2)
    board = np.indices(pixels.shape).sum(0) % 2
    corner = np.s_[:4, :4]
    return float(pixels[corner][board[corner] == 1].mean() - pixels[corner][board[corner] == 0].mean()) / 2


def test_an_encoder_for_other_images_than_the_datas_is_refused(root: Path) -> None:
    with pytest.raises(SystemExit, match="the encoder takes images of 32 pixels, and the data gives 24"):
        fit(root, "maml", "--model.init_args.encoder.init_args.image_px", "32")


def test_train_evaluates_maml_and_two_readings_in_both_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    called = record(monkeypatch, pipelines)
    main(["train", "--profile", "demo"])
    folders = [f"runs/meta_robust/rml_synthetic/{name}" for name in ("maml", "rml_printed", "rml")]
    assert [words[0] for verb, words in called if verb == "fit"] == [f"{folder}/seed_0" for folder in folders]
    evaluated = [words for verb, words in called if verb == "evaluate"]
    assert ["--data" in words for words in evaluated] == [False, True]
    assert "synthetic_shifted" in evaluated[1]
    tables = [Path(words[1]).stem for verb, words in called if verb == "print_table"]
    assert tables == ["table1", "table2"]
    assert [words for verb, words in called if verb == "environments"] == [["--run", folders[2]]]


def test_rml_with_pairing_and_penalty_switched_off_is_the_variant_as_printed() -> None:
    def settings(variant: str, *flags: str) -> dict[str, Any]:
        change = CONFIGS.variant(variant, "synthetic")
        files = [*CONFIGS.stack(change.method, "synthetic", "demo"), *change.files]
        words = [word for file in files for word in ("--config", str(file))]
        composed = compose("meta_robust", [*words, *as_flags(change.settings), *flags]).settings
        return {key: composed[key] for key in ("model", "data", "trainer")}

    off = ["--model.init_args.pairing", "same", "--model.init_args.penalty", "none"]
    assert settings("rml", *off) == settings("rml_printed") != settings("rml")


def test_the_papers_tables_are_as_printed() -> None:
    one, two = (read_method_table(CONFIGS.folder / "tables" / f"{name}.yaml") for name in ("table1", "table2"))
    assert one.values["miniImageNet"]["RML"] == {"1-shot": 48.55, "5-shot": 66.93}
    assert one.values["SUN"]["Meta-Learner LSTM"] == {"1-shot": 30.99, "5-shot": 44.86}
    assert two.values["CUB to miniImageNet"]["MAML"] == {"1-shot": 33.36, "5-shot": 41.58}
    assert {len(rows) for table in (one, two) for rows in table.values.values()} == {9}
