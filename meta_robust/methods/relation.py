"""Relation Networks (Sung et al. 2018).

Shapes: T tasks, n support and m query images, N ways, c x s x s feature maps.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.methods.episodic import FeatureMethod, TaskImages
from meta_robust.model.conv4 import Conv4

HIDDEN = 8  # of the last layers (Sung et al., section 3.4)


class Relation(nn.Module):
    """How well two feature maps go together: two blocks of convolution and two layers, `(B, 2 c, s, s) -> (B,)`.

    Args:
        channels: c.
        side: s.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for wide in (2 * channels, channels):
            blocks += [nn.Conv2d(wide, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(channels * (side // 4) ** 2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, pairs: Tensor) -> Tensor:
        """Scores before the sigmoid."""
        scores: Tensor = self.head(self.blocks(pairs)).squeeze(1)
        return scores


class RelationNetwork(FeatureMethod):
    """A learned comparison of a query's feature map with each class's.

    Args:
        encoder: A `Conv4` whose features are a map: `flatten: false`, `pooled: 2`.
        optimizer: Makes the optimiser.
        ways: N.
        shots: K.
        queries: Q.
        loss: `mse` of the sigmoid with the one-hot class (Sung et al., Eq. 2), or `cross_entropy` as in CloserLook.
        shots_by: A class's map is the `sum` of its images' (Sung et al.), or their `mean`, which also suits other
            numbers of shots than the training's.
        augment: Changes every training image on its own.

    Raises:
        ValueError: The encoder gives no map of at least 4 x 4.
    """

    title = "Relation Network"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        loss: Literal["mse", "cross_entropy"] = "mse",
        shots_by: Literal["sum", "mean"] = "mean",
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__(optimizer, ways, shots, queries, augment)
        if not isinstance(encoder, Conv4) or encoder.flatten or encoder.map_shape[1] < 4:
            raise ValueError("a Relation Network needs a Conv4 with flatten: false and a map of at least 4 x 4 pixels")
        self.encoder = encoder
        self.relation = Relation(*encoder.map_shape[:2])
        self.loss, self.shots_by = loss, shots_by
        self.use_norm()

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores before the sigmoid, `(T, m, N)`; features are maps `(T, n, c, s, s)` and `(T, m, c, s, s)`."""
        chosen = F.one_hot(labels, ways).to(support.dtype)
        if self.shots_by == "mean":
            chosen = chosen / chosen.sum(1, keepdim=True)
        classes = torch.einsum("tnk,tnchw->tkchw", chosen, support)
        tasks, count = query.shape[:2]
        shape = (tasks, count, ways, *query.shape[2:])
        pairs = torch.cat([classes[:, None].expand(shape), query[:, :, None].expand(shape)], dim=3)
        scores: Tensor = self.relation(pairs.flatten(0, 2)).view(tasks, count, ways)
        return scores

    def task_loss(self, task: TaskImages) -> tuple[Tensor, Tensor]:
        """See `loss`; batch norm sees the whole task."""
        with self.norm.set("transductive", keeps=True):
            both = self.encode(torch.cat([task.support, task.query]))
            support, query = both[None, : len(task.support)], both[None, len(task.support) :]
            logits = self.compare(support, task.support_label[None], query, self.shape.ways)[0]
        if self.loss == "cross_entropy":
            return F.cross_entropy(logits, task.query_label), logits
        wanted = F.one_hot(task.query_label, self.shape.ways).to(logits.dtype)
        return F.mse_loss(logits.sigmoid(), wanted), logits
