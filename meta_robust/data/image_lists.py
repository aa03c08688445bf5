"""Few-shot classes as lists of image files: one CSV for each part of the classes, as miniImageNet is published."""

from typing import Any

import pandas as pd

from meta_robust.data.module import PARTS, FewShotDataModule
from shared.data.problems import DataError, Problems
from shared.data.tables import read_csv


class ImageListsDataModule(FewShotDataModule):
    """Images in one folder, and three CSVs with the columns `filename` and `label` (Ravi and Larochelle 2017).

    Args:
        root: Folder of the data set.
        images: Folder below the root that holds the images.
        lists: Files below the root: of base, validation and novel classes; `.csv`, or compressed `.csv.gz`.
        **kwargs: Further arguments of `FewShotDataModule`.
    """

    name = "image_lists"

    def __init__(
        self,
        root: str,
        images: str = "images",
        lists: tuple[str, str, str] = ("train.csv", "val.csv", "test.csv"),
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.images, self.lists = images, lists

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row an image, by class and file name.

        Raises:
            DataError: A list is missing or lacks a column, or a class is in two of them.
        """
        rows: list[pd.DataFrame] = []
        seen: dict[str, str] = {}
        for part, name in zip(PARTS, self.lists, strict=True):
            table = read_csv(self.root / name, ["filename", "label"], dtype=str)
            for label in table["label"].unique():
                if seen.setdefault(label, name) != name:
                    raise DataError(f"the class {label} is in {seen[label]} and in {name} of {self.root}")
            ids = table["label"] + "/" + table["filename"]
            paths = [str(self.root / self.images / file) for file in table["filename"]]
            rows.append(pd.DataFrame({"id": ids, "split": part, "class": table["label"], "path": paths}))
        return pd.concat(rows, ignore_index=True).sort_values(["class", "id"], ignore_index=True)
