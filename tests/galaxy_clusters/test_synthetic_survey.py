"""The SYNTHETIC survey: light is what was drawn, the same seed gives the same bytes, and size, brightness and colour do
not give the planted classes away."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score

from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.data.synthetic import write_synthetic
from galaxy_clusters.data.synthetic.morphology import DENSITIES, PLANTED, draw_appearance, draw_shape, light
from galaxy_clusters.data.synthetic.render import FIELD, FINER, SKY_NOISE, Exposure, expose, offsets
from galaxy_clusters.data.synthetic.survey import CARELESS, SPREAD, VOLUNTEERS, Survey, answer_chances, draw_votes

Measured = NDArray[np.float64]
ARCSEC = 0.5  # of a pixel at 64


def read(root: Path) -> pd.DataFrame:
    """The catalogue and, beside it, the truth."""
    tables = [pd.read_csv(root / name, dtype={"id_str": str}) for name in ("catalogue.csv", "truth.csv")]
    joined: pd.DataFrame = tables[0].merge(tables[1], on="id_str", suffixes=("", "_drawn"), validate="1:1")
    assert len(joined) == len(tables[0]) == len(tables[1])
    return joined


def pixels(root: Path, row: pd.Series) -> Measured:
    """`(3, S, S)`."""
    return np.asarray(Image.open(root / str(row["file_loc"])), np.float64).transpose(2, 0, 1)


def kept(frame: pd.DataFrame) -> "pd.Series[bool]":
    """What the paper's cuts keep: featured, not edge-on, no artefact."""
    edge_on = frame["disk-edge-on_yes"] / (frame["disk-edge-on_yes"] + frame["disk-edge-on_no"]).clip(1)
    few = (frame["smooth-or-featured_smooth"] < 0.5 * VOLUNTEERS) & (edge_on < 0.3)
    return few & (frame["smooth-or-featured_artifact"] < 0.3 * VOLUNTEERS)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("survey") / "set"
    write_synthetic(root, galaxies=560, planted=24, seed=3)
    return root


@pytest.mark.parametrize("kind", DENSITIES)
def test_the_light_of_every_kind_has_the_drawn_flux_colours_and_half_light_radius(kind: str) -> None:
    rng = np.random.default_rng(7)
    shape, appearance = draw_shape(kind, rng), draw_appearance(False, rng)
    assert sum(getattr(shape, name) for name in ("bulge", "disc", "bar", "arms", "ring", "clumps", "companion", "tail")
               ) == pytest.approx(1)  # fmt: skip
    line = offsets(600, 120)
    seen = light(shape, appearance, line[None], line[:, None]) * 0.2**2
    z, r, g = 22.5 - 2.5 * np.log10(seen.sum((1, 2)))
    assert r == pytest.approx(appearance.mag_r, abs=0.1)  # the widest halos have some light far out
    assert [g - r, r - z] == pytest.approx([appearance.g_r, appearance.r_z], abs=0.01)
    share = seen[1] / seen[1].sum()
    radius = np.hypot(line[None] - (share * line).sum(), line[:, None] - (share * line[:, None]).sum())
    assert share[radius < appearance.half_light_radius].sum() == pytest.approx(0.5, abs=0.03)


def test_a_star_has_the_width_of_the_seeing_and_the_sky_its_noise() -> None:
    line = offsets(64 * FINER, FIELD)
    star = np.exp(-0.5 * (line**2 + line[:, None] ** 2) / 0.2**2) * np.full((3, 1, 1), 1e8)
    for fwhm in (1.0, 1.6):
        seen = expose(star, Exposure(fwhm), np.random.default_rng(0))[1].sum(0)
        width = np.sqrt((seen * offsets(64, FIELD) ** 2).sum() / seen.sum())
        expected = np.sqrt((fwhm / 2.355) ** 2 + 0.2**2 + ARCSEC**2 / 12)
        assert width == pytest.approx(expected, rel=0.03)
    for side in (64, 128):
        sky = expose(np.zeros((3, FINER * side, FINER * side)), Exposure(1.2), np.random.default_rng(0))
        assert sky.std() == pytest.approx(SKY_NOISE * side / FIELD, rel=0.03)


