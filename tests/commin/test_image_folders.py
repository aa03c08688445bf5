"""Folders and tables of images: which are found, in which part, as what, and what cannot be used."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from commin.data.module import ImageFoldersDataModule
from commin.noise import image_keys
from shared.data.problems import DataError

SKIP = "(on_error: skip would leave it out and list it)"


def save(path: Path, size: tuple[int, int] = (40, 40), mode: str = "RGB", seed: int = 0, **options: Any) -> Path:
    """SYNTHETIC noise, in colour or grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = (3,) if mode == "RGB" else ()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def persons(root: Path, names: Sequence[str], each: int = 2, mode: str = "RGB") -> Path:
    for number, name in enumerate(names):
        for picture in range(each):
            save(root / name / f"{picture}.png", mode=mode, seed=1000 * number + picture)
    return root


def made(root: Path, **kwargs: Any) -> ImageFoldersDataModule:
    options: dict[str, Any] = {"image_px": 32, "batch_size": 4, "cache_dir": str(root.parent / "cache"), **kwargs}
    data = ImageFoldersDataModule(str(root), **options)
    data.prepare_data()
    data.setup()
    return data


def parts_of(data: ImageFoldersDataModule) -> dict[str, set[str]]:
    """The parts that each group is in, by its name."""
    assert data.group_name is not None
    return {str(name): set(rows["split"]) for name, rows in data.frame.groupby(data.group_name)}


def refused(root: Path, **kwargs: Any) -> str:
    with pytest.raises(DataError) as caught:
        made(root, **kwargs)
    return str(caught.value)


# ---------------------------------------------------------------- what is found, and its batches


