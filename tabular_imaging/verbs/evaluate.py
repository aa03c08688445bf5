"""`python -m tabular_imaging evaluate`."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from shared.data.problems import DataError
from shared.evaluation import Request, evaluate_variants
from shared.runs.configs import Profile
from shared.runs.tracking import WandbMode
from tabular_imaging.data.module import TabularImagingDataModule
from tabular_imaging.evaluation.classifiers import Input, Settings
from tabular_imaging.evaluation.models import TabularEvaluation
from tabular_imaging.evaluation.tables import CONFIGS


def evaluate(
    run: list[str],
    data: str | None = None,
    root: str | None = None,
    profile: Profile = "gpu",
    options: dict[str, Any] | None = None,
    inputs: list[str] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    settings: Settings | None = None,
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Evaluate variants against untrained encoders: frozen or, if asked for, trainable, and also with few labels.

    Args:
        run: One or several variants, `runs/tabular_imaging/<data set>/<variant>`; all seeds of one are evaluated
            together.
        data: Another data set to evaluate on (transfer): a folder of configs/sets, one of its targets such as
            `cardiac_cad`, or a YAML file; by default the one that the variant was trained on.
        root: Folder that holds the data set.
        profile: Profile whose settings of the other data set are used; `demo` is its small form.
        options: Further data settings to change, e.g. `--options.disease cad`; the results are then kept separately, in
            a folder whose name lists these settings.
        inputs: Inputs to classify: `image` (the default), `table`, or both.
        checkpoint: Checkpoint to evaluate: `best` (by the monitored value) or `last`.
        settings: How classifiers are trained, e.g. `--settings.trainable_epochs 100`, or a YAML file.
        results: CSV file that the rows are appended to, with seeds, hardware and versions.
        missing_only: Whether to skip variants whose evaluation is up to date.
        wandb: Where W&B logs to, as `run.wandb` of a training run.
        threads: Number of torch threads.

    Returns:
        The table, with one row for each variant, protocol and method.
    """
    kinds = _inputs(inputs)
    settings = settings or Settings()
    request = Request(run, data, profile, root, options or {}, checkpoint, results, missing_only, wandb, threads)
    return evaluate_variants(
        "tabular_imaging",
        CONFIGS,
        request,
        TabularImagingDataModule,  # type: ignore[type-abstract]
        partial(TabularEvaluation, settings=settings, inputs=kinds),
        {"inputs": kinds, **dataclasses.asdict(settings)},
        _covers,
    )


def _inputs(given: list[str] | None) -> list[Input]:
    kinds: list[Input] = [kind for kind in ("image", "table") if kind in (given or ["image"])]
    if wrong := set(given or []) - {"image", "table"}:
        raise DataError(f"--inputs are image and table, got {', '.join(sorted(wrong))}")
    return kinds


def _covers(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether an earlier evaluation includes a new one: if that is of frozen encoders only, it may have more."""
    if now["trainable_epochs"] == 0:
        before = {**before, "trainable_epochs": 0}
    return before == now
