"""`evaluate`, `explain`, `table` and `predict` through the real `main([...])`, on a small SYNTHETIC run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

import tabular_imaging
from shared.checkpoint import load_module
from shared.methods import Supervised
from shared.metrics import auroc_values, difference, interval, mean_values
from shared.runs.scores import Outcome, Scores
from tabular_imaging.cli import main
from tabular_imaging.evaluation.classifiers import ClassifierProtocol, load_classifier, load_data_module
from tabular_imaging.evaluation.models import TabularEvaluation

CONFIGS = Path(tabular_imaging.__file__).parent / "configs"
SETTINGS = [
    *("--inputs", "image", "table"),
    *("--settings.per_class", "[1]"),
    *("--settings.probe_epochs", "5"),
    *("--settings.probe_seeds", "2"),
    *("--wandb", "disabled"),
]


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("evaluated") / trained.relative_to(trained.parents[2])
    shutil.copytree(trained, run)
    main(["evaluate", "--run", str(run), *SETTINGS])
    return run


def test_the_evaluation_writes_its_files_and_its_accuracy_is_that_of_the_scores(evaluated: Path) -> None:
    folder = evaluated / "evaluation" / "dvm_synthetic"
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", "groups.csv", "results.csv", "scores.npz"}
    table = pd.read_csv(folder / "results.csv")
    protocols = ["frozen", "frozen_1_per_class", "frozen_table", "frozen_1_per_class_table"]
    assert table["protocol"].unique().tolist() == protocols
    of_images, of_tables = ["Random init", "Pixels", "MMCL"], ["Random init", "MMCL"]
    assert table["method"].tolist() == [*of_images * 2, *of_tables * 2]
    kept = Scores.read(folder)
    truth = kept.target.argmax(1)
    for row in table.to_dict("records"):
        scores = kept.found[row["protocol"]][row["method"]].test
        assert scores is not None
        assert scores.shape == (1 if row["method"] == "Pixels" else 2, len(truth), len(kept.classes))
        hits = np.array([[model[record].argmax() == truth[record] for record in range(len(truth))] for model in scores])
        assert row["value"] == pytest.approx(hits.mean())
        of_classifiers = mean_values(hits, kept.groups)
        assert (row["low"], row["high"]) == pytest.approx(interval(of_classifiers)[1:3])
        gain = [row[key] for key in ("gain", "gain_low", "gain_high", "gain_p")]
        if row["method"] == "Random init":
            untrained = of_classifiers
            assert np.isnan(gain).all()
        else:
            assert gain == pytest.approx(difference(of_classifiers, untrained))
    assert (table.loc[table["protocol"] == "frozen_1_per_class", "labels"] == len(kept.classes)).all()
    results = json.loads((evaluated / "seed_0" / "results.json").read_text())
    assert results["frozen/accuracy"] == pytest.approx(table["value"][2])
    figures = {path.name for path in (evaluated / "seed_0" / "figures").iterdir()}
    assert {"dvm_synthetic_results.png", "dvm_synthetic_low_data.png"} <= figures


def tabulated(groups: NDArray[np.int64], scores: dict[str, NDArray[np.float64]], metric: str) -> pd.DataFrame:
    """The table of frozen encoders for scores `(M, N, 2)` by method; the target of the samples alternates."""
    evaluation: Any = TabularEvaluation.__new__(TabularEvaluation)
    count = len(groups)
    evaluation.data = SimpleNamespace(classes=["a", "b"], groups=groups, metric=metric, target=np.arange(count) % 2)
    rows = dict.fromkeys(("val", "test"), np.arange(count))
    frozen = ClassifierProtocol("frozen", "frozen", metric)
    evaluation.evaluator = SimpleNamespace(rows=rows, protocols=lambda inputs: {"frozen": frozen})
    evaluation.supervised, evaluation.inputs, evaluation.checkpoints = False, ["image"], {0: Path()}
    found = {name: Outcome(range(len(each)), each, each) for name, each in scores.items()}
    table: pd.DataFrame = evaluation.table({"frozen": found})
    return table.set_index("method")


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_samples_of_one_group_count_as_one(metric: str) -> None:
    rng, target = np.random.default_rng(0), np.arange(80) % 2
    groups = np.arange(80) // 8 * 2 + target  # 20 groups of four samples with the same target
    scores = {}
    for name, strength in (("Random init", 0.3), ("MMCL", 1.0)):
        second = strength * (2 * target - 1) + rng.normal(size=20)[groups] + 0.1 * rng.normal(size=(2, 80))
        scores[name] = np.stack([-second, second], axis=2)
    row, alone = (tabulated(each, scores, metric).loc["MMCL"] for each in (groups, np.arange(80)))
    one_hot = np.eye(2)[target][:, 1:]
    plus, minus = (
        mean_values(scores[name].argmax(2) == target, groups)
        if metric == "accuracy"
        else auroc_values(scores[name][..., 1:], one_hot, groups)
        for name in ("MMCL", "Random init")
    )
    assert row[["value", "low", "high"]].tolist() == pytest.approx(interval(plus)[:3])
    assert row[["gain", "gain_low", "gain_high", "gain_p"]].tolist() == pytest.approx(difference(plus, minus))
    assert row["value"] == pytest.approx(alone["value"])
    assert row["high"] - row["low"] > 1.3 * (alone["high"] - alone["low"])
    assert row["gain_p"] > 2 * alone["gain_p"]


@pytest.fixture(scope="module")
def supervised(command_line: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised model, trained for one epoch and evaluated; all further classifiers are asked for in vain."""
    runs = tmp_path_factory.mktemp("supervised")
    main(command_line("fit", runs, "--trainer.max_epochs", "1", method="supervised"))
    run = runs / "tabular_imaging" / "dvm_synthetic" / "supervised"
    more = ["--settings.trainable_epochs", "2", "--settings.per_class", "[1]", "--settings.fractions", "[0.5]"]
    small = ["--settings.probe_epochs", "2", "--settings.probe_seeds", "2", "--wandb", "disabled"]
    main(["evaluate", "--run", str(run), *more, *small])
    return run


