"""InverseJSCC (Erdemir et al. 2023): the image of a generator that best explains what was received.

It is found by intermediate-layer optimisation (Daras et al. 2021): first over the generator's latents and noises, then,
round by round, over what enters a deeper layer too, near what the round before has found. Latents and noises stay on
spheres. As in the authors' program, latents are those before the styles' last activation, of which a normal
distribution is fitted (Menon et al. 2020); unlike there, hidden features keep within their l1 ball by default, as the
paper says, and the colours that earlier layers have added are kept.

Shapes: B images of S x S pixels in [-1, 1]; L latents of D numbers an image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commin.model.stylegan import SLOPE, Generator, Hidden, first_place
from commin.noise import unit_normal
from commin.receivers import Received
from shared.data.problems import DataError

PLACE = 13  # of this module's draws, see `commin.noise.unit_normal`
FITTED = 4096  # latents that the styles' distribution is fitted to
WARM_UP, COOL_DOWN = 0.05, 0.75  # shares of a round
FIRST_NOISES = 5  # that the first round changes; each further one changes two more
LPIPS_PX = 256  # side of the largest images that LPIPS compares
TINY = 1e-9  # inside roots


def onto_sphere(x: Tensor) -> Tensor:
    """Latents `(B, L, D)`, or noises `(B, 1, s, s)`, scaled to the length that normal ones have, sqrt(D) or s."""
    flat = x.flatten(2)
    return (flat * math.sqrt(flat.shape[2]) / (flat.square().sum(2, keepdim=True) + TINY).sqrt()).view_as(x)


def onto_l1_ball(x: Tensor, radius: float) -> Tensor:
    """The nearest point whose absolute values sum to at most the radius, for each of a batch (Duchi et al. 2008).

    Args:
        x: `(B, ...)`.
        radius: Of the ball around 0.
    """
    size = x.flatten(1).abs()
    descending = size.sort(1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=x.device)
    threshold = (descending.cumsum(1) - radius) / count
    kept = (descending > threshold).sum(1, keepdim=True).clamp(min=1)
    cut = threshold.gather(1, kept - 1).clamp(min=0)
    return (x.flatten(1).sign() * (size - cut).clamp(min=0)).view_as(x)


def geocross(z: Tensor) -> Tensor:
    r"""How far apart an image's latents are on their sphere (Menon et al. 2020), `(B,)`.

    The mean over all ordered pairs of their squared angle, times D / 8, the scale that the usual weight of 0.01 is for.

    Args:
        z: `(B, L, D)` of equal lengths.
    """
    first, second = torch.triu_indices(z.shape[1], z.shape[1], 1, device=z.device)
    apart, along = ((z[:, first] + sign * z[:, second]).square().sum(2) for sign in (-1, 1))
    angle = 2 * torch.atan2((apart + TINY).sqrt(), (along + TINY).sqrt())
    return 2 * angle.square().sum(1) / z.shape[1] ** 2 * z.shape[2] / 8


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The rate of a step, from 0: linear warm-up in the first 5% of a round, half a cosine to 0 in the last 75%.

    Example:
        >>> [round(learning_rate(step, 50, 0.1), 3) for step in (0, 1, 2, 12, 31, 49)]
        [0.02, 0.06, 0.1, 0.1, 0.049, 0.0]
    """
    time = (step + 0.5) / steps
    return peak * min(1, time / WARM_UP) * (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - time) / COOL_DOWN)))


