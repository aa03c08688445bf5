"""PSNR, SSIM, gradient SSIM, MS-SSIM and LPIPS against float64 transcriptions and published values."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from shared.backbones import AlexNet
from shared.data.problems import DataError
from shared.metrics import Lpips, gradient_ssim, image_quality, ms_ssim, psnr, ssim

Metric = Callable[[Tensor, Tensor], Tensor]
Floats = NDArray[np.float64]
WANTED = image_quality.WANTED


def pairs(side: int, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """SYNTHETIC images in [0, 1] with structure, and noisy and blurred ones, from little to much."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, 5, 5))).float()
    truth = F.interpolate(coarse, size=(side, side), mode="bicubic")
    truth = (truth + 0.1 * torch.from_numpy(rng.standard_normal(truth.shape)).float()).clamp(0, 1)
    amount = torch.linspace(0.02, 0.3, count).view(-1, 1, 1, 1)
    noise = torch.from_numpy(rng.standard_normal(truth.shape)).float()
    return 0.8 * truth + 0.2 * F.avg_pool2d(truth, 3, 1, 1) + amount * noise, truth


# ---------------------------------------------------------------- PSNR and the kinds of SSIM


def ssim_parts(a: Floats, b: Floats) -> tuple[float, float]:
    """SSIM, and its part of contrast and structure where windows lie inside, of `(C, H, W)` (Wang et al. 2004)."""
    similar, structure = [], []
    for x, y in zip(a, b, strict=True):

        def window(plane: Floats) -> Floats:
            return np.asarray(gaussian_filter(plane, 1.5, truncate=3.5, mode="mirror"))

        mean_x, mean_y = window(x), window(y)
        var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
        covariance = window(x * y) - mean_x * mean_y
        contrast = (2 * covariance + 0.03**2) / (var_x + var_y + 0.03**2)
        structure.append(contrast[5:-5, 5:-5].mean())
        similar.append(((2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2) * contrast).mean())
    return float(np.mean(similar)), float(np.mean(structure))


def psnr_by_hand(a: Floats, b: Floats) -> float:
    return float(-10 * np.log10(((a - b) ** 2).mean()))


def ssim_by_hand(a: Floats, b: Floats) -> float:
    return ssim_parts(a, b)[0]


def gradient_ssim_by_hand(a: Floats, b: Floats) -> float:
    def magnitude(image: Floats) -> Floats:
        right, down = np.diff(image, axis=2)[:, :-1], np.diff(image, axis=1)[:, :, :-1]
        return np.asarray(np.sqrt(right**2 + down**2))

    return ssim_parts(magnitude(a), magnitude(b))[0]


def ms_ssim_by_hand(a: Floats, b: Floats) -> float:
    product = 1.0
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, weight in enumerate(weights):
        similar, structure = ssim_parts(a, b)
        product *= max(similar if scale == len(weights) - 1 else structure, 0) ** weight
        height, width = (side // 2 * 2 for side in a.shape[1:])
        a, b = (
            each[:, :height, :width].reshape(3, height // 2, 2, width // 2, 2).mean((2, 4)) for each in (a, b)
        )  # fmt: skip
    return product


@pytest.mark.parametrize(
    ("metric", "by_hand", "side"),
    [
        (psnr, psnr_by_hand, 33),
        (ssim, ssim_by_hand, 33),
        (gradient_ssim, gradient_ssim_by_hand, 33),
        (ms_ssim, ms_ssim_by_hand, 180),
    ],
)
def test_each_image_has_the_value_of_a_float64_transcription(
    metric: Metric, by_hand: Callable[[Floats, Floats], float], side: int
) -> None:
    image, truth = pairs(side)
    expected = [by_hand(a, b) for a, b in zip(image.clamp(0, 1).double().numpy(), truth.double().numpy(), strict=True)]
    found = metric(image, truth)
    assert found.shape == (3,)
    assert np.allclose(found, expected, rtol=0, atol=2e-5 if metric is not psnr else 2e-4)
    assert np.ptp(expected) > 0.05  # the images differ, so that a mean over them would be noticed
    single = torch.cat([metric(image[[n]], truth[[n]]) for n in range(3)])
    assert torch.allclose(found, single, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim, gradient_ssim, ms_ssim])
def test_values_outside_are_clipped_and_equal_images_are_the_best(metric: Metric) -> None:
    _, truth = pairs(180)
    black_and_white = truth.round()
    assert torch.equal(metric(3 * black_and_white - 1, black_and_white), metric(black_and_white, black_and_white))
    best = torch.full((3,), float("inf") if metric is psnr else 1.0)
    assert torch.allclose(metric(truth, truth), best)


def test_gradient_ssim_sees_lost_edges_and_not_another_brightness() -> None:
    _, truth = pairs(64)
    truth = 0.2 + 0.6 * truth
    blurred, brighter = F.avg_pool2d(truth, 5, 1, 2, count_include_pad=False), truth + 0.15
    assert (psnr(blurred, truth) > psnr(brighter, truth)).all()
    assert (gradient_ssim(brighter, truth) > 0.999).all()
    assert (gradient_ssim(blurred, truth) < 0.7).all()


@pytest.mark.parametrize("metric", [psnr, ssim, gradient_ssim])
@pytest.mark.parametrize(("scale", "shown"), [(2.0, "-1 to 1"), (255.0, "-127.5 to 127.5")])
def test_images_of_another_range_are_refused(metric: Metric, scale: float, shown: str) -> None:
    truth = torch.zeros(1, 3, 32, 32)
    truth[..., 0, 0] = 1
    with pytest.raises(ValueError, match=rf"^the true images have values from {shown}, expected \[0, 1\]$"):
        metric(truth, (truth - 0.5) * scale)


def test_a_true_image_with_nan_is_refused_and_a_received_one_is_nan() -> None:
    image, truth = pairs(32)
    image[1, 0, 0, 0] = torch.nan
    assert psnr(image, truth).isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match="have values from nan to nan, expected"):
        psnr(truth, image)


