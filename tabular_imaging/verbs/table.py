"""`python -m tabular_imaging table`: a table of the paper beside what `evaluate` found.

Shapes: R bootstrap resamples, M models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from rich.console import Console

from shared.callbacks import read_results
from shared.data.problems import DataError
from shared.metrics import interval, over_models
from shared.runs.scores import TestScores, read_scores
from shared.runs.table import append_results, beside_paper, by_sign, difference
from shared.runs.tracking import save_figure
from shared.runs.variant import find_checkpoints, first_seed, read_data_config, run_config
from tabular_imaging.data.module import Metric
from tabular_imaging.evaluation.figures import draw_low_data, draw_results
from tabular_imaging.evaluation.models import RANDOM, SUPERVISED, metric_samples
from tabular_imaging.verbs.evaluate import METRIC_NAMES, ONE_ENCODER, method_name

SYNTHETIC_WARNING = "SYNTHETIC DATA: ours says nothing about the world, and is no result."


@dataclass(frozen=True)
class PaperTable:
    """A file of configs/tables.

    Attributes:
        title: What it shows.
        reference: The row that the others are compared with.
        columns: By the table's column, the protocol of `evaluate`; the printed differences are of the first. Columns
            that differ in the number of labels are drawn over it (Fig. 2), others side by side.
        data_sets: By the paper's name, `run.dataset`.
        values: By the paper's data set, row and column, in percent. The rows give the order.
    """

    title: str
    reference: str
    columns: dict[str, str]
    data_sets: dict[str, str]
    values: dict[str, dict[str, dict[str, float]]]


def read_table(path: Path) -> PaperTable:
    """Read a file of configs/tables.

    Raises:
        DataError: There is no such file, or it is not such a file.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; the paper's tables are in tabular_imaging/configs/tables/")
    try:
        return PaperTable(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except TypeError as error:
        raise DataError(f"{path} is no table of the paper ({error}); see tabular_imaging/configs/tables/") from error


def print_table(table: Path, runs: list[str], results: Path | None = None) -> pd.DataFrame:
    """Print a table of the paper beside ours, what is beyond noise, and draw it.

    Args:
        table: A file of configs/tables.
        runs: Evaluated variants: `runs/tabular_imaging/<data set>/<variant>`, all of one data set.
        results: CSV that the rows are appended to.

    Returns:
        A row for each method; fractions, not percent.
    """
    paper = read_table(table)
    folders = [Path(run) for run in runs]
    dataset, tags, _ = read_data_config(first_seed(folders[0]) / "config.yaml")
    group = next((name for name, known in paper.data_sets.items() if known == dataset), dataset)
    printed = paper.values.get(group, {})
    order = list(next(iter(paper.values.values())))
    rows = compare(folders, dataset, paper)
    rows = rows.sort_values("method", key=lambda names: names.map({n: i for i, n in enumerate([RANDOM, *order])}))
    synthetic = "synthetic" in tags
    console = Console(width=None if Console().is_terminal else 150)
    if synthetic:
        console.print(SYNTHETIC_WARNING, style="bold red")
    note = "SYNTHETIC" if synthetic else ""
    values = {group: {name: printed.get(name, {}) for name in rows["method"]}}
    seeds = [seed for folder in folders for seed in folder.glob("seed_*")]
    metric = METRIC_NAMES[rows["metric"].iloc[0]]
    title = f"{paper.title}; ours on {dataset}{f' ({note} data)' if note else ''}, {metric}, percent"
    texts = ["over random init", f"{paper.reference} over it", "hours"]
    if set(rows["fields"]) > {"", "all"}:
        texts.insert(2, "importance")
    columns = list(paper.columns)
    console.print(beside_paper(_in_percent(rows, group, paper), values, seeds, title, texts, columns))
    console.print(
        f"[...]: 95% interval; {rows['samples'].iloc[0]} test samples and the models are resampled, in pairs for "
        f"differences, which are of {columns[0].lower()}. {SUPERVISED}: trained from scratch.",
        highlight=False,
        markup=False,
    )
    if any(len(row.split()) == 1 for row in rows["seeds"]):
        console.print(ONE_ENCODER, style="yellow")
    for column in columns:
        console.print(beyond_noise(rows, paper.reference, column), highlight=False, markup=False)
    few = any("@" in protocol for protocol in paper.columns.values())
    figure = (draw_low_data if few else draw_results)(_long(rows, columns), f"{paper.title}, {dataset}", metric, note)
    name = f"{dataset}_{table.stem}"
    console.print(f"wrote {save_figure(figure, folders[0].parent / 'comparison', name)}", highlight=False)
    if results:
        config = run_config(folders[0])
        kept = rows.assign(
            table=table.stem,
            dataset=dataset,
            data_kind="synthetic" if synthetic else "real",
            batch_size=config["data"]["init_args"]["batch_size"],
            precision=config["trainer"]["precision"],
        )
        append_results(kept.round(4), results)
    return rows


def compare(runs: list[Path], dataset: str, paper: PaperTable) -> pd.DataFrame:
    """A row for each variant, for the untrained encoder and for supervised training, all on the same test samples.

    Args:
        runs: Evaluated variants.
        dataset: Name of the evaluation, a folder of `<variant>/evaluation`.
        paper: Which protocols, and the row that the others are compared with.

    Returns:
        `method, variant, seeds, epochs, models, samples, metric, hours, importance`, and for each column of the table
        its value with `_std`, `_low`, `_high`, the number of `_labels`, and the differences `_over_random`,
        `_reference_over`.

    Raises:
        DataError: A variant was not evaluated so, or on other samples than the first.
    """
    first = read_scores(runs[0] / "evaluation" / dataset)
    rows: dict[str, dict[str, Any]] = {}
    drawn: dict[tuple[str, str], NDArray[np.float64]] = {}
    rng = np.random.default_rng(0)
    # A supervised run goes first: without one, the untrained encoders' fine-tuning stands for it.
    for run in sorted(runs, key=lambda run: method_name(run) != SUPERVISED):
        kept = read_scores(run / "evaluation" / dataset)
        if not kept.same_records(first):
            raise DataError(
                f"{run} and {runs[0]} were evaluated on other samples or classes, so they cannot be compared; train "
                "and evaluate both with the same data settings"
            )
        evaluated = pd.read_csv(run / "evaluation" / dataset / "results.csv")
        metric: Metric = evaluated["metric"].iloc[0]
        for column, protocol in paper.columns.items():
            for method, name, trained_on, scores in _rows_of(kept, protocol, method_name(run)):
                if (method, column) in drawn:
                    if name != RANDOM:
                        raise DataError(f"{run} and another of the variants are both {method}; compare one at a time")
                    continue
                row = rows.setdefault(method, _about(run if name != RANDOM else None, method, kept, metric))
                samples, point = metric_samples(scores, kept.target.argmax(1), metric, 1000)
                drawn[method, column] = over_models(samples, rng)
                row["models"] = len(point)
                row[column], row[f"{column}_std"] = point.mean(), point.std(ddof=1) if len(point) > 1 else np.nan
                row[f"{column}_low"], row[f"{column}_high"] = interval(drawn[method, column])
                row[f"{column}_labels"] = evaluated.loc[evaluated["protocol"] == trained_on, "labels"].iloc[0]
    if not rows:
        raise DataError(f"none of the variants has scores of {', '.join(paper.columns.values())}; evaluate again")
    for method, column in drawn:
        pairs = (("over_random", method, RANDOM), ("reference_over", paper.reference, method))
        for key, plus, minus in pairs:
            if plus != minus and (plus, column) in drawn and (minus, column) in drawn:
                row, name = rows[method], f"{column}_{key}"
                row[name] = rows[plus][column] - rows[minus][column]
                row[f"{name}_low"], row[f"{name}_high"] = interval(drawn[plus, column] - drawn[minus, column])
    # Table 2 says how much the fields that a variant was trained on matter to the model of all fields.
    share = rows.get(paper.reference, {}).get("morphometric_importance", np.nan)
    by_fields = {"all": 1.0, "morphometric": share, "non_morphometric": 1 - share}
    for row in rows.values():
        row["importance"] = by_fields.get(row["fields"], np.nan)
    return pd.DataFrame(rows.values())


def _rows_of(kept: TestScores, protocol: str, method: str) -> Iterator[tuple[str, str, str, NDArray[np.float64]]]:
    """Row of the table, name in the evaluation, protocol and scores.

    An untrained encoder that is fine-tuned is supervised training, which also stands in the columns of frozen encoders
    to compare these with, as in the paper's tables.
    """
    frozen = protocol.startswith("frozen")
    for name, scores in kept.scores.get(protocol, {}).items():
        yield (RANDOM if frozen else SUPERVISED) if name == RANDOM else method, name, protocol, scores
    if frozen:
        trainable = protocol.replace("frozen", "trainable", 1)
        for name, scores in kept.scores.get(trainable, {}).items():
            if name == RANDOM or method == SUPERVISED:
                yield SUPERVISED, name, trainable, scores


def _about(run: Path | None, method: str, kept: TestScores, metric: Metric) -> dict[str, Any]:
    """What is known of a row before its values; no run for an untrained encoder."""
    row: dict[str, Any] = {"method": method, "variant": "", "seeds": "", "epochs": 0, "fields": "", "hours": 0.0}
    if run is not None:
        config = run_config(run)
        row |= {"epochs": config["trainer"]["max_epochs"], "fields": config["model"]["init_args"].get("fields", "")}
        seconds = [read_results(seed).get("fit/seconds", 0.0) for seed in run.glob("seed_*")]
        importance = [read_results(seed).get("importance/morphometric", np.nan) for seed in run.glob("seed_*")]
        seeds = " ".join(map(str, find_checkpoints(run, "best")))
        row |= {"variant": run.name, "seeds": seeds, "hours": sum(seconds) / 3600}
        row["morphometric_importance"] = float(np.nanmean(importance)) if np.isfinite(importance).any() else np.nan
    return row | {"samples": len(kept.records), "metric": metric}


def _in_percent(rows: pd.DataFrame, group: str, paper: PaperTable) -> pd.DataFrame:
    """By (data set, method): the table's columns with their ends, and the others as text."""
    columns = [f"{column}{end}" for column in paper.columns for end in ("", "_std", "_low", "_high")]
    shown = 100 * rows[[column for column in columns if column in rows]].astype(float)
    records = rows.to_dict("records")
    first = next(iter(paper.columns))
    shown["over random init"] = [difference(row, f"{first}_over_random") for row in records]
    shown[f"{paper.reference} over it"] = [difference(row, f"{first}_reference_over") for row in records]
    shown["importance"] = ["-" if pd.isna(share) else f"{100 * share:.1f}" for share in rows["importance"]]
    shown["hours"] = [f"{hours:.2f}" if hours else "-" for hours in rows["hours"]]
    return shown.set_index(pd.MultiIndex.from_product([[group], rows["method"]]))


def _long(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    parts = [
        rows[["method"]].assign(
            protocol=column.lower(),
            value=rows[column],
            low=rows[f"{column}_low"],
            high=rows[f"{column}_high"],
            labels=rows[f"{column}_labels"],
        )
        for column in columns
        if column in rows
    ]
    return pd.concat(parts, ignore_index=True)


def beyond_noise(rows: pd.DataFrame, reference: str, column: str) -> str:
    """Which differences of a column are beyond noise, in sentences: their 95% interval does not hold 0."""
    over_random, over = (by_sign(rows, f"{column}_{key}") for key in ("over_random", "reference_over"))
    return (
        f"{column}: beyond noise better than random init: {over_random[0]}; worse: {over_random[1]}; "
        f"not told apart from it: {over_random[2]}. "
        f"{reference} is beyond noise better than: {over[0]}; worse than: {over[1]}; not told apart from: {over[2]}."
    )
