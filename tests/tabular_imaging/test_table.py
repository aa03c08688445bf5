"""The paper's tables over fabricated evaluations: the numbers against NumPy, and what cannot be compared."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from shared.runs.scores import Scores, write_scores
from tabular_imaging.cli import main
from tabular_imaging.verbs.table import compare, read_table

SAMPLES, CLASSES, MODELS, RESAMPLES = 30, 3, 2, 1000
TARGET = np.random.default_rng(0).integers(CLASSES, size=SAMPLES)
RANDOM = "Random init"
PAPER = {
    "title": "Table 1",
    "reference": "MMCL",
    "columns": {"Frozen": "frozen", "Trainable": "trainable"},
    "data_sets": {"Leaves": "leaves"},
    "values": {"Leaves": {"SimCLR": {"Frozen": 65.5}, "MMCL": {"Frozen": 91.4, "Trainable": 93.0}}},
}


def scores(accuracy: float, seed: int) -> np.ndarray:
    """`(M, N, C)`: in about that share of the samples the target's score is the largest."""
    rng = np.random.default_rng(seed)
    found = rng.random((MODELS, SAMPLES, CLASSES))
    for model, sample in np.argwhere(rng.random((MODELS, SAMPLES)) < accuracy):
        found[model, sample, TARGET[sample]] += 1
    return found


