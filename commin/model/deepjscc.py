"""DeepJSCC: an encoder and a decoder for all SNRs, trained end to end over the channel (section 2, Eqs. 5-7).

The paper takes the network of Erdemir et al. (2023), whose code is not public. This is the nearest that is described:
residual blocks that halve the image, generalised divisive normalisation (Ballé, Laparra and Simoncelli 2016), and gates
that let the SNR choose among the features (Xu et al. 2022), mirrored in the decoder with sub-pixel convolutions.

Shapes: B images, H x W pixels, k complex symbols an image, C channels.
"""

import logging
import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commin.channel import Channel, awgn, check_snr, normalise_power, unit_noise
from shared.backbones.weights import load_weights
from shared.data.problems import DataError

log = logging.getLogger(__name__)

SMALLEST = 1e-6  # beta of a GDN
PEDESTAL = 2.0**-36  # under the root of its parameters: their gradient does not vanish at 0


class _AtLeast(torch.autograd.Function):
    """The larger of a value and a bound; below the bound only gradients that lead back to it pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, bound: float) -> Tensor:
        """`max(value, bound)`."""
        ctx.save_for_backward(value)
        ctx.bound = bound
        return value.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient, or 0."""
        (value,) = ctx.saved_tensors
        return grad * ((value >= ctx.bound) | (grad < 0)), None


class GDN(nn.Module):
    r"""Generalised divisive normalisation, or its inverse (Ballé, Laparra and Simoncelli 2016): `(B, C, H, W)` to same.

    .. math:: y_i = x_i / \sqrt{\beta_i + \sum_j \gamma_{ij} x_j^2}

    The inverse multiplies by the root. Both parameters are kept as roots, which keeps them positive.

    Args:
        channels: C.
        inverse: Whether to multiply.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.gamma = nn.Parameter((0.1 * torch.eye(channels) + PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        beta = _AtLeast.apply(self.beta, (SMALLEST + PEDESTAL) ** 0.5) ** 2 - PEDESTAL
        gamma = _AtLeast.apply(self.gamma, PEDESTAL**0.5) ** 2 - PEDESTAL
        energy: Tensor = F.conv2d(x * x, gamma[:, :, None, None], beta)
        return x * (energy.sqrt() if self.inverse else energy.rsqrt())


class SnrGate(nn.Module):
    """A factor in (0, 1) for each channel, from the mean features and the SNR (Xu et al. 2022, "attention feature")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels + 1, channels // 2), nn.LeakyReLU(), nn.Linear(channels // 2, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor, snr: Tensor) -> Tensor:
        """`(B, C, H, W)` features and `(B, 1)` SNRs, scaled to [-1, 1]."""
        factor: Tensor = self.layers(torch.cat([x.mean((2, 3)), snr], 1))
        return x * factor[:, :, None, None]


