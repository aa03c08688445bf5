"""`CommIN`: an invertible network that mimics a communication chain, so that it can guide a diffusion model.

Shapes: B images, H x W pixels.
"""

import hashlib
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from commin.data.images import to_float, training_images
from commin.data.module import ImageFoldersDataModule
from commin.familiarity import Familiarity
from commin.methods.jscc import SNRS, draw_channel
from commin.model import DeepJSCC, DiffusionPrior
from commin.model.invertible import Degradation, to_y_loss
from shared.checkpoint import CheckpointError, weight_bytes
from shared.methods import Method
from shared.optim import with_schedule

KNOWN = 4096  # training images whose coarse parts are kept
REPEATED = 16  # transmissions of one image, whose variance is the floor of the INN's loss


class CommIN(Method):
    r"""CommIN (Chen et al.): its INN is trained here; encoder and decoder, and the prior, come frozen from other runs.

    .. math:: L(\Theta) = \frac1N \sum_i \lVert c_i - y_i \rVert^2 \quad \text{(Eq. 9)}, \qquad (c, d) = INN(x), \;
        y = g_\phi(\eta(f_\theta(x), \sigma^2))

    The pairs (x, y) are made while training, by sending the augmented image at an SNR of its own, and never stored. A
    checkpoint holds all three networks, so that it suffices to receive images (`commin.receivers`).

    Logged each epoch, means over the paper's six SNRs and in the pixels' range of 2: `val/coarse`, the mean squared
    error between c and y; `val/floor`, the variance of y over transmissions of the same image, below which no function
    of x can come; and `val/identity`, the error of x itself in c's place.

    Args:
        jscc: Encoder and decoder, with the weights of a `commin.JSCC` run.
        prior: The diffusion model, with those of a `commin.Diffusion` run, or a pretrained one.
        inn: What mimics the chain, see `commin.model.invertible`.
        optimizer: Makes the optimiser of the INN.
        augment: Changes every training image on its own, from uint8 to floats in [0, 1].
        lr_schedule: Constant, or a half cosine to 0.
        seed: Of the channel's noise in validation.

    Attributes:
        familiarity: What the INN was trained on, to tell whether a picture is like it; None before training.
        sent_by: `(16,)` uint8, fingerprint of the encoder and decoder that the INN was trained for.
    """

    title = "CommIN"
    sent_by: Tensor

    def __init__(
        self,
        jscc: DeepJSCC,
        prior: DiffusionPrior,
        inn: Degradation,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        augment: nn.Module | None = None,
        lr_schedule: Literal["constant", "cosine"] = "constant",
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer)
        self.jscc, self.prior, self.inn = jscc, prior, inn
        self.augment, self.lr_schedule, self.seed = augment, lr_schedule, seed
        self.familiarity: Familiarity | None = None
        self.register_buffer("sent_by", _fingerprint(jscc))
        for frozen in (jscc, prior):
            frozen.requires_grad_(False)

    def train(self, mode: bool = True) -> "CommIN":
        """Only the INN trains."""
        super().train(mode)
        self.jscc.eval()
        self.prior.eval()
        return self

    def on_fit_start(self) -> None:
        """Keep whose chain is mimicked, and on which pictures."""
        self.sent_by.copy_(_fingerprint(self.jscc))
        data: ImageFoldersDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.familiarity = Familiarity.of(*(data.some(part, KNOWN)[0] for part in ("train", "val")))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the pictures were like."""
        super().on_save_checkpoint(checkpoint)
        if self.familiarity is not None:
            checkpoint["familiarity"] = {"known": self.familiarity.known, "limit": self.familiarity.limit}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        if saved := checkpoint.get("familiarity"):
            self.familiarity = Familiarity(saved["known"], float(saved["limit"]))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the weights.

        Raises:
            CheckpointError: Encoder and decoder are not those that the INN was trained for.
        """
        loaded = super().load_state_dict(*args, **kwargs)
        if not torch.equal(self.sent_by.cpu(), _fingerprint(self.jscc)):
            raise CheckpointError(
                "this INN was trained for another encoder and decoder than those beside it: train it for these"
            )
        return loaded

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Eq. 9."""
        x = training_images(batch.image, self.augment)
        snr_db, noise = draw_channel(self.jscc, x)
        with torch.no_grad():
            y = self.jscc(x, snr_db, noise)
        c, _ = self.inn(x, snr_db)
        loss = to_y_loss(c, self.inn.coarse_of(y))
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """How well the coarse part mimics what is received."""
        found = {name: value.mean() for name, value in self.mimicry(batch.image, batch.key).items()}
        for name, value in found.items():
            self.log(f"val/{name}", value, prog_bar=True, batch_size=len(batch.image), sync_dist=True)

    @torch.no_grad()
    def mimicry(self, image: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Mean squared errors of each image, `(6, B)`, one row an SNR: `coarse`, `identity`, and their `floor`."""
        x = to_float(image)
        found: dict[str, list[Tensor]] = {"coarse": [], "identity": [], "floor": []}
        for snr in SNRS:
            snr_db = x.new_full((len(x),), snr)
            sent = torch.stack(
                [
                    self.inn.coarse_of(self.jscc(x, snr_db, self.jscc.noise_for(self.seed + n, key).to(x.device)))
                    for n in range(REPEATED)
                ]
            )
            c, _ = self.inn(x, snr_db)
            own = self.inn.coarse_of(x)
            found["coarse"].append((c - sent).square().mean(0).flatten(1).mean(1))
            found["identity"].append((own - sent).square().mean(0).flatten(1).mean(1))
            found["floor"].append(sent.var(0).flatten(1).mean(1))
        return {name: torch.stack(values) for name, values in found.items()}

    def configure_optimizers(self) -> Any:
        """The optimiser of the INN, with a schedule for each step where one is asked for."""
        return with_schedule(self.optimizer(self.inn.parameters()), self, 0, self.lr_schedule)


def _fingerprint(net: nn.Module) -> Tensor:
    """A digest of a network's weights, `(16,)` uint8."""
    digest = hashlib.blake2b(digest_size=16)
    for part in weight_bytes(net):
        digest.update(part)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
