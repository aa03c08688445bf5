"""The values of a spreadsheet's columns: text or number, recorded or not, and how messages name them."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def tidy(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """The column with its text stripped and blank text as missing; other objects (dates, decimals) become text."""
    if pd.api.types.is_numeric_dtype(column):  # booleans too
        return column

    def tidied(value: object) -> object:
        if isinstance(value, bool | int | float | np.number | np.bool_):
            return value
        return str(value).strip() or None

    codes, uniques = pd.factorize(column)  # text columns have many repeated values
    # The code of a missing value is -1, so it takes the last entry.
    values = np.array([*(tidied(value) for value in uniques), None], dtype=object)
    return pd.Series(values[codes], index=column.index, dtype=object)


def numbers_in(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """A tidy column's finite numbers, including those written as text; NaN for everything else."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def category_name(value: object) -> str:
    """The name of a value as a category: a whole number has the same name if its column has gaps (4.0) or not (4)."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value)


def natural_order(categories: Iterable[str]) -> list[str]:
    """The categories in order: numbers by value, then text."""
    names = sorted(categories)
    numbers = numbers_in(pd.Series(names, dtype=object))
    return [names[index] for index in np.argsort(numbers, kind="stable")]  # NaN goes last


def row_names(frame: pd.DataFrame) -> list[str]:
    """Names of the rows in messages: their `id` if there is such a column, otherwise their index."""
    return [str(name) for name in frame.get("id", frame.index)]


def listed(names: Collection[str], shown: int = 8) -> str:
    """`a, b, c and 12 more`."""
    names = [str(name) for name in names]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
