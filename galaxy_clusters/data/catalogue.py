"""A catalogue of galaxies as a table with the text column `id`, from CSV, Parquet, FITS or VOTable."""

import logging
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.cells import listed, numbers_in, tidy
from shared.data.images import inside
from shared.data.problems import DataError
from shared.data.spreadsheet import read_spreadsheet
from shared.data.tables import check_columns, read_csv

log = logging.getLogger(__name__)

# The objid of the Legacy Surveys is unique within a brick only, so dr8_id, which includes the brick, comes first.
ID_COLUMNS = ("id", "id_str", "dr8_id", "objid", "iauname")
SUFFIXES = {
    "CSV": (".csv", ".csv.gz"),
    "Parquet": (".parquet", ".pq"),
    "FITS": (".fits", ".fit", ".fits.gz"),
    "VOTable": (".vot", ".votable", ".xml", ".vot.gz"),
}
EXACT, EXACT_32 = 2**53, 2**24  # below them, a float of 64 or 32 bits holds every whole number
ROUNDED = re.compile(r"\d+\.\d*|\d+(\.\d+)?e\+\d\d", re.IGNORECASE)  # how programs write a large float
IAU_NAME = r".*J([01]\d|2[0-3])([0-5]\d)([0-5]\d(?:\.\d*)?)([+-])([0-8]\d|90)([0-5]\d)([0-5]\d(?:\.\d*)?)$"
WIDE = 30  # degrees of declination; a survey this wide has galaxies at more than a fifteenth of all ra
# The fields of an SDSS objid: first bit and number of bits.
SDSS_BITS = {"sky": (59, 4), "rerun": (48, 11), "run": (32, 16), "camcol": (29, 3), "field": (16, 12)}
SDSS_SKIES = (0, 1, 2, 15)  # target, best, primary since data release 8, single runs


def read_catalogue(path: Path, id_column: str | None = None) -> pd.DataFrame:
    """Read a catalogue.

    Args:
        path: A table in CSV (with commas, UTF-8), Parquet, FITS (the first table in the file) or VOTable (likewise), as
            its ending says. Columns that hold several values a row are left out.
        id_column: Column of identifiers; by default the first of `ID_COLUMNS` that is there, in any capitals.

    Returns:
        The table with the identifiers as text in the column `id`, digit for digit, and with `ra` and `dec` in degrees,
        float64, where it has such columns (in any capitals) or where the identifiers are IAU names, which hold the
        position (JHHMMSS.ss+DDMMSS.s). A position may be missing (NaN).

    Raises:
        DataError: There is no such file, it is not such a table, it has no row, no identifiers or rounded ones, an
            identifier is missing or occurs twice, or a position is not one.
    """
    if not path.is_file():
        raise DataError(f"no file {path}")
    kind = next((kind for kind, endings in SUFFIXES.items() if path.name.lower().endswith(endings)), None)
    if kind is None:
        raise DataError(f"{path}: catalogues end with {', '.join(sum(SUFFIXES.values(), ()))}; save it as one of these")
    if kind == "CSV":
        names = [str(name).strip() for name in read_csv(path, nrows=0).columns]
        chosen = _id_column(path, names, id_column)
        frame = read_spreadsheet(path, chosen)
    else:
        frame = _read_parquet(path) if kind == "Parquet" else _read_astropy(path, kind)
        chosen = _id_column(path, [str(name) for name in frame.columns], id_column)
    if frame.empty:
        raise DataError(f"{path} has no row")
    if chosen != "id" and "id" in frame:
        log.warning("%s: the column id is left out, since %s identifies the rows", path, chosen)
        frame = frame.drop(columns="id")
    frame = frame.rename(columns={chosen: "id"})
    frame["id"] = _identifiers(path, chosen, frame["id"])
    return with_position(path, frame)


def image_paths(frame: pd.DataFrame, column: str, root: Path, strip_prefix: str | None = None) -> list[Path]:
    """The image file of each row.

    Args:
        frame: A catalogue.
        column: Its column of paths, which start from `root`.
        root: Folder of the data.
        strip_prefix: A folder of another machine that absolute paths start with, removed from each.

    Raises:
        DataError: There is no such column, a row has no path, one does not start with the prefix, or one leads out of
            the root. Whether there is such a file is for its reader to say.
    """
    check_columns(Path("the catalogue"), [column], frame.columns)
    values = tidy(frame[column])
    if values.isna().any():
        raise DataError(
            f"{frame['id'][values.isna()].iloc[0]} has no path in the column {column}: fill it or leave the row out"
        )
    texts = values.astype(str).tolist()
    if strip_prefix is not None:
        prefix = strip_prefix.rstrip("/") + "/"
        if other := [text for text in texts if not text.startswith(prefix)]:
            raise DataError(f"{other[0]} does not start with {prefix}: give another --strip_prefix")
        texts = [text.removeprefix(prefix) for text in texts]
    for text in texts:
        if text.startswith("/") and not Path(text).is_file():
            raise DataError(f"no image file {text}: is the path of another machine? {_advice(text, root)}")
    return _inside_all(root, texts)


