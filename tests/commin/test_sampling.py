"""Algorithm 1 against transcriptions in float64, diffusers' scheduler, Bayes' rule and finite differences."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from commin.model.diffusion import DiffusionPrior, noise_schedule
from commin.model.invertible import Degradation, LiftingINN
from commin.noise import image_keys, unit_normal
from commin.sampling import (
    PLACE,
    Sampling,
    inn_consistency,
    mean_and_spread,
    objective,
    paper_zeta,
    sample,
    sample_in_batches,
    step_to,
    steps_of,
)

LINEAR = noise_schedule("linear", 1000)
SHAPE = (3, 4, 4)
KEYS = image_keys(["ann", "bob", "cat"])
DOUBLE = torch.zeros(3, dtype=torch.float64)


@dataclass
class GaussianPrior:
    """The exact denoiser of independent pixels of a known mean and standard deviation; it notes how it is called."""

    alpha_bar: Tensor
    mean: float = 0.3
    std: float = 0.5
    seen: list[tuple[bool, bool]] = field(default_factory=list)

    def slope(self, alpha_bar: Any) -> Any:
        return self.std**2 * alpha_bar**0.5 / (self.std**2 * alpha_bar + 1 - alpha_bar)

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        alpha_bar = self.alpha_bar[t][:, None, None, None].to(x_t)
        x0 = self.mean + self.slope(alpha_bar) * (x_t - alpha_bar.sqrt() * self.mean)
        return x0, (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


class CurvedPrior(GaussianPrior):
    """A denoiser that is not linear."""

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[t][:, None, None, None].to(x_t)
        x0 = torch.tanh(x_t + 0.3 * x_t.roll(1, 3))
        return x0, (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


class LinearINN(Degradation):
    """The first 20 of 48 coordinates in another basis are the coarse part."""

    def __init__(self) -> None:
        super().__init__()
        noise = torch.randn(48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.basis = torch.eye(48, dtype=torch.float64) + 0.1 * noise
        self.back = torch.linalg.inv(self.basis)

    def split(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        both = x.flatten(1) @ self.basis.T
        return both[:, :20], both[:, 20:]

    def merge(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        return (torch.cat([c, d], 1) @ self.back.T).reshape(-1, *SHAPE)

    def coarse_of(self, y: Tensor) -> Tensor:
        return self.split(y, DOUBLE)[0]


class CurvedINN(LinearINN):
    """A lifting step after the basis, which depends on the SNR."""

    def split(self, x: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        c, d = super().split(x, snr_db)
        return c + torch.sin(d[:, :20] + snr_db[:, None]), d

    def merge(self, c: Tensor, d: Tensor, snr_db: Tensor) -> Tensor:
        return super().merge(c - torch.sin(d[:, :20] + snr_db[:, None]), d, snr_db)

    def coarse_of(self, y: Tensor) -> Tensor:
        return y.flatten(1)[:, :20]


def images(seed: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=generator) * 2 - 1


def drawn(level: int, seed: int = 5) -> np.ndarray[Any, np.dtype[np.float64]]:
    return unit_normal(seed, KEYS, SHAPE, PLACE, level).double().numpy()


def test_every_level_is_visited_by_default_and_respacing_to_all_changes_nothing() -> None:
    prior = GaussianPrior(noise_schedule("cosine", 40))
    assert Sampling().levels(40) == list(range(40, 0, -1))
    assert Sampling(steps=4, start=30).levels(40) == [30, 22, 15, 8]
    plain, respaced = (sample(prior, None, KEYS, DOUBLE, Sampling(steps=steps), 5, shape=SHAPE) for steps in (None, 40))
    assert torch.equal(plain, respaced)


def test_ddim_without_noise_is_that_of_its_paper() -> None:
    prior = CurvedPrior(LINEAR)
    found = sample(prior, None, KEYS, DOUBLE, Sampling(steps=12, sampler="ddim", eta=0), 5, shape=SHAPE)
    x = drawn(0)
    levels = [1000, 917, 833, 750, 667, 583, 500, 417, 333, 250, 167, 83, 0]
    alpha_bar = np.concatenate([[1], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    for now, after in pairwise(levels):  # Song et al. 2021, Eq. 12
        clean = np.tanh(x + 0.3 * np.roll(x, 1, 3))
        epsilon = (x - np.sqrt(alpha_bar[now]) * clean) / np.sqrt(1 - alpha_bar[now])
        x = np.sqrt(alpha_bar[after]) * clean + np.sqrt(1 - alpha_bar[after]) * epsilon
    np.testing.assert_allclose(found.numpy(), x, atol=1e-10)


@pytest.mark.parametrize(("now", "after"), [(500, 499), (500, 320), (2, 1)])
def test_a_ddpm_step_has_the_mean_and_variance_of_bayes_rule(now: int, after: int) -> None:
    alpha_bar_now, alpha_bar_after = LINEAR[now - 1].item(), LINEAR[after - 1].item()
    ratio = alpha_bar_now / alpha_bar_after
    # given x_0, x_after has the variance 1 - alpha_bar_after, and x_now = sqrt(ratio) x_after + sqrt(1 - ratio) z
    gain = ratio**0.5 * (1 - alpha_bar_after) / (1 - alpha_bar_now)
    variance = (1 - alpha_bar_after) * (1 - gain * ratio**0.5)
    step = step_to(alpha_bar_now, alpha_bar_after, Sampling())
    x0, x_now = 0.7, -1.3
    mean = alpha_bar_after**0.5 * x0 + gain * (x_now - alpha_bar_now**0.5 * x0)
    assert step.noisy * x_now + step.clean * x0 == pytest.approx(mean, rel=1e-9)
    assert step.sigma**2 == pytest.approx(variance, rel=1e-9)
    assert step_to(alpha_bar_now, alpha_bar_after, Sampling(variance="beta")).sigma ** 2 == pytest.approx(1 - ratio)
    assert step_to(alpha_bar_now, alpha_bar_after, Sampling(sampler="ddim")) == pytest.approx(step, rel=1e-9)


@pytest.mark.parametrize(("variance", "theirs"), [("small", "fixed_small"), ("beta", "fixed_large")])
def test_ddpm_is_that_of_diffusers(variance: Literal["small", "beta"], theirs: Any) -> None:
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(
        num_train_timesteps=50, beta_start=0.002, beta_end=0.4, variance_type=theirs, clip_sample=True
    )
    prior = CurvedPrior(noise_schedule("linear", 50))
    settings = Sampling(variance=variance, clip=True)
    zeros = torch.zeros(3)
    found = sample(prior, None, KEYS, zeros, settings, 5, shape=SHAPE)
    x = torch.from_numpy(drawn(0)).float()
    for t in range(49, -1, -1):
        noise = torch.from_numpy(drawn(t + 1)).float()
        epsilon = prior.predict(x, torch.full((3,), t))[1]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, z=noise, **__: z)
            x = scheduler.step(epsilon, t, x).prev_sample
    torch.testing.assert_close(found, x, atol=2e-5, rtol=1e-4)


def test_the_printed_coefficient_is_that_of_eq_11_as_typeset() -> None:
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    now, before = alpha_bar[500], alpha_bar[499]
    beta = 1 - now / before
    settings = Sampling(coefficient="printed")
    step, ddpm = step_to(now, before, settings), step_to(now, before, Sampling())
    assert step.noisy == pytest.approx(now**0.5 * (1 - before) / (1 - now))
    assert step.clean == pytest.approx(before**0.5 * beta / (1 - now))
    assert step.noisy * now**0.5 + step.clean == pytest.approx(0.0808, abs=5e-5)
    assert ddpm.noisy * now**0.5 + ddpm.clean == pytest.approx(0.2803, abs=5e-5)


def test_the_last_step_gives_the_clean_image_without_noise() -> None:
    for settings in (Sampling(), Sampling(variance="beta"), Sampling(sampler="ddim"), Sampling(coefficient="printed")):
        ((level, step),) = steps_of([0.9], settings)
        assert level == 1
        assert step == pytest.approx((0, 1, 0), abs=1e-9)


@pytest.mark.parametrize("guidance", ["full", "x0"])
@pytest.mark.parametrize("norm", ["l2", "l2_squared"])
def test_algorithm_1_line_by_line(guidance: Literal["full", "x0"], norm: Literal["l2", "l2_squared"]) -> None:
    prior, inn, y = GaussianPrior(noise_schedule("linear", 30)), LinearINN(), images(1)
    zeta = torch.tensor([0.05, 0.1, 0.0], dtype=torch.float64)
    consistency = inn_consistency(inn, y, DOUBLE)
    found = sample(prior, consistency, KEYS, zeta, Sampling(guidance=guidance, norm=norm), 5, shape=SHAPE)

    beta = np.linspace(0.1, 20, 30) / 30
    alpha_bar = np.concatenate([[1], np.cumprod(1 - beta)])
    forward, backward = inn.basis.numpy(), inn.back.numpy()
    x = drawn(0).reshape(3, 48)  # line 1
    for t in range(30, 0, -1):
        z = drawn(t).reshape(3, 48) if t > 1 else 0
        slope = prior.slope(alpha_bar[t])
        x0 = 0.3 + slope * (x - np.sqrt(alpha_bar[t]) * 0.3)
        mean = (
            np.sqrt(1 - beta[t - 1]) * (1 - alpha_bar[t - 1]) * x + np.sqrt(alpha_bar[t - 1]) * beta[t - 1] * x0
        ) / (1 - alpha_bar[t])
        sigma = np.sqrt((1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t - 1])
        missing = (y.reshape(3, 48).numpy() - x0) @ forward[:20].T
        residual = missing @ backward[:, :20].T
        gradient = -2 * residual @ backward[:, :20] @ forward[:20]
        if norm == "l2":
            gradient /= 2 * np.sqrt((residual**2).sum(1, keepdims=True) + 1e-6)
        if guidance == "full":
            gradient = gradient * slope
        x = mean + sigma * z - zeta.numpy()[:, None] * gradient
    np.testing.assert_allclose(found.reshape(3, 48).numpy(), x, atol=1e-10)


@pytest.mark.parametrize("guidance", ["full", "x0"])
@pytest.mark.parametrize("norm", ["l2", "l2_squared"])
def test_the_gradient_is_that_of_finite_differences(
    guidance: Literal["full", "x0"], norm: Literal["l2", "l2_squared"]
) -> None:
    prior, inn = CurvedPrior(noise_schedule("cosine", 10)), CurvedINN()
    y, start, snr_db = images(1), images(2), torch.tensor([-5.0, 1, 3], dtype=torch.float64)
    consistency = inn_consistency(inn, y, snr_db)
    settings = Sampling(steps=1, start=4, guidance=guidance, norm=norm)  # one step: the clean image less the gradient
    zeta = DOUBLE + 0.25
    guided, clean = (sample(prior, consistency, KEYS, value, settings, 5, start) for value in (zeta, DOUBLE))
    found = (clean - guided) / 0.25

    level = prior.alpha_bar[3]
    x = level.sqrt() * start + (1 - level).sqrt() * torch.from_numpy(drawn(0))
    t = torch.full((3,), 3)

    def value(shifted: Tensor) -> Tensor:
        x0 = prior.predict(shifted, t)[0] if guidance == "full" else shifted
        return objective(consistency(x0), norm)

    at = x if guidance == "full" else clean
    for place in range(48):
        step = torch.zeros(48, dtype=torch.float64)
        step[place] = 1e-6
        slope = (value(at + step.view(SHAPE)) - value(at - step.view(SHAPE))) / 2e-6
        torch.testing.assert_close(found.flatten(1)[:, place], slope, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_what_was_received_exactly_does_not_move_the_image(dtype: torch.dtype, limit: float) -> None:
    torch.manual_seed(0)
    inn = LiftingINN(levels=1, steps=2, width=8, blocks=1).to(dtype)
    for parameter in inn.parameters():  # an untrained one leaves the coarse part as it is
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    image, snr_db = images(3).to(dtype).requires_grad_(), torch.tensor([-5.0, 1, 3], dtype=dtype)
    with torch.no_grad():
        coarse, _ = inn(image, snr_db)
    received = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)  # the means of whose pixels are the coarse part
    difference = inn_consistency(inn, received, snr_db)(image)
    for norm, bound in (("l2_squared", limit), ("l2", 1000 * limit)):  # without its eps, the norm's would be about 1
        (gradient,) = torch.autograd.grad(objective(difference, norm).sum(), image, retain_graph=True)  # type: ignore[arg-type]
        assert gradient.abs().max() < bound


def test_a_gaussian_prior_gives_samples_of_its_mean_and_variance() -> None:
    keys = image_keys([str(number) for number in range(12)])
    for settings in (Sampling(), Sampling(sampler="ddim", eta=0)):
        found = sample(GaussianPrior(LINEAR), None, keys, torch.zeros(12), settings, 0, shape=(3, 32, 32))
        assert found.mean() == pytest.approx(0.3, abs=0.012)
        assert found.std() == pytest.approx(0.5, rel=0.025)  # DDPM's small variance loses 1.2%


def test_guidance_brings_the_samples_to_what_was_received() -> None:
    prior, inn, y = GaussianPrior(noise_schedule("cosine", 200)), LinearINN(), images(4) / 2
    consistency = inn_consistency(inn, y, DOUBLE)

    def distance(zeta: float, settings: Sampling) -> Tensor:
        found = sample(prior, consistency, KEYS, DOUBLE + zeta, settings, 5, y)
        return (inn.coarse_of(found) - inn.coarse_of(y)).norm(dim=1)

    for settings in (Sampling(), Sampling(guidance="x0"), Sampling(steps=25, start=100, guidance="x0")):
        assert (distance(0.3, settings) < 0.5 * distance(0, settings)).all()


def test_the_start_image_is_brought_to_the_start_level() -> None:
    prior, start = GaussianPrior(LINEAR), images(6)
    found = sample(prior, None, KEYS, DOUBLE, Sampling(steps=1, start=300), 5, start)
    level = LINEAR[299]
    noised = level.sqrt() * start + (1 - level).sqrt() * torch.from_numpy(drawn(0))
    torch.testing.assert_close(found, prior.predict(noised, torch.full((3,), 299))[0])


@pytest.mark.parametrize("guidance", ["full", "x0"])
def test_a_result_does_not_depend_on_its_batch(guidance: Literal["full", "x0"]) -> None:
    torch.manual_seed(0)
    prior = DiffusionPrior(8, width=8, multipliers=(1,), attention=(False,), train_steps=50).requires_grad_(False)
    keys = image_keys([str(number) for number in range(5)])
    start = images(7, 15)[:, :, :1, :1].expand(-1, -1, 8, 8)[:5]
    zeta = torch.linspace(0.1, 0.5, 5, dtype=torch.float64)
    settings = Sampling(steps=4, start=30, guidance=guidance)

    def draw(rows: list[int], dtype: torch.dtype) -> Tensor:
        y = start[rows].to(dtype)
        return sample(
            prior.to(dtype), lambda x0: (x0 - y).mean((2, 3)), keys[rows], zeta[rows].to(dtype), settings, 1, y
        )

    for dtype, limit in ((torch.float64, 1e-9), (torch.float32, 1 / 255)):
        together = draw([0, 1, 2, 3, 4], dtype)
        alone = torch.cat([draw([row], dtype) for row in range(5)])
        mixed = draw([3, 1], dtype)
        assert (together - alone).abs().max() < limit
        assert (together[[3, 1]] - mixed).abs().max() < limit
        assert torch.equal(together, draw([0, 1, 2, 3, 4], dtype))
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_without_guidance_nothing_is_differentiated() -> None:
    prior = GaussianPrior(noise_schedule("cosine", 5))

    def never(x0: Tensor) -> Tensor:
        raise AssertionError

    sample(prior, never, KEYS, DOUBLE, Sampling(), 5, shape=SHAPE)
    sample(prior, None, KEYS, DOUBLE + 1, Sampling(), 5, shape=SHAPE)
    assert prior.seen == [(False, False)] * 10


@pytest.mark.parametrize(("guidance", "through"), [("full", True), ("x0", False)])
def test_only_the_denoiser_runs_in_lower_precision(guidance: Literal["full", "x0"], through: bool) -> None:
    prior, y = GaussianPrior(noise_schedule("cosine", 5)), images(1).float()
    seen = []

    def consistency(x0: Tensor) -> Tensor:
        seen.append((x0.dtype, torch.is_autocast_enabled("cpu")))
        return x0 - y

    settings = Sampling(guidance=guidance, precision="bfloat16")
    with torch.autocast("cpu", torch.bfloat16):
        found = sample(prior, consistency, KEYS, torch.ones(3), settings, 5, shape=SHAPE)
        sample(prior, consistency, KEYS, torch.ones(3), Sampling(), 5, shape=SHAPE)
    assert found.dtype == torch.float32
    assert prior.seen[:5] == [(through, True)] * 5
    assert prior.seen[5:] == [(True, False)] * 5
    assert seen == [(torch.float32, False)] * 10


def test_clipping_is_before_the_step_and_the_guidance() -> None:
    prior = GaussianPrior(noise_schedule("cosine", 5), mean=9.0)
    seen: list[float] = []

    def consistency(x0: Tensor) -> Tensor:
        seen.append(x0.max().item())
        return x0

    found = sample(prior, consistency, KEYS, DOUBLE + 0.1, Sampling(clip=True), 5, shape=SHAPE)
    assert max(seen) == 1
    torch.testing.assert_close(found, torch.ones_like(found))  # a clipped pixel has no gradient
    moved = sample(prior, consistency, KEYS, DOUBLE + 0.1, Sampling(clip=True, guidance="x0"), 5, shape=SHAPE)
    assert (moved < 1).all()


def test_the_paper_s_step_sizes() -> None:
    found = paper_zeta(torch.tensor([-9.0, -5, -3, -2, -1, 0, 1, 1.5, 3, 5]))
    torch.testing.assert_close(found, torch.tensor([0.3, 0.3, 0.3, 0.35, 0.4, 0.4, 0.4, 0.425, 0.5, 0.5]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Sampling(steps=0), "steps must be at least 1 or null, got 0"),
        (lambda: Sampling(start=0), "start must be at least 1 or null, got 0"),
        (lambda: Sampling(eta=1.5), "eta must be in [0, 1], got 1.5"),
        (
            lambda: sample(GaussianPrior(LINEAR[:50]), None, KEYS, DOUBLE, Sampling(start=60), 0, images(0)),
            "60 steps from level 60 need as many levels, and the prior has 50",
        ),
        (
            lambda: Sampling(steps=30, start=20).levels(50),
            "30 steps from level 20 need as many levels, and the prior has 50",
        ),
        (
            lambda: sample(GaussianPrior(LINEAR), None, KEYS, DOUBLE, Sampling(start=9), 0, shape=SHAPE),
            "sampling from level 9 needs an image to start from",
        ),
        (
            lambda: sample(GaussianPrior(LINEAR), None, KEYS, DOUBLE, Sampling(), 0),
            "sampling without a start image needs the shape of an image",
        ),
    ],
)
def test_bad_settings_are_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        call()


def test_without_memory_the_batch_is_halved_and_the_result_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    sizes = []

    def draw(rows: Tensor, on_step: Callable[[], object]) -> Tensor:
        sizes.append(len(rows))
        on_step()
        if len(rows) > 2:
            raise torch.OutOfMemoryError
        on_step()
        return rows[:, None] * 10.0

    with caplog.at_level(logging.WARNING):
        found = sample_in_batches(draw, 7, 5, steps=2)
    assert found[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert sizes == [5, 2, 2, 2, 1]
    assert [record.message for record in caplog.records] == [
        "the GPU's memory does not suffice for 5 images: going on with 2"
    ]


def test_a_single_image_that_is_too_large_is_an_error() -> None:
    def draw(rows: Tensor, on_step: Callable[[], object]) -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        sample_in_batches(draw, 4, 4, steps=1)


def test_the_spread_is_the_samples_standard_deviation() -> None:
    samples = images(8, 10).view(2, 5, *SHAPE)
    mean, spread = mean_and_spread(samples)
    np.testing.assert_allclose(mean.numpy(), samples.numpy().mean(1))
    np.testing.assert_allclose(spread.numpy(), np.sqrt(samples.numpy().var(1, ddof=1).mean(1)))