def test_votes_follow_the_tree_and_the_chances() -> None:
    schema, rng = read_schema("desi"), np.random.default_rng(0)
    shape = draw_shape("barred", np.random.default_rng(1))
    chances = answer_chances(shape, artefact=False)
    assert [len(part) for part in chances] == schema.sizes
    votes = np.stack([draw_votes(chances, schema, rng) for _ in range(1500)])
    weights = [SPREAD * part + CARELESS for part in chances]
    expected = np.concatenate([part / part.sum() for part in weights])[None]
    asked = np.ones(len(schema.sizes))  # the chance that a volunteer comes to a question
    question_of = np.repeat(np.arange(len(schema.sizes)), schema.sizes)
    for number, lead in enumerate(schema.leads):
        asked[number] = 1 if lead is None else asked[question_of[lead]] * expected[0, lead]
    np.testing.assert_allclose(votes.mean(0), VOLUNTEERS * asked[question_of] * expected[0], atol=0.6)
    totals = np.add.reduceat(votes, schema.starts, axis=1)
    for lead, total in zip(schema.leads, totals.T, strict=True):
        np.testing.assert_array_equal(total, VOLUNTEERS if lead is None else votes[:, lead])


@pytest.mark.parametrize("kind", ["elliptical", "spiral", "barred", "edge_on", "merger"])
def test_the_likeliest_answers_about_the_populations_are_those_of_an_astronomer(kind: str) -> None:
    answers = {
        "elliptical": ["smooth-or-featured_smooth", "merging_none"],
        "spiral": ["smooth-or-featured_featured-or-disk", "disk-edge-on_no", "has-spiral-arms_yes", "bar_no"],
        "barred": ["smooth-or-featured_featured-or-disk", "disk-edge-on_no"],
        "edge_on": ["smooth-or-featured_featured-or-disk", "disk-edge-on_yes"],
        "merger": ["smooth-or-featured_featured-or-disk", "merging_merger"],
    }[kind]  # fmt: skip
    columns = read_schema("desi").columns
    shapes = [draw_shape(kind, np.random.default_rng(number)) for number in range(50)]
    chances = np.mean([np.concatenate(answer_chances(shape, False)) for shape in shapes], axis=0)
    assert all(chances[columns.index(answer)] > 0.6 for answer in answers)


def test_the_survey_is_laid_out_as_a_real_one(survey: Path) -> None:
    frame = read(survey)
    assert len(frame) == 560
    assert frame["id_str"].str.fullmatch(r"\d{18}").all()
    assert frame["id_str"].is_unique
    assert frame["id_str"].is_monotonic_increasing
    assert (frame["file_loc"] == "images/" + frame["id_str"] + ".jpg").all()
    assert Image.open(survey / frame["file_loc"][0]).size == (64, 64)
    assert set(read_schema("desi").columns) < set(frame.columns)
    assert frame["kind"].value_counts()[list(PLANTED)].tolist() == [24] * 4
    assert frame["brickid"].nunique() == 40
    assert (frame.groupby("brickid")["psf_fwhm"].nunique() == 1).all()
    assert kept(frame)[frame["kind"].isin(PLANTED)].mean() > 0.9
    assert kept(frame)[frame["kind"].isin(["elliptical", "edge_on", "artefact"])].mean() < 0.1


def test_a_shredded_galaxy_is_many_entries_a_few_arcsec_apart_and_others_are_alone(survey: Path) -> None:
    frame = read(survey)
    place = np.stack([frame["ra"] * np.cos(np.radians(1.1)), frame["dec"]], 1) * 3600
    apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    same = frame["system"].to_numpy()[:, None] == frame["system"].to_numpy()
    assert frame.loc[frame["kind"] == "shredded", "system"].value_counts().tolist() == [12] * 2
    assert same.sum(1).tolist() == np.where(frame["kind"] == "shredded", 12, 1).tolist()
    assert apart[same].max() < 25
    assert apart[~same].min() > 25


def test_entries_of_a_shredded_galaxy_show_the_same_sky(survey: Path) -> None:
    """East is to the left: a cutout further west has the galaxy further to the left."""
    frame = read(survey)
    agreed = []
    for _, entries in frame[frame["kind"] == "shredded"].groupby("system"):
        one, other = entries.iloc[0], entries.iloc[1]
        west = (one["ra"] - other["ra"]) * 3600 * np.cos(np.radians(one["dec"])) / ARCSEC
        north = (other["dec"] - one["dec"]) * 3600 / ARCSEC
        moved = np.roll(pixels(survey, other), (-round(north), round(west)), (1, 2))
        inner = (slice(None), slice(20, 44), slice(20, 44))
        agreed.append(np.corrcoef(pixels(survey, one)[inner].ravel(), moved[inner].ravel())[0, 1])
    assert np.median(agreed) > 0.9


def measured(image: Measured) -> list[float]:
    """Brightness, half-light radius in pixels, and two colours of what stands out of the background."""
    border = np.concatenate([image[:, :4].reshape(3, -1), image[:, -4:].reshape(3, -1)], 1)
    image = image - np.median(border, 1)[:, None, None]
    bright = np.where(image.mean(0) > 6, image.mean(0), 0)
    y, x = np.indices(bright.shape)
    flux = bright.sum()
    radius = np.hypot(x - (bright * x).sum() / flux, y - (bright * y).sum() / flux).ravel()
    order = radius.argsort()
    half = np.interp(0.5, bright.ravel()[order].cumsum() / flux, radius[order])
    red, green, blue = image[:, bright > 0].sum(1).clip(1)
    return [np.log(flux), float(half), np.log(red / green), np.log(blue / green)]


