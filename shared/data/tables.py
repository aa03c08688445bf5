"""CSV files with errors that name the file and say what was expected.

Read by worker processes, so torch stays out.
"""

import difflib
import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from shared.data.problems import DataError

log = logging.getLogger(__name__)

# What people call the column that says which samples belong together; `_id`, `id`, `_number` and the like may follow.
GROUP_NAMES = ("patient", "subject", "participant", "person", "individual", "animal", "plant", "specimen", "group")


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


def is_group(name: object) -> bool:
    """Whether a column is called like one that says which samples belong together: `patient`, `Subject_ID`, ...

    Example:
        >>> [is_group(name) for name in ("patient_id", "PlantID", "group", "subjects", "planting")]
        [True, True, True, False, False]
    """
    return (
        re.fullmatch(rf"({'|'.join(GROUP_NAMES)})[ _-]?(id|no|nr|number|code)?", str(name).strip().lower()) is not None
    )


def find_group_column(
    columns: Iterable[str], given: str | None, source: Path, taken: Collection[str | None] = ()
) -> str | None:
    """The column that says which samples belong together, such as the patient; logged if it is inferred.

    Args:
        columns: Columns of the table.
        given: The user's choice; None looks for a usual name. The column of identifiers makes every row its own group.
        source: The table, in messages.
        taken: Columns that are known to be something else.

    Returns:
        Its name; None if there is none.

    Raises:
        DataError: There is no such column, or several have a usual name.
    """
    columns = list(columns)
    if given is not None:
        if given not in columns:
            hint = nearest(given, columns) or f"; it has {', '.join(columns)}"
            raise DataError(f"{source} has no column {given} (group_column){hint}")
        return given
    found = [name for name in columns if is_group(name) and name not in taken]
    if len(found) > 1:
        raise DataError(
            f"{source}: {' and '.join(found)} could each say which rows belong together; say which with "
            "--data.init_args.group_column NAME"
        )
    if not found:
        return None
    log.info(
        "%s: rows with the same %s belong together and stay in one part of the split (--data.init_args.group_column "
        "names another column, or the one of the ids to keep no rows together)",
        source,
        found[0],
    )
    return found[0]


def warn_of_unread(source: Path, columns: Iterable[str], known: Collection[str]) -> None:
    """Warn of columns that nothing reads, each with the known name that it is most like."""
    if unread := [f"{name}{nearest(name, known)}" for name in columns if name not in known]:
        log.warning("%s has columns that are not read: %s", source, ", ".join(unread))
