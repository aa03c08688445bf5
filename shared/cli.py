"""The one LightningCLI of the packages: a fixed folder for each run, its loggers, and safe resuming."""

import json
import logging
import shutil
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from shared.callbacks import (
    CheckUnseen,
    LogProgress,
    PredictionWriter,
    RunRecord,
    SaveData,
    SeedEachEpoch,
    Throughput,
)
from shared.checkpoint import read_checkpoint
from shared.data.problems import DataError
from shared.runs.results import has_finished, read_results
from shared.runs.settings import EVALUATION, UPSTREAM, changed_data, difference, saved_settings, upstream, with_seed
from shared.runs.tracking import RunCSVLogger, WandbMode, wandb_logger

log = logging.getLogger(__name__)

# What a run writes, and `overwrite` removes, beside the data module's `run_files`. W&B's offline runs stay: they may
# not have been uploaded yet.
RUN_FILES = (
    "config.yaml",
    "metrics.csv",
    "results.json",
    "environment.txt",
    "predictions.parquet",
    "checkpoints",
    "figures",
    UPSTREAM,
)


@dataclass
class RunOptions:
    """Where a run is kept: `<root>/<package>/<dataset>/<variant>/seed_<seed>`.

    Attributes:
        root: Folder of all runs.
        dataset: Name of the data set (set by configs/sets/<set>/set.yaml).
        variant: Name of the method or of your change to it (set by configs/methods/<method>.yaml).
        tags: Tags for W&B and the comparison page; a data set's configuration gives `synthetic` or `real`.
        wandb: Where W&B logs to; `auto` is online with a key or a saved login, and offline otherwise.
        overwrite: Whether to start from scratch if the folder holds an earlier run. By default, a run with the same
            settings is resumed, or left alone if it has finished, and one with other settings is an error.
    """

    root: str = "runs"
    dataset: str = "unnamed"
    variant: str = "unnamed"
    tags: list[str] = field(default_factory=list)
    wandb: WandbMode = "auto"
    overwrite: bool = False

    def variant_folder(self, package: str) -> Path:
        """Folder of the variant; the runs of its seeds are the subfolders."""
        return Path(self.root) / package / self.dataset / self.variant


class SaveConfig(SaveConfigCallback):
    """Saves `config.yaml`, and logs the configuration once to W&B (Lightning would log parts of it twice)."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **kwargs: Any) -> None:
        super().__init__(parser, _without_start(config), **kwargs)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save when training; testing and predicting have other options and must not replace the file."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log seed, run, model and data, and how W&B should summarise the monitored value."""
        config = as_saved(self.parser, self.config)
        found = upstream(config, int(config["seed_everything"]))
        if found and trainer.default_root_dir:
            (Path(trainer.default_root_dir) / UPSTREAM).write_text(json.dumps(found, indent=1))
        logged = {key: config[key] for key in ("seed_everything", "run", "model", "data")}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(logged)
                monitor, mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
                if monitor:
                    logger.experiment.define_metric(monitor, summary=mode)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last finished epoch. A separate class: Lightning refuses two `ModelCheckpoint`s without a monitor."""


class ClearRun(Callback):
    """Removes an earlier run's files, but only once the new run's data is loaded: a wrong path must not cost a run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @rank_zero_only
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the files; `SaveConfig`, which runs later, writes the new `config.yaml`."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        for name in (*RUN_FILES, *getattr(data, "run_files", ())):
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for state in self.folder.parent.glob(f"evaluation/*/{EVALUATION}"):
            state.unlink()  # even if the new checkpoint is the same: classifiers and results are gone


class ShortParser(LightningArgumentParser):
    """Reports an error without the seventy lines of usage, which would hide it; `--help` prints those."""

    def print_usage(self, file: Any = None) -> None:
        """Print nothing."""


