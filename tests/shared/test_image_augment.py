"""Augmentation of images: every operation against torchvision's, with the same parameters, sample by sample."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.transforms.functional as TF
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from shared.augment import ImageAugment, ImageParameters, TwoViews, resize
from shared.augment.images import BRIGHTNESS, CONTRAST, SATURATION, change_colours, rotate

SIZE = 48
NOTHING: dict[str, Any] = {
    "size": SIZE,
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "flip": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "grayscale": 0.0,
    "blur_probability": 0.0,
    "probability": 1.0,
}
COLOUR = {
    BRIGHTNESS: TF.adjust_brightness,
    CONTRAST: TF.adjust_contrast,
    SATURATION: TF.adjust_saturation,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(batch: int = 8, channels: int = 3, height: int = 100, width: int = 120) -> Tensor:
    """SYNTHETIC images, smooth in parts and with noise: `(B, C, H, W)` uint8 that reaches 0 and 255."""
    coarse = torch.rand(batch, channels, 6, 6) * 1.6 - 0.3
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return ((smooth + 0.05 * torch.randn_like(smooth)).clamp(0, 1) * 255).round().to(torch.uint8)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def one_by_one(images: Tensor, drawn: ImageParameters, size: int, kernel: int = 29) -> Tensor:
    """The recipe's order, written with torchvision, a sample at a time."""
    results = []
    for index, image in enumerate(images):
        p = ImageParameters(*(values[index] for values in drawn))
        x = image.float() / 255
        if p.angle:
            x = TF.rotate(x, float(p.angle), InterpolationMode.BILINEAR)
        for operation, factor in zip(p.operation.tolist(), p.factor.tolist(), strict=True):
            if factor != 1:
                x = COLOUR[operation](x, factor)
        if p.sigma:
            x = TF.gaussian_blur(x, [kernel, kernel], [float(p.sigma)] * 2)
        top, left, height, width = (int(value) for value in (p.top, p.left, p.height, p.width))
        x = TF.resized_crop(x, top, left, height, width, [size, size], antialias=True)
        results.append(TF.hflip(x) if p.flip else x)
    return torch.stack(results)


# ---------------------------------------------------------------- resize


@pytest.mark.parametrize("shape", [(100, 120), (48, 48), (20, 33), (300, 48)])
def test_resize_is_torchvisions_antialiased(shape: tuple[int, int]) -> None:
    images = pictures(2, 3, *shape)
    theirs = TF.resize(images.float() / 255, [SIZE, SIZE], antialias=True)
    close(resize(images, SIZE), theirs, 1e-5)
    close(resize(images / 255, SIZE), theirs, 1e-5)
    assert resize((images / 255).double(), SIZE).dtype == torch.float32


def test_resize_to_the_same_size_only_converts() -> None:
    images = pictures(2, 1, SIZE, SIZE)
    assert torch.equal(resize(images, SIZE), images / 255)


# ---------------------------------------------------------------- each operation alone


def test_a_crop_is_torchvisions_also_where_it_enlarges_or_touches_a_border() -> None:
    images = pictures(4)
    drawn = ImageAugment(**NOTHING).draw(images)
    drawn = drawn._replace(
        top=torch.tensor([0.0, 3.0, 90.0, 40.0]),
        left=torch.tensor([0.0, 7.0, 20.0, 119.0]),
        height=torch.tensor([100.0, 61.0, 10.0, 20.0]),
        width=torch.tensor([120.0, 33.0, 100.0, 1.0]),
    )
    close(ImageAugment(**NOTHING).apply_drawn(images, drawn), one_by_one(images, drawn, SIZE), 1e-5)


def test_a_flip_mirrors_left_and_right_of_the_drawn_samples_only() -> None:
    images = pictures(height=SIZE, width=SIZE)
    augment = ImageAugment(**NOTHING | {"flip": 0.5})
    drawn = augment.draw(images)
    assert drawn.flip.any()
    assert not drawn.flip.all()
    expected = torch.where(drawn.flip[:, None, None, None], images.flip(3), images) / 255
    close(augment.apply_drawn(images, drawn), expected, 1e-6)


@pytest.mark.parametrize("kernel", [3, 29])
def test_a_blur_is_torchvisions_borders_included(kernel: int) -> None:
    images = pictures(height=SIZE, width=SIZE)
    augment = ImageAugment(**NOTHING | {"blur_probability": 0.8, "blur_kernel": kernel, "blur_sigma": (0.1, 6.0)})
    drawn = augment.draw(images)
    assert drawn.sigma.gt(0).any()
    assert not drawn.sigma.gt(0).all()
    close(augment.apply_drawn(images, drawn), one_by_one(images, drawn, SIZE, kernel), 1e-5)


