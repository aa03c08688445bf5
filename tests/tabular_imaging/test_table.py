"""The paper's tables over fabricated evaluations: the numbers, and what cannot be compared."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from shared.metrics import difference, holm, interval, mean_values
from tabular_imaging.cli import main
from tabular_imaging.evaluation import tables
from tabular_imaging.evaluation.tables import SCRATCH
from tests.hand_made import RESULTS, write_evaluation, write_variant

SAMPLES, CLASSES, MODELS = 30, 3, 2
TARGET = np.random.default_rng(0).integers(CLASSES, size=SAMPLES)
RANDOM = "Random init"
PAPER = {
    "title": "Table 1",
    "reference": "MMCL",
    "columns": {"Frozen": {"protocol": "frozen"}, "Trainable": {"protocol": "trainable"}},
    "data_sets": {"Leaves": ["leaves"]},
    "values": {"Leaves": {"SimCLR": {"Frozen": 65.5}, "MMCL": {"Frozen": 91.4, "Trainable": 93.0}}},
}


LABELS = {"frozen": 300, "trainable": 200, "frozen_1_per_class": 3}


def scores(accuracy: float, seed: int) -> NDArray[np.float64]:
    """`(M, N, C)`: in about that share of the samples the target's score is the largest."""
    rng = np.random.default_rng(seed)
    found = rng.random((MODELS, SAMPLES, CLASSES))
    for model, sample in np.argwhere(rng.random((MODELS, SAMPLES)) < accuracy):
        found[model, sample, TARGET[sample]] += 1
    return found


def variant(
    root: Path,
    name: str,
    by_protocol: Mapping[str, Mapping[str, NDArray[np.float64]]],
    samples: list[str] | None = None,
    dataset: str = "leaves",
    **settings: Any,
) -> Path:
    """A variant of that class as training and `evaluate` leave it, as far as the table reads it."""
    place = "tabular_imaging" if name == "MMCL" else "shared.methods"
    model = {"fields": "all", "labels": "none", "label_as_feature": False, "encoder": {"class_path": "Net"}}
    changes = {"model.init_args": model} | {key.replace("__", "."): value for key, value in settings.items()}
    folder = write_variant(root / dataset / name.lower(), f"{place}.{name}", changes, range(MODELS))
    for seed in range(MODELS):
        results = {**RESULTS, "importance/morphometric": 0.25 + seed / 2}
        (folder / f"seed_{seed}" / "results.json").write_text(json.dumps(results))
    protocols = {
        name: {"title": name, "metric": "accuracy", "labels": LABELS[name]}
        | {"beside": name.replace("trainable", "frozen") if name.startswith("trainable") else ""}
        for name in by_protocol
    }
    target = np.eye(CLASSES, dtype=np.float32)[TARGET]
    write_evaluation(folder / "evaluation" / dataset, target, by_protocol, protocols, samples)
    return folder


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


def compare(table: Path, *runs: Path, **options: str) -> pd.DataFrame:
    """The rows of the printed table, by method."""
    more = [word for name, value in options.items() for word in (f"--{name}", value)]
    rows: pd.DataFrame = main(["table", "--table", str(table), "--run", *map(str, runs), *more])
    return rows.set_index("method")


def hits(found: NDArray[np.float64]) -> list[list[float]]:
    """Of every model, 1 for each sample whose largest score is the target's, and 0 for the others."""
    return [[float(np.argmax(row) == target) for row, target in zip(model, TARGET, strict=True)] for model in found]


