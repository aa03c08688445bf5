"""Receivers: what is made of a transmission. All methods, controls and floors have this one interface.

Shapes: B images, H x W pixels, k complex symbols. Images are in [-1, 1].
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from commin.channel import awgn
from commin.data.images import to_float
from commin.model import DeepJSCC, GaussianBlur, LiftingINN
from commin.model.invertible import Degradation
from commin.module import CommIN
from commin.sampling import Consistency, Sampling, inn_consistency, mean_and_spread, paper_zeta, sample
from shared.data.problems import DataError

Guide = Literal["inn", "chain", "symbols", "none"]
SAMPLE = 7919  # between the seeds of an image's samples


class Received(NamedTuple):
    """What a receiver has.

    Attributes:
        y: `(B, 3, H, W)`, decoded by DeepJSCC.
        symbols: `(B, k)` complex, as they came from the channel.
        snr_db: `(B,)`, known to both sides (section 4: perfect channel knowledge).
        keys: `(B,)`, see `commin.noise.image_keys`.
    """

    y: Tensor
    symbols: Tensor
    snr_db: Tensor
    keys: Tensor


@torch.no_grad()
def transmit(jscc: DeepJSCC, image: Tensor, keys: Tensor, snr_db: Tensor, seed: int) -> Received:
    """Send images over the channel (Eqs. 1 to 3, and the decoder of Eq. 7).

    An image's noise depends on the seed and on the image alone, so that it is the same for all methods and, scaled, at
    all SNRs.

    Args:
        jscc: Encoder and decoder.
        image: `(B, 3, H, W)` uint8.
        keys: `(B,)`.
        snr_db: `(B,)`.
        seed: Of the channel.
    """
    noise = jscc.noise_for(seed, keys).to(image.device)
    symbols = awgn(jscc.encode(to_float(image), snr_db), snr_db, noise)
    return Received(jscc.decode(symbols, snr_db), symbols, snr_db, keys)


class Reconstruction(NamedTuple):
    """What a receiver made of a transmission.

    Attributes:
        image: `(B, 3, H, W)`.
        spread: `(B, H, W)`, how its samples differ at each pixel, see `mean_and_spread`; 0 with one sample.
    """

    image: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Receiver:
    """A diffusion model guided by what was received; a row of configs/receivers.yaml.

    Attributes:
        title: What tables call it.
        guide: What guides it: the INN (CommIN); the chain without noise, g(f(x)), against y (Eq. 8, as DPS); the
            encoder's symbols against those received (as DiffCom); or nothing, which shows what the start alone gives.
        inn: The INN: `trained`, the checkpoint's own; `untrained`, the same network as it was initialised, which is its
            split alone; or in its place a Gaussian `blur`.
        blur_sigma: Of the blur, in pixels.
        sampling: How the diffusion model is sampled.
        zeta: Step size of the guidance; None takes the paper's, by SNR (section 4).
        samples: Number of samples of an image, which are averaged.
        blend: Share of y in the result.
    """

    title: str
    guide: Guide = "inn"
    inn: Literal["trained", "untrained", "blur"] = "trained"
    blur_sigma: float = 1.5
    sampling: Sampling = field(default_factory=Sampling)
    zeta: float | None = None
    samples: int = 1
    blend: float = 0.0

    def reconstruct(
        self, model: CommIN, received: Received, seed: int, on_step: Callable[[], object] | None = None
    ) -> Reconstruction:
        """Reconstruct a batch. A result does not depend on the batch that it is in.

        Args:
            model: Encoder, decoder, prior and INN.
            received: The transmission.
            seed: Of the samples.
            on_step: Called after each step of each sample.
        """
        y, _, snr_db, keys = received
        zeta = paper_zeta(snr_db) if self.zeta is None else torch.full_like(snr_db, self.zeta)
        consistency = self._consistency(model, received)
        samples = torch.stack(
            [
                sample(model.prior, consistency, keys, zeta, self.sampling, seed + SAMPLE * n, y, on_step=on_step)
                for n in range(self.samples)
            ],
            dim=1,
        )
        if self.samples == 1:
            mean, spread = samples[:, 0], torch.zeros_like(y[:, 0])
        else:
            mean, spread = mean_and_spread(samples)
        return Reconstruction((1 - self.blend) * mean + self.blend * y, spread)

    def _consistency(self, model: CommIN, received: Received) -> Consistency | None:
        y, symbols, snr_db, _ = received
        jscc = model.jscc
        if self.guide == "none":
            return None
        if self.guide == "symbols":
            return lambda x: torch.view_as_real(jscc.encode(x, snr_db) - symbols)
        if self.guide == "chain":
            return lambda x: jscc.decode(jscc.encode(x, snr_db), snr_db) - y
        return inn_consistency(self.degradation(model), y, snr_db)

    def degradation(self, model: CommIN) -> Degradation:
        """The INN, or what stands in its place."""
        if self.inn == "blur":
            return GaussianBlur(self.blur_sigma).to(model.device)
        if self.inn == "untrained":
            fresh = copy.deepcopy(model.inn)
            if not isinstance(fresh, LiftingINN):
                raise DataError(f"{self.title} is a receiver for a LiftingINN, not for {type(fresh).__name__}")
            fresh.reset()
            return fresh
        return model.inn
