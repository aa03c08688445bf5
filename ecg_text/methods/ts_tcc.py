"""TS-TCC (Eldele et al. 2021, "Time-series representation learning via temporal and contextual contrasting").

Where the paper is silent, its authors' code decides (`emadeldeen24/TS-TCC`).

Shapes: B sequences, N sequences of the global batch, T positions, K steps, D features, H width of the context.
"""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from ecg_text.data.module import ECGBatch
from shared.backbones import out_dim, projector
from shared.distributed import gather_with_grad, rank_and_world_size
from shared.losses import nt_xent_loss
from shared.methods import Pretraining, Step


class TransformerContext(nn.Module):
    """A pre-norm transformer over the past; its class token is the context (section "Temporal Contrasting").

    There is no position embedding, as in the authors' code: only the encoder's features know the order.

    Args:
        dim: D.
        context_dim: H.
        layers: Number of layers.
        heads: Number of attention heads, a divisor of H.
        mlp_dim: Hidden width of the MLPs.
        dropout: Dropout rate of the attention weights, and in and after the MLPs.
    """

    def __init__(self, dim: int, context_dim: int, layers: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, context_dim)
        self.token = nn.Parameter(torch.randn(1, 1, context_dim))
        # Not nn.TransformerEncoder: it copies one layer, so all would start with the same weights.
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(context_dim, heads, mlp_dim, dropout, batch_first=True, norm_first=True)
                for _ in range(layers)
            )
        )

    def forward(self, z_BtD: Tensor) -> Tensor:
        """The past `(B, t, D)` to its context `(B, H)`."""
        x_BtH = self.embed(z_BtD)
        context: Tensor = self.layers(torch.cat([self.token.expand(len(x_BtH), -1, -1), x_BtH], 1))
        return context[:, 0]


def temporal_loss(prediction_BKD: Tensor, z_BKD: Tensor, gather: bool = True) -> Tensor:
    r"""InfoNCE of K predicted positions, with the other sequences' same positions as negatives (L_TC^s and L_TC^w).

    With the prediction :math:`p_{bk} = W_k c_b` from one view and z of the other,

    .. math::
        L = -\frac{1}{B K} \sum_{b, k} \log \frac{\exp(p_{bk}^\top z_{bk})}{\sum_n \exp(p_{bk}^\top z_{nk})}

    The sum over n is over z, as the paper prints it; the authors' code has it over the predictions. The products are in
    float32 (float64 for float64 inputs), inside bf16 autocast too.

    Args:
        prediction_BKD: Predictions from the context of one view, `(B, K, D)`.
        z_BKD: The features of the other view that follow, `(B, K, D)`, of the same K positions on every rank.
        gather: Take sequences of all ranks as negatives. False where every rank works alone, as in validation.

    Returns:
        0-dim loss, at least 0; log N when all features coincide.

    Raises:
        ValueError: if the shapes differ, or if the ranks' batch sizes differ.

    Example:
        >>> temporal_loss(torch.ones(8, 3, 4), torch.ones(8, 3, 4))  # log 8
        tensor(2.0794)
    """
    if prediction_BKD.shape != z_BKD.shape or z_BKD.ndim != 3:
        raise ValueError(
            f"Expected predictions and features of one shape (B, K, D), got {tuple(prediction_BKD.shape)} and "
            f"{tuple(z_BKD.shape)}."
        )
    B, K, _ = z_BKD.shape
    with torch.autocast(z_BKD.device.type, enabled=False):
        dtype = torch.promote_types(z_BKD.dtype, torch.float32)
        prediction_BKD, z_BKD = prediction_BKD.to(dtype), z_BKD.to(dtype)
        z_NKD = gather_with_grad(z_BKD) if gather else z_BKD
        own = torch.arange(B, device=z_BKD.device) + (rank_and_world_size()[0] * B if gather else 0)
        logits = torch.einsum("bkd,nkd->bkn", prediction_BKD, z_NKD)
        return F.cross_entropy(logits.flatten(0, 1), own.repeat_interleave(K))


def draw_position(below: int, device: torch.device, gather: bool) -> int:
    """A random position in [0, below), the same on all ranks: negatives from elsewhere must be of the same time."""
    t = torch.randint(below, (1,))
    if gather and rank_and_world_size()[1] > 1:
        t = t.to(device)
        dist.broadcast(t, 0)
    return int(t)


