"""`python -m ecg_text evaluate`."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ecg_text.data.module import ECGDataModule
from ecg_text.evaluation.models import ECGEvaluation, Settings, prepared_like
from ecg_text.evaluation.tables import CONFIGS
from shared.evaluation import Request, evaluate_variants
from shared.runs.configs import Profile
from shared.runs.tracking import WandbMode


def evaluate(
    run: list[str],
    data: str | None = None,
    root: str | None = None,
    profile: Profile = "gpu",
    options: dict[str, Any] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    random_inits: int = 20,
    fine_tune_epochs: int = 0,
    prompts: list[str] | None = None,
    results: Path | None = None,
    missing_only: bool = False,
    wandb: WandbMode = "auto",
    threads: int | None = None,
) -> pd.DataFrame:
    """Evaluate variants against random-init encoders, linearly and, for ETP, zero-shot, per class and on average.

    Args:
        run: One or several variants, `runs/ecg_text/<data set>/<variant>`; all seeds of one are evaluated together.
        data: Another data set to evaluate on (transfer): a folder of configs/sets or a YAML file; by default the one
            that the variant was trained on.
        root: Folder that holds the data set.
        profile: Profile whose settings of the other data set are used; `demo` is its small form.
        options: Further data settings to change, e.g. `--options.missing_classes drop`; the results are then kept
            separately, in a folder whose name lists these settings.
        checkpoint: Checkpoint to evaluate: `best` (by the monitored value) or `last`.
        random_inits: Number of untrained models to compare with.
        fine_tune_epochs: Number of epochs for which the whole encoder is fine-tuned too; 0 leaves this out.
        prompts: Further prompts to try (`paper`, `clinical`, `german`, `ensemble` or a YAML file of your own).
        results: CSV file that the rows are appended to, with seeds, hardware and versions.
        missing_only: Whether to skip variants whose evaluation is up to date.
        wandb: Where W&B logs to, as `run.wandb` of a training run.
        threads: Number of torch threads.

    Returns:
        The table, with one row for each variant, protocol, method and class.
    """
    settings = Settings(random_inits, fine_tune_epochs, prompts or ())
    request = Request(run, data, profile, root, options or {}, checkpoint, results, missing_only, wandb, threads)
    return evaluate_variants(
        "ecg_text",
        CONFIGS,
        request,
        ECGDataModule,  # type: ignore[type-abstract]
        partial(ECGEvaluation, settings=settings),
        vars(settings),
        _covers,
        lambda checkpoints: prepared_like(next(iter(checkpoints.values()))),
    )


def _covers(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether an earlier evaluation includes a new one: it may have more prompts, and fine-tuning on top."""
    more = {"prompts", "fine_tune_epochs"}
    same = {key: value for key, value in before.items() if key not in more} == {
        key: value for key, value in now.items() if key not in more
    }
    prompts = set(now["prompts"]) <= set(before["prompts"])
    return same and prompts and now["fine_tune_epochs"] in (0, before["fine_tune_epochs"])
