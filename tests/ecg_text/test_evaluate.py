"""`python -m ecg_text evaluate` through the real `main`, on a tiny trained model."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ecg_text import ETP
from ecg_text.cli import main
from shared.checkpoint import load_module


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pd.DataFrame]:
    """The variant's folder (a copy, because evaluating adds files), the results CSV, and the table returned."""
    folder = tmp_path_factory.mktemp("evaluated")
    run = folder / "etp"
    shutil.copytree(trained.folder, run / "seed_0", ignore=shutil.ignore_patterns("wandb"))
    results = folder / "results" / "etp.csv"
    small = ["--random_inits", "2", "--resamples", "20", "--wandb", "offline", "--threads", "1"]
    table = main(["evaluate", "--run", str(run), *small, "--results", str(results)])
    return run, results, table


def test_evaluate_writes_exactly_its_files(evaluated, trained) -> None:
    run, _, _ = evaluated
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    files = {name for name in files if not name.startswith("seed_0/wandb/")}
    figures = {
        f"seed_0/figures/ptbxl_synthetic_{name}.png" for name in ("zero_shot", "linear", "similarity", "example")
    }
    tables = {f"evaluation/ptbxl_synthetic/{name}.csv" for name in ("classes", "groups")}
    before = {f"seed_0/{name}" for name in trained.files - {"wandb"}} | {
        f"seed_0/{path.name}" for path in trained.folder.glob("predictions.parquet")
    }
    assert files == before | figures | tables


def test_the_table_has_every_protocol_method_and_class(evaluated, trained) -> None:
    run, _, table = evaluated
    classes = [*load_module(trained.checkpoint, ETP).class_names, "Average"]
    expected = {(p, m, c) for p in ("zero_shot", "linear") for m in ("Random init", "ETP") for c in classes}
    assert set(zip(table["protocol"], table["method"], table["class"], strict=True)) == expected
    assert len(table) == len(expected)
    written = pd.read_csv(run / "evaluation" / "ptbxl_synthetic" / "classes.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False)


def test_the_zero_shot_value_is_that_of_test(evaluated, trained) -> None:
    run, _, table = evaluated
    cli = main(["test", *trained.arguments[1:]])
    row = table[(table["protocol"] == "zero_shot") & (table["method"] == "ETP") & (table["class"] == "Average")]
    assert row["auroc"].item() == pytest.approx(cli.trainer.callback_metrics["test/auroc"].item(), abs=1e-5)
    results = json.loads((run / "seed_0" / "results.json").read_text())
    assert results["zero_shot/auroc"] == pytest.approx(row["auroc"].item())
    assert {"linear/auroc", "fit/epochs"} <= results.keys()


def test_averages_and_figures_go_to_an_offline_run_of_the_same_group(evaluated, read_offline_run) -> None:
    run, _, table = evaluated
    content, records = read_offline_run(run / "seed_0")
    (started,) = [record["run"] for record in records if record["type"] == "run"]
    assert (started["project"], started["job_type"]) == ("quintet", "test")
    assert started["tags"] == ["ecg_text", "ptbxl_synthetic", "synthetic"]
    average = table[(table["class"] == "Average") & (table["method"] == "ETP")].set_index("protocol")
    assert content["summary"]["linear/auroc"] == pytest.approx(average.loc["linear", "auroc"])
    figures = [key for key in content["summary"] if key.startswith("figures/")]
    assert sorted(figures) == [
        f"figures/ptbxl_synthetic_{name}" for name in ("example", "linear", "similarity", "zero_shot")
    ]
    assert all(content["summary"][key]["_type"] == "images/separated" for key in figures)


def test_the_results_file_says_what_made_it(evaluated) -> None:
    _, path, table = evaluated
    results = pd.read_csv(path)
    assert len(results) == len(table)
    assert results["data_kind"].unique().tolist() == ["synthetic"]
    assert set(results["seeds"].astype(str)) == {"0"}
    assert results[["date", "revision", "hardware", "python", "torch"]].notna().all().all()


def test_a_missing_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--run", str(tmp_path)])
    assert stop.value.code == (
        f"error: no {tmp_path}/seed_*/checkpoints/best.ckpt: train first (make train-etp), or pass another --run"
    )


def test_a_wrong_data_file_says_what_to_do(evaluated, tmp_path: Path) -> None:
    arguments = ["evaluate", "--run", str(evaluated[0]), "--wandb", "disabled", "--data"]
    with pytest.raises(SystemExit, match=r"error: no file .*none\.yaml; the data sets are described in"):
        main([*arguments, str(tmp_path / "none.yaml")])
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"model": {}}))
    with pytest.raises(SystemExit, match=r"error: .*other\.yaml has no run\.dataset and data: blocks"):
        main([*arguments, str(tmp_path / "other.yaml")])
