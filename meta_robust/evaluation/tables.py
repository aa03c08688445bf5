"""The paper's tables beside ours, and how an evaluation is printed."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from shared.evaluation import MethodTable
from shared.evaluation.comparison import print_rows
from shared.evaluation.figures import draw_results
from shared.runs.configs import Configs

CONFIGS = Configs(Path(__file__).parents[1] / "configs")
METRIC = "accuracy on tasks of novel classes"


def draw_table(rows: pd.DataFrame, table: MethodTable, title: str, note: str) -> Figure:
    """Every row of a table, a bar for each column."""
    parts = [
        rows[["method"]].assign(
            protocol=column, value=rows[column], low=rows[f"{column}_low"], high=rows[f"{column}_high"]
        )
        for column in table.columns
        if column in rows
    ]
    return draw_results(pd.concat(parts, ignore_index=True), title, METRIC, note)


def bn_mode_text(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Printed columns of whose batch statistics a method used, and of which checkpoint was chosen."""
    found = {}
    for key in ("bn_mode", "select"):
        columns = [column for column in rows if str(column).endswith(f"_{key}")]
        first = rows[columns].bfill(axis=1).iloc[:, 0] if columns else pd.Series(dtype=object)
        found[key] = [
            "-" if pd.isna(value) or not variant else str(value)
            for value, variant in zip(first, rows["variant"], strict=True)
        ]
    return found


def print_results(table: pd.DataFrame, dataset: str, kind: str) -> None:
    """Print the rows of an evaluation, in percent."""
    tasks = int(table["tasks"].iloc[0])
    modes = ", ".join(sorted(set(table["bn_mode"].dropna())))
    print_rows(
        table,
        dataset,
        kind,
        METRIC,
        "Models",
        one_model=table["models"].min() == 1,
        note=f"[...]: 95% interval of drawing {tasks} tasks from these classes, not of other classes; the queries of a "
        f"task count together. Batch norm: {modes}.",
    )