def sdss_fields(ids: Sequence[str]) -> pd.DataFrame | None:
    """Which exposure each galaxy of the Sloan Digital Sky Survey is from, decoded from its 64-bit `objid`.

    Args:
        ids: Identifiers, N of them.

    Returns:
        Integer columns `run`, `camcol` (1 to 6) and `field`, N rows; None if any identifier is no SDSS objid. A field
        is one exposure only together with its run and camcol.
    """
    if not all(re.fullmatch(r"\d{18,19}", text) for text in ids):
        return None
    numbers = np.array([int(text) for text in ids], dtype=np.uint64)
    parts = {
        name: (numbers >> np.uint64(first)).astype(np.int64) & (2**bits - 1)
        for name, (first, bits) in SDSS_BITS.items()
    }
    unset = numbers >> np.uint64(63) == 0
    camcol = (parts["camcol"] >= 1) & (parts["camcol"] <= 6)
    if not (unset & camcol & np.isin(parts["sky"], SDSS_SKIES) & (parts["rerun"] > 0) & (parts["run"] > 0)).all():
        return None
    return pd.DataFrame({name: parts[name] for name in ("run", "camcol", "field")})


def filled_numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column's numbers, NaN where it is empty.

    Raises:
        DataError: A cell holds something else.
    """
    values = tidy(frame[column])
    numbers = numbers_in(values)
    wrong = np.flatnonzero(np.isnan(numbers) & values.notna())
    if len(wrong):
        raise DataError(f"{frame['id'].iloc[wrong[0]]}: {column} is {values.iloc[wrong[0]]!r}, expected a number")
    return numbers


def _id_column(path: Path, names: list[str], given: str | None) -> str:
    if given is not None:
        check_columns(path, [given], names)
        return given
    for wanted in ID_COLUMNS:
        for name in names:
            if name.lower() == wanted:
                log.info("%s: %s identifies the rows (--id_column names another)", path, name)
                return name
    raise DataError(
        f"{path} has no column {', '.join(ID_COLUMNS)}; say which of its columns identifies a row with --id_column "
        f"NAME (it has {', '.join(names)})"
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa  # takes a while
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    _say_left_out(path, nested)
    whole = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    table = table.drop_columns([*nested, *{"__index_level_0__"}.intersection(table.column_names)])
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)  # an index of pandas' is a column too
    for name in whole:  # with a gap, pandas would make them floats, which have no 19 digits
        if name in frame and table[name].null_count:
            frame[name] = pd.array(table[name].to_pylist(), dtype="Int64")
    return frame


def _read_astropy(path: Path, kind: str) -> pd.DataFrame:
    from astropy.io.votable import parse_single_table  # takes a while
    from astropy.table import Table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of units that are no standard, and of further tables
            if kind == "FITS":
                table = Table.read(path, format="fits")
            else:
                table = parse_single_table(path).to_table(use_names_over_ids=True)
        table.convert_bytestring_to_unicode()
        nested = [name for name in table.colnames if table[name].ndim > 1 or _holds_arrays(table[name])]
        _say_left_out(path, nested)
        table.remove_columns(nested)
        frame: pd.DataFrame = table.to_pandas()  # native byte order; whole numbers with gaps as Int64
    except Exception as error:  # astropy lets the errors of its many parts through
        raise DataError(f"{path} cannot be read as {kind} ({str(error).splitlines()[0]})") from error
    return frame


def _holds_arrays(column: Iterable[Any]) -> bool:
    """Whether a column holds arrays of various lengths, which come as objects, as text of various lengths does."""
    return np.asarray(column).dtype == np.object_ and any(np.ndim(value) > 0 for value in column)


def _say_left_out(path: Path, names: list[str]) -> None:
    if names:
        log.info("%s: %d columns with several values a row are left out: %s", path, len(names), listed(names))


def _identifiers(path: Path, name: str, column: "pd.Series[Any]") -> "pd.Series[str]":
    """The identifiers as text, all different, none empty."""
    if pd.api.types.is_float_dtype(column):
        lost = (column.abs() >= (EXACT_32 if column.dtype == "float32" else EXACT)) | (column % 1 > 0)
        if lost.any():
            raise _rounded(path, name, column[lost].iloc[0])
        column = column.astype("Int64")
    values = tidy(column.astype(object))
    texts = values.dropna().astype(str)
    for text in texts[texts.str.fullmatch(ROUNDED)]:
        if float(text) >= EXACT:
            raise _rounded(path, name, text)
    empty = np.flatnonzero(values.isna())
    if len(empty):
        raise DataError(f"{path}: row {empty[0] + 1} of {len(values)} has no {name}: fill it or leave the row out")
    again = np.flatnonzero(texts.duplicated())
    if len(again):
        text = texts.iloc[again[0]]
        first = int(np.argmax(texts == text))
        raise DataError(
            f"{path}: rows {first + 1} and {again[0] + 1} have the same {name} {text} ({len(again)} repeat an earlier "
            "one): leave one out, or give another column with --id_column NAME"
        )
    return texts.astype("str")


def _rounded(path: Path, name: str, value: object) -> DataError:
    return DataError(
        f"{path} holds {name} as floating-point numbers ({value}), which have lost the last digits: save it again with "
        f"{name} as text or as 64-bit whole numbers (in pandas, read_csv(..., dtype={{'{name}': str}}) where a cell is "
        "empty)"
    )


def with_position(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The table with `ra` and `dec` as numbers, where it has both in any capitals, or identifiers that hold them.

    Args:
        path: The table's file, in messages.
        frame: A table with `id`.

    Raises:
        DataError: A position is not one.
    """
    names = {str(name).lower(): str(name) for name in frame.columns}
    if {"ra", "dec"} <= names.keys():
        frame = frame.rename(columns={names[name]: name for name in ("ra", "dec") if name not in frame})
        for name in ("ra", "dec"):
            frame[name] = filled_numbers(frame, name)
        _check_position(path, frame)
    elif frame["id"].str.match(IAU_NAME).all():
        log.info("%s: ra and dec are read from the identifiers, which are IAU names", path)
        frame = frame.assign(**_of_names(frame["id"]))
    return frame