def test_a_supervised_model_is_evaluated_by_a_linear_classifier_and_by_its_own(supervised: Path) -> None:
    folder = supervised / "evaluation" / "dvm_synthetic"
    table = pd.read_csv(folder / "results.csv")
    rows = table[["protocol", "method", "models"]].apply(tuple, axis=1).tolist()
    frozen = [("frozen", "Random init", 2), ("frozen", "Pixels", 1), ("frozen", "Supervised", 2)]
    assert rows == [*frozen, ("trainable", "Supervised", 1)]
    assert table["gain_p"].notna().tolist() == [False, True, True, False]  # an untrained model has no own classifier
    kept = Scores.read(folder)
    truth = kept.target.argmax(1)
    model = load_module(supervised / "seed_0" / "checkpoints" / "best.ckpt", Supervised)
    data = load_data_module(yaml.safe_load((supervised / "seed_0" / "config.yaml").read_text())["data"])
    rows_of_test = data.rows("test", "evaluate")
    with torch.no_grad():
        batch = next(data.batches(rows_of_test, len(rows_of_test)))
        expected = model.head(model.encoder(batch.image)).log_softmax(1).numpy()
    own = kept.found["trainable"]["Supervised"].test
    assert own is not None
    np.testing.assert_allclose(own[0], expected, rtol=0, atol=1e-4)
    hits = np.array([row.argmax() for row in expected]) == truth
    assert table["value"][3] == pytest.approx(hits.mean())
    assert table.loc[3, ["low", "high"]].tolist() == pytest.approx(interval(mean_values(hits, kept.groups))[1:3])
    probe = kept.found["frozen"]["Supervised"].test
    assert probe is not None
    assert table["value"][2] == pytest.approx((probe.argmax(2) == truth).mean())
    head, classes = load_classifier(supervised / "seed_0", "image")
    assert classes == kept.classes
    torch.testing.assert_close(head.weight, model.head.weight.detach().T)  # `predict` uses its own classifier


