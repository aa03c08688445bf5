"""The paper's Tables 1, 2 and 3 beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.table import Table

from shared.data.problems import DataError
from shared.data.tables import read_csv
from shared.evaluation import RANDOM
from shared.evaluation.comparison import ONE_MODEL
from shared.evaluation.evaluate import RESULTS
from shared.runs.configs import Configs
from shared.runs.table import SYNTHETIC_WARNING, beside_paper, console, interval_text
from shared.runs.variant import Variant

CONFIGS = Configs(Path(__file__).parents[1] / "configs")
# The paper's columns in results.csv. ACC and F1 are at the threshold of best F1, most likely as in the paper.
COLUMNS = {"AUC": "auroc", "ACC": "best_f1_accuracy", "F1": "best_f1"}
AVERAGE = "Average"


@dataclass(frozen=True)
class ClassTable:
    """A file of configs/tables whose rows are classes (Tables 2 and 3).

    Attributes:
        title: Title of the table.
        protocol: Name of the protocol in `results.csv`.
        data_sets: Names (`run.dataset`) of the data sets that the table can be made on; the paper's own comes first.
        data: The paper's data set, a folder of configs/sets.
        setting: How the paper obtained its numbers, as a phrase.
        values: The paper's values by class, method and column, in percent.
    """

    title: str
    protocol: str
    data_sets: list[str]
    data: str
    setting: str
    values: dict[str, dict[str, dict[str, float]]]


def read_class_table(path: Path) -> ClassTable | None:
    """Read a file of configs/tables; None if its rows are not classes.

    Raises:
        DataError: There is no such file, or it is not a table of the paper.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; the paper's tables are in ecg_text/configs/tables/")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if isinstance(content, dict) and "columns" in content:
        return None
    try:
        return ClassTable(**content)
    except TypeError as error:
        raise DataError(
            f"{path} is not a table of the paper ({error}); see ecg_text/configs/tables/table2.yaml"
        ) from error


def print_class_table(paper: ClassTable, folder: Path) -> None:
    """Print a table of classes beside ours, for each of its data sets that a variant was evaluated on.

    Raises:
        DataError: The variant was evaluated on none of them.
    """
    variant = Variant(folder)
    found = [name for name in paper.data_sets if (folder / "evaluation" / name / RESULTS).is_file()]
    if not found:
        short = paper.title.split(":")[0]
        data = "" if variant.dataset in paper.data_sets else f" --data {paper.data}"
        raise DataError(
            f"{folder}/evaluation has no {RESULTS} of {' or '.join(paper.data_sets)}, which {short} needs: "
            f"python -m ecg_text evaluate --run {folder}{data} writes it"
        )
    out = console()
    for dataset in found:
        rows = _read_rows(folder / "evaluation" / dataset / RESULTS, paper.protocol)
        synthetic = variant.is_synthetic or (rows["data_kind"] == "synthetic").any()
        title = f"{paper.title}; ours: {variant.name}{' (SYNTHETIC data)' if synthetic else ''}"
        if synthetic:
            out.print(SYNTHETIC_WARNING, style="bold red")
        out.print(beside_paper(_ours(rows), paper.values, variant.hours, title))
        out.print(_setting(paper, variant, dataset, rows), highlight=False, markup=False)


def _read_rows(path: Path, protocol: str) -> pd.DataFrame:
    columns = [*COLUMNS.values(), *(f"{column}_std" for column in COLUMNS.values())]
    rows = read_csv(path, ["protocol", "method", "class", "models", "samples", "label_mode", "data_kind", *columns])
    rows = rows[rows["protocol"] == protocol]
    if rows.empty:
        raise DataError(f"{path} has no row of protocol {protocol}; run python -m ecg_text evaluate again")
    return rows


