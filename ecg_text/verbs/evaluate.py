"""`python -m ecg_text evaluate`: evaluates runs, and says what came out in tables, CSV files, figures and W&B."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from ecg_text.evaluation.figures import draw_class_bars, draw_ecg, draw_similarity
from ecg_text.evaluation.models import RANDOM, ROW_NAMES, Evaluation, evaluate_models, record_results, title_of
from shared.runs.scores import FILE, write_scores
from shared.runs.table import append_results
from shared.runs.tracking import WandbMode, save_figure, wandb_logger
from shared.runs.variant import check_same_settings, find_checkpoints, method_of, read_data_config

# Variants of ETP with another language model; all others go by their method's name.
ETP_NAMES = {"etp_minilm": "ETP (MiniLM)", "etp_ngrams": "ETP (n-grams)"}


def evaluate(
    run: list[str],
    data: Path | None = None,
    root: str | None = None,
    options: dict[str, Any] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    random_inits: int = 20,
    resamples: int = 1000,
    fine_tune_epochs: int = 0,
    prompts: list[str] | None = None,
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Evaluate variants' seeds against random-init encoders: linear and, of ETP, zero-shot, per class and average.

    Args:
        run: One or several `runs/ecg_text/<data set>/<variant>`; all `seed_*` of a variant are evaluated together.
        data: A file of configs/data for another data set (transfer); by default the one trained on.
        root: Root of that data set.
        options: Further data settings to change, e.g. `--options.missing_classes drop`.
        checkpoint: `best` (by the monitored value) or `last`.
        random_inits: Untrained models to compare with.
        resamples: Bootstrap resamples behind the intervals.
        fine_tune_epochs: Also fine-tune the whole encoder for so many epochs; 0 leaves it out.
        prompts: Further prompts to try (`paper`, `clinical`, `german`, `ensemble` or a YAML file of your own).
        results: CSV that the rows are appended to, with seed, hardware and versions.
        missing_only: Leave variants alone that were evaluated since their last seed was trained.
        wandb: See `run.wandb` of a training run.
        threads: torch threads.

    Returns:
        The table, one row for each variant, protocol, method and class.
    """
    if threads:
        torch.set_num_threads(threads)
    random_scores: dict[str, Any] = {}  # the same for every method of one encoder
    tables = []
    for folder in map(Path, run):
        checkpoints = find_checkpoints(folder, checkpoint)
        check_same_settings(folder, list(checkpoints))
        first_run = folder / f"seed_{next(iter(checkpoints))}"
        dataset, tags, data_config = read_data_config(data or first_run / "config.yaml")
        written = folder / "evaluation" / dataset
        described = "; ".join(f"{key}={value}" for key, value in (options or {}).items()) or "none"
        wanted = {"checkpoint": checkpoint, "options": described}
        protocols = [
            *(f"zero_shot:{Path(name).stem}" for name in prompts or ()),
            *["fine_tune"] * (fine_tune_epochs > 0),
        ]
        if missing_only and _is_evaluated(written, checkpoints, wanted, protocols):
            print(f"{written} is up to date")
            tables.append(pd.read_csv(written / "classes.csv"))
            continue
        method = ETP_NAMES.get(folder.name) or method_of(folder, ROW_NAMES)
        changed = dict(options or {}) | ({"root": root} if root else {})
        evaluation = evaluate_models(
            checkpoints,
            data_config,
            changed,
            method,
            random_inits,
            resamples,
            fine_tune_epochs,
            prompts or (),
            random_scores,
        )
        kind = "synthetic" if "synthetic" in tags else "real"
        evaluation.table = evaluation.table.assign(label_mode=evaluation.data.label_mode, data_kind=kind, **wanted)
        record_results(evaluation, folder, list(checkpoints), method, prefix=f"{dataset}/" if data else "")
        _write(evaluation, written)
        loggers = _open_wandb(folder, first_run, dataset, tags, wandb)
        for logger in loggers:
            logger.log_metrics(_averages(evaluation.table, method))
        _draw(evaluation, first_run, dataset, method, tags, loggers)
        for logger in loggers:
            logger.experiment.finish()
        print_tables(evaluation, dataset, kind)
        print(f"wrote classes.csv, groups.csv and scores.npz to {written}, and figures to {first_run}/figures")
        if results:
            seeds = " ".join(map(str, checkpoints))
            rows = evaluation.table.round(4).assign(
                trained_on=folder.parts[-2], variant=folder.name, dataset=dataset, seeds=seeds
            )
            append_results(rows, results)
        tables.append(evaluation.table)
    return pd.concat(tables, ignore_index=True)


def _is_evaluated(folder: Path, checkpoints: dict[int, Path], wanted: dict[str, str], protocols: Sequence[str]) -> bool:
    """Whether all checkpoints are older than the evaluation, none was added, and it was asked for the same."""
    classes = folder / "classes.csv"
    if not classes.is_file() or not (folder / FILE).is_file():
        return False
    table = pd.read_csv(classes)
    of_method = table[table["method"] != RANDOM]
    if (table.iloc[0][list(wanted)] != pd.Series(wanted)).any():
        return False
    # Prompts are those of ETP.
    protocols = [name for name in protocols if name == "fine_tune" or "zero_shot" in set(of_method["protocol"])]
    if of_method["models"].max() != len(checkpoints) or not set(protocols) <= set(of_method["protocol"]):
        return False
    return all(path.stat().st_mtime < classes.stat().st_mtime for path in checkpoints.values())


