"""`python -m ecg_text evaluate` through the real `main`, on a tiny trained model."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ecg_text import ETP
from ecg_text.cli import main
from ecg_text.evaluation.models import check_test
from shared.checkpoint import load_module
from shared.data.problems import DataError


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
    names = ("results.csv", "groups.csv", "scores.npz", "evaluation.json")
    tables = {f"evaluation/ptbxl_synthetic/{name}" for name in names}
    before = {f"seed_0/{name}" for name in trained.files - {"wandb"}} | {
        f"seed_0/{path.name}" for path in trained.folder.glob("predictions.parquet")
    }
    assert files == before | figures | tables


def test_the_table_has_every_protocol_method_and_class(evaluated, trained) -> None:
    run, _, table = evaluated
    classes = [*load_module(trained.checkpoint, ETP).class_names, "Average"]
    expected = {(p, m, c) for p in ("zero_shot", "linear") for m in ("Random init", "ETP (n-grams)") for c in classes}
    assert set(zip(table["protocol"], table["method"], table["class"], strict=True)) == expected
    assert len(table) == len(expected)
    written = pd.read_csv(run / "evaluation" / "ptbxl_synthetic" / "results.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False)


def test_the_zero_shot_value_is_that_of_test(evaluated, trained) -> None:
    run, _, table = evaluated
    cli = main(["test", *trained.arguments[1:]])
    row = table.query("protocol == 'zero_shot' and method == 'ETP (n-grams)' and `class` == 'Average'")
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
    average = table[(table["class"] == "Average") & (table["method"] == "ETP (n-grams)")].set_index("protocol")
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
    assert stop.value.code == f"error: no {tmp_path}/seed_*/config.yaml: train first, or pass another --run"


def test_a_wrong_data_file_says_what_to_do(evaluated, tmp_path: Path) -> None:
    arguments = ["evaluate", "--run", str(evaluated[0]), "--wandb", "disabled", "--data"]
    with pytest.raises(SystemExit, match=r"error: no file .*none\.yaml$"):
        main([*arguments, str(tmp_path / "none.yaml")])
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"model": {}}))
    with pytest.raises(SystemExit, match=r"error: .*other\.yaml lacks run\.dataset or data:; by name, there are: cps"):
        main([*arguments, str(tmp_path / "other.yaml")])


def test_prompts_from_a_file_go_by_its_name_and_unknown_ages_are_no_group(evaluated, trained, tmp_path: Path) -> None:
    run = tmp_path / "etp"
    shutil.copytree(evaluated[0] / "seed_0", run / "seed_0", ignore=shutil.ignore_patterns("wandb", "figures"))
    config = yaml.safe_load((run / "seed_0" / "config.yaml").read_text())
    root = tmp_path / "root"
    shutil.copytree(config["data"]["init_args"]["root"], root)
    database = pd.read_csv(root / "ptbxl_database.csv")
    test = database["strat_fold"] >= 9
    assert test.sum() > 12
    database.loc[database.index[test][:6], "age"] = None
    database.to_csv(root / "ptbxl_database.csv", index=False)
    own = tmp_path / "own words.yaml"
    own.write_text(yaml.safe_dump({"templates": ["it shows {}"]}))
    small = ["--random_inits", "0", "--resamples", "10", "--wandb", "disabled", "--threads", "1"]
    table = main(["evaluate", "--run", str(run), "--root", str(root), *small, "--prompts", str(own)])
    assert table["protocol"].unique().tolist() == ["zero_shot", "zero_shot_own_words", "linear"]
    assert (run / "seed_0" / "figures" / "ptbxl_synthetic_zero_shot_own_words.png").is_file()
    assert "zero_shot_own_words/auroc" in json.loads((run / "seed_0" / "results.json").read_text())
    groups = pd.read_csv(run / "evaluation" / "ptbxl_synthetic" / "groups.csv", keep_default_na=False)
    ages = groups[(groups["group"] == "age") & (groups["protocol"] == "linear")]
    assert set(ages["value"]) <= {"[0, 40)", "[40, 60)", "[60, 75)", "[75, 400)"}
    assert 0 < ages["samples"].sum() <= table["samples"].iloc[0] - 1


@pytest.mark.parametrize(("count", "message"), [(8, "every test record has the class B, so"), (2, None)])
def test_a_class_of_all_test_records_is_an_error_and_one_of_two_a_warning(
    count: int, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    data: Any = SimpleNamespace(classes=["A", "B"])
    target = np.zeros((8, 2), dtype=np.float32)
    target[:4, 0], target[:count, 1] = 1, 1
    if message:
        with pytest.raises(DataError, match=message):
            check_test(data, target)
    else:
        check_test(data, target)
        assert caplog.messages == [
            "classes with fewer than 3 test records, which many bootstrap resamples leave out: B"
        ]
