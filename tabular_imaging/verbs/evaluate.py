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
    resamples: int = 1000,
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Evaluate variants' seeds against untrained encoders, frozen and, if asked for, trainable, on few labels too.

    Args:
        run: One or several variants, `runs/tabular_imaging/<data set>/<variant>`; all `seed_*` of one go together.
        data: Another data set (transfer): a folder of configs/sets, `cardiac_cad`, or a YAML file. By default the one
            trained on.
        root: Root of the data set.
        profile: Which settings of that data set, `demo` for its small form.
        options: Further data settings to change, e.g. `--options.disease cad`; the results then lie apart, under a name
            that says so.
        inputs: What is classified: `image` (the default), `table`, or both.
        checkpoint: `best` (by the monitored value) or `last`.
        settings: How classifiers are trained, e.g. `--settings.trainable_epochs 100`, or a file.
        resamples: Bootstrap resamples behind the intervals.
        results: CSV that the rows are appended to, with seed, hardware and versions.
        missing_only: Leave variants alone whose evaluation is up to date.
        wandb: See `run.wandb` of a training run.
        threads: torch threads.

    Returns:
        The table, one row for each variant, protocol and method.
    """
    kinds = _inputs(inputs)
    settings = settings or Settings()
    request = Request(
        run, data, profile, root, options or {}, checkpoint, resamples, results, missing_only, wandb, threads
    )
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
    """Where frozen encoders alone are asked for, there may be fine-tuned ones besides."""
    if now["trainable_epochs"] == 0:
        before = {**before, "trainable_epochs": 0}
    return before == now
