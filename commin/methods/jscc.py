"""DeepJSCC: encoder and decoder, trained end to end over the noisy channel (section 2).

Shapes: B images, H x W pixels.
"""

from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from commin.data.images import to_float, training_images
from commin.data.module import ImageFoldersDataModule
from commin.model import DeepJSCC
from shared.methods import Method
from shared.metrics.image_quality import Lpips, psnr
from shared.optim import with_schedule

SNRS = (-5.0, -3.0, -1.0, 1.0, 3.0, 5.0)  # section 4
WATCHED = 64  # training images whose PSNR is logged beside that of unseen ones


def unit_range(x: Tensor) -> Tensor:
    """Images in [-1, 1] as metrics take them: clipped, in [0, 1]."""
    return (x / 2 + 0.5).clamp(0, 1)


def draw_channel(net: DeepJSCC, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each image an SNR, uniform over the range that the network is trained for (section 4), and unit noise."""
    noise = torch.randn(len(like), net.symbols, 2, device=like.device) / 2**0.5
    snr_db = torch.empty(len(like), device=like.device).uniform_(net.snr_low, net.snr_high)
    return snr_db, torch.view_as_complex(noise)


class JSCC(Method):
    """Encoder and decoder for all SNRs together (Eqs. 5 and 6).

    Logged each epoch: `train/loss`; the mean PSNR over the paper's six SNRs, `val/psnr` on validation images and
    `seen/psnr` on some training images without augmentation. A network that memorises shows as a gap between them.

    Args:
        net: Encoder and decoder.
        optimizer: Makes the optimiser.
        augment: Changes every training image on its own, from uint8 to floats in [0, 1].
        lpips_weight: Weight of LPIPS in the loss, beside the mean squared error of Eq. 6 (of images in [0, 1]): a rival
            that is trained for the measure that it is judged by.
        lpips_weights: File of LPIPS's weights, see `shared.metrics.image_quality.Lpips`.
        lr_schedule: Constant, or a half cosine to 0.
        seed: Of the channel's noise in validation.

    Raises:
        ValueError: LPIPS has a weight in the loss and no file.
    """

    title = "DeepJSCC"
    machine_arguments = ("lpips_weights",)

    def __init__(
        self,
        net: DeepJSCC,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        augment: nn.Module | None = None,
        lpips_weight: float = 0.0,
        lpips_weights: str | None = None,
        lr_schedule: Literal["constant", "cosine"] = "constant",
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer)
        self.net, self.augment = net, augment
        self.lpips_weight, self.lpips_weights = lpips_weight, lpips_weights
        self.lr_schedule, self.seed = lr_schedule, seed
        self._lpips: list[Lpips] = []  # a list, so that its weights are no part of the checkpoint

    @classmethod
    def variant_title(cls, settings: dict[str, Any]) -> str:  # type: ignore[override]
        """The method, and whether it was trained for LPIPS too."""
        return f"{cls.title} (LPIPS loss)" if settings.get("lpips_weight") else cls.title

    def on_fit_start(self) -> None:
        """Read LPIPS's weights where the loss needs them."""
        if self.lpips_weight:
            if self.lpips_weights is None:
                raise ValueError("lpips_weight asks for LPIPS in the loss: give lpips_weights, a file of its weights")
            self._lpips = [Lpips(self.lpips_weights).to(self.device)]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Eq. 6, each image at an SNR of its own."""
        x = training_images(batch.image, self.augment)
        y = self.net(x, *draw_channel(self.net, x))
        loss: Tensor = (y - x).square().mean() / 4  # of images in [0, 1]
        for lpips in self._lpips:
            loss = loss + self.lpips_weight * lpips(y / 2 + 0.5, x / 2 + 0.5).mean()
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """PSNR of unseen images, the same noise after each epoch."""
        values = self.psnr(batch.image, batch.key)
        self.log("val/psnr", values.mean(), prog_bar=True, batch_size=len(values), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """PSNR of images that were trained on."""
        data: ImageFoldersDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        image, key = data.some("train", WATCHED)
        values = self.psnr(image.to(self.device), key)
        self.log("seen/psnr", values.mean(), prog_bar=True, batch_size=len(values), sync_dist=True)

    @torch.no_grad()
    def psnr(self, image: Tensor, key: Tensor) -> Tensor:
        """Mean over the paper's SNRs of each image's PSNR in dB, `(B,)`."""
        x = to_float(image)
        noise = self.net.noise_for(self.seed, key).to(x.device)
        return torch.stack(
            [psnr(unit_range(self.net(x, x.new_full((len(x),), snr), noise)), unit_range(x)) for snr in SNRS]
        ).mean(0)

    def configure_optimizers(self) -> Any:
        """The optimiser, with a schedule for each step where one is asked for."""
        return with_schedule(self.optimizer(self.net.parameters()), self, 0, self.lr_schedule)
