"""Images of a survey: the stretch against the published formulas, FITS of every kind, crops, and faulty images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.visualization import AsinhStretch, make_lupton_rgb
from numpy.typing import NDArray
from PIL import Image

from galaxy_clusters.data.fits import Stretch, SurveyImage, crop_px, image_faults, load_survey_image
from shared.data.images import ImageSettings, ImageSource, load_image
from shared.data.problems import DataError

ASINH = Stretch("asinh", low=-1.0, high=9.0, softening=0.2)
GREY, RGB = ImageSettings(16, 1), ImageSettings(16, 3)


def flux(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-2, 11, shape).astype(np.float32)


def write(path: Path, *hdus: Any) -> str:
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    return str(path)


def test_the_asinh_stretch_is_astropys_and_clips() -> None:
    values = np.array([-5, -1, 0, 1.5, 4, 9, 30], np.float32).reshape(1, 1, -1)
    expected = AsinhStretch(a=0.2)((values + 1) / 10, clip=True)
    assert ASINH(values).ravel().tolist() == np.rint(255 * expected).ravel().tolist()
    assert ASINH(values)[0, 0, [0, 1, 5, 6]].tolist() == [0, 0, 255, 255]


def test_the_lupton_stretch_is_astropys() -> None:
    bands = flux(3, 40, 50)
    low, high, softening = -1.0, 30.0, 0.05
    # astropy has asinh(Q I / stretch) 0.1 / asinh(Q / 10) where we have asinh(I / s) / asinh(1 / s).
    q = 10 * np.sinh(0.1 * np.arcsinh(1 / softening))
    expected = make_lupton_rgb(*bands, minimum=low, stretch=q * softening * (high - low), Q=q).transpose(2, 0, 1)
    found = Stretch("lupton", low, high, softening)(bands)
    assert np.abs(found.astype(int) - expected).max() <= 1  # astropy cuts off where we round
    assert (found == 255).any()
    assert (found == 0).any()


def test_a_luptons_colour_does_not_depend_on_brightness_and_an_asinhs_does() -> None:
    colour = np.array([4.0, 2.0, 1.0]).reshape(3, 1, 1)
    bands = np.concatenate([brightness * colour for brightness in (0.3, 1.0, 20.0)], 2)
    shares = [
        (found := Stretch(kind, 0.0, 40.0)(bands)[:, 0].astype(float)) / found.sum(0) for kind in ("lupton", "asinh")
    ]
    assert np.ptp(shares[0], axis=1).max() < 0.02
    assert np.ptp(shares[1], axis=1).max() > 0.1


@pytest.mark.parametrize(("low", "high", "softening"), [(1.0, 1.0, 0.1), (0.0, 1.0, 0.0), (float("nan"), 1.0, 0.1)])
def test_an_impossible_stretch_is_refused(low: float, high: float, softening: float) -> None:
    with pytest.raises(ValueError, match="the stretch needs low < high and a positive softening"):
        Stretch("asinh", low, high, softening)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="the stretch must be asinh or lupton, got 'log'"):
        Stretch("log", 0, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 bands do not make 3 channels"):
        SurveyImage("x.fits", RGB, ASINH, bands=("g", "r"))


def test_fits_images_of_every_layout_are_read_the_same(tmp_path: Path) -> None:
    values = flux(16, 16)
    expected = ASINH(values[None])
    hdus = {
        "plain": fits.ImageHDU(values),
        "big_endian": fits.ImageHDU(values.astype(">f8")),
        "compressed": fits.CompImageHDU(values, compression_type="GZIP_2", quantize_level=0),
        "one_plane": fits.ImageHDU(values[None, None]),
    }
    for name, hdu in hdus.items():
        assert np.array_equal(
            load_survey_image(SurveyImage(write(tmp_path / f"{name}.fits", hdu), GREY, ASINH)), expected
        )
    fits.PrimaryHDU(values).writeto(tmp_path / "primary.FITS.gz")
    found = load_survey_image(SurveyImage(str(tmp_path / "primary.FITS.gz"), RGB, ASINH))
    assert np.array_equal(found, expected.repeat(3, 0))
    scaled = fits.ImageHDU(np.rint(values * 1000).astype(np.int32))
    scaled.header["BSCALE"], scaled.header["BZERO"] = 0.001, 1.0
    again = load_survey_image(SurveyImage(write(tmp_path / "scaled.fits", scaled), GREY, ASINH))
    assert np.abs(again.astype(int) - ASINH(values[None] + 1)).max() <= 1


def test_extensions_are_found_by_name_and_bands_make_the_channels(tmp_path: Path) -> None:
    values = flux(3, 16, 16)
    path = write(
        tmp_path / "a.fits", *(fits.ImageHDU(plane, name=name) for plane, name in zip(values, "gri", strict=True))
    )
    assert np.array_equal(load_survey_image(SurveyImage(path, GREY, ASINH)), ASINH(values[:1]))
    assert np.array_equal(load_survey_image(SurveyImage(path, GREY, ASINH, hdu="r")), ASINH(values[1:2]))
    lupton = Stretch("lupton", 0, 9)
    found = load_survey_image(SurveyImage(path, RGB, lupton, bands=("i", "r", "g")))
    assert np.array_equal(found, lupton(values[::-1]))
    cube = write(tmp_path / "b.fits", fits.ImageHDU(values[0] * 0), fits.ImageHDU(values, name="cube"))
    found = load_survey_image(SurveyImage(cube, RGB, lupton, hdu="CUBE", bands=(2, 1, 0)))
    assert np.array_equal(found, lupton(values[::-1]))


def test_the_stretch_does_not_depend_on_the_image(tmp_path: Path) -> None:
    found = []
    for value in (1.0, 3.0):
        path = write(tmp_path / "a.fits", fits.ImageHDU(np.full((16, 16), value)))
        found.append(load_survey_image(SurveyImage(path, GREY, ASINH)))
    assert found[0].max() < found[1].min()


def test_pixels_without_a_value_become_black_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = flux(16, 16) + 3
    values[0, :5], values[1, 1] = np.nan, np.inf
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "a.fits", fits.ImageHDU(values))
    found = load_survey_image(SurveyImage(path, GREY, ASINH))[0]
    assert (found[~np.isfinite(values)] == 0).all()
    assert (found[np.isfinite(values)] > 0).all()
    assert caplog.messages == [f"{path}: 6 pixels without a value become black"]


def said(source: SurveyImage) -> str:
    with pytest.raises(DataError) as told:
        load_survey_image(source)
    return str(told.value).removeprefix(source.path)


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    values = flux(3, 16, 16)
    path = write(tmp_path / "a.fits", fits.ImageHDU(values, name="cube"), fits.ImageHDU(np.zeros((4, 4)), name="small"))
    assert said(SurveyImage(path, GREY)) == " holds fluxes, which need a stretch: asinh or lupton, with low and high"
    assert said(SurveyImage(path, RGB, ASINH)) == (
        " holds an image of shape (3, 16, 16), expected (height, width): name the planes that are its channels with "
        "bands, such as [2, 1, 0]"
    )
    assert said(SurveyImage(path, RGB, ASINH, bands=(1, 2, 3))) == (
        " holds an image of shape (3, 16, 16), which has no plane 3"
    )
    assert said(SurveyImage(path, GREY, ASINH, hdu="g")) == " holds no image called g: its images are CUBE, SMALL"
    two = ImageSettings(16, 2)
    mixed = write(tmp_path / "m.fits", fits.ImageHDU(values[0], name="g"), fits.ImageHDU(values[1, :8], name="r"))
    assert said(SurveyImage(mixed, two, ASINH, bands=("g", "r"))) == " has bands of several shapes: (16, 16), (8, 16)"
    assert said(SurveyImage(write(tmp_path / "e.fits"), GREY, ASINH)) == " holds no image: it has none"
    values[0, :9] = np.nan
    nan = write(tmp_path / "n.fits", fits.ImageHDU(values[0]))
    assert said(SurveyImage(nan, GREY, ASINH)) == " has no value in 56% of its pixels, at most half may be missing"
    assert said(SurveyImage("none.fits", GREY, ASINH)) == "no image file none.fits"
    content = Path(path).read_bytes()
    for name, part in (("t.fits", content[:6000]), ("x.fits", b"not FITS at all")):
        (tmp_path / name).write_bytes(part)
        told = said(SurveyImage(str(tmp_path / name), RGB, ASINH, bands=(0, 1, 2)))
        assert told.startswith(" cannot be read as FITS, it may be truncated or damaged (")
    assert said(SurveyImage("a.npy", GREY)) == " is an array, which would be scaled by its own range: save it as FITS"


def test_other_images_are_those_of_load_image_and_a_truncated_one_is_named(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    found = load_survey_image(SurveyImage(str(path), RGB))
    assert np.array_equal(found, load_image(ImageSource(str(path), RGB)))
    path.write_bytes(path.read_bytes()[:900])
    for crop in (None, 20):
        assert said(SurveyImage(str(path), RGB, crop=crop)).startswith(" cannot be decoded, it may be truncated")
    assert said(SurveyImage("none.png", RGB, crop=9)) == "no image file none.png"


@pytest.mark.parametrize("name", ["a.png", "a.fits"])
def test_a_crop_shows_the_middle_and_black_beyond_the_image(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (30, 40), dtype=np.uint8)
    path = tmp_path / name
    Image.fromarray(pixels).save(path) if name == "a.png" else write(path, fits.ImageHDU(pixels.astype(float)))
    stretch = Stretch("asinh", 0, 255, 1e6)  # linear
    settings = ImageSettings(16, 1)
    inner = load_survey_image(SurveyImage(str(path), settings, stretch, crop=16))[0]
    assert np.array_equal(inner, pixels[7:23, 12:28])
    wide = load_survey_image(SurveyImage(str(path), ImageSettings(60, 1), stretch, crop=60))[0]
    assert np.array_equal(wide[15:45, 10:50], pixels)
    assert wide.astype(int).sum() == pixels.astype(int).sum()


def test_crops_show_galaxies_of_any_size_alike(tmp_path: Path) -> None:
    assert crop_px(np.array([3.0, 12.0, 0.01]), 0.262, 4).tolist() == [46, 183, 1]
    y, x = np.mgrid[:200, :200] - 99.5
    shown = []
    for size in (5.0, 15.0):
        disc = np.where(np.hypot(y, x) < size / 0.5, 200, 0).astype(np.uint8)
        Image.fromarray(disc).save(tmp_path / "a.png")
        crop = int(crop_px(np.array([size]), 0.5, 3)[0])
        shown.append(load_survey_image(SurveyImage(str(tmp_path / "a.png"), ImageSettings(32, 1), crop=crop)))
    assert (np.abs(shown[0].astype(int) - shown[1]) > 60).mean() < 0.05
    with pytest.raises(DataError) as told:
        crop_px(np.array([1.0, 0.0, np.nan]), 0.262, 4)
    assert str(told.value) == (
        "row 2 has the size 0 arcsec (2 of 3 rows have no positive size): leave such rows out, or do not crop by size"
    )


@pytest.mark.parametrize("side", [24, 64, 70])
def test_faulty_images_are_found_and_good_ones_are_not(side: int) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    galaxy = 200 * np.exp(-np.hypot(y, x) / side * 12) + 12
    images = (galaxy + rng.normal(scale=5, size=(7, 3, side, side))).clip(1, 255).astype(np.uint8)
    images[1] = 0
    images[2] = 37 + rng.integers(0, 2, images[2].shape)
    images[3, :, side * 3 // 8 : side * 5 // 8, side * 3 // 8 : side * 5 // 8] = 0
    images[4, :, :, : side // 4] = 17
    images[5] = np.where(rng.random(images[5].shape) < 0.5, 0, images[5])  # noise that the stretch has cut off
    images[6, :, : side // 5, : side // 5] = 255  # a bright star
    faults = image_faults(images)
    assert faults["blank"].tolist() == [False, True, False, False, False, False, False]
    assert faults["near_constant"].tolist() == [False, True, True, False, False, False, False]
    assert faults["masked"].tolist() == [False, True, False, True, True, False, False]
    assert faults["constant_share"].between(0, 1).all()
    assert faults["constant_share"][4] == pytest.approx(0.25, abs=0.05)


@pytest.mark.realdata
def test_the_masked_images_of_gz1_are_found(real_data: Path) -> None:
    folder = real_data / "galaxies" / "gz1" / "images"
    names = ["587729387686002878", "587731514224672910", "588848901537202306", "588017113979682906"]
    images = [load_survey_image(SurveyImage(str(folder / f"{name}.jpg"), ImageSettings(64))) for name in names]
    assert image_faults(np.stack(images))["masked"].tolist() == [True, True, False, False]
