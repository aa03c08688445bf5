"""The channel: power and SNR as measured, paired noise, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from commin.channel import (
    awgn,
    capacity_bits,
    noise_variance,
    normalise_power,
    rayleigh_block_fading,
    symbols_of,
    unit_noise,
)
from commin.noise import image_keys
from shared.data.problems import DataError

SNRS = [-5.0, -3.0, -1.0, 1.0, 3.0, 5.0]
KEYS = image_keys(["a", "b", "c", "d", "e", "f"])


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


@pytest.mark.parametrize("power", [1.0, 0.25])
def test_the_power_of_each_image_is_exact(power: float) -> None:
    scale = torch.tensor([1e-3, 1.0, 1e3])[:, None]
    z = normalise_power((drawn(0, 3, 31) * scale).requires_grad_(), power)
    torch.testing.assert_close(z.abs().square().sum(1), torch.full((3,), 31 * power), rtol=2e-6, atol=0)
    z.real.square().sum().backward()


def test_the_power_of_one_image_does_not_depend_on_the_others() -> None:
    z = drawn(1, 4, 16).to(torch.complex128)
    together = normalise_power(z)
    for row in range(4):
        torch.testing.assert_close(together[row : row + 1], normalise_power(z[row : row + 1]), rtol=1e-14, atol=0)


def test_symbols_that_are_all_zero_stay_so_and_have_a_finite_gradient() -> None:
    zero = torch.zeros(2, 5, dtype=torch.complex64, requires_grad=True)
    z = normalise_power(zero)
    z.real.sum().backward()
    assert torch.equal(z, torch.zeros_like(z))
    assert zero.grad is not None
    assert torch.isfinite(torch.view_as_real(zero.grad)).all()
    constant = normalise_power(torch.full((1, 4), 3 + 0j))
    torch.testing.assert_close(constant, torch.ones(1, 4, dtype=torch.complex64))


def test_the_snr_is_that_of_complex_symbols() -> None:
    """A million symbols an SNR; with the full power for each real, or half the noise, it would be 3.01 dB off."""
    k = 1_000_000
    z = normalise_power(drawn(2, 1, k)).expand(len(SNRS), k)
    noise = unit_noise(3, KEYS, k)
    received = awgn(z, torch.tensor(SNRS), noise)
    power, variance = z.abs().square().mean(1), (received - z).abs().square().mean(1)
    measured = 10 * torch.log10(power / variance)
    assert (measured - torch.tensor(SNRS)).abs().max() < 0.02
    # As an independent program would count it: reals of power 1/2 each, and noise of sigma^2 / 2 each.
    for part in (np.real, np.imag):
        sent, got = part(z.numpy()), part(received.numpy())
        assert np.mean(sent**2) == pytest.approx(0.5, rel=0.01)
        expected = 0.5 * 10 ** (-np.array(SNRS) / 10)
        np.testing.assert_allclose(np.var(got - sent, axis=1), expected, rtol=0.01)
    assert abs(np.corrcoef(noise[0].real, noise[0].imag)[0, 1]) < 0.005


def test_noise_is_one_draw_an_image_scaled_for_each_snr() -> None:
    z, noise = drawn(4, 6, 8).to(torch.complex128), unit_noise(0, KEYS, 8)
    mixed = awgn(z, torch.tensor(SNRS), noise)
    for row, snr in enumerate(SNRS):
        own = slice(row, row + 1)
        alone = awgn(z[own], torch.tensor([snr]), unit_noise(0, KEYS[own], 8))
        torch.testing.assert_close(mixed[own], alone, rtol=1e-12, atol=1e-12)
    low, high = (awgn(z, torch.full((6,), snr), noise) - z for snr in (-5.0, 5.0))
    torch.testing.assert_close(low / high, torch.full_like(low, 10**0.5), rtol=1e-6, atol=0)
    assert not torch.equal(unit_noise(0, KEYS, 8, 1), noise)


def test_sigma_is_that_of_eq_4() -> None:
    expected = torch.tensor([2 * 10**0.5, 2.0, 0.2], dtype=torch.float64)
    snr_db = torch.tensor([-5.0, 0.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(noise_variance(snr_db, 2.0), expected, rtol=1e-12, atol=0)


def test_gradients_pass_through_power_and_channel() -> None:
    z = drawn(5, 2, 3).to(torch.complex128).requires_grad_()
    noise, gain, snr_db = drawn(6, 2, 3), drawn(7, 2), torch.tensor([-5.0, 5.0])
    assert torch.autograd.gradcheck(lambda z: awgn(normalise_power(z), snr_db, noise), z)
    assert torch.autograd.gradcheck(lambda z: rayleigh_block_fading(normalise_power(z), snr_db, noise, gain), z)


def test_the_channel_is_float32_under_mixed_precision() -> None:
    z, noise, snr_db = drawn(8, 6, 8), unit_noise(0, KEYS, 8), torch.tensor(SNRS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = awgn(normalise_power(z), snr_db, noise)
    assert torch.equal(mixed, awgn(normalise_power(z), snr_db, noise))


def test_fading_is_an_snr_of_each_images_own() -> None:
    k = 100_000
    z, noise = normalise_power(drawn(9, 6, k)), unit_noise(1, KEYS, k)
    gain = unit_noise(1, KEYS, 1, 7)[:, 0]
    received = rayleigh_block_fading(z, torch.tensor(SNRS), noise, gain)
    measured = -10 * torch.log10((received - z).abs().square().mean(1))
    torch.testing.assert_close(measured, torch.tensor(SNRS) + 20 * torch.log10(gain.abs()), rtol=0, atol=0.1)
    many = unit_noise(1, torch.arange(50_000), 1)[:, 0]
    assert many.abs().square().mean() == pytest.approx(1, rel=0.02)  # exponential: standard error 0.0045
    assert (many.abs() < 0.5).float().mean() == pytest.approx(1 - math.exp(-0.25), abs=0.01)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_snr_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match=rf"^an SNR of {bad} dB was given: give a finite number, such as -5$"):
        awgn(drawn(0, 2, 3), torch.tensor([1.0, bad]), drawn(1, 2, 3))


def test_noise_is_never_broadcast() -> None:
    said = r"^symbols \(2, 3\) need as many noise symbols, got \(1, 3\), and an SNR for each image, got \(2,\)$"
    with pytest.raises(ValueError, match=said):
        awgn(drawn(0, 2, 3), torch.zeros(2), drawn(1, 1, 3))
    with pytest.raises(ValueError, match=r"an SNR for each image, got \(1,\)$"):
        awgn(drawn(0, 2, 3), torch.zeros(1), drawn(1, 2, 3))


def test_symbols_of_the_ratios_at_hand() -> None:
    asked = [(0.0013, 256), (0.0026, 64), (0.0013, 64), (0.0052, 32)]
    assert [symbols_of(rho, 3 * px * px) for rho, px in asked] == [256, 32, 16, 16]
    said = r"^a bandwidth ratio of 1e-05 leaves no symbol for an image of 3072 numbers: give at least 0\.00033$"
    with pytest.raises(DataError, match=said):
        symbols_of(1e-5, 3072)
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(DataError, match="leaves no symbol"):
            symbols_of(bad, 3072)


def test_capacity_is_that_of_two_real_channels() -> None:
    """k complex symbols are 2 k reals of half the power and half the noise: 1/2 log2(1 + SNR) each."""
    assert capacity_bits(16, 3) == pytest.approx(2 * 16 * 0.5 * np.log2(1 + 10**0.3), rel=1e-12)
    assert [round(capacity_bits(32, snr)) for snr in (-5, 5)] == [13, 66]
