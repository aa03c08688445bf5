"""`evaluate`, `explain`, `table` and `predict` through the real `main([...])`, on a small SYNTHETIC run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tabular_imaging
from shared.runs.scores import Scores
from tabular_imaging.cli import main

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
    assert table["method"].tolist() == ["Random init", "MMCL"] * 4
    kept = Scores.read(folder)
    truth = kept.target.argmax(1)
    for row in table.to_dict("records"):
        scores = kept.found[row["protocol"]][row["method"]].test
        assert scores is not None
        assert scores.shape == (2, len(truth), len(kept.classes))
        hits = np.array([[model[record].argmax() == truth[record] for record in range(len(truth))] for model in scores])
        assert row["value"] == pytest.approx(hits.mean())
        assert row["low"] <= row["value"] <= row["high"]
    assert (table.loc[table["protocol"] == "frozen_1_per_class", "labels"] == len(kept.classes)).all()
    results = json.loads((evaluated / "seed_0" / "results.json").read_text())
    assert results["frozen/accuracy"] == pytest.approx(table["value"][1])
    figures = {path.name for path in (evaluated / "seed_0" / "figures").iterdir()}
    assert {"dvm_synthetic_results.png", "dvm_synthetic_low_data.png"} <= figures


def test_an_evaluation_is_left_alone_until_its_checkpoint_or_data_change(
    trained: Path, evaluated: Path, vehicles_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "mmcl"
    shutil.copytree(trained, run)
    root = tmp_path / "set"
    shutil.copytree(vehicles_root, root)
    small = ["--settings.probe_epochs", "1", "--settings.probe_seeds", "1", "--resamples", "10", "--wandb", "disabled"]

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
    assert rows["method"].tolist() == ["Random init", "MMCL"]
    frozen = pd.read_csv(evaluated / "evaluation" / "dvm_synthetic" / "results.csv")["value"][:2]
    assert rows["Frozen"].tolist() == pytest.approx(frozen.tolist())
    assert rows["Frozen_over_random"][1] == pytest.approx(frozen[1] - frozen[0])
    said = capsys.readouterr().out
    assert "SYNTHETIC DATA" in said
    assert "against random init, the 95% interval of the difference excludes 0 for" in " ".join(said.split())


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
