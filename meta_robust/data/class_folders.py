"""Few-shot classes as folders of images, with a file that says which classes are base, validation and novel ones."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from meta_robust.data.module import PARTS, FewShotDataModule
from shared.data.image_folders import folders_below, images_of
from shared.data.problems import DataError, Problems
from shared.data.splits import random_split
from shared.data.tables import nearest, read_csv
from shared.runs.settings import read_yaml

log = logging.getLogger(__name__)

# What files of splits call the parts, in any capitals and with or without an ending such as .json.
NAMES = {
    "base": "base", "train": "base", "training": "base", "background": "base",
    "validation": "validation", "val": "validation", "valid": "validation",
    "novel": "novel", "test": "novel", "testing": "novel", "evaluation": "novel",
}  # fmt: skip
CLASS_COLUMNS = ("class", "label", "fine_label", "class_name", "name")
SPLIT_COLUMNS = ("split", "part", "cifarfs_split", "subset")


class ClassFoldersDataModule(FewShotDataModule):
    """Any folder of class folders: CIFAR-FS, CUB, SUN Attribute, or a user's own photographs.

    Args:
        root: Folder of the data set.
        images: Folder below the root that holds the class folders.
        split: File below the root that says which part each class belongs to: a CSV with a column of classes and one of
            parts, or a JSON or YAML file with a list of classes for each part. `every_other` takes the sorted class
            folders in turn, as CloserLook does for CUB: 0 and 2 of every four are base, 1 validation, 3 novel. None
            draws the parts at random.
        fractions: Shares of base, validation and novel classes where the parts are drawn.
        nested: Whether class folders lie at any depth, as in SUN; a class is then every folder that holds images, and
            its name the path below `images`.
        **kwargs: Further arguments of `FewShotDataModule`.
    """

    name = "class_folders"

    def __init__(
        self,
        root: str,
        images: str = "images",
        split: str | None = None,
        fractions: tuple[float, float, float] = (0.64, 0.16, 0.2),
        nested: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.images, self.split_file, self.fractions, self.nested = images, split, fractions, nested

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row an image, by class and file name."""
        folders = class_folders(self.root / self.images, self.nested)
        parts = self._parts(list(folders))
        rows = []
        for name, folder in folders.items():
            if name not in parts:
                continue
            files, others = images_of(folder)
            if others:
                log.info(
                    "%s: %d files that are no images are ignored (the first is %s)", folder, len(others), others[0]
                )
            if not files:
                problems.add(name, f"the class folder {folder} holds no image")
            rows += [(f"{name}/{file.name}", parts[name], name, str(file)) for file in files]
        if left_out := len(folders) - len(parts):
            log.info("%s: %d class folders are in no part of %s and left out", self.root, left_out, self.split_file)
        return pd.DataFrame(rows, columns=["id", "split", "class", "path"])

    def _parts(self, classes: list[str]) -> dict[str, str]:
        """The part of each class."""
        if self.split_file is None:
            drawn = random_split(classes, [""] * len(classes), self.fractions, seed=0)
            log.info(
                "%s: the parts of its %d classes are drawn (--data.init_args.split names a file)",
                self.root,
                len(classes),
            )
            return {name: PARTS[part] for name, part in zip(classes, drawn, strict=True)}
        if self.split_file == "every_other":
            every_four = ("base", "validation", "base", "novel")
            return {name: every_four[place % 4] for place, name in enumerate(classes)}
        path = self.root / self.split_file
        parts = read_split(path)
        if absent := [name for name in parts if name not in classes]:
            raise DataError(
                f"{path} names {len(absent)} classes without a folder in {self.root / self.images} (the first is "
                f"{absent[0]}){nearest(absent[0], classes)}"
            )
        return parts


def class_folders(folder: Path, nested: bool = False) -> dict[str, Path]:
    """Class folders by name, sorted by name whatever the file system's order; hidden ones are left out.

    Args:
        folder: The folder that holds them.
        nested: Whether they lie at any depth; a class is then every folder that holds images.

    Raises:
        DataError: There is no such folder, no class in it, or two whose names differ in capitals alone.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected one folder of images for each class in it")
    below = {path.relative_to(folder).as_posix(): path for path in folders_below(folder, nested)}
    found = {name: path for name, path in below.items() if not nested or images_of(path)[0]}
    if not found:
        raise DataError(f"{folder} holds no class folders: expected one folder of images for each class")
    seen: dict[str, str] = {}
    for name in found:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(f"{folder}: the classes {other} and {name} differ in capitals alone; are they the same?")
    return found


def read_split(path: Path) -> dict[str, str]:
    """The part of each class, from a CSV with a column each, or a JSON or YAML file with a list for each part.

    A class of a JSON file may be a path such as `["fish", "shark"]`, whose last name is the class.

    Raises:
        DataError: There is no such file, it has another form, it names a part that is not known, or it puts a class
            into two parts.
    """
    pairs = _of_table(path) if path.suffix.lower() == ".csv" else _of_lists(path)
    parts: dict[str, str] = {}
    for name, part in pairs:
        word = part.strip().lower().removesuffix(".json")
        if word not in NAMES:
            raise DataError(f"{path}: the part of {name} is {part!r}; known are {', '.join(NAMES)}")
        if parts.setdefault(name, NAMES[word]) != NAMES[word]:
            raise DataError(f"{path}: the class {name} is in two parts, {parts[name]} and {NAMES[word]}")
    return parts


def _of_table(path: Path) -> Iterator[tuple[str, str]]:
    table = read_csv(path, dtype=str, keep_default_na=False)
    columns = [next((each for each in usual if each in table), "") for usual in (CLASS_COLUMNS, SPLIT_COLUMNS)]
    if "" in columns:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table))}; expected one of the classes "
            f"({', '.join(CLASS_COLUMNS)}) and one of their parts ({', '.join(SPLIT_COLUMNS)})"
        )
    yield from table[columns].itertuples(index=False, name=None)


def _of_lists(path: Path) -> Iterator[tuple[str, str]]:
    content = read_yaml(path)  # of which JSON is a subset
    if not all(isinstance(names, list) for names in content.values()):
        raise DataError(f"{path}: expected a list of classes for each part, such as base: [cat, dog]")
    for part, names in content.items():
        for name in names:
            yield (str(name[-1]) if isinstance(name, list) else str(name)), str(part)
