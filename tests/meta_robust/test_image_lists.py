"""Layouts of published sets: lists of image files, class folders at any depth, CloserLook's split."""

from pathlib import Path

import pytest
from PIL import Image

from meta_robust.data.class_folders import ClassFoldersDataModule
from meta_robust.data.image_lists import ImageListsDataModule
from shared.data.problems import DataError

LISTS = {"train.csv": ["n01", "n02"], "val.csv": ["n03"], "test.csv": ["n04"]}


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), "red").save(path)


def lists(root: Path) -> None:
    for name, classes in LISTS.items():
        files = [(f"{label}{number}.jpg", label) for label in classes for number in range(3)]
        for file, _ in files:
            save(root / "images" / file)
        (root / name).write_text("filename,label\n" + "".join(f"{file},{label}\n" for file, label in files))


def test_lists_of_files_say_the_parts_and_classes(tmp_path: Path) -> None:
    lists(tmp_path)
    data = ImageListsDataModule(str(tmp_path), image_px=8, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup("fit")
    assert {part: sorted(classes) for part, classes in data.classes.items()} == {
        "base": ["n01", "n02"], "validation": ["n03"], "novel": ["n04"],
    }  # fmt: skip
    assert [len(rows) for rows in data.classes["base"].values()] == [3, 3]
    assert data.cached(data.classes["novel"]["n04"]).shape == (3, 3, 8, 8)


def test_a_class_in_two_lists_is_an_error(tmp_path: Path) -> None:
    lists(tmp_path)
    (tmp_path / "val.csv").write_text("filename,label\nn010.jpg,n01\n")
    data = ImageListsDataModule(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"the class n01 is in train\.csv and in val\.csv"):
        data.prepare_data()


def test_class_folders_may_lie_at_any_depth(tmp_path: Path) -> None:
    classes = ["a/abbey", "b/bakery/shop", "b/bakery/kitchen", "c/cafe"]
    for name in classes:
        save(tmp_path / "images" / name / "1.jpg")
    (tmp_path / "images" / "a" / ".hidden").mkdir()
    (tmp_path / "split.json").write_text(
        '{"base": ["a/abbey", "b/bakery/shop"], "val": ["b/bakery/kitchen"], "test": ["c/cafe"]}'
    )
    data = ClassFoldersDataModule(
        str(tmp_path), split="split.json", nested=True, image_px=8, cache_dir=str(tmp_path / "cache")
    )
    data.prepare_data()
    data.setup("fit")
    assert data.base_classes == ["a/abbey", "b/bakery/shop"]
    assert sorted(data.class_names) == sorted(classes)


def test_every_second_class_is_base_as_for_cub(tmp_path: Path) -> None:
    names = [f"{number:03d}.bird" for number in range(1, 9)]
    for name in names:
        save(tmp_path / "images" / name / "1.jpg")
    data = ClassFoldersDataModule(str(tmp_path), split="every_other", image_px=8, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup("fit")
    assert data.base_classes == names[::2]
    assert list(data.classes["validation"]) == [names[1], names[5]]
    assert list(data.classes["novel"]) == [names[3], names[7]]
