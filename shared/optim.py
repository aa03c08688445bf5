"""Learning-rate schedules."""

from math import cos, pi
from typing import Any, Literal

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Linear warm-up to the optimizer's rate, then a half cosine to 0 or a constant rate; one `step()` per batch.

    Args:
        optimizer: Its learning rates are the peak.
        warmup_steps: Steps of warm-up; 0 for none.
        total_steps: Steps of the whole training; 0 keeps the rate constant after the warm-up.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = warmup_cosine(optimizer, warmup_steps=2, total_steps=4).lr_lambdas[0]
        >>> [round(schedule(step), 2) for step in range(5)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if not total_steps:
            return 1.0
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return (1 + cos(pi * min(1.0, progress))) / 2

    return LambdaLR(optimizer, factor)


def with_schedule(
    optimizer: Optimizer, module: pl.LightningModule, warmup_epochs: int, lr_schedule: Literal["constant", "cosine"]
) -> Any:
    """What `configure_optimizers` returns: the optimiser, and `warmup_cosine` at every step if a schedule is asked for.

    Args:
        optimizer: Its learning rates are the peak.
        module: The module whose trainer knows how many steps and epochs there will be.
        warmup_epochs: Epochs of linear warm-up.
        lr_schedule: `constant`, or `cosine`: a half cosine to 0 at the last step.
    """
    if lr_schedule == "constant" and not warmup_epochs:
        return optimizer
    trainer = module.trainer
    total = int(trainer.estimated_stepping_batches)
    warmup = round(total * warmup_epochs / max(1, trainer.max_epochs or 1))
    scheduler = warmup_cosine(optimizer, warmup, total if lr_schedule == "cosine" else 0)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
