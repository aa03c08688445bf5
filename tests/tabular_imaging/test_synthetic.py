"""The synthetic DVM-car: exact layout, planted sizes, a table that knows the models, drawings to scale."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabular_imaging.data.dvm import dvm_frame
from tabular_imaging.data.dvm_tables import FEATURES, MORPHOMETRIC, SIZES, TARGET
from tabular_imaging.data.synthetic.adverts import write_synthetic
from tabular_imaging.data.synthetic.scenes import draw_view, photograph
from tabular_imaging.data.synthetic.vehicles import BODIES, COLOURS, Vehicle, View, paint_vehicle

# The published headers, written out.
HEADERS = {
    "Ad_table (extra).csv": (
        "Maker, Genmodel, Genmodel_ID,Adv_ID,Adv_year,Adv_month,Color,Reg_year,Bodytype,Runned_Miles,Engin_size,"
        "Gearbox,Fuel_type,Price,Engine_power,Annual_Tax,Wheelbase,Height,Width,Length,Average_mpg,Top_speed,"
        "Seat_num,Door_num"
    ),
    "Basic_table.csv": "Automaker,Automaker_ID,Genmodel,Genmodel_ID",
    "Image_table.csv": "Genmodel_ID, Image_ID, Image_name, Predicted_viewpoint, Quality_check",
    "Price_table.csv": "Maker, Genmodel, Genmodel_ID, Year, Entry_price",
}
ADVERTS, MODELS, MINIMUM = 1200, 12, 30


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default's tables; blank pictures, taken without a pool, stand for drawings, which have their own tests."""
    blank = Image.new("RGB", (32, 32)), View(0, 5, 0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tabular_imaging.data.synthetic.adverts.photograph", lambda *_: blank)
        patch.setattr("tabular_imaging.data.synthetic.adverts.SHOTS_WORTH_A_POOL", math.inf)
        return write_synthetic(tmp_path_factory.mktemp("synthetic") / "set", adverts=ADVERTS, image_px=32)


@pytest.fixture(scope="module")
def adverts(root: Path) -> pd.DataFrame:
    table = pd.read_csv(root / "tables_V2.0/Ad_table (extra).csv")
    return table.rename(columns=str.strip)


@pytest.fixture(scope="module")
def frame(root: Path) -> pd.DataFrame:
    return dvm_frame(root, min_per_class=MINIMUM)


def test_the_layout_and_the_headers_are_the_published_ones(root: Path) -> None:
    assert sorted(path.name for path in root.iterdir()) == [
        "README.txt",
        "resized_DVM_v2",
        "synthetic.json",
        "tables_V2.0",
    ]
    assert (root / "README.txt").read_text().startswith("SYNTHETIC data")
    assert {path.name: path.read_text().splitlines()[0] for path in (root / "tables_V2.0").iterdir()} == HEADERS
    images = pd.read_csv(root / "tables_V2.0/Image_table.csv")
    names = images[" Image_name"]
    files = [path.relative_to(root / "resized_DVM_v2") for path in root.rglob("*.jpg")]
    assert sorted(map(str, files)) == sorted("/".join([*name.split("$$")[:4], name]) for name in names)
    assert ADVERTS < len(names) < 1.12 * ADVERTS


def test_the_tables_have_the_untidiness_of_the_published_ones(adverts: pd.DataFrame) -> None:
    assert len(adverts) == ADVERTS
    sizes = adverts[list(SIZES)]
    assert 0.01 * ADVERTS < (sizes == 0).to_numpy().sum() < 0.06 * ADVERTS
    assert 0.01 * ADVERTS < sizes.isna().to_numpy().sum() < 0.06 * ADVERTS
    assert (adverts["Price"] == "Uknown").sum() >= 1
    assert (adverts["Runned_Miles"] == "1 mile").sum() >= 1
    assert adverts["Engin_size"].dropna().str.fullmatch(r"\d\.\dL").all()
    assert adverts["Adv_ID"].is_unique


def test_the_data_module_reads_it_and_each_step_has_something_to_do(frame: pd.DataFrame) -> None:
    counts = [count for _, count in frame.attrs["steps"][:5]]
    assert all(more > fewer for more, fewer in pairwise(counts))
    assert counts[-1] > 0.9 * ADVERTS
    assert frame[TARGET].nunique() == MODELS
    assert (
        frame["split"].value_counts(normalize=True) - pd.Series({"test": 0.5, "train": 0.4, "val": 0.1})
    ).abs().max() < 0.01
    assert set(frame["Bodytype"]) == set(BODIES)


def test_models_of_a_body_type_differ_by_60_to_150_mm_in_every_size(adverts: pd.DataFrame, frame: pd.DataFrame) -> None:
    of_model = adverts[adverts["Genmodel_ID"].isin(frame[TARGET])].groupby("Genmodel_ID")[["Bodytype", *SIZES]].max()
    pairs = 0
    for _, siblings in of_model.groupby("Bodytype"):
        for size in SIZES:
            gaps = np.diff(np.sort(siblings[size]))
            pairs += len(gaps)
            assert ((gaps >= 60) & (gaps <= 150)).all()
    assert pairs == 4 * (MODELS - len(BODIES))


def accuracies(frame: pd.DataFrame, columns: Sequence[str]) -> list[float]:
    """Test accuracy of logistic regression and a random forest, one-hot and standardised."""
    inputs = pd.get_dummies(frame[list(columns)], dtype=float)
    test = frame["split"] == "test"
    models = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        RandomForestClassifier(100, random_state=0),
    )
    return [m.fit(inputs[~test], frame[TARGET][~test]).score(inputs[test], frame[TARGET][test]) for m in models]


