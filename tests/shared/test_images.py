"""Images from disk: how each kind becomes `(C, S, S)` uint8, the cache of them, and files that cannot be used."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.data.images import ImageSettings, ImageSource, image_cache, inside, load_image
from shared.data.problems import DataError, Problems


def picture(height: int = 40, width: int = 60, channels: int = 3) -> NDArray[np.uint8]:
    """SYNTHETIC smooth pixels `(H, W, C)`, different in every corner and channel."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [255 * y, 255 * x, 255 * (1 - y) * x, 255 * y * x][:channels]
    return np.stack(planes, axis=2).round().astype(np.uint8)


def save(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def load(path: Path, **settings: Any) -> NDArray[np.uint8]:
    image = load_image(ImageSource(str(path), ImageSettings(**settings)))
    assert image.dtype == np.uint8
    return image


def planes(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.transpose(2, 0, 1)


# ---------------------------------------------------------------- image files


def test_a_square_image_of_the_right_size_is_kept_to_the_bit(tmp_path: Path) -> None:
    pixels = picture(30, 30)
    assert np.array_equal(load(save(tmp_path / "a.png", pixels), size=30), planes(pixels))


def test_pad_keeps_all_of_it_centred_on_black(tmp_path: Path) -> None:
    image = load(save(tmp_path / "a.png", np.full((20, 40, 3), 200, np.uint8)), size=40, fit="pad")
    expected = np.zeros((3, 40, 40), np.uint8)
    expected[:, 10:30] = 200
    assert np.array_equal(image, expected)


def test_crop_keeps_the_centre(tmp_path: Path) -> None:
    pixels = picture(20, 40)
    assert np.array_equal(load(save(tmp_path / "a.png", pixels), size=20, fit="crop"), planes(pixels[:, 10:30]))


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_shrinking_averages_instead_of_picking(tmp_path: Path, fit: str) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255  # picking every fourth column would give black or white
    image = load(save(tmp_path / "a.png", stripes), size=16, channels=1, fit=fit)
    assert abs(image[:, :, 2:-2].astype(float) - 127.5).max() < 10


def test_stretch_squashes_and_small_images_fill_the_frame(tmp_path: Path) -> None:
    image = load(save(tmp_path / "a.png", picture(10, 40)), size=80, fit="stretch").astype(float)
    assert abs(image - planes(picture(80, 80)).astype(float)).max() < 16
    assert load(save(tmp_path / "b.png", np.full((5, 5, 3), 9, np.uint8)), size=80).min() == 9


def test_grey_files_become_rgb_and_the_other_way_round(tmp_path: Path) -> None:
    grey, colour = picture(20, 20, 1)[:, :, 0], picture(20, 20)
    as_rgb = load(save(tmp_path / "grey.png", grey), size=20)
    assert np.array_equal(as_rgb, np.stack([grey] * 3))
    as_grey = load(save(tmp_path / "colour.png", colour), size=20, channels=1)
    assert as_grey.shape == (1, 20, 20)
    assert abs(as_grey[0] - colour @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_respected(tmp_path: Path, orientation: int) -> None:
    upright = picture(32, 32)
    turn: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(turn[orientation](upright)), exif=exif)
    assert np.array_equal(load(path, size=32), planes(upright))


def test_a_large_jpeg_keeps_the_detail_of_its_lossless_twin(tmp_path: Path) -> None:
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, np.arange(800) % 8 < 4] = 255  # one pixel wide at 200 px, and gone at an eighth of the size
    jpeg = load(save(tmp_path / "a.jpg", stripes, quality=95), size=200).astype(float)
    lossless = load(save(tmp_path / "a.png", stripes), size=200)
    assert lossless[:, :, 2:-2].std() > 50
    assert abs(jpeg - lossless).mean() < 10


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 400).reshape(20, 20)
    path = save(tmp_path / "a.png", values.astype(np.uint16))
    assert abs(load(path, size=20, channels=1)[0] - values / 257).max() < 1
    wide = save(tmp_path / "a.tif", values.astype(np.int32))
    assert np.array_equal(load(wide, size=20), load(path, size=20))


