"""Settings ranked by validation, over fabricated evaluations."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tabular_imaging.cli import main

RANDOM = "Random init"


def variant(root: Path, method: str, name: str, val: float, test: float) -> Path:
    """A variant as training and `evaluate` leave it, as far as `rank` reads it."""
    run = root / "leaves" / name
    (run / "seed_3" / "checkpoints").mkdir(parents=True)
    (run / "seed_3" / "checkpoints" / "best.ckpt").touch()
    model = {"fields": "all", "labels": "none", "label_as_feature": False}
    config = {
        "run": {"dataset": "leaves", "tags": ["real"]},
        "trainer": {"max_epochs": 20},
        "model": {"class_path": f"tabular_imaging.{method}", "init_args": model},
        "data": {"class_path": "tabular_imaging.ImageTableDataModule", "init_args": {}},
    }
    (run / "seed_3" / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "evaluation" / "leaves").mkdir(parents=True)
    rows = [
        {"protocol": "frozen", "method": RANDOM, "metric": "accuracy", "value": 0.1, "val": 0.99},
        {"protocol": "frozen@1 a class", "method": method, "metric": "accuracy", "value": 0.1, "val": 0.98},
        {"protocol": "frozen", "method": method, "metric": "accuracy", "value": test, "val": val},
    ]
    pd.DataFrame(rows).to_csv(run / "evaluation" / "leaves" / "results.csv", index=False)
    return run


def test_each_methods_settings_stand_by_validation_whatever_the_test_samples_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        variant(tmp_path, "SimCLR", "simclr@lr=0.1", val=0.50, test=0.9),
        variant(tmp_path, "MMCL", "mmcl@lr=0.1", val=0.60, test=0.9),
        variant(tmp_path, "SimCLR", "simclr@lr=0.2", val=0.75, test=0.2),
        variant(tmp_path, "MMCL", "mmcl@lr=0.2", val=0.65, test=0.1),
    ]
    results = tmp_path / "results.csv"
    ranked = main(["rank", "--run", *map(str, runs), "--results", str(results)])
    expected = ["mmcl@lr=0.2", "mmcl@lr=0.1", "simclr@lr=0.2", "simclr@lr=0.1"]
    assert ranked["variant"].tolist() == expected
    said = capsys.readouterr().out
    assert re.findall(r"\S+@lr=\S+", said) == expected
    assert [float(value) for value in re.findall(r"│\s+([\d.]+) │\n", said)] == [65.0, 60.0, 75.0, 50.0]
    kept = pd.read_csv(results)
    assert kept["val"].tolist() == [0.65, 0.60, 0.75, 0.50]
    assert kept["seeds"].tolist() == [3] * 4
    assert kept["epochs"].tolist() == [20] * 4
    assert set(kept["dataset"]) == {"leaves"}


def test_a_variant_that_was_not_evaluated_so_is_named(tmp_path: Path) -> None:
    run = variant(tmp_path, "MMCL", "mmcl@lr=0.1", val=0.5, test=0.5)
    with pytest.raises(SystemExit) as stop:
        main(["rank", "--run", str(run), "--protocol", "trainable"])
    expected = f"error: {run} was not evaluated (trainable) on leaves: python -m tabular_imaging evaluate"
    assert stop.value.code == expected
