"""`python -m tabular_imaging table`: a table of the paper beside what `evaluate` found."""

from pathlib import Path

import pandas as pd

from shared.evaluation import print_comparison, read_method_table
from tabular_imaging.evaluation.models import TABULAR_STATISTICS
from tabular_imaging.evaluation.tables import (
    CONFIGS,
    SUPERVISED,
    about_method,
    draw_table,
    importance_text,
    in_order,
    rows_of,
    with_importance,
)


def print_table(table: Path, run: list[str], results: Path | None = None, apart: bool = False) -> pd.DataFrame:
    """Print a table of the paper beside ours, say which differences are beyond noise, and draw it.

    Args:
        table: A file of configs/tables.
        run: Evaluated variants: `runs/tabular_imaging/<data set>/<variant>`, all of one data set.
        results: CSV that the rows are appended to.
        apart: Print variants that were not trained alike in tables of their own, rather than refuse to compare them.

    Returns:
        A row for each method; fractions, not percent.
    """
    paper = read_method_table(table)
    return print_comparison(
        paper,
        table.stem,
        in_order([Path(folder) for folder in run]),
        CONFIGS,
        draw_table,
        results,
        apart,
        TABULAR_STATISTICS,
        rows_of,
        about_method,
        lambda rows: with_importance(rows, paper.reference),
        importance_text,
        f"{SUPERVISED}: trained from scratch.",
    )
