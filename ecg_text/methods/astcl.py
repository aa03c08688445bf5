"""ASTCL (Wang et al. 2023, "Adversarial spatiotemporal contrastive learning for ECG signals"): OUR RECONSTRUCTION.

IEEE TNNLS, doi 10.1109/TNNLS.2023.3272153. There is no public code. Known from the abstract: a noise-enhanced and a
denoised view, a discriminator that plays against the encoder, spatiotemporal prediction, and patient discrimination
with positives only, a predictor and a stop-gradient. Every formula, width and weight here is ours: numbers made with
this file are those of a method of this kind, not the authors'.

Shapes: B records, T samples or positions, K steps, D features.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from ecg_text.data.module import ECGBatch
from ecg_text.methods.ts_tcc import TransformerContext, past_and_future, temporal_loss
from shared.backbones import out_dim, projector
from shared.distributed import gather_with_grad
from shared.methods import Pretraining, Step

MEDIAN_OF_NORMAL = 0.6745  # of |x|, for a standard normal x


class Denoise(nn.Module):
    r"""Drop the wavelet coefficients that are small against a signal's own noise, so that any sampling rate will do.

    An undecimated ("a trous") transform: :math:`c_0 = x`; :math:`c_j` is :math:`c_{j-1}` smoothed with (1, 2, 1) / 4 at
    a spacing of :math:`2^{j-1}` samples, mirrored at the edges; :math:`w_j = c_{j-1} - c_j`. With the noise of a level
    :math:`\sigma_j = \mathrm{median}_t |w_j| / 0.6745`, which the few samples of the QRS complexes leave alone,

    .. math:: y = c_J + \sum_j w_j \, [\, |w_j| > \theta \sigma_j \,]

    Args:
        levels: J. Level j holds about the band from f / 2^{j+1} to f / 2^j of the sampling rate f.
        threshold: theta; 0 gives the signal back.

    Raises:
        ValueError: if `levels` is below 1 or `threshold` below 0.
    """

    def __init__(self, levels: int = 3, threshold: float = 3.0) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}.")
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {threshold}.")
        self.levels = levels
        self.threshold = threshold

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`; T above 2^(levels - 1)."""
        coarse, kept = signal, torch.zeros_like(signal)
        for level in range(self.levels):
            spacing = 2**level
            sides = F.pad(coarse, (spacing, spacing), mode="reflect")
            smooth = torch.lerp((sides[..., : -2 * spacing] + sides[..., 2 * spacing :]) / 2, coarse, 0.5)
            detail = coarse - smooth
            size = detail.abs()
            noise = size.median(-1, keepdim=True).values / MEDIAN_OF_NORMAL
            kept += detail * (size > self.threshold * noise)
            coarse = smooth
        return coarse + kept


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """`x` itself, whose gradient is reversed and scaled (Ganin et al. 2016, Eqs. 16 and 17).

    What comes after descends a loss, and what came before climbs it, in one backward pass.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> reverse_gradient(x, 0.5).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000])
    """
    out: Tensor = _Reverse.apply(x, strength)
    return out


def adversarial_loss(noisy: Tensor, denoised: Tensor) -> Tensor:
    r"""Binary cross entropy of a discriminator d that tells the noise-enhanced views h from the denoised h'. Ours.

    .. math:: L = -\frac{1}{2B} \sum_i \bigl[ \log \sigma(d(h_i)) + \log(1 - \sigma(d(h'_i))) \bigr]

    Args:
        noisy: `(B, 1)` logits d(h).
        denoised: `(B, 1)` logits d(h').

    Returns:
        0-dim loss, at least 0; log 2 where d cannot tell.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> adversarial_loss(torch.zeros(4, 1), torch.zeros(4, 1))
        tensor(0.6931)
    """
    if noisy.shape != denoised.shape:
        raise ValueError(f"Expected logits of one shape, got {tuple(noisy.shape)} and {tuple(denoised.shape)}.")
    with torch.autocast(noisy.device.type, enabled=False):
        dtype = torch.promote_types(noisy.dtype, torch.float32)
        return (F.softplus(-noisy.to(dtype)) + F.softplus(denoised.to(dtype))).mean() / 2


def patient_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, patient: Tensor, gather: bool = True) -> Tensor:
    r"""Negative cosine between one view's prediction and the other view's embedding, within patients. Ours.

    SimSiam's loss (Chen & He 2021, Eqs. 1-4), with P all pairs (i, j) of records of one patient, i = j among them:

    .. math::
        L = -\frac{1}{2 |P|} \sum_{(i,j) \in P}
            \bigl[ \cos(p_i, \mathrm{sg}(z'_j)) + \cos(p'_i, \mathrm{sg}(z_j)) \bigr]

    sg is the stop-gradient: no gradient reaches z. There are no negatives. Every process computes the loss of the
    joined batch: P need not be spread evenly over them.

    Args:
        p1: `(B, D)` predictions p of the first views, of any length (normalised here).
        p2: `(B, D)` predictions p' of the second views.
        z1: `(B, D)` embeddings z of the first views.
        z2: `(B, D)` embeddings z' of the second views.
        patient: `(B,)` integers, equal for the records of one patient.
        gather: Join the processes' batches. False where every process already holds all records, as in validation.

    Returns:
        0-dim loss in [-1, 1].

    Raises:
        ValueError: if the shapes do not fit, or if the processes' batch sizes differ.

    Example:
        >>> x = torch.eye(4)
        >>> patient_loss(x, x, x, x, torch.arange(4))
        tensor(-1.)
        >>> patient_loss(x, x, x, x, torch.tensor([0, 0, 1, 1]))  # half of the pairs are of other records
        tensor(-0.5000)
    """
    if p1.ndim != 2 or not p1.shape == p2.shape == z1.shape == z2.shape or patient.shape != p1.shape[:1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (p1, p2, z1, z2))
        raise ValueError(
            f"Expected four embeddings of one shape (B, D) and patients (B,), got {shapes} and {tuple(patient.shape)}."
        )
    both = torch.cat([p1, p2, z1.detach(), z2.detach()], dim=1)
    if gather:
        both, patient = gather_with_grad(both), gather_with_grad(patient)
    with torch.autocast(both.device.type, enabled=False):
        dtype = torch.promote_types(both.dtype, torch.float32)
        p1, p2, z1, z2 = (F.normalize(x.to(dtype), dim=1) for x in both.chunk(4, dim=1))
        positive = (patient[:, None] == patient).to(dtype)
        return -(positive * (p1 @ z2.T + p2 @ z1.T)).sum() / (2 * positive.sum())


