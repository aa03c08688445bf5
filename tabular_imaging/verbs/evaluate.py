"""`python -m tabular_imaging evaluate`: evaluates runs, and says what came out: tables, CSV files, figures, W&B."""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from shared.callbacks import update_results
from shared.data.problems import DataError
from shared.runs.scores import FILE, write_scores
from shared.runs.table import append_results
from shared.runs.tracking import WandbMode, save_figure, wandb_logger
from shared.runs.variant import check_same_settings, find_checkpoints, read_data_config, run_config
from tabular_imaging.evaluation.classifiers import Classified, Input, Settings
from tabular_imaging.evaluation.figures import draw_low_data, draw_results
from tabular_imaging.evaluation.models import RANDOM, Evaluation, evaluate_models, metric_samples
from tabular_imaging.verbs.predict import save_classifier

METRIC_NAMES = {"accuracy": "top-1 accuracy", "auroc": "AUC"}
ONE_ENCODER = (
    "One pre-trained encoder a method: the intervals hold the noise of the samples and of the classifiers, not that of "
    'pre-training, which another seed would show (make: SEEDS="0 1 2 3 4").'
)
ROW_NAMES = {"BarlowTwins": "Barlow Twins"}
# How a variant of MMCL is called, as in the paper's Tables 2 and 3.
LABEL_NAMES = {"none": "", "false_negative_elimination": "FN Elimination", "supcon": "SupCon"}
FIELD_NAMES = {"all": "", "morphometric": "Morphometric Features", "non_morphometric": "Non-Morphometric Features"}


def method_name(run: Path) -> str:
    """What tables call a variant: its class's name, and for MMCL what is done with labels and fields."""
    model = run_config(run)["model"]
    name = str(model["class_path"]).rpartition(".")[2]
    if name != "MMCL":
        return ROW_NAMES.get(name, name)
    settings = model["init_args"]
    laaf = "LaaF" if settings["label_as_feature"] else ""
    changes = [FIELD_NAMES[settings["fields"]], LABEL_NAMES[settings["labels"]], laaf]
    return " + ".join(filter(None, changes)) or name