@pytest.mark.parametrize(
    ("image", "truth", "message"),
    [
        (
            torch.zeros(2, 3, 32, 32),
            torch.zeros(1, 3, 32, 32),
            "expected two batches of float images (B, C, H, W), got torch.float32 (2, 3, 32, 32) and torch.float32 "
            "(1, 3, 32, 32)",
        ),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            torch.zeros(1, 3, 32, 32),
            "expected two batches of float images (B, C, H, W), got torch.uint8 (1, 3, 32, 32) and torch.float32 "
            "(1, 3, 32, 32)",
        ),
        (
            torch.zeros(1, 3, 32, 10),
            torch.zeros(1, 3, 32, 10),
            "SSIM needs images of at least 11 pixels, got 32 x 10: ",
        ),
    ],
)
def test_other_shapes_are_refused(image: Tensor, truth: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        ssim(image, truth)


def test_ms_ssim_says_how_large_images_must_be() -> None:
    with pytest.raises(ValueError, match=r"^MS-SSIM needs images of at least 176 pixels, got 200 x 175: use SSIM$"):
        ms_ssim(torch.zeros(1, 3, 200, 175), torch.zeros(1, 3, 200, 175))
    assert ms_ssim(torch.zeros(1, 3, 176, 176), torch.zeros(1, 3, 176, 176)) == 1


# ---------------------------------------------------------------- LPIPS


def some_weights() -> dict[str, Tensor]:
    """Random weights of LPIPS's shapes; the linear ones are positive, as the published ones are."""
    generator = torch.Generator().manual_seed(0)
    found = {
        name: 0.05 * torch.randn(value.shape, generator=generator) for name, value in AlexNet().state_dict().items()
    }
    for layer, width in enumerate((64, 192, 384, 256, 256)):
        found[f"lin{layer}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    return found


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights that are taken for the published ones."""
    found = some_weights()
    monkeypatch.setattr(image_quality, "PUBLISHED", image_quality._digest(found))
    torch.save(found, tmp_path / "lpips.pt")
    return tmp_path / "lpips.pt"


def lpips_by_hand(found: dict[str, Tensor], image: Tensor, truth: Tensor) -> list[float]:
    """LPIPS 0.1 in float64, from images in [-1, 1] and its own scaling, one image and position after the other."""
    w = {name: value.double() for name, value in found.items()}
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(3, 1, 1)
    convolutions = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
    values = []
    for pair in zip(image.double(), truth.double(), strict=True):
        maps = [((2 * each - 1) - shift) / scale for each in pair]
        value = 0.0
        for layer, (place, stride, padding) in enumerate(convolutions):
            if layer in (1, 2):
                maps = [F.max_pool2d(each, 3, 2) for each in maps]
            weight, bias = w[f"features.{place}.weight"], w[f"features.{place}.bias"]
            maps = [F.relu(F.conv2d(each[None], weight, bias, stride, padding)[0]) for each in maps]
            units = [each / ((each**2).sum(0).sqrt() + 1e-10) for each in maps]
            difference = (units[0] - units[1]) ** 2
            linear = w[f"lin{layer}.model.1.weight"].view(-1, 1, 1)
            value += float((linear * difference).sum(0).mean())
        values.append(value)
    return values


def test_lpips_has_the_value_of_a_float64_transcription(weights: Path) -> None:
    metric, found = Lpips(weights), some_weights()
    image, truth = pairs(64)
    expected = lpips_by_hand(found, image, truth)
    assert np.allclose(metric(image, truth), expected, rtol=1e-5, atol=0)
    assert np.ptp(expected) > 1e-3
    small, small_truth = pairs(32, seed=1)
    twice = [F.interpolate(each, scale_factor=2, mode="bilinear") for each in (small, small_truth)]
    assert np.allclose(metric(small, small_truth), lpips_by_hand(found, *twice), rtol=1e-5, atol=0)
    wide = torch.rand(2, 3, 40, 90, generator=torch.Generator().manual_seed(0))
    assert metric(wide, wide.flip(0)).shape == (2,)


def test_lpips_is_symmetric_zero_for_equal_images_and_the_same_in_any_batch(weights: Path) -> None:
    metric = Lpips(weights)
    image, truth = pairs(64)
    image = image.clamp(0, 1)
    found = metric(image, truth)
    assert torch.allclose(metric(truth, image), found, rtol=1e-5)
    assert metric(truth, truth).tolist() == [0, 0, 0]
    assert torch.allclose(torch.cat([metric(image[[n]], truth[[n]]) for n in range(3)]), found, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric(image, truth), found)


def test_lpips_is_a_loss_with_finite_gradients_and_frozen_weights(weights: Path) -> None:
    metric = Lpips(weights)
    assert not any(weight.requires_grad for weight in metric.parameters())
    image, truth = pairs(64)
    for start in (image, truth, torch.zeros_like(truth), 2 * image):
        received = start.clone().requires_grad_()
        metric(received, truth).sum().backward()
        assert received.grad is not None
        assert received.grad.isfinite().all()
    received = image.clone().requires_grad_()
    before = metric(received, truth)
    before.sum().backward()
    assert received.grad is not None
    assert (metric(image - 0.01 * received.grad / received.grad.abs().mean(), truth) < before).all()


def test_lpips_needs_32_pixels(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"^LPIPS needs images of at least 32 pixels, got 31 x 64: give larger ones$"):
        Lpips(weights)(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))


def lacking(found: dict[str, Tensor]) -> str:
    del found["lin3.model.1.weight"]
    return "lacks lin3.model.1.weight, expected (1, 256, 1, 1)"


def other_shape(found: dict[str, Tensor]) -> str:
    found["features.3.weight"] = torch.zeros(256, 64, 5, 5)
    return "has features.3.weight (256, 64, 5, 5), expected (192, 64, 5, 5)"


def other_version(found: dict[str, Tensor]) -> str:
    found["lin2.model.1.weight"] = found["lin2.model.1.weight"].flip(1)
    return "holds other weights than the published ones"


@pytest.mark.parametrize("spoil", [lacking, other_shape, other_version])
def test_other_weights_are_refused_with_what_is_wanted(
    weights: Path, spoil: Callable[[dict[str, Tensor]], str]
) -> None:
    found = some_weights()
    said = spoil(found)
    torch.save(found, weights)
    with pytest.raises(DataError, match=f"^{re.escape(f'{weights} {said}: {WANTED}')}$"):
        Lpips(weights)


def test_missing_weights_are_refused_with_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "none.npz"
    with pytest.raises(DataError, match=f"^{re.escape(f'no file of weights {path}: {WANTED}')}$"):
        Lpips(path)


# Of the package lpips 0.1.4 (alex, version 0.1) with the same weights, on the images of `published`.
PUBLISHED_VALUES = {
    64: [0.039016, 0.034195, 0.095742, 0.120069],
    96: [0.081738, 0.068161, 0.155821, 0.129188],
    160: [0.085763, 0.098432, 0.188825, 0.171528],
    32: [0.036306, 0.054879, 0.136801, 0.095725],  # after bilinear x2
}


def published(side: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(side)
    truth = torch.from_numpy(rng.random((4, 3, side, side))).float()
    image = (truth + 0.2 * torch.from_numpy(rng.standard_normal((4, 3, side, side))).float()).clamp(0, 1)
    image[2] = torch.from_numpy(rng.random((3, side, side))).float()
    image[3] = truth[3].flip(-1)
    return image, truth


@pytest.mark.realdata
def test_lpips_agrees_with_the_package_of_its_authors(real_data: Path) -> None:
    metric = Lpips(real_data / "images" / "lpips_alex_v0.1.npz")
    for side, expected in PUBLISHED_VALUES.items():
        assert np.allclose(metric(*published(side)), expected, rtol=0, atol=2e-6)