def test_a_supervised_model_stands_in_both_columns_of_the_table(
    supervised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = main(["table", "--table", str(CONFIGS / "tables" / "table1.yaml"), "--run", str(supervised)])
    rows = rows.set_index("method")
    written = pd.read_csv(supervised / "evaluation" / "dvm_synthetic" / "results.csv").set_index(["method", "protocol"])
    frozen, own = (written.loc["Supervised", protocol] for protocol in ("frozen", "trainable"))
    for column, found in (("Frozen", frozen), ("Trainable", own)):
        cells = rows.loc["Supervised", [column, f"{column}_low", f"{column}_high"]].tolist()
        assert cells == pytest.approx(found[["value", "low", "high"]].tolist())
    assert rows["Trainable"].notna().tolist() == [name == "Supervised" for name in rows.index]
    assert rows.loc["Supervised", "Frozen_over_random_p"] == pytest.approx(frozen["gain_p"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Supervised: frozen is a linear classifier on its features, trainable its own one." in said


def test_an_evaluation_is_left_alone_until_its_checkpoint_or_data_change(
    trained: Path, evaluated: Path, vehicles_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "mmcl"
    shutil.copytree(trained, run)
    root = tmp_path / "set"
    shutil.copytree(vehicles_root, root)
    small = ["--settings.probe_epochs", "1", "--settings.probe_seeds", "1", "--wandb", "disabled"]

    def is_up_to_date() -> bool:
        main(["evaluate", "--run", str(run), "--root", str(root), *small, "--missing_only", "true"])
        return "is up to date" in capsys.readouterr().out

    assert not is_up_to_date()
    checkpoint = run / "seed_0" / "checkpoints" / "best.ckpt"
    picture = next(root.rglob("*.jpg"))
    for path in (checkpoint, picture, run / "evaluation" / "dvm_synthetic" / "results.csv"):
        path.touch()  # the content counts
    assert is_up_to_date()
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).mul_(2)
    torch.save(content, checkpoint)
    assert not is_up_to_date()
    with Image.open(picture) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(picture)
    assert not is_up_to_date()
    assert is_up_to_date()


def test_frozen_encoders_are_up_to_date_where_fine_tuned_ones_were_evaluated_besides(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "mmcl"
    shutil.copytree(evaluated, run)
    state = run / "evaluation" / "dvm_synthetic" / "evaluation.json"
    before = json.loads(state.read_text())
    state.write_text(json.dumps({**before, "asked": {**before["asked"], "trainable_epochs": 3}}))
    main(["evaluate", "--run", str(run), *SETTINGS, "--missing_only", "true"])
    assert "is up to date" in capsys.readouterr().out
    main(["evaluate", "--run", str(run), *SETTINGS, "--settings.trainable_epochs", "3", "--missing_only", "true"])
    assert "is up to date" in capsys.readouterr().out


def test_other_data_settings_are_evaluated_apart(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "mmcl"
    shutil.copytree(evaluated, run)
    own = {path: path.read_bytes() for path in (run / "evaluation" / "dvm_synthetic").iterdir()}
    before = json.loads((run / "seed_0" / "results.json").read_text())
    main(["evaluate", "--run", str(run), *SETTINGS, "--options.label_fraction", "0.5"])
    other = run / "evaluation" / "dvm_synthetic,label_fraction=0.5" / "results.csv"
    assert pd.read_csv(other)["labels"].iloc[0] < pd.read_csv(run / "evaluation/dvm_synthetic/results.csv")["labels"][0]
    assert {path: path.read_bytes() for path in own} == own
    after = json.loads((run / "seed_0" / "results.json").read_text())
    assert {key: after[key] for key in before} == before
    assert "dvm_synthetic,label_fraction=0.5/frozen/accuracy" in after


def test_what_was_trained_on_is_not_evaluated_on(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "mmcl"
    shutil.copytree(evaluated, run)
    samples = run / "seed_0" / "samples.csv"
    table = pd.read_csv(samples)
    tested = table.index[table["split"] == "test"]
    table.loc[tested[:3], "split"] = "train"
    table.to_csv(samples, index=False)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--run", str(run), *SETTINGS])
    assert str(stop.value) == (
        f"error: 3 of the {len(tested)} test samples (the first is {table['id'][tested[0]]}) were trained or selected "
        f"on in {run}/seed_0: its table or split has changed since. Train it again (--run.overwrite true)"
    )


def test_explain_says_which_fields_matter(evaluated: Path) -> None:
    table = main(["explain", "--run", str(evaluated)])
    assert len(table) == 17
    assert table["importance"].sum() == pytest.approx(1, abs=1e-5)
    assert table["importance"].is_monotonic_decreasing
    share = table.loc[table["morphometric"], "importance"].sum()
    results = json.loads((evaluated / "seed_0" / "results.json").read_text())
    assert results["importance/morphometric"] == pytest.approx(share)
    written = {path.name for path in (evaluated / "seed_0" / "figures").iterdir()}
    assert {f"dvm_synthetic_{name}.png" for name in ("importance", "pairs", "grad_cam")} <= written


def test_the_table_stands_beside_the_paper_and_says_synthetic(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = main(["table", "--table", str(CONFIGS / "tables" / "table1.yaml"), "--run", str(evaluated)])
    assert rows["method"].tolist() == ["Random init", "MMCL", "Pixels"]
    rows = rows.set_index("method")
    written = pd.read_csv(evaluated / "evaluation" / "dvm_synthetic" / "results.csv")[:3].set_index("method")
    for name, row in written.iterrows():
        assert rows.loc[name, ["Frozen", "Frozen_low", "Frozen_high"]].tolist() == pytest.approx(
            row[["value", "low", "high"]].tolist()
        )
    keys = [f"Frozen_over_random{end}" for end in ("", "_low", "_high", "_p")]
    gain = written.loc["MMCL", ["gain", "gain_low", "gain_high", "gain_p"]].tolist()
    assert rows.loc["MMCL", keys].tolist() == pytest.approx(gain)
    printed = capsys.readouterr().out
    said = " ".join(printed.split())
    assert printed.startswith("SYNTHETIC DATA")
    # MMCL over random init, which is not counted again as the reference's difference from it; of Pixels two.
    assert "Tested: 3 differences, each by a t-test over test samples and models; " in said
    assert "Frozen: better than random init are " in said


def test_predict_classifies_new_images_alone(evaluated: Path, vehicles_root: Path, tmp_path: Path) -> None:
    pictures = sorted(vehicles_root.rglob("*.jpg"))[:5]
    names = [str(path.relative_to(vehicles_root)) for path in pictures]
    table = pd.DataFrame({"id": range(6), "image": [*names, "nowhere.jpg"]})
    table.to_csv(tmp_path / "new.csv", index=False)
    arguments = ["predict", "--run", str(evaluated), "--csv", str(tmp_path / "new.csv"), "--root", str(vehicles_root)]
    main([*arguments, "--output", str(tmp_path / "out")])
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"predictions.csv", "embeddings.parquet", "skipped.csv"}
    predicted = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert predicted["id"].tolist() == list(range(5))
    probability = predicted.filter(like="probability/")
    assert probability.sum(axis=1).tolist() == pytest.approx([1.0] * 5, abs=1e-4)
    classes = [name.removeprefix("probability/") for name in probability]
    assert predicted["prediction"].tolist() == [classes[index] for index in probability.to_numpy().argmax(1)]
    embeddings = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert [len(row) for row in embeddings["embedding"]] == [16] * 5
    with pytest.raises(SystemExit, match=r"error: the table has no column picture of image paths; name it with"):
        main([*arguments, "--image_column", "picture"])


def test_predict_from_a_table_checks_it_against_the_schema(evaluated: Path, tmp_path: Path) -> None:
    pd.DataFrame({"Length": [4100], "Bodytype": ["SUV"]}).to_csv(tmp_path / "new.csv", index=False)
    arguments = ["predict", "--run", str(evaluated), "--csv", str(tmp_path / "new.csv"), "--input", "table"]
    with pytest.raises(SystemExit, match=r"new\.csv lacks Wheelbase, Height.* of the 17 columns"):
        main([*arguments, "--output", str(tmp_path / "out")])


def test_a_group_with_one_positive_does_not_stop_an_evaluation() -> None:
    evaluation: Any = TabularEvaluation.__new__(TabularEvaluation)
    target = np.arange(40) % 2
    target[:20] = np.arange(20) == 3  # one positive among the women
    frame = pd.DataFrame({"sex": ["f"] * 20 + ["m"] * 20})
    evaluation.data = SimpleNamespace(classes=["no", "yes"], frame=frame, metric="auroc", target=target)
    evaluation.evaluator = SimpleNamespace(rows={"test": np.arange(40)})
    scores = np.random.default_rng(0).normal(size=(2, 40, 2))
    groups = evaluation.groups({"frozen": {"MMCL": Outcome([0, 1], scores)}}).set_index("value")["auroc"]
    for sex, rows in (("f", slice(0, 20)), ("m", slice(20, 40))):
        areas = [roc_auc_score(target[rows], model[rows, 1]) for model in scores]
        assert groups[sex] == pytest.approx(np.mean(areas))
