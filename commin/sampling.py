"""Algorithm 1: sampling of a diffusion model, each step of which is guided by what was received (section 3.3).

As typeset, the first coefficient of line 5 and Eq. 11 is sqrt(alpha_bar_t), where DDPM (Ho et al. 2020, Eq. 7) has
sqrt(alpha_t). With it the mean of x_{t-1} would be too small, at t = 500 for example 0.0816 times the clean image and
not 0.2818 times, so it is a slip; `Sampling(coefficient="printed")` reproduces it.

Shapes: B images of H x W pixels in [-1, 1]; T noise levels, counted from 1 as in the paper.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from commin.model.invertible import Degradation
from commin.noise import unit_normal
from shared.progress import progress_bar

log = logging.getLogger(__name__)

PLACE = 11  # of this module's noise, see `commin.noise.unit_normal`
EPS = 1e-6  # inside the root of the norm: without it, rounding errors of a residual that is 0 have a gradient of 1

Consistency = Callable[[Tensor], Tensor]
"""Of clean images `(B, 3, H, W)`, how they disagree with what was received: `(B, ...)`, whose norm is minimised."""


class Prior(Protocol):
    """What sampling needs of a diffusion model, see `commin.model.diffusion.DiffusionPrior`."""

    alpha_bar: Tensor

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The clean images and their noise; t counts from 0."""


@dataclass(frozen=True)
class Sampling:
    """How Algorithm 1 is run. The defaults are the paper's, with DDPM's coefficient.

    Attributes:
        steps: Number of steps, spread evenly over the noise levels up to `start`; None takes every level.
        start: Noise level to which the start image is brought; None starts from pure noise at T, without the image.
        sampler: `ddpm` as printed; or `ddim` (Song et al. 2021), which needs fewer steps.
        eta: Share of DDPM's noise that DDIM adds; with 1 it is DDPM with the small variance.
        variance: DDPM's sigma_t^2: `beta`, or `small`, that of x_{t-1} given x_t and x_0.
        coefficient: Of x_t in line 5: DDPM's or as `printed`, see above.
        guidance: `full`, the gradient with respect to x_t, through the denoiser (line 8); or `x0`, that with respect to
            the clean image x_{0,t}, at half the time.
        norm: What is minimised: the norm, for which the paper's step sizes are usual, or its square, as printed.
        clip: Whether to clip x_{0,t} to [-1, 1] before line 5. Full guidance gets no gradient where it is clipped.
        precision: Of the denoiser; everything else is computed as the images are.

    Raises:
        ValueError: A number is out of its range.
    """

    steps: int | None = None
    start: int | None = None
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    eta: float = 1.0
    variance: Literal["small", "beta"] = "small"
    coefficient: Literal["ddpm", "printed"] = "ddpm"
    guidance: Literal["full", "x0"] = "full"
    norm: Literal["l2", "l2_squared"] = "l2"
    clip: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "start"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, got {value}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {self.eta}")

    def levels(self, train_steps: int) -> list[int]:
        """The noise levels that are visited, from the noisiest down.

        Args:
            train_steps: T.

        Raises:
            ValueError: The start is above T, or there are more steps than levels.

        Example:
            >>> Sampling(steps=5, start=500).levels(1000)
            [500, 400, 300, 200, 100]
        """
        start = train_steps if self.start is None else self.start
        steps = start if self.steps is None else self.steps
        if start > train_steps or steps > start:
            raise ValueError(f"{steps} steps from level {start} need as many levels, and the prior has {train_steps}")
        return [round(start * step / steps) for step in range(steps, 0, -1)]


class Step(NamedTuple):
    """A step to a lower noise level: `x_{t-1} = noisy * x_t + clean * x_{0,t} + sigma * z`."""

    noisy: float
    clean: float
    sigma: float


