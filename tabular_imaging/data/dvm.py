"""DVM-car, from its published files to one table with one row per advert (paper, section 4.1), and its data module.

The steps follow the paper and the authors' notebook: add the price of the model when new, choose one picture per
advert, read the engine size as a number, repair and jitter sizes, drop rows with missing values and rare models, and
make a stratified split.
"""

import random
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from shared.data.problems import DataError, Problems
from shared.data.splits import SPLITS, SplitVersion, group_split
from tabular_imaging.data.dvm_tables import (
    CATEGORICAL,
    CONTINUOUS,
    FEATURES,
    MORPHOMETRIC,
    SIZES,
    TARGET,
    find_images,
    read_adverts,
    read_images,
    read_prices,
)
from tabular_imaging.data.module import TabularImagingDataModule
from tabular_imaging.data.schema import ColumnTypes

# Manual corrections in the authors' notebook: model, size, the wrong value (None: whatever is there), the right one.
FIXES: tuple[tuple[str, str, int | None, int], ...] = (
    ("69_36", "Wheelbase", None, 2612),
    ("29_20", "Wheelbase", None, 2788),
    ("29_30", "Height", 805, 1805),
    ("59_29", "Wheelbase", 5246, 3106),
    ("43_9", "Wheelbase", 4065, 2580),
)

FRACTIONS = (0.4, 0.1, 0.5)  # of train, val and test (section 4.1)


def fix_sizes(adverts: pd.DataFrame) -> pd.DataFrame:
    """`adverts` with the manual corrections (`FIXES`) of the sizes that it has."""
    adverts = adverts.copy()
    for model, size, wrong, right in FIXES:
        if size in adverts:
            rows = (adverts[TARGET] == model) & (adverts[size].eq(wrong) if wrong is not None else True)
            adverts.loc[rows, size] = float(right)
    return adverts


def fill_sizes(adverts: pd.DataFrame) -> pd.DataFrame:
    """`adverts` with each zero or missing size replaced by the model's first size in the table, if it has one."""
    adverts = adverts.copy()
    for size in SIZES:
        known = adverts[size].where(adverts[size] > 0)
        adverts[size] = known.fillna(known.groupby(adverts[TARGET]).transform("first"))
    return adverts


def jitter_sizes(adverts: pd.DataFrame, jitter_mm: int = 50, seed: int = 2022) -> pd.DataFrame:
    """`adverts` with a random whole number from [-jitter_mm, jitter_mm] added to each size.

    The authors do this so that sizes are not just labels of the models. The draws are the same as theirs: from Python's
    generator, size by size, down the published table. So pass the whole table in its own order: an advert's jitter
    depends on its row there, and not on anything that is dropped later.
    """
    adverts = adverts.copy()
    draws = random.Random(seed)
    for size in SIZES:
        adverts[size] += [draws.randint(-jitter_mm, jitter_mm) for _ in range(len(adverts))]
    return adverts


def read_splits(folder: Path) -> dict[str, str]:
    """The split of every advert, from lists of advert ids, as the authors publish them.

    Args:
        folder: Folder with one file per split, named `train*`, `val*` and `test*`, as .txt or .csv (ids with any
            separators) or .npy (an array of strings). The authors' `.pt` lists are pickles, which could run code, so
            they are not read.

    Raises:
        DataError: A split does not have exactly one file, a file cannot be read or has no id, or an id is in two lists.
    """
    splits: dict[str, str] = {}
    for split in SPLITS:
        suffixes = (".txt", ".csv", ".npy")
        found = sorted(path for path in folder.glob(f"{split}*") if path.suffix in suffixes)
        if len(found) != 1:
            raise DataError(
                f"{folder}: expected one list {split}*.txt, .csv or .npy of advert ids,"
                f" found {', '.join(path.name for path in found) or 'none'}"
                " (a .pt list is a pickle and is not read; save it as text first)"
            )
        try:
            if found[0].suffix == ".npy":
                ids = np.load(found[0], allow_pickle=False).astype(str).ravel().tolist()
            else:
                ids = re.findall(r"[^\s,;'\"\[\]]+\$\$[^\s,;'\"\[\]]+", found[0].read_text(encoding="utf-8-sig"))
        except (ValueError, OSError) as error:
            raise DataError(f"{found[0]} cannot be read as a list of advert ids ({error})") from error
        if not ids:
            raise DataError(f"{found[0]} has no advert id such as 29_4$$361 in it")
        both = splits.keys() & set(ids)
        if both:
            first = min(both)
            raise DataError(f"{found[0]}: advert {first} is in the list {splits[first]} too ({len(both)} such adverts)")
        splits.update(dict.fromkeys(ids, split))
    return splits


def _random_split(frame: pd.DataFrame, seed: int, version: SplitVersion) -> pd.Series:
    models = frame[TARGET]
    if version > 1:
        parts = group_split(frame["Adv_ID"].tolist(), models.tolist(), FRACTIONS, seed)
        return pd.Series(np.array(SPLITS, dtype=object)[parts], index=frame.index)
    # Codes by first appearance, as in the authors' code: a stratified split depends on the order of the classes.
    codes, rows = pd.factorize(models)[0], np.arange(len(models))
    try:
        rest, test = train_test_split(rows, test_size=0.5, stratify=codes, random_state=seed)
        _, val = train_test_split(rest, test_size=0.2, stratify=codes[rest], random_state=seed)
    except ValueError as error:
        raise DataError(
            f"{len(models)} adverts of {models.nunique()} models cannot be split 40/10/50 by model ({error});"
            " raise min_per_class"
        ) from error
    split = pd.Series("train", index=models.index)
    split.iloc[test], split.iloc[val] = "test", "val"
    return split


