"""Linear transmission and the bound at capacity, beside closed forms, a numerical optimum and each other."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from torch import Tensor

from commin.analogue import LinearCode
from commin.channel import capacity_bits, unit_noise
from commin.noise import unit_normal
from shared.data.problems import DataError

SNRS = [-5.0, -3.0, -1.0, 1.0, 3.0, 5.0]
STANDARD = np.array([3.0, 1.5, 0.8, 0.5, 0.2, 0.1, 0.05, 0.01])  # deviations of a source's eight components
COUNT = 20_000


def source(seed: int, count: int) -> Tensor:
    """Gaussian vectors of twelve numbers with eight components."""
    rng = np.random.default_rng(9)
    turned = np.linalg.qr(rng.normal(size=(12, 8)))[0].T
    return torch.from_numpy(1.5 + (np.random.default_rng(seed).normal(size=(count, 8)) * STANDARD) @ turned)


@pytest.fixture(scope="module")
def code() -> LinearCode:
    return LinearCode.fit(source(0, 100_000))


def squared_error(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())


def test_the_components_are_those_of_the_source(code: LinearCode) -> None:
    assert code.components.shape == (8, 12)
    np.testing.assert_allclose(code.variances.sqrt(), STANDARD, rtol=0.02)
    torch.testing.assert_close(code.components @ code.components.mT, torch.eye(8, dtype=torch.float64))
    few = LinearCode.fit(source(1, 5))  # fewer images than numbers
    assert few.components.shape == (4, 12)
    torch.testing.assert_close(few._images(few._coefficients(source(1, 5))), source(1, 5))


def test_powers_are_the_numerical_optimum(code: LinearCode) -> None:
    """Against a general optimiser; two symbols carry four components at most."""
    for snr in SNRS:
        noise = 10 ** (-snr / 10) / 2
        strong = code.variances[:4].numpy()

        def error(powers: np.ndarray, strong: np.ndarray = strong, noise: float = noise) -> float:
            return float((strong * noise / (noise + powers)).sum())

        whole = {"type": "eq", "fun": lambda powers: powers.sum() - 2}
        start = np.full(4, 0.5)
        best = minimize(error, start, method="SLSQP", bounds=[(0, 2)] * 4, constraints=whole, options={"ftol": 1e-12})
        powers = code.linear_powers(2, torch.tensor([snr]))[0].numpy()
        assert powers.sum() == pytest.approx(2, rel=1e-12)
        ours = error(powers)
        assert ours == pytest.approx(best.fun, rel=1e-6)
        np.testing.assert_allclose(powers, best.x, atol=2e-3)
        assert code.linear_distortion(2, snr) == pytest.approx((ours + float(code.variances[4:].sum())) / 12, rel=1e-12)
    assert code.linear_powers(2, torch.tensor([-15.0]))[0, 2:].tolist() == [0, 0]  # too weak to be sent


def test_powers_beat_equal_ones(code: LinearCode) -> None:
    for snr in SNRS:
        noise = 10 ** (-snr / 10) / 2
        equal = code.variances.clone()
        equal[:4] *= noise / (noise + 0.5)
        assert code.linear_distortion(2, snr) < 0.98 * float(equal.sum()) / 12


@pytest.mark.parametrize("symbols", [2, 6])  # six have room for more components than there are
def test_transmission_has_the_error_of_the_closed_form(code: LinearCode, symbols: int) -> None:
    images = source(2, COUNT)
    noise = unit_noise(0, torch.arange(COUNT), symbols)
    for snr in (-5.0, 5.0):
        received = code.send_linear(images, torch.full((COUNT,), snr), noise)
        assert squared_error(received, images) == pytest.approx(code.linear_distortion(symbols, snr), rel=0.02)


def test_the_bound_is_that_of_reverse_water_filling(code: LinearCode) -> None:
    """The level is found by bisection instead."""
    variances = code.variances.numpy()
    for symbols, snr in [(2, -5.0), (2, 5.0), (8, 5.0)]:
        bits = capacity_bits(symbols, snr)

        def missing(log_level: float, bits: float = bits) -> float:
            return float(0.5 * np.log2(variances / np.minimum(np.exp(log_level), variances)).sum()) - bits

        level = np.exp(brentq(missing, -40, np.log(variances[0]), xtol=1e-14))
        np.testing.assert_allclose(
            code.distortions(torch.tensor([bits], dtype=torch.float64))[0], np.minimum(level, variances), rtol=1e-9
        )
    torch.testing.assert_close(code.distortions(torch.zeros(1).double())[0], code.variances)


def test_reconstructions_at_capacity_have_the_bounds_error(code: LinearCode) -> None:
    images, normal = source(3, COUNT), unit_normal(0, torch.arange(COUNT), (8,))
    for snr in (-5.0, 5.0):
        received = code.send_at_capacity(images, 2, torch.full((COUNT,), snr), normal)
        assert squared_error(received, images) == pytest.approx(code.capacity_distortion(2, snr), rel=0.02)


@pytest.mark.parametrize("symbols", [1, 2, 6])
def test_the_bound_is_below_linear_transmission_and_both_fall_with_the_snr(code: LinearCode, symbols: int) -> None:
    linear = [code.linear_distortion(symbols, snr) for snr in SNRS]
    bound = [code.capacity_distortion(symbols, snr) for snr in SNRS]
    assert (np.array(bound) < np.array(linear)).all()
    assert (np.diff(linear) < 0).all()
    assert (np.diff(bound) < 0).all()
    assert linear[0] < float(code.variances.sum()) / 12


def test_an_image_does_not_depend_on_its_batch(code: LinearCode) -> None:
    images, snr_db, keys = source(4, 6), torch.tensor(SNRS), torch.arange(6)
    noise, normal = unit_noise(0, keys, 2), unit_normal(0, keys, (8,))
    linear, bound = code.send_linear(images, snr_db, noise), code.send_at_capacity(images, 2, snr_db, normal)
    for row in range(6):
        own = slice(row, row + 1)
        torch.testing.assert_close(linear[own], code.send_linear(images[own], snr_db[own], noise[own]))
        torch.testing.assert_close(bound[own], code.send_at_capacity(images[own], 2, snr_db[own], normal[own]))


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # scikit-learn's, before ours
def test_bad_input_is_refused(code: LinearCode) -> None:
    with pytest.raises(DataError, match=r"^an SNR of nan dB was given: give a finite number, such as -5$"):
        code.send_linear(source(5, 1), torch.tensor([float("nan")]), unit_noise(0, torch.arange(1), 2))
    said = r"^the 3 training images are all the same: a linear code needs some that differ$"
    with pytest.raises(DataError, match=said):
        LinearCode.fit(torch.ones(3, 12))
