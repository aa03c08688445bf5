"""The published tables of DVM-car: their files and columns, and functions that read them.

DVM-CAR (Huang et al., IEEE Big Data 2021; CC BY-NC 4.0) has car adverts with pictures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from shared.data.problems import DataError
from shared.data.tables import check_columns, read_csv

SIZES = ("Wheelbase", "Length", "Width", "Height")  # mm; in the order in which the authors' code jitters them
CONTINUOUS = (
    "Wheelbase", "Height", "Width", "Length", "Adv_year", "Adv_month", "Reg_year", "Runned_Miles", "Price",
    "Seat_num", "Door_num", "Entry_price", "Engin_size",
)  # fmt: skip
CATEGORICAL = ("Color", "Bodytype", "Gearbox", "Fuel_type")
FEATURES = CONTINUOUS + CATEGORICAL
MORPHOMETRIC = ("Wheelbase", "Height", "Width", "Length", "Bodytype")
TARGET = "Genmodel_ID"

# In these columns the published table has words for unknown values ("Uknown", "1 mile"). As in the authors' code, they
# count as missing.
WORDS_ALLOWED = ("Runned_Miles", "Price")

GET_IT = (
    "DVM-CAR is on figshare (search for DVM-CAR; licence CC BY-NC 4.0): unpack its tables and its resized pictures"
    " so that {root} holds the folders tables_V2.0 and resized_DVM_v2"
)
TABLE_FOLDERS = ("tables_V2.0", ".")
IMAGE_FOLDERS = ("resized_DVM_v2", "resized_DVM", "resized_DVM_clean")


@dataclass(frozen=True)
class PublishedTable:
    """One of the published tables: the spellings of its file name, the columns to read, and what it is needed for."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    provides: str


ADVERTS = PublishedTable(
    ("Ad_table (extra).csv", "Ad_table_extra.csv"),
    ("Genmodel_ID", "Adv_ID", *(name for name in FEATURES if name != "Entry_price")),
    "the adverts: 16 of the 17 features, including the sizes",
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
    """The named columns of a published table (all columns if none are named), as text.

    The published headers have spaces around some names, and some copies have a byte-order mark before the first.

    Raises:
        DataError: The file is not a CSV file in UTF-8, or a column is missing.
    """
    header = read_csv(path, nrows=0).columns  # pandas drops a byte-order mark, but not if encoded twice
    found = {str(name).strip().removeprefix("ï»¿"): str(name) for name in header}
    check_columns(path, columns, found)
    wanted = [found[name] for name in columns] or list(found.values())
    table = read_csv(path, dtype=str, usecols=wanted)
    table = table.rename(columns={raw: name for name, raw in found.items()})
    for name in table:
        table[name] = table[name].str.strip()
    return table


def _read_needed(root: Path, table: PublishedTable) -> tuple[Path, pd.DataFrame]:
    path = find_table(root, table)
    if path is None:
        looked = " or ".join(str(root / folder / table.names[0]) for folder in TABLE_FOLDERS)
        raise DataError(f"{looked} is missing; it holds {table.provides}. {GET_IT.format(root=root)}")
    return path, read_table(path, table.columns)


def _numbers(path: Path, table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """`table` with these columns as float64; a word in a column other than WORDS_ALLOWED is an error."""
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
    """The published adverts, in the table's order, with numbers as float64 and the engine size without its "L".

    Args:
        root: Folder that holds the data set.

    Returns:
        `Genmodel_ID`, `Adv_ID` and every feature but `Entry_price`; sizes in mm, `Engin_size` in litres. Missing
        values are NaN, and so are "Uknown" for a price and "1 mile" for the miles.

    Raises:
        DataError: A file or column is missing, a value is not a number (the error names file, line and column), or an
            advert occurs twice.
    """
    path, table = _read_needed(Path(root), ADVERTS)
    twice = table["Adv_ID"].duplicated() | table["Adv_ID"].isna()
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise DataError(
            f"{path}, line {row + 2}: Adv_ID {table['Adv_ID'].iloc[row]} is missing or has occurred before"
            f" ({int(twice.sum())} such rows); every advert must have its own"
        )
    table["Engin_size"] = table["Engin_size"].str.removesuffix("L")
    return _numbers(path, table, tuple(name for name in CONTINUOUS if name in table))


def read_prices(root: Path | str) -> pd.DataFrame:
    """`Genmodel_ID`, `Year`, `Entry_price`: a model's price when new, in pounds.

    Raises:
        DataError: A file or column is missing, a value is not a number, or a model has two prices in one year.
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
    """One picture per advert: `Adv_ID` and `path`, `<Maker>/<Genmodel>/<Year>/<Color>/<Image_name>`.

    Args:
        root: Folder that holds the data set.
        image: Which picture of an advert is used: `first` in `Image_table.csv` (the authors' code) or `random` (the
            paper).
        seed: Seed of the random choice.

    Raises:
        DataError: A file or column is missing, or a name does not follow the pattern.
    """
    path, table = _read_needed(Path(root), IMAGES)
    # The published names have seven parts. The first four are folders, and none may lead out of the root.
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


def find_images(root: Path, paths: list[str]) -> str:
    """The folder under `root` that holds the pictures; an archive may be unpacked into a folder of its own name."""
    folders = [folder for name in IMAGE_FOLDERS for folder in (name, f"{name}/{name}")]
    for folder in folders:
        if any((root / folder / path).is_file() for path in paths[:100]):
            return folder
    raise DataError(
        f"{root}: no folder with the pictures: looked for {paths[0]!r} and {len(paths[:100]) - 1} more in"
        f" {', '.join(folders)}. {GET_IT.format(root=root)}"
    )