def step_to(now: float, after: float, settings: Sampling) -> Step:
    r"""The coefficients of line 5, or of DDIM.

    Between levels that are not neighbours, alpha_t is the ratio of their alpha-bar (Nichol and Dhariwal 2021, Eq. 19).
    DDIM (Song et al. 2021, Eq. 12) is written with the noise that x_t has beside x_{0,t},
    :math:`\epsilon = (x_t - \sqrt{\bar\alpha_t} x_{0,t}) / \sqrt{1 - \bar\alpha_t}`.

    Args:
        now: alpha-bar at the level of x_t.
        after: alpha-bar at the level that follows; 1 after the last.
        settings: See `Sampling`.
    """
    alpha = now / after
    posterior = (1 - after) / (1 - now) * (1 - alpha)
    if settings.sampler == "ddim":
        sigma = settings.eta * posterior**0.5
        noisy = ((1 - after - sigma**2) / (1 - now)) ** 0.5
        return Step(noisy, after**0.5 - noisy * now**0.5, sigma)
    scale = alpha if settings.coefficient == "ddpm" else now
    variance = posterior if settings.variance == "small" else 1 - alpha
    return Step(
        noisy=scale**0.5 * (1 - after) / (1 - now),
        clean=after**0.5 * (1 - alpha) / (1 - now),
        sigma=variance**0.5 if after < 1 else 0.0,  # line 3: the last step adds no noise
    )


def steps_of(alpha_bar: Sequence[float], settings: Sampling) -> Iterator[tuple[int, Step]]:
    """Each visited noise level with the step from there.

    Args:
        alpha_bar: Of the levels 1 to T.
        settings: See `Sampling`.
    """
    levels = settings.levels(len(alpha_bar))
    for now, after in zip(levels, [*levels[1:], 0], strict=True):
        yield now, step_to(alpha_bar[now - 1], alpha_bar[after - 1] if after else 1.0, settings)


def paper_zeta(snr_db: Tensor) -> Tensor:
    """The step size of the guidance (section 4): 0.3 up to -3 dB, 0.4 from -1 to 1 dB, 0.5 from 3 dB; between, linear.

    Example:
        >>> paper_zeta(torch.tensor([-5.0, -3, -2, -1, 1, 2, 3, 5]))
        tensor([0.3000, 0.3000, 0.3500, 0.4000, 0.4000, 0.4500, 0.5000, 0.5000])
    """
    return 0.3 + 0.05 * (snr_db + 3).clamp(0, 2) + 0.05 * (snr_db - 1).clamp(0, 2)


def inn_consistency(degradation: Degradation, y: Tensor, snr_db: Tensor) -> Consistency:
    """Lines 6 and 7: how the clean image changes when the INN's coarse part of it is replaced by what was received.

    Everything is connected: the gradient is also that of the details and of the image itself.

    Args:
        degradation: The INN, or what stands in its place.
        y: `(B, 3, H, W)`, decoded by DeepJSCC.
        snr_db: `(B,)`.
    """
    coarse = degradation.coarse_of(y)

    def difference(x0: Tensor) -> Tensor:
        _, details = degradation(x0, snr_db)
        return degradation.inverse(coarse, details, snr_db) - x0

    return difference


def objective(residual: Tensor, norm: Literal["l2", "l2_squared"]) -> Tensor:
    """The norm of each image's residual, or its square: `(B,)`."""
    squared = residual.flatten(1).square().sum(1)
    return squared if norm == "l2_squared" else (squared + EPS).sqrt()


