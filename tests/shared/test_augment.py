"""Augmentations: shapes, what each sample's own draw does, and reproducibility."""

import pytest
import torch
from torch import Tensor, nn

from shared.augment import Augment, ChannelMask, Jitter, Scale, TimeCrop, Window

ALL = [TimeCrop(0.5), Window(0.5), Scale(0.2), Jitter(0.1), ChannelMask(0.3)]


def ramp(batch: int = 64, channels: int = 2, length: int = 101) -> Tensor:
    """Sample t of channel c is t + 1000 c: values tell where they came from."""
    return (torch.arange(length) + 1000.0 * torch.arange(channels)[:, None]).expand(batch, -1, -1).clone()


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_the_seed_decides_and_the_samples_differ(transform: nn.Module) -> None:
    signal = ramp()
    untouched = signal.clone()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(transform(signal))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0][0], results[0][1]) or not torch.equal(results[0][1], results[0][2])
    assert torch.equal(signal, untouched)
    assert results[0].dtype == signal.dtype


def test_a_crop_is_a_stretched_window_and_the_same_in_all_channels() -> None:
    out = TimeCrop(0.5)(ramp())
    assert out.shape == (64, 2, 101)
    torch.testing.assert_close(out[:, 1] - 1000, out[:, 0], atol=1e-3, rtol=0)
    steps = out[:, 0].diff()  # the interpolation of a ramp is a ramp, of the window's share as its slope
    assert float((steps - steps.mean(1, keepdim=True)).abs().max()) < 1e-3
    size = steps.mean(1)
    assert 0.5 <= float(size.min()) < 0.6
    assert 0.9 < float(size.max()) <= 1
    assert float(out[:, 0].min()) >= 0
    assert float(out[:, 0].max()) <= 100


def test_the_whole_is_the_identity() -> None:
    torch.testing.assert_close(TimeCrop(1.0)(ramp()), ramp())
    assert torch.equal(Window(1.0)(ramp()), ramp())


def test_a_window_is_contiguous_and_reaches_both_ends() -> None:
    out = Window(0.25)(ramp(batch=2000))
    assert out.shape == (2000, 2, 25)
    assert torch.equal(out[:, 0].diff(), torch.ones(2000, 24))
    assert torch.equal(out[:, 1] - 1000, out[:, 0])
    assert out[:, 0, 0].min() == 0
    assert out[:, 0, -1].max() == 100


def test_a_scale_is_one_factor_a_sample_of_mean_one() -> None:
    factor = Scale(0.2)(torch.ones(20_000, 2, 3))
    assert torch.equal(factor, factor[:, :1, :1].expand_as(factor))
    one = factor[:, 0, 0]
    assert abs(float(one.mean()) - 1) < 0.006  # four standard errors
    assert abs(float(one.log().std()) - 0.2) < 0.005


def test_jitter_is_white_noise_of_the_given_size() -> None:
    noise = Jitter(0.05)(torch.zeros(50, 2, 1000))
    assert abs(float(noise.std()) - 0.05) < 0.0005
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean())) < 0.05**2 * 0.02


def test_a_mask_takes_whole_channels_with_its_probability() -> None:
    out = ChannelMask(0.3)(torch.ones(5000, 4, 6))
    assert torch.equal(out, out[..., :1].expand_as(out))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert abs(float((out[..., 0] == 0).float().mean()) - 0.3) < 0.013  # four standard errors


def test_they_compose_in_order() -> None:
    class Double(nn.Module):
        def forward(self, signal: Tensor) -> Tensor:
            return signal * 2

    class AddOne(nn.Module):
        def forward(self, signal: Tensor) -> Tensor:
            return signal + 1

    assert float(Augment([Double(), AddOne()])(torch.ones(1, 1, 1))) == 3


@pytest.mark.parametrize("value", [0.0, -0.5, 1.5])
def test_impossible_fractions_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^low must be in \(0, 1\], got {value}$"):
        TimeCrop(value)
    with pytest.raises(ValueError, match=rf"^fraction must be in \(0, 1\], got {value}$"):
        Window(value)
