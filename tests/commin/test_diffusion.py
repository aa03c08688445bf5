"""The prior: its noise, what it says of a noisy image, and pretrained ones in the layout of diffusers."""

import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.fft import dctn, idctn
from torch import Tensor, nn

from commin.model.diffusion import DiffusionPrior, Prediction, Schedule, noise_schedule

HUB = "huggingface_hub.snapshot_download"


def exactly(said: str) -> str:
    return f"^{re.escape(said)}$"


def tiny(**arguments: Any) -> DiffusionPrior:
    torch.manual_seed(0)
    return DiffusionPrior(16, width=8, multipliers=(1, 2), attention=(False, True), **arguments)


def pair(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1
    return x0, torch.randn(x0.shape, generator=generator), torch.tensor([0, 300, 700, 999])[:count]


def save(folder: Path, apart: bool = False, **scheduler: Any) -> tuple[Any, Any]:
    """A small network with random weights and its scheduler, as diffusers saves them."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet: Any = UNet2DModel(
        sample_size=16, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4, flip_sin_to_cos=False,
        freq_shift=1, downsample_padding=0,
    )  # fmt: skip
    unet.eval()
    ddpm: Any = DDPMScheduler(clip_sample=False, **scheduler)
    unet.save_pretrained(folder / "unet" if apart else folder)
    ddpm.save_pretrained(folder / "scheduler" if apart else folder)
    return unet, ddpm


@pytest.mark.parametrize(("schedule", "theirs"), [("linear", {}), ("cosine", {"beta_schedule": "squaredcos_cap_v2"})])
def test_the_noise_is_that_of_diffusers(schedule: Schedule, theirs: dict[str, Any]) -> None:
    from diffusers import DDPMScheduler

    found = noise_schedule(schedule, 1000)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), DDPMScheduler(**theirs).alphas_cumprod, rtol=2e-5, atol=0)
    assert noise_schedule(schedule, 50)[-1] < 0.01  # fewer levels end in noise too


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_network_that_is_right_has_no_loss_and_gives_image_and_noise_back(
    prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = tiny(prediction=prediction).double()
    x0, noise, t = pair()
    x0, noise = x0.double(), noise.double()
    alpha_bar = prior.alpha_bar[t].view(-1, 1, 1, 1)
    target = noise if prediction == "epsilon" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0
    seen = []

    def right(x: Tensor, level: Tensor, return_dict: bool) -> tuple[Tensor]:
        seen.append((x, level))
        return (F.pixel_unshuffle(target, 2),)

    monkeypatch.setattr(prior.unet, "forward", right)
    x_t = prior.add_noise(x0, noise, t)
    torch.testing.assert_close(x_t, alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise, atol=1e-6, rtol=0)
    assert prior.loss(x0, noise, t).max() < 1e-12
    keep = [0, 1, 2] if prediction == "epsilon" else [0, 1, 2, 3]  # at the last level epsilon says nothing of the image
    clean, found_noise = prior.predict(x_t, t)
    torch.testing.assert_close(clean[keep], x0[keep], atol=1e-5, rtol=0)
    torch.testing.assert_close(found_noise, noise, atol=1e-5, rtol=0)
    assert seen[0][0].shape == (4, 12, 8, 8)
    assert torch.equal(seen[0][1], t)


def test_the_loss_is_the_mean_square_error_of_each_image() -> None:
    prior = tiny()
    x0, noise, t = pair()
    signal, strength = (value[t].view(-1, 1, 1, 1) for value in (prior.signal, prior.noise))
    clean, said = prior.predict(prior.add_noise(x0, noise, t), t)
    wrong = signal * (said - noise) - strength * (clean - x0)  # of v
    torch.testing.assert_close(prior.loss(x0, noise, t), wrong.square().mean((1, 2, 3)))


def test_a_network_in_half_precision_gives_images_in_full() -> None:
    prior, (x0, _, t) = tiny(), pair()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = prior.predict(x0, t)
    for half, full in zip(found, prior.predict(x0, t), strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, atol=0.05, rtol=0)
        assert not torch.equal(half, full)


def measured() -> tuple[DiffusionPrior, Tensor]:
    """A prior that has seen images whose rows hang together, and more images of these."""
    torch.manual_seed(2)
    images = (0.3 * torch.randn(60, 3, 16, 16).cumsum(3) / 4 + torch.linspace(-0.5, 0.5, 16)).clamp(-1, 1)
    prior = tiny().double()
    prior.measure(images[:50].double())
    return prior, images[50:].double()


def test_without_its_network_a_measured_prior_is_the_best_linear_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, images = measured()
    monkeypatch.setattr(prior.unet, "forward", lambda x, t, return_dict: (torch.zeros_like(x),))
    basis = np.stack([dctn(row.reshape(3, 16, 16), norm="ortho").ravel() for row in np.eye(768)]).T
    covariance = basis.T @ np.diag(prior.spectrum.flatten().numpy()) @ basis
    for level in (0, 300, 900):
        signal, noise = prior.alpha_bar[level].sqrt().item(), (1 - prior.alpha_bar[level]).sqrt().item()
        x_t = prior.add_noise(images, torch.randn_like(images), torch.full((10,), level))
        gain = signal * covariance @ np.linalg.inv(signal**2 * covariance + noise**2 * np.eye(768))
        around = (x_t - signal * prior.mean).flatten(1).numpy()
        expected = prior.mean.flatten().numpy() + around @ gain.T
        clean, said = prior.predict(x_t, torch.full((10,), level))
        np.testing.assert_allclose(clean.flatten(1).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(said.numpy(), (x_t - signal * clean).numpy() / noise, atol=1e-4)


def test_a_measured_prior_s_network_says_what_linear_denoising_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, images = measured()
    noise, t = torch.randn_like(images), torch.full((10,), 500)
    said = torch.zeros(10, 12, 8, 8, dtype=torch.float64)
    monkeypatch.setattr(prior.unet, "forward", lambda x, t, return_dict: (said,))
    x_t = prior.add_noise(images, noise, t)
    without = prior.predict(x_t, t)[0]
    said = torch.randn(said.shape, dtype=torch.float64)
    change = (without - prior.predict(x_t, t)[0]).numpy() / prior.noise[500].item()  # of v
    alpha_bar, spectrum = prior.alpha_bar[500].item(), prior.spectrum.numpy()
    scale = np.sqrt(spectrum / (alpha_bar * spectrum + 1 - alpha_bar))
    output = F.pixel_shuffle(said, 2).numpy()
    expected = idctn(scale * dctn(output, axes=(1, 2, 3), norm="ortho"), axes=(1, 2, 3), norm="ortho")
    np.testing.assert_allclose(change, expected, atol=1e-5)
    said = torch.zeros_like(said)
    assert prior.loss(images, noise, t).mean() == pytest.approx((scale**2).mean(), rel=0.1)


def test_an_unmeasured_prior_s_network_says_v() -> None:
    prior, (x_t, _, t) = tiny(), pair()
    v = F.pixel_shuffle(prior.unet(F.pixel_unshuffle(x_t, 2), t).sample, 2)
    signal, noise = (value[t].view(-1, 1, 1, 1) for value in (prior.signal, prior.noise))
    torch.testing.assert_close(prior.predict(x_t, t)[0], signal * x_t - noise * v, atol=1e-5, rtol=0)


def test_a_few_steps_of_training_lower_the_loss() -> None:
    prior, (x0, noise, t) = tiny(), pair()
    descent = torch.optim.Adam(prior.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = prior.loss(x0, noise, t).mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_weights_come_from_a_file_and_the_rest_from_plain_values(tmp_path: Path) -> None:
    prior, (x0, _, t) = tiny(), pair()
    prior.measure(x0)
    torch.save(prior.state_dict(), tmp_path / "prior.pt")
    inside = {f"net.{name}": value for name, value in prior.state_dict().items()}
    torch.save({"state_dict": inside, "epoch": 3}, tmp_path / "prior.ckpt")
    for name in ("prior.pt", "prior.ckpt"):
        other = tiny(weights=str(tmp_path / name))
        assert torch.equal(other.predict(x0, t)[0], prior.predict(x0, t)[0])
    with pytest.raises(ValueError, match=r"does not fit DiffusionPrior"):
        DiffusionPrior(16, width=16, multipliers=(1, 2), attention=(False, True), weights=str(tmp_path / "prior.pt"))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("scheduler", [{}, {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}])
def test_a_folder_of_diffusers_says_what_diffusers_says(
    tmp_path: Path, apart: bool, scheduler: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, ddpm = save(tmp_path, apart, **scheduler)

    def no_network(*_: Any) -> None:
        raise AssertionError("a local folder needs no network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    prior = DiffusionPrior.from_diffusers(str(tmp_path)).eval()
    x_t = pair()[1]
    with torch.no_grad():
        for level in (0, 500, 990):
            t = torch.full((4,), level)
            output = unet(x_t, t).sample
            clean, noise = prior.predict(x_t, t)
            expected = ddpm.step(output, level, x_t).pred_original_sample
            torch.testing.assert_close(clean, expected, rtol=1e-3, atol=1e-3)
            signal = ddpm.alphas_cumprod[level].sqrt()
            torch.testing.assert_close(noise, (x_t - signal * expected) / (1 - signal**2).sqrt(), rtol=1e-3, atol=1e-2)
    assert prior.train_steps == 1000


def test_plain_values_rebuild_a_pretrained_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path)
    made: list[dict[str, Any]] = []
    build = DiffusionPrior.__init__

    def noting(self: nn.Module, **arguments: Any) -> None:
        made.append(arguments)
        build(self, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DiffusionPrior, "__init__", noting)
    prior = DiffusionPrior.from_diffusers(str(tmp_path))
    plain = json.loads(json.dumps({name: value for name, value in made[0].items() if name != "weights"}))
    again = DiffusionPrior(**plain)
    again.load_state_dict(prior.state_dict())
    x0, _, t = pair()
    assert torch.equal(again.eval().predict(x0, t)[0], prior.eval().predict(x0, t)[0])


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "config.json", {"_class_name": "UNet2DConditionModel"},
            "its network is a UNet2DConditionModel, expected a UNet2DModel",
        ),
        ("config.json", {"out_channels": 6}, "it takes 3 channels and returns 6, expected 3 and 3"),
        ("config.json", {"in_channels": 1, "out_channels": 1}, "it takes 1 channels and returns 1, expected 3 and 3"),
        ("config.json", {"sample_size": [16, 32]}, "its images have the size [16, 32], expected one side of a square"),
        ("config.json", {"num_class_embeds": 10}, "it needs a class for every image"),
        (
            "config.json", {"center_input_sample": True},
            "it takes images in [0, 1] (center_input_sample), expected [-1, 1]",
        ),
        (
            "scheduler_config.json", {"prediction_type": "sample"},
            "it predicts sample, expected v_prediction or epsilon",
        ),
        (
            "scheduler_config.json", {"beta_schedule": "scaled_linear"},
            "its noise schedule is scaled_linear from 0.0001 to 0.02 in 1000 steps, expected linear from "
            "0.0001 to 0.02 in 1000 steps, or squaredcos_cap_v2",
        ),
        (
            "scheduler_config.json", {"beta_end": 0.012},
            "its noise schedule is linear from 0.0001 to 0.012 in 1000 steps, expected linear from "
            "0.0001 to 0.02 in 1000 steps, or squaredcos_cap_v2",
        ),
        (
            "scheduler_config.json", {"rescale_betas_zero_snr": True},
            "its noise schedule is changed (trained_betas, rescale_betas_zero_snr), expected a plain one",
        ),
    ],
)  # fmt: skip
def test_another_kind_of_model_is_refused(tmp_path: Path, file: str, change: dict[str, Any], said: str) -> None:
    save(tmp_path)
    (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_text()) | change))
    with pytest.raises(ValueError, match=exactly(f"the prior {tmp_path} cannot be used: {said}")):
        DiffusionPrior.from_diffusers(str(tmp_path))


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _lacking(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "diffusion_pytorch_model.safetensors"
    found = load_file(path)
    del found["conv_in.bias"]
    save_file(found, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without("config.json"), r"^no file .*/config\.json: expected a folder that diffusers' save_pretrained has"),
        (_without("scheduler_config.json"), r"^no file .*/scheduler_config\.json: expected a folder that diffusers'"),
        (lambda folder: (folder / "config.json").write_text("{"), r"^.*/config\.json cannot be read as JSON: "),
        (
            lambda folder: (folder / "config.json").write_text("[]"),
            r"holds no configuration: expected names and values$",
        ),
        (_without("diffusion_pytorch_model.safetensors"), r"^the weights in .* cannot be used \(OSError: "),
        (_lacking, r"^the file in .* lacks 1 of the network's weights, such as conv_in\.bias$"),
        (
            lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"\x10"),
            r"^the weights in .* cannot be used \(\w+: ",
        ),
    ],
)
def test_an_incomplete_or_damaged_folder_is_named(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=said):
        DiffusionPrior.from_diffusers(str(tmp_path))


def test_a_name_is_looked_up_on_the_hub_and_the_log_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path)
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(HUB, download)
    with caplog.at_level(logging.INFO, "commin"):
        prior = DiffusionPrior.from_diffusers("someone/faces")
    assert prior.image_px == 16
    assert asked == [("someone/faces", ["*.json", "*.safetensors"])]
    assert [record.message for record in caplog.records if record.name.startswith("commin")] == [
        "the prior someone/faces comes from the Hugging Face hub: it is downloaded if it is not in its cache"
    ]


def test_without_a_network_or_a_folder_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, allow_patterns: list[str]) -> str:
        raise OSError("no route")

    monkeypatch.setattr(HUB, offline)
    said = (
        "someone/faces is no folder, and cannot be had from the hub (OSError: no route): on a machine with a network "
        "save the model with save_pretrained, and give that folder instead"
    )
    with pytest.raises(ValueError, match=exactly(said)):
        DiffusionPrior.from_diffusers("someone/faces")
    for path in ("/nowhere/at/all", "./models/faces", "faces"):
        with pytest.raises(
            ValueError, match=exactly(f"no folder {path}, and on the hub a model's name is <owner>/<model>")
        ):
            DiffusionPrior.from_diffusers(path)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=exactly("the side of the prior's images must be a multiple of 8, got 20")):
        DiffusionPrior(20)
    with pytest.raises(
        ValueError, match=exactly("multipliers and attention have one entry for each level, got 2 and 3")
    ):
        DiffusionPrior(16, multipliers=(1, 2))
    said = (
        "the prior is for images of 16 x 16 pixels and 3 channels, got 1 x 16 x 16 (channels first): resize them or "
        "use another prior"
    )
    with pytest.raises(ValueError, match=exactly(said)):
        tiny().predict(torch.zeros(2, 1, 16, 16), torch.zeros(2, dtype=torch.long))
