"""Training-free numbers: they do not see how an image is turned, do see what it shows, and are what they are called."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from galaxy_clusters.model.features import ORDERS, RINGS, feature_names, image_features

NAMES = feature_names(3)
SIDE = 48


def noisy(count: int = 12, channels: int = 3, side: int = SIDE) -> Tensor:
    """Lopsided blobs on noise, with many pixels of equal brightness."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    images = []
    for _ in range(count):
        dx, dy = rng.normal(scale=4, size=2)
        a, b = rng.uniform(3, 9, 2)
        blob = np.exp(-(((x - dx) / a) ** 2) - ((y - dy) / b) ** 2) * rng.uniform(60, 240, (channels, 1, 1))
        images.append(blob + rng.normal(10, 3, (channels, side, side)))
    return torch.from_numpy(np.stack(images).clip(0, 255).astype(np.uint8))


def drawn(brightness: NDArray[np.float64]) -> Tensor:
    """A grey picture of the given brightness in [0, 1], `(1, 3, S, S)`."""
    return torch.from_numpy(np.rint(255 * brightness).astype(np.uint8)).expand(1, 3, -1, -1)


def named(images: Tensor) -> dict[str, float]:
    return dict(zip(NAMES, image_features(images)[0].tolist(), strict=True))


@pytest.mark.parametrize("side", [47, 48])
def test_no_quarter_turn_and_no_mirror_changes_them(side: int) -> None:
    images = noisy(side=side)
    found = image_features(images)
    assert found.shape == (12, len(NAMES)) == (12, 104)
    assert found.dtype == torch.float32
    for turned in (images.rot90(1, (2, 3)), images.rot90(2, (2, 3)), images.flip(2), images.transpose(2, 3)):
        assert (image_features(turned) - found).abs().max() < 1e-5
    assert len(set(NAMES)) == len(NAMES)


def test_a_real_change_changes_them_and_a_brighter_sky_does_not() -> None:
    images = noisy()
    found = image_features(images)
    assert (image_features(images.clamp(max=200) + 25) - image_features(images.clamp(max=200))).abs().max() < 1e-5
    shifted = image_features(images.roll(5, 3))
    assert ((shifted - found).abs().amax(1) > 0.1).all()
    patched = images.clone()
    patched[:, :, 10:16, 30:36] = 255
    assert ((image_features(patched) - found).abs().amax(1) > 0.1).all()


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_they_are_finite_on_constant_images_of_any_channels(value: int, channels: int) -> None:
    found = image_features(torch.full((2, channels, 16, 16), value, dtype=torch.uint8))
    assert found.shape == (2, len(feature_names(channels)))
    assert found.isfinite().all()


def test_images_do_not_depend_on_their_batch() -> None:
    images = noisy(140)
    assert torch.allclose(image_features(images)[131:], image_features(images[131:]), rtol=0, atol=1e-6)


