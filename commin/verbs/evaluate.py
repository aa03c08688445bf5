"""`python -m commin evaluate`."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from commin.data.module import ImageFoldersDataModule
from commin.evaluation.models import ReceptionEvaluation, Settings
from commin.evaluation.tables import CONFIGS
from shared.evaluation import Request, evaluate_variants
from shared.runs.configs import Profile
from shared.runs.tracking import WandbMode


def evaluate(
    run: list[str],
    data: str | None = None,
    root: str | None = None,
    profile: Profile = "gpu",
    options: dict[str, Any] | None = None,
    settings: Settings | None = None,
    checkpoint: str = "best",
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Send the test images at every SNR, receive them in every way that is asked for, and measure what came.

    Args:
        run: One or several variants, `runs/commin/<data set>/<variant>`; all seeds of one are evaluated together.
        data: Another data set to evaluate on: a folder of configs/sets or a YAML file; by default the one that the
            variant was trained on.
        root: Folder that holds the data set.
        profile: Profile whose settings of the other data set are used.
        options: Further data settings to change.
        settings: SNRs, receivers and LPIPS's weights, e.g. `--settings.lpips FILE`, or a YAML file.
        checkpoint: `best` (on validation images) or `last`.
        results: CSV file that the rows are appended to, with seeds, hardware and versions.
        missing_only: Whether to skip variants whose evaluation is up to date.
        wandb: Where W&B logs to, as `run.wandb` of a training run.
        threads: Number of torch threads.

    Returns:
        The table, with one row for each variant, SNR, method and metric.
    """
    settings = settings or Settings()
    request = Request(run, data, profile, root, options or {}, checkpoint, results, missing_only, wandb, threads)
    return evaluate_variants(
        "commin",
        CONFIGS,
        request,
        ImageFoldersDataModule,
        partial(ReceptionEvaluation, settings=settings),
        dataclasses.asdict(settings),
    )
