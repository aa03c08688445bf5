"""`GalaxyVotes`: an encoder that learns to predict volunteers' votes, as the paper's does (section 2).

Shapes: B galaxies, A answers of Q questions, D features.
"""

from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.losses import expected_fractions, votes_nll
from galaxy_clusters.model.bottleneck import Bottleneck
from shared.backbones import out_dim
from shared.methods import Pretraining, Step

LARGEST = 100.0  # concentrations are in (1, 101), as in Zoobot


class GalaxyVotes(Pretraining):
    """Predicts a Dirichlet over the answers of every question, and learns by the likelihood of the votes.

    The paper takes such an encoder from the Zoobot library and retrains it with a bottleneck (section 3). With
    `frozen_epochs` that is done in two stages: first the bottleneck and the head, then everything.

    Logged each epoch: the loss, summed over the questions and averaged over the galaxies.

    Args:
        encoder: Image encoder, `(B, C, S, S) -> (B, encoder.out_dim)`, such as a `Bottleneck`.
        views: One augmented view of a batch of images, as a tuple of one; see `shared.augment.Views`.
        schema: Vote schema: a name of configs/schemas, or a YAML file.
        frozen_epochs: Epochs for which the encoder below the bottleneck is left as it is.
        dropout: Share of the features that is dropped before the head.
        optimizer: Makes the optimiser.
        warmup_epochs: Epochs of linear warm-up.
        lr_schedule: Constant, or a half cosine to 0.

    Raises:
        ValueError: `frozen_epochs` without a bottleneck.
    """

    title = "Votes"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        schema: str = "desi",
        frozen_epochs: int = 0,
        dropout: float = 0.2,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        if frozen_epochs and not isinstance(encoder, Bottleneck):
            raise ValueError("frozen_epochs leaves the encoder below a Bottleneck as it is, and there is none")
        self.encoder = encoder
        self.views = views
        self.schema = read_schema(schema)
        self.frozen_epochs = frozen_epochs
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(out_dim(encoder), len(self.schema.columns))

    def on_train_epoch_start(self) -> None:
        """Freeze the encoder below the bottleneck, or let it learn."""
        if isinstance(self.encoder, Bottleneck):
            self.encoder.frozen = self.current_epoch < self.frozen_epochs
            self.encoder.train()

    def concentration(self, features: Tensor) -> Tensor:
        """Of every answer, `(B, D) -> (B, A)`."""
        logits: Tensor = self.head(self.dropout(features))
        return LARGEST * logits.float().sigmoid() + 1

    def fractions(self, features: Tensor) -> Tensor:
        """Predicted share of each answer among the votes on its question, `(B, D) -> (B, A)`."""
        return expected_fractions(self.concentration(features), self.schema.sizes)

    def step(self, batch: Any) -> Step:
        """The likelihood, on an augmented view in training and on the image as it is in validation."""
        (view,) = self.views(batch.image) if self.training else (batch.image,)
        features = self.encoder(view)
        return Step(self.votes_loss(features, batch.votes), features)

    def votes_loss(self, features: Tensor, votes: Tensor) -> Tensor:
        """Summed over the questions, averaged over the galaxies."""
        return votes_nll(self.concentration(features), votes, self.schema.sizes).sum(1).mean()
