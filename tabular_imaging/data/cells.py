"""The values of a spreadsheet's columns: text or number, recorded or not, and how messages name them."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def tidy(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Text without blanks around it, and nothing where it is blank; other objects (dates, decimals) as text."""
    if pd.api.types.is_numeric_dtype(column):  # booleans too
        return column

    def tidied(value: object) -> object:
        if isinstance(value, bool | int | float | np.number | np.bool_):
            return value
        return str(value).strip() or None

    codes, uniques = pd.factorize(column)  # a column of text repeats itself
    # The code of a missing value is -1, and so takes the last one.
    values = np.array([*(tidied(value) for value in uniques), None], dtype=object)
    return pd.Series(values[codes], index=column.index, dtype=object)


def numbers_in(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """A tidy column's finite numbers, also those written as text; NaN for all else."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def category_name(value: object) -> str:
    """A value as a category: a whole number is the same whether its column also has gaps (4.0) or not (4)."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value)


def natural_order(categories: Iterable[str]) -> list[str]:
    """Numbers by value, then text."""
    names = sorted(categories)
    numbers = numbers_in(pd.Series(names, dtype=object))
    return [names[index] for index in np.argsort(numbers, kind="stable")]  # NaN goes last


def row_names(frame: pd.DataFrame) -> list[str]:
    """What messages call the rows: by `id` where there is such a column, else by the index."""
    return [str(name) for name in frame.get("id", frame.index)]


def listed(names: Collection[str], shown: int = 8) -> str:
    """`a, b, c and 12 more`."""
    names = [str(name) for name in names]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
