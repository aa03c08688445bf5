"""InverseJSCC: its projections beside plain algorithms, and that the search finds what was planted."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from commin.inversion import Inversion, geocross, learning_rate, onto_l1_ball, onto_sphere
from commin.model.deepjscc import DeepJSCC
from commin.model.stylegan import Generator
from commin.noise import image_keys
from commin.receivers import Received
from shared.data.problems import DataError

KEYS = image_keys(["ann", "bob", "cat"])
SHORT = Inversion(rounds=(3, 3, 2), radii=(0.1, 0.1))


def exactly(said: str) -> str:
    return f"^{re.escape(said)}$"


def generator(image_px: int = 16, layers: int = 2) -> Generator:
    torch.manual_seed(0)
    net = Generator(image_px, latent_dim=16, channel_max=16, mapping_layers=layers).double()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("noise_strength"):
                value.fill_(0.1)
    return net


def chain(image_px: int = 16) -> DeepJSCC:
    torch.manual_seed(1)
    return DeepJSCC(image_px, 32, width=8, stages=2).double()


def received(y: Tensor, rows: slice = slice(None)) -> Received:
    snr_db = torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64)
    return Received(y[rows], torch.zeros(len(y[rows]), 32), snr_db[rows], KEYS[rows])


def images(image_px: int = 16) -> Tensor:
    return torch.rand(3, 3, image_px, image_px, generator=torch.Generator().manual_seed(2)).double() * 2 - 1


def planted(net: Generator) -> Tensor:
    """Images of other latents and noise than any search starts from."""
    draw = torch.Generator().manual_seed(3)
    noises = [torch.randn(3, 1, side, side, generator=draw).double() for side in net.noise_sides]
    with torch.no_grad():
        image: Tensor = net(torch.randn(3, 16, generator=draw).double(), noises)
    return image


def test_latents_and_noises_are_put_on_their_spheres() -> None:
    x = 5 * torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = onto_sphere(x)
    torch.testing.assert_close(found.norm(dim=2), torch.full((3, 4), math.sqrt(50), dtype=torch.float64))
    torch.testing.assert_close(found / found.norm(dim=2, keepdim=True), x / x.norm(dim=2, keepdim=True))
    noise = onto_sphere(x.view(3, 1, 10, 20))
    torch.testing.assert_close(noise.square().sum((1, 2, 3)), torch.full((3,), 200.0, dtype=torch.float64))


@pytest.mark.parametrize("radius", [0.5, 4.0, 1e3])
def test_the_l1_ball_is_that_of_a_plain_search(radius: float) -> None:
    x = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0] = 0
    x[1, 0, 0] = x[1, 0, 0, 0]  # ties
    found = onto_l1_ball(x, radius)
    for row in range(5):
        size = np.abs(x[row].numpy())
        low, high = 0.0, size.max()
        for _ in range(100):  # the threshold that leaves the radius, by bisection
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(size - middle, 0).sum() > radius else (low, middle)
        expected = np.sign(x[row].numpy()) * np.maximum(size - (high if size.sum() > radius else 0), 0)
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-12)
        assert found[row].abs().sum() <= radius + 1e-9


def test_geocross_has_a_closed_form() -> None:
    e = torch.eye(8, dtype=torch.float64)
    same, opposite = e[[0, 0]], torch.stack([e[0], -e[0]])
    found = geocross(torch.stack([same, e[:2], opposite]))
    # one pair: half of the ordered ones; times D / 8 = 1
    torch.testing.assert_close(
        found, torch.tensor([0, (math.pi / 2) ** 2 / 2, math.pi**2 / 2]).double(), atol=1e-4, rtol=0
    )
    z = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = (z / z.norm(dim=2, keepdim=True)).numpy()
    angles = np.arccos(np.clip(unit @ unit.transpose(0, 2, 1), -1, 1))
    mean = np.where(np.eye(5), 0, angles**2).mean((1, 2))
    np.testing.assert_allclose(geocross(onto_sphere(z)), mean * 16 / 8, rtol=1e-6)


def test_the_gradient_of_latents_that_are_equal_is_finite() -> None:
    z = torch.ones(1, 3, 4).requires_grad_()
    geocross(z).sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_the_rate_rises_and_falls() -> None:
    rates = np.array([learning_rate(step, 100, 0.1) for step in range(100)])
    np.testing.assert_allclose(rates[:5], 0.1 * (np.arange(5) + 0.5) / 5)
    np.testing.assert_allclose(rates[5:25], 0.1)
    down = (np.arange(25, 100) + 0.5 - 25) / 75
    np.testing.assert_allclose(rates[25:], 0.1 * (1 + np.cos(np.pi * down)) / 2, atol=1e-12)


def test_a_planted_image_is_found() -> None:
    net = generator()
    truth = planted(net)
    first = Inversion(rounds=(1,), radii=(), compared="image").reconstruct(net, chain(), received(truth), 0)
    settings = Inversion(rounds=(30, 15, 10), radii=(0.1, 0.1), compared="image")
    found = settings.reconstruct(net, chain(), received(truth), 0)
    before, after = ((image - truth).square().mean((1, 2, 3)) for image in (first, found))
    assert (after < before / 10).all()


def test_through_the_chain_what_was_received_is_explained() -> None:
    net, jscc = generator(), chain()
    snr_db = received(images()).snr_db
    with torch.no_grad():
        y = jscc.decode(jscc.encode(planted(net), snr_db), snr_db)

    def unexplained(**settings: Any) -> Tensor:
        image = Inversion(**settings).reconstruct(net, jscc, received(y), 0)
        with torch.no_grad():
            return (jscc.decode(jscc.encode(image, snr_db), snr_db) - y).square().mean((1, 2, 3))

    after = unexplained(rounds=(20, 5, 5), radii=(0.1, 0.1))
    assert (after < unexplained(rounds=(1,), radii=()) / 10).all()
    assert (after < unexplained(rounds=(20, 5, 5), radii=(0.1, 0.1), compared="image")).all()


def test_larger_images_of_a_generator_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    net = generator(16)
    seen: list[Tensor] = []
    synthesise = net.synthesise

    def noting(*given: Any) -> Tensor:
        seen.append(synthesise(*given))
        return seen[-1]

    monkeypatch.setattr(net, "synthesise", noting)
    once = Inversion(rounds=(1,), radii=(), compared="image")
    found = once.reconstruct(net, chain(), received(images(8)), 0)
    expected = seen[0].detach().unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))
    torch.testing.assert_close(found, expected)


def test_an_image_does_not_depend_on_its_batch() -> None:
    net, jscc, y = generator(), chain(), images()
    together = SHORT.reconstruct(net, jscc, received(y), 7)
    for row in range(3):
        alone = SHORT.reconstruct(net, jscc, received(y, slice(row, row + 1)), 7)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-9)
    assert (SHORT.reconstruct(net, jscc, received(y), 8) - together).abs().amax((1, 2, 3)).min() > 0.01


def test_networks_stay_as_they_are_whatever_surrounds_the_search() -> None:
    net, jscc, y = generator().float(), chain().float(), images().float()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sent = received(y)._replace(snr_db=torch.zeros(3))
    found = SHORT.reconstruct(net, jscc, sent, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(SHORT.reconstruct(net, jscc, sent, 0), found)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    for name, value in net.named_parameters():
        assert torch.equal(value, before[name])
        assert value.requires_grad
        assert value.grad is None
    assert all(value.grad is None for value in jscc.parameters())


@pytest.mark.parametrize("radius", [0.01, None])
def test_each_round_goes_a_layer_deeper_and_stays_near_the_one_before(
    radius: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = generator()
    seen: list[tuple[Any, ...]] = []
    synthesise = net.synthesise

    def noting(styles: Tensor, noises: list[Tensor], layer: int, hidden: Any) -> Tensor:
        for noise in noises:
            torch.testing.assert_close(noise.square().mean((1, 2, 3)), torch.ones(3).double(), rtol=1e-6, atol=0)
        image = synthesise(styles, noises, layer, hidden)
        features = None if hidden is None else hidden.features.detach().clone()
        seen.append((layer, features, [noise.detach().clone() for noise in noises], styles.detach(), image.detach()))
        return image

    monkeypatch.setattr(net, "synthesise", noting)
    steps: list[int] = []
    settings = Inversion(rounds=(3, 3, 2), radii=(radius, radius), compared="image")
    y = images()
    found = settings.reconstruct(net, chain(), received(y), 0, on_step=lambda: steps.append(1))
    assert len(steps) == 8
    assert [each[0] for each in seen] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert seen[0][1] is None
    for first, last in ((3, 5), (6, 7)):
        moved = (seen[last][1] - seen[first][1]).abs().mean((1, 2, 3))
        assert (moved > 0).all()
        if radius is None:
            assert (moved > 0.011).all()
        else:
            assert (moved <= radius * (1 + 1e-9)).all()
    changed = [[not torch.equal(seen[0][2][place], seen[after][2][place]) for place in range(5)] for after in (2, 7)]
    assert changed == [[True] * 5, [True] * 5]
    later = [not torch.equal(seen[3][2][place], seen[5][2][place]) for place in range(5)]
    assert later == [False, True, True, True, True]  # that of layer 0 no longer counts
    distances = torch.stack([(each[4] - y).square().mean((1, 2, 3)) for each in seen])
    torch.testing.assert_close((found - y).square().mean((1, 2, 3)), distances.min(0).values)


def test_starts_are_distributed_as_the_generators_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = generator(8, layers=1), []
    synthesise = net.synthesise

    def noting(styles: Tensor, *rest: Any) -> Tensor:
        seen.append(styles.detach())
        return synthesise(styles, *rest)

    monkeypatch.setattr(net, "synthesise", noting)
    y, keys = torch.zeros(400, 3, 8, 8).double(), image_keys([str(number) for number in range(400)])
    once = Inversion(rounds=(1,), radii=(), compared="image")
    once.reconstruct(net, chain(), Received(y, torch.zeros(400, 32), torch.zeros(400), keys), 0)
    start = seen[0].flatten(0, 1)
    drawn = net.styles_of(torch.randn(4000, 16, generator=torch.Generator().manual_seed(9)).double()).detach()
    torch.testing.assert_close(start.mean(0), drawn.mean(0), atol=0.08, rtol=0)
    torch.testing.assert_close(start.std(0), drawn.std(0), atol=0.08, rtol=0)


def test_lpips_compares_images_of_at_most_256_pixels() -> None:
    class Lpips(nn.Module):
        def forward(self, image: Tensor, truth: Tensor) -> Tensor:
            sizes.append((image.shape[2:], truth.shape[2:]))
            values.append((image - truth).abs().mean((1, 2, 3)))
            assert truth.min() >= 0
            return values[-1]

    sizes: list[Any] = []
    values: list[Tensor] = []
    y = images()
    net = generator()
    settings = Inversion(rounds=(8,), radii=(), compared="image", mse=0.0, lpips=2.0, geocross=0.0)
    found = settings.reconstruct(net, chain(), received(y), 0, Lpips())
    assert sizes[0] == ((16, 16), (16, 16))
    torch.testing.assert_close((found - y).abs().mean((1, 2, 3)) / 2, torch.stack(values).min(0).values.detach())
    sizes.clear()
    torch.manual_seed(0)
    large = Generator(512, latent_dim=4, channel_max=2, channel_base=1024, mapping_layers=1)
    one = Received(torch.zeros(1, 3, 512, 512), torch.zeros(1, 32), torch.zeros(1), KEYS[:1])
    Inversion(rounds=(1,), radii=(), compared="image", lpips=1.0).reconstruct(large, chain(), one, 0, Lpips())
    assert sizes == [((256, 256), (256, 256))]


def test_what_does_not_fit_is_refused() -> None:
    for wrong, size in ((images(32), "32 x 32"), (images()[..., :8], "16 x 8")):
        said = (
            f"the generator makes images of 16 pixels, and those received have {size}: use a generator of their size, "
            "or of a multiple of it"
        )
        with pytest.raises(DataError, match=exactly(said)):
            SHORT.reconstruct(generator(), chain(), received(wrong), 0)
    said = "InverseJSCC has 4 rounds, and the generator of 16 pixels has 3 layers: give fewer rounds"
    with pytest.raises(DataError, match=exactly(said)):
        Inversion().reconstruct(generator(), chain(), received(images()), 0)
    said = "InverseJSCC gives LPIPS a weight of 0.5, and there is no file of its weights"
    with pytest.raises(DataError, match=exactly(said)):
        Inversion(rounds=(1,), radii=(), lpips=0.5).reconstruct(generator(), chain(), received(images()), 0)
    said = "an inversion has at least one round, and a radius for each after the first; got 2 rounds and 3 radii"
    with pytest.raises(ValueError, match=exactly(said)):
        Inversion(rounds=(5, 5))
    with pytest.raises(ValueError, match=r"at least one round"):
        Inversion(rounds=(), radii=())
