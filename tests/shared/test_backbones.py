"""ResNet18-1D against the numbers of its source, the projection heads, and the width of an encoder."""

import pytest
import torch
from torch import nn

from shared.backbones import Encoder, ResNet1D, out_dim, projector


def test_parameters_and_positions_of_the_papers_encoder() -> None:
    encoder = ResNet1D(in_channels=12, width=64)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    # Convolutions and batch norms of a stage from c to d channels, two blocks, written out.
    expected = 12 * 64 * 7 + 2 * 64
    for c, d in ((64, 64), (64, 128), (128, 256), (256, 512)):
        expected += 3 * c * d + 3 * (3 * d * d) + 4 * 2 * d + (c * d + 2 * d if c != d else 0)
    assert count == expected
    assert abs(count - 3.85e6) < 0.01e6
    assert encoder.out_dim == 512
    with torch.no_grad():
        assert encoder.eval().features(torch.zeros(1, 12, 5000)).shape == (1, 512, 313)


def test_pooled_features_are_the_mean_over_time_at_any_length() -> None:
    torch.manual_seed(0)
    encoder = ResNet1D(in_channels=3, width=4).eval()
    for length in (16, 100, 333):
        signal = torch.randn(2, 3, length)
        torch.testing.assert_close(encoder(signal), encoder.features(signal).mean(-1))
        assert encoder(signal).shape == (2, 32)


def test_a_block_is_two_convolutions_and_a_shortcut() -> None:
    torch.manual_seed(0)
    encoder = ResNet1D(in_channels=2, width=4, layers=[1, 1]).eval()
    x = encoder.stem(torch.randn(2, 2, 40))
    for block, stride in zip(encoder.stages, (1, 2), strict=True):
        inner = torch.relu(block.bn1(nn.functional.conv1d(x, block.conv1.weight, stride=stride, padding=1)))
        inner = block.bn2(nn.functional.conv1d(inner, block.conv2.weight, padding=1))
        expected = torch.relu(inner + block.shortcut(x))
        torch.testing.assert_close(block(x.clone()), expected)
        x = expected
    assert x.shape == (2, 8, 10)
    assert isinstance(encoder.stages[0].shortcut, nn.Identity)


def test_the_linear_head_is_one_layer_and_the_mlp_two() -> None:
    linear = projector(8, 4)
    assert isinstance(linear, nn.Linear)
    assert linear.weight.shape == (4, 8)
    mlp = projector(8, 4, kind="mlp", hidden_dim=16)
    assert [type(layer) for layer in mlp] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert mlp[0].weight.shape == (16, 8)
    assert mlp[0].bias is None  # batch norm has one
    assert projector(8, 4, kind="mlp")[0].weight.shape == (8, 8)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^projector must be 'linear' or 'mlp', got 'conv'$"):
        projector(8, 4, kind="conv")  # type: ignore[arg-type]


def test_an_encoder_says_how_wide_its_features_are() -> None:
    encoder = ResNet1D(in_channels=3, width=4)
    assert isinstance(encoder, Encoder)
    assert out_dim(encoder) == encoder(torch.zeros(1, 3, 40)).shape[1] == 32


def test_a_network_that_does_not_say_its_width_is_named() -> None:
    with pytest.raises(TypeError, match=r"^Linear has no out_dim: an encoder must say how wide its features are$"):
        out_dim(nn.Linear(2, 3))
