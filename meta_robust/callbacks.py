"""Checkpoints of every epoch, among which the evaluation chooses by the target's validation classes."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

FOLDER = "epochs"  # in a run's folder of checkpoints


class KeepEpochs(ModelCheckpoint):
    """Keeps the weights after every epoch, as `checkpoints/epochs/<epoch>.ckpt`."""

    def __init__(self) -> None:
        super().__init__(filename="{epoch:03d}", auto_insert_metric_name=False, save_top_k=-1, save_weights_only=True)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Fix the folder; Lightning would take that of a logger."""
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints" / FOLDER)
        super().setup(trainer, pl_module, stage)


def kept_epochs(run: Path) -> list[Path]:
    """The checkpoints of a run's epochs, in order."""
    return sorted((run / "checkpoints" / FOLDER).glob("*.ckpt"))
