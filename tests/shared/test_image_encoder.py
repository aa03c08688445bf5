"""The image encoder: the paper's ResNet50, small ones, its two kinds of input, and checkpoints."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from shared.augment import ImageAugment, TwoViews, resize
from shared.backbones import ImageEncoder, images
from shared.checkpoint import CheckpointError, load_module
from shared.methods import SimCLR

SMALL: dict[str, Any] = {"name": "resnet18", "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]}


def test_the_default_is_the_papers_resnet50() -> None:
    encoder = ImageEncoder()
    assert encoder.out_dim == 2048
    assert encoder.net.conv1.weight.shape == (64, 3, 7, 7)
    assert encoder.net.conv1.stride == (2, 2)
    # 25,557,032 parameters (He et al. 2016, 1000 classes) without the classifier.
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 25_557_032 - 2049 * 1000
    assert encoder.stage is encoder.net.layer4
    with torch.no_grad():
        assert encoder(torch.zeros(2, 3, 50, 60, dtype=torch.uint8)).shape == (2, 2048)


def test_the_default_computes_and_starts_as_torchvisions_resnet50() -> None:
    other = torchvision.models.resnet50()
    other.fc = torch.nn.Identity()
    encoder = ImageEncoder()
    for (name, value), (other_name, expected) in zip(
        encoder.net.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert name == other_name
        if "bn" in name:  # the scale of the last one in a block too
            assert torch.equal(value, expected), name
        elif value.numel() > 10_000:
            assert value.std().item() == pytest.approx(expected.std().item(), rel=0.05), name
    encoder.net.load_state_dict(other.state_dict())
    views = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.double().eval()(views), other.double().eval()(views))


@pytest.mark.parametrize("channels", [1, 2])
def test_layers_and_channels_make_it_small(channels: int) -> None:
    encoder = ImageEncoder(in_channels=channels, **SMALL).eval()
    assert encoder.out_dim == 32
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 50_000
    stage = []
    encoder.stage.register_forward_hook(lambda module, inputs, output: stage.append(output))
    features = encoder(torch.rand(2, channels, 64, 64))
    assert stage[0].shape == (2, 32, 2, 2)
    torch.testing.assert_close(features, stage[0].mean((2, 3)))


def test_the_other_override_is_the_architectures_own() -> None:
    assert ImageEncoder("resnet18", layers=[1, 1, 1, 1]).out_dim == 512
    assert len(ImageEncoder("resnet18", channels=[8, 8, 16, 32]).net.layer1) == 2


def test_a_narrow_stem_is_of_three_small_convolutions() -> None:
    stem = ImageEncoder(**SMALL, in_channels=2, stem_width=6).net.conv1
    kernels = [layer.weight.shape for layer in stem if isinstance(layer, torch.nn.Conv2d)]
    assert kernels == [(6, 2, 3, 3), (6, 6, 3, 3), (12, 6, 3, 3)]


def test_uint8_images_are_resized_and_float_images_taken_as_they_are() -> None:
    encoder = ImageEncoder(image_px=48, **SMALL).eval()
    stored = torch.randint(256, (3, 3, 70, 90), dtype=torch.uint8)
    torch.testing.assert_close(encoder(stored), encoder(resize(stored, 48)))
    seen = []
    encoder.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    views = torch.rand(3, 3, 32, 32)
    encoder(views)
    assert torch.equal(seen[0], views)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_out_dim_is_that_of_the_features_for_other_architectures(name: str) -> None:
    encoder = ImageEncoder(name, image_px=224).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 20, 20, dtype=torch.uint8)).shape == (1, encoder.out_dim)
    assert any(encoder.stage is module for module in encoder.net.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet_50"}, "timm has no architecture 'resnet_50'; did you mean resnet50?"),
        ({"name": "zzzz"}, "timm has no architecture 'zzzz'; timm.list_models() lists them"),
        ({"name": "hf-hub:a/b"}, "timm has no architecture 'hf-hub:a/b'; timm.list_models() lists them"),
        ({"name": "vgg11", "layers": [1, 1, 1, 1]}, "vgg11 does not take layers, which are for a ResNet"),
        ({"channels": [4, 8, 8, 8]}, "channels must be at least 8 in every stage, got [4, 8, 8, 8]"),
        (
            {"layers": [1, 1]},
            "layers and channels need 4 numbers, one for each stage, got [1, 1] and None",
        ),
    ],
)
def test_what_timm_cannot_make_is_explained(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ImageEncoder(**settings)


def simclr_checkpoint(path: Path, encoder: dict[str, Any]) -> ImageEncoder:
    """A SimCLR over images, saved as a run of the CLI saves it."""
    made = ImageEncoder(**encoder)
    model = SimCLR(made, TwoViews(ImageAugment(size=32)))
    content: dict[str, Any] = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.4"}
    model.on_save_checkpoint(content)
    views = {"class_path": "shared.augment.ImageAugment", "init_args": {"size": 32, "crop_scale": [0.5, 1.0]}}
    content["hyper_parameters"] = {
        "_class_path": "shared.methods.SimCLR",
        "encoder": {"class_path": "shared.backbones.ImageEncoder", "init_args": encoder},
        "views": {"class_path": "shared.augment.TwoViews", "init_args": {"first": views}},
    }
    torch.save(content, path)
    return made


def test_a_checkpoint_rebuilds_it_with_its_augmentation(tmp_path: Path) -> None:
    encoder = simclr_checkpoint(tmp_path / "model.ckpt", SMALL).eval()
    loaded = load_module(tmp_path / "model.ckpt", SimCLR)
    assert loaded.views.first.crop_scale == (0.5, 1.0)
    stored = torch.randint(256, (2, 3, 40, 40), dtype=torch.uint8)
    assert torch.equal(loaded.encoder(stored), encoder(stored))


def test_a_checkpoint_cannot_make_timm_look_elsewhere(tmp_path: Path) -> None:
    simclr_checkpoint(tmp_path / "model.ckpt", SMALL)
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    content["hyper_parameters"]["encoder"]["init_args"] = {"name": "hf-hub:someone/else"}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="timm has no architecture 'hf-hub:someone/else'"):
        load_module(tmp_path / "model.ckpt", SimCLR)


def test_timm_is_imported_where_an_encoder_is_made() -> None:
    assert not hasattr(images, "timm")  # packages without images need not wait for it