def test_values_differences_and_intervals_are_those_of_the_samples_and_models(runs: list[Path], paper: Path) -> None:
    rows = compare(paper, *runs).loc[[RANDOM, "MMCL", SCRATCH, "SimCLR"]]
    assert len(rows) == 4

    of_rows = {RANDOM: hits(scores(0.2, 3)), "MMCL": hits(scores(0.9, 1)), SCRATCH: hits(scores(0.6, 4))}
    of_rows["SimCLR"] = of_rows["MMCL"]
    values = {name: mean_values(each) for name, each in of_rows.items()}
    for name, (one, other) in of_rows.items():
        row, of_models = rows.loc[name], (sum(one) / SAMPLES, sum(other) / SAMPLES)
        assert row["Frozen"] == pytest.approx(sum(of_models) / MODELS)
        assert row["Frozen_models"] == " ".join(f"{value:.4f}" for value in of_models)
        assert row["Frozen_std"] == pytest.approx(abs(of_models[0] - of_models[1]) / 2**0.5)
        assert row[["Frozen_low", "Frozen_high"]].tolist() == pytest.approx(interval(values[name])[1:3])
    assert rows.loc[[RANDOM, "MMCL"], "Frozen_labels"].tolist() == [300, 300]
    pairs = [("Frozen", name, RANDOM) for name in ("MMCL", SCRATCH, "SimCLR")]
    pairs += [("Frozen", "MMCL", SCRATCH), ("Frozen", "MMCL", "SimCLR"), ("Trainable", "MMCL", SCRATCH)]
    by_column = {"Frozen": values, "Trainable": {**values, "MMCL": mean_values(hits(scores(0.95, 2)))}}
    found = {pair: difference(by_column[pair[0]][pair[1]], by_column[pair[0]][pair[2]]) for pair in pairs}
    adjusted = dict(zip(pairs, holm([each.p for each in found.values()]), strict=True))
    for (column, plus, minus), expected in found.items():
        cells = [(plus, "over_random")] if minus == RANDOM else []
        cells += [(minus, "reference_over")] if plus == "MMCL" else []
        for name, key in cells:
            ends = ("", "_low", "_high", "_p", "_holm")
            row = rows.loc[name, [f"{column}_{key}{end}" for end in ends]].tolist()
            assert row == pytest.approx([*expected, adjusted[column, plus, minus]], rel=1e-9)
    assert "Trainable_over_random" not in rows  # untrained encoders are frozen, or stand in a row of their own
    assert pd.isna(rows.loc["MMCL", "Frozen_reference_over"])
    assert pd.isna(rows.loc[RANDOM, "Frozen_over_random"])
    # The same scores, but models of its own: no difference, and an interval around it.
    assert rows.loc["SimCLR", "Frozen_reference_over_p"] == 1
    assert rows.loc["SimCLR", "Frozen_reference_over"] == 0
    assert rows.loc["SimCLR", "Frozen_reference_over_low"] < 0 < rows.loc["SimCLR", "Frozen_reference_over_high"]
    assert pd.isna(rows.loc["SimCLR", "Trainable"])
    # An untrained encoder fine-tuned has no frozen one; it stands beside them as it is.
    for end in ("", "_std", "_labels"):
        assert rows.loc[SCRATCH, f"Frozen{end}"] == rows.loc[SCRATCH, f"Trainable{end}"]

    assert rows.loc["MMCL", "Trainable_labels"] == 200
    assert rows["models"].tolist() == [MODELS] * 4
    assert rows["samples"].tolist() == [SAMPLES] * 4
    assert rows["hours"].tolist() == [0, 0.5, 0, 0.5]
    assert rows["seeds"].tolist() == ["", "0 1", "", "0 1"]
    assert rows["morphometric_importance"].fillna(-1).tolist() == [-1, 0.5, -1, 0.5]


def test_supervised_training_and_an_untrained_encoder_fine_tuned_are_rows_of_their_own(
    runs: list[Path], paper: Path, tmp_path: Path
) -> None:
    rows = compare(paper, *runs)
    own = scores(0.6, 4)
    assert rows.loc[SCRATCH, "Trainable"] == pytest.approx((own.argmax(2) == TARGET).mean())
    assert rows.loc[SCRATCH, "variant"] == ""
    assert "Supervised" not in rows.index
    probe, trained = scores(0.7, 5), scores(0.8, 6)
    found = {"frozen": {"Supervised": probe}, "trainable": {"Supervised": trained}}
    rows = compare(paper, *runs, variant(tmp_path, "Supervised", found))
    for column, outcome in (("Frozen", probe), ("Trainable", trained)):
        assert rows.loc["Supervised", column] == pytest.approx((outcome.argmax(2) == TARGET).mean())
    assert rows.loc["Supervised", "variant"] == "supervised"
    assert rows.loc[SCRATCH, "Trainable"] == pytest.approx((own.argmax(2) == TARGET).mean())


def test_the_importance_of_a_variants_fields_is_that_for_the_model_of_all_fields(
    runs: list[Path], paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"morphometric": "Morphometric Features", "non_morphometric": "Non-Morphometric Features"}
    others = [
        variant(tmp_path / fields, "MMCL", {"frozen": {name: scores(0.5, 7)}}, model__init_args__fields=fields)
        for fields, name in names.items()
    ]
    results = {**RESULTS, "importance/morphometric": 0.35}
    (runs[0] / "seed_1" / "results.json").write_text(json.dumps(results))
    rows = compare(paper, runs[0], *others)
    assert rows.loc["MMCL", "importance"] == 1
    assert rows.loc[list(names.values()), "importance"].tolist() == pytest.approx([0.3, 0.7])
    assert rows.loc[[RANDOM, SCRATCH], "importance"].isna().all()
    assert " importance " in capsys.readouterr().out
    compare(paper, *runs)
    assert " importance " not in capsys.readouterr().out


