"""`python -m meta_robust table`: a table of the paper beside the results of `evaluate`."""

from pathlib import Path

import pandas as pd

from meta_robust.evaluation.tables import CONFIGS, bn_mode_text, draw_table
from shared.evaluation import print_comparison, read_method_table
from shared.runs.variant import Variant


def print_table(table: Path, run: list[str], results: Path | None = None, apart: bool = False) -> pd.DataFrame:
    """Print a table of the paper beside ours, with the paired differences between the methods, and draw it.

    Args:
        table: The paper's table, a file of configs/tables.
        run: Evaluated variants, `runs/meta_robust/<data set>/<variant>`, all of the same data set.
        results: CSV file that the rows are appended to.
        apart: Whether to print variants that were not trained alike in separate tables, rather than refuse them.

    Returns:
        One row per method; values are fractions, not percent.
    """
    return print_comparison(
        read_method_table(table),
        table.stem,
        [Variant(Path(folder)) for folder in run],
        CONFIGS,
        draw_table,
        results,
        apart,
        texts=bn_mode_text,
        note="A sample is a query of a task; the queries of a task count together. The intervals are those of drawing "
        "tasks from these classes, not of other classes.",
    )
