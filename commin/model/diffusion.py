"""The prior: a denoising diffusion model (Ho et al. 2020) around the U-Net of diffusers.

A network trained from scratch for four minutes is no better than the best linear denoiser of the same images. So this
one, which costs nothing, is what our networks start from, see `DiffusionPrior.measure`.

Shapes: B images of S x S pixels in [-1, 1]; T noise levels, of which the index t in [0, T) is the paper's t minus 1.
"""

import json
import logging
import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commin.model.cosine import cosine_transform
from shared.backbones.weights import load_weights

log = logging.getLogger(__name__)

Prediction = Literal["v", "epsilon"]
Schedule = Literal["linear", "cosine"]
ROUNDING = 2 / 255 * 2 / 255 / 12  # variance of rounding to 8 bits: no coefficient of an image has less
PREDICTIONS: dict[str, Prediction] = {"v_prediction": "v", "epsilon": "epsilon"}  # diffusers' names


def noise_schedule(schedule: Schedule, train_steps: int) -> Tensor:
    """The cumulative products of 1 - beta, alpha-bar: `(T,)` float64.

    Args:
        schedule: `linear`, beta from 1e-4 to 0.02 for T = 1000 (Ho et al. 2020) and in proportion for another T; or
            `cosine` (Nichol and Dhariwal 2021, Eq. 17), which leaves small images more of their signal.
        train_steps: T.
    """
    if schedule == "linear":
        beta = torch.linspace(0.1, 20, train_steps, dtype=torch.float64) / train_steps
    else:
        level = torch.arange(train_steps + 1, dtype=torch.float64) / train_steps
        signal = torch.cos((level + 0.008) / 1.008 * math.pi / 2).square()
        beta = (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
    return (1 - beta).cumprod(0)


class DiffusionPrior(nn.Module):
    r"""A denoiser of images at T noise levels: diffusers' `UNet2DModel` over blocks of pixels as channels.

    With the prediction v (Salimans and Ho 2022), the network's output F is what the best linear denoiser misses. In the
    coefficients of the cosine transform over colours, rows and columns, where images have the variances
    :math:`\lambda` around their mean :math:`\mu`, and x_t the coefficients :math:`\hat x_t`,

    .. math::

        \hat v = \frac{\sqrt{\bar\alpha_t (1 - \bar\alpha_t)} (1 - \lambda)}{\bar\alpha_t \lambda + 1 - \bar\alpha_t}
        (\hat x_t - \sqrt{\bar\alpha_t} \hat\mu) - \sqrt{1 - \bar\alpha_t} \hat\mu
        + \sqrt{\frac{\lambda}{\bar\alpha_t \lambda + 1 - \bar\alpha_t}} \hat F.

    If images were Gaussian, the first terms would be the mean of v given x_t, and the factor of F its standard
    deviation: the preconditioning of Karras et al. (2022), for each coefficient instead of for all together. Until
    images have been measured, lambda is 1 and mu 0, so that v is F, as in pretrained models.

    Args:
        image_px: S.
        width: Channels at the finest level.
        multipliers: Of the width, one for each level; every level but the first has half the resolution.
        blocks: Residual blocks at each level.
        attention: Whether each level has self-attention; the coarsest always has it between its two halves.
        patch: Side of the pixel blocks; 2 makes an image of 64 x 64 x 3 one of 32 x 32 x 12, and a step 4 times as
            fast.
        prediction: What the network says: v, or the noise `epsilon`, as most pretrained ones do.
        schedule: Of the noise, see `noise_schedule`.
        train_steps: T.
        network: Arguments of `UNet2DModel` that replace those made from the above, as a pretrained one has them, see
            `from_diffusers`.
        weights: A file of weights or a checkpoint of `commin.methods.Diffusion`, see `load_weights`; or a folder as of
            `from_diffusers`; None leaves them random.

    Attributes:
        alpha_bar: `(T,)` float64 on the CPU, see `noise_schedule`.
        train_steps: T.
        mean: `(3, S, S)`, mu.
        spectrum: `(3, S, S)`, lambda.

    Raises:
        ValueError: The image does not fit the levels, or the lists differ in length; or see `load_weights`.
    """

    machine_arguments = ("weights",)  # a checkpoint holds them itself
    signal: Tensor
    noise: Tensor
    mean: Tensor
    spectrum: Tensor
    cosines: Tensor
    colours: Tensor

    def __init__(
        self,
        image_px: int = 64,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attention: tuple[bool, ...] = (False, False, True),
        patch: int = 2,
        prediction: Prediction = "v",
        schedule: Schedule = "cosine",
        train_steps: int = 1000,
        network: dict[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel  # takes seconds

        if len(multipliers) != len(attention):
            raise ValueError(
                f"multipliers and attention have one entry for each level, got {len(multipliers)} and {len(attention)}"
            )
        arguments = {
            "sample_size": image_px // patch,
            "in_channels": 3 * patch**2,
            "out_channels": 3 * patch**2,
            "block_out_channels": tuple(width * multiplier for multiplier in multipliers),
            "layers_per_block": blocks,
            "down_block_types": tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in attention),
            "up_block_types": tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)),
            "attention_head_dim": width,
            "norm_num_groups": math.gcd(width, 32),
            **(network or {}),
        }
        divisor = patch * 2 ** (len(arguments["block_out_channels"]) - 1)
        if image_px % divisor:
            raise ValueError(f"the side of the prior's images must be a multiple of {divisor}, got {image_px}")
        self.unet = UNet2DModel(**arguments)
        self.image_px, self.patch, self.prediction, self.train_steps = image_px, patch, prediction, train_steps
        self.alpha_bar = noise_schedule(schedule, train_steps)
        # float32, but each rounded from float64: 1 - alpha-bar of a float32 alpha-bar is wrong by 1e-3 at t = 0
        self.register_buffer("signal", self.alpha_bar.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - self.alpha_bar).sqrt().float(), persistent=False)
        self.register_buffer("mean", torch.zeros(3, image_px, image_px))
        self.register_buffer("spectrum", torch.ones(3, image_px, image_px))
        self.register_buffer("cosines", cosine_transform(image_px).float(), persistent=False)
        self.register_buffer("colours", cosine_transform(3).float(), persistent=False)
        if weights is not None and Path(weights).is_dir():
            _load_diffusers(self.unet, Path(weights))
        elif weights is not None:
            load_weights(self, weights, "net.")

    @classmethod
    def from_diffusers(cls, source: str) -> "DiffusionPrior":
        """A pretrained model in the layout of diffusers, such as `google/ddpm-celebahq-256`.

        Args:
            source: A folder with the configurations and weights of a `UNet2DModel` and of its scheduler, side by side
                or in `unet/` and `scheduler/`; or the name of one on the Hugging Face hub, which is downloaded, as the
                log says, unless it is in the hub's cache. For a folder nothing is sent or fetched.

        Raises:
            ValueError: There is no such folder or it cannot be had from the hub; or the model is not an unconditional
                one of square colour images with a known prediction and noise schedule.
        """
        folder = Path(source) if Path(source).is_dir() else _from_hub(source)
        network = _config(folder / "unet" / "config.json", folder / "config.json")
        scheduler = _config(folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
        schedule = _check(source, network, scheduler)
        return cls(
            image_px=network["sample_size"],
            patch=1,
            prediction=PREDICTIONS[scheduler.get("prediction_type", "epsilon")],
            schedule=schedule,
            train_steps=scheduler["num_train_timesteps"],
            network={name: value for name, value in network.items() if not name.startswith("_")},
            weights=str(folder),
        )

    @torch.no_grad()
    def measure(self, images: Tensor) -> None:
        """Take the mean and the spectrum of the images that the network will be trained on; before training.

        Args:
            images: `(N, 3, S, S)` in [-1, 1].
        """
        self.mean.copy_(images.mean(0))
        self.spectrum.copy_(self._coefficients(images - self.mean).square().mean(0) + ROUNDING)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """An image at noise level t, `sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise` (Ho et al., Eq. 4).

        Args:
            x0: `(B, 3, S, S)`.
            noise: Standard normal, as x0.
            t: `(B,)` int64 in [0, T).
        """
        return _each(self.signal, t) * x0 + _each(self.noise, t) * noise

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The clean image (Eq. 10) and the noise that the network sees in a noisy image.

        Args:
            x_t: `(B, 3, S, S)`, see `add_noise`.
            t: `(B,)` int64 in [0, T).

        Returns:
            Both as x_t, also if the network itself runs in lower precision.

        Raises:
            ValueError: The images have another size or number of channels.
        """
        signal, noise = _each(self.signal, t), _each(self.noise, t)
        said = self._predicted(x_t, t)
        if self.prediction == "v":
            return signal * x_t - noise * said, noise * x_t + signal * said
        return (x_t - noise * said) / signal, said

    def loss(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Mean squared error of v or of the noise, over pixels and channels: `(B,)`.

        The arguments are those of `add_noise`.
        """
        said = self._predicted(self.add_noise(x0, noise, t), t)
        target = noise if self.prediction == "epsilon" else _each(self.signal, t) * noise - _each(self.noise, t) * x0
        return (said - target).square().flatten(1).mean(1)

    def _predicted(self, x_t: Tensor, t: Tensor) -> Tensor:
        """V, or the noise."""
        if x_t.shape[1:] != (3, self.image_px, self.image_px):
            raise ValueError(
                f"the prior is for images of {self.image_px} x {self.image_px} pixels and 3 channels, got "
                f"{' x '.join(str(side) for side in x_t.shape[1:])} (channels first): resize them or use another prior"
            )
        output = self.unet(F.pixel_unshuffle(x_t, self.patch), t, return_dict=False)[0]
        output = F.pixel_shuffle(output.to(x_t.dtype), self.patch)
        if self.prediction == "epsilon":
            return output
        with torch.autocast(x_t.device.type, enabled=False):
            signal, noise = _each(self.signal, t), _each(self.noise, t)
            variance = signal**2 * self.spectrum + noise**2
            linear = signal * noise * (1 - self.spectrum) / variance * self._coefficients(x_t - signal * self.mean)
            v = linear + (self.spectrum / variance).sqrt() * self._coefficients(output)
            return self._image(v) - noise * self.mean

    def _coefficients(self, image: Tensor) -> Tensor:
        """The orthonormal cosine transform (DCT-II) over colours, rows and columns."""
        return torch.einsum("ab,nbij->naij", self.colours, self.cosines @ image @ self.cosines.T)

    def _image(self, coefficients: Tensor) -> Tensor:
        """The inverse of `_coefficients`."""
        return torch.einsum("ba,nbij->naij", self.colours, self.cosines.T @ coefficients @ self.cosines)


def _each(values: Tensor, t: Tensor) -> Tensor:
    """The values at t, one for each image, to multiply images with."""
    return values[t][:, None, None, None]


def _config(*places: Path) -> dict[str, Any]:
    """The first configuration that is there."""
    for path in places:
        if path.is_file():
            try:
                found = json.loads(path.read_text())
            except ValueError as error:
                raise ValueError(f"{path} cannot be read as JSON: {error}") from error
            if isinstance(found, dict):
                return found
            raise ValueError(f"{path} holds no configuration: expected names and values")
    raise ValueError(f"no file {places[-1]}: expected a folder that diffusers' save_pretrained has written")


def _check(source: str, network: dict[str, Any], scheduler: dict[str, Any]) -> Schedule:
    """The noise schedule, if the model is one that this class can use."""
    kind, steps = scheduler.get("beta_schedule"), scheduler.get("num_train_timesteps", 0)
    start, end = scheduler.get("beta_start", 0), scheduler.get("beta_end", 0)
    size = network.get("sample_size")
    channels = (network.get("in_channels"), network.get("out_channels"))
    checks = [
        (
            network.get("_class_name") == "UNet2DModel",
            f"its network is a {network.get('_class_name')}, expected a UNet2DModel",
        ),
        (channels == (3, 3), f"it takes {channels[0]} channels and returns {channels[1]}, expected 3 and 3"),
        (isinstance(size, int), f"its images have the size {size}, expected one side of a square"),
        (
            network.get("class_embed_type") is None and network.get("num_class_embeds") is None,
            "it needs a class for every image",
        ),
        (
            not network.get("center_input_sample"),
            "it takes images in [0, 1] (center_input_sample), expected [-1, 1]",
        ),
        (
            scheduler.get("prediction_type", "epsilon") in PREDICTIONS,
            f"it predicts {scheduler.get('prediction_type')}, expected {' or '.join(PREDICTIONS)}",
        ),
        (
            scheduler.get("trained_betas") is None and not scheduler.get("rescale_betas_zero_snr"),
            "its noise schedule is changed (trained_betas, rescale_betas_zero_snr), expected a plain one",
        ),
    ]
    for is_right, wrong in checks:
        if not is_right:
            raise ValueError(f"the prior {source} cannot be used: {wrong}")
    if kind == "squaredcos_cap_v2":
        return "cosine"
    if kind == "linear" and np.allclose([start * steps, end * steps], [0.1, 20]):
        return "linear"
    raise ValueError(
        f"the prior {source} cannot be used: its noise schedule is {kind} from {start} to {end} in {steps} steps, "
        "expected linear from 0.0001 to 0.02 in 1000 steps, or squaredcos_cap_v2"
    )


def _load_diffusers(unet: nn.Module, folder: Path) -> None:
    """Give the network the weights of a folder; diffusers reads them, since it knows their names in older versions."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    folder = folder / "unet" if (folder / "unet").is_dir() else folder
    try:
        pretrained, report = UNet2DModel.from_pretrained(
            folder, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
        unet.load_state_dict(pretrained.state_dict())
    except Exception as error:  # many types
        raise ValueError(f"the weights in {folder} cannot be used ({type(error).__name__}: {error})") from error
    if missing := report["missing_keys"]:
        raise ValueError(f"the file in {folder} lacks {len(missing)} of the network's weights, such as {missing[0]}")


def _from_hub(name: str) -> Path:
    """The folder of the hub's cache that holds the model."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"no folder {name}, and on the hub a model's name is <owner>/<model>")
    from huggingface_hub import snapshot_download

    log.warning("the prior %s comes from the Hugging Face hub: it is downloaded if it is not in its cache", name)
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
        if not list(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.bin"]))
    except Exception as error:  # the hub's many types
        raise ValueError(
            f"{name} is no folder, and cannot be had from the hub ({type(error).__name__}: {error}): on a machine "
            "with a network save the model with save_pretrained, and give that folder instead"
        ) from error
    return folder
