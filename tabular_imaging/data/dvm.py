"""DVM-car from its published files to one table, a row an advert (paper, section 4.1).

DVM-CAR (Huang et al., IEEE Big Data 2021; CC BY-NC 4.0) has car adverts with pictures. The steps follow
the paper and the authors' notebook: price of the model when new, one picture an advert, engine size as a
number, sizes repaired and jittered, rows with missing values and rare models dropped, a stratified split.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from shared.data.images import Fit
from shared.data.problems import DataError, OnError, Problems
from tabular_imaging.data.module import Metric, TabularImagingDataModule
from tabular_imaging.data.schema import ColumnTypes

SIZES = ("Wheelbase", "Length", "Width", "Height")  # mm; in the order in which the authors' code jitters them
CONTINUOUS = (
    "Wheelbase", "Height", "Width", "Length", "Adv_year", "Adv_month", "Reg_year", "Runned_Miles", "Price",
    "Seat_num", "Door_num", "Entry_price", "Engin_size",
)  # fmt: skip
CATEGORICAL = ("Color", "Bodytype", "Gearbox", "Fuel_type")
FEATURES = CONTINUOUS + CATEGORICAL
MORPHOMETRIC = ("Wheelbase", "Height", "Width", "Length", "Bodytype")
TARGET = "Genmodel_ID"

# Corrections by hand in the authors' notebook: model, size, the wrong value (None: whatever is there), the right one.
FIXES: tuple[tuple[str, str, int | None, int], ...] = (
    ("69_36", "Wheelbase", None, 2612),
    ("29_20", "Wheelbase", None, 2788),
    ("29_30", "Height", 805, 1805),
    ("59_29", "Wheelbase", 5246, 3106),
    ("43_9", "Wheelbase", 4065, 2580),
)
# Columns where the published table writes words for unknown ("Uknown", "1 mile"); as in the authors' code, missing.
WORDS_ALLOWED = ("Runned_Miles", "Price")

GET_IT = (
    "DVM-CAR is on figshare (search for DVM-CAR; licence CC BY-NC 4.0): unpack its tables and its resized pictures"
    " so that {root} holds the folders tables_V2.0 and resized_DVM_v2"
)
TABLE_FOLDERS = ("tables_V2.0", ".")
IMAGE_FOLDERS = ("resized_DVM_v2", "resized_DVM", "resized_DVM_clean")


@dataclass(frozen=True)
class PublishedTable:
    """One of the published tables: the spellings of its file name, the columns read, and what it is there for."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    provides: str


ADVERTS = PublishedTable(
    ("Ad_table (extra).csv", "Ad_table_extra.csv"),
    ("Genmodel_ID", "Adv_ID", *(name for name in FEATURES if name != "Entry_price")),
    "the adverts: 16 of the 17 features, the sizes among them",
)
PRICES = PublishedTable(
    ("Price_table.csv",), ("Genmodel_ID", "Year", "Entry_price"), "Entry_price of a model when new, by year"
)
IMAGES = PublishedTable(("Image_table.csv",), ("Image_ID", "Image_name"), "which pictures belong to an advert")


def find_table(root: Path, table: PublishedTable) -> Path | None:
    """The file of a published table, in `tables_V2.0` or directly in the root; None if it is in neither."""
    paths = (root / folder / name for folder in TABLE_FOLDERS for name in table.names)
    return next((path for path in paths if path.is_file()), None)


def read_table(path: Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """The named columns of a published table (none named: all) as text.

    The published headers have spaces around some names, and copies of them a byte-order mark before the first.

    Raises:
        DataError: The file is no CSV in UTF-8, or a column is missing.
    """
    try:
        header = pd.read_csv(path, nrows=0).columns  # pandas drops a byte-order mark; one encoded twice, we do
        found = {str(name).strip().removeprefix("ï»¿"): str(name) for name in header}
        missing = [name for name in columns if name not in found]
        if missing:
            raise DataError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(found)}")
        wanted = [found[name] for name in columns] or list(found.values())
        table = pd.read_csv(path, dtype=str, usecols=wanted)
    except DataError:
        raise
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path} cannot be read as CSV ({error})") from error
    table = table.rename(columns={raw: name for name, raw in found.items()})
    for name in table:
        table[name] = table[name].str.strip()
    return table


def _read_needed(root: Path, table: PublishedTable) -> tuple[Path, pd.DataFrame]:
    path = find_table(root, table)
    if path is None:
        looked = " or ".join(str(root / folder / table.names[0]) for folder in TABLE_FOLDERS)
        raise DataError(f"{looked} is missing, with {table.provides}. {GET_IT.format(root=root)}")
    return path, read_table(path, table.columns)


