"""A run that starts from other runs or on other data: `{seed}` in a path, and what is remembered of both."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecg_text import PTBXLDataModule
from ecg_text.cli import main
from ecg_text.evaluation.tables import CONFIGS
from shared.cli import changed_settings, compose
from shared.runs.settings import upstream
from shared.runs.variant import load_data


def test_a_path_may_hold_the_seed_and_the_seeds_keep_one_configuration(command_line, tmp_path: Path) -> None:
    shutil.copy(CONFIGS.folder / "prompts" / "german.yaml", tmp_path / "words_3.yaml")
    path = f"{tmp_path}/words_{{seed}}.yaml"
    given = ["--seed_everything", "3", "--trainer.max_epochs", "1", "--model.init_args.prompts", path]
    cli = main(command_line("fit", tmp_path / "runs", *given))
    assert cli.model.hparams["prompts"] == f"{tmp_path}/words_3.yaml"
    assert any("normales ekg" in text for texts in cli.model.prompts for text in texts)
    saved = yaml.safe_load((cli.run_dir / "config.yaml").read_text())
    assert saved["model"]["init_args"]["prompts"] == path
    again = main(command_line("fit", tmp_path / "runs", *given))
    assert again.finished


def test_a_changed_checkpoint_of_another_run_makes_it_another_setting(tmp_path: Path) -> None:
    prior = tmp_path / "prior_0.ckpt"
    prior.write_bytes(b"first")
    files = [f"--config={file}" for file in CONFIGS.stack("etp_ngrams", "synthetic", "demo")]
    composed = compose("ecg_text", [*files, f"--model.init_args.prompts={tmp_path}/prior_{{seed}}.ckpt"])
    run = tmp_path / "run"
    run.mkdir()
    settings = composed.for_seed(0)
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    before = upstream(settings, 0)
    (run / "upstream.json").write_text(json.dumps(before))
    assert changed_settings(composed.parser, run, settings) == ""
    prior.write_bytes(b"second")
    after = upstream(settings, 0)
    key = "model.init_args.prompts"
    assert changed_settings(composed.parser, run, settings) == (
        f"- {key}, content: {before[key]}\n+ {key}, content: {after[key]}"
    )


def test_a_setting_that_no_longer_exists_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--config={file}" for file in CONFIGS.stack("etp_ngrams", "synthetic", "demo")]
    composed = compose("ecg_text", files)
    settings = composed.for_seed(0)
    saved = json.loads(json.dumps(settings))
    saved["model"]["init_args"]["bygone"] = 1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert changed_settings(composed.parser, tmp_path, settings) == "- model.init_args.bygone: 1"
    assert capsys.readouterr().err == ""


def test_a_run_is_not_continued_on_other_data_and_a_new_one_makes_its_evaluations_stale(
    command_line, synthetic_root: Path, tmp_path: Path
) -> None:
    def fit(root: Path, *more: str) -> Any:
        small = ["--trainer.max_epochs", "1", "--data.init_args.root", str(root)]
        return main(command_line("fit", tmp_path / "runs", *small, *more))

    run = fit(synthetic_root).run_dir
    copied = tmp_path / "copy"
    shutil.copytree(synthetic_root, copied)
    assert fit(copied).finished
    table = copied / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("sinus", "sinuous"))
    with pytest.raises(SystemExit, match=rf"^error: {run} holds a run on other data:\n- data, content: \w+\n\+ data, "):
        fit(copied)
    kept = (run / "data.json").read_bytes()
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({key: results[key] for key in results if not key.startswith("fit/")}))
    with pytest.raises(SystemExit, match=rf"^error: {run} was begun on other data, so it cannot be resumed on these"):
        fit(copied)
    assert (run / "data.json").read_bytes() == kept
    state = run.parent / "evaluation" / "set" / "evaluation.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    fit(copied, "--run.overwrite", "true")
    assert not state.exists()
    assert (run / "data.json").read_bytes() != kept


def test_a_finished_run_whose_data_have_changed_at_the_same_root_is_not_left_alone(
    trained, synthetic_root: Path, tmp_path: Path
) -> None:
    root, run = tmp_path / "set", tmp_path / "runs" / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"
    shutil.copytree(synthetic_root, root)
    shutil.copytree(trained.folder, run, ignore=shutil.ignore_patterns("wandb"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["init_args"]["root"] = str(root)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    again = [*trained.arguments, "--run.root", str(tmp_path / "runs"), "--data.init_args.root", str(root)]
    assert main(again).finished
    table = root / "ptbxl_database.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(rows[:-1]))
    before = json.loads((run / "data.json").read_text())["fingerprint"]
    now = load_data(PTBXLDataModule, config["data"], {}).fingerprint()
    assert now != before
    with pytest.raises(SystemExit) as stop:
        main(again)
    assert str(stop.value) == (
        f"error: {run} holds a run on other data:\n- data, content: {before}\n+ data, content: {now}\n"
        "Give this one a name of its own with --run.variant NAME, or replace it with --run.overwrite true"
    )
    assert json.loads((run / "data.json").read_text())["fingerprint"] == before
