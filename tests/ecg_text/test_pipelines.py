"""`train` and `reproduce`: what they train, where it lies, what they evaluate. The trainings themselves are replaced.

Each fault that the Makefile's macros had is a test here.
"""

import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ecg_text.cli import main
from ecg_text.data.module import ECGDataModule
from ecg_text.evaluation.tables import CONFIGS
from ecg_text.verbs import pipelines
from shared.cli import compose
from shared.runs.variant import load_data
from tests.recorded import Called, record


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Called:
    """What a pipeline does, in order."""
    monkeypatch.chdir(tmp_path)
    return record(monkeypatch, pipelines)


def folders(called: Called) -> list[str]:
    return [words[0] for verb, words in called if verb == "fit"]


def test_train_writes_the_set_trains_evaluates_and_compares(called: Called) -> None:
    main(["train", "--profile", "demo", "--seeds", "0", "1"])
    runs = "runs/ecg_text/ptbxl_synthetic/etp_ngrams"
    assert folders(called) == [f"{runs}/seed_0", f"{runs}/seed_1"]
    assert [verb for verb, _ in called] == ["synthetic", "fit", "fit", "evaluate", "compare"]
    assert called[3][1] == ["--run", runs, "--random_inits", "5"]
    assert called[0][1] == ["data/ptbxl_synthetic"]
    assert called[4][1] == ["runs"]


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        (["--run.dataset", "mine"], "runs/ecg_text/mine/etp_ngrams"),
        (["--run.root", "elsewhere"], "elsewhere/ecg_text/ptbxl_synthetic/etp_ngrams"),
        (["--run.variant=warm"], "runs/ecg_text/ptbxl_synthetic/warm"),
        (["--config", "mine.yaml"], "runs/ecg_text/commented/etp_ngrams"),
    ],
)
def test_what_is_evaluated_is_what_was_trained_wherever_its_name_comes_from(
    called: Called, given: list[str], folder: str
) -> None:
    Path("mine.yaml").write_text("run:\n  dataset: commented # mine\n")
    main(["train", "--profile", "demo", "--", *given])
    assert folders(called) == [f"{folder}/seed_0"]
    assert called[2] == ("evaluate", ["--run", folder, "--random_inits", "5"])
    assert called[3] == ("compare", [folder.split("/")[0]])


def test_a_finished_run_is_left_alone_only_with_the_settings_that_are_asked_for(
    called: Called, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "configs"
    shutil.copytree(CONFIGS.folder, copied)
    monkeypatch.setattr(pipelines, "CONFIGS", type(CONFIGS)(copied))
    train = ["train", "--profile", "demo"]
    main(train)
    called.clear()
    main([*train, "--", "--threads", "2", "--data.init_args.num_workers", "3", "--trainer.accelerator", "auto"])
    assert folders(called) == []
    assert "1 of 1 runs have already finished and are left as they are" in capsys.readouterr().out
    method = copied / "methods" / "etp_ngrams.yaml"
    method.write_text(method.read_text().replace("temperature: 0.07", "temperature: 0.5"))
    with pytest.raises(SystemExit) as stop:
        main(train)
    assert str(stop.value.code) == (
        "error: etp_ngrams, seed 0 has finished in runs/ecg_text/ptbxl_synthetic/etp_ngrams/seed_0 with other settings "
        "(- saved, + asked for):\n- model.init_args.temperature: 0.07\n+ model.init_args.temperature: 0.5\n"
        "Give the new runs names of their own (make: SUFFIX=_new; for a single run: --run.variant NAME), or remove "
        "that folder"
    )
    main([*train, "--suffix", "_new"])
    assert folders(called) == ["runs/ecg_text/ptbxl_synthetic/etp_ngrams_new/seed_0"]


def test_a_setting_that_is_newer_than_a_run_counts_as_its_default(
    called: Called, caplog: pytest.LogCaptureFixture
) -> None:
    main(["train", "--profile", "demo"])
    path = Path("runs/ecg_text/ptbxl_synthetic/etp_ngrams/seed_0/config.yaml")
    saved = yaml.safe_load(path.read_text())
    del saved["model"]["init_args"]["learn_temperature"]
    path.write_text(yaml.safe_dump(saved))
    with caplog.at_level(logging.INFO, "shared"):
        main(["train", "--profile", "demo"])
    assert "count as their defaults: + model.init_args.learn_temperature: false" in caplog.text
    with pytest.raises(SystemExit, match=r"\+ model\.init_args\.learn_temperature: true"):
        main(["train", "--profile", "demo", "--", "--model.init_args.learn_temperature", "true"])


def test_a_finished_run_is_trained_again_when_that_is_asked_for(called: Called) -> None:
    train = ["train", "--profile", "demo"]
    main(train)
    results = Path("runs/ecg_text/ptbxl_synthetic/etp_ngrams/seed_0/results.json")
    os.utime(results, (1, 1))
    called.clear()
    main([*train, "--", "--run.overwrite", "true", "--model.init_args.temperature", "0.5"])
    assert folders(called) == [str(results.parent)]
    assert results.stat().st_mtime > 1


def test_an_option_that_a_pipeline_cannot_use_is_an_error(called: Called) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--variants", "warm"])
    assert str(stop.value.code) == (
        "error: --variants is not used here; --methods chooses what is trained (make: METHODS=)"
    )


def test_the_same_data_elsewhere_is_the_same_and_other_data_is_not(
    called: Called, synthetic_root: Path, tmp_path: Path
) -> None:
    def train(root: Path) -> None:
        options = ["--profile", "demo", "--dataset", "ptbxl", "--root", str(root), "--methods", "etp_ngrams"]
        main(["train", *options, "--", "--data.init_args.missing_classes", "drop"])

    train(synthetic_root)
    (run,) = map(Path, folders(called))
    block = yaml.safe_load((run / "config.yaml").read_text())["data"]
    data = load_data(ECGDataModule, block, {})
    data.save(run)
    called.clear()
    copied = tmp_path / "copy"
    shutil.copytree(synthetic_root, copied)
    train(copied)
    assert folders(called) == []
    table = copied / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("sinus", "sinuous"))
    with pytest.raises(SystemExit, match=r"other settings[^\n]*\n- data, content: \w+\n\+ data, content: \w+\n"):
        train(copied)