def _numbers(path: Path, table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """`table` with these columns as float64; a word in another column than WORDS_ALLOWED is an error."""
    table = table.copy()
    for column in columns:
        text = table[column]
        values = pd.to_numeric(text, errors="coerce").astype("float64")
        bad = values.isna() & text.notna()
        if bad.any() and column not in WORDS_ALLOWED:
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"{path}, line {row + 2}, column {column}: {text.iloc[row]!r} is not a number")
        table[column] = values
    return table


def read_adverts(root: Path | str) -> pd.DataFrame:
    """The published adverts, in the table's order, numbers as float64 and engine size without its "L".

    Args:
        root: Folder of the data set.

    Returns:
        `Genmodel_ID`, `Adv_ID` and every feature but `Entry_price`; sizes in mm, `Engin_size` in litres. Missing
        values are NaN, also where the published table has "Uknown" for a price or "1 mile" for the miles.

    Raises:
        DataError: A missing file or column, a value that is no number (file, line, column), or an advert twice.
    """
    path, table = _read_needed(Path(root), ADVERTS)
    twice = table["Adv_ID"].duplicated() | table["Adv_ID"].isna()
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise DataError(
            f"{path}, line {row + 2}: Adv_ID {table['Adv_ID'].iloc[row]} is missing or there before"
            f" ({int(twice.sum())} such rows); every advert must have its own"
        )
    table["Engin_size"] = table["Engin_size"].str.removesuffix("L")
    return _numbers(path, table, tuple(name for name in CONTINUOUS if name in table))


