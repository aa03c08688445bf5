"""How near an image is to the true one, a value for each image: PSNR, SSIM of pixels and of edges, MS-SSIM, LPIPS.

Images are floats in [0, 1], `(B, C, H, W)`. All but LPIPS clip what lies outside, as a file of a picture must.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from shared.backbones.alexnet import AlexNet
from shared.backbones.weights import read_weights
from shared.data.problems import DataError

ROUNDING = 1e-3  # the true image may be outside of [0, 1] by so much
SMALLEST_MS_SSIM = 176  # pixels: five scales of a window of 11
SMALLEST_LPIPS, ENLARGED_LPIPS = 32, 64  # pixels; from the one to the other, images are enlarged
RELUS = (1, 4, 7, 9, 11)  # places of the layers in AlexNet's features
PUBLISHED = "007c110a0dcbff88"  # see `_digest`
WANTED = (
    "LPIPS needs one file (.npz, .safetensors, or of torch) with AlexNet's ImageNet convolutions (features.0.weight, "
    "...) and the linear layers of LPIPS 0.1 for AlexNet (lin0.model.1.weight, ...)"
)


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images after clipping to [0, 1], `(B,)`; infinite for equal ones.

    Args:
        image: `(B, C, H, W)`.
        truth: Likewise, the true images.

    Raises:
        ValueError: The shapes differ, or the true images are not in [0, 1].

    Example:
        >>> psnr(torch.full((1, 3, 8, 8), 0.6), torch.full((1, 3, 8, 8), 0.5)).round()
        tensor([20.])
    """
    image, truth = _clipped(image, truth)
    found: Tensor = peak_signal_noise_ratio(image, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return found


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of images after clipping, `(B,)` in [-1, 1].

    A Gaussian window of 11 pixels and standard deviation 1.5 around each pixel, the image mirrored at its borders; the
    mean over pixels and channels.

    Raises:
        ValueError: See `psnr`; or the images have fewer than 11 pixels.
    """
    return _ssim(*_clipped(image, truth))


def gradient_ssim(image: Tensor, truth: Tensor) -> Tensor:
    """`ssim` of the gradients' magnitudes, `(B,)`: whether edges and texture are where they should be.

    The gradient is the difference to the next pixel, to the right and down, so its magnitude is at most 1.41; the
    constants of SSIM are those of images in [0, 1].

    Raises:
        ValueError: See `psnr`; or the images have fewer than 12 pixels.
    """
    return _ssim(*map(_gradient, _clipped(image, truth)))


def ms_ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity over five scales (Wang et al. 2003) of images after clipping, `(B,)` in [0, 1].

    Raises:
        ValueError: See `psnr`; or the images have fewer than 176 pixels.
    """
    image, truth = _clipped(image, truth)
    _check_size(image, SMALLEST_MS_SSIM, "MS-SSIM", "use SSIM")
    found: Tensor = multiscale_structural_similarity_index_measure(image, truth, data_range=1.0, reduction="none")
    return found


def _ssim(image: Tensor, truth: Tensor) -> Tensor:
    _check_size(image, 11, "SSIM", "give larger ones")
    found = structural_similarity_index_measure(image, truth, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)  # no map is asked for
    return found


def _gradient(image: Tensor) -> Tensor:
    corner = image[..., :-1, :-1]
    return torch.hypot(image[..., :-1, 1:] - corner, image[..., 1:, :-1] - corner)


def _check_size(image: Tensor, smallest: int, name: str, instead: str) -> None:
    height, width = image.shape[-2:]
    if min(height, width) < smallest:
        raise ValueError(f"{name} needs images of at least {smallest} pixels, got {height} x {width}: {instead}")


def _clipped(image: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    _check(image, truth)
    return image.clamp(0, 1), truth.clamp(0, 1)


def _check(image: Tensor, truth: Tensor) -> None:
    """Images in [-1, 1] or [0, 255] would give numbers too, but wrong ones."""
    if image.shape != truth.shape or image.ndim != 4 or not image.is_floating_point():
        raise ValueError(
            f"expected two batches of float images (B, C, H, W), got {image.dtype} {tuple(image.shape)} and "
            f"{truth.dtype} {tuple(truth.shape)}"
        )
    low, high = truth.min().item(), truth.max().item()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(f"the true images have values from {low:.4g} to {high:.4g}, expected [0, 1]")


class Lpips(nn.Module):
    """LPIPS 0.1 with AlexNet (Zhang et al. 2018): `(B, 3, H, W)` twice -> `(B,)`, 0 for equal images.

    At each of five layers the features of either image are divided by their length over the channels; their squared
    differences are weighted and added over the channels, then averaged over the positions. Images of fewer than 64
    pixels are first enlarged twice, bilinearly: on 32 pixels, the last layers would have one position. Nothing is
    clipped, so that this can also be a loss. Always in the weights' own precision, whatever autocast says.

    Args:
        weights: File of the published weights, see `WANTED`.

    Raises:
        DataError: There is no such file, or it holds other weights.
    """

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        found = _published(weights)
        self.net = AlexNet()
        self.net.load_state_dict({name: value for name, value in found.items() if name.startswith("features.")})
        self.linear = nn.ParameterList([found[f"lin{layer}.model.1.weight"][0] for layer in range(len(RELUS))])
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """Distances `(B,)` of images in [0, 1].

        Raises:
            ValueError: See `psnr`; or the images have fewer than 32 pixels.
        """
        _check(image, truth)
        _check_size(image, SMALLEST_LPIPS, "LPIPS", "give larger ones")
        with torch.autocast(image.device.type, enabled=False):
            both = torch.cat([image, truth]).to(self.linear[0].dtype)
            if min(both.shape[-2:]) < ENLARGED_LPIPS:
                both = F.interpolate(both, scale_factor=2, mode="bilinear")
            # On [0, 1], LPIPS's own scaling of [-1, 1] is the same as that of ImageNet.
            both = (both - self.net.mean) / self.net.std
            weights, distance = iter(self.linear), both.new_zeros(len(image))
            for place, layer in enumerate(self.net.features[: RELUS[-1] + 1]):
                both = layer(both)
                if place in RELUS:
                    unit = both / (torch.linalg.vector_norm(both, dim=1, keepdim=True) + 1e-10)
                    one, other = unit.chunk(2)
                    distance = distance + (next(weights) * (one - other).square()).sum(1).mean((1, 2))
        return distance


def _published(path: str | Path) -> dict[str, Tensor]:
    """The weights of a file, if they are the published ones."""
    try:
        found = read_weights(path)
    except ValueError as error:
        raise DataError(f"{error}: {WANTED}") from error
    shapes = {name: tuple(value.shape) for name, value in AlexNet().state_dict().items()}
    widths = [shapes[f"features.{place - 1}.bias"][0] for place in RELUS]
    shapes |= {f"lin{layer}.model.1.weight": (1, width, 1, 1) for layer, width in enumerate(widths)}
    for name, shape in shapes.items():
        if name not in found or tuple(found[name].shape) != shape:
            has = f"has {name} {tuple(found[name].shape)}" if name in found else f"lacks {name}"
            raise DataError(f"{path} {has}, expected {shape}: {WANTED}")
    found = {name: found[name].float() for name in shapes}
    if _digest(found) != PUBLISHED:  # those of version 0.0 have the same names and shapes
        raise DataError(f"{path} holds other weights than the published ones: {WANTED}")
    return found


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Of what float32 weights hold, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
