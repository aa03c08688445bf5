"""The paper's Table 1: methods beside one another on the same test records, and which differences are beyond noise.

Shapes: R bootstrap resamples, M models.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from ecg_text.data.labels import read_csv
from ecg_text.evaluation.figures import draw_methods
from ecg_text.evaluation.models import RANDOM, ROW_NAMES
from shared.callbacks import read_results
from shared.data.problems import DataError
from shared.metrics import bootstrap_auroc, interval, over_models
from shared.runs.scores import FILE, read_scores
from shared.runs.table import append_results, beside_paper, by_sign, difference
from shared.runs.tracking import save_figure
from shared.runs.variant import find_checkpoints, first_seed, method_of, read_data_config, run_config

SYNTHETIC_WARNING = "SYNTHETIC DATA: ours says nothing about patients, and is no result."
ETP_ROW = "ETP"
PERCENT = ("auroc", "best_f1")
PAPER_COLUMNS = {"auroc": "AUC", "best_f1": "F1"}


@dataclass(frozen=True)
class MethodTable:
    """A file of configs/tables whose rows are methods.

    Attributes:
        title: What it shows.
        protocol: In `classes.csv` and `scores.npz`.
        data_sets: By the paper's name, files of configs/ with the data sets it can be made on; first the paper's.
        values: By data set, method and column, in percent.
    """

    title: str
    protocol: str
    data_sets: dict[str, list[str]]
    values: dict[str, dict[str, dict[str, float]]]


def compare(runs: list[Path], dataset: str, protocol: str = "linear", resamples: int = 1000) -> pd.DataFrame:
    """A row for random init and for each variant, all on the same test records.

    The interval of a method's macro AUROC, and those of its difference to random init and of ETP's difference to it,
    come from resampling the test records, the same for every method, and each method's models, if it has several (see
    `shared.metrics.over_models`).

    Args:
        runs: Evaluated variants; one of them may be ETP. Random init is the first variant's that has it.
        dataset: Name of the evaluation, a folder of `<variant>/evaluation`.
        protocol: Which of its scores.
        resamples: Bootstrap resamples.

    Returns:
        Columns `method, variant, seeds, models, records, hours`, `auroc` and `best_f1` with `_std`, and `auroc`,
        `over_random` and `etp_over` with `_low` and `_high`; fractions, not percent.

    Raises:
        DataError: A variant was not evaluated so, was trained otherwise than the first, or evaluated on other records.
    """
    _check_trained_alike(runs)
    scores: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, dict[str, Any]] = {}
    first = read_scores(runs[0] / "evaluation" / dataset)
    for run in runs:
        folder = run / "evaluation" / dataset
        kept = read_scores(folder)
        if not kept.same_records(first):
            raise DataError(
                f"{folder} and {runs[0] / 'evaluation' / dataset} were evaluated on other records or classes, so they "
                "cannot be compared; train and evaluate both with the same data settings"
            )
        if protocol not in kept.scores:
            raise DataError(f"{folder} has no scores of protocol {protocol}; evaluate again")
        table = read_csv(folder / "classes.csv", ["protocol", "method", "class", "models", "records", *PERCENT])
        average = table[(table["protocol"] == protocol) & (table["class"] == "Average")].set_index("method")
        for name, array in kept.scores[protocol].items():
            method = RANDOM if name == RANDOM else method_of(run, ROW_NAMES)
            if method == RANDOM and RANDOM in scores:
                continue
            if method in scores:
                raise DataError(f"{run} and another of the variants are both {method}; compare one at a time")
            scores[method] = array
            values = average.loc[
                name, ["models", "records", *(f"{key}{end}" for key in PERCENT for end in ("", "_std"))]
            ]
            trained = [] if method == RANDOM else sorted(run.glob("seed_*"))
            seconds = [read_results(seed).get("fit/seconds", 0.0) for seed in trained]
            variant = run.name if trained else ""
            seeds = " ".join(map(str, find_checkpoints(run, "best"))) if trained else ""
            rows[method] = {"method": method, "variant": variant, "seeds": seeds, "hours": sum(seconds) / 3600} | {
                str(key): value for key, value in values.items()
            }
    drawn = _resampled_means(scores, first.target, resamples)
    for method, row in rows.items():
        row["auroc_low"], row["auroc_high"] = interval(drawn[method])
        for key, plus, minus in (("over_random", method, RANDOM), ("etp_over", ETP_ROW, method)):
            if plus != minus and plus in drawn and minus in drawn:
                row[key] = rows[plus]["auroc"] - rows[minus]["auroc"]
                row[f"{key}_low"], row[f"{key}_high"] = interval(drawn[plus] - drawn[minus])
    return pd.DataFrame(rows.values())


def _resampled_means(
    scores: dict[str, NDArray[np.float64]], target: NDArray[np.float32], resamples: int
) -> dict[str, NDArray[np.float64]]:
    """By method, `(R,)` macro AUROC, the mean over M models drawn with replacement, on resampled records."""
    samples = bootstrap_auroc(np.concatenate(list(scores.values())), target, resamples=resamples).samples
    parts = np.split(samples, np.cumsum([len(array) for array in scores.values()])[:-1], axis=1)
    rng = np.random.default_rng(0)
    return {method: over_models(part, rng) for method, part in zip(scores, parts, strict=True)}


def _check_trained_alike(runs: list[Path]) -> None:
    """Methods are compared at the same data, encoder, epochs and precision.

    Raises:
        DataError: Two variants differ in one of these.
    """
    settings = []
    for run in runs:
        config = run_config(run)
        data = {key: value for key, value in config["data"]["init_args"].items() if key not in ("seed", "num_workers")}
        trainer = {key: config["trainer"][key] for key in ("max_epochs", "precision")}
        settings.append({**data, **trainer, "encoder": config["model"]["init_args"]["encoder"]})
        for key, value in settings[0].items():
            if settings[-1].get(key) != value:
                raise DataError(
                    f"{runs[0]} and {run} were trained with another {key} ({value} and {settings[-1].get(key)}), so "
                    "comparing the methods says nothing: train them alike"
                )


def beyond_noise(rows: pd.DataFrame) -> str:
    """Which differences are beyond noise, in sentences: their 95% interval does not hold 0."""
    over_random, etp_over = by_sign(rows, "over_random"), by_sign(rows, "etp_over")
    sentences = [
        f"Beyond noise better than random init: {over_random[0]}. Beyond noise worse: {over_random[1]}. "
        f"Not told apart from it: {over_random[2]}.",
        f"ETP is beyond noise better than: {etp_over[0]}; worse than: {etp_over[1]}; "
        f"not told apart from: {etp_over[2]}.",
    ]
    if rows["models"].min() < 2:
        sentences.append("Of one model a method, the intervals hold the noise of the records alone.")
    return " ".join(sentences)


def print_comparison(table: MethodTable, configs: Path, runs: list[Path], results: Path | None) -> None:
    """Print the paper's table beside ours for every data set that all variants were evaluated on.

    A data set that the paper does not have, and methods that its table lacks, stand without the paper's values.

    Args:
        table: As read from configs/tables.
        configs: Folder that its files are in.
        runs: Evaluated variants.
        results: CSV that the rows are appended to.
    """
    console = Console(width=None if Console().is_terminal else 150)
    trained_on, tags, trained_config = read_data_config(first_seed(runs[0]) / "config.yaml")
    by_name = {name: [read_data_config(configs / file) for file in files] for name, files in table.data_sets.items()}
    if trained_on not in {each[0] for files in by_name.values() for each in files}:
        by_name[trained_on] = [(trained_on, tags, trained_config)]
    found: dict[str, pd.DataFrame] = {}
    protocols = []
    for name, files in by_name.items():
        for dataset, own_tags, config in files:
            if all((run / "evaluation" / dataset / FILE).is_file() for run in runs):
                rows = compare(runs, dataset, table.protocol)
                found[name] = rows.assign(paper_data_set=name, dataset=dataset, trained_on=trained_on)
                tags = [*tags, *own_tags]
                settings = [trained_config if dataset == trained_on else config, files[0][2]]
                modes = [f"label mode {each['init_args']['label_mode']}" for each in settings]
                records = int(rows["records"].iloc[0])
                protocols.append(
                    f"{name}: ours on {dataset}, {records} test records, {modes[0]}; the paper's {modes[1]}."
                )
                break
        else:
            console.print(f"{name}: not all of {', '.join(run.name for run in runs)} are evaluated on it; left out")
    if not found:
        raise DataError(
            f"no data set of {table.title} has all variants evaluated: python -m ecg_text evaluate --run "
            f"{' '.join(map(str, runs))} does it"
        )
    synthetic = "synthetic" in tags
    note = " (SYNTHETIC data)" if synthetic else ""
    if synthetic:
        console.print(SYNTHETIC_WARNING, style="bold red")
    values = {
        name: {**table.values.get(name, {}), **{row: table.values.get(name, {}).get(row, {}) for row in rows["method"]}}
        for name, rows in found.items()
    }
    ours = pd.concat([_in_percent(rows, name) for name, rows in found.items()])
    title = f"{table.title}; ours trained on {trained_on}{note}"
    seeds = [seed for run in runs for seed in run.glob("seed_*")]
    texts = ("over random init", "ETP over it", "hours")
    console.print(beside_paper(ours, values, seeds, title, texts, columns=list(PAPER_COLUMNS.values())))
    console.print(
        "[...]: 95% interval; records and models are resampled. F1: macro, at the best threshold on the test records. "
        + " ".join(protocols),
        highlight=False,
        markup=False,
    )
    for name, rows in found.items():
        console.print(f"{name}: {beyond_noise(rows)}", highlight=False, markup=False)
        dataset = rows["dataset"].iloc[0]
        figure = draw_methods(rows, values[name], f"{table.title}, {dataset}{note}")
        path = save_figure(figure, runs[0].parent / "comparison", f"{dataset}_{table.protocol}")
        console.print(f"wrote {path}", highlight=False)
    if results:
        append_results(_result_rows(found, values, runs, synthetic).round(4), results)


def _in_percent(rows: pd.DataFrame, data_set: str) -> pd.DataFrame:
    """By (data set, method): `AUC` and `F1` with their ends, and differences as text."""
    ends = ("", "_std", "_low", "_high")
    columns = {f"{key}{end}": f"{name}{end}" for key, name in PAPER_COLUMNS.items() for end in ends}
    shown = 100 * rows[[key for key in columns if key in rows]].astype(float).rename(columns=columns)
    for key, title in (("over_random", "over random init"), ("etp_over", "ETP over it")):
        shown[title] = [difference(row, key) for row in rows.to_dict("records")]
    shown["hours"] = [f"{hours:.2f}" if hours else "-" for hours in rows["hours"]]
    return shown.set_index(pd.MultiIndex.from_product([[data_set], rows["method"]]))


def _result_rows(
    found: dict[str, pd.DataFrame], values: dict[str, dict[str, dict[str, float]]], runs: list[Path], synthetic: bool
) -> pd.DataFrame:
    """Rows of results/: ours, the paper's, and the settings that all variants share."""
    rows = pd.concat(found.values(), ignore_index=True)
    config = run_config(runs[0])
    for column in ("AUC", "F1"):
        pairs = zip(rows["paper_data_set"], rows["method"], strict=True)
        printed = [values[data_set].get(method, {}).get(column) for data_set, method in pairs]
        rows[f"paper_{column.lower()}_percent"] = printed
    return rows.assign(
        data_kind="synthetic" if synthetic else "real",
        epochs=config["trainer"]["max_epochs"],
        batch_size=config["data"]["init_args"]["batch_size"],
        precision=config["trainer"]["precision"],
        width=config["model"]["init_args"]["encoder"]["init_args"]["width"],
    )