def _write(evaluation: Evaluation, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data, rows = evaluation.data, evaluation.rows
    records = data.table["id"].astype(str).iloc[rows].tolist()
    write_scores(folder, records, data.classes, data.target[rows], evaluation.scores)
    evaluation.groups.to_csv(folder / "groups.csv", index=False)
    evaluation.table.to_csv(folder / "classes.csv", index=False)  # last: it says that the evaluation is whole


def _open_wandb(run: Path, first_run: Path, dataset: str, tags: list[str], mode: WandbMode) -> list[Any]:
    group = "/".join(run.parts[-3:])
    name = f"{run.name}-on-{dataset}"
    logger = wandb_logger(first_run, group, name, ["ecg_text", dataset, *tags], mode, job_type="test")
    return [logger] if logger else []


def _averages(table: pd.DataFrame, method: str) -> dict[str, float]:
    average = table[(table["class"] == "Average") & (table["method"] == method)]
    return {
        f"{row.protocol}/{key}": float(getattr(row, key))
        for row in average.itertuples()
        for key in ("auroc", "auroc_low", "auroc_high", "best_f1", "f1")
    }


def _draw(
    evaluation: Evaluation, run_dir: Path, dataset: str, method: str, tags: list[str], loggers: list[Any]
) -> None:
    data, rows, note = evaluation.data, evaluation.rows, " (synthetic data)" if "synthetic" in tags else ""
    for protocol, part in evaluation.table.groupby("protocol", sort=False):
        figure = draw_class_bars(part, f"{title_of(str(protocol))} on {dataset}{note}")
        save_figure(figure, run_dir, f"{dataset}_{str(protocol).replace(':', '_')}", loggers)
    if "zero_shot" not in evaluation.scores:
        return
    scores = evaluation.scores["zero_shot"][method].test[0]
    figure = draw_similarity(scores, data.target[rows], data.classes)
    save_figure(figure, run_dir, f"{dataset}_similarity", loggers)
    settings = data.signal_settings
    example = int(scores.max(1).argmax())  # the record the model is surest about
    labels = ", ".join(data.table["labels"].iloc[rows[example]])
    figure = draw_ecg(
        data.array[rows[example]] / 1000,
        settings.leads,
        settings.sampling_rate,
        title=f"{dataset} {data.table['id'].iloc[rows[example]]}, labels: {labels}{note}",
        scores=dict(zip(data.classes, scores[example].tolist(), strict=True)),
    )
    save_figure(figure, run_dir, f"{dataset}_example", loggers)


def print_tables(evaluation: Evaluation, dataset: str, kind: str) -> None:
    """Print each protocol as the paper's Tables 2 and 3, in percent."""
    console = Console(width=None if Console().is_terminal else 110)
    label = "SYNTHETIC data" if kind == "synthetic" else "real data"
    for protocol, part in evaluation.table.groupby("protocol", sort=False):
        title = title_of(str(protocol))
        average = part[part["class"] == "Average"].set_index("method")
        counts = ", ".join(f"{int(row.models)} x {name}" for name, row in average.iterrows())
        table = Table(title=f"{title} on {dataset} ({label}; {int(part['records'].iloc[0])} test records; {counts})")
        for column in ("Category", "Method", "AUC", "ACC", "F1", "F1 (val. threshold)"):
            table.add_column(column, justify="left" if column in ("Category", "Method") else "right")
        for code in part["class"].unique():
            for index, row in enumerate(part[part["class"] == code].itertuples()):
                cells = [
                    _percent(getattr(row, key), getattr(row, f"{key}_std"))
                    for key in ("auroc", "best_f1_accuracy", "best_f1", "f1")
                ]
                styled = f"[bold]{row.method}[/]" if row.method != RANDOM else str(row.method)
                table.add_row(str(code) if index == 0 else "", styled, *cells)
            table.add_section()
        console.print(table)
        for method, row in average.iterrows():
            name = str(method)
            line = f"{name}: macro AUC {100 * row.auroc:.1f} {_interval(row.auroc_low, row.auroc_high)}; "
            line += f"highest score: accuracy {100 * row.top1_accuracy:.1f}, macro F1 {100 * row.top1_f1:.1f}"
            if name != RANDOM and not np.isnan(row.get("gain", np.nan)):
                line += f"; gain over random init {100 * row.gain:+.1f} {_interval(row.gain_low, row.gain_high)}"
            console.print(line, highlight=False, markup=False)
    console.print(
        "[...]: 95% bootstrap interval over the records. ±: standard deviation over the models. ACC and F1 are at the "
        "threshold of best F1 on the test records, as the paper most likely has them (optimistic); the last column is "
        "at thresholds chosen on validation.",
        highlight=False,
        markup=False,
    )


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _percent(mean: float, deviation: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" if np.isnan(deviation) else f"{100 * mean:.1f} ± {100 * deviation:.1f}"
