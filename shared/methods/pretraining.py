"""What the methods that learn an encoder share: the wiring, the check for collapse, and the optimiser.

Shapes: B samples, D features.
"""

import logging
import math
from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from shared.distributed import convert_batchnorm, rank_and_world_size
from shared.methods.method import Method
from shared.optim import with_schedule

log = logging.getLogger(__name__)

COLLAPSED = 0.1  # of `feature_std`; below, a warning


class Step(NamedTuple):
    """What a method computes from a batch.

    Attributes:
        loss: What is minimised, 0-dim.
        embedding: The embedding that the loss compares, `(B, D)`, which is checked for collapse.
        terms: Parts of the loss by name, which are logged beside it.
    """

    loss: Tensor
    embedding: Tensor
    terms: dict[str, Tensor] = {}  # noqa: RUF012  a NamedTuple's default, never changed


@torch.no_grad()
def feature_std(z: Tensor) -> Tensor:
    r"""How far embeddings spread: 0 when all have collapsed to one direction, about 1 when they fill the sphere.

    The standard deviation over the batch of each coordinate of :math:`z / \lVert z \rVert`, averaged over the
    coordinates, times :math:`\sqrt{D}` (SimSiam, section 4.1, where the value without the factor is compared with
    :math:`1 / \sqrt{D}`).

    Args:
        z: `(B, D)`.

    Returns:
        0-dim float32, at least 0.

    Example:
        >>> feature_std(torch.ones(8, 4))
        tensor(0.)
        >>> feature_std(torch.randn(1000, 512, generator=torch.Generator().manual_seed(0))).round(decimals=2)
        tensor(1.)
    """
    unit = F.normalize(z.float(), dim=1)
    return unit.std(0, correction=0).mean() * math.sqrt(z.shape[1])


class Pretraining(Method, ABC):
    """A method that learns an encoder. A subclass has a `title`, sets `encoder`, and says in `step` what its loss is.

    A batch is a tuple whose first field is the input `(B, ...)`. Nothing else is asked of the data module. Views are
    drawn in `step`, on the model's device, from the generators that `shared.callbacks.SeedEachEpoch` seeds.

    Logged each epoch: `train/loss`, `val/loss`, their parts, and `feature_std` of the embedding.

    Args:
        optimizer: Makes the optimiser of the trained parameters.
        warmup_epochs: Epochs of linear warm-up of the learning rate.
        lr_schedule: `constant`, or a half cosine to 0.

    Attributes:
        encoder: `(B, ...) -> (B, encoder.out_dim)`; it is what the training is for.
    """

    encoder: nn.Module

    def __init__(
        self,
        optimizer: OptimizerCallable,
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "cosine",
    ) -> None:
        super().__init__(optimizer)
        self.warmup_epochs = warmup_epochs
        self.lr_schedule = lr_schedule

    @abstractmethod
    def step(self, batch: Any) -> Step:
        """The loss on a batch: in training mode over all processes' batches, in eval mode over this one's."""

    def input_of(self, batch: Any) -> Tensor:
        """What the encoder takes of a batch."""
        x: Tensor = batch[0]
        return x

    def forward(self, x: Tensor) -> Tensor:
        """The encoder's features, `(B, ...) -> (B, D)`."""
        features: Tensor = self.encoder(x)
        return features

    def configure_model(self) -> None:
        """Batch statistics over the global batch, so that several processes train as one would."""
        if rank_and_world_size()[1] > 1:
            convert_batchnorm(self)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """`step`, logged."""
        step = self.step(batch)
        self._log("train", step, len(batch[0]))
        return step.loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """`step` in eval mode. Its draws depend on the batch's number alone, so epochs can be compared."""
        if len(batch[0]) < 2:  # a last batch without negatives
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(batch_idx)
            self._log("val", self.step(batch), len(batch[0]))

    def _log(self, split: str, step: Step, samples: int) -> None:
        values = {"loss": step.loss, "feature_std": feature_std(step.embedding), **step.terms}
        for name, value in values.items():
            self.log(
                f"{split}/{name}",
                value.detach(),
                prog_bar=name in ("loss", "feature_std"),
                on_step=False,
                on_epoch=True,
                batch_size=samples,
                sync_dist=True,
            )

    def on_train_epoch_end(self) -> None:
        """Warn of a collapse: a loss may look good although every sample has the same embedding."""
        spread = self.trainer.callback_metrics.get("train/feature_std")
        if spread is not None and spread < COLLAPSED:
            log.warning(
                "epoch %d: the embeddings have collapsed (train/feature_std %.3f; 1 is healthy, 0 is one point). "
                "Lower the learning rate, or enlarge the batch",
                self.current_epoch,
                float(spread),
            )

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Columns for `shared.callbacks.PredictionWriter`: the encoder's features, and `row` where the batch has it.

        `row` is the sample's row in the data module's table.
        """
        columns = {"embedding": list(self(self.input_of(batch)).float().cpu().numpy())}
        row = getattr(batch, "row", None)
        return columns if row is None else {"row": row.cpu().numpy(), **columns}

    def configure_optimizers(self) -> Any:
        """The given optimiser of the trained parameters, with a schedule for each step where one is asked for."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return with_schedule(self.optimizer(trained), self, self.warmup_epochs, self.lr_schedule)
