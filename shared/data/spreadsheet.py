"""A table that a user has made: it is read as it is, or an error says what to correct."""

import re
from pathlib import Path

import pandas as pd

from shared.data.cells import tidy
from shared.data.problems import DataError
from shared.data.tables import read_csv

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".npy")


def read_spreadsheet(path: Path, id_column: str | None = None) -> pd.DataFrame:
    """Read a user's table.

    Args:
        path: Path of the table, which is separated by commas, in UTF-8, and has a header.
        id_column: Column of identifiers; by default `id`, in upper or lower case. Identifiers stay text, so that 0001
            does not become 1.

    Raises:
        DataError: There is no such file, it is not such a table, it has no row, or a column occurs twice.
    """
    header = read_csv(path, header=None, nrows=1, dtype=str).iloc[0]  # pandas would rename a second `size`
    frame = read_csv(path, dtype=dict.fromkeys(header[[is_id(name, id_column) for name in header]], str))
    if frame.shape[1] == 1 and (found := re.search(r"[;\t|]", str(frame.columns[0]))):
        raise DataError(f"{path} is separated by {found[0]!r}: save it with commas between the columns")
    if frame.empty:
        raise DataError(f"{path} has no row")
    frame.columns = frame.columns.str.strip()
    names = header.dropna().str.strip()
    if names.duplicated().any():
        raise DataError(f"{path} has two columns called {names[names.duplicated()].iloc[0]}; rename one")
    return frame


def is_id(name: object, id_column: str | None) -> bool:
    """Whether a column holds the identifiers: the one with the given name, by default `id` in upper or lower case."""
    text = str(name).strip()
    return text.lower() == "id" if id_column is None else text == id_column


def find_image_column(frame: pd.DataFrame, source: Path, option: str) -> str:
    """The column whose values have the endings of image files.

    Args:
        frame: A user's table.
        source: Name of the table in messages.
        option: Command-line option that names the column explicitly.

    Raises:
        DataError: There is no such column, or more than one.
    """
    found = [str(name) for name in frame.columns if _holds_images(frame[name])]
    if len(found) != 1:
        held = "no column holds" if not found else f"the columns {', '.join(found)} hold"
        raise DataError(f"{source}: {held} image paths ({', '.join(IMAGE_SUFFIXES)}); say which with {option} NAME")
    return found[0]


def _holds_images(column: "pd.Series[str]") -> bool:
    values = tidy(column).dropna().head(100)
    return len(values) > 0 and sum(str(value).lower().endswith(IMAGE_SUFFIXES) for value in values) > len(values) / 2