def test_rings_are_those_of_a_plain_loop() -> None:
    image = noisy()[3:4]
    pixels = image[0].numpy() / 255.0
    edge = np.ones((SIDE, SIDE), bool)
    edge[3:-3, 3:-3] = False
    levels = [np.sort(channel[edge])[(edge.sum() - 1) // 2] for channel in pixels]  # torch's median is the lower one
    pixels = pixels - np.reshape(levels, (3, 1, 1))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    ring = np.floor(np.hypot(x, y) / (SIDE / 2) * RINGS)
    found = named(image)
    for number in range(RINGS):
        inside = ring == number
        grey = pixels.mean(0)[inside]
        for channel in range(3):
            expected = np.arcsinh(pixels[channel][inside].mean() / 0.05)
            assert found[f"ring_{number + 1}_channel_{channel + 1}"] == pytest.approx(expected, abs=1e-5)
        assert found[f"ring_{number + 1}_spread"] == pytest.approx(np.arcsinh(grey.std() / 0.05), abs=1e-5)
        for order in ORDERS:
            wave = np.exp(1j * order * np.arctan2(y, x)[inside])
            expected = np.arcsinh(abs((grey * wave).mean()) / 0.05)
            assert found[f"ring_{number + 1}_fourier_{order}"] == pytest.approx(expected, abs=1e-5)
    light = np.where(np.hypot(x, y) <= SIDE / 2, pixels.mean(0).clip(0), 0)
    values = light[np.hypot(x, y) <= SIDE / 2]
    gini = np.abs(values[:, None] - values).sum() / (2 * values.sum() * (len(values) - 1))
    assert found["gini"] == pytest.approx(gini, abs=1e-6)
    cx, cy = (light * x).sum() / light.sum(), (light * y).sum() / light.sum()
    moment = light * ((x - cx) ** 2 + (y - cy) ** 2)
    order_ = np.argsort(-light.ravel(), kind="stable")
    cut = int((np.cumsum(light.ravel()[order_]) < 0.2 * light.sum()).sum())
    bright = light >= light.ravel()[order_][cut]
    assert found["m20"] == pytest.approx(np.log10(moment[bright].sum() / moment.sum()), abs=1e-5)
    assert found["offset"] == pytest.approx(np.hypot(cx, cy) / SIDE, abs=1e-6)
    assert found["size"] == pytest.approx(np.sqrt(moment.sum() / light.sum()) / SIDE, abs=1e-6)
    turned = np.abs(pixels - pixels[:, ::-1, ::-1]).sum((1, 2)) / np.abs(pixels).sum((1, 2))
    assert [found[f"asymmetry_channel_{channel}"] for channel in (1, 2, 3)] == pytest.approx(turned, abs=1e-5)


def test_ellipses_discs_and_spirals_have_the_shape_that_was_drawn() -> None:
    y, x = np.mgrid[:96, :96] - 47.5
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    disc = named(drawn(0.8 * (radius < 30)))
    assert disc["radius_20%"] == pytest.approx(30 * 0.2**0.5 / 96, abs=0.01)
    assert disc["radius_50%"] == pytest.approx(30 * 0.5**0.5 / 96, abs=0.01)
    assert disc["concentration"] == pytest.approx(5 * np.log10(2), abs=0.1)  # sqrt(0.8 / 0.2)
    assert disc["elongation"] == pytest.approx(0, abs=1e-3)
    ellipse = named(drawn(0.8 * (np.hypot(x / 2, y) < 20)))
    assert ellipse["elongation"] == pytest.approx((4 - 1) / (4 + 1), abs=0.01)
    assert ellipse["elongation_within_1"] > 0.15
    spiral = named(drawn(np.exp(-radius / 16) * (0.5 + 0.4 * np.cos(3 * (angle - radius / 9)))))
    amplitudes = [[spiral[f"ring_{ring}_fourier_{order}"] for order in ORDERS] for ring in range(2, 6)]
    assert np.argmax(amplitudes, axis=1).tolist() == [2, 2, 2, 2]
    pair = np.exp(-np.hypot(x - 4, y) / 4) + np.exp(-np.hypot(x + 16, y - 12) / 4)
    alone, two = named(drawn(np.exp(-radius / 4))), named(drawn(pair.clip(max=1)))
    assert two["asymmetry_channel_1"] > 0.5 > alone["asymmetry_channel_1"] + 0.4
    assert two["ring_4_maximum"] > alone["ring_4_maximum"] + 1
    assert two["m20"] > alone["m20"] + 0.5
    assert two["offset_within_2"] > 0.1 > alone["offset_within_2"]


@pytest.mark.realdata
def test_real_galaxies_may_be_turned(real_data: Path) -> None:
    files = sorted((real_data / "galaxies" / "gz1" / "images").iterdir())[::60]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((64, 64))) for file in files])
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    found = image_features(images)
    for turned in (images.rot90(1, (2, 3)), images.flip(3)):
        assert (image_features(turned) - found).abs().max() < 1e-5
    assert (found.std(0) > 1e-3).all()
