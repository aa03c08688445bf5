"""The paper's tables beside ours: which rows they have, and how an evaluation is printed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from shared.evaluation import RANDOM, MethodTable
from shared.evaluation.comparison import Row, print_rows
from shared.evaluation.figures import draw_results
from shared.runs.configs import Configs
from shared.runs.scores import Scores
from shared.runs.variant import Variant
from tabular_imaging.evaluation.classifiers import METRIC_NAMES
from tabular_imaging.evaluation.figures import draw_low_data

CONFIGS = Configs(Path(__file__).parents[1] / "configs")
SCRATCH = f"{RANDOM}, fine-tuned"


def rows_of(
    variant: Variant, scores: Scores, protocol: str, protocols: Mapping[str, Mapping[str, Any]]
) -> Iterator[Row]:
    """The rows that a variant has in a column.

    The untrained encoder fine-tuned is also shown in the columns of frozen encoders, for comparison, as the paper shows
    supervised training; it is a row of its own beside the method `Supervised`, which has its own budget.
    """
    for name, about in protocols.items():
        beside = about.get("beside")
        for row, outcome in scores.found.get(name, {}).items() if protocol in (name, beside) else ():
            is_floor = row in scores.floors
            if is_floor:
                yield SCRATCH if beside else row, outcome, name, True
            elif name == protocol:
                yield variant.title, outcome, name, False


def about_method(variant: Variant) -> dict[str, Any]:
    """The fields that a variant saw, and the morphometric fields' share of the importance if it was explained."""
    shares = [results.get("importance/morphometric", np.nan) for results in variant.results.values()]
    explained = int(np.isfinite(shares).sum())
    share = float(np.nanmean(shares)) if explained else np.nan
    fields = variant.model_settings.get("fields", "")
    return {"fields": fields, "morphometric_importance": share, "explained_models": explained}


def with_importance(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Add Table 2's column: how much a variant's fields matter to the model that was trained on all fields."""
    share = rows.loc[rows["method"] == reference, "morphometric_importance"]
    value = share.iloc[0] if len(share) else np.nan
    by_fields = {"all": 1.0, "morphometric": value, "non_morphometric": 1 - value}
    return rows.assign(importance=[by_fields.get(fields, np.nan) for fields in rows["fields"].fillna("")])


def importance_text(rows: pd.DataFrame) -> dict[str, list[str]]:
    """A printed column of the importance, if the variants saw different fields."""
    if not set(rows["fields"].fillna("")) > {"", "all"}:
        return {}
    return {"importance": ["-" if pd.isna(share) else f"{100 * share:.1f}" for share in rows["importance"]]}


def draw_table(rows: pd.DataFrame, table: MethodTable, title: str, note: str) -> Figure:
    """Draw columns that differ in the number of labels as lines over that number (Fig. 2), others side by side."""
    parts = [
        rows[["method"]].assign(
            protocol=column.lower(),
            value=rows[column],
            low=rows[f"{column}_low"],
            high=rows[f"{column}_high"],
            labels=rows[f"{column}_labels"],
        )
        for column in table.columns
        if column in rows
    ]
    first = next(column for column in table.columns if column in rows)
    metric = METRIC_NAMES[rows[f"{first}_metric"].dropna().iloc[0]]  # a row may lack a column
    few = (
        len(table.columns) > 1
        and len({rows[f"{column}_labels"].max() for column in table.columns if column in rows}) > 1
    )
    draw = draw_low_data if few else draw_results
    return draw(pd.concat(parts, ignore_index=True), title, metric, note)


def print_results(table: pd.DataFrame, dataset: str, kind: str) -> None:
    """Print the rows of an evaluation, in percent."""
    print_rows(
        table,
        dataset,
        kind,
        METRIC_NAMES[table["metric"].iloc[0]],
        "Classifiers",
        one_model=table["checkpoints"].iloc[0] == 1,
        note="±: standard deviation over the classifiers. [...]: 95% interval over test samples and classifiers. "
        "`trainable` of a supervised model is its own classifier.",
    )
