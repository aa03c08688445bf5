"""What every method is to the runs and tables: a LightningModule with a title, which its checkpoint can rebuild."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
from pytorch_lightning.cli import OptimizerCallable

from shared.checkpoint import plain_hyperparameters


class Method(pl.LightningModule):
    """A method that can be trained and compared.

    Args:
        optimizer: Makes the optimiser of the trained parameters.

    Attributes:
        title: What tables and figures call the method.
        machine_arguments: Arguments that are this machine's business (folders to write to, say): they are not written
            to a checkpoint, nor taken from one.
    """

    title: ClassVar[str]
    machine_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, optimizer: OptimizerCallable) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # Lightning's advice to leave modules out of the hyper-parameters: `on_save_checkpoint` does.
            warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters()
        self.optimizer = optimizer

    @classmethod
    def variant_title(cls, settings: Mapping[str, Any]) -> str:
        """What tables and figures call a variant of the method.

        Args:
            settings: The `init_args` of the model in a run's `config.yaml`.
        """
        return cls.title

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only hyper-parameters that are plain values, so that the file loads as weights and plain values."""
        hyperparameters = checkpoint.get("hyper_parameters", {})
        checkpoint["hyper_parameters"] = plain_hyperparameters(hyperparameters, leave_out=self.machine_arguments)
