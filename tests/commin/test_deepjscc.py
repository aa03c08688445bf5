"""DeepJSCC: its layers beside plain transcriptions, any size and SNR, and that it learns."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from commin.channel import awgn, rayleigh_block_fading, unit_noise
from commin.model.deepjscc import GDN, DeepJSCC, SnrGate
from shared.data.problems import DataError

SNR = torch.tensor([-5.0, 0.0, 5.0])
KEYS = torch.tensor([11, 12, 13])


def small(image_px: int = 16, symbols: int = 32, **settings: float) -> DeepJSCC:
    torch.manual_seed(0)
    return DeepJSCC(image_px, symbols, width=8, stages=2, **settings)  # type: ignore[arg-type]


def images(height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_that_of_its_formula(inverse: bool) -> None:
    layer = GDN(4, inverse).double()
    with torch.no_grad():
        layer.gamma.add_(torch.rand(4, 4, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    beta, gamma = layer.beta.detach().numpy() ** 2, layer.gamma.detach().numpy() ** 2
    expected = np.empty(x.shape)
    for b, i, h, w in np.ndindex(*x.shape):
        root = np.sqrt(beta[i] + sum(gamma[i, j] * x[b, j, h, w].item() ** 2 for j in range(4)))
        expected[b, i, h, w] = x[b, i, h, w].item() * (root if inverse else 1 / root)
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-9)


def test_gdn_stays_positive_and_comes_back_from_its_bound() -> None:
    layer = GDN(3)
    assert layer.gamma[0, 0].item() ** 2 == pytest.approx(0.1, rel=1e-6)
    with torch.no_grad():  # as after a step that was too long
        layer.beta.fill_(-1.0)
        layer.gamma.fill_(-1.0)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, x * 1e3, rtol=2e-3, atol=0)  # beta is 1e-6, gamma 0
    y.abs().sum().backward()
    assert layer.beta.grad is not None
    assert layer.gamma.grad is not None
    assert (layer.beta.grad < 0).all()  # less output needs more beta: the gradient leads back, and passes
    assert (layer.gamma.grad < 0).all()
    layer.zero_grad()
    (-layer(x).abs().sum()).backward()
    assert (layer.beta.grad == 0).all()  # further below the bound: it does not
    assert (layer.gamma.grad == 0).all()


def test_the_gate_knows_features_and_snr() -> None:
    gate = SnrGate(6)
    x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    low, high = (gate(x, torch.full((2, 1), snr)) / x for snr in (-1.0, 1.0))
    assert ((low > 0) & (low < 1)).all()
    torch.testing.assert_close(low, low[:, :, :1, :1].expand_as(low))  # one factor a channel
    assert not torch.allclose(low, high)
    assert not torch.allclose(low[0], low[1])


def test_the_chain_is_encoder_channel_and_decoder() -> None:
    net = small()
    x, noise = images(), net.noise_for(5, KEYS)
    z = net.encode(x, SNR)
    assert z.shape == noise.shape == (3, 32)
    torch.testing.assert_close(z.abs().square().sum(1), torch.full((3,), 32.0), rtol=1e-5, atol=0)
    torch.testing.assert_close(noise, unit_noise(5, KEYS, 32), rtol=0, atol=0)
    y = net(x, SNR, noise)
    assert torch.equal(y, net.decode(awgn(z, SNR, noise), SNR))
    assert y.abs().max() <= 1
    gain = torch.tensor([1j, 1.0, -1.0])
    faded = net(x, SNR, noise * gain[:, None], lambda z, snr_db, n: rayleigh_block_fading(z, snr_db, n, gain))
    torch.testing.assert_close(faded, y)  # a gain that only turns the symbols
    for part in (net.encode(x, SNR.flip(0)) - z, net.decode(z, SNR.flip(0)) - net.decode(z, SNR)):
        assert part[[0, 2]].abs().max() > 1e-4  # both ends know the SNR
        assert part[1].abs().max() < 1e-5
    y.sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in net.parameters())


def test_every_symbol_matters_to_the_decoder() -> None:
    net = small().double()
    z = net.encode(images().double(), SNR.double()).detach()
    for numbers in (z.real, z.imag):
        changed = numbers.clone().requires_grad_()
        y = net.decode(torch.complex(changed, z.imag) if numbers is z.real else torch.complex(z.real, changed), SNR)
        (gradient,) = torch.autograd.grad(y.square().sum(), changed)
        assert (gradient.abs() > 1e-12).all()


def test_an_image_does_not_depend_on_its_batch() -> None:
    net = small().double()
    x, snr_db, noise = images().double(), SNR.double(), net.noise_for(0, KEYS)
    together = net(x, snr_db, noise)
    for row in range(3):
        own = slice(row, row + 1)
        alone = net(x[own], snr_db[own], net.noise_for(0, KEYS[own]))
        torch.testing.assert_close(together[own], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("height", "width", "symbols"), [(16, 16, 32), (15, 18, 40), (24, 4, 12)])
def test_images_of_other_sizes_are_padded_and_cropped_back(
    height: int, width: int, symbols: int, caplog: pytest.LogCaptureFixture
) -> None:
    net = small()
    x = images(height, width)
    z = net.encode(x, SNR)
    assert z.shape == (3, symbols)
    y = net(x, SNR, unit_noise(0, KEYS, symbols))
    assert y.shape == x.shape
    padded = f"images of {height} x {width} pixels are padded to 16 x 20 for sending"
    assert caplog.messages == ([padded] if (height, width) == (15, 18) else [])  # once
    if caplog.messages:
        full = torch.cat([torch.cat([x, x[:, :, 13:14]], 2), torch.cat([x, x[:, :, 13:14]], 2)[..., [16, 15]]], 3)
        torch.testing.assert_close(net.encode(full, SNR), z, rtol=0, atol=0)


def test_an_snr_outside_the_trained_range_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    net = small(snr_low=-2.0, snr_high=4.0)
    inside = torch.tensor([-2.0, 0.0, 4.0])
    net(images(), inside, net.noise_for(0, KEYS))
    assert not caplog.records
    for _ in range(2):
        net(images(), SNR, net.noise_for(0, KEYS))
    assert caplog.record_tuples == [
        ("commin.model.deepjscc", logging.WARNING, "an SNR is outside [-2, 4] dB, the range that was trained for")
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_snr_that_is_no_number_is_refused(bad: float) -> None:
    net, snr_db = small(), torch.tensor([0.0, bad, 0.0])
    said = rf"^an SNR of {bad} dB was given: give a finite number, such as -5$"
    for function, argument in ((net.encode, images()), (net.decode, net.encode(images(), SNR))):
        with pytest.raises(DataError, match=said):
            function(argument, snr_db)


def test_constant_images_are_sent() -> None:
    net = small()
    with torch.no_grad():
        for value in (-1.0, 0.0, 1.0):
            x = torch.full((3, 3, 16, 16), value)
            assert torch.isfinite(net(x, SNR, net.noise_for(0, KEYS))).all()
        net.to_symbols.weight.zero_()
        assert net.to_symbols.bias is not None
        net.to_symbols.bias.zero_()  # an encoder that has nothing to say
        assert torch.isfinite(net(images(), SNR, net.noise_for(0, KEYS))).all()


def test_what_does_not_fit_is_refused() -> None:
    said = (
        r"^20 symbols do not fit images of 64 pixels with 4 stages, which leave 4 x 4 positions: give a multiple of "
        r"16, or another number of stages$"
    )
    with pytest.raises(ValueError, match=said):
        DeepJSCC(64, 20)
    with pytest.raises(ValueError, match=r"^0 symbols do not fit"):
        small(symbols=0)
    with pytest.raises(ValueError, match=r"^stages must be at least 1, got 0$"):
        DeepJSCC(64, 32, stages=0)
    with pytest.raises(ValueError, match=r"^snr_low must be less than snr_high, got 5 and 5$"):
        small(snr_low=5, snr_high=5)
    said = r"^an image of 3 x 16 pixels is smaller than the network's stride of 4: enlarge it$"
    with pytest.raises(DataError, match=said):
        small().encode(images(3, 16), SNR)


def test_sizes_are_the_papers_and_the_laptops() -> None:
    net = DeepJSCC(256, 256)
    assert net.to_symbols.weight.shape == (2, 256, 3, 3)  # two real channels of 16 x 16
    laptop = DeepJSCC(64, 32, width=64)
    assert sum(value.numel() for value in laptop.parameters()) == 936_048


def test_symbols_keep_their_power_under_mixed_precision() -> None:
    net = small()
    x, noise = images(), net.noise_for(0, KEYS)
    with torch.autocast("cpu", torch.bfloat16):
        z, y = net.encode(x, SNR), net(x, SNR, noise)
    torch.testing.assert_close(z.abs().square().sum(1), torch.full((3,), 32.0), rtol=1e-5, atol=0)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, net(x, SNR, noise), rtol=0, atol=0.05)


def test_weights_come_from_a_file_or_a_trainings_checkpoint(tmp_path: Path) -> None:
    trained = small()
    with torch.no_grad():
        for value in trained.parameters():
            value.add_(0.1)
    state = trained.state_dict()
    torch.save(state, tmp_path / "net.pt")
    torch.save({"state_dict": {f"net.{name}": value for name, value in state.items()}}, tmp_path / "last.ckpt")
    for name in ("net.pt", "last.ckpt"):
        net = DeepJSCC(16, 32, width=8, stages=2, weights=str(tmp_path / name))
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    with pytest.raises(
        ValueError, match=r"does not fit DeepJSCC: .* the first is to_symbols\.weight \(2, 8, 3, 3\), there"
    ):
        DeepJSCC(16, 16, width=8, stages=2, weights=str(tmp_path / "net.pt"))


def test_it_learns_to_send_images_and_a_better_channel_gives_better_ones() -> None:
    """Images of two free numbers over four symbols: far nearer than the mean image, the more so the higher the SNR."""
    torch.manual_seed(0)
    net = DeepJSCC(8, 4, width=16, stages=2)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 8).expand(8, 8)

    def draw(count: int) -> Tensor:
        numbers = torch.rand(2, count, 1, 1, generator=generator) - 0.5
        return (numbers[0] * ramp + numbers[1] * ramp.mT)[:, None].expand(-1, 3, -1, -1)

    def error(snr: float) -> float:
        x = draw(256)
        with torch.no_grad():
            y = net(x, torch.full((256,), snr), unit_noise(0, torch.arange(256), 4))
        return float((y - x).square().mean())

    mean_image = float(draw(256).square().mean())
    assert error(5.0) > 0.8 * mean_image  # untrained
    for step in range(70):
        x, snr_db = draw(32), torch.rand(32, generator=generator) * 10 - 5
        loss = (net(x, snr_db, unit_noise(1, torch.arange(32), 4, step)) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert error(-5.0) < 0.75 * mean_image
    assert error(5.0) < 0.5 * error(-5.0)