class QuintetCLI(LightningCLI):
    """LightningCLI with a fixed run folder, its loggers, and safe resuming.

    `validate`, `test` and `predict` use the run's best checkpoint, unless `--ckpt_path` (`last`, or a file) says
    otherwise. Model and data are chosen by `class_path`.

    Args:
        package: Name of the package; its runs are kept under this name.
        args: The command line; `sys.argv[1:]` by default.
        **kwargs: Further arguments of LightningCLI.
    """

    def __init__(self, package: str, args: ArgsType = None, **kwargs: Any) -> None:
        self.package = package
        super().__init__(
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            seed_everything_default=0,
            args=args,
            **kwargs,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Give the command the name by which it is called."""
        self.parser_class = ShortParser
        return super().init_parser(**{"prog": f"python -m {self.package}", **kwargs})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `run`, `checkpoint`, `threads` and `deterministic`; link the seed to the data."""
        parser.add_class_arguments(RunOptions, "run")
        parser.add_argument("--threads", type=int | None, default=None, help="number of torch threads of this process")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,  # best.ckpt is replaced, no best-v1.ckpt written beside it
            }
        )
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Fix the run's folder, decide between starting, resuming and leaving alone, and set the loggers."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        self.run_dir = _run_folder(self.package, config) / f"seed_{config.seed_everything}"
        self.finished = self._resumed = False
        if self.subcommand is None or config.trainer.get("fast_dev_run"):
            return
        config.checkpoint.dirpath = str(self.run_dir / "checkpoints")
        config.trainer.default_root_dir = str(self.run_dir)
        if self.subcommand == "fit":
            self._resumed = self._resume(config)
        elif config.ckpt_path in (None, "best", "last"):
            config.ckpt_path = str(self.run_dir / "checkpoints" / f"{config.ckpt_path or 'best'}.ckpt")
        if config.ckpt_path:
            read_checkpoint(config.ckpt_path)  # a clear error now rather than Lightning's later

    def _parse_ckpt_path(self) -> None:
        """Lightning would put a checkpoint's hyper-parameters over the flags, importing whatever they name."""

    def _resume(self, config: Any) -> bool:
        """Whether the folder holds an interrupted run with the same settings; sets the checkpoint to resume from."""
        last = Path(_last_checkpoint(config))
        if config.run.overwrite or not (self.run_dir / "config.yaml").is_file() or not last.is_file():
            return False  # without a finished epoch there is nothing to lose, nor to resume from
        parser = self._parser("fit")
        self._saved = as_saved(parser, config)
        if changed := changed_settings(parser, self.run_dir, self._saved):
            raise DataError(
                f"{self.run_dir} holds a run with other settings:\n{changed}\n"
                "Give this one a name of its own with --run.variant NAME, or replace it with --run.overwrite true"
            )
        self.finished = has_finished(read_results(self.run_dir))
        if not self.finished and not config.ckpt_path:
            rank_zero_only(print)(f"resuming {self.run_dir} from its last finished epoch")
            config.ckpt_path = str(last)
        return bool(config.ckpt_path)

    def instantiate_classes(self) -> None:
        """Put this run's seed into the paths of other runs; the saved configuration keeps `{seed}`, see `with_seed`."""
        self._written = self.config
        self.config = self._written.clone()
        config = self.config[self.subcommand] if self.subcommand else self.config
        for block in ("model", "data"):
            for key, value in list(config[block].items()) if config.get(block) else []:
                config[block][key] = with_seed(value, int(config.seed_everything))
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add the loggers and callbacks that every run has."""
        self.config = self._written
        config = self.config_init[self.subcommand] if self.subcommand else self.config_init
        if config.trainer.get("fast_dev_run") or self.subcommand is None:
            return super().instantiate_trainer(**kwargs)
        callbacks = list(config.trainer.get("callbacks") or [])
        loggers: list[Any] = []
        if self.subcommand == "fit" and not self.finished:
            run = config.run
            loggers.append(RunCSVLogger(self.run_dir, resume=self._resumed))
            group = f"{self.package}/{run.dataset}/{run.variant}"
            name = f"{run.variant}-seed{config.seed_everything}"
            tags = [self.package, run.dataset, *run.tags]
            loggers += filter(None, [wandb_logger(self.run_dir, group, name, tags, run.wandb)])
            seed = SeedEachEpoch(int(config.seed_everything))
            # Not ModelCheckpoint's save_last, which skips the epochs that are not the best so far. Written at the end
            # of the training epoch, after best.ckpt, so that a resumed run knows about best.ckpt.
            last = LastCheckpoint(
                config.checkpoint.dirpath, "last", save_on_train_epoch_end=True, enable_version_counter=False
            )
            callbacks += [seed, Throughput(), RunRecord(), SaveData(), LearningRateMonitor("epoch"), last]
            if run.overwrite:
                callbacks.append(ClearRun(self.run_dir))
        elif self.subcommand == "test":
            callbacks.append(CheckUnseen(self.run_dir))
        elif self.subcommand == "predict":
            callbacks.append(PredictionWriter(str(self.run_dir)))
        if config.trainer.get("enable_progress_bar") is not False and not sys.stderr.isatty():
            callbacks.append(LogProgress())
            kwargs["enable_progress_bar"] = False  # redrawn in place, which a log file cannot show
        return super().instantiate_trainer(
            logger=loggers or False, callbacks=callbacks, enable_autolog_hparams=False, **kwargs
        )

    def fit(self, **kwargs: Any) -> None:
        """Train, unless this run has already finished."""
        if self.finished:
            if changed := changed_data(self.run_dir, self._fingerprint):
                raise DataError(
                    f"{self.run_dir} holds a run on other data:\n{changed}\n"
                    "Give this one a name of its own with --run.variant NAME, or replace it with --run.overwrite true"
                )
            print(f"{self.run_dir} has already finished; --run.overwrite true trains it again")
            return
        try:
            self.trainer.fit(**kwargs)
        except SystemExit as stop:  # Ctrl-C, or SIGTERM, whose exit status would say that all went well
            raise SystemExit(f"stopped; the same command resumes from the last epoch in {self.run_dir}") from stop
        finally:
            for logger in self.trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()

    def _fingerprint(self) -> str:
        data = self.datamodule
        data.prepare_data()
        data.setup("fit")
        return str(data.fingerprint())


def run_lightning(package: str, args: ArgsType = None) -> QuintetCLI:
    """Run one of Lightning's subcommands.

    Args:
        package: Name of the package.
        args: The subcommand and its options; None takes `sys.argv[1:]`, which Lightning reads itself.
    """
    return QuintetCLI(package, args)


class _Composer(QuintetCLI):
    """Reads a command as `QuintetCLI` does, but stops before it makes, seeds or prints anything."""

    def _set_seed(self) -> None:
        """Leave the process's generators and environment alone."""

    def before_instantiate_classes(self) -> None:
        """Do not look at any folder."""

    def instantiate_classes(self) -> None:
        """Do not make anything."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do not run anything."""