def test_a_palette_gives_its_colours_and_transparency_shows_black(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE)
    red.save(tmp_path / "red.png")
    assert np.array_equal(load(tmp_path / "red.png", size=8)[:, 0, 0], [255, 0, 0])
    pixels = np.full((8, 8, 4), (200, 100, 50, 255), np.uint8)
    pixels[:4, :, 3] = 0
    pixels[4, :, 3] = 128
    image = load(save(tmp_path / "half.png", pixels), size=8)
    assert np.array_equal(image[:, 0, 0], [0, 0, 0])
    assert np.array_equal(image[:, 7, 0], [200, 100, 50])
    assert abs(image[:, 4, 0] - np.array([100, 50, 25])).max() <= 1


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8", "float64"])
def test_an_array_is_padded_centred_and_scaled_by_one_minimum_and_maximum(tmp_path: Path, dtype: str) -> None:
    array = np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    image = load(tmp_path / "a.npy", size=8, channels=2)
    expected = np.zeros((2, 8, 8))
    for channel in range(2):
        for row in range(3):
            for column in range(5):
                expected[channel, 2 + row, 1 + column] = round(int(array[channel, row, column]) * 255 / 29)
    assert np.array_equal(image, expected)


def test_a_negative_minimum_becomes_zero_and_a_constant_array_stays_black(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[[-1.0, 0.0], [0.5, 1.0]]]))
    assert np.array_equal(load(tmp_path / "a.npy", size=2, channels=1)[0], [[0, 128], [191, 255]])
    np.save(tmp_path / "b.npy", np.full((1, 2, 2), 7.0))
    assert not load(tmp_path / "b.npy", size=2, channels=1).any()


# ---------------------------------------------------------------- files that cannot be used


