"""`python -m tabular_imaging table`: a table of the paper beside the results of `evaluate`."""

from pathlib import Path

import pandas as pd

from shared.evaluation import print_comparison, read_method_table
from shared.runs.variant import Variant
from tabular_imaging.evaluation.models import TABULAR_STATISTICS
from tabular_imaging.evaluation.tables import (
    CONFIGS,
    SCRATCH,
    about_method,
    draw_table,
    importance_text,
    rows_of,
    with_importance,
)


def print_table(table: Path, run: list[str], results: Path | None = None, apart: bool = False) -> pd.DataFrame:
    """Print a table of the paper beside ours, say for which differences the 95% interval excludes 0, and draw it.

    Args:
        table: The paper's table, a file of configs/tables.
        run: Evaluated variants, `runs/tabular_imaging/<data set>/<variant>`, all of the same data set.
        results: CSV file that the rows are appended to.
        apart: Whether to print variants that were not trained alike in separate tables, rather than refuse them.

    Returns:
        One row per method; values are fractions, not percent.
    """
    paper = read_method_table(table)
    return print_comparison(
        paper,
        table.stem,
        [Variant(Path(folder)) for folder in run],
        CONFIGS,
        draw_table,
        results,
        apart,
        statistics=TABULAR_STATISTICS,
        rows_of=rows_of,
        about=about_method,
        finish=lambda rows: with_importance(rows, paper.reference),
        texts=importance_text,
        note=f"Supervised: frozen is a linear classifier on its features, trainable its own one. {SCRATCH}: as the "
        "pre-trained encoders are, in both columns.",
    )
