"""StyleGAN2 (Karras et al. 2020): the generator that InverseJSCC searches for the image that was sent, and its rival.

Written from the paper: no style normalisation of features but of the convolutions' weights, noise inputs, images that
are added up over the resolutions (skip architecture), a residual discriminator, and an equalised learning rate.

Shapes: B images of S x S pixels, C channels, D numbers of a latent, L = 2 log2(S) - 2 latents of an image.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.backbones.weights import load_weights, read_weights

SMALLEST = 4  # side of the learned constant
SLOPE = 0.2  # of the leaky ReLU
TINY = 1e-8  # inside roots
GROUP = 4  # images that the discriminator compares
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the filter that resamples; up-sampling with it is bilinear


def widths_of(image_px: int, channel_max: int, channel_base: int) -> list[int]:
    """Channels at 4, 8, ... S pixels: `channel_base` divided by the side, at most `channel_max`.

    Raises:
        ValueError: S is no power of two, or less than 8.
    """
    if image_px < 2 * SMALLEST or image_px & (image_px - 1):
        raise ValueError(f"StyleGAN2 needs images of 8, 16, 32, ... pixels, got {image_px}")
    sides = [SMALLEST * 2**layer for layer in range(int(math.log2(image_px / SMALLEST)) + 1)]
    return [min(channel_max, channel_base // side) for side in sides]


def first_place(layer: int) -> int:
    """Place of the first latent, and of the first noise, that a layer takes."""
    return max(0, 2 * layer - 1)


def activate(x: Tensor) -> Tensor:
    """A leaky ReLU, scaled so that the variance stays about the same."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


def upsample(x: Tensor) -> Tensor:
    """Bilinear to twice the size, with zeros around the image: `(B, C, H, W)` to `(B, C, 2H, 2W)`."""
    return F.conv_transpose2d(x, 4 * low_pass(x), stride=2, padding=1, groups=x.shape[1])


