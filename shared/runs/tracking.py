"""Where runs are logged: a CSV that survives resuming, and Weights & Biases, offline when there is no login."""

import csv
import netrc
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

WANDB_PROJECT = "quintet"
WandbMode = Literal["auto", "online", "offline", "disabled"]


def wandb_mode(mode: WandbMode) -> Literal["online", "offline", "disabled"]:
    """Resolve `"auto"`: `WANDB_MODE` if set, online with a key or a saved login, else offline.

    Without a key W&B would ask for one, and crash if there is no terminal, so this must be decided beforehand.
    """
    if mode != "auto":
        return mode
    environment = os.environ.get("WANDB_MODE", "")
    if environment == "online":
        return "online"
    if environment == "disabled":
        return "disabled"
    if environment in ("offline", "dryrun"):
        return "offline"
    return "online" if os.environ.get("WANDB_API_KEY") or _saved_login() else "offline"


def _saved_login() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        if path and (file := Path(path).expanduser()).is_file():
            try:
                return netrc.netrc(str(file)).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError):
                return False
    return False


class RunCSVLogger(CSVLogger):
    """`metrics.csv` in a fixed folder; resuming keeps the earlier rows (Lightning's logger deletes them).

    Args:
        folder: The run's folder.
        resume: Whether to keep the rows of the earlier part of this run.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        super().__init__(save_dir=str(folder.parent), name="", version=folder.name)
        path = folder / "metrics.csv"
        self._earlier = path.with_suffix(".earlier.csv")
        if not resume:
            self._remove(self._earlier)
        elif path.is_file() and not self._earlier.is_file():
            # Lightning deletes the file long before training starts; a run killed in between must not lose its rows.
            self._rename(path, self._earlier)

    def keep_until(self, step: int) -> None:
        """Write the earlier rows of the steps before `step`; the resumed run logs the later ones again."""
        if not self._earlier.is_file():
            return
        with self._earlier.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            if float(row["step"]) < step:
                values = {key: float(value) for key, value in row.items() if value}
                self.experiment.log_metrics(values, int(float(row["step"])))
        self.experiment.save()
        self._remove(self._earlier)

    @staticmethod
    @rank_zero_only
    def _remove(path: Path) -> None:
        path.unlink(missing_ok=True)

    @staticmethod
    @rank_zero_only
    def _rename(path: Path, target: Path) -> None:
        os.replace(path, target)


def wandb_logger(
    run_dir: Path, group: str, name: str, tags: list[str], mode: WandbMode, job_type: str = "fit"
) -> WandbLogger | None:
    """A W&B logger of project `quintet` that writes under `run_dir`, or None when W&B is disabled.

    Args:
        run_dir: The run's folder; `make sync` uploads offline runs from there.
        group: Package, data set and variant; all seeds of a variant share it.
        name: Variant and seed.
        tags: Package, data set, and `synthetic` or `real`.
        mode: Where W&B logs to, see `wandb_mode`.
        job_type: `fit` or `test`.
    """
    resolved = wandb_mode(mode)
    if resolved == "disabled":
        return None
    logger = WandbLogger(
        project=WANDB_PROJECT,
        name=name,
        group=group,
        job_type=job_type,
        tags=tags,
        save_dir=str(run_dir),
        offline=resolved == "offline",
        log_model=False,
    )
    # Lightning passes it, and W&B warns every user that it has no effect.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    return logger


def save_figure(figure: Figure, run_dir: Path, name: str, loggers: list[Any] | None = None) -> Path:
    """Write `figures/<name>.png` in the run's folder, and log it to W&B if that is on."""
    path = run_dir / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    for logger in loggers or []:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=f"figures/{name}", images=[str(path)])
    return path


def run_dir_of(trainer: pl.Trainer) -> Path | None:
    """The run's folder, or None if nothing is logged (`fast_dev_run`)."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    return Path(loggers[0].log_dir) if loggers else None
