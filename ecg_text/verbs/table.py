"""`python -m ecg_text table`: a table of the paper beside the results of `evaluate`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ecg_text.evaluation.figures import draw_methods
from ecg_text.evaluation.tables import CONFIGS, method_rows, print_class_table, read_class_table
from shared.evaluation import MethodTable, print_comparison, read_method_table
from shared.evaluation.comparison import Row
from shared.runs.scores import Scores
from shared.runs.variant import Variant


def print_table(table: Path, run: list[str], results: Path | None = None, apart: bool = False) -> None:
    """Print a table of the paper beside ours, and how ours differs in protocol.

    Tables 2 and 3 are printed for each variant. Table 1 has the variants as rows, with intervals and differences.

    Args:
        table: The paper's table, a file of configs/tables.
        run: Variants that were evaluated, `runs/ecg_text/<data set>/<variant>`; all seeds of one count together.
        results: CSV file that the rows of Table 1 are appended to.
        apart: Whether to print variants that were not trained alike in separate tables, rather than refuse them.
    """
    paper = read_class_table(table)
    if paper is not None:
        for folder in run:
            print_class_table(paper, Path(folder))
        return
    print_comparison(
        read_method_table(table),
        table.stem,
        [Variant(Path(folder)) for folder in run],
        CONFIGS,
        _draw,
        results,
        apart,
        rows_of=_rows_of,
        about=method_rows,
        note="F1: macro, at the best threshold on the test records.",
    )


def _rows_of(
    variant: Variant, scores: Scores, protocol: str, protocols: Mapping[str, Mapping[str, Any]]
) -> Iterator[Row]:
    """Rows by the paper's names: ETP is one row with any language model."""
    for row, outcome in scores.found.get(protocol, {}).items():
        is_floor = row in scores.floors
        yield row if is_floor else variant.method.title, outcome, protocol, is_floor


def _draw(rows: pd.DataFrame, table: MethodTable, title: str, note: str) -> Figure:
    paper = dict(zip(rows["method"], rows.get("AUC_paper_percent", [None] * len(rows)), strict=True))
    return draw_methods(rows, paper, f"{note}: {title}" if note else title)
