"""CPC (van den Oord, Li, Vinyals 2018, "Representation learning with contrastive predictive coding").

For 12-lead ECG as in Mehari & Strodthoff 2022, "Self-supervised representation learning from 12-lead ECG data".

Shapes: B sequences, N sequences of the global batch, T positions, K steps, D features, H width of the context.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from ecg_text.data.module import ECGBatch
from shared.backbones import out_dim
from shared.distributed import gather_with_grad, rank_and_world_size
from shared.methods import Pretraining, Step


class CPCPredictor(nn.Module):
    """The context c_t = LSTM(z_1 ... z_t) and its linear predictions W_k c_t of z_{t+k} (Fig. 1, Eq. 3).

    Args:
        dim: D.
        steps: K.
        context_dim: H.
        layers: Number of layers of the LSTM.
    """

    def __init__(self, dim: int, steps: int, context_dim: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, context_dim, layers, batch_first=True)
        self.W = nn.ModuleList(nn.Linear(context_dim, dim, bias=False) for _ in range(steps))

    def context(self, z_BTD: Tensor) -> Tensor:
        """`(B, T, D) -> (B, T, H)`; position t has seen the positions up to t."""
        c_BTH: Tensor = self.lstm(z_BTD)[0]
        return c_BTH

    def forward(self, z_BTD: Tensor) -> list[Tensor]:
        """`(B, T, D)` to K predictions; that of step k is `(B, T - k, D)`, since z ends at T."""
        c_BTH = self.context(z_BTD)
        return [W_k(c_BTH[:, :-k]) for k, W_k in enumerate(self.W, 1)]


def cpc_loss(z_BTD: Tensor, predictions: Sequence[Tensor], gather: bool = True) -> tuple[Tensor, Tensor]:
    r"""InfoNCE of the prediction of every step from every position (Eqs. 3 and 4).

    With the prediction :math:`p_{btk} = W_k c_{bt}` and the candidates :math:`Z_{btk}`,

    .. math::
        L = \frac{1}{K} \sum_{k=1}^{K} \frac{1}{B (T - k)} \sum_{b, \; t \le T - k}
            -\log \frac{\exp(p_{btk}^\top z_{b, t+k})}{\sum_{z \in Z_{btk}} \exp(p_{btk}^\top z)}

    Eq. 4 is the expectation for one step; the K steps count the same, although a far one has fewer positions.

    The N + T - 1 candidates are the positive, the same position :math:`z_{b', t+k}` of the other sequences of the
    global batch, and the other positions :math:`z_{b, t'}` of the same sequence. That has both kinds of negatives
    without the matrix of all positions of all sequences.

    The products are in float32 (float64 for float64 inputs), inside bf16 autocast too. Batch and positions are one
    product; the steps are a loop, because as one product they would need a copy of z shifted by each k, and would
    compute positions that do not exist (it takes 1.7 times as long on one CPU thread).

    Args:
        z_BTD: What is predicted, `(B, T, D)`.
        predictions: K predictions; that of step k is `(B, T - k, D)`, see `CPCPredictor`.
        gather: Take sequences of all ranks as negatives. False where every rank works alone, as in validation.

    Returns:
        The loss, and the share of predictions that fit their positive better than any negative, averaged alike; both
        are 0-dim.

    Raises:
        ValueError: if z has no position for the last step, or if the ranks' batch sizes differ.

    Example:
        >>> cpc_loss(torch.ones(3, 6, 4), [torch.ones(3, 5, 4), torch.ones(3, 4, 4)])  # log(3 + 6 - 1), no hit
        (tensor(2.0794), tensor(0.))
    """
    B, T, _ = z_BTD.shape
    if len(predictions) >= T:
        raise ValueError(
            f"CPC predicts {len(predictions)} steps ahead and needs at least {len(predictions) + 1} positions, but the "
            f"encoder makes {T} of these signals. Lower steps below {T}, or use longer signals."
        )
    losses, hits = [], []
    with torch.autocast(z_BTD.device.type, enabled=False):
        z_BTD = _float(z_BTD)
        z_NTD = gather_with_grad(z_BTD) if gather else z_BTD
        own = torch.arange(B, device=z_BTD.device) + (rank_and_world_size()[0] * B if gather else 0)
        for k, prediction in enumerate(predictions, 1):
            p_BtD = _float(prediction)
            across = torch.einsum("btd,ntd->btn", p_BtD, z_NTD[:, k:])
            within = torch.einsum("btd,bsd->bts", p_BtD, z_BTD)
            within.diagonal(k, 1, 2).fill_(-torch.inf)  # the positive, which `across` has
            logits = torch.cat([across, within], 2).flatten(0, 1)
            positive = own.repeat_interleave(T - k)
            losses.append(F.cross_entropy(logits, positive))
            with torch.no_grad():  # not argmax: it is slow on a CPU, and of equal candidates it names one
                at_least = logits >= logits.gather(1, positive[:, None])
                hits.append((at_least.sum(1) == 1).float().mean())
    return torch.stack(losses).mean(), torch.stack(hits).mean()


def _float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class CPC(Pretraining):
    """From the signal so far, tell the features of the next steps from those of other times and other signals.

    `ResNet1D` has a stride of 16 samples and a receptive field of 219, whatever the sampling rate: up to 13 steps ahead
    a position still overlaps with what the context has seen. Mehari & Strodthoff's encoder sees single samples.

    Args:
        encoder: A network with `features(x)`, `(B, L, samples) -> (B, D, T)`, and `out_dim` = D.
        steps: K (CPC, section 3.1, and the code of Mehari & Strodthoff: 12; that code trains on the last step only).
        context_dim: Width of the LSTM (Mehari & Strodthoff: 512).
        context_layers: Number of layers of the LSTM (Mehari & Strodthoff: 2).
        optimizer: Makes the optimiser. Mehari & Strodthoff: AdamW, learning rate 1e-4; weight decay 1e-3 as in their
            code.
        warmup_epochs: Epochs of linear warm-up; the papers have none.
        lr_schedule: Constant (the papers have no schedule), or a half cosine to 0.
    """

    title = "CPC"

    def __init__(
        self,
        encoder: nn.Module,
        steps: int = 12,
        context_dim: int = 512,
        context_layers: int = 2,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-4, weight_decay=1e-3),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        self.predictor = CPCPredictor(out_dim(encoder), steps, context_dim, context_layers)

    def step(self, batch: ECGBatch) -> Step:
        """Predict within each signal; the pooled features are checked for collapse."""
        z_BDT: Tensor = self.encoder.features(batch.signal)  # type: ignore[operator]
        z_BTD = z_BDT.transpose(1, 2).contiguous()  # once, not in every product
        loss, accuracy = cpc_loss(z_BTD, self.predictor(z_BTD), gather=self.training)
        return Step(loss, z_BTD.mean(1), {"accuracy": accuracy})
