"""The prior: a diffusion model of clean images (section 3.3; Ho, Jain and Abbeel 2020).

Shapes: B images.
"""

from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from commin.data.images import to_float, training_images
from commin.data.module import ImageFoldersDataModule
from commin.model import DiffusionPrior
from commin.noise import unit_normal
from shared.methods import Method
from shared.optim import with_schedule

MEASURED = 4096  # training images whose mean and spectrum the network starts from
TIMES = 4  # of each validation image


class Diffusion(Method):
    """Learns to remove noise of any strength from images. It sees no channel.

    Logged each epoch: `train/loss` and `val/loss`, the latter with the same noise every time.

    Args:
        net: The denoiser.
        optimizer: Makes the optimiser.
        augment: Changes every training image on its own, from uint8 to floats in [0, 1].
        warmup_epochs: Epochs of linear warm-up of the learning rate.
        lr_schedule: Constant, or a half cosine to 0.
        seed: Of the noise in validation.
    """

    title = "Diffusion prior"

    def __init__(
        self,
        net: DiffusionPrior,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-4),
        augment: nn.Module | None = None,
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer)
        self.net, self.augment = net, augment
        self.warmup_epochs, self.lr_schedule, self.seed = warmup_epochs, lr_schedule, seed

    def on_fit_start(self) -> None:
        """Measure the images whose best linear denoiser the network starts from."""
        data: ImageFoldersDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        image, _ = data.some("train", MEASURED)
        self.net.measure(to_float(image.to(self.device)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss at a random time for each image."""
        x = training_images(batch.image, self.augment)
        t = torch.randint(self.net.train_steps, (len(x),), device=x.device)
        loss: Tensor = self.net.loss(x, torch.randn_like(x), t).mean()
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss at a few times, spread evenly over all of them."""
        x = to_float(batch.image)
        losses = []
        for place in range(TIMES):
            t = torch.full((len(x),), int((place + 0.5) / TIMES * self.net.train_steps), device=x.device)
            noise = unit_normal(self.seed, batch.key, x.shape[1:], place).to(x)
            losses.append(self.net.loss(x, noise, t).mean())
        self.log("val/loss", torch.stack(losses).mean(), prog_bar=True, batch_size=len(x), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimiser, with a schedule for each step where one is asked for."""
        return with_schedule(self.optimizer(self.net.parameters()), self, self.warmup_epochs, self.lr_schedule)