def separation(features: Measured, positive: NDArray[np.bool_]) -> float:
    """AUC of a forest on galaxies that it has not seen."""
    forest = RandomForestClassifier(30, min_samples_leaf=5, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chance = cross_val_predict(forest, features, positive, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(positive, chance))


def test_size_brightness_and_colour_do_not_give_planted_classes_away() -> None:
    """Of a shredded galaxy one entry counts: the others are the same galaxy, which a forest would recognise."""
    drawn = Survey(seed=5, image_px=64, artefacts=False, continuum=False)
    numbers = [(0, number) for number in range(500)]
    for stream, kind in enumerate(PLANTED, 1):
        numbers += [(stream, number * (13 if kind == "shredded" else 1)) for number in range(70)]
    rows, features = [], []
    for stream, number in numbers:
        row, truth, image = drawn.galaxy(stream, number)
        rows.append(row | {"kind": truth["kind"]})
        features.append([*measured(image.transpose(2, 0, 1).astype(float)), row["est_petro_th50"], row["mag_r"]])
    frame = pd.DataFrame(rows)
    bulk = kept(frame) & ~frame["kind"].isin(PLANTED)
    found = {}
    for kind in (*PLANTED, "elliptical"):
        chosen = bulk | (frame["kind"] == kind)
        found[kind] = separation(np.array(features)[chosen], (frame["kind"] == kind)[chosen].to_numpy())
    assert max(found[kind] for kind in PLANTED) < 0.65, found
    assert found["elliptical"] > 0.8  # the measure does see a difference of colour


def test_votes_do_not_tell_the_kinds_of_artefacts_apart(survey: Path) -> None:
    frame = read(survey)
    artefacts = frame[frame["kind"] == "artefact"]
    assert artefacts["artefact_kind"].nunique() == 4
    votes = artefacts[read_schema("desi").columns]
    forest = RandomForestClassifier(30, min_samples_leaf=3, random_state=0)
    scores = cross_val_score(forest, votes, artefacts["artefact_kind"], cv=5, scoring="balanced_accuracy")
    assert scores.mean() < 0.4


def test_two_bricks_have_a_bad_background(survey: Path) -> None:
    frame = read(survey)
    glow = []
    for _, row in frame.iterrows():
        image = pixels(survey, row)
        glow.append(np.median(image[0, :, -6:]) - np.median(image[2, :, -6:]))
    by_brick = pd.Series(glow).groupby(frame["brickid"].to_numpy()).median().sort_values()
    assert by_brick.iloc[-2] > by_brick.iloc[-3] + 5
    assert by_brick.iloc[-3] < by_brick.iloc[0] + 5


def test_a_galaxy_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    for name, galaxies, planted, seed in (("a", 40, 3, 0), ("b", 60, 4, 0), ("again", 40, 3, 0), ("other", 40, 3, 1)):
        write_synthetic(tmp_path / name, galaxies=galaxies, planted=planted, seed=seed)
    small, large, other = (read(tmp_path / name).set_index("id_str") for name in ("a", "b", "other"))
    pd.testing.assert_frame_equal(large.loc[small.index], small)
    for path in small["file_loc"]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    for name in ("catalogue.csv", "truth.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert not set(small.index) & set(other.index)


def test_surveys_without_planted_classes_without_artefacts_and_without_classes(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "plain", galaxies=60, planted=0, artefacts=False)
    write_synthetic(tmp_path / "null", galaxies=60, continuum=True, image_px=32)
    assert set(read(tmp_path / "plain")["kind"]) == {"elliptical", "spiral", "barred", "edge_on", "merger"}
    null = read(tmp_path / "null")
    assert set(null["kind"]) == {"continuum"}
    assert null["artefact_kind"].isna().all()
    assert pixels(tmp_path / "null", null.iloc[0]).shape == (3, 32, 32)


def test_a_finished_survey_is_reused_and_another_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_synthetic(root, galaxies=8, planted=1)
    before = (root / "catalogue.csv").stat().st_mtime_ns
    write_synthetic(root, galaxies=8, planted=1)
    assert (root / "catalogue.csv").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="holds a synthetic set with other settings"):
        write_synthetic(root, galaxies=9, planted=1)
    with pytest.raises(ValueError, match=r"^planted must be in 0 to 2, a quarter of the galaxies, got 3$"):
        write_synthetic(tmp_path / "more", galaxies=8, planted=3)