def _check_position(path: Path, frame: pd.DataFrame) -> None:
    ra, dec = frame["ra"], frame["dec"]
    for name, wrong, span in (
        ("ra", (ra < 0) | (ra >= 360), "[0, 360)"),
        ("dec", (dec < -90) | (dec > 90), "[-90, 90]"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{path}: row {row + 1} ({frame['id'].iloc[row]}) has {name} {frame[name].iloc[row]:g}, expected "
                f"degrees in {span}"
            )
    if ra.max() <= 24 and dec.max() - dec.min() > WIDE:
        log.warning("%s: no ra is above 24 while dec is spread wide: is ra in hours? Degrees are expected", path)


def _of_names(names: "pd.Series[str]") -> dict[str, NDArray[np.float64]]:
    """Positions in degrees of IAU names."""
    parts = names.str.extract(IAU_NAME)
    hours, minutes, seconds, degrees, arcminutes, arcseconds = (
        parts[place].to_numpy(np.float64) for place in (0, 1, 2, 4, 5, 6)
    )
    dec = degrees + arcminutes / 60 + arcseconds / 3600
    return {
        "ra": 15 * (hours + minutes / 60 + seconds / 3600),
        "dec": np.where(parts[3] == "-", -dec, dec),
    }


def _inside_all(root: Path, texts: list[str]) -> list[Path]:
    """`inside` of each path; a folder is resolved once, since 632 k galaxies would otherwise take over a minute."""
    folders: dict[str, Path] = {}
    paths = []
    for text in texts:
        folder, name = os.path.split(text)
        if folder not in folders:
            folders[folder] = inside(root, folder)
        path = folders[folder] / name
        paths.append(inside(root, text) if name == ".." or os.path.islink(path) else path)
    return paths


def _advice(text: str, root: Path) -> str:
    """The longest folder without which the file would be found under the root."""
    for folder in Path(text).parents:  # the longest comes first
        if (root / Path(text).relative_to(folder)).is_file():
            return f"give --strip_prefix {folder}"
    return f"give --strip_prefix with the folder that stands for {root} there"