@torch.no_grad()
def sample(
    prior: Prior,
    consistency: Consistency | None,
    keys: Tensor,
    zeta: Tensor,
    settings: Sampling,
    seed: int,
    start_image: Tensor | None = None,
    shape: Sequence[int] | None = None,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """One image for each of a batch, by Algorithm 1.

    An image's noise depends on its key, the seed and the noise level alone, and its guidance on no other image, so that
    a result does not depend on the batch that it is in. Networks should not require gradients of their weights, which
    would only take memory; under `torch.inference_mode` nothing can be guided.

    Args:
        prior: The diffusion model.
        consistency: What guides the samples; None leaves them unguided.
        keys: `(B,)`, see `commin.noise.image_keys`.
        zeta: `(B,)`, each image's step size of the guidance, on the device and of the type of the images; where all
            are 0, nothing guides and no gradient is computed.
        settings: See `Sampling`.
        seed: Of the noise.
        start_image: `(B, 3, H, W)`, usually y, noised to `settings.start`; not used where that is None.
        shape: Of an image; None takes the start image's.
        on_step: Called after each step.

    Returns:
        `(B, 3, H, W)`. Values are not clipped, unless the settings say so.

    Raises:
        ValueError: There is a start level and no start image, or no shape; or see `Sampling.levels`.
    """
    if settings.start is not None and start_image is None:
        raise ValueError(f"sampling from level {settings.start} needs an image to start from")
    if shape is None:
        if start_image is None:
            raise ValueError("sampling without a start image needs the shape of an image")
        shape = start_image.shape[1:]

    def noise(level: int) -> Tensor:
        return unit_normal(seed, keys, shape, PLACE, level).to(zeta)

    guided = consistency is not None and bool((zeta != 0).any())
    alpha_bar = prior.alpha_bar.tolist()
    steps = list(steps_of(alpha_bar, settings))
    x = noise(0)  # not the number of a step's own noise
    if settings.start is not None and start_image is not None:
        level = alpha_bar[settings.start - 1]
        x = level**0.5 * start_image + (1 - level) ** 0.5 * x
    with torch.autocast(zeta.device.type, enabled=False):
        for level, step in steps:
            t = torch.full((len(keys),), level - 1, device=zeta.device)
            if guided:
                assert consistency is not None
                clean, gradient = _guide(prior, consistency, x, t, settings)
            else:
                clean = _clean(prior, x, t, settings)
            x = step.noisy * x + step.clean * clean
            if step.sigma:
                x = x + step.sigma * noise(level)
            if guided:
                x = x - zeta[:, None, None, None] * gradient  # line 8
            if on_step:
                on_step()
    return x


def _clean(prior: Prior, x: Tensor, t: Tensor, settings: Sampling) -> Tensor:
    """Line 4."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        clean, _ = prior.predict(x, t)
    return clean.clamp(-1, 1) if settings.clip else clean


def _guide(prior: Prior, consistency: Consistency, x: Tensor, t: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """The clean images and the gradient of line 8."""
    with torch.enable_grad():
        if settings.guidance == "full":
            variable = x.detach().requires_grad_()
            clean = _clean(prior, variable, t, settings)
        else:
            with torch.no_grad():
                clean = _clean(prior, x, t, settings)
            variable = clean.requires_grad_()
        total = objective(consistency(clean), settings.norm).sum()  # an image's term has its own gradient alone
        (gradient,) = torch.autograd.grad(total, variable)
    return clean.detach(), gradient


def sample_in_batches(
    draw: Callable[[Tensor, Callable[[], object]], Tensor], count: int, batch_size: int, steps: int
) -> Tensor:
    """Sample any number of images with a progress bar, in smaller batches if the GPU's memory does not suffice.

    Args:
        draw: Of rows `(B,)` int64 in [0, count) and a function to call after each step, as `sample` does: their
            images `(B, ...)`.
        count: Number of rows.
        batch_size: Rows at a time, at most.
        steps: Steps of a row, for the bar.

    Returns:
        `(count, ...)`, on the CPU.

    Raises:
        torch.OutOfMemoryError: A single row is too much.
    """
    found: list[Tensor] = []
    first = 0
    with progress_bar(count * steps, "sampling", "step") as bar:
        while first < count:
            rows = torch.arange(first, min(first + batch_size, count))
            images = _drawn(draw, rows, partial(bar.update, len(rows)))
            if images is None:
                batch_size = len(rows) // 2
                log.warning("the GPU's memory does not suffice for %d images: going on with %d", len(rows), batch_size)
            else:
                found.append(images.cpu())
                first += len(rows)
            bar.n = first * steps
    return torch.cat(found)


def _drawn(
    draw: Callable[[Tensor, Callable[[], object]], Tensor], rows: Tensor, on_step: Callable[[], object]
) -> Tensor | None:
    """The rows' images, or None without enough memory; what was allocated is free once this has returned."""
    try:
        return draw(rows, on_step)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
        return None


def mean_and_spread(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of several samples of each image, and how they differ at each pixel.

    Args:
        samples: `(B, N, 3, H, W)`, N at least 2.

    Returns:
        `(B, 3, H, W)` and `(B, H, W)`, the root mean square over colours of their standard deviation.
    """
    variance, mean = torch.var_mean(samples, dim=1)
    return mean, variance.mean(1).sqrt()
