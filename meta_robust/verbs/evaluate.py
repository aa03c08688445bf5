"""`python -m meta_robust evaluate`."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from meta_robust.data.module import FewShotDataModule
from meta_robust.evaluation.models import FewShotEvaluation, Settings, image_size, last_checkpoints
from meta_robust.evaluation.tables import CONFIGS
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
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Evaluate variants on tasks of novel classes, the same for all of them, beside pixels and untrained networks.

    Args:
        run: One or several variants, `runs/meta_robust/<data set>/<variant>`; all seeds of one are evaluated together.
        data: Another data set to evaluate on (cross-domain): a folder of configs/sets or a YAML file; by default the
            one that the variant was trained on.
        root: Folder that holds the data set.
        profile: Profile whose settings of the other data set are used.
        options: Further data settings to change, e.g. `--options.image_px 84`.
        settings: Number and size of the tasks and the choice of checkpoints, e.g. `--settings.episodes 100`, or a YAML
            file.
        results: CSV file that the rows are appended to, with seeds, hardware and versions.
        missing_only: Whether to skip variants whose evaluation is up to date.
        wandb: Where W&B logs to, as `run.wandb` of a training run.
        threads: Number of torch threads.

    Returns:
        The table, with one row for each variant, protocol and method.
    """
    settings = settings or Settings()
    request = Request(run, data, profile, root, options or {}, "last", results, missing_only, wandb, threads)
    return evaluate_variants(
        "meta_robust",
        CONFIGS,
        request,
        FewShotDataModule,  # type: ignore[type-abstract]
        partial(FewShotEvaluation, settings=settings),
        dataclasses.asdict(settings),
        prepare=image_size,
        checkpoints_of=last_checkpoints,
    )