def test_morphometric_columns_tell_the_model_and_the_others_hardly(frame: pd.DataFrame) -> None:
    others = [name for name in FEATURES if name not in MORPHOMETRIC]
    assert min(accuracies(frame, MORPHOMETRIC)) > 0.97
    largest = frame[TARGET].value_counts(normalize=True).max()
    assert largest + 0.05 < max(accuracies(frame, others)) < 0.40
    assert max(accuracies(frame, ["Bodytype"])) < 0.80  # so the sizes matter
    assert max(accuracies(frame, ["Color"])) < largest + 0.05


def covered(vehicle: Vehicle, view: View, px: int = 160) -> tuple[float, float]:
    """Width and height of what is drawn, in mm at the vehicle's middle."""
    left, top, right, bottom = paint_vehicle(vehicle, view, px, zoom=1).getbbox()
    return (right - left) / view.scale, (bottom - top) / view.scale


def drawn(rng: np.random.Generator) -> Vehicle:
    sizes = rng.uniform((3600, 1300, 1650, 2400), (5200, 1850, 1950, 3000))
    style = tuple(rng.uniform(-1, 1, 6))
    return Vehicle(list(BODIES)[rng.integers(8)], *sizes, list(COLOURS)[rng.integers(10)], style)


def test_a_side_view_shows_length_and_height_to_scale() -> None:
    rng = np.random.default_rng(0)
    for _ in range(24):
        vehicle = drawn(rng)
        length, height = covered(vehicle, View(0, 0, 160 / 6000))
        # Perspective enlarges the near side by up to 8%; a pixel is 38 mm.
        assert 0.97 * vehicle.length - 40 < length < 1.09 * vehicle.length + 40
        assert 0.97 * vehicle.height - 40 < height < 1.12 * vehicle.height + 40


def test_a_front_view_shows_the_width_to_scale() -> None:
    narrow, wide = (Vehicle("Estate", 4600, 1500, width, 2700, "Grey") for width in (1650, 1950))
    view = View(90, 0, 160 / 2600)
    # The nose is nearer than the middle, by up to 22% larger, and is drawn in by 14%.
    assert 0.9 * 300 < covered(wide, view)[0] - covered(narrow, view)[0] < 1.25 * 300
    assert 0.9 * 1950 < covered(wide, view)[0] < 1.25 * 1950


def test_over_the_viewpoints_of_the_set_the_drawn_length_follows_the_table() -> None:
    rng = np.random.default_rng(1)
    table, side, any_view = [], [], []
    for _ in range(50):
        vehicle = drawn(rng)
        view = draw_view(vehicle, rng, 160)
        table.append(vehicle.length)
        any_view.append(covered(vehicle, view)[0])
        side.append(covered(vehicle, View(view.yaw / 10, view.pitch, view.scale))[0])
    assert np.corrcoef(table, side)[0, 1] > 0.99
    assert np.corrcoef(table, any_view)[0, 1] > 0.8