@dataclass(frozen=True)
class Inversion:
    """InverseJSCC as a receiver.

    Attributes:
        title: What tables call it.
        rounds: Steps of each round; round i starts at layer i of the generator.
        lr: Peak learning rate of each round's Adam.
        radii: How far what enters a layer may move in the rounds after the first, as an l1 norm divided by its number
            of values, so that it does not depend on the network; null is unlimited. The authors' program has 1,000 for
            8,192 values and 6,000 for 32,768, and leaves the last open.
        compared: What is compared with y: the chain without noise, g(f(.)), of the generator's image (Eq. 8); or the
            image itself.
        mse: Weight of the mean squared error.
        lpips: Weight of LPIPS, which needs its weights.
        geocross: Weight of `geocross`.

    Raises:
        ValueError: There is no round, or there are not as many radii as rounds after the first.
    """

    title: str = "InverseJSCC"
    rounds: tuple[int, ...] = (50, 50, 25, 25)
    lr: float = 0.1
    radii: tuple[float | None, ...] = (0.12, 0.18, 0.18)
    compared: Literal["chain", "image"] = "chain"
    mse: float = 1.0
    lpips: float = 0.0
    geocross: float = 0.01

    def __post_init__(self) -> None:
        if not self.rounds or len(self.radii) != len(self.rounds) - 1:
            raise ValueError(
                f"an inversion has at least one round, and a radius for each after the first; got {len(self.rounds)} "
                f"rounds and {len(self.radii)} radii"
            )

    @torch.no_grad()
    def reconstruct(
        self,
        generator: Generator,
        jscc: nn.Module,
        received: Received,
        seed: int,
        lpips: nn.Module | None = None,
        on_step: Callable[[], object] | None = None,
    ) -> Tensor:
        """Reconstruct a batch. A result does not depend on the batch that it is in.

        Args:
            generator: What makes images, of y's size or a multiple of it; larger ones are averaged over their pixels.
            jscc: `commin.model.DeepJSCC`.
            received: The transmission.
            seed: Of the random start.
            lpips: `shared.metrics.image_quality.Lpips`, where that has a weight.
            on_step: Called after each step.

        Returns:
            `(B, 3, S, S)`, the image of all steps that explains y best. Values are not clipped.

        Raises:
            DataError: The generator's images do not have such a size, or it has fewer layers than there are rounds; or
                there is no LPIPS where it has a weight.
        """
        y = received.y
        self._check(generator, y, lpips)
        with torch.autocast(y.device.type, enabled=False):
            shapes = [(generator.latents, generator.latent_dim), *((1, side, side) for side in generator.noise_sides)]
            draws = (unit_normal(seed, received.keys, shape, PLACE, place) for place, shape in enumerate(shapes))
            z, *noises = (onto_sphere(draw.to(y)) for draw in draws)
            search = _Search(self, generator, lambda image: self._distance(image, jscc, received, lpips), z, noises, y)
            for layer in range(len(self.rounds)):
                search.round(layer, on_step)
        return search.best

    def _check(self, generator: Generator, y: Tensor, lpips: nn.Module | None) -> None:
        height, width = y.shape[2:]
        if height != width or generator.image_px % height:
            raise DataError(
                f"the generator makes images of {generator.image_px} pixels, and those received have {height} x "
                f"{width}: use a generator of their size, or of a multiple of it"
            )
        if len(generator.layers) < len(self.rounds):
            raise DataError(
                f"{self.title} has {len(self.rounds)} rounds, and the generator of {generator.image_px} pixels has "
                f"{len(generator.layers)} layers: give fewer rounds"
            )
        if self.lpips and lpips is None:
            raise DataError(f"{self.title} gives LPIPS a weight of {self.lpips:g}, and there is no file of its weights")

    def _distance(self, image: Tensor, jscc: nn.Module, received: Received, lpips: nn.Module | None) -> Tensor:
        """How far an image is from explaining what was received, `(B,)`."""
        y, snr_db = received.y, received.snr_db
        if self.compared == "chain":
            image = jscc.decode(jscc.encode(image, snr_db), snr_db)  # type: ignore[operator]
        distance = self.mse * (image - y).square().flatten(1).mean(1)
        if lpips is not None and self.lpips:
            distance = distance + self.lpips * lpips(*(_at_most(LPIPS_PX, x / 2 + 0.5) for x in (image, y)))
        return distance


class _Search:
    """Where the search is: latents, noises, what enters the layer, and the best image so far.

    Everything is changed in place, for Adam.
    """

    def __init__(
        self,
        settings: Inversion,
        generator: Generator,
        distance: Callable[[Tensor], Tensor],
        z: Tensor,
        noises: list[Tensor],
        y: Tensor,
    ) -> None:
        self.settings, self.generator, self.distance = settings, generator, distance
        self.z, self.noises, self.styles = z, noises, _Styles.of(generator)
        self.hidden: Hidden | None = None  # what enters layer 0 is the generator's own
        self.best, self.nearest = torch.zeros_like(y), y.new_full((len(y),), math.inf)

    def round(self, layer: int, on_step: Callable[[], object] | None) -> None:
        """Search from a layer on; afterwards `hidden` is what enters the next one."""
        settings, hidden = self.settings, self.hidden
        steps, first = settings.rounds[layer], first_place(layer)
        on_spheres = [self.z, *self.noises[first : FIRST_NOISES + 2 * layer]]
        searched = on_spheres if hidden is None else [*on_spheres, hidden.features]
        before = None if hidden is None else hidden.features.clone()
        descent = torch.optim.Adam(searched)
        for step in range(steps):
            with torch.enable_grad():
                for variable in searched:
                    variable.requires_grad_()
                image = self.generator.synthesise(self.styles(self.z), self.noises, layer, hidden)
                image = F.avg_pool2d(image, image.shape[2] // self.best.shape[2])
                distance = self.distance(image)
                loss = distance + settings.geocross * geocross(self.z[:, first:])
                gradients = torch.autograd.grad(loss.sum(), searched)  # each image's own term alone
            for variable, gradient in zip(searched, gradients, strict=True):
                variable.requires_grad_(False).grad = gradient
            self._keep(image.detach(), distance.detach())
            descent.param_groups[0]["lr"] = learning_rate(step, steps, settings.lr)
            descent.step()
            for variable in on_spheres:
                variable.copy_(onto_sphere(variable))
            if hidden is not None and before is not None and (radius := settings.radii[layer - 1]) is not None:
                moved = onto_l1_ball(hidden.features - before, radius * before[0].numel())
                hidden.features.copy_(before + moved)
            if on_step:
                on_step()
        self.hidden = self.generator.advance(self.styles(self.z), self.noises, layer, layer + 1, hidden)

    def _keep(self, image: Tensor, distance: Tensor) -> None:
        nearer = distance < self.nearest
        self.best = torch.where(nearer[:, None, None, None], image, self.best)
        self.nearest = torch.where(nearer, distance, self.nearest)


@dataclass
class _Styles:
    """Styles of standard normal latents `(..., D)`, distributed about as a generator's are."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, generator: Generator) -> "_Styles":
        like = generator.constant
        z = unit_normal(0, torch.zeros(1, dtype=torch.int64), (FITTED, generator.latent_dim), PLACE).to(like)[0]
        before = F.leaky_relu(generator.styles_of(z), 1 / SLOPE)
        return cls(before.mean(0), before.std(0))

    def __call__(self, z: Tensor) -> Tensor:
        return F.leaky_relu(self.mean + self.std * z, SLOPE)


def _at_most(side: int, x: Tensor) -> Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True) if x.shape[-1] > side else x
