"""The paper's Table 1: methods beside one another on the same test records, and which differences are beyond noise.

Shapes: R bootstrap resamples, M models.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from rich.console import Console

from ecg_text.evaluate import RANDOM, find_checkpoints, read_data_config
from ecg_text.figures import draw_methods
from ecg_text.labels import read_csv
from ecg_text.scores import read_scores
from shared.callbacks import read_results
from shared.data.report import DataError
from shared.metrics import bootstrap_auroc, interval
from shared.table import append_results, beside_paper
from shared.tracking import save_figure

ETP_ROW = "ETP"
# The paper's name of a method, by the class that a run's config.yaml names; others go by the class's name.
ROW_NAMES = {"TSTCC": "TS-TCC"}
PERCENT = ("auroc", "best_f1")
PAPER_COLUMNS = {"auroc": "AUC", "best_f1": "F1"}


@dataclass(frozen=True)
class MethodTable:
    """A file of configs/tables whose rows are methods.

    Attributes:
        title: What it shows.
        protocol: In `classes.csv` and `scores.npz`.
        train: Files of configs/ that make the paper's training runs.
        data_sets: By the paper's name, files of configs/ with the data sets it can be made on; first the paper's.
        values: By data set, method and column, in percent.
    """

    title: str
    protocol: str
    train: list[str]
    data_sets: dict[str, list[str]]
    values: dict[str, dict[str, dict[str, float]]]


def method_of(run: Path) -> str:
    """The paper's name of a variant's method."""
    config = yaml.safe_load((_first_seed(run) / "config.yaml").read_text(encoding="utf-8"))
    name = str(config["model"]["class_path"]).rpartition(".")[2]
    return ROW_NAMES.get(name, name)


def _first_seed(run: Path) -> Path:
    return run / f"seed_{next(iter(find_checkpoints(run, 'best')))}"


def compare(runs: list[Path], dataset: str, protocol: str = "linear", resamples: int = 1000) -> pd.DataFrame:
    """A row for random init and for each variant, all on the same test records.

    The interval of a method's macro AUROC, and those of its difference to random init and of ETP's difference to it,
    come from resampling the test records, the same for every method, and each method's models: so they hold the noise
    of both.

    Args:
        runs: Evaluated variants; one of them may be ETP. Random init is the first variant's that has it.
        dataset: Name of the evaluation, a folder of `<variant>/evaluation`.
        protocol: Which of its scores.
        resamples: Bootstrap resamples.

    Returns:
        Columns `method, variant, models, records, hours, auroc, best_f1` (with `_std`), `auroc_low, auroc_high`, and
        `over_random` and `etp_over` (with `_low, _high`); fractions, not percent.

    Raises:
        DataError: A variant was not evaluated so, or on other records than the first.
    """
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
            method = RANDOM if name == RANDOM else method_of(run)
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
            rows[method] = {"method": method, "variant": variant, "hours": sum(seconds) / 3600} | {
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
    return {
        method: np.take_along_axis(part, rng.integers(part.shape[1], size=part.shape), axis=1).mean(1)
        for method, part in zip(scores, parts, strict=True)
    }


def beyond_noise(rows: pd.DataFrame) -> str:
    """Which differences are beyond noise, in sentences: their 95% interval does not hold 0."""
    above: list[str] = []
    below: list[str] = []
    alike: list[str] = []
    beaten: list[str] = []
    unbeaten: list[str] = []
    for row in rows.to_dict("records"):
        if not pd.isna(row.get("over_random")):
            group = above if row["over_random_low"] > 0 else below if row["over_random_high"] < 0 else alike
            group.append(f"{row['method']} ({100 * row['over_random']:+.1f})")
        if not pd.isna(row.get("etp_over")):
            (beaten if row["etp_over_low"] > 0 else unbeaten).append(f"{row['method']} ({100 * row['etp_over']:+.1f})")
    words = [("better than random init", above), ("worse than random init", below)]
    sentences = [f"Beyond noise {what}: {', '.join(names) or 'none'}." for what, names in words]
    sentences.append(f"Not told apart from random init: {', '.join(alike) or 'none'}.")
    sentences.append(f"ETP is beyond noise better than: {', '.join(beaten) or 'none'}; not so than: ")
    return " ".join(sentences) + f"{', '.join(unbeaten) or 'none'}."


def print_comparison(table: MethodTable, configs: Path, runs: list[Path], results: Path | None) -> None:
    """Print the paper's table beside ours for every data set that all variants were evaluated on.

    Args:
        table: As read from configs/tables.
        configs: Folder that its files are in.
        runs: Evaluated variants.
        results: CSV that the rows are appended to.
    """
    console = Console(width=None if Console().is_terminal else 150)
    trained_on, tags, _ = read_data_config(_first_seed(runs[0]) / "config.yaml")
    synthetic = "synthetic" in tags
    note = " (SYNTHETIC data)" if synthetic else ""
    found: dict[str, pd.DataFrame] = {}
    for name, files in table.data_sets.items():
        names = [read_data_config(configs / file)[0] for file in files]
        evaluated = [
            each for each in names if all((run / "evaluation" / each / "scores.npz").is_file() for run in runs)
        ]
        if evaluated:
            rows = compare(runs, evaluated[0], table.protocol)
            found[name] = rows.assign(paper_data_set=name, dataset=evaluated[0], trained_on=trained_on)
        else:
            console.print(f"{name}: not all of {', '.join(run.name for run in runs)} are evaluated on it; left out")
    if not found:
        raise DataError(f"no data set of {table.title} has all variants evaluated: make table-etp does it")
    if synthetic:
        console.print("SYNTHETIC DATA: ours says nothing about patients, and is no result.", style="bold red")
    ours = pd.concat([_in_percent(rows, name) for name, rows in found.items()])
    values = {name: table.values[name] for name in found}
    title = f"{table.title}; ours trained on {trained_on}{note}"
    seeds = [seed for run in runs for seed in run.glob("seed_*")]
    console.print(beside_paper(ours, values, seeds, title, texts=("over random init", "ETP over it", "hours")))
    console.print(
        "[...]: 95% interval; records and models are resampled. F1: macro, at the best threshold on the test records.",
        highlight=False,
        markup=False,
    )
    for name, rows in found.items():
        records = int(rows["records"].iloc[0])
        lead = f"{name} (ours: {rows['dataset'].iloc[0]}, {records} test records): "
        console.print(lead + beyond_noise(rows), highlight=False, markup=False)
        figure = draw_methods(rows, values[name], f"{table.title}, {rows['dataset'].iloc[0]}{note}")
        path = save_figure(figure, runs[0].parent / "comparison", f"{rows['dataset'].iloc[0]}_{table.protocol}")
        console.print(f"wrote {path}", highlight=False)
    if results:
        append_results(_result_rows(found, values, runs, synthetic).round(4), results)


def _in_percent(rows: pd.DataFrame, data_set: str) -> pd.DataFrame:
    """By (data set, method): `AUC` and `F1` with their ends, and differences as text."""
    ends = ("", "_std", "_low", "_high")
    columns = {f"{key}{end}": f"{name}{end}" for key, name in PAPER_COLUMNS.items() for end in ends}
    shown = 100 * rows[[key for key in columns if key in rows]].astype(float).rename(columns=columns)
    for key, title in (("over_random", "over random init"), ("etp_over", "ETP over it")):
        shown[title] = [_difference(row, key) for _, row in rows.iterrows()]
    shown["hours"] = [f"{hours:.2f}" if hours else "-" for hours in rows["hours"]]
    return shown.set_index(pd.MultiIndex.from_product([[data_set], rows["method"]]))


def _difference(row: "pd.Series[Any]", key: str) -> str:
    if pd.isna(row.get(key)):
        return "-"
    return f"{100 * row[key]:+.1f} \\[{100 * row[f'{key}_low']:.1f}, {100 * row[f'{key}_high']:.1f}]"


def _result_rows(
    found: dict[str, pd.DataFrame], values: dict[str, dict[str, dict[str, float]]], runs: list[Path], synthetic: bool
) -> pd.DataFrame:
    """Rows of results/: ours, the paper's, and the settings that all variants share."""
    rows = pd.concat(found.values(), ignore_index=True)
    config = yaml.safe_load((_first_seed(runs[0]) / "config.yaml").read_text(encoding="utf-8"))
    for column in ("AUC", "F1"):
        pairs = zip(rows["paper_data_set"], rows["method"], strict=True)
        printed = [values[data_set].get(method, {}).get(column) for data_set, method in pairs]
        rows[f"paper_{column.lower()}_percent"] = printed
    return rows.assign(
        data_kind="synthetic" if synthetic else "real",
        seeds=" ".join(str(seed) for seed in find_checkpoints(runs[0], "best")),
        epochs=config["trainer"]["max_epochs"],
        batch_size=config["data"]["init_args"]["batch_size"],
        precision=config["trainer"]["precision"],
        width=config["model"]["init_args"]["encoder"]["init_args"]["width"],
    )
