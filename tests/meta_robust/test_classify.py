"""`classify`: a person's photographs, whatever their files are called, beside good and bad folders."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from meta_robust.cli import main
from meta_robust.data.synthetic import write_synthetic
from meta_robust.evaluation.tables import CONFIGS
from meta_robust.verbs.classify import own_distances

METHODS = ("maml", "prototypical", "matching", "baseline")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each method, after two updates."""
    root = tmp_path_factory.mktemp("trained")
    write_synthetic(root / "set", base=6, validation=5, novel=5, per_class=8)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for method in METHODS:
            files = [word for file in CONFIGS.stack(method, "synthetic", "demo") for word in ("--config", str(file))]
            main(["fit", *files, "--data.init_args.root", "set", "--model.init_args.encoder.init_args.width", "8",
                  "--model.init_args.queries", "3", "--data.init_args.updates_per_epoch", "2",
                  "--data.init_args.val_episodes", "2", "--trainer.max_epochs", "1", "--run.wandb", "disabled",
                  "--trainer.enable_progress_bar", "false"])  # fmt: skip
            found[method] = root / f"runs/meta_robust/rml_synthetic/{method}/seed_0/checkpoints/best.ckpt"
    return found


def picture(path: Path, colour: tuple[int, int, int], number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(-20, 20, (30, 30, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Red things (three examples), green ones (two) and a blue one, and five photographs of them."""
    monkeypatch.chdir(tmp_path)
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    for name, count in (("red", 3), ("green", 2), ("blue", 1)):
        for number in range(count):
            picture(tmp_path / "support" / name / f"{number}.png", colours[name], number)
    for number, name in enumerate(("red", "green", "blue", "red", "green")):
        picture(tmp_path / "query" / ("" if number else "below") / f"{number}_{name}.png", colours[name], 50 + number)
    return tmp_path / "support", tmp_path / "query"


def classify(checkpoint: Path, folders: tuple[Path, Path], *more: str) -> pd.DataFrame:
    found = main(["classify", "--checkpoint", str(checkpoint), "--support", str(folders[0]), "--query",
                  str(folders[1]), *more])  # fmt: skip
    assert isinstance(found, pd.DataFrame)
    return found


def test_photographs_get_a_class_and_how_far_they_lie(
    trained: dict[str, Path], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "notes.txt").write_text("not an image")
    (folders[1] / "torn.png").write_bytes(b"\x89PNG torn")
    table = classify(trained["prototypical"], folders)
    written = pd.read_csv("runs/classify/predictions.csv")
    assert list(written) == ["id", "prediction", "probability/blue", "probability/green", "probability/red", "distance",
                             "farther_than", "compared_with"]  # fmt: skip
    assert list(written["id"]) == ["1_green.png", "2_blue.png", "3_red.png", "4_green.png", "below/0_red.png"]
    assert [name.split("_")[1].split(".")[0] for name in written["id"]] == list(written["prediction"])
    np.testing.assert_allclose(written.filter(like="probability/").sum(axis=1), 1, atol=1e-5)
    expected = ["other classes" if name == "blue" else "own examples" for name in written["prediction"]]
    assert list(table["compared_with"]) == expected
    assert written["farther_than"].between(0, 1).all()
    assert Path("runs/classify/figures/classified.png").stat().st_size > 10_000
    assert Path("runs/classify/skipped.csv").read_text().splitlines()[1].startswith("torn.png,")
    model = torch.load(trained["prototypical"], weights_only=True)
    said = f"accuracy on validation tasks of its training (5-way 1-shot): {100 * model['accuracy_alone']:.1f}%"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_neither_names_nor_other_photographs_change_a_prediction(
    method: str, trained: dict[str, Path], folders: tuple[Path, Path]
) -> None:
    table = classify(trained[method], folders).set_index("id")
    support, query = folders
    for old, new in (("red", "a"), ("green", "z"), ("blue", "m")):
        for number, file in enumerate(sorted((support / old).iterdir(), reverse=True)):
            file.rename(file.with_name(f"renamed_{number}.png"))
        (support / old).rename(support / new)
    shutil.rmtree(query / "below")
    (query / "3_red.png").rename(query / "alone.png")
    for path in query.glob("*_*.png"):
        path.unlink()
    (alone,) = classify(trained[method], folders).to_dict("records")
    before = table.loc["3_red.png"]
    assert alone["prediction"] == {"red": "a", "green": "z", "blue": "m"}[before["prediction"]]
    for old, new in (("red", "a"), ("green", "z"), ("blue", "m")):
        np.testing.assert_allclose(alone[f"probability/{new}"], before[f"probability/{old}"], atol=2e-6)
    np.testing.assert_allclose(alone["distance"], before["distance"], rtol=1e-4)
    assert alone["farther_than"] == before["farther_than"]


def test_own_examples_are_compared_with_the_mean_of_the_others() -> None:
    group = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    assert own_distances(group).tolist() == [5.0, 2.5, 2.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda support, query: shutil.move(query, support / "query"), "lie within each other"),
        (lambda support, query: [shutil.rmtree(support / name) for name in ("red", "blue")], "holds one class, green"),
        (lambda support, query: (support / "empty").mkdir(), "holds no image that can be read"),
        (lambda support, query: [path.unlink() for path in query.rglob("*.png")], "holds no image that can be"),
        (lambda support, query: shutil.rmtree(query), "no folder"),
    ],
)
def test_bad_folders_are_named(
    change: object, message: str, trained: dict[str, Path], folders: tuple[Path, Path]
) -> None:
    assert callable(change)
    change(*folders)
    query = folders[1] if folders[1].is_dir() or message == "no folder" else folders[0] / "query"
    with pytest.raises(SystemExit) as stop:
        classify(trained["maml"], (folders[0], query))
    assert message in str(stop.value.code)


def test_an_image_that_cannot_be_read_stops_when_asked_to(trained: dict[str, Path], folders: tuple[Path, Path]) -> None:
    (folders[1] / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(SystemExit) as stop:
        classify(trained["maml"], folders, "--on_error", "raise")
    assert "torn.png" in str(stop.value.code)


def test_a_checkpoint_that_does_not_say_how_images_were_prepared_is_refused(
    trained: dict[str, Path], folders: tuple[Path, Path]
) -> None:
    content = torch.load(trained["maml"], weights_only=True)
    del content["datamodule_hyper_parameters"]
    torch.save(content, "bare.ckpt")
    with pytest.raises(SystemExit) as stop:
        classify(Path("bare.ckpt"), folders)
    assert "bare.ckpt does not say how its data were prepared (image_px, fit)" in str(stop.value.code)
