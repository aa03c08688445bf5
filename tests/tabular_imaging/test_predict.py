"""`predict` through `main([...])`: pictures and tables that cannot be used, and the classifier that it keeps."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from shared.probe import LinearHead
from shared.runs.variant import Variant
from tabular_imaging.cli import main
from tabular_imaging.data.schema import Schema
from tabular_imaging.evaluation.classifiers import load_data_module, save_classifier

CLASSES = ["a", "b", "c"]
HINT = "(on_error: skip would leave it out and list it)"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A trained run with classifiers of random weights."""
    run = tmp_path / trained.name
    shutil.copytree(trained, run)
    torch.manual_seed(0)
    for kind in ("image", "table"):
        head = LinearHead(torch.randn(16, 3), torch.zeros(3), torch.zeros(16), torch.ones(16), "single")
        save_classifier(run / "seed_0", kind, head, CLASSES)
    return run


@pytest.fixture(scope="session")
def adverts(trained: Path) -> pd.DataFrame:
    """Six rows of the table that the run was trained on."""
    data = load_data_module(Variant(trained).config["data"])
    return data.frame.iloc[:6].reset_index(drop=True)


def predict(run: Path, table: pd.DataFrame, *more: str) -> pd.DataFrame:
    table.to_csv(run.parent / "new.csv", index=False)
    out = run.parent / "out"
    return main(["predict", "--run", str(run), "--csv", str(run.parent / "new.csv"), "--output", str(out), *more])


def refusal(run: Path, table: pd.DataFrame, *more: str) -> str:
    with pytest.raises(SystemExit) as caught:
        predict(run, table, *more)
    return str(caught.value)


def skipped(run: Path) -> list[list[str]]:
    return pd.read_csv(run.parent / "out" / "skipped.csv", dtype=str).values.tolist()


# ---- images


@pytest.fixture
def pictures(tmp_path: Path) -> pd.DataFrame:
    """Two pictures that can be read, and between them one of each kind that cannot."""
    rng = np.random.default_rng(0)
    for name in ("first.png", "last.png", "cut.png"):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    images = ["first.png", "lost.png", "text.jpg", "cut.png", "../up.png", None, "last.png"]
    return pd.DataFrame({"id": [f"s{row}" for row in range(7)], "image": images})