def variant(
    root: Path,
    name: str,
    by_protocol: dict[str, dict[str, np.ndarray]],
    records: list[str] | None = None,
    tags: tuple[str, ...] = ("real",),
    **settings: Any,
) -> Path:
    """A variant of that class as training and `evaluate` leave it, as far as the table reads it."""
    run = root / "leaves" / name.lower()
    model = {"fields": "all", "labels": "none", "label_as_feature": False} | settings
    for seed in range(MODELS):
        folder = run / f"seed_{seed}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "best.ckpt").touch()
        results = {"fit/epochs": 15, "fit/seconds": 900.0, "importance/morphometric": 0.25 + seed / 2}
        (folder / "results.json").write_text(json.dumps(results))
        config = {
            "run": {"dataset": "leaves", "tags": list(tags)},
            "trainer": {"max_epochs": 15, "precision": "32-true"},
            "model": {"class_path": f"tabular_imaging.{name}", "init_args": model},
            "data": {"class_path": "tabular_imaging.ImageTableDataModule", "init_args": {"batch_size": 64}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    folder = run / "evaluation" / "leaves"
    folder.mkdir(parents=True)
    kept = {
        protocol: {method: Scores([], list(array)) for method, array in by_method.items()}
        for protocol, by_method in by_protocol.items()
    }
    ids = records or [f"leaf{sample}" for sample in range(SAMPLES)]
    write_scores(folder, ids, ["a", "b", "c"], np.eye(CLASSES, dtype=np.float32)[TARGET], kept)
    labels = {"frozen": 300, "trainable": 200, "frozen@1 a class": 3}
    rows = [{"protocol": protocol, "metric": "accuracy", "labels": labels[protocol]} for protocol in by_protocol]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    return run


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "table1.yaml"
    path.write_text(yaml.safe_dump(PAPER, sort_keys=False))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """MMCL far above random init, SimCLR exactly as MMCL where frozen; the second random init is not the first."""
    best, fine = scores(0.9, 1), scores(0.95, 2)
    mmcl = {"frozen": {RANDOM: scores(0.2, 3), "MMCL": best}, "trainable": {RANDOM: scores(0.6, 4), "MMCL": fine}}
    simclr = {"frozen": {RANDOM: scores(0.9, 5), "SimCLR": best}}
    return [variant(tmp_path, "MMCL", mmcl), variant(tmp_path, "SimCLR", simclr)]


def over_models(resampled: list[list[float]], rng: np.random.Generator) -> list[float]:
    """Models drawn anew in each resample; the spread over two of them times the square root of two."""
    means = []
    for row, drawn in zip(resampled, rng.integers(MODELS, size=(RESAMPLES, MODELS)), strict=True):
        mean = sum(row) / MODELS
        means.append(mean + (sum(row[model] for model in drawn) / MODELS - mean) * 2**0.5)
    return means


def resampled_accuracies(found: np.ndarray) -> list[list[float]]:
    """Of every model on each resample of the samples, which are the same draws for all methods."""
    draws = np.random.default_rng(0).integers(SAMPLES, size=(RESAMPLES, SAMPLES))
    hits = [[float(np.argmax(row) == target) for row, target in zip(model, TARGET, strict=True)] for model in found]
    return [[sum(model[sample] for sample in draw) / SAMPLES for model in hits] for draw in draws]


def ends(differences: list[float]) -> tuple[float, float]:
    low, high = np.percentile(differences, [2.5, 97.5])
    return pytest.approx(low), pytest.approx(high)


def test_values_differences_and_intervals_are_those_of_numpy(runs: list[Path], paper: Path) -> None:
    rows = compare(runs, "leaves", read_table(paper)).set_index("method")
    assert rows.index.tolist() == [RANDOM, "MMCL", "Supervised", "SimCLR"]

    rng = np.random.default_rng(0)
    frozen = {RANDOM: scores(0.2, 3), "MMCL": scores(0.9, 1)}
    drawn = {name: over_models(resampled_accuracies(found), rng) for name, found in frozen.items()}
    value = {name: [(model.argmax(1) == TARGET).mean() for model in found] for name, found in frozen.items()}
    for name in frozen:
        row = rows.loc[name]
        assert row["Frozen"] == pytest.approx(sum(value[name]) / MODELS)
        assert row["Frozen_std"] == pytest.approx(abs(value[name][0] - value[name][1]) / 2**0.5)
        assert (row["Frozen_low"], row["Frozen_high"]) == ends(drawn[name])
        assert row["Frozen_labels"] == 300
    pairs = list(zip(drawn["MMCL"], drawn[RANDOM], strict=True))
    gain = rows.loc["MMCL", "Frozen"] - rows.loc[RANDOM, "Frozen"]
    for name, key in (("MMCL", "Frozen_over_random"), (RANDOM, "Frozen_reference_over")):
        row = rows.loc[name]
        assert row[key] == pytest.approx(gain)
        assert (row[f"{key}_low"], row[f"{key}_high"]) == ends([one - other for one, other in pairs])
    assert pd.isna(rows.loc["MMCL", "Frozen_reference_over"])
    assert pd.isna(rows.loc[RANDOM, "Frozen_over_random"])
    # The same scores, but models of its own: no difference, and an interval around it.
    assert rows.loc["SimCLR", "Frozen_reference_over"] == 0
    assert rows.loc["SimCLR", "Frozen_reference_over_low"] < 0 < rows.loc["SimCLR", "Frozen_reference_over_high"]
    assert pd.isna(rows.loc["SimCLR", "Trainable"])
    # Supervised training has no frozen encoder; it stands beside them as it is, as in the paper's tables.
    for end in ("", "_std", "_labels"):
        assert rows.loc["Supervised", f"Frozen{end}"] == rows.loc["Supervised", f"Trainable{end}"]

    assert rows.loc["MMCL", "Trainable_labels"] == 200
    assert rows["models"].tolist() == [MODELS] * 4
    assert rows["samples"].tolist() == [SAMPLES] * 4
    assert rows["hours"].tolist() == [0, 0.5, 0, 0.5]
    assert rows["seeds"].tolist() == ["", "0 1", "", "0 1"]
    assert rows["morphometric_importance"].fillna(-1).tolist() == [-1, 0.5, -1, 0.5]


def test_an_untrained_encoder_fine_tuned_stands_for_supervised_training_unless_there_is_some(
    runs: list[Path], paper: Path, tmp_path: Path
) -> None:
    table = read_table(paper)
    rows = compare(runs, "leaves", table).set_index("method")
    own = scores(0.6, 4)
    assert rows.loc["Supervised", "Trainable"] == pytest.approx((own.argmax(2) == TARGET).mean())
    assert rows.loc["Supervised", "variant"] == ""
    trained = scores(0.8, 6)
    supervised = variant(tmp_path, "Supervised", {"trainable": {"Supervised": trained}})
    rows = compare([*runs, supervised], "leaves", table).set_index("method")
    assert rows.loc["Supervised", "Trainable"] == pytest.approx((trained.argmax(2) == TARGET).mean())
    assert rows.loc["Supervised", "variant"] == "supervised"


def test_the_importance_of_a_variants_fields_is_that_for_the_model_of_all_fields(
    runs: list[Path], paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"morphometric": "Morphometric Features", "non_morphometric": "Non-Morphometric Features"}
    others = [
        variant(tmp_path / fields, "MMCL", {"frozen": {name: scores(0.5, 7)}}, fields=fields)
        for fields, name in names.items()
    ]
    (runs[0] / "seed_1" / "results.json").write_text(json.dumps({"fit/epochs": 15, "importance/morphometric": 0.35}))
    rows = compare([runs[0], *others], "leaves", read_table(paper)).set_index("method")
    assert rows.loc["MMCL", "importance"] == 1
    assert rows.loc[list(names.values()), "importance"].tolist() == pytest.approx([0.3, 0.7])
    assert rows.loc[[RANDOM, "Supervised"], "importance"].isna().all()
    main(["table", "--table", str(paper), "--runs", *map(str, [runs[0], *others])])
    assert "importance" in capsys.readouterr().out


def test_the_table_is_printed_drawn_and_appended(
    runs: list[Path], paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.csv"
    arguments = ["table", "--table", str(paper), "--runs", *map(str, runs), "--results", str(results)]
    rows = main(arguments)
    said = capsys.readouterr().out
    assert "SYNTHETIC" not in said
    gain = 100 * rows.set_index("method").loc["MMCL", "Frozen_over_random"]
    cells = [re.split(r"\s*│\s*", line) for line in said.splitlines() if line.startswith("│")]
    cells = [line for line in cells if line[2]]  # the others go on with a line above
    assert [line[2] for line in cells] == [RANDOM, "SimCLR", "MMCL", "Supervised"]  # the paper's order
    mmcl = cells[2]
    assert mmcl[3] == "91.4"
    assert mmcl[7].startswith(f"{gain:+.1f} [")
    assert mmcl[8:10] == ["-", "0.50"]
    (beyond,) = re.findall(r"Frozen: .*?\. Trainable", " ".join(said.split()))
    assert "SimCLR (+0.0)" in beyond.partition("MMCL is beyond noise")[2].partition("not told apart from: ")[2]
    assert "One pre-trained encoder" not in said
    for run in runs:
        shutil.rmtree(run / "seed_1")
    main(arguments[:-2])
    assert "One pre-trained encoder a method" in capsys.readouterr().out
    assert (tmp_path / "leaves" / "comparison" / "figures" / "leaves_table1.png").stat().st_size > 0
    kept = pd.read_csv(results)
    assert kept["method"].tolist() == rows["method"].tolist()
    assert kept["Frozen"].tolist() == pytest.approx(rows["Frozen"].tolist(), abs=1e-4, nan_ok=True)
    for column, value in {"data_kind": "real", "table": "table1", "batch_size": 64}.items():
        assert kept[column].tolist() == [value] * 4
    assert kept["epochs"].tolist() == [0, 15, 15, 0]  # the untrained encoder's fine-tuning is none of pre-training


# ---- what cannot be compared


def refusal(paper: Path, *runs: Path) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["table", "--table", str(paper), "--runs", *map(str, runs)])
    return str(caught.value)


def test_variants_evaluated_on_other_samples_are_refused(runs: list[Path], paper: Path, tmp_path: Path) -> None:
    others = [f"leaf{sample + 1}" for sample in range(SAMPLES)]
    other = variant(tmp_path, "BYOL", {"frozen": {"BYOL": scores(0.5, 7)}}, records=others)
    assert refusal(paper, *runs, other) == (
        f"error: {other} and {runs[0]} were evaluated on other samples or classes, so they cannot be compared; train "
        "and evaluate both with the same data settings"
    )


def test_two_variants_of_one_method_are_refused_and_of_two_settings_are_not(
    runs: list[Path], paper: Path, tmp_path: Path
) -> None:
    mine = variant(tmp_path / "mine", "MMCL", {"frozen": {"MMCL": scores(0.5, 7)}})
    assert refusal(paper, *runs, mine) == (
        f"error: {mine} and another of the variants are both MMCL; compare one at a time"
    )
    laaf = variant(
        tmp_path / "laaf", "MMCL", {"frozen": {"LaaF": scores(0.5, 7)}}, label_as_feature=True, labels="supcon"
    )
    rows = compare([*runs, laaf], "leaves", read_table(paper))
    assert rows["method"].tolist()[-1] == "SupCon + LaaF"


def test_a_run_that_was_not_evaluated_so_is_named(runs: list[Path], paper: Path, tmp_path: Path) -> None:
    few = variant(tmp_path / "few", "MMCL", {"frozen@1 a class": {"MMCL": scores(0.5, 7)}})
    assert refusal(paper, few) == "error: none of the variants has scores of frozen, trainable; evaluate again"
    scores_file = runs[1] / "evaluation" / "leaves" / "scores.npz"
    scores_file.unlink()
    assert refusal(paper, *runs) == f"error: no {scores_file}: python -m <package> evaluate writes it"
    nowhere = tmp_path / "nowhere"
    assert refusal(paper, nowhere).startswith(f"error: no {nowhere}/seed_*/checkpoints/best.ckpt: train first, ")


def test_a_file_that_is_no_table_is_named(runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert refusal(path, *runs) == f"error: no file {path}; the paper's tables are in tabular_imaging/configs/tables/"
    for content in ("title: Table 1\n", "- 1\n", "", yaml.safe_dump(PAPER | {"rows": 3})):
        path.write_text(content)
        said = refusal(path, *runs)
        assert said.startswith(f"error: {path} is no table of the paper (")
        assert said.endswith("); see tabular_imaging/configs/tables/")