def test_images_at_any_depth_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    root = tmp_path / "set"
    names = ["a.png", "b/0.JPG", "b/1.webp", "c/d/2.pgm"]
    for number, name in enumerate(names):
        save(root / name, mode="L" if name.endswith("pgm") else "RGB", seed=number)
    for other in ("notes.txt", "b/.hidden.png", ".trash/3.png"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_text("x")
    data = made(root, fractions=(0.0, 0.0, 1.0))
    assert data.frame["id"].tolist() == names
    (batch,) = data.test_dataloader()
    assert (batch.image.shape, batch.image.dtype) == ((4, 3, 32, 32), torch.uint8)
    assert torch.equal(batch.key, image_keys(names))
    assert batch.row.tolist() == [0, 1, 2, 3]
    assert np.array_equal(batch.image[:1].numpy(), data.cached(np.array([0])))


def test_training_batches_depend_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", list("abcdefghij"))

    def rows(seed: int, epoch: int) -> list[int]:
        loader = made(root, seed=seed, group_column="folder").train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return [row for batch in loader for row in batch.row.tolist()]

    assert rows(1, 2) == rows(1, 2) != rows(1, 3)
    assert rows(1, 2) != rows(2, 2)
    assert set(rows(1, 2)) <= set(made(root, group_column="folder").rows("train", "pretrain"))


def test_some_images_are_drawn_by_their_names(tmp_path: Path) -> None:
    data = made(persons(tmp_path / "set", list("abcdefghij")), group_column="folder")
    image, key = data.some("train", 5)
    expected = sorted(data.key[data.rows("train", "pretrain")].tolist())[:5]
    assert key.tolist() == expected
    rows = [data.key.tolist().index(each) for each in expected]
    assert np.array_equal(image.numpy(), data.cached(np.array(rows)))
    assert len(data.some("val", 99)[1]) == len(data.rows("val", "pretrain"))


def test_a_checkpoint_would_say_how_the_images_were_prepared(tmp_path: Path) -> None:
    data = made(persons(tmp_path / "set", list("abcdefghij"), mode="L"), fit="pad")
    assert dict(data.hparams) == {"image_px": 32, "fit": "pad", "source_channels": 1}


def test_another_size_or_fit_is_other_data(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", list("abcdefghij"))
    save(root / "a" / "0.png", (60, 40))
    marks = [
        made(root, image_px=px, fit=fit).fingerprint() for px, fit in ((32, "crop"), (24, "crop"), (32, "stretch"))
    ]
    assert len(set(marks)) == 3


# ---------------------------------------------------------------- parts


def test_a_random_split_keeps_persons_together_and_has_the_asked_shares(tmp_path: Path) -> None:
    data = made(persons(tmp_path / "set", [f"s{number}" for number in range(20)]), group_column="folder")
    found = parts_of(data)
    assert all(len(parts) == 1 for parts in found.values())
    assert Counter(part for parts in found.values() for part in parts) == {"train": 14, "val": 2, "test": 4}
    assert data.groups.tolist() == np.unique(data.frame["folder"], return_inverse=True)[1].tolist()


def test_over_the_folds_every_person_is_tested_once_and_never_in_two_parts(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", [f"s{number}" for number in range(40)], each=1)
    tested: list[str] = []
    for fold in range(5):
        found = parts_of(made(root, group_column="folder", fold=fold, split_seed=3))
        assert Counter(next(iter(parts)) for parts in found.values()) == {"train": 28, "val": 4, "test": 8}
        assert all(len(parts) == 1 for parts in found.values())
        tested += [name for name, parts in found.items() if parts == {"test"}]
    assert sorted(tested) == sorted(f"s{number}" for number in range(40))


def test_without_groups_each_image_is_split_by_itself(tmp_path: Path) -> None:
    data = made(persons(tmp_path / "set", ["a", "b"], each=10))
    assert data.group_name is None
    assert Counter(data.split) == {"train": 14, "val": 2, "test": 4}
    assert data.groups.tolist() == list(range(20))


def test_folders_of_parts_are_the_parts_and_val_is_drawn_from_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = persons(tmp_path / "set", [f"{part}/cat{number}" for part in ("Train", "test") for number in range(10)])
    with caplog.at_level("INFO"):
        data = made(root, fractions=(0.75, 0.25, 0.0))
    assert Counter(data.split) == {"train": 15, "val": 5, "test": 20}
    assert set(data.split[data.frame["id"].str.startswith("test/")]) == {"test"}
    assert caplog.messages[0] == (
        f"{root}: 40 images, each by itself (no group_column); parts as given, val drawn from train: "
        "train 15, val 5, test 20"
    )
    assert Counter(made(root, fractions=(0.0, 0.0, 1.0)).split) == {"train": 20, "test": 20}
    grouped = [f"{part}/{part}{number}" for part in ("training", "valid", "testing") for number in range(3)]
    data = made(persons(tmp_path / "other", grouped), group_column="folder")
    assert Counter(data.split) == {"train": 6, "val": 6, "test": 6}
    assert set(data.frame["folder"]) == {name.partition("/")[2] for name in grouped}


def test_a_folder_called_train_among_others_is_no_part(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", ["train", "car", "ship", "bus"])
    data = made(root, group_column="folder", fractions=(0.5, 0.25, 0.25))
    assert set(data.frame["folder"]) == {"train", "car", "ship", "bus"}
    assert Counter(data.split) == {"train": 4, "val": 2, "test": 2}


def table_of(root: Path, names: Sequence[str]) -> pd.DataFrame:
    persons(root, names)
    files = [f"{name}/{picture}.png" for name in names for picture in range(2)]
    return pd.DataFrame({"image": files, "person": [name.partition("/")[0] for name in files]})


def test_a_table_says_persons_and_parts_whatever_the_order_of_its_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    table = table_of(root, list("abcdefghij"))
    table.to_csv(root / "images.csv", index=False)
    with caplog.at_level("INFO"):
        data = made(root, table="images.csv", split_seed=5)
    assert "rows with the same person belong together" in caplog.text
    assert data.group_name == "person"
    table.sample(frac=1, random_state=0).to_csv(root / "images.csv", index=False)
    again = made(root, table="images.csv", split_seed=5)
    assert again.fingerprint() == data.fingerprint()
    assert made(root, table="images.csv", split_seed=6).fingerprint() != data.fingerprint()
    assert parts_of(made(root, table="images.csv", group_column="folder", split_seed=5)) == parts_of(data)
    assert made(root, table="images.csv", group_column="image").group_name is None
    table.assign(split=np.repeat(["Train", "validation", "test"], [10, 6, 4])).to_csv(root / "images.csv", index=False)
    assert Counter(made(root, table="images.csv").split) == {"train": 10, "val": 6, "test": 4}


# ---------------------------------------------------------------- images of every kind


def one(tmp_path: Path, picture: Path, **kwargs: Any) -> Any:
    """How a picture is cached, `(3, 32, 32)`."""
    data = made(picture.parent, fractions=(0.0, 0.0, 1.0), **kwargs)
    return data.cached(np.flatnonzero(data.frame["id"] == picture.name))[0]


def test_of_odd_sizes_the_centre_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "set" / "odd.png"
    path.parent.mkdir()
    pixels = np.zeros((32, 57, 3), np.uint8)
    pixels[:, 12:44] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    Image.fromarray(pixels).crop((0, 0, 56, 32)).save(path)
    assert np.array_equal(one(tmp_path, path), pixels[:, 12:44].transpose(2, 0, 1))


def test_grey_images_have_three_channels_but_one_to_send(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = persons(tmp_path / "set", ["a"], each=3, mode="L")
    with caplog.at_level("INFO"):
        data = made(root, fractions=(0.0, 0.0, 1.0))
    assert data.source_channels == 1
    assert caplog.messages[-1] == f"{root}: its images are grey, so the bandwidth ratio counts one channel"
    images = data.cached(np.arange(3))
    assert (images == images[:, :1]).all()
    save(root / "b.png")
    assert made(root, fractions=(0.0, 0.0, 1.0)).source_channels == 3


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("deep.png", "I;16", 65535 // 5, [51, 51, 51]),
        ("print.tif", "CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("clear.png", "RGBA", (200, 100, 50, 0), [0, 0, 0]),
        ("palette.gif", "P", 0, [0, 0, 0]),
    ],
)
def test_other_modes_become_rgb(tmp_path: Path, name: str, mode: str, colour: Any, expected: list[int]) -> None:
    path = tmp_path / "set" / name
    path.parent.mkdir()
    Image.new(mode, (40, 40), colour).save(path)
    assert one(tmp_path, path)[:, 16, 16].tolist() == expected


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    path = tmp_path / "set" / "turned.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    Image.fromarray(pixels).save(path, exif=exif)
    assert np.array_equal(one(tmp_path, path), np.rot90(pixels, -1).transpose(2, 0, 1))


def test_of_a_telephones_two_pictures_the_first_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "set" / "phone.jpg"
    path.parent.mkdir()
    first, second = Image.new("RGB", (40, 40), (200, 40, 40)), Image.new("RGB", (40, 40), (0, 0, 0))
    first.save(path, format="MPO", save_all=True, append_images=[second])
    assert np.abs(one(tmp_path, path)[:, 16, 16].astype(int) - [200, 40, 40]).max() < 4


# ---------------------------------------------------------------- what cannot be used


def small(root: Path) -> str:
    path = save(root / "b" / "bad.png", (40, 31))
    return (
        f"{path} has 40 x 31 pixels, fewer than the 32 asked for, and an enlarged picture has no details: give a "
        "larger one, or a smaller data.init_args.image_px"
    )


def animated(root: Path) -> str:
    path = root / "b" / "bad.gif"
    frames = [Image.new("L", (40, 40), shade) for shade in (0, 90, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return f"{path} has 3 frames: save the one that is meant"


def truncated(root: Path) -> str:
    path = save(root / "b" / "bad.png")
    path.write_bytes(path.read_bytes()[:700])
    return f"{path} cannot be decoded, it may be truncated or damaged (*)"


def foreign(root: Path) -> str:
    path = root / "b" / "bad.png"
    path.write_text("not an image")
    return f"{path} is not an image of a format that Pillow reads"


@pytest.mark.parametrize("spoil", [small, animated, truncated, foreign])
def test_a_picture_that_cannot_be_used_is_an_error_or_a_counted_skip(
    tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = persons(tmp_path / "set", ["a", "b"])
    reason = spoil(root)
    name = next(path.name for path in (root / "b").iterdir() if path.stem == "bad")
    pattern = re.escape(reason).replace(r"\*", ".*")
    assert re.fullmatch(f"b/{name}: {pattern} {re.escape(SKIP)}", refused(root, fractions=(0.0, 0.0, 1.0)))
    data = made(root, fractions=(0.0, 0.0, 1.0), on_error="skip")
    assert f"b/{name}" not in data.frame["id"].tolist()
    assert len(data.frame) == 4
    skipped = pd.read_csv(data.folder / "skipped.csv")
    assert skipped["item"].tolist() == [f"b/{name}"]
    assert re.fullmatch(pattern, skipped["reason"][0])
    assert "1 image skipped" in caplog.text


def test_a_padded_picture_may_be_narrow(tmp_path: Path) -> None:
    path = save(tmp_path / "set" / "a.png", (40, 20))
    assert "fewer than the 32" in refused(path.parent, fractions=(0.0, 0.0, 1.0))
    assert one(tmp_path, path, fit="pad").shape == (3, 32, 32)


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "notes.txt").write_text("x")
    assert refused(root) == f"no image found for ImageFoldersDataModule under {root} (no image skipped)"
    assert refused(root, group_column="folder") == refused(root)
    assert refused(tmp_path / "none").startswith(f"no folder {tmp_path / 'none'}: ")


def test_one_person_in_two_parts_is_refused_unless_that_is_allowed(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", ["train/ann", "train/bob", "train/cem", "test/ann"])
    options: dict[str, Any] = {"group_column": "folder", "fractions": (0.5, 0.5, 0.0)}
    message = refused(root, **options)
    assert re.fullmatch(
        r"1 folder with 4 images are in several parts of the split \(ann: test/ann/0.png in test, train/ann/0.png in "
        r"(train|val)\), so what is tested on was partly trained on\. Give all images of a folder the same part "
        r"\(without a given split, the random one does\), name another group_column, or accept it with "
        r"--data.init_args.allow_shared_groups true",
        message,
    )
    assert len(made(root, allow_shared_groups=True, **options).frame) == 8
    table = table_of(tmp_path / "table", list("abc"))
    table.assign(split=["train", "test", "train", "train", "val", "val"]).to_csv(tmp_path / "table/t.csv", index=False)
    assert refused(tmp_path / "table", table="t.csv").startswith(
        "1 person with 2 images are in several parts of the split (a: a/0.png in train, a/1.png in test)"
    )


def test_identical_pictures_in_two_parts_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "set"
    for name in ("train/a.png", "train/b.png", "val/c.png", "test/d.png"):
        save(root / name, seed=7 if name in ("train/a.png", "test/d.png") else len(name) + ord(name[-5]))
    made(root)
    assert "2 have the same content as one in another part of the split" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group_column": "person"},
            "group_column is person, which needs a table (data.init_args.table); without one it is folder, or null",
        ),
        (
            {"fractions": (0.9, 0.05, 0.05), "group_column": "folder"},
            "{root}: its 3 folders are too few for shares of [0.9, 0.05, 0.05], none is left for {lost}: give more, or "
            "other data.init_args.fractions",
        ),
        (
            {"fractions": (0.5, 0.5, 0.5)},
            "{root}: split fractions must be at least 0 and sum to 1, got [0.5, 0.5, 0.5]",
        ),
        ({"fold": 5}, "fold must be one of 0 to 4 (folds: 5), got 5"),
        (
            {"fold": 0, "group_column": "folder"},
            "{root}: 3 groups are too few for 5 folds with some to validate and to train on",
        ),
    ],
)
def test_settings_that_do_not_fit_the_folder_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    root = persons(tmp_path / "set", ["a", "b", "c"])
    found = refused(root, **options)
    assert found in {message.format(root=root, lost=part) for part in ("val", "test")}


def test_a_flat_folder_has_no_folders_to_tell_persons_by(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(4):
        save(root / f"{number}.png", seed=number)
    assert refused(root, group_column="folder") == (
        f"{root} has all its images in one folder, so folders do not tell persons apart: set "
        "--data.init_args.group_column null, or move the images of each person into a folder"
    )


def test_images_outside_of_the_folders_of_parts_are_refused(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", ["train/a", "test/b", "more/c"])
    assert refused(root) == (
        f"{root} has folders for test and train, and 2 images outside of these (the first is more/c/0.png): move them, "
        "or list all images in a table with a column `split` (data.init_args.table)"
    )


def test_a_given_split_has_no_folds(tmp_path: Path) -> None:
    root = persons(tmp_path / "set", ["train/a", "test/b"])
    assert refused(root, fold=0) == (
        f"{root} gives the parts of its split, so there are no folds: set data.init_args.fold null"
    )


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            ["a/0.png,x,training", "a/1.png,x,trial"],
            {},
            "{table}, row 3: the split is 'trial', expected one of train, training, val, valid, validation, test, "
            "testing",
        ),
        (["a/0.png,x,train", ",x,train"], {}, "row 3 of {table}: it has no path of an image " + SKIP),
        (["a/0.png,x,train", "a/0.png,x,train"], {}, "row 3 of {table}: its image is also in row 2 " + SKIP),
        (
            ["a/0.png,x,train", "../a.png,x,train"],
            {},
            "row 3 of {table}: '../a.png' leads out of the data's root {root}: give a path within it, or another root "
            + SKIP,
        ),
        (["a/0.png,x,train", "a/9.png,x,test"], {}, "a/9.png: no image file {root}/a/9.png " + SKIP),
        (
            ["a/0.png,x,train"],
            {"image_column": "file"},
            "{table} has no column file (image_column); it has image, id, split",
        ),
        (
            ["a/0.png,x,train"],
            {"group_column": "who"},
            "{table} has no column who (group_column); it has image, id, split",
        ),
        (
            ["a/0.png,x,train"],
            {"group_column": "id"},
            "{table}: a column called id cannot say whose an image is; call it person, or the like",
        ),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, rows: list[str], options: dict[str, Any], message: str) -> None:
    root = persons(tmp_path / "set", ["a", "b"])
    (root / "t.csv").write_text("image,id,split\n" + "\n".join(rows) + "\n")
    assert refused(root, table="t.csv", **options) == message.format(root=root, table=root / "t.csv")


@pytest.mark.realdata
def test_real_sets(real_data: Path, tmp_path: Path) -> None:
    def found(name: str, **kwargs: Any) -> ImageFoldersDataModule:
        return made(real_data / "images" / name, cache_dir=str(tmp_path), **kwargs)

    faces = found("att_faces", group_column="folder", fold=0, image_px=64)
    assert faces.source_channels == 1
    assert Counter(faces.split) == {"train": 280, "val": 40, "test": 80}
    kodak = found("kodak24", fractions=(0.0, 0.0, 1.0))
    assert (kodak.source_channels, Counter(kodak.split)) == (3, {"test": 24})
