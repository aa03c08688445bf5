"""Training of StyleGAN2 (Karras et al. 2020) on clean images, as the prior of InverseJSCC.

Shapes: B images of S x S pixels; L latents of D numbers an image.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from commin.data.images import to_float, training_images
from commin.model.stylegan import Discriminator, Generator
from commin.noise import unit_normal
from shared.methods import Method

MIXING = 0.9  # share of images that are made of two latents
R1_EVERY = 16  # steps; the penalty is that much heavier then
PLACE = 17  # of the latents in validation, see `commin.noise.unit_normal`


def r1_penalty(discriminator: nn.Module, x: Tensor) -> Tensor:
    """Squared norm of the discriminator's gradient at each real image (Mescheder et al. 2018), `(B,)`."""
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def mixed_styles(generator: nn.Module, z: Tensor) -> Tensor:
    """Styles of images, most of which have a second latent from a random place on (Karras et al. 2019).

    So that latents of different places may be combined, which an inversion does.

    Args:
        generator: `commin.model.stylegan.Generator`.
        z: `(2B, D)`, standard normal.

    Returns:
        `(B, L, D)`.
    """
    first, second = generator.styles_of(z)[:, None].chunk(2)  # type: ignore[operator]
    latents = int(generator.latents)  # type: ignore[arg-type]
    begins = torch.randint(1, latents, (len(first), 1), device=z.device)
    begins = torch.where(torch.rand(len(first), 1, device=z.device) < MIXING, begins, latents)
    return torch.where((torch.arange(latents, device=z.device) >= begins)[:, :, None], second, first)


class StyleGAN(Method):
    """A generator and a discriminator that play against each other; the generator's moving average is what is kept.

    Non-saturating logistic losses, R1 on every 16th step (in the same step as the loss, so that rates and momenta need
    no correction), and mixed latents. Left out are path-length regularisation and adaptive augmentation. For one
    device: with several, gradients are not averaged.

    Logged each epoch: `train/d_loss` and `train/g_loss`; and the mean logits `train/real`, `val/real` and, of images
    of the average, `val/fake`. A discriminator that memorises takes unseen images for false. None of them says how
    good the images are, so the last epoch is kept.

    Args:
        net: `commin.model.stylegan.Generator`, which becomes the average.
        discriminator: `commin.model.stylegan.Discriminator`.
        optimizer: Makes the optimiser of either network.
        augment: Changes every real training image on its own, from uint8 to floats in [0, 1].
        r1: Weight of R1 (gamma in the paper).
        ema_decay: Share that the average keeps of itself in a step; less in the first ones.
        seed: Of the latents in validation.
    """

    title = "StyleGAN2"

    def __init__(
        self,
        net: Generator,
        discriminator: Discriminator,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3, betas=(0.0, 0.99)),
        augment: nn.Module | None = None,
        r1: float = 1.0,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer)
        self.automatic_optimization = False
        self.generator = copy.deepcopy(net)
        self.net, self.discriminator, self.augment = net.requires_grad_(False), discriminator, augment
        self.r1, self.ema_decay, self.seed = r1, ema_decay, seed

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """A step of the discriminator, then one of the generator."""
        x = training_images(batch.image, self.augment)
        of_generator, of_discriminator = self.optimizers()  # type: ignore[attr-defined]
        done = self.trainer.global_step // 2  # it counts the steps of both

        self.toggle_optimizer(of_discriminator)
        real, fake = self.discriminator(x), self.discriminator(self.draw(len(x)))
        d_loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        penalty = self.r1 / 2 * R1_EVERY * r1_penalty(self.discriminator, x).mean() if done % R1_EVERY == 0 else 0.0
        self._descend(of_discriminator, d_loss + penalty)

        self.toggle_optimizer(of_generator)
        g_loss = F.softplus(-self.discriminator(self.draw(len(x)))).mean()
        self._descend(of_generator, g_loss)
        self.update_average(min(self.ema_decay, (1 + done) / (10 + done)))

        found = {"train/d_loss": d_loss.detach(), "train/g_loss": g_loss.detach(), "train/real": real.detach().mean()}
        self.log_dict(found, on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)

    def _descend(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def draw(self, count: int) -> Tensor:
        """Images of the generator in training, with random latents and noise."""
        z = torch.randn(2 * count, int(self.generator.latent_dim), device=self.device)
        images: Tensor = self.generator.synthesise(mixed_styles(self.generator, z))
        return images

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the average towards the generator."""
        for mine, theirs in zip(self.net.parameters(), self.generator.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """What the discriminator thinks of unseen images, and of the average's, with the same latents every time."""
        x = to_float(batch.image)
        z = unit_normal(self.seed, batch.key, (int(self.net.latent_dim),), PLACE).to(x)
        found = {"val/real": self.discriminator(x).mean(), "val/fake": self.discriminator(self.net(z)).mean()}
        self.log_dict(found, batch_size=len(x), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """One for either network, at a constant rate."""
        return [self.optimizer(self.generator.parameters()), self.optimizer(self.discriminator.parameters())]