class ASTCL(Pretraining):
    """Features that hide which view they come from, predict the other view's future, and agree within a patient.

    OUR RECONSTRUCTION from the paper's abstract, as this file's docstring says. The loss is

        adversarial_weight * adversarial + temporal_weight * temporal + patient_weight * patient

    of `adversarial_loss` behind `reverse_gradient`, TS-TCC's `temporal_loss` averaged over the two
    directions, and `patient_loss`. Since the encoder climbs what the discriminator descends, a low sum does not mean
    good features: keep the last epoch, not that of the lowest loss.

    Args:
        encoder: A network with `features(x)`, `(B, L, samples) -> (B, D, T)`, and `out_dim` = D.
        views: The noise-enhanced and the denoised view of a batch, in that order; see `shared.augment.TwoViews`.
        projection_dim: Width of the embeddings that are compared within a patient.
        discriminator_dim: Hidden width of the discriminator.
        reversal: Strength of the reversed gradient, from the first step on.
        steps: K, the number of positions predicted, as in TS-TCC.
        horizon: How far ahead they reach, as in TS-TCC.
        context_dim: Width of the transformer, as in TS-TCC.
        context_layers: Number of its layers, as in TS-TCC.
        context_heads: Number of its attention heads, as in TS-TCC.
        context_mlp_dim: Hidden width of its MLPs, as in TS-TCC.
        dropout: Dropout rate of the transformer, as in TS-TCC.
        adversarial_weight: Weight of the adversarial term.
        temporal_weight: Weight of the temporal term.
        patient_weight: Weight of the patient term.
        optimizer: Makes the optimiser, as in TS-TCC.
        warmup_epochs: Epochs of linear warm-up.
        lr_schedule: Constant as in TS-TCC, or a half cosine to 0.
    """

    title = "ASTCL"

    def __init__(
        self,
        encoder: nn.Module,
        views: nn.Module,
        projection_dim: int = 128,
        discriminator_dim: int = 128,
        reversal: float = 1.0,
        steps: int = 25,
        horizon: float = 0.4,
        context_dim: int = 100,
        context_layers: int = 4,
        context_heads: int = 4,
        context_mlp_dim: int = 64,
        dropout: float = 0.1,
        adversarial_weight: float = 0.1,
        temporal_weight: float = 1.0,
        patient_weight: float = 1.0,
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
        self.discriminator = nn.Sequential(
            nn.Linear(dim, discriminator_dim), nn.ReLU(inplace=True), nn.Linear(discriminator_dim, 1)
        )
        self.reversal = reversal
        self.context = TransformerContext(dim, context_dim, context_layers, context_heads, context_mlp_dim, dropout)
        self.steps = steps
        self.horizon = horizon
        self.future = nn.Linear(context_dim, steps * dim)  # W_1 ... W_K, one below the other
        self.projector = projector(dim, projection_dim, "mlp")
        self.predictor = projector(projection_dim, projection_dim, "mlp", hidden_dim=projection_dim // 4)
        self.adversarial_weight = adversarial_weight
        self.temporal_weight = temporal_weight
        self.patient_weight = patient_weight

    def step(self, batch: ECGBatch) -> Step:
        """Both views as one batch, so that batch norm does not hide a view's own mean from the discriminator.

        Raises:
            ValueError: if the signals are too short for `steps`.
        """
        z_BDT: Tensor = self.encoder.features(torch.cat(self.views(batch.signal)))  # type: ignore[operator]
        h_BD = z_BDT.mean(-1)
        noisy, denoised = self.discriminator(reverse_gradient(h_BD, self.reversal)).chunk(2)
        z_BD = self.projector(h_BD)
        (z1, z2), (p1, p2) = z_BD.chunk(2), self.predictor(z_BD).chunk(2)
        terms = {
            "adversarial": adversarial_loss(noisy, denoised),
            "temporal": self.temporal(z_BDT),
            "patient": patient_loss(p1, p2, z1, z2, batch.patient, gather=self.training),
        }
        loss = (
            self.adversarial_weight * terms["adversarial"]
            + self.temporal_weight * terms["temporal"]
            + self.patient_weight * terms["patient"]
        )
        return Step(loss, z1, terms)

    def temporal(self, z_BDT: Tensor) -> Tensor:
        """The past of each view predicts the other's future, from one position; `z_BDT` holds both views' records."""
        past, future = past_and_future(z_BDT, self.steps, self.horizon, gather=self.training)
        predicted_1, predicted_2 = self.future(self.context(past)).view_as(future).chunk(2)
        future_1, future_2 = future.chunk(2)
        gather = self.training
        return (temporal_loss(predicted_1, future_2, gather) + temporal_loss(predicted_2, future_1, gather)) / 2
