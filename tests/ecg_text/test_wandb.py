"""An offline W&B run, read back with W&B's own tool; and when a run is offline."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb

from ecg_text.cli import main
from shared.runs.tracking import wandb_logger


@pytest.fixture(scope="module")
def offline(trained, read_offline_run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content: tuple[dict[str, Any], list[dict[str, Any]]] = read_offline_run(trained.folder)
    return content


def test_the_run_is_where_its_seeds_meet(offline) -> None:
    (run,) = [record["run"] for record in offline[1] if record["type"] == "run"]
    assert run["project"] == "quintet"
    assert run["run_group"] == "ecg_text/ptbxl_synthetic/etp"
    assert run["job_type"] == "fit"
    assert run["display_name"] == "etp-seed0"
    assert run["tags"] == ["ecg_text", "ptbxl_synthetic", "synthetic"]
    assert offline[0]["state"] == "finished"


def test_the_configuration_is_logged_once_and_whole(offline) -> None:
    config = offline[0]["config"]
    assert config.keys() == {"seed_everything", "run", "model", "data"}
    assert config["seed_everything"] == 0
    assert config["model"]["init_args"]["temperature"] == 0.07
    assert config["data"]["init_args"]["batch_size"] == 16
    assert [record["type"] for record in offline[1]].count("config") == 1


def test_the_summary_has_the_best_value_and_the_throughput(offline, trained) -> None:
    summary = offline[0]["summary"]
    metrics = pd.read_csv(trained.folder / "metrics.csv")
    assert summary["val/loss"] == {"min": pytest.approx(metrics["val/loss"].min())}
    logged = set(metrics.columns) - {"step"}
    assert logged <= summary.keys()
    assert {"throughput/samples_per_second", "throughput/data_wait", "throughput/peak_memory_gb"} <= logged
    history = [record["history"]["item"] for record in offline[1] if record["type"] == "history"]
    assert [item["val/auroc"] for item in history if "val/auroc" in item] == pytest.approx(
        metrics["val/auroc"].dropna().tolist()
    )


def test_disabled_leaves_no_run(command_line, tmp_path: Path) -> None:
    assert wandb_logger(tmp_path, "g", "n", [], "disabled") is None
    main(command_line("fit", tmp_path, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"))
    assert not [path for path in tmp_path.rglob("*") if "wandb" in path.name]
    assert wandb.run is None
