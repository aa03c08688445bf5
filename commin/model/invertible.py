"""What mimics the communication chain: an invertible network, and what may stand in its place (section 3.2, Fig. 3).

Each splits an image into a coarse part, which is to look like what is received, and the details that are lost. With
the received image in the coarse part's place, the inverse gives an image that has both.

All of it is computed in float32 (float64 for float64 images), also under autocast: in half precision the inverse would
not undo the forward pass.

Shapes: B images, H x W pixels.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commin.model.cosine import cosine_transform
from shared.data.problems import DataError

Split = Literal["frame", "decimated", "augmented"]


class Degradation(nn.Module):
    """Splits images into a coarse part and details, and merges the two.

    Members say how in `split` and `merge`, which are called with autocast off.
    """

    def forward(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        """Split images.

        Args:
            x: `(B, 3, H, W)` in [-1, 1].
            snr_db: `(B,)`, each image's.

        Returns:
            c, the coarse part, and d, the details; see each member for their shapes.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self.split(_exact(x), snr_db)

    def inverse(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        """Merge a coarse part, the image's own or another's, with details: `(B, 3, H, W)`."""
        with torch.autocast(c.device.type, enabled=False):
            return self.merge(_exact(c), _exact(d), snr_db)

    def coarse_of(self, y: Tensor) -> Tensor:
        """A received image `(B, 3, H, W)` as it stands in the coarse part's place."""
        return _exact(y)

    def reanalysis_gap(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        """How far a coarse part is from that of the image it is merged into, `(B,)`, root mean square.

        It is 0 if c is that of an image, and for any c if the split is a bijection. A redundant one (`frame`,
        `augmented`, and all that stand in the network's place) has more pairs (c, d) than images.
        """
        found: Tensor = self(self.inverse(c, d, snr_db), snr_db)[0]
        return (found - c).square().flatten(1).mean(1).sqrt()

    def picture(self, part: Tensor) -> Tensor:
        """A coarse part or details to look at, `(B, 3, H, W)`; details are about 0."""
        return part

    def split(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` does."""
        raise NotImplementedError

    def merge(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        """What `inverse` does."""
        raise NotImplementedError


def to_y_loss(c: Tensor, y: Tensor) -> Tensor:
    """The loss of Eq. 9, with the mean over pixels instead of their sum, so that it does not grow with the image.

    Args:
        c: The coarse parts of images.
        y: What was received of these, as `coarse_of` gives it; of the same shape.
    """
    return (c - y).square().mean()


class LiftingINN(Degradation):
    """The paper's invertible network: lifting steps between a coarse part and details (Fig. 3).

    A fixed transform splits the image. Then each step subtracts from the details what a network predicts from the
    coarse part (PNet), and adds to the coarse part an update from the details (UNet). As initialised, these networks
    give 0, so that only the fixed transform remains. It is one of:

    - `decimated`: the coarse part is the mean of each 2 x 2 pixels, the details three differences, and the lifting
      follows; the next level splits the coarse part, with the same networks. It is a bijection: c is
      `(B, 3, H / 2^L, W / 2^L)`, d is `(B, 3 (4^L - 1), H / 2^L, W / 2^L)`, and a received image counts by the same
      means.
    - `frame`: two filters that are each other's complement, so that their squared responses sum to 1, of the whole
      image; merging applies both once more. c and d are `(B, 3, H, W)`.
    - `augmented`: a Gaussian blur, and the image less this blur; merging adds them. c and d are `(B, 3, H, W)`.

    Args:
        split: Which.
        levels: L: how often `decimated` halves the image. The filters of the other two are as wide as its means.
        steps: Lifting steps, each a PNet and a UNet.
        width: Channels within the networks.
        blocks: Residual blocks of each network.
        snr_conditioned: Whether one network serves all SNRs, which scale its residual branches; otherwise it does not
            know the SNR, and one is trained for each, as in the paper.

    Raises:
        ValueError: There is no such split, no level or no step.
    """

    def __init__(
        self,
        split: Split = "decimated",
        levels: int = 2,
        steps: int = 4,
        width: int = 32,
        blocks: int = 2,
        snr_conditioned: bool = True,
    ) -> None:
        super().__init__()
        if split not in ("frame", "decimated", "augmented"):
            raise ValueError(f"split must be frame, decimated or augmented, got {split!r}")
        if levels < 1 or steps < 1:
            raise ValueError(f"levels and steps must be at least 1, got {levels} and {steps}")
        self.kind, self.levels = split, levels
        self.sigma = math.sqrt((4**levels - 1) / 12)  # standard deviation of a mean over 2^L pixels
        details = 9 if split == "decimated" else 3
        self.embed = SnrEmbedding(width) if snr_conditioned else None
        self.predict = nn.ModuleList([_ConvNet(3, details, width, blocks, snr_conditioned) for _ in range(steps)])
        self.update = nn.ModuleList([_ConvNet(details, 3, width, blocks, snr_conditioned) for _ in range(steps)])

    def coarse_of(self, y: Tensor) -> Tensor:
        """See `Degradation`; `decimated` takes the means of 2^L x 2^L pixels."""
        return F.avg_pool2d(_exact(y), 2**self.levels) if self.kind == "decimated" else _exact(y)

    def split(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        """See `Degradation`.

        Raises:
            DataError: A side is no multiple of 2^L pixels, and the split is `decimated`.
        """
        snr = self.embed(snr_db.to(x)) if self.embed else None
        if self.kind == "frame":
            return self._lift(*_filtered(x, self.sigma), snr)
        if self.kind == "augmented":
            low = blur(x, self.sigma)
            return self._lift(low, x - low, snr)
        unit = 2**self.levels
        if x.shape[2] % unit or x.shape[3] % unit:
            raise DataError(
                f"an image of {x.shape[2]} x {x.shape[3]} pixels cannot be halved {self.levels} times: give sides that "
                f"are multiples of {unit}"
            )
        c, details = x, []
        for level in range(self.levels):
            c, d = self._lift(*_means_and_differences(c), snr)
            details.append(F.pixel_unshuffle(d, 2 ** (self.levels - 1 - level)))
        return c, torch.cat(details, 1)

    def merge(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        """See `Degradation`."""
        snr = self.embed(snr_db.to(c)) if self.embed else None
        if self.kind == "frame":
            c, d = self._unlift(c, d, snr)
            return _filtered(c, self.sigma)[0] + _filtered(d, self.sigma)[1]
        if self.kind == "augmented":
            return torch.add(*self._unlift(c, d, snr))
        for finer in self._levels_of(d):
            c = _from_means_and_differences(*self._unlift(c, finer, snr))
        return c

    def picture(self, part: Tensor) -> Tensor:
        """See `Degradation`; those of `decimated` go through the fixed transform alone."""
        if self.kind != "decimated":
            return part
        if part.shape[1] == 3:  # coarse
            return F.interpolate(part, scale_factor=2.0**self.levels)
        image = part.new_zeros(len(part), 3, *part.shape[2:])
        for finer in self._levels_of(part):
            image = _from_means_and_differences(image, finer)
        return image

    def reset(self) -> None:
        """Make the networks give 0 again, so that only the fixed transform remains."""
        for net in [*self.predict, *self.update]:
            net.reset()

    def _levels_of(self, d: Tensor) -> list[Tensor]:
        """The differences of each level of `decimated`, `(B, 9, ...)`, the coarsest first."""
        sizes = [9 * 4**level for level in reversed(range(self.levels))]
        return [F.pixel_shuffle(part, 2**level) for level, part in enumerate(reversed(d.split(sizes, 1)))]

    def _lift(self, c: Tensor, d: Tensor, snr: Tensor | None) -> tuple[Tensor, Tensor]:
        for predict, update in zip(self.predict, self.update, strict=True):
            d = d - predict(c, snr)
            c = c + update(d, snr)
        return c, d

    def _unlift(self, c: Tensor, d: Tensor, snr: Tensor | None) -> tuple[Tensor, Tensor]:
        for predict, update in zip(reversed(self.predict), reversed(self.update), strict=True):
            c = c - update(d, snr)
            d = d + predict(c, snr)
        return c, d


class GaussianBlur(Degradation):
    """A blur in the network's place: c is the blurred image, d the rest, both `(B, 3, H, W)`. Nothing is trained.

    Args:
        sigma: Standard deviation in pixels.

    Raises:
        ValueError: It is not positive.
    """

    def __init__(self, sigma: float = 2.0) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.sigma = sigma

    def split(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        """See `Degradation`."""
        c = blur(x, self.sigma)
        return c, x - c

    def merge(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        """See `Degradation`."""
        return c + d


class PlainCNN(Degradation):
    """A network that need not be invertible in the INN's place: c = f(x), d = x - c, both `(B, 3, H, W)`.

    It works on squares of 2 x 2 pixels, like the first level of a `decimated` INN. As initialised, c is x. The defaults
    have about as many parameters as that INN: 0.33 M, and 0.35 M there.

    Args:
        width: Channels within the network.
        blocks: Residual blocks.
        snr_conditioned: See `LiftingINN`.
    """

    def __init__(self, width: int = 64, blocks: int = 4, snr_conditioned: bool = True) -> None:
        super().__init__()
        self.embed = SnrEmbedding(width) if snr_conditioned else None
        self.net = _ConvNet(12, 12, width, blocks, snr_conditioned)

    def split(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        """See `Degradation`.

        Raises:
            DataError: A side is odd.
        """
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise DataError(f"an image of {x.shape[2]} x {x.shape[3]} pixels has an odd side: give even ones")
        snr = self.embed(snr_db.to(x)) if self.embed else None
        change = F.pixel_shuffle(self.net(F.pixel_unshuffle(x, 2), snr), 2)
        return x + change, -change

    def merge(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        """See `Degradation`."""
        return c + d


class SnrEmbedding(nn.Module):
    """SNRs as features: `(B,)` in dB to `(B, width)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, snr_db: Tensor) -> Tensor:
        """`(B,)` to `(B, width)`."""
        features: Tensor = self.layers(snr_db[:, None] / 5)  # the paper's range is [-1, 1] then
        return features


class _ConvNet(nn.Module):
    """PNet or UNet: a convolution, residual blocks that the SNR scales, and a convolution that starts at 0."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int, snr_conditioned: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.ModuleList([_ResidualBlock(width, snr_conditioned) for _ in range(blocks)])
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        self.reset()

    def reset(self) -> None:
        for value in self.last.parameters():
            nn.init.zeros_(value)

    def forward(self, x: Tensor, snr: Tensor | None) -> Tensor:
        y = self.first(x)
        for block in self.blocks:
            y = block(y, snr)
        found: Tensor = self.last(y)
        return found


class _ResidualBlock(nn.Module):
    """Two convolutions, whose output is scaled by one plus a function of the SNR, beside a shortcut."""

    def __init__(self, width: int, snr_conditioned: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.scale = nn.Linear(width, width) if snr_conditioned else None

    def forward(self, x: Tensor, snr: Tensor | None) -> Tensor:
        y: Tensor = self.layers(x)
        if self.scale is not None:
            y = y * (1 + self.scale(snr))[:, :, None, None]
        return x + y


def blur(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of images `(B, C, H, W)`, which are reflected at their borders; sigma in pixels."""
    return _filtered(x, sigma)[0]


def _filtered(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    r"""A Gaussian low-pass and its complement, :math:`g_\text{high} = \sqrt{1 - g_\text{low}^2}`, of images.

    Both are products with the coefficients of the cosine transform, so that they are symmetric, reflect the image at
    its borders, and give the image back where each is applied twice and the two are added.
    """
    rows, columns = (cosine_transform(side).to(x) for side in x.shape[2:])
    frequency = [math.pi / n * torch.arange(n, dtype=x.dtype, device=x.device) for n in x.shape[2:]]
    square = sigma**2 * (frequency[0].square()[:, None] + frequency[1].square())
    coefficients = rows @ x @ columns.mT
    low, high = torch.exp(-square / 2), (-torch.expm1(-square)).sqrt()
    return rows.mT @ (coefficients * low) @ columns, rows.mT @ (coefficients * high) @ columns


def _means_and_differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haar's transform of 2 x 2 pixels: `(B, C, H, W)` to means `(B, C, H/2, W/2)` and differences `(B, 3C, ...)`.

    Scaled so that means of means stay in the image's range.
    """
    a, b, c, d = x[:, :, ::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
    return (a + b + c + d) / 4, torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 4


def _from_means_and_differences(mean: Tensor, differences: Tensor) -> Tensor:
    """The inverse of `_means_and_differences`."""
    across, down, diagonal = differences.chunk(3, 1)
    pixels = [
        *(mean + across + down + diagonal, mean - across + down - diagonal),
        *(mean + across - down - diagonal, mean - across - down + diagonal),
    ]
    return F.pixel_shuffle(torch.stack(pixels, 2).flatten(1, 2), 2)


def _exact(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
