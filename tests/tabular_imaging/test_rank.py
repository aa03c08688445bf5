"""Settings ranked by validation, over fabricated evaluations."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tabular_imaging.cli import main
from tests.hand_made import write_variant

RANDOM = "Random init"


def variant(root: Path, method: str, name: str, val: float, test: float) -> Path:
    """A variant as training and `evaluate` leave it, as far as `rank` reads it."""
    settings: dict[str, object] = {"trainer.max_epochs": 20}
    if method == "tabular_imaging.MMCL":
        settings["model.init_args"] = {"fields": "all", "labels": "none", "label_as_feature": False}
    run = write_variant(root / "leaves" / name, method, settings, seeds=[3])
    (run / "evaluation" / "leaves").mkdir(parents=True)
    title = method.rpartition(".")[2]
    rows = [
        {"protocol": "frozen", "method": RANDOM, "metric": "accuracy", "value": 0.1, "val": 0.99},
        {"protocol": "frozen", "method": "Pixels", "metric": "accuracy", "value": 0.1, "val": 0.97},
        {"protocol": "frozen_1_per_class", "method": title, "metric": "accuracy", "value": 0.1, "val": 0.98},
        {"protocol": "frozen", "method": title, "metric": "accuracy", "value": test, "val": val},
    ]
    pd.DataFrame(rows).to_csv(run / "evaluation" / "leaves" / "results.csv", index=False)
    return run


def test_each_methods_settings_stand_by_validation_whatever_the_test_samples_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        variant(tmp_path, "shared.methods.SimCLR", "simclr@lr=0.1", val=0.50, test=0.9),
        variant(tmp_path, "tabular_imaging.MMCL", "mmcl@lr=0.1", val=0.60, test=0.9),
        variant(tmp_path, "shared.methods.SimCLR", "simclr@lr=0.2", val=0.75, test=0.2),
        variant(tmp_path, "tabular_imaging.MMCL", "mmcl@lr=0.2", val=0.65, test=0.1),
    ]
    results = tmp_path / "results.csv"
    ranked = main(["rank", "--run", *map(str, runs), "--results", str(results)])
    expected = ["mmcl@lr=0.2", "mmcl@lr=0.1", "simclr@lr=0.2", "simclr@lr=0.1"]
    assert ranked["variant"].tolist() == expected
    assert ranked["method"].tolist() == ["MMCL", "MMCL", "SimCLR", "SimCLR"]
    said = capsys.readouterr().out
    assert re.findall(r"\S+@lr=\S+", said) == expected
    assert [float(value) for value in re.findall(r"│\s+([\d.]+) │\n", said)] == [65.0, 60.0, 75.0, 50.0]
    kept = pd.read_csv(results)
    assert kept["val"].tolist() == [0.65, 0.60, 0.75, 0.50]
    assert kept["seeds"].tolist() == [3] * 4
    assert kept["epochs"].tolist() == [20] * 4
    assert set(kept["dataset"]) == {"leaves"}


def test_a_variant_that_was_not_evaluated_so_is_named(tmp_path: Path) -> None:
    run = variant(tmp_path, "tabular_imaging.MMCL", "mmcl@lr=0.1", val=0.5, test=0.5)
    with pytest.raises(SystemExit) as stop:
        main(["rank", "--run", str(run), "--protocol", "trainable"])
    expected = f"error: {run} was not evaluated (trainable) on leaves: run python -m tabular_imaging evaluate"
    assert stop.value.code == expected
