"""`python -m tabular_imaging <verb>`: Lightning's subcommands and this package's own verbs."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import ArgsType
from pytorch_lightning.utilities import rank_zero_only

from shared.cli import QuintetCLI, run_main
from shared.runs.tracking import run_dir_of
from tabular_imaging.data.dvm_inventory import dvm
from tabular_imaging.data.module import SAMPLES, TabularImagingDataModule
from tabular_imaging.data.synthetic.adverts import write_synthetic
from tabular_imaging.verbs.evaluate import evaluate
from tabular_imaging.verbs.explain import explain
from tabular_imaging.verbs.predict import predict
from tabular_imaging.verbs.rank import rank
from tabular_imaging.verbs.table import print_table


class SaveData(Callback):
    """Writes what the table's columns are, `schema.json`, and which samples are in which split, `samples.csv`."""

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write them into the run's folder."""
        data, run_dir = trainer.datamodule, run_dir_of(trainer)  # type: ignore[attr-defined]
        if run_dir is not None and isinstance(data, TabularImagingDataModule):
            data.schema.save(run_dir / "schema.json")
            data.frame[["id", "split"]].to_csv(run_dir / SAMPLES, index=False)


class TabularImagingCLI(QuintetCLI):
    """The CLI of tabular_imaging; model and data are chosen by class_path."""

    package = "tabular_imaging"

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """With the schema and the splits kept beside the model."""
        trainer = super().instantiate_trainer(**kwargs)
        if self.subcommand == "fit":
            trainer.callbacks.append(SaveData())  # type: ignore[attr-defined]
        return trainer


def main(args: ArgsType = None) -> Any:
    """Run a verb; tests call `main([...])`."""
    verbs: dict[str, Callable[..., Any]] = {
        "synthetic": write_synthetic,
        "evaluate": evaluate,
        "rank": rank,
        "explain": explain,
        "table": print_table,
        "predict": predict,
        "dvm": dvm,
    }
    return run_main(TabularImagingCLI, verbs, args)
