"""Weights from local files: what is read, what does not fit, and AlexNet beside torchvision's."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.backbones import AlexNet, ImageEncoder, load_weights, read_weights
from shared.checkpoint import _build

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, 2.0])}


def write(folder: Path, kind: str, state: dict[str, Tensor]) -> Path:
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    elif kind == "npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
def test_a_network_takes_the_weights_of_a_file(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    net = nn.Linear(3, 2)
    load_weights(net, write(tmp_path, kind, STATE | {"fc.weight": torch.zeros(1)}))
    assert torch.equal(net.weight, STATE["weight"])
    assert torch.equal(net.bias, STATE["bias"])
    assert "1 weights are not used: fc.weight" in caplog.text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": STATE["weight"]}, r"1 of its 2 weights are missing or of another shape, the first is bias \(2,\)"),
        (STATE | {"weight": torch.zeros(2, 4)}, r"the first is weight \(2, 3\), there \(2, 4\)"),
    ],
)
def test_weights_of_another_network_are_refused(state: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    before = net.weight.clone()
    with pytest.raises(ValueError, match=message):
        load_weights(net, write(tmp_path, "pt", state))
    assert torch.equal(net.weight, before)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of weights"):
        read_weights(tmp_path / "none.pt")
    torch.save({"model": Path}, tmp_path / "code.pt")  # a class: more than weights
    with pytest.raises(ValueError, match="cannot be loaded as weights only"):
        read_weights(tmp_path / "code.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(tmp_path / "other.pt")


def test_a_network_takes_its_part_of_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = {f"net.{name}": value for name, value in STATE.items()} | {"head.weight": torch.zeros(2, 3)}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"seed": 0}, "pytorch-lightning_version": "2.6.4"}, path)
    net = nn.Linear(3, 2)
    load_weights(net, path, prefix="net.")
    assert torch.equal(net.weight, STATE["weight"])
    assert torch.equal(net.bias, STATE["bias"])
    assert not caplog.records  # other parts are none of its concern
    load_weights(net, write(tmp_path, "pt", STATE), prefix="net.")  # a plain file's names have no prefix
    said = r"last\.ckpt is a checkpoint without weights under prior\.: it has head, net$"
    with pytest.raises(ValueError, match=said):
        load_weights(net, path, prefix="prior.")
    said = r"does not fit Linear: 1 of its 2 weights .*, the first is bias \(2,\); the file has weight, \.\.\.$"
    with pytest.raises(ValueError, match=said):
        load_weights(net, path, prefix="head.")


def test_alexnet_is_torchvisions(tmp_path: Path) -> None:
    theirs = torchvision.models.alexnet(weights=None).eval()
    ours = AlexNet(96, str(write(tmp_path, "pt", theirs.state_dict()))).eval()
    images = torch.rand(2, 3, 96, 96)
    normalised = (images - ours.mean) / ours.std
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.features(normalised).flatten(1), rtol=0, atol=0)
        assert ours(torch.zeros(1, 3, 40, 30, dtype=torch.uint8)).shape == (1, ours.out_dim)


def test_an_image_encoder_starts_from_a_file_and_its_checkpoint_needs_none(tmp_path: Path) -> None:
    small = {"name": "resnet18", "image_px": 32, "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    one = ImageEncoder(**small)  # type: ignore[arg-type]
    other = ImageEncoder(**small, weights=str(write(tmp_path, "safetensors", dict(one.net.state_dict()))))  # type: ignore[arg-type]
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(other.eval()(images), one.eval()(images), rtol=0, atol=0)
    settings = {"class_path": "shared.backbones.ImageEncoder", "init_args": {**small, "weights": "/no/such/file"}}
    assert isinstance(_build(settings, "a checkpoint"), ImageEncoder)