def test_every_size_the_body_and_the_colour_change_the_drawing_and_only_the_drawing_of_the_vehicle() -> None:
    base = Vehicle("Saloon", 4700, 1440, 1830, 2800, "Red")
    view = View(25, 6, 160 / 5500)
    pixels = np.asarray(paint_vehicle(base, view, 160), float)
    for other in (
        Vehicle("Saloon", 4820, 1440, 1830, 2800, "Red"),
        Vehicle("Saloon", 4700, 1510, 1830, 2800, "Red"),
        Vehicle("Saloon", 4700, 1440, 1900, 2800, "Red"),
        Vehicle("Saloon", 4700, 1440, 1830, 2900, "Red"),
        Vehicle("Saloon", 4700, 1440, 1830, 2800, "Blue"),
        *(Vehicle(body, 4700, 1440, 1830, 2800, "Red") for body in BODIES if body != "Saloon"),
    ):
        changed = np.abs(np.asarray(paint_vehicle(other, view, 160), float) - pixels).max(-1) > 30
        assert changed.sum() > 0.01 * (pixels[..., 3] > 0).sum(), other


def test_a_photograph_shows_the_colour_and_otherwise_varies() -> None:
    silver, red = (Vehicle("SUV", 4500, 1690, 1870, 2660, colour) for colour in ("Silver", "Red"))
    redness = []
    for seed in range(8):
        pair = []
        for vehicle in (silver, red):
            picture = np.asarray(photograph(vehicle, np.random.default_rng(seed), 64)[0], float)
            pair.append((picture[..., 0] - picture[..., 1:].mean(-1)).mean())
        redness.append(pair[1] - pair[0])
    assert min(redness) > 3
    first, again, other = (np.asarray(photograph(red, np.random.default_rng(seed), 64)[0], float) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 15


def test_the_seed_decides_every_byte_however_many_processes_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = []
    for name, seed, worth_a_pool in (("a", 5, math.inf), ("b", 5, 1), ("c", 6, math.inf)):
        monkeypatch.setattr("tabular_imaging.data.synthetic.adverts.SHOTS_WORTH_A_POOL", worth_a_pool)
        sets.append(write_synthetic(tmp_path / name, models=2, adverts=24, image_px=48, seed=seed))
    first, same, other = sets
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 24
    with Image.open(next(first.rglob("*.jpg"))) as picture:
        assert (picture.size, picture.mode, picture.format) == ((48, 48), "RGB", "JPEG")
    assert all((first / file).read_bytes() == (same / file).read_bytes() for file in files)
    table = "tables_V2.0/Ad_table (extra).csv"
    assert (first / table).read_bytes() != (other / table).read_bytes()


def test_more_models_keep_their_ids_and_names_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = Image.new("RGB", (32, 32)), View(0, 5, 0.01)
    monkeypatch.setattr("tabular_imaging.data.synthetic.adverts.photograph", lambda *_: blank)
    root = write_synthetic(tmp_path / "set", models=40, adverts=400, image_px=32)
    basics = pd.read_csv(root / "tables_V2.0/Basic_table.csv")
    assert len(basics) == 42
    assert basics["Genmodel_ID"].is_unique
    assert not basics.duplicated(["Automaker", "Genmodel"]).any()


def test_a_finished_set_is_reused_and_an_interrupted_one_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_synthetic(tmp_path / "set", models=2, adverts=20, image_px=32)
    picture = next(root.rglob("*.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(b"half")
    assert write_synthetic(root, models=2, adverts=20, image_px=32) == root
    assert "already there, reused" in capsys.readouterr().out
    assert picture.read_bytes() == b"half"
    (root / "tables_V2.0/Ad_table (extra).csv").unlink()
    write_synthetic(root, models=2, adverts=20, image_px=32)
    assert picture.read_bytes() == whole


def test_other_settings_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "set", models=2, adverts=20, image_px=32)
    with pytest.raises(FileExistsError, match=r"holds a synthetic set with other settings: .*give another folder"):
        write_synthetic(root, models=2, adverts=21, image_px=32)
    assert json.loads((root / "synthetic.json").read_text())["adverts"] == 20
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/holiday.jpg").write_text("not ours")
    with pytest.raises(FileExistsError, match="holds something that `synthetic` did not write"):
        write_synthetic(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": 1}, "models must be from 2 to 40, got 1"),
        ({"models": 12, "adverts": 119}, "adverts must be at least ten per model, so 120, got 119"),
        ({"image_px": 16}, "image_px must be from 32 to 1024, got 16"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_synthetic(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