def dvm_frame(
    root: Path | str,
    seed: int = 2022,
    image: Literal["first", "random"] = "first",
    min_per_class: int = 100,
    splits: Path | str | None = None,
    jitter_mm: int = 50,
    split_version: SplitVersion = 1,
) -> pd.DataFrame:
    """The data set of the paper: one row per advert, with its picture, split, 17 features and model (section 4.1).

    With the published files, the defaults are meant to give the authors' 70,565 / 17,642 / 88,207 adverts of 286
    models. There is one departure: in their code the labels have another order than the adverts when the validation
    part is drawn, so it is not stratified; here it is. Their own lists (`splits`) reproduce their parts.

    Args:
        root: Folder that holds the data set.
        seed: Seed of the jitter, the split and random pictures (the authors' code: 2022).
        image: Which picture of an advert is used: `first` (the authors' code) or `random` (the paper).
        min_per_class: Smallest number of adverts per model; models with fewer are dropped.
        splits: Folder with the authors' lists of advert ids (see `read_splits`); adverts in no list are dropped.
        jitter_mm: Largest jitter of the sizes in mm: a random whole number up to this, plus or minus, is added.
        split_version: 1 draws the split as the authors do, which depends on the order of the published table; 2 draws
            it by the rule of the other data sets, see `shared.data.splits.group_split`.

    Returns:
        `id` (Adv_ID), `image` (path relative to `root`, which need not exist), `split` (train, val or test), the
        `FEATURES` under their published names, and `Genmodel_ID`, the target. `attrs["steps"]` lists each step with
        the number of adverts left after it.

    Raises:
        DataError: A file, column or folder is missing, a value is not a number, an advert is duplicated, or no advert
            is left.
    """
    root = Path(root)
    adverts = read_adverts(root)
    steps = [("adverts in Ad_table (extra)", len(adverts))]

    def step(name: str, frame: pd.DataFrame) -> pd.DataFrame:
        steps.append((name, len(frame)))
        if frame.empty:
            done = ", ".join(f"{text}: {count}" for text, count in steps)
            raise DataError(f"{root}: no advert is left ({done}); do the tables belong together?")
        return frame

    adverts = jitter_sizes(fill_sizes(fix_sizes(adverts)), jitter_mm, seed)
    prices = read_prices(root).rename(columns={"Year": "Reg_year"})
    frame = step("with an entry price", adverts.merge(prices, on=[TARGET, "Reg_year"]))
    frame = step("with a picture", frame.merge(read_images(root, image, seed), on="Adv_ID"))
    frame = step("without a missing value", frame.dropna(subset=[*FEATURES, TARGET]))
    counts = frame.groupby(TARGET)[TARGET].transform("size")
    frame = step(f"of a model with at least {min_per_class}", frame[counts >= min_per_class])
    if splits is None:
        split = _random_split(frame, seed, split_version)
    else:
        split = frame["Adv_ID"].map(read_splits(Path(splits)))
        frame = step(f"in a list of {splits}", frame[split.notna()])
    frame = frame.assign(
        id=frame["Adv_ID"],
        split=split,
        image=find_images(root, frame["path"].tolist()) + "/" + frame["path"],
    )
    frame = frame[["id", "image", "split", *FEATURES, TARGET]].reset_index(drop=True)
    frame.attrs["steps"] = steps + [(name, int((frame["split"] == name).sum())) for name in SPLITS]
    return frame


class DVMCarDataModule(TabularImagingDataModule):
    """DVM-car: 286 car models from a picture and the advert (paper, section 4.1). See `dvm_frame`.

    Args:
        root: Folder with the published tables and images.
        image: Which picture of an advert is used: its first, as in the authors' code, or a random one, as in the paper.
        min_per_class: Smallest number of adverts per model; models with fewer are dropped (section 4.1: 100).
        splits: Folder with the authors' lists of advert ids, if you have them; see `read_splits`.
        split_seed: Seed of the split, of the jitter of the sizes, and of random pictures (the authors' code: 2022).
        split_version: 1 draws the split as the authors do, 2 whatever the order of the table; see `dvm_frame`.
        **kwargs: Further arguments of `TabularImagingDataModule`.
    """

    name = "dvm"
    target_column = TARGET

    def __init__(
        self,
        root: str,
        image: Literal["first", "random"] = "first",
        min_per_class: int = 100,
        splits: str | None = None,
        split_seed: int = 2022,
        split_version: SplitVersion = 1,
        **kwargs: Any,
    ) -> None:
        columns = ColumnTypes(
            continuous=list(CONTINUOUS), categorical=list(CATEGORICAL), morphometric=list(MORPHOMETRIC)
        )
        super().__init__(root, columns=columns, **kwargs)
        self.image = image
        self.min_per_class = min_per_class
        self.split_lists = Path(splits) if splits else None
        self.split_seed = split_seed
        self.split_version: SplitVersion = split_version

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """The adverts that are left after all steps."""
        frame = dvm_frame(
            self.root,
            self.split_seed,
            self.image,
            self.min_per_class,
            self.split_lists,
            split_version=self.split_version,
        )
        return frame.assign(image=[str(self.root / path) for path in frame["image"]])