def png_claiming(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes whose header promises that many pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return path


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as error:
        load(path, **settings)
    return str(error.value)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jpg") == f"no image file {tmp_path / 'a.jpg'}"
    assert refusal(tmp_path) == f"no image file {tmp_path}"


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        assert refusal(path) == f"{path} is not an image of a format that Pillow reads"


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    message = refusal(path)
    assert message.startswith(f"{path} cannot be decoded, it may be truncated or damaged (")
    assert "truncated" in message.split("(")[1]


@pytest.mark.parametrize("width", [10_000, 100_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, width: int) -> None:
    path = png_claiming(tmp_path / "a.png", width, 10_000)
    assert refusal(path) == f"{path} has more than 89478485 pixels, which may be an attack: save it smaller"


def test_pixels_without_a_known_range_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.ones((4, 4), np.float32))
    expected = f"{path} has pixels of float, whose range is unknown: save it with 8 or 16 bits, or as .npy"
    assert refusal(path) == expected
    path = save(tmp_path / "b.tif", np.full((4, 4), 70_000, np.int32))
    assert refusal(path) == f"{path} has pixels outside [0, 65535]: save it with 8 or 16 bits, or as .npy"


def test_an_image_file_has_no_two_channels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture())
    expected = f"{path} is an image file, which has 1 or 3 channels, not 2: use .npy arrays"
    assert refusal(path, channels=2) == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((3, 8, 8)),
            "{} holds an array of shape (3, 8, 8), expected (2, at most 8, at most 8)",
        ),
        (
            np.zeros((2, 9, 8)),
            "{} holds an array of shape (2, 9, 8), expected (2, at most 8, at most 8)",
        ),
        (np.zeros((8, 8)), "{} holds an array of shape (8, 8), expected (2, at most 8, at most 8)"),
        (np.full((2, 8, 8), "a"), "{} holds <U1, expected real numbers"),
        (
            np.where(np.arange(128).reshape(2, 8, 8) < 3, [np.nan, np.inf] * 4, 1),
            "{} holds 3 values that are NaN or infinite",
        ),
        (
            np.full((2, 8, 8), None),
            "{} is not an array that NumPy can read without running code (Array can't be memory-mapped: Python objects "
            "in dtype.)",
        ),
    ],
    ids=["channels", "too large", "dimensions", "text", "NaN", "pickle"],
)
def test_an_array_that_does_not_fit_is_named(tmp_path: Path, array: NDArray[Any], message: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    assert refusal(path, size=8, channels=2) == message.format(path)


def test_a_truncated_array_and_one_that_claims_terabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 8, 8)))
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path, size=8, channels=2).startswith(f"{path} is not an array that NumPy can read")
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2, 10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, header)
    assert refusal(path, size=8, channels=2).startswith(f"{path} is not an array that NumPy can read")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size and channels must be at least 1, got 0 and 3"),
        ({"channels": 0}, "size and channels must be at least 1, got 300 and 0"),
        ({"fit": "squash"}, "fit must be pad, stretch or crop, got 'squash'"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ImageSettings(**settings)


# ---------------------------------------------------------------- paths


def test_paths_within_the_root_are_resolved(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
    assert inside(tmp_path, "a/../b.png") == tmp_path / "b.png"
    assert inside(tmp_path, tmp_path / "b.png") == tmp_path / "b.png"


@pytest.mark.parametrize("path", ["../b.png", "a/../../b.png", "/etc/passwd", "link/b.png", "file.png"])
def test_paths_that_lead_out_of_the_root_are_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "file.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError) as error:
        inside(root, path)
    assert str(error.value) == f"'{path}' leads out of the data's root {root}: give a path within it, or another root"


def test_a_root_that_is_a_link_is_the_folder_behind_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "link", "a.png") == tmp_path / "real" / "a.png"


def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^'a\\x00b' is not the path of a file \(.*null.*\)$"):
        inside(tmp_path, "a\0b")


# ---------------------------------------------------------------- cache


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three SYNTHETIC images, of which the second is truncated."""
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [save(folder / f"{index}.png", np.full((8, 8, 3), 50 * index, np.uint8)) for index in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:50])
    return paths


def test_the_cache_holds_every_image_and_lists_what_was_skipped(tmp_path: Path, files: list[Path]) -> None:
    paths = [*files, tmp_path / "missing.png"]
    problems = Problems("skip", noun="image")
    cache = image_cache(tmp_path / "cache", paths, ["a", "b", "c", "d"], ImageSettings(size=8), problems)
    assert cache.array.shape == (4, 3, 8, 8)
    assert [int(row.max()) for row in cache.array] == [0, 0, 100, 0]
    assert set(cache.unreadable) == {1, 3}
    assert [item for item, _ in problems.found] == ["b", "d"]
    assert problems.found[1][1] == f"no image file {tmp_path / 'missing.png'}"
    assert problems.summary().startswith(f"2 images skipped: b ({files[1]} cannot be decoded")


def test_by_default_a_bad_image_stops_the_build(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(DataError, match=rf"^b: {files[1]} cannot be decoded.*\(on_error: skip would leave it out"):
        image_cache(tmp_path / "cache", files, ["a", "b", "c"], ImageSettings(size=8), Problems("raise"))


def test_a_changed_file_or_setting_is_another_cache(tmp_path: Path, files: list[Path]) -> None:
    def build(**settings: Any) -> Path:
        paths = [files[0], files[2]]
        cache = image_cache(tmp_path / "cache", paths, ["a", "c"], ImageSettings(**settings), Problems("raise"))
        return cache.folder

    first = build(size=8)
    assert build(size=8) == first
    assert build(size=8, fit="crop") != first
    os.utime(files[0], (1, 1))
    touched = build(size=8)
    assert touched != first
    save(files[2], np.zeros((9, 9, 3), np.uint8))
    os.utime(files[2], (1, 1))
    assert build(size=8) not in (first, touched)


def test_worker_processes_read_the_same(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{index}.png", np.full((4, 4), index, np.uint8)) for index in range(130)]
    settings, names = ImageSettings(size=4, channels=1), [str(index) for index in range(130)]
    cache = image_cache(tmp_path / "cache", paths, names, settings, Problems("raise"), workers=2)
    assert cache.array[:, 0, 0, 0].tolist() == list(range(130))