def test_the_table_is_printed_drawn_and_appended(
    runs: list[Path], paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.csv"
    rows = compare(paper, *runs, results=str(results))
    said = capsys.readouterr().out
    assert "SYNTHETIC" not in said
    gain = 100 * rows.loc["MMCL", "Frozen_over_random"]
    cells = [re.split(r"\s*│\s*", line) for line in said.splitlines() if line.startswith("│")]
    cells = [line for line in cells if line[2]]  # the others go on with a line above
    # The paper's order; what its table lacks comes after.
    assert {line[2] for line in cells} == {"Random init", "Random init,", "fine-tuned", "SimCLR", "MMCL"}
    assert rows.index.tolist() == [RANDOM, "SimCLR", "MMCL", SCRATCH]
    (mmcl,) = (line for line in cells if line[2] == "MMCL")
    assert mmcl[3] == "91.4"
    assert mmcl[7].startswith(f"{gain:+.1f} [")
    assert mmcl[8:11] == ["-", "15 (150)", "0.50"]
    said = " ".join(said.split())
    assert "paired by sample for differences. The differences are those of Frozen. Supervised: frozen is a " in said
    (beyond,) = re.findall(r"Frozen: better than random init are (.*?)\. Trainable: better than random init are", said)
    over = {name: 100 * rows.loc[name, "Frozen_over_random"] for name in (SCRATCH, "SimCLR")}
    more = 100 * rows.loc[SCRATCH, "Frozen_reference_over"]
    assert beyond == (
        f"SimCLR ({over['SimCLR']:+.1f}), MMCL ({gain:+.1f}), {SCRATCH} ({over[SCRATCH]:+.1f}); worse none; not told "
        f"apart from it none. MMCL is better than Random init ({gain:+.1f}); worse than none; not told apart from "
        f"SimCLR (+0.0), {SCRATCH} ({more:+.1f})"
    )
    assert (tmp_path / "leaves" / "comparison" / "figures" / "leaves_table1.png").stat().st_size > 0
    kept = pd.read_csv(results)
    assert kept["method"].tolist() == rows.index.tolist()
    assert kept["Frozen"].tolist() == pytest.approx(rows["Frozen"].tolist(), abs=1e-4, nan_ok=True)
    for column, value in {"data_kind": "real", "table": "table1", "batch_size": 64}.items():
        assert kept[column].tolist() == [value] * 4
    assert kept["epochs"].tolist() == [0, 15, 15, 0]  # the untrained encoder's fine-tuning is none of pre-training


def test_columns_of_different_numbers_of_labels_are_drawn_over_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for name in ("draw_low_data", "draw_results"):
        draw = getattr(tables, name)

        def keep(rows: pd.DataFrame, *more: Any, name: str = name, draw: Any = draw) -> Any:
            drawn.append((name, sorted(set(rows["labels"].dropna()))))
            return draw(rows, *more)

        monkeypatch.setattr(tables, name, keep)
    found = {"frozen": {"MMCL": scores(0.9, 1)}, "frozen_1_per_class": {"MMCL": scores(0.5, 2)}}
    run = variant(tmp_path, "MMCL", found)
    columns = {"1 a class": {"protocol": "frozen_1_per_class"}, "all": {"protocol": "frozen"}}
    path = tmp_path / "figure2.yaml"
    for shown in (columns, {"all": columns["all"]}):
        path.write_text(yaml.safe_dump(PAPER | {"columns": shown}, sort_keys=False))
        compare(path, run)
    assert drawn == [("draw_low_data", [3, 300]), ("draw_results", [300])]


def test_of_two_classes_the_area_is_the_seconds_alone(tmp_path: Path, paper: Path) -> None:
    rng = np.random.default_rng(0)
    target, found = rng.integers(2, size=SAMPLES), rng.normal(size=(1, SAMPLES, 2))
    run = variant(tmp_path, "MMCL", {"frozen": {"MMCL": found}})
    protocols = {"frozen": {"title": "frozen", "metric": "auroc", "labels": 300}}
    folder = run / "evaluation" / "leaves"
    write_evaluation(folder, np.eye(2, dtype=np.float32)[target], {"frozen": {"MMCL": found}}, protocols)
    expected = roc_auc_score(target, found[0, :, 1])
    assert roc_auc_score(1 - target, found[0, :, 0]) != pytest.approx(expected)
    assert compare(paper, run).loc["MMCL", "Frozen"] == pytest.approx(expected)


# ---- what cannot be compared


def refusal(paper: Path, *runs: Path) -> str:
    with pytest.raises(SystemExit) as caught:
        compare(paper, *runs)
    return str(caught.value)


def test_two_variants_of_one_method_are_refused_and_of_two_settings_are_not(
    runs: list[Path], paper: Path, tmp_path: Path
) -> None:
    mine = variant(tmp_path / "mine", "MMCL", {"frozen": {"MMCL": scores(0.5, 7)}})
    assert refusal(paper, *runs, mine) == (
        f"error: {mine} and another of the variants are both MMCL; compare one at a time"
    )
    settings = {"model__init_args__label_as_feature": True, "model__init_args__labels": "supcon"}
    laaf = variant(tmp_path / "laaf", "MMCL", {"frozen": {"LaaF": scores(0.5, 7)}}, **settings)
    assert compare(paper, *runs, laaf).index.tolist()[-1] == "SupCon + LaaF"


def test_a_run_that_was_not_evaluated_so_is_named(runs: list[Path], paper: Path, tmp_path: Path) -> None:
    few = variant(tmp_path / "few", "MMCL", {"frozen_1_per_class": {"MMCL": scores(0.5, 7)}})
    said = f"error: {few}/evaluation/leaves has no scores of frozen, trainable; evaluate again"
    assert refusal(paper, few) == said
    assert refusal(paper, runs[0], few) == said
    shutil.rmtree(runs[1] / "evaluation")
    assert refusal(paper, *runs).startswith("error: no data set of Table 1 has all variants evaluated: run python -m ")
    nowhere = tmp_path / "nowhere"
    assert refusal(paper, nowhere).startswith(f"error: no {nowhere}/seed_*/config.yaml: train first, ")


def test_methods_that_were_trained_otherwise_are_compared_only_apart(
    runs: list[Path], paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MMCL at 15 epochs in float32 beside SimCLR at 1 epoch in bf16 used to be a difference beyond noise."""
    settings = {"trainer__max_epochs": 1, "trainer__precision": "bf16-mixed"}
    simclr = variant(tmp_path / "short", "SimCLR", {"frozen": {"SimCLR": scores(0.2, 7)}}, **settings)
    assert refusal(paper, runs[0], simclr) == (
        f"error: the trainings of {runs[0]} and {simclr} differ in precision (32-true and bf16-mixed), so comparing "
        "the methods says nothing: train them alike, or show them in separate tables (--apart true)"
    )
    once = variant(tmp_path / "once", "SimCLR", {"frozen": {"SimCLR": scores(0.2, 7)}}, trainer__max_epochs=1)
    assert " differ in trainer.max_epochs (15 and 1), which is not what the methods' own" in refusal(
        paper, runs[0], once
    )
    capsys.readouterr()
    rows = compare(paper, runs[0], simclr, apart="true")
    assert rows.index.tolist() == [RANDOM, "MMCL", SCRATCH, "SimCLR"]
    assert np.isnan(rows.loc["SimCLR", "Frozen_reference_over"])
    assert capsys.readouterr().out.count("Table 1; ours trained on leaves, evaluated on leaves") == 2


@pytest.mark.parametrize(
    ("dataset", "methods", "epochs", "names"),
    [
        ("dvm_synthetic", ("MMCL", "Supervised"), (30, 200), ("mmcl", "supervised")),
        ("leaves", ("SimCLR", "MMCL"), (40, 80), ("simclr", "mmcl_equal_views")),
    ],
)
def test_the_epochs_that_the_yamls_give_a_method_stand_and_are_shown(
    paper: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    methods: tuple[str, str],
    epochs: tuple[int, int],
    names: tuple[str, str],
) -> None:
    runs = []
    for name, count, own in zip(methods, epochs, names, strict=True):
        settings: dict[str, Any] = {"trainer__max_epochs": count, "run__variant": own}
        settings["data__init_args__batch_size"] = 32  # the same for both
        found = {"trainable": {name: scores(0.5, 7)}}
        runs.append(variant(tmp_path, name, found, dataset=dataset, **settings))
    rows = compare(paper, *runs)
    assert set(rows["epochs"]) == set(epochs)
    said = capsys.readouterr().out
    assert all(f" {count} (150) " in said for count in epochs)