def evaluate(
    run: list[str],
    data: Path | None = None,
    root: str | None = None,
    options: dict[str, Any] | None = None,
    inputs: list[str] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    settings: Settings | None = None,
    resamples: int = 1000,
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Evaluate variants' seeds against untrained encoders, frozen and, if asked for, trainable, on few labels too.

    Args:
        run: One or several `runs/tabular_imaging/<data set>/<variant>`; the `seed_*` of a variant go together.
        data: A file of configs/data for another data set (transfer); by default the one trained on.
        root: Root of that data set.
        options: Further data settings to change, e.g. `--options.disease cad`; the results lie apart, under a name with
            these.
        inputs: What is classified: `image` (the default), `table`, or both.
        checkpoint: `best` (by the monitored value) or `last`.
        settings: How classifiers are trained, e.g. `--settings.trainable_epochs 100`.
        resamples: Bootstrap resamples behind the intervals.
        results: CSV that the rows are appended to, with seed, hardware and versions.
        missing_only: Leave variants alone that were evaluated since their last seed was trained.
        wandb: See `run.wandb` of a training run.
        threads: torch threads.

    Returns:
        The table, one row for each variant, protocol and method.
    """
    if threads:
        torch.set_num_threads(threads)
    kinds = _inputs(inputs)
    settings = settings or Settings()
    # Untrained encoders, by the data: the same for every method of one encoder.
    known: dict[str, dict[str, Classified]] = {}
    tables = []
    for folder in map(Path, run):
        checkpoints = find_checkpoints(folder, checkpoint)
        check_same_settings(folder, list(checkpoints))
        first_run = folder / f"seed_{next(iter(checkpoints))}"
        dataset, tags, data_config = read_data_config(data or first_run / "config.yaml")
        # What is changed is another data set: its scores must not stand for this one's.
        name = re.sub(
            r"[^\w.=,-]+", "_", ",".join([dataset, *(f"{key}={value}" for key, value in (options or {}).items())])
        )
        written = folder / "evaluation" / name
        changes = dict(options or {}) | ({"root": root} if root else {})
        given = [checkpoint, f"inputs={kinds}", f"resamples={resamples}", str(settings)]
        asked = "; ".join([*given, *(f"{key}={value}" for key, value in changes.items())])
        if missing_only and _is_evaluated(written, checkpoints, asked, frozen=not settings.trainable_epochs):
            print(f"{written} is up to date")
            tables.append(pd.read_csv(written / "results.csv"))
            continue
        method = method_name(folder)
        untrained = known.setdefault(repr((data_config, changes)), {})
        evaluation = evaluate_models(
            checkpoints, data_config, changes, method, settings, kinds, resamples, untrained, transfer=data is not None
        )
        kind = "synthetic" if "synthetic" in tags else "real"
        evaluation.table = evaluation.table.assign(data_kind=kind, asked=asked)
        _record(evaluation, folder, list(checkpoints), method, f"{name}/" if data or options else "")
        _write(evaluation, written)
        for (seed, of_input), head in evaluation.heads.items():
            # `predict` is for the best checkpoint and the classes that the model was trained beside.
            if head is not None and checkpoint == "best" and not data and not options:
                save_classifier(folder / f"seed_{seed}", of_input, head, evaluation.data.classes)
        _draw(evaluation, folder, first_run, name, kind, wandb)
        print_table(evaluation.table, name, kind)
        print(f"wrote results.csv, groups.csv and {FILE} to {written}, and figures to {first_run}/figures")
        if results:
            rows = evaluation.table.round(4).assign(
                trained_on=folder.parts[-2],
                variant=folder.name,
                dataset=dataset,
                seeds=" ".join(map(str, checkpoints)),
                epochs=run_config(folder)["trainer"]["max_epochs"],
            )
            append_results(rows, results)
        tables.append(evaluation.table)
    return pd.concat(tables, ignore_index=True)


def _inputs(given: list[str] | None) -> list[Input]:
    kinds: list[Input] = [kind for kind in ("image", "table") if kind in (given or ["image"])]
    if wrong := set(given or []) - {"image", "table"}:
        raise DataError(f"--inputs are image and table, got {', '.join(sorted(wrong))}")
    return kinds


def _is_evaluated(folder: Path, checkpoints: dict[int, Path], asked: str, frozen: bool) -> bool:
    """Whether all checkpoints are older than the evaluation, none was added, and it was asked for the same.

    Where frozen encoders alone are asked for, there may be fine-tuned ones besides.
    """
    file = folder / "results.csv"
    if not file.is_file() or not (folder / FILE).is_file():
        return False
    table = pd.read_csv(file)
    before = table["asked"].iloc[0]
    if frozen:
        before = re.sub(r"trainable_epochs=\d+", "trainable_epochs=0", before)
    if before != asked or table["checkpoints"].iloc[0] != len(checkpoints):
        return False
    return all(path.stat().st_mtime < file.stat().st_mtime for path in checkpoints.values())


def _write(evaluation: Evaluation, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data, rows = evaluation.data, evaluation.rows
    one_hot = np.eye(len(data.classes), dtype=np.float32)[data.target[rows]]
    write_scores(folder, data.frame["id"].astype(str).iloc[rows].tolist(), data.classes, one_hot, evaluation.scores)
    evaluation.groups.to_csv(folder / "groups.csv", index=False)
    evaluation.table.to_csv(folder / "results.csv", index=False)  # last: it says that the evaluation is whole


def _record(evaluation: Evaluation, run: Path, seeds: list[int], method: str, prefix: str) -> None:
    """Merge each seed's own values into its `results.json`, for the comparison page."""
    target, metric = evaluation.data.target[evaluation.rows], evaluation.data.metric
    for protocol, by_method in evaluation.scores.items():
        _, points = metric_samples(np.stack(by_method[method].test), target, metric, 1)
        for seed, values in zip(seeds, np.array_split(points, len(seeds)), strict=True):
            update_results(run / f"seed_{seed}", {f"{prefix}{protocol}/{metric}": float(values.mean())})


def _draw(evaluation: Evaluation, run: Path, first_run: Path, dataset: str, kind: str, mode: WandbMode) -> None:
    note = "SYNTHETIC" if kind == "synthetic" else ""
    tags = ["tabular_imaging", dataset, kind]
    logger = wandb_logger(first_run, "/".join(run.parts[-3:]), f"{run.name}-on-{dataset}", tags, mode, job_type="test")
    loggers = [logger] if logger else []
    metric = METRIC_NAMES[evaluation.data.metric]
    table = evaluation.table
    trained = table[table["method"] != RANDOM]
    for logger in loggers:
        logger.log_metrics({f"{row['protocol']}/{metric}": row["value"] for row in trained.to_dict("records")})
    few = table["protocol"].str.contains("@")
    figure = draw_results(table[~few], f"{metric} on {dataset}", metric, note)
    save_figure(figure, first_run, f"{dataset}_results", loggers)
    images = table[table["protocol"].map(is_frozen_image)]
    if images["protocol"].nunique() > 1:
        figure = draw_low_data(images, f"few labels on {dataset}", metric, note)
        save_figure(figure, first_run, f"{dataset}_low_data", loggers)
    for logger in loggers:
        logger.experiment.finish()


def is_frozen_image(protocol: str) -> bool:
    """Whether a protocol is linear classification of frozen images, on any number of labels: Fig. 2."""
    return protocol.startswith("frozen") and not protocol.endswith("(table)")


def print_table(table: pd.DataFrame, dataset: str, kind: str) -> None:
    """Print what was found, in percent."""
    console = Console(width=None if Console().is_terminal else 120)
    label = "SYNTHETIC data" if kind == "synthetic" else "real data"
    metric = METRIC_NAMES[table["metric"].iloc[0]]
    title = f"{metric}, percent, on {dataset} ({label}; {table['samples'].iloc[0]} test samples)"
    shown = Table(title=title)
    for column in ("Protocol", "Method", "Classifiers", metric, "95% interval", "over untrained"):
        shown.add_column(column, justify="left" if column in ("Protocol", "Method") else "right")
    for protocol, part in table.groupby("protocol", sort=False):
        for index, row in enumerate(part.to_dict("records")):
            value = f"{100 * row['value']:.1f}"
            value += "" if pd.isna(row["std"]) else f" ± {100 * row['std']:.1f}"
            gain = row.get("gain")
            over = "-" if gain is None or pd.isna(gain) else f"{100 * gain:+.1f} {_ends(row, 'gain_')}"
            name = row["method"] if row["method"] == RANDOM else f"[bold]{row['method']}[/]"
            first = str(protocol) if index == 0 else ""
            shown.add_row(first, name, str(row["models"]), value, _ends(row), over)
        shown.add_section()
    console.print(shown)
    if table["checkpoints"].iloc[0] == 1:
        console.print(ONE_ENCODER, style="yellow")
    console.print(
        "±: standard deviation over the classifiers. Intervals resample test samples and classifiers. `trainable` of "
        "an untrained encoder is supervised training from scratch.",
        highlight=False,
        markup=False,
    )


def _ends(row: dict[Any, Any], key: str = "") -> str:
    return f"\\[{100 * row[f'{key}low']:.1f}, {100 * row[f'{key}high']:.1f}]"  # \\[ is no markup for rich
