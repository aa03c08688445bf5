"""A person's own table and photographs: the README's lines as they stand there, through the real `main([...])`."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

import tabular_imaging
from tabular_imaging.cli import main

README = Path(tabular_imaging.__file__).parent / "README.md"
CONFIG = Path(tabular_imaging.__file__).parent / "configs" / "own_data.yaml"
VERBS = ["fit", "evaluate", "explain", "predict"]
# Only what makes it quick.
SMALL = [
    *("--trainer.max_epochs", "1"),
    *("--model.init_args.encoder.init_args.layers", "[1, 1, 1, 1]"),
    *("--model.init_args.encoder.init_args.channels", "[8, 8, 8, 8]"),
    *("--model.init_args.encoder.init_args.stem_width", "4"),
    *("--run.wandb", "disabled"),
    *("--threads", "1"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`my.csv`, with the target `label` and the pictures' column `photo`, and `new.csv`, in the working directory."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for row in range(48):
        kind = ("apple", "banana", "cherry")[row % 3]
        picture = Image.new("RGB", (40, 30), (230, 230, 230))
        size = int(rng.integers(8, 20))
        draw = ImageDraw.Draw(picture)
        draw.ellipse((4, 4, 4 + size, 4 + size), fill={"apple": "red", "banana": "yellow", "cherry": "purple"}[kind])
        picture.save(tmp_path / "photos" / f"{row}.png")
        rows.append(
            {"sample": f"{row:03d}", "photo": f"photos/{row}.png", "size": size, "organic": row % 2, "label": kind}
        )
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "my.csv", index=False)
    table[["sample", "photo"]].head(5).to_csv(tmp_path / "new.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_readmes_lines_work_as_they_stand_there(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (block,) = re.findall(r"## Your own data\n.*?```\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.strip().splitlines()]
    assert [line[:4] for line in lines] == [["python", "-m", "tabular_imaging", verb] for verb in VERBS]
    for _, _, _, verb, *arguments in lines:
        given = [str(CONFIG) if word == "tabular_imaging/configs/own_data.yaml" else word for word in arguments]
        main([verb, *given, *{"fit": SMALL, "evaluate": ["--wandb", "disabled"]}.get(verb, [])])
    run = folder / "runs" / "tabular_imaging" / "own_data" / "mmcl"
    figures = {path.name for path in (run / "seed_0" / "figures").iterdir()}
    assert figures == {f"own_data_{name}.png" for name in ("results", "importance", "pairs", "grad_cam")}
    predicted = pd.read_csv(folder / "runs" / "predictions" / "predictions.csv")
    assert predicted["id"].tolist() == [f"photos/{row}.png" for row in range(5)]
    assert set(predicted["prediction"]) <= {"apple", "banana", "cherry"}


def test_a_target_that_was_learned_as_a_feature_is_not_evaluated(folder: Path) -> None:
    pd.read_csv("my.csv").rename(columns={"label": "fruit"}).to_csv("my.csv", index=False)
    fit = ["fit", "--config", str(CONFIG), "--data.init_args.csv", "my.csv", *SMALL]
    main(fit)
    evaluate = ["evaluate", "--run", "runs/tabular_imaging/own_data/mmcl", "--wandb", "disabled"]
    with pytest.raises(SystemExit, match=r"there is nothing to classify; train with --data\.init_args\.target NAME"):
        main(evaluate)
    with pytest.raises(SystemExit) as stop:
        main([*evaluate, "--options.target", "fruit"])
    assert str(stop.value) == (
        "error: runs/tabular_imaging/own_data/mmcl/seed_0: the table that MMCL was trained on has fruit among its "
        "fields, so it knows what is to be predicted; train again with --data.init_args.target fruit"
    )


def test_an_output_that_is_a_file_is_refused_before_anything_is_read(folder: Path) -> None:
    main(["fit", "--config", str(CONFIG), "--data.init_args.csv", "my.csv", *SMALL])
    arguments = ["predict", "--run", "runs/tabular_imaging/own_data/mmcl", "--csv", "new.csv", "--output", "my.csv"]
    with pytest.raises(SystemExit, match=r"^error: my\.csv is a file; --output names the folder for the results$"):
        main(arguments)