def test_pictures_that_cannot_be_used_are_skipped_counted_and_listed(
    run: Path, pictures: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = predict(run, pictures)
    assert both["id"].tolist() == ["s0", "s6"]
    said = capsys.readouterr().out
    assert "wrote 2 predictions to " in said
    assert f"5 samples skipped: row 3, s1 (no image file {tmp_path}/lost.png), row 4, s2 (" in said
    listed = skipped(run)
    assert listed[2][1].startswith(f"{tmp_path}/cut.png cannot be decoded, it may be truncated or damaged (")
    assert listed[:2] + listed[3:] == [
        ["row 3, s1", f"no image file {tmp_path}/lost.png"],
        ["row 4, s2", f"{tmp_path}/text.jpg is not an image of a format that Pillow reads"],
        ["row 6, s4", f"'../up.png' leads out of the data's root {tmp_path}: give a path within it, or another root"],
        ["row 7, s5", "it has no image path"],
    ]
    alone = predict(run, pictures.iloc[[6]])
    assert alone.iloc[0].tolist() == [
        "s6",
        both["prediction"][1],
        *(pytest.approx(value, abs=1e-5) for value in both.iloc[1, 2:]),
    ]
    assert not (tmp_path / "out" / "skipped.csv").exists()  # the earlier call's list


def test_a_bad_picture_is_an_error_where_it_is_asked_to_be_and_where_nothing_is_left(
    run: Path, pictures: pd.DataFrame, tmp_path: Path
) -> None:
    lost = f"no image file {tmp_path}/lost.png"
    assert refusal(run, pictures, "--on_error", "raise") == f"error: row 3, s1: {lost} {HINT}"
    assert refusal(run, pictures.iloc[1:2]) == (
        f"error: none of the 1 rows of {tmp_path}/new.csv could be used; 1 sample skipped: row 2, s1 ({lost})"
    )


def test_a_csv_that_is_none_is_named(run: Path, tmp_path: Path) -> None:
    arguments = ["predict", "--run", str(run), "--csv"]
    for path, said in (
        ("nowhere.csv", "no file {}"),
        (".", "{} cannot be read as CSV ([Errno 21] Is a directory: "),
        ("empty.csv", "{} cannot be read as CSV (No columns to parse from file)"),
        ("header.csv", "{} has no row"),
    ):
        (tmp_path / "empty.csv").touch()
        (tmp_path / "header.csv").write_text("id,image\n")
        with pytest.raises(SystemExit) as caught:
            main([*arguments, str(tmp_path / path)])
        assert str(caught.value).startswith("error: " + said.format(tmp_path / path))


# ---- tables


def test_a_missing_number_is_the_training_mean_and_a_missing_category_none_of_them(
    run: Path, adverts: pd.DataFrame
) -> None:
    columns = {column.name: column for column in Schema.load(run / "seed_0" / "schema.json").columns}
    table = adverts.iloc[[0] * 4].reset_index(drop=True).astype(object)
    table["Length"] = [None, columns["Length"].mean, 4000, 4000]
    table["Bodytype"] = ["SUV", "SUV", None, columns["Bodytype"].categories[0]]
    found = predict(run, table, "--input", "table").iloc[:, 2:].to_numpy(float)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert abs(found[2] - found[3]).max() > 1e-3


def test_a_value_that_training_never_saw_counts_as_missing_and_is_listed(
    run: Path, adverts: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = adverts.astype(object)
    gaps.loc[2, "Bodytype"] = gaps.loc[3, "Length"] = None
    expected = predict(run, gaps, "--input", "table")
    capsys.readouterr()
    strange = adverts.astype(object)
    strange.loc[2, "Bodytype"], strange.loc[3, "Length"] = "Spaceship", "long"
    found = predict(run, strange, "--input", "table")
    pd.testing.assert_frame_equal(found, expected)
    assert "wrote 6 predictions to " in (said := capsys.readouterr().out)
    assert "\n2 values skipped: " in said  # values, not samples
    listed = sorted(skipped(run), key=lambda item: list(strange["id"]).index(item[0]))
    assert [name for name, _ in listed] == strange["id"][2:4].tolist()
    assert listed[0][1].startswith("column Bodytype: 'Spaceship' is none of the training rows' categories (")
    assert listed[1][1] == "column Length: 'long' is not a finite number"
    said = refusal(run, strange.drop(index=3), "--input", "table", "--on_error", "raise")
    assert said == f"error: {listed[0][0]}: {listed[0][1]} {HINT}"
    intact = predict(run, adverts, "--input", "table")
    assert intact.drop(index=[2, 3]).equals(found.drop(index=[2, 3]))
    assert not np.allclose(intact.iloc[2, 2:].tolist(), found.iloc[2, 2:].tolist(), atol=1e-4)


def test_a_column_of_another_type_is_refused(run: Path, adverts: pd.DataFrame) -> None:
    said = refusal(run, adverts.assign(Length="long"), "--input", "table")
    start = f"error: {run.parent}/new.csv: column Length holds values such as 'long' (row {adverts['id'][0]}), but "
    assert said.startswith(f"{start}the schema of the training rows has numbers (mean ")
    said = refusal(run, adverts.assign(Bodytype=3), "--input", "table")
    assert f"column Bodytype holds values such as '3' (row {adverts['id'][0]}), but the schema of the" in said


# ---- the classifier


@pytest.mark.parametrize("content", [b"", b"half a file", [1.0], {"weight": 1.0}, {"classes": CLASSES, "weight": 1.0}])
def test_a_damaged_classifier_is_named(run: Path, pictures: pd.DataFrame, content: Any) -> None:
    path = run / "seed_0" / "checkpoints" / "classifier_image.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert re.fullmatch(rf"error: {path} is not a classifier \(\w+\); evaluate the run again", refusal(run, pictures))


def test_a_classifier_that_is_missing_or_older_than_the_model_is_trained_once(
    run: Path, adverts: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = run / "seed_0" / "checkpoints"
    training = f"training the classifier of {run / 'seed_0'} on its frozen encoder, once"
    predict(run, adverts, "--input", "table")
    assert training not in capsys.readouterr().out
    (checkpoints / "classifier_table.pt").unlink()
    found = predict(run, adverts, "--input", "table")
    assert training in capsys.readouterr().out
    assert not found.columns.str.startswith(("probability/a", "probability/b")).any()  # the data's classes
    assert set(found["prediction"]) <= set(found.columns.str.removeprefix("probability/"))
    pd.testing.assert_frame_equal(predict(run, adverts, "--input", "table"), found)
    assert training not in capsys.readouterr().out
    (checkpoints / "best.ckpt").touch()
    predict(run, adverts, "--input", "table")
    assert training in capsys.readouterr().out
