"""commin's sampler: one batch against one by one, what guidance costs, and against deepinv's DPS: `make bench-commin`.

Every figure is a ratio of two ways of doing the same, timed in turn in one run (A B A B ...): the median of the pairs,
with their range. Without a checkpoint the prior has random weights, the images are random and the degradation is a mean
over blocks of pixels (SYNTHETIC), so that only speed is measured. With one, LPIPS stands beside it.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.timing import PAIRS, Rows, ratio, write_rows
from commin.model.diffusion import DiffusionPrior, noise_schedule
from commin.noise import image_keys
from commin.sampling import Prior, Sampling, sample

OURS = Sampling(steps=25, start=500, guidance="x0")
DPS_STEPS = (25, 50, 100, 250, 1000)
ZETA = 0.3
SNRS = 6
IMAGES = 4

Measure = Callable[[Tensor], float]


@dataclass(frozen=True)
class Case:
    """What is reconstructed.

    Attributes:
        prior: The diffusion model.
        degrade: A(x), differentiable, of images that stand in these rows of y.
        y: `(B, ...)`, what was received, A of the images that were sent and noise.
        start: `(B, 3, H, W)`, the images to start from.
        lpips: The mean LPIPS of reconstructions; None where there is nothing to measure.
    """

    prior: DiffusionPrior
    degrade: Callable[[Tensor, slice], Tensor]
    y: Tensor
    start: Tensor
    lpips: Measure | None = None

    def sample(self, settings: Sampling, zeta: float = ZETA, rows: slice = slice(None)) -> Tensor:
        """Our reconstruction of some of the images."""
        y, start = self.y[rows], self.start[rows]
        keys = image_keys([str(row) for row in range(len(self.y))])[rows]
        steps = torch.full((len(y),), zeta)
        return sample(self.prior, lambda x0: self.degrade(x0, rows) - y, keys, steps, settings, 0, start)


def stand_in(image_px: int = 32, width: int = 16) -> Case:
    """A small prior with random weights, and random images."""
    prior = DiffusionPrior(image_px, width=width, schedule="linear").eval().requires_grad_(False)
    sent = F.interpolate(torch.rand(IMAGES * SNRS, 3, 8, 8) * 2 - 1, image_px, mode="bilinear")

    def degrade(x: Tensor, rows: slice) -> Tensor:
        return F.avg_pool2d(x, 4)

    y = degrade(sent, slice(None))
    y = y + 0.05 * torch.randn_like(y)
    return Case(prior, degrade, y, F.interpolate(y, image_px, mode="bilinear"))


def bench_batch(case: Case, pairs: int) -> Rows:
    """All images at all SNRs at once, against one by one."""
    settings, count = replace(OURS, steps=5), len(case.y)

    def one_by_one() -> None:
        for row in range(count):
            case.sample(settings, rows=slice(row, row + 1))

    label = f"{IMAGES} images at {SNRS} SNRs in one batch, against one by one"
    return [ratio(label, "images/s", partial(case.sample, settings), one_by_one, count, pairs)]


def bench_guidance(case: Case, pairs: int) -> Rows:
    """What guidance costs; below 1 ours takes longer."""
    settings, count = replace(OURS, steps=5), 5 * len(case.y)
    guided, unguided = partial(case.sample, settings), partial(case.sample, settings, 0.0)
    full = partial(case.sample, replace(settings, guidance="full"))
    return [
        ratio("a step guided in x0, against an unguided one", "steps/s", guided, unguided, count, pairs),
        ratio("a step guided in x0, against one with the full gradient", "steps/s", guided, full, count, pairs),
    ]


class Denoiser(nn.Module):
    """Our prior as deepinv calls a denoiser: of images with noise of a standard deviation added (variance exploding).

    An image at level t is `sqrt(alpha_bar_t) (x_0 + sigma_t epsilon)` with `sigma_t^2 = (1 - alpha_bar_t) /
    alpha_bar_t`, so that it is scaled by the first factor, at the level whose sigma_t is nearest.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        self.sigmas = ((1 - prior.alpha_bar) / prior.alpha_bar).sqrt()

    def forward(self, x: Tensor, sigma: Any, *args: object, **kwargs: object) -> Tensor:
        """The clean images."""
        wanted = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1)
        t = (self.sigmas.log() - wanted.clamp(min=1e-8).log()).abs().argmin(1).expand(len(x))
        clean, _ = self.prior.predict(self.prior.alpha_bar[t].sqrt().to(x)[:, None, None, None] * x, t)
        return clean


class _Gaussian:
    """The exact denoiser of pixels of mean 0.3 and standard deviation 0.5."""

    def __init__(self) -> None:
        self.alpha_bar = noise_schedule("linear", 1000)

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        gain = 0.25 * alpha_bar.sqrt() / (0.25 * alpha_bar + 1 - alpha_bar)
        return 0.3 + gain * (x_t - 0.3 * alpha_bar.sqrt()), x_t


def check_scaling() -> None:
    """The wrapped exact denoiser of a Gaussian is the one that is known for added noise, to rounding in float64."""
    prior = _Gaussian()
    denoiser, x = Denoiser(prior), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for t in (0, 250, 500, 999):
        sigma = denoiser.sigmas[t]
        expected = 0.3 + 0.25 / (0.25 + sigma**2) * (x - 0.3)
        error = float((denoiser(x, sigma) - expected).abs().max())
        assert error < 1e-12, f"the scaling between the two kinds of noise is wrong by {error:.0e} at level {t}"


def deepinv_dps(case: Case, steps: int) -> Callable[[], Tensor]:
    """DPS of deepinv on the same prior and degradation, with its own defaults."""
    import deepinv  # an optional package, in an environment of its own

    physics = deepinv.physics.Physics()
    physics.A = lambda x: case.degrade(x, slice(len(case.y)))
    generator = torch.Generator()
    dps = deepinv.sampling.DPS(Denoiser(case.prior), num_steps=steps, minus_one_one=False, rng=generator)
    return lambda: dps(case.y, physics, x_init=tuple(case.start.shape), seed=0).float()


def bench_dps(case: Case, pairs: int) -> Rows:
    """Our sampler of 25 steps against deepinv's DPS of several numbers of steps; the whole curve."""
    check_scaling()
    if not importlib.util.find_spec("deepinv"):
        print("deepinv is not installed, so its DPS is not measured")
        return []
    few = replace(case, y=case.y[:IMAGES], start=case.start[:IMAGES])
    ours, rows = partial(few.sample, OURS), []
    for steps in DPS_STEPS:
        theirs = deepinv_dps(few, steps)
        label = f"{OURS.steps} steps guided in x0 from level {OURS.start}, against DPS of deepinv in {steps}"
        row = ratio(label, "images/s", ours, theirs, IMAGES, pairs if steps < 250 else 1)
        if few.lpips:
            row["lpips"], row["other_lpips"] = few.lpips(ours()), few.lpips(theirs())
            print(f"{'  LPIPS, ours and theirs':<82} {row['lpips']:.3f} {row['other_lpips']:.3f}")
        rows.append(row)
    return rows


def run(output: Path = Path("results/bench_commin.csv"), pairs: int = PAIRS) -> pd.DataFrame:
    """Measure, print ratios and write them.

    Args:
        output: CSV, replaced.
        pairs: Measurements of each ratio.
    """
    pl.seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    case = stand_in()
    rows = bench_batch(case, pairs) + bench_guidance(case, pairs) + bench_dps(case, min(pairs, 3))
    return write_rows(rows, output, data_kind="synthetic")


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