def _ours(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of results.csv by class and the paper's method, in percent; every method but random init is ETP."""
    methods = rows["method"].where(rows["method"] == RANDOM, "ETP")
    renamed = {f"{name}{end}": f"{column}{end}" for column, name in COLUMNS.items() for end in ("", "_std")}
    indexed = rows.set_index([rows["class"], methods])
    return 100 * indexed[list(renamed)].rename(columns=renamed)


def _setting(paper: ClassTable, variant: Variant, dataset: str, rows: pd.DataFrame) -> str:
    """Sentences that say what ours and what the paper's models were trained and evaluated on."""
    average = rows[rows["class"] == AVERAGE]
    models = ", ".join(f"{row.models} x {row.method}" for row in average.itertuples())
    left_out = [name for name in paper.values if name not in set(rows["class"])]
    ours = f"{variant.name} trained on {variant.dataset}, evaluated on {int(rows['samples'].iloc[0])} test records of "
    ours += f"{dataset}, label mode {rows['label_mode'].iloc[0]}, {models}"
    if left_out:
        ours += f", without {', '.join(left_out)} (so the averages are over other classes)"
    return f"Ours: {ours}. The paper's setting: {paper.setting}."


def print_classes(table: pd.DataFrame, titles: Mapping[str, str], dataset: str, kind: str) -> None:
    """Print the results of `evaluate`: each protocol in the form of the paper's Tables 2 and 3, in percent.

    Args:
        table: Rows of `results.csv`.
        titles: Titles of the protocols by name.
        dataset: Name of the data set.
        kind: `synthetic` or `real`.
    """
    out = console(110)
    label = "SYNTHETIC data" if kind == "synthetic" else "real data"
    for protocol, title in titles.items():
        part = table[table["protocol"] == protocol]
        average = part[part["class"] == AVERAGE].set_index("method")
        counts = ", ".join(f"{int(row.models)} x {name}" for name, row in average.iterrows())
        shown = Table(title=f"{title} on {dataset} ({label}; {int(part['samples'].iloc[0])} test records; {counts})")
        for column in ("Category", "Method", "AUC", "ACC", "F1", "F1 (val. threshold)"):
            shown.add_column(column, justify="left" if column in ("Category", "Method") else "right")
        for code in part["class"].unique():
            for index, row in enumerate(part[part["class"] == code].itertuples()):
                cells = [
                    _percent(getattr(row, key), getattr(row, f"{key}_std"))
                    for key in ("auroc", "best_f1_accuracy", "best_f1", "f1")
                ]
                if not np.isnan(row.auroc_low):
                    cells[0] += f" \\[{100 * row.auroc_low:.1f}, {100 * row.auroc_high:.1f}]"
                styled = f"[bold]{row.method}[/]" if row.method != RANDOM else str(row.method)
                shown.add_row(str(code) if index == 0 else "", styled, *cells)
            shown.add_section()
        out.print(shown)
        for name, row in average.to_dict("index").items():
            line = f"{name}: macro AUC {100 * row['auroc']:.1f} {interval_text(row, 'auroc_')}; highest score: "
            line += (
                f"accuracy {100 * row['top1_accuracy']:.1f} (always the most frequent: {100 * row['majority']:.1f}), "
            )
            line += f"macro F1 {100 * row['top1_f1']:.1f}"
            if name != RANDOM and not np.isnan(row.get("gain", np.nan)):
                line += f"; gain over random init {100 * row['gain']:+.1f} {interval_text(row, 'gain_')}"
            out.print(line, highlight=False, markup=False)
        if "prompts_in_reports" in part and not part["prompts_in_reports"].isna().all():
            found, count = (int(part[key].iloc[0]) for key in ("prompts_in_reports", "prompts"))
            out.print(f"{found} of the {count} prompts stand word for word in a training report", highlight=False)
    if (table.loc[table["method"] != RANDOM, "models"] == 1).any():
        out.print(ONE_MODEL, style="yellow", highlight=False, markup=False)
    out.print(
        "[...]: 95% interval over patients and models. ±: standard deviation over the models. ACC and F1 are at the "
        "threshold of best F1 on the test records, most likely as in the paper (optimistic); the last column is at "
        "thresholds chosen on validation.",
        highlight=False,
        markup=False,
    )


def _percent(mean: float, deviation: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" if np.isnan(deviation) else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def method_rows(variant: Variant) -> dict[str, Any]:
    """Further columns of a method's row of Table 1."""
    return {"width": variant.model_settings["encoder"]["init_args"].get("width")}
