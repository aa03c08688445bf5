"""Tasks: a function of seed and number alone, with the same queries for any shots; and the errors of bad input."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from meta_robust.data.class_folders import ClassFoldersDataModule, read_split
from meta_robust.data.episodes import Ordered, TaskShape, check_enough, disjoint_tasks, draw_task, task_rng
from meta_robust.data.module import check_new_classes
from meta_robust.data.omniglot import OmniglotDataModule
from meta_robust.data.synthetic import write_synthetic
from meta_robust.evaluation.models import confusions
from shared.data.problems import DataError, OnError

CLASSES = [np.arange(20 * k, 20 * k + 20) for k in range(8)]


def test_a_task_depends_on_seed_and_number_alone_and_has_no_image_twice() -> None:
    one, again, other = (draw_task([CLASSES], TaskShape(), task_rng(3, 0, number)) for number in (5, 5, 6))
    assert np.array_equal(one.support, again.support)
    assert one.seed == again.seed != other.seed
    rows = np.concatenate([one.support, one.query], 1)
    assert len(np.unique(rows)) == rows.size
    assert (rows // 20 == rows[:, :1] // 20).all()


def test_confusions_are_shares_of_the_tasks_that_hold_both_classes() -> None:
    names = np.array(["ant", "bee", "cat"], object).repeat(4)
    label = np.array([0, 1, 0, 1])
    query = np.array([[0, 4, 1, 5], [0, 4, 1, 5], [0, 8, 1, 9]])
    tested = Ordered(np.array([[2, 6], [2, 6], [2, 10]]), query, np.array([0, 1]), label)
    found = confusions(tested, np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 1]]), names)
    assert found.to_dict() == {
        "ant as cat": 1.0, "cat as ant": 0.5, "ant as bee": 0.25, "bee as ant": 0.0
    }  # fmt: skip


def test_tasks_of_more_shots_have_the_same_queries() -> None:
    few, many = (draw_task([CLASSES], TaskShape(shots=shots), task_rng(0, 2, 1)) for shots in (1, 5))
    assert np.array_equal(few.query, many.query)
    assert np.array_equal(few.support[:, 0], many.support[:, 0])


def test_disjoint_tasks_use_no_image_twice() -> None:
    tasks = disjoint_tasks(CLASSES, TaskShape(4, 1, 4), task_rng(0, 2))
    rows = np.concatenate([np.concatenate([task.support, task.query], 1).ravel() for task in tasks])
    assert len(tasks) == 8
    assert len(np.unique(rows)) == len(rows)


def test_too_small_classes_are_named_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"class owl has 20 images, but tasks of 5 shots and 16 queries need 21"):
        check_enough({"cat": np.arange(30), "owl": np.arange(20)}, TaskShape(2, 5, 16), "novel")
    with pytest.raises(DataError, match="5-way tasks need 5 novel classes, there are 2"):
        check_enough({"cat": np.arange(30), "owl": np.arange(20)}, TaskShape(), "novel")


def test_classes_that_were_trained_on_are_refused_in_any_capitals() -> None:
    with pytest.raises(DataError, match=r"1 of the classes .* \(the first is OWL\)"):
        check_new_classes(["owl", "cat"], ["dog", "OWL"], "run")


def test_splits_are_read_from_a_table_or_lists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("fine_label,cifarfs_split\r\ncat,train\r\ndog,val\r\nowl,test\r\n")
    (tmp_path / "b.json").write_text('{"train.json": [["pets", "cat"]], "val.json": ["dog"], "test.json": ["owl"]}')
    for name in ("a.csv", "b.json"):
        assert read_split(tmp_path / name) == {"cat": "base", "dog": "validation", "owl": "novel"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class,split\ncat,base\ncat,novel\n", "the class cat is in two parts, base and novel"),
        ("class,split\ncat,mine\n", "the part of cat is 'mine'; known are base"),
        ("animal,split\ncat,base\n", "expected one of the classes"),
    ],
)
def test_a_wrong_split_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_split(tmp_path / "split.csv")


def test_class_folders_ignore_foreign_and_name_empty_and_absent_ones(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "set", base=5, validation=2, novel=2, per_class=3)
    root = tmp_path / "set"
    (root / "images" / "base_00" / "notes.txt").write_text("x")
    (root / "images" / "base_00" / ".hidden.png").write_text("x")
    (root / "images" / ".cache").mkdir()

    def data() -> ClassFoldersDataModule:
        made = ClassFoldersDataModule(str(root), split="classes.csv", image_px=24, cache_dir=str(tmp_path / "cache"))
        made.prepare_data()
        made.setup()
        return made

    assert data().frame["class"].value_counts().to_dict()["base_00"] == 3
    (root / "images" / "base_09").mkdir()
    (root / "classes.csv").write_text((root / "classes.csv").read_text() + "base_09,base\n")
    with pytest.raises(DataError, match=r"base_09: the class folder .* holds no image"):
        data()
    (root / "images" / "base_09").rmdir()
    with pytest.raises(DataError, match=r"1 classes without a folder .* is base_09"):
        data()


@pytest.mark.parametrize(
    ("name", "mode"), [("grey.png", "L"), ("alpha.png", "RGBA"), ("deep.png", "I;16"), ("print.jpg", "CMYK")]
)
def test_images_of_other_kinds_are_read_as_three_channels(tmp_path: Path, name: str, mode: str) -> None:
    write_synthetic(tmp_path / "set", base=1, validation=1, novel=1, per_class=2)
    Image.new(mode, (30, 24)).save(tmp_path / "set" / "images" / "base_00" / name)
    data = ClassFoldersDataModule(str(tmp_path / "set"), split="classes.csv", image_px=24, cache_dir=str(tmp_path))
    data.prepare_data()
    data.setup()
    (row,) = np.flatnonzero(data.frame["id"] == f"base_00/{name}")
    assert data.cached(np.array([row])).shape == (1, 3, 24, 24)


def test_an_image_that_cannot_be_read_is_named_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_synthetic(tmp_path / "set", base=1, validation=1, novel=1, per_class=3)
    (tmp_path / "set" / "images" / "base_00" / "01.png").write_text("not an image")

    def data(on_error: OnError) -> ClassFoldersDataModule:
        made = ClassFoldersDataModule(
            str(tmp_path / "set"), split="classes.csv", image_px=24, on_error=on_error, cache_dir=str(tmp_path)
        )
        made.prepare_data()
        made.setup()
        return made

    with pytest.raises(DataError, match=r"base_00/01\.png"):
        data("raise")
    assert data("skip").frame["class"].value_counts().to_dict()["base_00"] == 2
    assert "base_00/01.png" in caplog.text


@pytest.mark.realdata
def test_real_sets_have_the_published_parts(real_data: Path, tmp_path: Path) -> None:
    cifar = ClassFoldersDataModule(
        str(real_data / "cifar100_subset"), split="classes.csv", image_px=32, cache_dir=str(tmp_path)
    )
    omniglot = OmniglotDataModule(str(real_data / "omniglot"), image_px=16, cache_dir=str(tmp_path))
    found = []
    for data in (cifar, omniglot):
        data.prepare_data()
        data.setup()
        found.append({part: len(data.classes[part]) for part in data.splits})
    assert found == [
        {"base": 64, "validation": 16, "novel": 20},
        {"base": 964, "validation": 124, "novel": 535},
    ]


def test_groups_are_classes_or_what_stands_before_their_slash(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "set", base=24, validation=5, novel=5, per_class=4)
    parts = {"base": [f"base_{number:02d}" for number in range(24)], "validation": ["validation_00"], "novel": []}
    (tmp_path / "set" / "parts.yaml").write_text(yaml.safe_dump(parts))

    def module(groups: dict[str, list[str]]) -> ClassFoldersDataModule:
        (tmp_path / "groups.yaml").write_text(yaml.safe_dump(groups))
        data = ClassFoldersDataModule(
            str(tmp_path / "set"), split="parts.yaml", image_px=24, groups=str(tmp_path / "groups.yaml"),
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
        data.shape = TaskShape(5, 1, 3)
        data.prepare_data()
        data.setup("fit")
        return data

    names = parts["base"]
    data = module({"a": names[:10], "b": names[10:21]})
    assert [len(group) for group in data.class_groups] == [10, 11]
    for batch, _ in zip(data.train_dataloader(), range(5), strict=False):
        rows = batch.query_row.reshape(len(batch.group), -1)
        for group, own in zip(batch.group.tolist(), rows, strict=True):
            numbers = {names.index(data.class_names[row]) for row in own.tolist()}
            assert numbers <= set(range(10) if group == 0 else range(10, 21))
    with pytest.raises(DataError, match="a group has 9 classes; tasks of 5 ways need twice as many"):
        module({"a": names[:9], "b": names[9:21]}).train_dataloader()
    with pytest.raises(DataError, match="names classes that are not base classes: owl"):
        module({"a": [*names[:10], "owl"], "b": names[10:]}).train_dataloader()
