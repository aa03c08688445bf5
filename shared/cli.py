"""The one LightningCLI of the packages, and the verbs of `python -m <package> <verb>`."""

import difflib
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import Namespace, auto_cli
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from shared.callbacks import PredictionWriter, RunRecord, SeedEachEpoch, Throughput, read_results
from shared.checkpoint import CheckpointError, read_checkpoint
from shared.data.problems import DataError
from shared.runs.tracking import RunCSVLogger, WandbMode, wandb_logger

LIGHTNING_VERBS = ("fit", "validate", "test", "predict")
# Flags that do not change a run's result.
NO_SETTINGS = ("ckpt_path", "threads", "run.overwrite", "run.wandb", "trainer.enable_progress_bar")
# What a run writes, and `overwrite` removes. W&B's offline runs stay: they may not have been uploaded yet.
RUN_FILES = (
    "config.yaml",
    "metrics.csv",
    "results.json",
    "environment.txt",
    "predictions.parquet",
    "checkpoints",
    "figures",
)


@dataclass
class RunOptions:
    """Where a run is kept: `<root>/<package>/<dataset>/<variant>/seed_<seed>`.

    Attributes:
        root: Folder of all runs.
        dataset: Name of the data set (set by configs/data/*.yaml).
        variant: Name of the method or of your change to it (set by configs/methods/*.yaml).
        tags: For W&B and the comparison page; data files say `synthetic` or `real`.
        wandb: `auto` is online with a key or a saved login and offline otherwise.
        overwrite: Start anew where the folder holds an earlier run. Without it, a run with the same settings is
            resumed, or left alone if it has finished, and one with other settings is an error.
    """

    root: str = "runs"
    dataset: str = "unnamed"
    variant: str = "unnamed"
    tags: list[str] = field(default_factory=list)
    wandb: WandbMode = "auto"
    overwrite: bool = False


class SaveConfig(SaveConfigCallback):
    """Saves `config.yaml`, and logs the configuration once to W&B (Lightning would log parts of it twice)."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **kwargs: Any) -> None:
        # How a run was started anew or resumed is no setting of it: the saved file, used again, shall do neither.
        config = config.clone()
        if config.get("ckpt_path") == _last_checkpoint(config):
            config["ckpt_path"] = None
        config["run"]["overwrite"] = False
        super().__init__(parser, config, **kwargs)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save when training; testing and predicting have other options and must not replace the file."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log seed, run, model and data, and how W&B should summarise the monitored value."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False, format="yaml"))
        logged = {key: config[key] for key in ("seed_everything", "run", "model", "data")}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(logged)
                monitor, mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
                if monitor:
                    logger.experiment.define_metric(monitor, summary=mode)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last finished epoch. A class of its own: Lightning refuses two `ModelCheckpoint`s without a monitor."""


class ClearRun(Callback):
    """Removes an earlier run's files once the new one's data is there, so that a wrong path costs no old run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @rank_zero_only
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove them; `SaveConfig`, which comes after, writes the new `config.yaml`."""
        for name in RUN_FILES:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


class ShortParser(LightningArgumentParser):
    """Says what is wrong with a command without its usage, whose seventy lines would hide that. `--help` has them."""

    def print_usage(self, file: Any = None) -> None:
        """Nothing."""


