"""Augmentations: shapes, what each sample's own draw does, and reproducibility."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.augment import (
    Augment,
    BaselineWander,
    ChannelMask,
    Invert,
    Jitter,
    Permute,
    Powerline,
    Scale,
    TimeCrop,
    TimeOut,
    TwoViews,
    Window,
)

ALL = [
    TimeCrop(0.5),
    Window(0.5),
    TimeOut(0.1, 0.5),
    Permute(8),
    Permute(8, groups=[[0], [1]]),
    Scale(0.2),
    Jitter(0.1),
    ChannelMask(0.3),
    Invert(0.5),
    Powerline(0.2),
    BaselineWander(0.5),
]
each = pytest.mark.parametrize("transform", ALL, ids=str)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def ramp(batch: int = 64, channels: int = 2, length: int = 101) -> Tensor:
    """Sample t of channel c is t + 1000 c: values tell where they came from."""
    return (torch.arange(length) + 1000.0 * torch.arange(channels)[:, None]).expand(batch, -1, -1).clone()


@each
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


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_dtype_and_shape_stay(transform: nn.Module, dtype: torch.dtype, autocast: bool) -> None:
    signal = torch.randn(5, 2, 101).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = transform(signal)
    assert out.dtype == dtype
    assert out.shape == (5, 2, 50 if isinstance(transform, Window) else 101)
    assert out.isfinite().all()
    assert not out.requires_grad
    assert list(transform.parameters()) == []


@each
def test_no_sample_sees_another(transform: nn.Module) -> None:
    signal = torch.randn(8, 2, 101)
    changed = signal.clone()
    changed[1:] = 7
    torch.manual_seed(0)
    out = transform(signal)
    torch.manual_seed(0)
    assert torch.equal(transform(changed)[0], out[0])


def test_an_augmentation_prints_as_its_call() -> None:
    assert str(TimeOut()) == "TimeOut(low=0.0, high=0.5)"
    assert str(Permute(groups=[[0, 1]])) == "Permute(max_segments=8, groups=[[0, 1]])"
    assert str(Window()) == "Window(fraction=0.5)"


def test_two_views_are_drawn_apart() -> None:
    first, second = TwoViews(Jitter(0.1))(torch.zeros(2, 2, 10))
    assert not torch.equal(first, second)
    first, second = TwoViews(Scale(0.0), Invert(1.0))(torch.ones(2, 2, 10))
    assert torch.equal(first, -second)


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


def test_time_out_zeroes_one_stretch_of_all_channels_anywhere() -> None:
    out = TimeOut(0.1, 0.4)(torch.ones(20_000, 2, 50))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(out[:, 0], out[:, 1])
    zero = (out[:, 0] == 0).int()
    edges = nn.functional.pad(zero, (1, 1)).diff().abs().sum(1)
    assert set(edges.tolist()) == {2}  # one stretch has one start and one end
    size = zero.sum(1)
    assert size.unique().tolist() == list(range(5, 21))
    assert abs(float(size.float().mean()) - 12.5) < 4 * 4.33 / 20_000**0.5  # U(5, 20) has std 4.33
    covered = zero.float().mean(0)
    assert float(covered.min()) > 0  # reaches the first and the last sample ...
    torch.testing.assert_close(covered, covered.flip(0), atol=0.02, rtol=0)  # ... and is drawn to neither side


def test_time_out_of_nothing_and_of_all() -> None:
    signal = torch.randn(4, 2, 9)
    assert torch.equal(TimeOut(0, 0)(signal), signal)
    assert TimeOut(1, 1)(signal).abs().max() == 0


def segments(row: Tensor) -> int:
    """Stretches of a permuted `arange` in which each sample follows the one before it."""
    return 1 + int((row.diff() != 1).sum())


def test_permuting_moves_whole_segments_and_loses_nothing() -> None:
    position = torch.arange(400.0).expand(2000, 1, -1)
    out = Permute(4)(position)[:, 0]
    assert torch.equal(out.sort(1).values, position[:, 0])
    counts = torch.tensor([segments(row) for row in out]).bincount(minlength=5)
    assert counts[5:].sum() == 0
    # Of m shuffled segments, some lie behind their neighbour again. Orders of m that leave r stretches:
    orders = {1: [1], 2: [1, 1], 3: [1, 2, 3], 4: [1, 3, 9, 11]}
    expected = sum(np.pad(rows, (0, 4 - len(rows))) / sum(rows) / 4 for rows in orders.values())
    np.testing.assert_allclose(counts[1:] / 2000, expected, atol=0.05)
    assert len(out[:, 0].unique()) > 400 / 2  # the cuts lie anywhere: nearly any sample can come first


def test_one_segment_is_the_identity() -> None:
    assert torch.equal(Permute(1)(ramp()), ramp())
    assert torch.equal(Permute(8)(torch.ones(3, 2, 1)), torch.ones(3, 2, 1))


def test_permuting_does_not_copy_channel_0_into_every_channel_as_ts_tcc_does() -> None:
    """Its public code has `ret[i] = pat[0, warp]`."""
    signal = torch.randn(32, 12, 200)
    signal[:, :, 0] = torch.arange(12)
    for transform in (Permute(8), Permute(8, groups=[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])):
        out = transform(signal)
        assert torch.equal(out.sort(2).values, signal.sort(2).values)  # each channel keeps its own values ...
        assert all(not torch.equal(out[:, 0], out[:, channel]) for channel in range(1, 12))
    source = ramp(batch=32, channels=12, length=200)
    moved = Permute(8)(source) - 1000 * torch.arange(12)[:, None]
    assert torch.equal(moved, moved[:, :1].expand_as(moved))  # ... and they stay synchronous


def test_groups_of_channels_are_permuted_apart_and_other_channels_not_at_all() -> None:
    source = ramp(batch=64, channels=5, length=200)
    order = Permute(8, groups=[[3, 0], [1, 2]])(source) - 1000 * torch.arange(5)[:, None]
    assert torch.equal(order[:, 0], order[:, 3])
    assert torch.equal(order[:, 1], order[:, 2])
    assert (order[:, 0] != order[:, 1]).any(1).float().mean() > 0.8
    assert torch.equal(order[:, 4], source[:, 0])


def test_inversion_takes_whole_samples_with_its_probability() -> None:
    out = Invert(0.3)(torch.ones(5000, 2, 3))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert set(out.unique().tolist()) == {-1.0, 1.0}
    assert abs(float((out[:, 0, 0] < 0).float().mean()) - 0.3) < 0.026  # four standard errors


@pytest.mark.parametrize(("frequency", "sampling_rate"), [(50.0, 500), (60.0, 250), (20.0, 100)])
def test_powerline_hum_is_one_sine_at_its_frequency(frequency: float, sampling_rate: int) -> None:
    transform = Powerline(0.2, frequency, sampling_rate)
    hum = transform(torch.zeros(500, 4, 4 * sampling_rate))  # whole periods: no leakage
    spectrum = torch.fft.rfft(hum).abs() / (2 * sampling_rate)
    here = round(4 * frequency)
    amplitude = spectrum[..., here].clone()
    spectrum[..., here] = 0
    assert float(spectrum.max()) < 1e-5
    assert 0.15 < float(amplitude.max()) <= 0.2
    # One phase a sample: its channels are multiples of each other, of either sign and of different size.
    rank = torch.linalg.svdvals(hum)
    assert float((rank[:, 1] / rank[:, 0]).max()) < 1e-4
    assert float(amplitude.std(1).mean()) > 0.01
    sign = (hum[:, 0] * hum[:, 1]).sum(1).sign()
    assert 0.4 < float((sign > 0).float().mean()) < 0.6
    twice = 2 * torch.fft.rfft(hum[:, 0])[:, here].angle()  # which the gain's sign does not change
    assert abs(float(twice.cos().mean())) < 0.13  # four standard errors
    assert abs(float(twice.sin().mean())) < 0.13


def test_baseline_wander_is_slow() -> None:
    rate, seconds = 10, 100
    wander = BaselineWander(0.5, 0.5, seconds, components=3)(torch.zeros(2000, 2, rate * seconds))
    windowed = wander.double() * torch.hann_window(rate * seconds, dtype=torch.float64)  # leaks far less than none
    energy = torch.fft.rfft(windowed).abs().square().sum((0, 1))
    share = energy.cumsum(0) / energy.sum()
    frequency = torch.fft.rfftfreq(rate * seconds, 1 / rate)
    leakage = 0.04  # Hz; four bins
    assert 1 - float(share[frequency <= 0.5 + leakage][-1]) < 1e-5
    assert float(share[frequency < 0.05 - leakage][-1]) < 1e-5
    median = float(frequency[int((share < 0.5).sum())])
    assert abs(median - 0.275) < 0.025  # of U(0.05, 0.5), to four standard errors
    assert 0.5 < float(wander.abs().max()) <= 3 * 0.5


@pytest.mark.parametrize("components", [1, 3])
def test_each_component_of_the_wander_is_shared_by_the_channels(components: int) -> None:
    wander = BaselineWander(0.5, 0.5, 20.0, components)(torch.zeros(50, 12, 2000, dtype=torch.float64))
    rank = torch.linalg.svdvals(wander)
    assert float((rank[:, components] / rank[:, 0]).max()) < 1e-4
    assert float((rank[:, components - 1] / rank[:, 0]).max()) > 1e-2


@pytest.mark.parametrize("transform", [Powerline(0.2), BaselineWander(0.5), Jitter(0.1)], ids=str)
def test_noise_is_added_to_the_signal(transform: nn.Module) -> None:
    signal = torch.randn(4, 3, 500)
    torch.manual_seed(0)
    noise = transform(torch.zeros_like(signal))
    torch.manual_seed(0)
    torch.testing.assert_close(transform(signal), signal + noise)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeOut(0.6, 0.5), "0 <= low <= high <= 1 must hold, got low 0.6 and high 0.5"),
        (lambda: TimeOut(-0.1), "0 <= low <= high <= 1 must hold, got low -0.1 and high 0.5"),
        (lambda: TimeOut(0, 1.5), "0 <= low <= high <= 1 must hold, got low 0 and high 1.5"),
        (lambda: Permute(0), "max_segments must be at least 1, got 0"),
        (lambda: Permute(groups=[[0, 1], [1]]), "groups must hold each channel once at most, got [[0, 1], [1]]"),
        (lambda: Permute(groups=[[0, -1]]), "groups must hold channels from 0 on, got [[0, -1]]"),
        (lambda: Scale(-1.0), "sigma must be a finite number of at least 0, got -1.0"),
        (lambda: Jitter(float("nan")), "sigma must be a finite number of at least 0, got nan"),
        (lambda: ChannelMask(1.1), "p must be in [0, 1], got 1.1"),
        (lambda: Invert(-0.1), "p must be in [0, 1], got -0.1"),
        (lambda: Powerline(-0.2), "amplitude must be a finite number of at least 0, got -0.2"),
        (
            lambda: Powerline(frequency=60, sampling_rate=100),
            "frequency must be above 0 and at most half of sampling_rate 100, got 60",
        ),
        (lambda: Powerline(frequency=0), "frequency must be above 0 and at most half of sampling_rate 500, got 0"),
        (lambda: BaselineWander(float("inf")), "amplitude must be a finite number of at least 0, got inf"),
        (
            lambda: BaselineWander(max_frequency=0.01),
            "max_frequency must be at least 0.05, got 0.01",
        ),
        (lambda: BaselineWander(duration=0), "duration must be above 0, got 0"),
        (lambda: BaselineWander(components=0), "components must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_a_group_with_a_channel_that_the_signal_lacks_is_named() -> None:
    transform = Permute(groups=[[0, 12]])
    with pytest.raises(ValueError, match=r"^groups holds channel 12, but the signal has 12 channels$"):
        transform(torch.zeros(2, 12, 100))
    assert transform(torch.zeros(2, 13, 100)).shape == (2, 13, 100)