def past_and_future(z_BDT: Tensor, steps: int, horizon: float, gather: bool) -> tuple[Tensor, Tensor]:
    """Unit features cut at a random position: the past `(B, t, D)`, and K = `steps` positions after it `(B, K, D)`.

    These lie evenly within `horizon`, a share of all positions: one after the other where it has K of them, every
    second one where it has 2 K, and so on. So one setting serves every sampling rate, where the paper takes all
    positions.

    Raises:
        ValueError: if there are not more positions than the prediction reaches.
    """
    z_BTD = F.normalize(z_BDT, dim=1).transpose(1, 2)
    positions = z_BTD.shape[1]
    spacing = max(1, int(horizon * positions) // steps)
    reach = spacing * steps
    if positions <= reach:
        raise ValueError(
            f"The prediction of {steps} steps needs at least {reach + 1} positions, but the encoder makes {positions} "
            f"of these signals. Lower steps below {positions} (40% of the positions is TS-TCC's best), or use longer "
            "signals."
        )
    t = draw_position(positions - reach, z_BTD.device, gather)
    return z_BTD[:, : t + 1], z_BTD[:, t + spacing : t + reach + 1 : spacing]


class TSTCC(Pretraining):
    """The past of one view predicts the future of the other, and the two pasts' contexts attract each other.

    One position t a batch splits past from future in both views (the authors' code draws one for each direction).
    Features have unit length at each position, as in the authors' code; the paper does not say.

    Args:
        encoder: A network with `features(x)`, `(B, L, samples) -> (B, D, T)`, and `out_dim` = D.
        views: A weak and a strong view of a batch, in that order; see `shared.augment.TwoViews`.
        steps: K, the number of positions predicted: the next 25 of the 63 that `ResNet1D` makes of 1,000 samples.
        horizon: How far ahead they reach, as a share of all positions; 40% is the best in the paper's sensitivity
            analysis. Of the 313 positions of 5,000 samples the 25 are every fifth.
        context_dim: H, the width of the transformer (100).
        context_layers: L, the number of its layers (4).
        context_heads: Number of its attention heads (4).
        context_mlp_dim: Hidden width of its MLPs (authors' code: 64).
        dropout: Dropout rate of the transformer (0.1).
        temperature: tau of the contextual contrasting (0.2).
        temporal_weight: lambda_1 of the total loss (1).
        contextual_weight: lambda_2 (0.7).
        optimizer: Makes the optimiser: Adam, learning rate 3e-4, betas 0.9 and 0.99, weight decay 3e-4, as in the
            paper.
        warmup_epochs: Epochs of linear warm-up; the paper has none.
        lr_schedule: Constant (the paper has no schedule), or a half cosine to 0.
    """

    title = "TS-TCC"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        steps: int = 25,
        horizon: float = 0.4,
        context_dim: int = 100,
        context_layers: int = 4,
        context_heads: int = 4,
        context_mlp_dim: int = 64,
        dropout: float = 0.1,
        temperature: float = 0.2,
        temporal_weight: float = 1.0,
        contextual_weight: float = 0.7,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-4, betas=(0.9, 0.99), weight_decay=3e-4),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        if not 0 < horizon < 1:
            raise ValueError(f"horizon must be in (0, 1), got {horizon}.")
        dim = out_dim(encoder)
        self.views = views
        self.steps = steps
        self.horizon = horizon
        self.context = TransformerContext(dim, context_dim, context_layers, context_heads, context_mlp_dim, dropout)
        self.predictor = nn.Linear(context_dim, steps * dim)  # W_1 ... W_K, one below the other
        self.projector = projector(context_dim, dim // 4, "mlp", hidden_dim=dim // 2)  # widths of the authors' code
        self.temperature = temperature
        self.temporal_weight = temporal_weight
        self.contextual_weight = contextual_weight

    def step(self, batch: ECGBatch) -> Step:
        """Both views as one batch; the context of the strong view is checked for collapse.

        Raises:
            ValueError: if the signals are too short for `steps`.
        """
        weak, strong = self.views(batch.signal)
        z_BDT: Tensor = self.encoder.features(torch.cat([weak, strong]))  # type: ignore[operator]
        past, future = past_and_future(z_BDT, self.steps, self.horizon, gather=self.training)
        context = self.context(past)
        prediction = self.predictor(context).view_as(future)
        (from_weak, from_strong), (weak_future, strong_future) = prediction.chunk(2), future.chunk(2)
        temporal = temporal_loss(from_strong, weak_future, gather=self.training) + temporal_loss(
            from_weak, strong_future, gather=self.training
        )
        weak_z, strong_z = self.projector(context).chunk(2)
        contextual = nt_xent_loss(weak_z, strong_z, self.temperature, gather=self.training)
        return Step(
            self.temporal_weight * temporal + self.contextual_weight * contextual,
            context.chunk(2)[1],
            {"temporal": temporal, "contextual": contextual},
        )