class QuintetCLI(LightningCLI):
    """LightningCLI with a fixed run folder, its loggers, and safe resuming.

    `validate`, `test` and `predict` use the run's best checkpoint, unless `--ckpt_path` (`last`, or a file) says
    otherwise.
    """

    package = "unnamed"

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Name the command as it is typed."""
        self.parser_class = ShortParser
        return super().init_parser(**{"prog": f"python -m {self.package}", **kwargs})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `run`, `checkpoint`, `threads` and `deterministic`; link the seed to the data."""
        parser.add_class_arguments(RunOptions, "run")
        parser.add_argument("--threads", type=int | None, default=None, help="torch threads of this process")
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
        run, seed = config.run, config.seed_everything
        self.run_dir = Path(run.root) / self.package / run.dataset / run.variant / f"seed_{seed}"
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
        """Whether an interrupted run with the same settings lies in the folder; sets the checkpoint to go on from."""
        saved, last = self.run_dir / "config.yaml", Path(_last_checkpoint(config))
        if config.run.overwrite or not saved.is_file() or not last.is_file():
            return False  # without a finished epoch there is nothing to lose, nor to go on from
        new = self._parser("fit").dump(config, skip_none=False, format="yaml")
        difference = _difference(saved.read_text(), new)
        if difference:
            raise DataError(
                f"{self.run_dir} holds a run with other settings:\n{difference}\n"
                "Give this one a name of its own with --run.variant NAME, or replace it with --run.overwrite true"
            )
        self.finished = "fit/epochs" in read_results(self.run_dir)  # evaluating an interrupted run writes others
        if not self.finished and not config.ckpt_path:
            rank_zero_only(print)(f"resuming {self.run_dir} from its last finished epoch")
            config.ckpt_path = str(last)
        return bool(config.ckpt_path)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add the loggers and callbacks that every run has."""
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
            # Not ModelCheckpoint's save_last, which skips the epochs that are not the best so far. At the end of the
            # training epoch, after best.ckpt, so that a resumed run knows of that.
            last = LastCheckpoint(
                config.checkpoint.dirpath, "last", save_on_train_epoch_end=True, enable_version_counter=False
            )
            callbacks += [seed, Throughput(), RunRecord(), LearningRateMonitor("epoch"), last]
            if run.overwrite:
                callbacks.append(ClearRun(self.run_dir))
        elif self.subcommand == "predict":
            callbacks.append(PredictionWriter(str(self.run_dir)))
        return super().instantiate_trainer(
            logger=loggers or False, callbacks=callbacks, enable_autolog_hparams=False, **kwargs
        )

    def fit(self, **kwargs: Any) -> None:
        """Train, unless this very run has finished before."""
        if self.finished:
            print(f"{self.run_dir} has finished before; --run.overwrite true trains it again")
            return
        try:
            self.trainer.fit(**kwargs)
        except SystemExit as stop:  # Ctrl-C, or SIGTERM, whose exit status would say that all went well
            raise SystemExit(f"stopped; the same command goes on from the last epoch in {self.run_dir}") from stop
        finally:
            for logger in self.trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()


def _last_checkpoint(config: Namespace) -> str:
    return str(Path(config["checkpoint"]["dirpath"] or "") / "last.ckpt")


def _difference(saved: str, new: str) -> str:
    """Lines in which two configurations differ, without what does not change a result."""
    old_config, new_config = yaml.safe_load(saved), yaml.safe_load(new)
    for config in (old_config, new_config):
        for name in NO_SETTINGS:
            block, _, key = name.rpartition(".")
            (config[block] if block else config).pop(key, None)
    if old_config == new_config:
        return ""
    before, after = (yaml.safe_dump(config).splitlines() for config in (old_config, new_config))
    lines = difflib.unified_diff(before, after, lineterm="", n=0)
    return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


@contextmanager
def _telling(package: str) -> Iterator[None]:
    """Show what the project's own loggers say, unless the program around it has its own way of showing logs."""
    loggers = [] if logging.getLogger().handlers else [logging.getLogger(name) for name in ("shared", package)]
    levels, handler = [logger.level for logger in loggers], logging.StreamHandler()
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING if getattr(rank_zero_only, "rank", 0) else logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what a user can do nothing about, and leave the process as it was found (tests, notebooks)."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level, threads, silent = logger.level, torch.get_num_threads(), os.environ.get("WANDB_SILENT")
    try:
        os.environ.setdefault("WANDB_SILENT", "true")  # its banner says where files are: in the run's folder
        with warnings.catch_warnings():
            logger.setLevel(logging.WARNING)  # Lightning's tips
            for message in (
                "Experiment logs directory",  # a run's folder is fixed
                ".*does not have many workers",  # batches come from a memory map
                "The number of training batches .* is smaller than the logging interval",  # logged once an epoch
                "LightningCLI's args parameter",  # main() of another program, or a test
                "Couldn't infer the batch indices",  # the predictions have the records' ids
                ".*LeafSpec.*is deprecated",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        if silent is None:
            del os.environ["WANDB_SILENT"]
        logger.setLevel(level)
        torch.set_num_threads(threads)


def _join_lists(function: Callable[..., Any], args: list[str]) -> list[str]:
    """Turn `--prompts "one thing" another` into `--prompts '["one thing", "another"]'`, jsonargparse's form.

    That is done for the parameters which are lists of strings.
    """
    hints = get_type_hints(function)
    lists = {f"--{name}" for name, hint in hints.items() if hint in (list[str], list[str] | None)}
    joined: list[str] = []
    values: list[str] | None = None
    for arg in [*args, "--"]:
        if values is not None and not arg.startswith("--"):
            values.append(arg)
            continue
        if values:
            is_json = len(values) == 1 and values[0].startswith("[")
            joined.append(values[0] if is_json else json.dumps(values))
        values = [] if arg in lists else None
        joined.append(arg)
    return joined[:-1]


def run_main(cli_class: type[QuintetCLI], verbs: dict[str, Callable[..., Any]], args: ArgsType = None) -> Any:
    """What `python -m <package>` does: Lightning's subcommands, or one of the package's own verbs.

    Args:
        cli_class: The package's CLI.
        verbs: Functions by verb; their signatures are their options and their docstrings the help.
        args: Arguments without the program's name; `sys.argv[1:]` by default.

    Returns:
        The CLI object, or what the verb returned.
    """
    given = list(sys.argv[1:] if args is None else args)
    verb = given[0] if given else "--help"
    try:
        if verb in verbs:
            options = _join_lists(verbs[verb], given[1:])
            with _quiet(), _telling(cli_class.package):
                return auto_cli(
                    verbs[verb], args=options, prog=f"python -m {cli_class.package} {verb}", as_positional=False
                )
        if verb in LIGHTNING_VERBS:
            with _quiet(), _telling(cli_class.package):
                return cli_class(
                    save_config_callback=SaveConfig,
                    save_config_kwargs={"overwrite": True},
                    auto_configure_optimizers=False,
                    seed_everything_default=0,
                    args=None if args is None else given,  # Lightning warns about arguments it could take itself
                )
    except (DataError, CheckpointError) as error:
        # What a user can mend gets its sentence; everything else keeps its traceback.
        raise SystemExit(f"error: {error}") from error
    names = list(dict.fromkeys([*LIGHTNING_VERBS, *verbs]))  # a package's own predict takes the place of Lightning's
    usage = f"python -m {cli_class.package} {{{','.join(names)}}} [--help] ..."
    if verb in ("-h", "--help"):
        print(f"usage: {usage}")
        for name in verbs:
            print(f"  {name:<10} {(verbs[name].__doc__ or '').splitlines()[0]}")
        return None
    close = difflib.get_close_matches(verb, names, 1)
    raise SystemExit(f"usage: {usage}\nerror: no verb {verb!r}{f'; did you mean {close[0]}?' if close else ''}")
