"""SYNTHETIC portraits: what they depend on, what tells persons apart, and that there is something at every scale."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from commin.data.module import ImageFoldersDataModule
from commin.data.synthetic import write_synthetic
from commin.data.synthetic.person import Person, View, draw_person, draw_view
from commin.data.synthetic.render import draw_portrait

PERSONS, EACH, SIDE = 40, 5, 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portraits") / "set"
    write_synthetic(folder, PERSONS, EACH, SIDE)
    return folder


def pixels_of(root: Path) -> NDArray[np.float64]:
    """`(N, S, S, 3)` in [0, 1], by person."""
    return np.stack([np.asarray(Image.open(file)) for file in sorted(root.glob("person_*/*.png"))]) / 255


def someone(seed: int = 0) -> tuple[Person, View]:
    return draw_person(np.random.default_rng(seed)), draw_view(np.random.default_rng((seed, 1)))


def test_the_set_is_a_folder_a_person_with_what_each_was_drawn_from(root: Path) -> None:
    assert len(pixels_of(root)) == PERSONS * EACH
    truth = pd.read_csv(root / "persons.csv")
    assert truth["person"].tolist() == sorted(path.name for path in root.glob("person_*"))
    assert {"skin_red", "hair_blue", "width", "nose", "freckles", "glasses"} <= set(truth)
    assert truth.drop(columns="person").to_numpy().dtype.kind == "f"
    assert (truth.drop(columns="person").nunique() > 5).all()
    drawn = draw_person(np.random.default_rng((0, 7)))
    assert truth["nose"][7] == pytest.approx(drawn.nose, rel=1e-3)
    assert truth["skin_green"][7] == pytest.approx(drawn.skin[1], rel=1e-3)
    assert "SYNTHETIC" in (root / "README.txt").read_text()


def test_the_data_module_takes_folders_as_persons(root: Path, tmp_path: Path) -> None:
    data = ImageFoldersDataModule(str(root), group_column="folder", image_px=SIDE, cache_dir=str(tmp_path))
    data.prepare_data()
    data.setup()
    assert data.source_channels == 3
    assert len(set(data.groups)) == PERSONS
    assert np.array_equal(data.cached(np.array([0]))[0].transpose(1, 2, 0), np.round(255 * pixels_of(root)[0]))


def test_a_picture_depends_on_seed_person_and_its_number_alone(root: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "less", 3, 2, SIDE)
    for name in ("person_000/00.png", "person_002/01.png"):
        assert (tmp_path / "less" / name).read_bytes() == (root / name).read_bytes()
    write_synthetic(tmp_path / "other", 1, 1, SIDE, seed=1)
    assert (tmp_path / "other" / "person_000/00.png").read_bytes() != (root / "person_000/00.png").read_bytes()


def test_a_finished_set_is_reused_and_another_is_refused(root: Path) -> None:
    file = root / "person_000" / "00.png"
    written = file.stat().st_mtime_ns
    write_synthetic(root, PERSONS, EACH, SIDE)
    assert file.stat().st_mtime_ns == written
    with pytest.raises(FileExistsError, match="with other settings"):
        write_synthetic(root, PERSONS, EACH, 64)
    assert json.loads((root / "synthetic.json").read_text())["side"] == SIDE


def test_a_side_that_the_canvas_is_no_multiple_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^side must divide 128, as 32 and 64 do, got 48$"):
        write_synthetic(tmp_path / "set", side=48)


def test_the_nearest_picture_is_often_of_the_same_person_but_not_always(root: Path) -> None:
    """Otherwise identification would be trivial, or would say nothing; chance is 2%."""
    flat = pixels_of(root).reshape(PERSONS * EACH, -1)
    distance = (flat**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * flat @ flat.T
    np.fill_diagonal(distance, np.inf)
    person = np.repeat(np.arange(PERSONS), EACH)
    assert 0.5 < (person[distance.argmin(1)] == person).mean() < 0.95


def test_there_is_structure_at_every_scale(root: Path) -> None:
    """Of the brightness that a mean of 16 pixels leaves, each halving of the scale explains a share."""
    grey = pixels_of(root).mean(3)
    shares = []
    for block in (16, 8, 4, 2, 1):
        count = SIDE // block
        means = grey.reshape(-1, count, block, count, block).mean((2, 4)).repeat(block, 1).repeat(block, 2)
        shares.append(((grey - means) ** 2).mean())
    explained = -np.diff(shares) / shares[0]
    assert explained.sum() == pytest.approx(1)
    assert (explained > 0.08).all()


@pytest.mark.parametrize(
    "change",
    [
        {"skin": (0.95, 0.8, 0.7)}, {"hair": (0.78, 0.62, 0.36)}, {"iris": (0.28, 0.44, 0.62), "eye_size": 0.2},
        {"width": 0.6}, {"jaw": 0.0}, {"eye_gap": 0.3}, {"brow": 0.12}, {"nose": 0.25}, {"mouth_width": 0.18},
        {"lips": 0.12}, {"hairline": -1.2}, {"length": 1.5}, {"curl": 1.0}, {"glasses": 0.3}, {"freckles": 45},
        {"beard": 1.0},
    ],
)  # fmt: skip
def test_each_trait_shows(change: dict[str, object]) -> None:
    """It changes at least 20 of the 4,096 pixels by 10 grey levels, on the median of ten pictures."""
    plain = {"glasses": 0.0, "freckles": 0, "beard": 0.0, "curl": 0.0, "length": 0.0, "hairline": -0.6, "jaw": 0.3}
    changed = []
    for seed in range(10):
        person, view = someone(seed)
        person = dataclasses.replace(person, skin=(0.76, 0.55, 0.41), **plain)
        one, other = (
            draw_portrait(each, view, 64).astype(int) for each in (person, dataclasses.replace(person, **change))
        )
        changed.append((np.abs(one - other).max(2) >= 10).sum())
    assert np.median(changed) >= 20


def test_a_turned_head_keeps_its_outline_and_moves_its_features() -> None:
    person, view = someone(3)
    person = dataclasses.replace(person, hairline=-1.2, freckles=0, glasses=0.0, beard=0.0)
    level = dataclasses.replace(view, pattern="plain", roll=0.0, pitch=0.0, contrast=0.0, x=0.0, gaze=0.0, lids=1.0)
    left, right = (draw_portrait(person, dataclasses.replace(level, yaw=yaw), 64) / 255 for yaw in (-0.4, 0.4))
    face = np.s_[22:40, 8:56]  # rows of the eyes
    white_left, white_right = (
        np.average(np.broadcast_to(np.arange(48), (18, 48)), weights=picture[face].min(2) ** 12 + 1e-12)
        for picture in (left, right)
    )
    assert white_right - white_left > 4  # pixels
    assert np.abs(left[50:, :] - right[50:, :]).mean() < 0.02
