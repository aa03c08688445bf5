"""CSV files with errors that name the file and say what was expected.

Read by worker processes, so torch stays out.
"""

import difflib
import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from shared.data.problems import DataError

log = logging.getLogger(__name__)


def read_csv(path: Path, columns: Iterable[str] = (), **kwargs: Any) -> pd.DataFrame:
    """Read a CSV file in UTF-8.

    Args:
        path: The file.
        columns: It must have these; it may have others.
        **kwargs: Of `pandas.read_csv`.

    Raises:
        DataError: There is no such file, it is no CSV or not in UTF-8, or a column is missing.
    """
    try:
        table: pd.DataFrame = pd.read_csv(path, low_memory=False, **kwargs)
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({error}); in a spreadsheet, save it as CSV UTF-8") from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path} cannot be read as CSV ({str(error).strip()})") from error
    check_columns(path, columns, table.columns)
    return table


def check_columns(path: Path, expected: Iterable[str], found: Iterable[object]) -> None:
    """Check that a table has certain columns.

    Raises:
        DataError: One is missing; the message names the file and the columns that it has.
    """
    names = [str(name) for name in found]
    missing = [column for column in expected if column not in names]
    if missing:
        raise DataError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(names)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like a wrong one: `; did you mean patient?`, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def warn_of_unread(source: Path, columns: Iterable[str], known: Collection[str]) -> None:
    """Warn of columns that nothing reads, each with the known name that it is most like."""
    if unread := [f"{name}{nearest(name, known)}" for name in columns if name not in known]:
        log.warning("%s has columns that are not read: %s", source, ", ".join(unread))