def test_a_grid_takes_no_single_name(called: Called) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--profile", "demo", "--methods", "simclr", "etp_ngrams", "--", "--run.variant", "x"])
    assert str(stop.value.code) == (
        "error: several of simclr_short, etp_ngrams_short would be one run: name each once, and keep a grid apart by "
        "--suffix (make: SUFFIX=...), not by --run.variant"
    )


def test_reproduce_trains_a_table_seeds_first_and_prints_the_tables_that_it_can(called: Called) -> None:
    options = ["--profile", "demo", "--dataset", "ptbxl", "--root", "r", "--target", "cpsc2018", "--target_root", "t"]
    main(["reproduce", *options, "--seeds", "0", "1", "--methods", "simclr", "etp_minilm", "--suffix", "_x",
          "--table_args=--results out.csv", "--evaluate_args=--fine_tune_epochs 2"])  # fmt: skip
    runs = "runs/ecg_text/ptbxl_100hz"
    assert folders(called) == [f"{runs}/{name}_x/seed_{seed}" for seed in (0, 1) for name in ("simclr", "etp_minilm")]
    both = [f"{runs}/simclr_x", f"{runs}/etp_minilm_x"]
    more, asked = ["--random_inits", "20", "--missing_only", "true"], ["--fine_tune_epochs", "2"]
    others = called[4:]
    target = ["--data", "cpsc2018", "--profile", "demo", "--root", "t"]
    assert others[:2] == [
        ("evaluate", ["--run", *both, *more, "--root", "r", *asked]),
        ("evaluate", ["--run", *both, *more, *target, *asked]),
    ]
    tables = CONFIGS.folder / "tables"
    assert others[2:5] == [
        ("print_table", ["--table", f"{tables}/table1.yaml", "--run", *both, "--results", "out.csv"]),
        ("print_table", ["--table", f"{tables}/table2.yaml", "--run", both[1], "--results", "out.csv"]),
        ("print_table", ["--table", f"{tables}/table3.yaml", "--run", both[1], "--results", "out.csv"]),
    ]


@pytest.mark.parametrize(
    ("dataset", "profile", "method"),
    [("synthetic", "gpu", "etp_ngrams"), ("ptbxl", "demo", "etp_minilm"), ("ptbxl", "gpu", "etp")],
)
def test_the_method_by_default_suits_set_and_machine(dataset: str, profile: Any, method: str) -> None:
    assert pipelines.default_method(dataset, profile) == method


def test_composing_leaves_the_process_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[Any, ...]:
        return random.getstate(), torch.get_rng_state().tolist(), dict(os.environ)

    before = state()
    words = [f"--config={file}" for file in CONFIGS.stack("etp_ngrams", "synthetic", "demo")]
    composed = compose("ecg_text", [*words, "--seed_everything", "5", "--threads", "1"])
    assert state() == before
    assert capsys.readouterr() == ("", "")
    assert composed.folder == Path("runs/ecg_text/ptbxl_synthetic/etp_ngrams")
    assert composed.for_seed(7)["seed_everything"] == 7
