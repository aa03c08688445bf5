"""What is measured of received images.

Shapes: N images, S SNRs; R rows, N or N S, those of an image together. Images are uint8.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from commin.data.images import to_float
from commin.evaluation.identification import rank1
from commin.model import DeepJSCC
from commin.receivers import Received
from shared.metrics.image_quality import Lpips, gradient_ssim, psnr, ssim

SENT_AGAIN = 8  # transmissions of a reconstruction
CHUNK = 256
LIMIT_DB = 100.0  # PSNR of equal images


class Judge:
    """Measures images that stand for the sent ones.

    Args:
        sent: `(N, 3, H, W)`, what was sent.
        person: `(N,)`, numbers of the persons that they show.
        trained_on: `(T, 3, H, W)`, training images.
        weights: File of LPIPS's weights, which hold AlexNet's; None leaves out what needs them.
    """

    def __init__(self, sent: Tensor, person: NDArray[np.int64], trained_on: Tensor, weights: str | Path | None) -> None:
        self.sent, self.person = sent, person
        self.trained_on = trained_on.float().flatten(1) / 255
        self.lpips = Lpips(str(weights)).eval() if weights else None
        self.has_persons = len(np.unique(person)) < len(person)
        self.gallery = self._features(sent) if self.has_persons else {}

    @torch.no_grad()
    def values(self, image: Tensor) -> dict[str, NDArray[np.float64]]:
        """Values of each row: `psnr` (dB), `ssim`, `gradient_ssim`, with weights `lpips`; and where persons are known
        whether the sent person is the nearest, `identified_pixels` and `identified_alexnet`; and `novelty`, the
        distance to the nearest training image (root mean square of the pixels).
        """
        repeated = self.sent.repeat_interleave(len(image) // len(self.sent), 0)
        metrics = {"psnr": psnr, "ssim": ssim, "gradient_ssim": gradient_ssim}
        if self.lpips is not None:
            metrics["lpips"] = self.lpips
        found: dict[str, NDArray[np.float64]] = {}
        for name, metric in metrics.items():
            parts = [
                metric(a.float() / 255, b.float() / 255)
                for a, b in zip(image.split(CHUNK), repeated.split(CHUNK), strict=True)
            ]
            found[name] = torch.cat(parts).double().numpy().clip(max=LIMIT_DB)
        if self.has_persons:
            own = np.repeat(np.arange(len(self.sent)), len(image) // len(self.sent))
            for name, features in self._features(image).items():
                hits = rank1(features, self.person[own], self.gallery[name], self.person, own)
                found[f"identified_{name}"] = hits.astype(np.float64)
        distance = torch.cdist(image.float().flatten(1) / 255, self.trained_on).min(1).values
        found["novelty"] = (distance / self.trained_on.shape[1] ** 0.5).double().numpy()
        return found

    def nearest_training(self, image: Tensor) -> Tensor:
        """Which training image is nearest to each row, `(R,)`."""
        return torch.cdist(image.float().flatten(1) / 255, self.trained_on).argmin(1)

    @torch.no_grad()
    def sent_again(self, image: Tensor, received: Received, jscc: DeepJSCC) -> dict[str, NDArray[np.float64]]:
        """`sent_again`: root mean square distance of y from what is received when a row is sent itself, with other
        noise. CommIN minimises something near to it, so that it decides nothing.
        """
        parts = []
        for rows in torch.arange(len(image)).split(CHUNK):
            x, y, snr_db, keys = to_float(image[rows]), received.y[rows], received.snr_db[rows], received.keys[rows]
            errors = [
                (jscc(x, snr_db, jscc.noise_for(1 + n, keys)) - y).square().flatten(1).mean(1)
                for n in range(SENT_AGAIN)
            ]
            parts.append((torch.stack(errors).mean(0) / 4).sqrt())
        return {"sent_again": torch.cat(parts).double().numpy()}

    def _features(self, image: Tensor) -> dict[str, NDArray[np.float64]]:
        """Features to identify persons by."""
        found = {"pixels": (image.float().flatten(1) / 255).double().numpy()}
        if self.lpips is not None:
            parts = [self.lpips.net(part) for part in image.split(CHUNK)]
            found["alexnet"] = torch.cat(parts).double().numpy()
        return found