@pytest.mark.parametrize("shape", [(40, 40), (30, 50)])
def test_a_rotation_is_torchvisions_bilinear_one(shape: tuple[int, int]) -> None:
    images, angle = pictures(4, 2, *shape) / 255, torch.tensor([0.0, 30.0, -45.0, 100.0])
    theirs = [
        TF.rotate(image, degrees, InterpolationMode.BILINEAR)
        for image, degrees in zip(images, angle.tolist(), strict=True)
    ]
    close(rotate(images, angle), torch.stack(theirs))
    assert float(rotate(torch.ones(1, 1, 40, 40), torch.tensor([45.0]))[0, 0, 0, 0]) == 0


@pytest.mark.parametrize("operation", COLOUR)
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.8])
def test_a_colour_operation_is_torchvisions(operation: int, factor: float) -> None:
    images = pictures(4) / 255
    ours = change_colours(images, torch.full((4, 1), operation), torch.full((4, 1), factor))
    close(ours, torch.stack([COLOUR[operation](image, factor) for image in images]), 1e-6)


def test_a_grey_sample_is_torchvisions() -> None:
    images = pictures(height=SIZE, width=SIZE)
    augment = ImageAugment(**NOTHING | {"grayscale": 0.5})
    drawn = augment.draw(images)
    grey = drawn.factor[:, 3] == 0
    assert 0 < grey.sum() < len(images)
    expected = images / 255
    expected[grey] = TF.rgb_to_grayscale(expected[grey], 3)
    close(augment.apply_drawn(images, drawn), expected, 1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_contrast_of_other_channels_is_about_their_mean(channels: int) -> None:
    images = pictures(2, channels) / 255
    ours = change_colours(images, torch.full((2, 1), CONTRAST), torch.full((2, 1), 0.4))
    close(ours, 0.4 * images + 0.6 * images.mean((1, 2, 3), keepdim=True), 1e-6)


# ---------------------------------------------------------------- all together


@pytest.mark.parametrize("settings", [{}, {"rotation": 45.0}, {"crop_scale": (0.6, 1.0), "blur_kernel": 9}])
def test_the_exact_order_is_the_recipe_written_item_by_item(settings: dict[str, Any]) -> None:
    augment = ImageAugment(size=SIZE, exact_order=True, **settings)
    images = pictures(24)
    drawn = augment.draw(images)
    close(augment.apply_drawn(images, drawn), one_by_one(images, drawn, SIZE, augment.blur_kernel))


def test_the_default_order_is_the_exact_one_where_nothing_clamps() -> None:
    images = pictures(24) // 4 + 96  # in [0.37, 0.63]
    settings: dict[str, Any] = {"size": SIZE, "brightness": 0.2, "contrast": 0.4, "saturation": 0.3}
    cheap, exact = ImageAugment(**settings), ImageAugment(**settings, exact_order=True)
    drawn = cheap.draw(images)
    assert (drawn.factor != 1).all(dim=1).any()
    # The luma weights sum to 0.9999, so that greyness moves the mean a little.
    close(cheap.apply_drawn(images, drawn), exact.apply_drawn(images, drawn), 2e-4)


def test_the_default_order_stays_near_the_exact_one_where_values_clamp() -> None:
    images = pictures(48)
    cheap, exact = ImageAugment(size=SIZE), ImageAugment(size=SIZE, exact_order=True)
    drawn = cheap.draw(images)
    difference = (cheap.apply_drawn(images, drawn) - exact.apply_drawn(images, drawn)).abs().mean((1, 2, 3))
    assert float(difference.mean()) < 0.02
    assert float(difference.max()) < 0.15


def test_a_batch_at_once_as_on_a_gpu_is_what_samples_one_by_one_are(monkeypatch: pytest.MonkeyPatch) -> None:
    augment, images = ImageAugment(size=SIZE), pictures()
    drawn = augment.draw(images)
    expected = augment.apply_drawn(images, drawn)
    monkeypatch.setattr(ImageAugment, "_window", lambda self, x, drawn: (x, drawn))
    close(augment._augmented(images, drawn), expected, 1e-5)


@pytest.mark.parametrize("exact_order", [False, True])
def test_on_an_accelerator_nothing_waits_for_a_value(exact_order: bool) -> None:
    images = torch.empty(4, 3, 60, 80, dtype=torch.uint8, device="meta")  # has no values to wait for
    augment = ImageAugment(size=SIZE, rotation=10, exact_order=exact_order)
    assert augment._augmented(images, augment.draw(images)).shape == (4, 3, SIZE, SIZE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: augmentation on a GPU is not tested here")
@pytest.mark.parametrize("exact_order", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(exact_order: bool) -> None:
    augment, images = ImageAugment(size=SIZE, rotation=10, exact_order=exact_order), pictures()
    drawn = augment.draw(images)
    on_gpu = ImageParameters(*(values.cuda() for values in drawn))
    there = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(there)  # waits for nothing
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(augment.apply_drawn(there, on_gpu).cpu(), augment.apply_drawn(images, drawn))


# ---------------------------------------------------------------- behaviour


@pytest.mark.parametrize("exact_order", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_channels_give_views_in_range_and_leave_the_images_alone(channels: int, exact_order: bool) -> None:
    colour = {} if channels == 3 else {"saturation": 0.0, "grayscale": 0.0}
    augment = ImageAugment(size=SIZE, exact_order=exact_order, rotation=20, **colour)
    for images in (pictures(16, channels), pictures(16, channels) / 255):
        untouched = images.clone()
        views = augment(images)
        assert views.shape == (16, channels, SIZE, SIZE)
        assert views.dtype == torch.float32
        assert 0 <= float(views.min()) < float(views.max()) <= 1
        assert torch.equal(images, untouched)


def test_the_seed_decides_and_the_samples_differ() -> None:
    images = pictures(1).expand(6, -1, -1, -1)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(ImageAugment(size=SIZE, probability=1)(images))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    distances = torch.cdist(results[0].flatten(1), results[0].flatten(1)) + 9 * torch.eye(6)
    assert float(distances.min()) > 1
    first, second = TwoViews(ImageAugment(size=SIZE, probability=1))(images)
    assert not torch.equal(first, second)


def test_samples_that_are_not_augmented_are_resized() -> None:
    images = pictures(200, 3, 30, 40)
    augment = ImageAugment(size=16, probability=0.3, rotation=10)
    resized = (augment(images) - resize(images, 16)).abs().amax((1, 2, 3)) < 1e-5
    assert 0.6 < float(resized.float().mean()) < 0.8
    close(ImageAugment(size=16, probability=0)(images), resize(images, 16), 1e-5)


def test_half_precision_around_it_changes_nothing() -> None:
    augment, images = ImageAugment(size=SIZE), pictures(4)
    drawn = augment.draw(images)
    with torch.autocast("cpu", torch.bfloat16):
        views = augment.apply_drawn(images, drawn)
    assert torch.equal(views, augment.apply_drawn(images, drawn))


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize(("shape", "scale"), [((60, 60), (0.08, 1.0)), ((60, 90), (0.2, 1.0)), ((40, 120), (0.5, 1.0))])
def test_crops_are_distributed_as_torchvisions(shape: tuple[int, int], scale: tuple[float, float]) -> None:
    count, ratio = 4000, (3 / 4, 4 / 3)
    images = torch.empty(count, 1, *shape, dtype=torch.uint8)
    drawn = ImageAugment(crop_scale=scale, crop_ratio=ratio, probability=1).draw(images)
    ours = torch.stack([drawn.top, drawn.left, drawn.height, drawn.width])
    crops = [RandomResizedCrop.get_params(images[0], list(scale), list(ratio)) for _ in range(count)]
    theirs = torch.tensor(crops, dtype=torch.float32).T
    quantities: list[Callable[[Tensor], Tensor]] = [
        lambda crop: crop[0],
        lambda crop: crop[1],
        lambda crop: crop[2] * crop[3],
        lambda crop: crop[3] / crop[2],
    ]
    for quantity in quantities:
        assert ks_2samp(quantity(ours).numpy(), quantity(theirs).numpy()).pvalue > 1e-3
    assert torch.equal(ours, ours.round())
    assert bool((ours[:2] >= 0).all())
    assert bool((ours[0] + ours[2] <= shape[0]).all())
    assert bool((ours[1] + ours[3] <= shape[1]).all())


@pytest.mark.parametrize("shape", [(20, 401), (401, 20), (50, 50), (50, 60)])
def test_where_no_crop_fits_it_is_the_centre(shape: tuple[int, int]) -> None:
    images = torch.empty(3, 1, *shape, dtype=torch.uint8)
    ratio = (5.0, 6.0) if shape[0] == 50 else (3 / 4, 4 / 3)
    drawn = ImageAugment(crop_scale=(1, 1), crop_ratio=ratio, probability=1).draw(images)
    expected = RandomResizedCrop.get_params(images[0], [1, 1], list(ratio))
    assert torch.stack([drawn.top, drawn.left, drawn.height, drawn.width], 1).tolist() == [list(expected)] * 3


def test_every_parameter_is_drawn_with_its_probability_from_its_range() -> None:
    count = 20_000
    augment = ImageAugment(
        brightness=1.5, contrast=0.4, saturation=0.2, flip=0.3, jitter_probability=0.6, rotation=45, probability=0.5
    )
    drawn = augment.draw(torch.empty(count, 3, 60, 60, dtype=torch.uint8))

    def share(happened: Tensor) -> float:
        return float(happened.float().mean())

    assert abs(share(drawn.flip) - 0.5 * 0.3) < 0.015
    assert abs(share(drawn.sigma > 0) - 0.5 * 0.5) < 0.015
    assert abs(share(drawn.factor[:, 3] == 0) - 0.5 * 0.2) < 0.015
    jittered = (drawn.factor[:, :3] != 1).all(1)
    assert abs(share(jittered) - 0.5 * 0.6) < 0.015
    assert bool((drawn.factor[~jittered, :3] == 1).all())
    assert bool((drawn.operation[:, 3] == SATURATION).all())
    factor, operation = drawn.factor[jittered, :3], drawn.operation[jittered, :3]
    for kind, low, high in ((BRIGHTNESS, 0.0, 2.5), (CONTRAST, 0.6, 1.4), (SATURATION, 0.8, 1.2)):
        values = factor[operation == kind]
        assert len(values) == len(factor)  # once a sample
        assert low <= float(values.min()) < low + 0.01
        assert high - 0.01 < float(values.max()) <= high
    orders, counts = operation.unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert float(counts.max() / counts.min()) < 1.3
    blur, angle = drawn.sigma[drawn.sigma > 0], drawn.angle[drawn.angle != 0]
    assert 0.1 <= float(blur.min()) < 0.11
    assert 1.99 < float(blur.max()) <= 2
    assert -45 <= float(angle.min()) < -44.5
    assert 44.5 < float(angle.max()) <= 45
    assert abs(share(drawn.angle != 0) - 0.5) < 0.015


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale must be two numbers with 0 < low <= high, got 0.0 and 1.0"),
        ({"crop_scale": (0.9, 0.2)}, "crop_scale must be two numbers with 0 < low <= high, got 0.9 and 0.2"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale must be at most 1, the whole image, got 1.5"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio must be two numbers with 0 < low <= high, got 2.0 and 1.0"),
        ({"blur_sigma": (0.0, 2.0)}, "blur_sigma must be two numbers with 0 < low <= high, got 0.0 and 2.0"),
        ({"blur_kernel": 28}, "blur_kernel must be odd and at least 1, got 28"),
        ({"rotation": -5.0}, "rotation must be in [0, 180], got -5.0"),
        ({"brightness": -0.1}, "brightness must be a finite number of at least 0, got -0.1"),
        ({"contrast": float("nan")}, "contrast must be a finite number of at least 0, got nan"),
        ({"saturation": -1.0}, "saturation must be a finite number of at least 0, got -1.0"),
        ({"flip": 1.5}, "flip must be in [0, 1], got 1.5"),
        ({"jitter_probability": -0.5}, "jitter_probability must be in [0, 1], got -0.5"),
        ({"grayscale": 2.0}, "grayscale must be in [0, 1], got 2.0"),
        ({"blur_probability": 1.1}, "blur_probability must be in [0, 1], got 1.1"),
        ({"probability": 95.0}, "probability must be in [0, 1], got 95.0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ImageAugment(**settings)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(2, 2, 60, 60),
            "saturation and grayscale need images of 3 channels (RGB), got 2: set both to 0",
        ),
        (
            torch.zeros(2, 3, 14, 60),
            "a blur_kernel of 29 needs images of more than 14 pixels, got 14 x 60: choose a smaller blur_kernel, or "
            "set blur_probability to 0",
        ),
        (
            torch.zeros(3, 60, 60),
            "images must be (B, C, H, W) of uint8, or of float in [0, 1], got (3, 60, 60) of torch.float32",
        ),
        (
            torch.zeros(2, 3, 60, 60, dtype=torch.int64),
            "images must be (B, C, H, W) of uint8, or of float in [0, 1], got (2, 3, 60, 60) of torch.int64",
        ),
    ],
)
def test_images_that_do_not_fit_are_named(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ImageAugment()(images)


def test_it_prints_as_its_call() -> None:
    assert str(ImageAugment(size=64)).startswith("ImageAugment(size=64, crop_scale=(0.08, 1.0), crop_ratio=")
