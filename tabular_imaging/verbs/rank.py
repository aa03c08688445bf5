"""`python -m tabular_imaging rank`: which settings of each method are best on validation (make tune-mmcl)."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from shared.data.problems import DataError
from shared.evaluation.evaluate import RESULTS
from shared.runs.results import append_results
from shared.runs.table import console
from shared.runs.variant import Variant
from tabular_imaging.evaluation.classifiers import METRIC_NAMES


def rank(run: list[str], protocol: str = "frozen", results: Path | None = None) -> pd.DataFrame:
    """Rank each method's variants by their value on validation, the best first; the test samples are not used.

    Args:
        run: Evaluated variants, `runs/tabular_imaging/<data set>/<variant>`, all of the same data set.
        protocol: Name of a protocol of `evaluate`.
        results: CSV file that the rows are appended to.

    Returns:
        `method, variant, seeds, epochs, steps, metric, val`.

    Raises:
        DataError: A variant was not evaluated under this protocol.
    """
    variants = [Variant(Path(name)) for name in run]
    dataset = variants[0].dataset
    rows = []
    for variant in variants:
        file = variant.folder / "evaluation" / dataset / RESULTS
        table = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["protocol", "method"])
        found = table[(table["protocol"] == protocol) & (table["method"] == variant.title)]
        if found.empty:
            raise DataError(
                f"{variant.folder} was not evaluated ({protocol}) on {dataset}: run python -m tabular_imaging evaluate"
            )
        about: dict[str, Any] = {"method": variant.title, "variant": variant.name, "seeds": variant.seeds_text}
        about |= {"epochs": variant.epochs, "steps": variant.steps}
        rows.append(about | found.iloc[0][["metric", "val"]].to_dict())
    ranked = pd.DataFrame(rows).sort_values(["method", "val"], ascending=[True, False], ignore_index=True)
    kind = "SYNTHETIC data" if variants[0].is_synthetic else "real data"
    metric = METRIC_NAMES[ranked["metric"].iloc[0]]
    shown = Table(title=f"{metric} on the validation samples of {dataset} ({kind}), {protocol}, percent")
    for column in ("Method", "Variant", "Seeds", "Epochs (steps)", metric):
        shown.add_column(column, justify="right" if column == metric else "left", overflow="fold")
    for _, part in ranked.groupby("method", sort=False):
        for index, row in enumerate(part.to_dict("records")):
            budget = f"{row['epochs']} ({row['steps']})"
            name = "" if index else row["method"]
            shown.add_row(name, row["variant"], row["seeds"], budget, f"{100 * row['val']:.1f}")
        shown.add_section()
    console().print(shown)
    if results:
        append_results(ranked.round(4).assign(dataset=dataset, protocol=protocol), results)
    return ranked