def smooth(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """A low-pass filter with zeros around the image; a stride of 2 with padding 1 halves the size."""
    return F.conv2d(x, low_pass(x), stride=stride, padding=padding, groups=x.shape[1])


def low_pass(x: Tensor) -> Tensor:
    """The filter of either, `(C, 1, 4, 4)`."""
    taps = x.new_tensor(TAPS) / sum(TAPS)
    return taps.outer(taps).expand(x.shape[1], 1, -1, -1)


def modulated_conv(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, up: bool = False) -> Tensor:
    r"""A convolution whose weights each image's style scales (Karras et al. 2020, Eqs. 1 and 3).

    .. math:: w'_{ijk} = s_i w_{ijk}, \qquad w''_{ijk} = w'_{ijk} / \sqrt{\textstyle\sum_{i,k} w'^2_{ijk} + \epsilon}

    Scaling the input by s and the output by the root is the same, and leaves one convolution for the whole batch.

    Args:
        x: `(B, C, H, W)`.
        weight: `(C', C, k, k)`.
        style: `(B, C)`.
        demodulate: Whether to divide by the root, which gives outputs of unit variance for such inputs.
        up: Whether the convolution, transposed then, doubles the size; the filter follows.

    Returns:
        `(B, C', H, W)`, or twice the size.
    """
    y = x * style[:, :, None, None]
    if up:
        y = 4 * smooth(F.conv_transpose2d(y, weight.transpose(0, 1), stride=2), padding=1)
    else:
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
    if demodulate:
        y = y * (style.square() @ weight.square().sum((2, 3)).T + TINY).rsqrt()[:, :, None, None]
    return y


class EqualLinear(nn.Module):
    """A linear layer with an equalised learning rate (Karras et al. 2018): weights are kept at unit variance.

    Args:
        inputs: Numbers that come in.
        outputs: Numbers that go out.
        bias: Initial bias.
        rate: Factor of the learning rate.
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs)` to `(B, outputs)`."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """A convolution with an equalised learning rate, without padding where it has a stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C', H, W)`."""
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class _Styled(nn.Module):
    """A modulated convolution, with noise and activation, or the one to colours with neither."""

    def __init__(self, inputs: int, outputs: int, latent_dim: int, up: bool = False, to_rgb: bool = False) -> None:
        super().__init__()
        kernel = 1 if to_rgb else 3
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualLinear(latent_dim, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = None if to_rgb else nn.Parameter(torch.zeros(()))
        self.scale, self.up = 1 / math.sqrt(inputs * kernel**2), up

    def forward(self, x: Tensor, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        plain = self.noise_strength is None
        y = modulated_conv(x, self.weight * self.scale, self.style(latent), demodulate=not plain, up=self.up)
        if self.noise_strength is not None and noise is not None:
            y = y + self.noise_strength * noise
        y = y + self.bias[:, None, None]
        return y if plain else activate(y)


class Hidden(NamedTuple):
    """What enters a layer of the generator.

    Attributes:
        features: `(B, C, s, s)`.
        image: `(B, 3, s, s)`, the sum of what earlier layers have added.
    """

    features: Tensor
    image: Tensor


class _Layer(nn.Module):
    """Everything at one resolution: convolutions, of which the first doubles the size, and what is added in colours."""

    def __init__(self, inputs: int | None, outputs: int, latent_dim: int) -> None:
        super().__init__()
        self.up = None if inputs is None else _Styled(inputs, outputs, latent_dim, up=True)
        self.conv = _Styled(outputs, outputs, latent_dim)
        self.to_rgb = _Styled(outputs, 3, latent_dim, to_rgb=True)

    def forward(self, hidden: Hidden, styles: Tensor, noises: Sequence[Tensor]) -> Hidden:
        x = hidden.features
        if self.up is not None:
            x = self.up(x, styles[:, 0], noises[0])
        x = self.conv(x, styles[:, -2], noises[-1])
        return Hidden(x, upsample(hidden.image) + self.to_rgb(x, styles[:, -1]))


class Generator(nn.Module):
    """Images from latents: `(B, D)` to `(B, 3, S, S)`, in about [-1, 1].

    A layer is a resolution: layer 0 is that of the constant, 4 x 4 pixels. The colours of a layer take the latent of
    the next layer's first convolution, as in the paper.

    Args:
        image_px: S, a power of two.
        latent_dim: D.
        channel_max: Most channels of a layer.
        channel_base: Channels of a layer times its side; the published FFHQ networks ("config F") have 32,768.
        mapping_layers: Of the network from the latents that are drawn to those that are used.
        weights: File of weights, or checkpoint of a network that was trained as `net`, see `load_weights`; or published
            weights of StyleGAN2 as a plain state dict, with the names that `from_published` knows. None leaves them
            random.

    Attributes:
        latents: L.
        noise_sides: Side of the noise that each convolution takes, in order.

    Raises:
        ValueError: S is no power of two; or see `load_weights`.

    Example:
        >>> net = Generator(32, latent_dim=8, channel_max=8)
        >>> net.latents, net.noise_sides, net(torch.zeros(2, 8)).shape
        (8, [4, 8, 8, 16, 16, 32, 32], torch.Size([2, 3, 32, 32]))
    """

    machine_arguments = ("weights",)  # a checkpoint holds them itself

    def __init__(
        self,
        image_px: int,
        latent_dim: int = 512,
        channel_max: int = 512,
        channel_base: int = 16384,
        mapping_layers: int = 8,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        widths = widths_of(image_px, channel_max, channel_base)
        self.image_px, self.latent_dim, self.latents = image_px, latent_dim, 2 * len(widths)
        self.noise_sides = [SMALLEST * 2 ** ((place + 1) // 2) for place in range(2 * len(widths) - 1)]
        self.mapping = nn.ModuleList([EqualLinear(latent_dim, latent_dim, rate=0.01) for _ in range(mapping_layers)])
        self.constant = nn.Parameter(torch.randn(widths[0], SMALLEST, SMALLEST))
        self.layers = nn.ModuleList(
            [_Layer(coarse, fine, latent_dim) for coarse, fine in pairwise([None, *widths]) if fine is not None]
        )
        if weights is not None:
            self._load(weights)

    def _load(self, path: str) -> None:
        found = read_weights(path, "net.")
        if "style.1.weight" not in found:
            load_weights(self, path, "net.")
            return
        try:
            self.load_state_dict(from_published(found))
        except RuntimeError as error:  # torch lists all that differs, a line each
            reason = str(error).splitlines()[1].strip()
            raise ValueError(f"the published weights {path} do not fit the generator: {reason}") from error

    def forward(self, z: Tensor, noises: Sequence[Tensor] | None = None) -> Tensor:
        """Images of standard normal latents `(B, D)`; for the noises see `advance`."""
        return self.synthesise(self.styles_of(z)[:, None].expand(-1, self.latents, -1), noises)

    def styles_of(self, z: Tensor) -> Tensor:
        """The mapping network: latents as they are drawn, `(B, D)`, to those that are used."""
        w = z * (z.square().mean(1, keepdim=True) + TINY).rsqrt()
        for layer in self.mapping:
            w = activate(layer(w))
        return w

    def synthesise(
        self,
        styles: Tensor,
        noises: Sequence[Tensor] | None = None,
        start_layer: int = 0,
        hidden: Hidden | None = None,
    ) -> Tensor:
        """Images `(B, 3, S, S)`; the arguments are those of `advance`."""
        return self.advance(styles, noises, start_layer, len(self.layers), hidden).image

    def advance(
        self,
        styles: Tensor,
        noises: Sequence[Tensor] | None,
        start_layer: int,
        stop_layer: int,
        hidden: Hidden | None = None,
    ) -> Hidden:
        """What enters `stop_layer`.

        Args:
            styles: `(B, L, D)` latents as `styles_of` gives them.
            noises: `(B, 1, s, s)` standard normal for each of `noise_sides`; None draws them.
            start_layer: The first layer to run.
            stop_layer: The layer before which to stop.
            hidden: What enters `start_layer`; None where that is layer 0.

        Raises:
            ValueError: Nothing enters a later layer, or there are other numbers of latents or noises.
        """
        count = len(styles)
        if noises is None:
            noises = [torch.randn(count, 1, side, side, device=styles.device) for side in self.noise_sides]
        if styles.shape[1:] != (self.latents, self.latent_dim) or len(noises) != len(self.noise_sides):
            raise ValueError(
                f"expected {self.latents} latents of {self.latent_dim} numbers and {len(self.noise_sides)} noises an "
                f"image, got {tuple(styles.shape[1:])} and {len(noises)}"
            )
        if hidden is None:
            if start_layer:
                raise ValueError(f"starting at layer {start_layer} needs what enters it: give hidden")
            # half the constant's size, so that layer 0 up-samples it like all others do
            hidden = Hidden(self.constant.expand(count, -1, -1, -1), self.constant.new_zeros(count, 3, 2, 2))
        for layer in range(start_layer, stop_layer):
            first = first_place(layer)
            hidden = self.layers[layer](hidden, styles[:, first : 2 * layer + 2], noises[first : 2 * layer + 1])
        return hidden


PUBLISHED = (  # name in the published weights, and here
    (r"^style\.(\d+)\.", lambda found: f"mapping.{int(found[1]) - 1}."),  # place 0 normalises and has no weights
    (r"^input\.input$", "constant"),
    (r"^(conv|to_rgb)1\.", r"layers.0.\1."),
    (r"^convs\.(\d+)\.", lambda found: f"layers.{int(found[1]) // 2 + 1}.{('up', 'conv')[int(found[1]) % 2]}."),
    (r"^to_rgbs\.(\d+)\.", lambda found: f"layers.{int(found[1]) + 1}.to_rgb."),
    (r"\.conv\.modulation\.", ".style."),
    (r"\.conv\.weight$", ".weight"),
    (r"\.noise\.weight$", ".noise_strength"),
    (r"\.activate\.bias$", ".bias"),
)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A generator's weights by the names of this module.

    The published weights of StyleGAN2, which may be used for non-commercial purposes only, are best known in a port to
    PyTorch that names them `style.1.weight`, `input.input`, `conv1.conv.weight`, `conv1.conv.modulation.bias`,
    `conv1.noise.weight`, `conv1.activate.bias`, `to_rgb1.bias`, `convs.0...` and `to_rgbs.0...`. From its files take
    the averaged generator (`g_ema`) and save it as a plain state dict. Filters and fixed noises in it are not used.
    """
    ours = {}
    for name, value in state.items():
        if not name.endswith(".kernel") and not name.startswith("noises."):
            for pattern, renamed in PUBLISHED:
                name = re.sub(pattern, renamed, name)
            ours[name] = value.flatten() if name.endswith("bias") else value.squeeze(0)  # they keep a batch's axis
    return ours


class _Down(nn.Module):
    """Two convolutions beside a shortcut, to half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        self.second = EqualConv(inputs, outputs, 3, stride=2)
        self.shortcut = EqualConv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.second(smooth(activate(self.first(x)), padding=2)))
        shortcut: Tensor = self.shortcut(smooth(x, padding=1, stride=2))
        return (y + shortcut) / math.sqrt(2)


def minibatch_deviation(x: Tensor) -> Tensor:
    """Features with one more channel, how images of the batch differ: `(B, C, H, W)` to `(B, C + 1, H, W)`.

    It is their standard deviation over every B / 4th image (fewer where 4 does not divide B), averaged over everything
    else (Karras et al. 2018).
    """
    groups = x.float().unflatten(0, (math.gcd(len(x), GROUP), -1))
    deviation = (groups.var(0, correction=0) + TINY).sqrt().mean((1, 2, 3))
    channel = deviation.repeat(len(groups))[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x)], 1)


class Discriminator(nn.Module):
    """How real images look, as logits: `(B, 3, S, S)` to `(B,)`.

    Args:
        image_px: S, a power of two.
        channel_max: See `Generator`.
        channel_base: See `Generator`.

    Raises:
        ValueError: S is no power of two.
    """

    def __init__(self, image_px: int, channel_max: int = 512, channel_base: int = 16384) -> None:
        super().__init__()
        widths = widths_of(image_px, channel_max, channel_base)
        self.image_px = image_px
        self.from_rgb = EqualConv(3, widths[-1], 1)
        self.down = nn.Sequential(*(_Down(fine, coarse) for fine, coarse in pairwise(reversed(widths))))
        self.conv = EqualConv(widths[0] + 1, widths[0], 3)
        self.hidden = EqualLinear(widths[0] * SMALLEST**2, widths[0])
        self.score = EqualLinear(widths[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, S, S)` images in [-1, 1] to `(B,)` logits, which depend on the other images of the batch.

        Raises:
            ValueError: The images have another size.
        """
        if x.shape[2:] != (self.image_px, self.image_px):
            raise ValueError(f"the discriminator is for images of {self.image_px} pixels, got {tuple(x.shape[2:])}")
        features = activate(self.conv(minibatch_deviation(self.down(activate(self.from_rgb(x))))))
        score: Tensor = self.score(activate(self.hidden(features.flatten(1))))
        return score.flatten()