@dataclass(frozen=True)
class Composed:
    """The settings that a `fit` command stands for, as the package's own parser reads them.

    Attributes:
        folder: Folder of the variant, which holds the seeds' folders.
        settings: What `config.yaml` will hold, except for the seed and the folders.
        overwrite: Whether finished runs are trained again.
        parser: The parser of `fit`.
    """

    folder: Path
    settings: dict[str, Any]
    overwrite: bool
    parser: LightningArgumentParser

    def for_seed(self, seed: int) -> dict[str, Any]:
        """The settings of one seed."""
        return {**self.settings, "seed_everything": seed}


def compose(package: str, args: list[str]) -> Composed:
    """Read a `fit` command without making or starting anything; after the first call this takes about 0.2 s.

    Args:
        package: Name of the package.
        args: What comes after `fit`.

    Raises:
        SystemExit: There is an unknown setting or file; this is the parser's own error.
    """
    cli = _Composer(package, ["fit", *args])
    config, parser = cli.config["fit"], cli._parser("fit")
    settings = as_saved(parser, _without_start(config))
    return Composed(_run_folder(package, config), settings, config.run.overwrite, parser)


def changed_settings(parser: LightningArgumentParser, run: Path, new: dict[str, Any]) -> str:
    """The settings in which a finished or interrupted run differs from what is asked for; empty if none do.

    A setting that the saved file lacks, because it is newer than the run, counts as its default; this is logged.

    Args:
        parser: The parser of `fit`.
        run: Folder of the run, which holds `config.yaml`.
        new: What `config.yaml` would hold if it were saved now, with the run's own seed.
    """
    saved = saved_settings(run)
    changed = difference(saved, new)
    if changed:
        try:
            with redirect_stderr(StringIO()):  # the parser would print its error before it exits
                filled = as_saved(parser, parser.parse_object(saved))
        except (SystemExit, Exception):  # a setting that no longer exists is a difference; jsonargparse has many errors
            return changed
        if lacked := [line for line in difference(saved, filled).splitlines() if line.startswith("+ ")]:
            log.info("%s is older than some settings, so these count as their defaults: %s", run, "; ".join(lacked))
        changed = difference(filled, new)
    known = run / UPSTREAM
    before = json.loads(known.read_text()) if known.is_file() else {}
    for key, value in upstream(new, int(new["seed_everything"])).items():
        if key in before and before[key] != value:
            changed += f"\n- {key}, content: {before[key]}\n+ {key}, content: {value}"
    return changed.strip("\n")


def as_saved(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """A parsed configuration as `config.yaml` holds it."""
    saved: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_unset=False, format="yaml"))
    return saved


def _without_start(config: Namespace) -> Namespace:
    """Drop what says to start from scratch or to resume: the saved file, when used again, should do neither."""
    config = config.clone()
    if config.get("ckpt_path") == _last_checkpoint(config):
        config["ckpt_path"] = None
    config["run"]["overwrite"] = False
    return config


def _run_folder(package: str, config: Namespace) -> Path:
    return RunOptions(config.run.root, config.run.dataset, config.run.variant).variant_folder(package)


def _last_checkpoint(config: Namespace) -> str:
    return str(Path(config["checkpoint"]["dirpath"] or "") / "last.ckpt")