class _Block(nn.Module):
    """Two convolutions with a shortcut, at half, the same or twice the resolution, and a gate."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1, inverse: bool = False) -> None:
        super().__init__()
        self.first = _resample(inputs, outputs, 3, scale)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = _resample(inputs, outputs, 1, scale)
        self.norm = GDN(outputs, inverse)
        self.gate = SnrGate(outputs)

    def forward(self, x: Tensor, snr: Tensor) -> Tensor:
        """`(B, C, H, W)` features and `(B, 1)` SNRs, see `SnrGate`."""
        y = self.norm(self.second(F.leaky_relu(self.first(x))))
        gated: Tensor = self.gate(y + self.shortcut(x), snr)
        return gated


def _resample(inputs: int, outputs: int, kernel: int, scale: float) -> nn.Module:
    if scale == 2:
        return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, kernel, padding=kernel // 2), nn.PixelShuffle(2))
    return nn.Conv2d(inputs, outputs, kernel, stride=round(1 / scale), padding=kernel // 2)


class DeepJSCC(nn.Module):
    """Encoder and decoder, which know the SNR (section 2); see the module's docstring for the architecture.

    The last features have as many channels as give every position the same number of symbols. So an image of any size
    can be sent; k grows with its area. An image whose sides are no multiple of the stride is padded by reflection at
    its right and lower ends, and cropped back. The features at half the image's resolution have half as many channels,
    since they take most of the time.

    Args:
        image_px: Side of the images that k is given for, in pixels.
        symbols: k, complex symbols for an image of that size.
        width: Channels of the features; 256 in the paper.
        stages: How often the image is halved; the stride is 2 ** stages.
        snr_low: Lowest SNR of training, in dB.
        snr_high: Highest.
        weights: File of weights, or checkpoint of a network that was trained as `net`, see `load_weights`; None leaves
            them random.

    Raises:
        ValueError: k is no multiple of the number of positions; there is no stage; the range of SNRs is empty; or see
            `load_weights`.

    Example:
        >>> net = DeepJSCC(image_px=64, symbols=32, width=8)
        >>> x, snr_db = torch.zeros(2, 3, 64, 64), torch.tensor([-5.0, 5.0])
        >>> net.encode(x, snr_db).shape, net(x, snr_db, net.noise_for(0, torch.tensor([7, 8]))).shape
        (torch.Size([2, 32]), torch.Size([2, 3, 64, 64]))
    """

    machine_arguments = ("weights",)  # a checkpoint holds them itself

    def __init__(
        self,
        image_px: int,
        symbols: int,
        width: int = 256,
        stages: int = 4,
        snr_low: float = -5.0,
        snr_high: float = 5.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if stages < 1:
            raise ValueError(f"stages must be at least 1, got {stages}")
        self.stride = 2**stages
        side = math.ceil(image_px / self.stride)
        if symbols < 1 or symbols % side**2:
            raise ValueError(
                f"{symbols} symbols do not fit images of {image_px} pixels with {stages} stages, which leave {side} x "
                f"{side} positions: give a multiple of {side**2}, or another number of stages"
            )
        if snr_low >= snr_high:
            raise ValueError(f"snr_low must be less than snr_high, got {snr_low} and {snr_high}")
        self.image_px, self.symbols, self.snr_low, self.snr_high = image_px, symbols, snr_low, snr_high
        self.of_position = symbols // side**2
        self._said: set[str] = set()

        widths = [width // 2] + [width] * (stages - 1)
        steps = list(pairwise(widths))
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 5, stride=2, padding=2), GDN(widths[0]))
        self.down = nn.ModuleList([*(_Block(fine, coarse, 0.5) for fine, coarse in steps), _Block(widths[-1], width)])
        self.to_symbols = nn.Conv2d(width, 2 * self.of_position, 3, padding=1)
        self.from_symbols = nn.Conv2d(2 * self.of_position, width, 3, padding=1)
        self.up = nn.ModuleList(
            [
                _Block(width, widths[-1], inverse=True),
                *(_Block(coarse, fine, 2, inverse=True) for fine, coarse in reversed(steps)),
            ]
        )
        self.to_image = _resample(widths[0], 3, 3, 2)
        if weights is not None:
            load_weights(self, weights, prefix="net.")

    def encode(self, x: Tensor, snr_db: Tensor) -> Tensor:
        """The symbols that are sent, of mean power 1 (Eq. 2).

        Args:
            x: `(B, 3, H, W)` images in [-1, 1].
            snr_db: `(B,)`, each image's.

        Returns:
            `(B, k)` complex.

        Raises:
            DataError: An image is smaller than the stride; or an SNR is NaN or infinite.
        """
        snr = self._scaled(snr_db).to(x)
        features = self.stem(self._padded(x))
        for block in self.down:
            features = block(features, snr)
        reals = _at_least_float32(self.to_symbols(features))
        return normalise_power(torch.complex(*reals.chunk(2, 1)).flatten(1))

    def decode(self, z_hat: Tensor, snr_db: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The image that is received.

        Args:
            z_hat: `(B, k)` complex symbols from the channel.
            snr_db: `(B,)`, each image's.
            size: H and W; None for images of `image_px`.

        Returns:
            `(B, 3, H, W)` in [-1, 1].

        Raises:
            DataError: An SNR is NaN or infinite.
        """
        height, width = size or (self.image_px, self.image_px)
        z = z_hat.unflatten(1, (self.of_position, math.ceil(height / self.stride), math.ceil(width / self.stride)))
        snr = self._scaled(snr_db).to(z.real)
        features = self.from_symbols(torch.cat([z.real, z.imag], 1))
        for block in self.up:
            features = block(features, snr)
        return _at_least_float32(self.to_image(features)).tanh()[:, :, :height, :width]

    def forward(self, x: Tensor, snr_db: Tensor, noise: Tensor, channel: Channel = awgn) -> Tensor:
        """y, what becomes of an image that is sent (Eq. 7).

        Args:
            x: `(B, 3, H, W)` images in [-1, 1].
            snr_db: `(B,)`, each image's.
            noise: `(B, k)` complex, of variance 1, see `noise_for`.
            channel: What adds the noise.

        Returns:
            `(B, 3, H, W)` in [-1, 1].

        Raises:
            DataError: See `encode`.
        """
        return self.decode(channel(self.encode(x, snr_db), snr_db, noise), snr_db, (x.shape[2], x.shape[3]))

    def noise_for(self, seed: int, keys: Tensor, *place: int) -> Tensor:
        """The channel's noise for images of `image_px`, `(B, k)` complex64, see `commin.channel.unit_noise`."""
        return unit_noise(seed, keys, self.symbols, *place)

    def _scaled(self, snr_db: Tensor) -> Tensor:
        """SNRs as the gates take them, `(B, 1)`: the range of training is [-1, 1]."""
        check_snr(snr_db)
        if (snr_db < self.snr_low).any() or (snr_db > self.snr_high).any():
            self._warn(f"an SNR is outside [{self.snr_low:g}, {self.snr_high:g}] dB, the range that was trained for")
        return (2 * (snr_db - self.snr_low) / (self.snr_high - self.snr_low) - 1)[:, None]

    def _padded(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) < self.stride:
            raise DataError(
                f"an image of {height} x {width} pixels is smaller than the network's stride of {self.stride}: "
                "enlarge it"
            )
        below, right = -height % self.stride, -width % self.stride
        if below or right:
            self._warn(
                f"images of {height} x {width} pixels are padded to {height + below} x {width + right} for sending"
            )
        return F.pad(x, (0, right, 0, below), mode="reflect")

    def _warn(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning(message)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
