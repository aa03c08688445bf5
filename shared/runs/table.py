"""A paper's table beside ours, for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

# A paper's values by group (e.g. a class or a data set), row (a method) and column (a metric).
PaperValues = Mapping[str, Mapping[str, Mapping[str, float]]]

SYNTHETIC_WARNING = "SYNTHETIC DATA: ours says nothing about the world, and is no result."


def console(width: int = 120) -> Console:
    """A console: as wide as the terminal, or of a fixed width in a log file."""
    return Console(width=None if Console().is_terminal else width)


def beside_paper(
    ours: pd.DataFrame,
    paper: PaperValues,
    hours: float,
    title: str = "",
    texts: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Table:
    """The paper's values, and beside each of them ours with its standard deviation.

    Args:
        ours: One row per (group, row), with `<column>` and `<column>_std` for each of the paper's columns, in the
            paper's unit. Missing values and NaN are printed as `-`, so the paper's table may be wider than ours. If
            there are `<column>_low` and `<column>_high`, they are printed as an interval.
        paper: The paper's values as printed.
        hours: Hours that the runs behind `ours` took.
        title: Title drawn above the table.
        texts: Columns of `ours` that are printed unchanged, after the others.
        columns: Columns of the table; by default those that the paper has.
    """
    columns = columns or list(
        dict.fromkeys(key for rows in paper.values() for values in rows.values() for key in values)
    )
    table = Table(title=title)
    table.add_column("")
    table.add_column("")
    for column in columns:
        table.add_column(f"{column}\npaper", justify="right")
        table.add_column("\nours", justify="right", style="bold")
    for column in texts:
        table.add_column(column, justify="right")
    found: dict[Any, dict[Any, Any]] = ours.to_dict("index")
    for group, rows in paper.items():
        for index, (row, values) in enumerate(rows.items()):
            mine = found.get((group, row), {})
            cells = []
            for column in columns:
                cells.append(f"{values[column]:.1f}" if column in values else "-")
                cells.append(_value(mine, column) if column in mine else "-")
            cells += [str(mine.get(column, "-")) for column in texts]
            table.add_row(group if index == 0 else "", row, *cells)
        table.add_section()
    table.caption = f"ours: mean ± standard deviation over the models; trained for {hours:.2f} hours in all"
    return table


def _value(row: Mapping[Any, Any], column: str) -> str:
    mean, deviation = row[column], row[f"{column}_std"]
    if pd.isna(mean):
        return "-"
    text = f"{mean:.1f}" if pd.isna(deviation) else f"{mean:.1f} ± {deviation:.1f}"
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return text if low is None or pd.isna(low) else f"{text} \\[{low:.1f}, {high:.1f}]"  # for rich, \\[ is not markup


def interval_text(row: Mapping[Any, Any], key: str = "") -> str:
    """The interval from `<key>low` to `<key>high` of a row, which are fractions, in percent."""
    return f"[{100 * row[f'{key}low']:.1f}, {100 * row[f'{key}high']:.1f}]"


def difference_text(row: Mapping[Any, Any], key: str) -> str:
    """A difference in percentage points with its interval, escaped for rich; a dash if there is none."""
    value = row.get(key)
    if value is None or pd.isna(value):
        return "-"
    return f"{100 * value:+.1f} \\{interval_text(row, f'{key}_')}"


def by_sign(rows: pd.DataFrame, key: str, alpha: float) -> tuple[str, str, str]:
    """The methods grouped by their difference `key`: above 0, below 0, or not told apart from 0.

    Each method is named with its difference in percentage points.

    Args:
        rows: Rows with `method`, the difference `<key>` as a fraction, and its adjusted p-value `<key>_holm`.
        key: Name of the difference. Rows without it are left out.
        alpha: A difference with an adjusted p-value of at least this is not told apart from 0.
    """
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    for row in rows.to_dict("records"):
        if not pd.isna(row.get(key)):
            is_told_apart = row[f"{key}_holm"] < alpha
            group = int(row[key] <= 0) if is_told_apart else 2
            groups[group].append(f"{row['method']} ({100 * row[key]:+.1f})")
    above, below, alike = (", ".join(names) or "none" for names in groups)
    return above, below, alike


def folders_text(folders: Iterable[object]) -> str:
    """Folders as words of a command."""
    return " ".join(map(str, folders))
