"""StyleGAN2: its layers beside plain transcriptions, published names, and that both networks learn."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from commin.data.module import ImageBatch
from commin.methods.stylegan import StyleGAN, mixed_styles, r1_penalty
from commin.model.stylegan import (
    Discriminator,
    EqualConv,
    EqualLinear,
    Generator,
    from_published,
    minibatch_deviation,
    modulated_conv,
    smooth,
    upsample,
    widths_of,
)

Array = NDArray[np.float64]
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def exactly(said: str) -> str:
    return f"^{re.escape(said)}$"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny(image_px: int = 16, **settings: Any) -> Generator:
    """With noise, biases and modulation that matter, which are 0 at first."""
    torch.manual_seed(0)
    net = Generator(image_px, latent_dim=6, channel_max=8, channel_base=64, mapping_layers=2, **settings)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                value.add_(0.3 * torch.randn(value.shape))
    return net


def correlate(x: Array, weight: Array, padding: int) -> Array:
    """A plain convolution as networks have it: (C, H, W) and (C', C, k, k)."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    found: Array = np.einsum("chwij,ocij->ohw", windows, weight)
    return found


def leaky(x: Array) -> Array:
    return math.sqrt(2) * np.where(x > 0, x, 0.2 * x)


def stretched(x: Array) -> Array:
    """Zeros between the pixels, none at the borders."""
    found = np.zeros((len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
    found[:, ::2, ::2] = x
    return found


def filtered(x: Array, gain: float, padding: int) -> Array:
    return np.stack([correlate(channel[None], gain * FILTER[None, None], padding)[0] for channel in x])


def plain_modulated(x: Array, weight: Array, style: Array, demodulate: bool, up: bool) -> Array:
    """Of one image: scale the weights, demodulate, convolve (Karras et al. 2020, Fig. 2)."""
    own = weight * style[None, :, None, None]
    if demodulate:
        own = own / np.sqrt((own**2).sum((1, 2, 3), keepdims=True) + 1e-8)
    if not up:
        return correlate(x, own, weight.shape[-1] // 2)
    return filtered(correlate(stretched(x), own[:, :, ::-1, ::-1], 2), 4, 1)  # transposed: the kernel is turned


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("kernel", "up"), [(3, False), (1, False), (3, True)])
def test_modulated_convolution_is_the_plain_loop(demodulate: bool, kernel: int, up: bool) -> None:
    x, weight, style = normal(3, 4, 5, 5), normal(6, 4, kernel, kernel, seed=1), 1 + normal(3, 4, seed=2)
    found = modulated_conv(x, weight, style, demodulate, up)
    for image in range(3):
        expected = plain_modulated(x[image].numpy(), weight.numpy(), style[image].numpy(), demodulate, up)
        np.testing.assert_allclose(found[image], expected, rtol=0, atol=1e-12)


def test_demodulation_gives_unit_variance_whatever_the_style() -> None:
    x, weight = normal(2, 32, 40, 40), normal(16, 32, 3, 3, seed=1)
    style = torch.stack([torch.full((32,), 50.0), 0.01 * torch.rand(32, generator=torch.Generator().manual_seed(2))])
    inside = modulated_conv(x, weight, style.double())[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside.flatten(2).std(2).mean(1), torch.ones(2).double(), rtol=0.02, atol=0)
    plain = modulated_conv(x, weight, style.double(), demodulate=False).flatten(1).std(1)
    assert plain[0] > 100 * plain[1]


def test_resampling_is_bilinear_inside_and_halves() -> None:
    x = normal(2, 3, 6, 8)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(upsample(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=1e-12)
    half = smooth(x, padding=1, stride=2)
    np.testing.assert_allclose(half[0], filtered(x[0].numpy(), 1, 1)[:, ::2, ::2], rtol=0, atol=1e-12)
    assert half.shape == (2, 3, 3, 4)


def test_the_learning_rate_is_equalised() -> None:
    torch.manual_seed(0)
    layer = EqualLinear(400, 300, bias=0.5, rate=0.01)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.01)  # unit variance over the rate
    x = torch.randn(200, 400)
    expected = x @ (layer.weight.T * 0.01 / 20) + layer.bias * 0.01
    torch.testing.assert_close(layer(x), expected)
    assert (layer(x) - 0.5).std().item() == pytest.approx(1, rel=0.02)
    conv = EqualConv(25, 30, 3)
    assert conv(torch.randn(4, 25, 12, 12))[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.05)

    (before,) = layer(x[:1]).detach()
    descent = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(x[:1]).sum().backward()
    descent.step()  # each weight moves by the rate of Adam, 0.1, so by 0.1 * 0.01 / 20 in its effect
    moved = before - layer(x[:1])[0]
    torch.testing.assert_close(moved, (x[:1].abs().sum() * 0.1 * 0.01 / 20 + 0.1 * 0.01).expand(300), rtol=1e-3, atol=0)


def published(dim: int = 6, widths: tuple[int, ...] = (8, 8, 4, 2), layers: int = 2) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the well-known port, made here."""
    state: dict[str, Tensor] = {}

    def styled(name: str, inputs: int, outputs: int, kernel: int) -> None:
        state[f"{name}.conv.weight"] = torch.randn(1, outputs, inputs, kernel, kernel)
        state[f"{name}.conv.modulation.weight"] = torch.randn(inputs, dim)
        state[f"{name}.conv.modulation.bias"] = 1 + torch.randn(inputs)
        if kernel == 1:
            state[f"{name}.bias"] = torch.randn(1, 3, 1, 1)
        else:
            state[f"{name}.noise.weight"] = torch.randn(1)
            state[f"{name}.activate.bias"] = torch.randn(outputs)

    torch.manual_seed(0)
    for layer in range(1, layers + 1):
        state[f"style.{layer}.weight"], state[f"style.{layer}.bias"] = 100 * torch.randn(dim, dim), torch.randn(dim)
    state["input.input"] = torch.randn(1, widths[0], 4, 4)
    styled("conv1", widths[0], widths[0], 3)
    styled("to_rgb1", widths[0], 3, 1)
    for place in range(len(widths) - 1):
        styled(f"convs.{2 * place}", widths[place], widths[place + 1], 3)
        styled(f"convs.{2 * place + 1}", widths[place + 1], widths[place + 1], 3)
        styled(f"to_rgbs.{place}", widths[place + 1], 3, 1)
        state[f"convs.{2 * place}.conv.blur.kernel"] = state[f"to_rgbs.{place}.upsample.kernel"] = torch.ones(4, 4)
    state["noises.noise_0"] = torch.randn(1, 1, 4, 4)
    return state


def plain_images(state: dict[str, Tensor], z: Array, noises: list[Array]) -> Array:
    """What a network with the published names makes of one latent: a transcription with plain loops, no batch."""
    value = {name: entry.double().numpy() for name, entry in state.items()}

    def styled(name: str, x: Array, noise: Array | None, up: bool = False) -> Array:
        weight = value[f"{name}.conv.weight"][0]
        dim = value[f"{name}.conv.modulation.weight"].shape[1]
        style = value[f"{name}.conv.modulation.weight"] @ w / math.sqrt(dim) + value[f"{name}.conv.modulation.bias"]
        scaled = weight / math.sqrt(weight[0].size)
        y = plain_modulated(x, scaled, style, demodulate=noise is not None, up=up)
        if noise is None:
            colours: Array = y + value[f"{name}.bias"][0]
            return colours
        return leaky(y + value[f"{name}.noise.weight"] * noise + value[f"{name}.activate.bias"][:, None, None])

    w = z / math.sqrt((z**2).mean() + 1e-8)
    layer = 1
    while f"style.{layer}.weight" in value:
        weight = value[f"style.{layer}.weight"] * 0.01 / math.sqrt(len(w))
        w = leaky(weight @ w + value[f"style.{layer}.bias"] * 0.01)
        layer += 1
    x = styled("conv1", value["input.input"][0], noises[0])
    image, place = styled("to_rgb1", x, None), 0
    while f"convs.{2 * place}.conv.weight" in value:
        x = styled(f"convs.{2 * place}", x, noises[2 * place + 1], up=True)
        x = styled(f"convs.{2 * place + 1}", x, noises[2 * place + 2])
        image = filtered(stretched(image), 4, 2) + styled(f"to_rgbs.{place}", x, None)
        place += 1
    return image


def test_published_weights_make_the_images_that_they_are_for(tmp_path: Path) -> None:
    state = published()
    torch.save(state, tmp_path / "published.pt")
    net = Generator(32, 6, 8, 64, mapping_layers=2, weights=str(tmp_path / "published.pt")).double()
    ours = from_published(state)
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in net.state_dict().items()
    }
    z, noises = normal(2, 6), [normal(2, 1, side, side, seed=side) for side in net.noise_sides]
    found = net(z, noises).detach()
    assert found.shape == (2, 3, 32, 32)
    for image in range(2):
        expected = plain_images(state, z[image].numpy(), [noise[image, 0].numpy() for noise in noises])
        np.testing.assert_allclose(found[image], expected, rtol=1e-9, atol=1e-9)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.pt"
    torch.save(published(), path)
    said = (
        f"the published weights {path} do not fit the generator: size mismatch for layers.2.up.weight: copying a param "
        "with shape torch.Size([4, 8, 3, 3]) from checkpoint, the shape in current model is torch.Size([8, 8, 3, 3])."
    )
    with pytest.raises(ValueError, match=exactly(said)):
        Generator(32, 6, 8, 128, mapping_layers=2, weights=str(path))
    torch.save(tiny().state_dict(), path)
    with pytest.raises(ValueError, match=exactly("no file of weights nowhere.pt")):
        tiny(weights="nowhere.pt")
    with pytest.raises(ValueError, match=r"does not fit Generator: \d+ of its \d+ weights are missing or of another"):
        tiny(32, weights=str(path))


def test_starting_at_a_layer_goes_on_from_what_enters_it() -> None:
    net = tiny(32).double()
    styles, noises = normal(2, 8, 6), [normal(2, 1, side, side, seed=side) for side in net.noise_sides]
    whole = net.synthesise(styles, noises)
    for layer in range(4):
        hidden = net.advance(styles, noises, 0, layer)
        assert hidden.features.shape[2:] == ((4, 4) if layer == 0 else (2 ** (layer + 1),) * 2)
        torch.testing.assert_close(net.synthesise(styles, noises, layer, hidden), whole, rtol=0, atol=1e-12)
    later = styles.clone()
    later[:, :3] += 1  # layer 2 takes the latents from 3 on, and the noises
    other = [torch.zeros_like(noise) if place < 3 else noise for place, noise in enumerate(noises)]
    hidden = net.advance(styles, noises, 0, 2)
    torch.testing.assert_close(net.synthesise(later, other, 2, hidden), whole, rtol=0, atol=1e-12)
    for place in range(3, 8):
        changed = styles.clone()
        changed[:, place] += 1
        assert (net.synthesise(changed, noises, 2, hidden) - whole).abs().max() > 1e-4
    assert not torch.equal(net(normal(1, 6)), net(normal(1, 6)))  # noise is drawn where none is given


def test_what_does_not_fit_the_generator_is_refused() -> None:
    net = tiny()
    with pytest.raises(ValueError, match=exactly("starting at layer 1 needs what enters it: give hidden")):
        net.synthesise(torch.zeros(1, 6, 6), start_layer=1)
    said = "expected 6 latents of 6 numbers and 5 noises an image, got (5, 6) and 5"
    with pytest.raises(ValueError, match=exactly(said)):
        net.synthesise(torch.zeros(1, 5, 6))
    for side in (4, 24):
        with pytest.raises(ValueError, match=exactly(f"StyleGAN2 needs images of 8, 16, 32, ... pixels, got {side}")):
            Generator(side)
    with pytest.raises(ValueError, match=exactly("the discriminator is for images of 16 pixels, got (8, 8)")):
        Discriminator(16, 8)(torch.zeros(1, 3, 8, 8))
    assert widths_of(1024, 512, 32768) == [512, 512, 512, 512, 512, 256, 128, 64, 32]  # of the FFHQ networks


def test_images_are_compared_within_their_group() -> None:
    x = normal(8, 3, 4, 4)
    found = minibatch_deviation(x)
    assert torch.equal(found[:, :3], x)
    for image in range(8):
        group = x[image % 2 :: 2].numpy()
        expected = np.sqrt(group.var(0) + 1e-8).mean()
        np.testing.assert_allclose(found[image, 3], expected, rtol=1e-6)
    pairs = np.sqrt(x[[0, 3]].numpy().var(0) + 1e-8).mean()  # 4 does not divide 6
    np.testing.assert_allclose(minibatch_deviation(x[:6])[0, 3], pairs, rtol=1e-6)
    assert minibatch_deviation(x[:1])[0, 3].max() < 2e-4  # alone, nothing differs


def test_the_discriminator_is_that_of_its_layers() -> None:
    torch.manual_seed(0)
    net = Discriminator(8, 4, 32).double()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("bias"):
                value.copy_(torch.randn(value.shape))
    x = normal(2, 3, 8, 8)
    state = {name: value.numpy() for name, value in net.state_dict().items()}

    def conv(name: str, y: Array, padding: int) -> Array:
        weight = state[f"{name}.weight"]
        bias = state.get(f"{name}.bias", np.zeros(len(weight)))
        found: Array = correlate(y, weight / math.sqrt(weight[0].size), padding) + bias[:, None, None]
        return found

    features = []
    for image in x.numpy():
        y = leaky(conv("from_rgb", image, 0))
        main = filtered(leaky(conv("down.0.first", y, 1)), 1, 2)
        main = leaky(conv("down.0.second", main, 0)[:, ::2, ::2])
        features.append((main + conv("down.0.shortcut", filtered(y, 1, 1)[:, ::2, ::2], 0)) / math.sqrt(2))
    deviation = np.sqrt(np.stack(features).var(0) + 1e-8).mean()
    for place, image in enumerate(features):
        y = leaky(conv("conv", np.concatenate([image, np.full((1, 4, 4), deviation)]), 1)).ravel()
        y = leaky(state["hidden.weight"] @ y / 8 + state["hidden.bias"])
        expected = state["score.weight"] @ y / 2 + state["score.bias"]
        assert net(x)[place].item() == pytest.approx(expected.item(), rel=1e-6)


def test_r1_is_that_of_a_closed_form() -> None:
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(normal(3, 4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight * x.square()).flatten(1).sum(1)

    net, x = Quadratic(), normal(5, 3, 4, 4, seed=1)
    found = r1_penalty(net, x)
    torch.testing.assert_close(found, (2 * net.weight * x).square().flatten(1).sum(1), rtol=1e-12, atol=0)
    found.sum().backward()
    expected = (8 * net.weight * x.square()).sum(0)
    assert net.weight.grad is not None
    torch.testing.assert_close(net.weight.grad, expected.detach(), rtol=1e-12, atol=0)


def test_styles_are_mixed_at_one_place_each() -> None:
    net, z = tiny(64), normal(400, 6).float()
    torch.manual_seed(0)
    styles = mixed_styles(net, z)
    first, second = net.styles_of(z)[:, None].chunk(2)
    from_second = (styles == second).all(2)
    assert ((styles == first).all(2) ^ from_second).all()
    begins = (~from_second).sum(1)  # once begun, the second stays
    assert (from_second == (torch.arange(10) >= begins[:, None])).all()
    assert sorted(begins.unique().tolist()) == list(range(1, 11))
    assert (begins == 10).float().mean().item() == pytest.approx(0.1, abs=0.05)


class RandomImages(Dataset[ImageBatch]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> ImageBatch:
        generator = torch.Generator().manual_seed(place)
        image = torch.randint(256, (4, 3, 8, 8), generator=generator).to(torch.uint8)
        return ImageBatch(image, torch.arange(4) + 4 * place, torch.arange(4))


def fit(model: StyleGAN, folder: Path, steps: int = 2) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    train, val = (DataLoader(RandomImages(count), batch_size=None) for count in (steps, 1))
    trainer.fit(model, train, val)
    return trainer


def small(cls: type[StyleGAN] = StyleGAN, **settings: Any) -> StyleGAN:
    torch.manual_seed(0)
    return cls(Generator(8, latent_dim=6, channel_max=8, mapping_layers=2), Discriminator(8, 8), **settings)


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.named_parameters()}


def test_two_steps_change_both_networks_and_the_average_follows(tmp_path: Path) -> None:
    decays: list[float] = []
    seen: list[dict[str, Tensor]] = []

    class Watched(StyleGAN):
        def update_average(self, decay: float) -> None:
            super().update_average(decay)
            decays.append(decay)
            seen.append(weights(self.generator))

    model = small(Watched)
    generator, discriminator = weights(model.net), weights(model.discriminator)
    trainer = fit(model, tmp_path)
    assert decays == [1 / 10, 2 / 11]
    assert trainer.global_step == 4
    for name, value in model.discriminator.named_parameters():
        assert not torch.equal(value, discriminator[name]), name
    for name, value in model.net.named_parameters():
        assert not torch.equal(seen[1][name], seen[0][name]), name
        average = generator[name]
        for decay, now in zip(decays, seen, strict=True):
            average = decay * average + (1 - decay) * now[name]
        torch.testing.assert_close(value, average)
        assert not value.requires_grad
    logged = {"train/d_loss", "train/g_loss", "train/real", "val/real", "val/fake"}
    assert logged <= trainer.callback_metrics.keys()

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Generator(8, latent_dim=6, channel_max=8, mapping_layers=2, weights=str(tmp_path / "last.ckpt"))
    z, noises = normal(2, 6).float(), [normal(2, 1, side, side).float() for side in again.noise_sides]
    assert torch.equal(again(z, noises), model.net(z, noises))  # the average is what others load


def test_a_step_descends_the_losses_of_the_paper(tmp_path: Path) -> None:
    class First(StyleGAN):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                torch.manual_seed(5)
                super().training_step(batch, batch_idx)

    rate, r1 = 0.1, 0.3
    settings: dict[str, Any] = {"optimizer": lambda p: torch.optim.SGD(p, lr=rate), "r1": r1}
    model, plain = small(First, **settings), small(**settings)
    fit(model, tmp_path)

    x = RandomImages(1)[0].image / 127.5 - 1
    critic, generator = plain.discriminator, plain.generator
    torch.manual_seed(5)
    fake = plain.draw(4).detach()
    x.requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    loss = -torch.log(torch.sigmoid(critic(x))).mean() - torch.log(1 - torch.sigmoid(critic(fake))).mean()
    loss = loss + 16 * r1 / 2 * slope.square().sum((1, 2, 3)).mean()
    for value, gradient in zip(critic.parameters(), torch.autograd.grad(loss, list(critic.parameters())), strict=True):
        value.data -= rate * gradient
    torch.testing.assert_close(weights(model.discriminator), weights(critic), rtol=1e-6, atol=1e-6)
    loss = -torch.log(torch.sigmoid(critic(plain.draw(4)))).mean()
    mine = list(generator.parameters())
    for value, gradient in zip(mine, torch.autograd.grad(loss, mine), strict=True):
        value.data -= rate * gradient
    torch.testing.assert_close(weights(model.generator), weights(generator), rtol=1e-6, atol=1e-6)


def test_the_penalty_comes_every_16_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    at: list[int] = []

    def noting(discriminator: nn.Module, x: Tensor) -> Tensor:
        at.append(model.trainer.global_step // 2)
        return x.new_zeros(len(x))

    monkeypatch.setattr("commin.methods.stylegan.r1_penalty", noting)
    fit(model, tmp_path, steps=18)
    assert at == [0, 16]