def fix_sizes(adverts: pd.DataFrame) -> pd.DataFrame:
    """`adverts` with the corrections by hand applied (`FIXES`), of those sizes that it has."""
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

    The authors do this so that sizes are not just labels of the models. The draws are theirs too: Python's
    generator, size after size, down the published table. So pass the whole table in its own order: an advert's
    jitter hangs on its row there, and on nothing that is dropped later.
    """
    adverts = adverts.copy()
    draws = random.Random(seed)
    for size in SIZES:
        adverts[size] += [draws.randint(-jitter_mm, jitter_mm) for _ in range(len(adverts))]
    return adverts


def read_prices(root: Path | str) -> pd.DataFrame:
    """`Genmodel_ID`, `Year`, `Entry_price`: a model's price when new, in pounds.

    Raises:
        DataError: A missing file or column, a value that is no number, or two prices of a model in one year.
    """
    path, table = _read_needed(Path(root), PRICES)
    prices = _numbers(path, table, ("Year", "Entry_price"))
    twice = prices.duplicated([TARGET, "Year"])
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        model, year = prices[TARGET].iloc[row], prices["Year"].iloc[row]
        raise DataError(f"{path}, line {row + 2}: a second entry price of model {model} in {year:.0f}")
    return prices


def read_images(root: Path | str, image: Literal["first", "random"] = "first", seed: int = 2022) -> pd.DataFrame:
    """One picture an advert: `Adv_ID` and `path`, `<Maker>/<Genmodel>/<Year>/<Color>/<Image_name>`.

    Args:
        root: Folder of the data set.
        image: The first picture of the advert in `Image_table.csv` (the authors' code) or a random one (the paper).
        seed: Of the random choice.

    Raises:
        DataError: A missing file or column, or a name that does not follow the pattern.
    """
    path, table = _read_needed(Path(root), IMAGES)
    # Seven parts in the published names, of which the first four are folders; none may lead out of the root.
    good = table["Image_name"].str.fullmatch(r"(?!\.\.?\$\$)[^$/\\]+(\$\$(?!\.\.?\$\$)[^$/\\]+){6}").eq(True)
    good &= table["Image_ID"].str.count(r"\$\$").ge(2)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"{path}, line {row + 2}: Image_ID {table['Image_ID'].iloc[row]} and Image_name"
            f" {table['Image_name'].iloc[row]} must look like 2_1$$10$$1 and"
            " Maker$$Genmodel$$Year$$Color$$Genmodel_ID$$Advert$$image_1.jpg"
        )
    if image == "random":
        table = table.sample(frac=1, random_state=seed)
    advert = table["Image_ID"].str.replace(r"^([^$]+\$\$[^$]+)\$\$.*$", r"\1", regex=True)
    folder = table["Image_name"].str.split("$$", regex=False).str[:4].str.join("/")
    images = pd.DataFrame({"Adv_ID": advert, "path": folder + "/" + table["Image_name"]})
    return images.drop_duplicates("Adv_ID")


def _image_folder(root: Path, paths: list[str]) -> str:
    """The folder under `root` that holds the pictures; an archive may unpack into a folder of its own name."""
    folders = [folder for name in IMAGE_FOLDERS for folder in (name, f"{name}/{name}")]
    for folder in folders:
        if any((root / folder / path).is_file() for path in paths[:100]):
            return folder
    raise DataError(
        f"{root}: no folder with the pictures: looked for {paths[0]!r} and {len(paths[:100]) - 1} more in"
        f" {', '.join(folders)}. {GET_IT.format(root=root)}"
    )


def read_splits(folder: Path) -> dict[str, str]:
    """The split of every advert, from lists of advert ids, as the authors publish them.

    Args:
        folder: Holds one file a split, named `train*`, `val*` and `test*`, .txt or .csv (ids with anything between
            them) or .npy (an array of strings). Their `.pt` lists are pickles, which could run code, and are not read.

    Raises:
        DataError: Not exactly one file for a split, one that cannot be read or has no id, or an id in two lists.
    """
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
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


def _random_split(models: pd.Series, seed: int) -> pd.Series:
    # Codes by first appearance, as in the authors' code: the draws of a stratified split follow the order of classes.
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
) -> pd.DataFrame:
    """The data set of the paper: a row an advert, with its picture, split, 17 features and model (section 4.1).

    With the published files, the defaults are meant to give the authors' 70,565 / 17,642 / 88,207 adverts of 286
    models. One departure: their code draws the validation part with the labels in another order than the adverts,
    so that it is not stratified; here it is. Their own lists (`splits`) give their parts.

    Args:
        root: Folder of the data set.
        seed: Of the jitter, the split and random pictures (the authors' code: 2022).
        image: The first picture of an advert (the authors' code) or a random one (the paper).
        min_per_class: Models with fewer adverts left are dropped.
        splits: Folder with the authors' lists of advert ids (see `read_splits`); adverts in none are dropped.
        jitter_mm: Sizes get a random whole number up to this, plus or minus.

    Returns:
        `id` (Adv_ID), `image` (path relative to `root`; whether it exists is for its reader to say), `split` (train,
        val or test), the `FEATURES` under their published names, and `Genmodel_ID`, the target. `attrs["steps"]`
        lists each step with the adverts left after it.

    Raises:
        DataError: A missing file, column or folder, a value that is no number, duplicated adverts, or nothing left.
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
        split = _random_split(frame[TARGET], seed)
    else:
        split = frame["Adv_ID"].map(read_splits(Path(splits)))
        frame = step(f"in a list of {splits}", frame[split.notna()])
    frame = frame.assign(
        id=frame["Adv_ID"],
        split=split,
        image=_image_folder(root, frame["path"].tolist()) + "/" + frame["path"],
    )
    frame = frame[["id", "image", "split", *FEATURES, TARGET]].reset_index(drop=True)
    frame.attrs["steps"] = steps + [(name, int((frame["split"] == name).sum())) for name in ("train", "val", "test")]
    return frame


class DVMCarDataModule(TabularImagingDataModule):
    """DVM-car: 286 car models from a picture and the advert (paper, section 4.1). See `tabular_imaging.data.dvm`.

    Args:
        root: Folder with the published tables and images.
        image: Which picture of an advert: its first, as in the authors' code, or a random one, as in the paper.
        min_per_class: Models with fewer adverts are left out (section 4.1: 100).
        splits: Folder of the authors' split identifiers, if you have them.
        split_seed: Of the split, the jitter of the sizes, and random pictures (the authors' code: 2022).
        cache_px: See `TabularImagingDataModule`; as are the others.
        channels: See there.
        fit: See there.
        batch_size: See there.
        metric: See there.
        label_fraction: See there.
        on_error: See there.
        cache_dir: See there.
        num_workers: See there.
        seed: See there.
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
        cache_px: int = 300,
        channels: int = 3,
        fit: Fit = "stretch",
        batch_size: int = 512,
        metric: Metric = "accuracy",
        label_fraction: float = 1.0,
        on_error: OnError = "raise",
        cache_dir: str = "data/cache",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        columns = ColumnTypes(
            continuous=list(CONTINUOUS), categorical=list(CATEGORICAL), morphometric=list(MORPHOMETRIC)
        )
        super().__init__(
            root,
            cache_px,
            channels,
            fit,
            batch_size,
            metric,
            columns,
            label_fraction,
            on_error,
            cache_dir,
            num_workers,
            seed,
        )
        self.image = image
        self.min_per_class = min_per_class
        self.splits = Path(splits) if splits else None
        self.split_seed = split_seed

    def read_frame(self, report: Problems) -> pd.DataFrame:
        """The adverts that the published tables and steps leave."""
        frame = dvm_frame(self.root, self.split_seed, self.image, self.min_per_class, self.splits)
        return frame.assign(image=[str(self.root / path) for path in frame["image"]])
