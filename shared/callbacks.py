"""Lightning callbacks that every run has: seeding per epoch, throughput and memory, progress, and the run's record."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter, Callback, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from shared.data.module import DataModule, check_unseen, saved_fingerprint
from shared.data.problems import DataError
from shared.progress import SECONDS
from shared.runs.results import environment, update_results
from shared.runs.tracking import RunCSVLogger, run_dir_of


class SeedEachEpoch(Callback):
    """Seeds all generators before the first step of every epoch, from (seed, epoch, rank).

    So a run that is resumed from the last finished epoch draws the same numbers as an uninterrupted one, although no
    generator's state is saved. (Lightning's own resume restores none.) This holds for draws in `training_step`, so
    augment there. The seeding is not done at the epoch's start, because making a DataLoader's iterator draws too, and
    a resumed run makes it earlier.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed Python, NumPy and torch."""
        if batch_idx:
            return
        mixed = torch.Generator().manual_seed(
            self.seed * 1_000_003 + trainer.current_epoch * 1_009 + trainer.global_rank
        )
        pl.seed_everything(int(torch.randint(2**31, (1,), generator=mixed)), workers=False, verbose=False)


class Throughput(Callback):
    """Logs, each epoch, samples per second, the share of time spent waiting for data, and peak memory.

    `throughput/samples_per_second` counts the global batch; `throughput/data_wait` is in [0, 1]; neither includes
    validation. `throughput/peak_memory_gb` is the device's peak on CUDA, otherwise the process's. With several
    processes each value is their mean.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def _lap(self) -> float:
        last, self._last = self._last, time.perf_counter()
        return self._last - last

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks."""
        self._samples = 0
        self._waited = self._stepped = 0.0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._lap()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last step as waiting."""
        self._waited += self._lap()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        if trainer.is_last_batch and torch.cuda.is_available():
            torch.cuda.synchronize()  # wait for the steps that are still running
        self._samples += len(batch[0]) * trainer.world_size
        self._stepped += self._lap()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not count a validation in mid-epoch."""
        self._lap()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's values."""
        seconds = max(self._waited + self._stepped, 1e-9)
        pl_module.log_dict(
            {
                "throughput/samples_per_second": self._samples / seconds,
                "throughput/data_wait": self._waited / seconds,
                "throughput/peak_memory_gb": peak_memory_gb(),
            },
            sync_dist=True,
        )


def peak_memory_gb() -> float:
    """Peak memory so far in GB: of the CUDA allocator if there is a GPU, otherwise of the process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


class RunRecord(Callback):
    """Writes `environment.txt` when a run starts and `results.json` when it has finished.

    Its state in a checkpoint is the time that the training has taken so far, so that of a resumed run is counted too.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time that the training has taken, up to now."""
        return self._before + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        """The time so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the time of the checkpoint; one of an earlier version has none."""
        self._before = float(state_dict.get("seconds", 0.0))

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and write the environment."""
        self._started = time.perf_counter()
        if (run_dir := run_dir_of(trainer)) is not None:
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "environment.txt").write_text(environment())

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the rows from before an interruption back into `metrics.csv`."""
        for logger in trainer.loggers:
            if isinstance(logger, RunCSVLogger):
                logger.keep_until(trainer.global_step)

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record what the training cost, and its best validation value; this marks the run as finished."""
        run_dir = run_dir_of(trainer)
        if run_dir is None or trainer.interrupted:
            return
        # A run that was killed after its last epoch is resumed without running another one.
        self.on_train_start(trainer, pl_module)
        results = {
            "fit/epochs": trainer.current_epoch,
            "fit/steps": trainer.global_step,
            "fit/seconds": self.seconds,
            "fit/peak_memory_gb": peak_memory_gb(),
        }
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None:
                results[f"fit/best_{callback.monitor}"] = float(callback.best_model_score)
        update_results(run_dir, results)


class SaveData(Callback):
    """Writes a record of the run's data, so that it is known later what the model was trained on."""

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record into the run's folder."""
        data, run_dir = trainer.datamodule, run_dir_of(trainer)  # type: ignore[attr-defined]
        if run_dir is None or not isinstance(data, DataModule):
            return
        before = saved_fingerprint(run_dir) if trainer.ckpt_path else ""
        if before and before != data.fingerprint():
            raise DataError(
                f"{run_dir} was begun on other data, so it cannot be resumed on these: give this run a name of its "
                "own with --run.variant NAME, or replace it with --run.overwrite true"
            )
        data.save(run_dir)


class CheckUnseen(Callback):
    """Refuses to test a run on samples that it was trained or selected on, see `shared.data.module.check_unseen`.

    Args:
        run: Folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the data, once the data module has read them."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, DataModule):
            check_unseen(self.run, data)


class LogProgress(Callback):
    """Where there is no terminal: a line every ten seconds with epoch, step, and the last logged values."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    @rank_zero_only
    def _say(self, trainer: pl.Trainer, doing: str) -> None:
        if time.monotonic() - self._said < SECONDS:
            return
        self._said = time.monotonic()
        values = ", ".join(f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items())
        print(f"{doing}{': ' if values else ''}{values}", file=sys.stderr, flush=True)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Say how far the training is."""
        self._say(trainer, f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {trainer.global_step}")

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Say that the validation goes on."""
        self._say(trainer, f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, validation")

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Say that the test goes on."""
        self._say(trainer, "test")

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Say that the prediction goes on."""
        self._say(trainer, "predict")


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict_step` returns (a dictionary of columns) as `predictions.parquet` in the run's folder.

    Args:
        folder: Folder in which the file is written.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(write_interval="epoch")
        self.folder = Path(folder)

    def write_on_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        """Join the batches and write them; distributed prediction writes one file per process."""
        import pandas as pd

        frames = [pd.DataFrame(columns) for columns in predictions]
        suffix = f"_{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"predictions{suffix}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(frames, ignore_index=True).to_parquet(path)
        print(f"wrote {path}")
