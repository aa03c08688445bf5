"""CLOCS (Kiyasseh, Zhu, Clifton 2021, "Contrastive learning of cardiac signals across space, time, and patients").

The variant over time, contrastive multi-segment coding (CMSC), which needs no second lead. ICML 2021, arXiv 2005.13249.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from ecg_text.data.module import ECGBatch
from shared.backbones import out_dim, projector
from shared.distributed import gather_with_grad
from shared.methods import Pretraining, Step


def clocs_loss(h1: Tensor, h2: Tensor, patient: Tensor, temperature: float, gather: bool = True) -> Tensor:
    r"""CLOCS section 4, Eqs. 1-3: patient-specific InfoNCE between the first and the second segments of K records.

    With r_ij = cos(h1_i, h2_j), and P the pairs of two different records i != j of one patient:

    .. math::
        \ell^{12}_{ij} = -\log \frac{\exp(r_{ij} / \tau)}{\sum_k \exp(r_{ik} / \tau)}, \qquad
        \ell^{21}_{ij} = -\log \frac{\exp(r_{ij} / \tau)}{\sum_k \exp(r_{kj} / \tau)}

        L = \frac{1}{2} \Bigl[ \frac{1}{K} \sum_i (\ell^{12}_{ii} + \ell^{21}_{ii})
            + \frac{1}{|P|} \sum_{(i,j) \in P} (\ell^{12}_{ij} + \ell^{21}_{ij}) \Bigr]

    Eq. 1 is the sum without the half, which makes this `shared.losses.clip_loss` where no patient occurs twice. Each
    of the four terms is a mean of its own (Eqs. 2 and 3), so a batch's only repeated patient weighs as much as all
    the single records together. The denominators hold the positives, as Eqs. 2 and 3 print them.

    The authors' code departs from the paper: it takes the rows' term over j > i and the columns' over i > j only, so
    that the loss depends on the order of the batch, and divides by the number of terms there are, 2 or 4.

    Every process computes the loss of the joined batch: P need not be spread evenly over them.

    Args:
        h1: `(B, D)` embeddings of the first segments, of any length (normalised here).
        h2: `(B, D)` embeddings of the second segments; row i is of the same record as `h1[i]`.
        patient: `(B,)` integers, equal for the records of one patient.
        temperature: tau > 0.
        gather: Join the processes' batches. False where every process already holds all records, as in validation.

    Returns:
        0-dim loss, at least 0.

    Raises:
        ValueError: if the shapes do not fit, if the joined batch holds fewer than two records, if the processes'
            batch sizes differ, or if the temperature is out of range.

    Example:
        >>> clocs_loss(torch.ones(8, 4), torch.ones(8, 4), torch.arange(8), temperature=0.1)  # log 8
        tensor(2.0794)
        >>> clocs_loss(torch.ones(8, 4), torch.ones(8, 4), torch.arange(8) // 2, temperature=0.1)  # 2 log 8
        tensor(4.1589)
    """
    if h1.ndim != 2 or h1.shape != h2.shape or patient.shape != h1.shape[:1]:
        shapes = f"{tuple(h1.shape)}, {tuple(h2.shape)} and {tuple(patient.shape)}"
        raise ValueError(f"Expected two embeddings of one shape (B, D) and patients (B,), got {shapes}.")
    if not 0 < temperature < math.inf:  # also catches NaN
        raise ValueError(f"temperature must be a finite number above 0, got {temperature}.")
    if gather:
        h1, h2 = gather_with_grad(torch.cat([h1, h2], dim=1)).chunk(2, dim=1)
        patient = gather_with_grad(patient)
    if len(h1) < 2:
        raise ValueError(
            "A contrastive loss needs at least 2 records in the global batch, got 1: there are no negatives. "
            "Raise batch_size or set drop_last=True."
        )
    with torch.autocast(h1.device.type, enabled=False):
        dtype = torch.promote_types(h1.dtype, torch.float32)
        logits = F.normalize(h1.to(dtype), dim=1) @ F.normalize(h2.to(dtype), dim=1).T / temperature
        positive = (patient[:, None] == patient).to(dtype)
        # A batch without repeated patients has no pairs for Eq. 3: the minimum only avoids 0 / 0.
        share = positive / (positive.sum() - len(h1)).clamp(min=1)
        share.fill_diagonal_(1 / len(h1))  # Eq. 2
        return -(share * (logits.log_softmax(1) + logits.log_softmax(0))).sum() / 2


class CLOCS(Pretraining):
    """The halves of a record attract each other and those of the same patient's other records (CMSC, section 4).

    There is no augmentation: two adjacent segments of a signal are its two views. A batch has fields `signal`
    `(B, L, T)` and `patient` `(B,)`; of an odd T the last sample is dropped.

    Args:
        encoder: `(B, L, T) -> (B, encoder.out_dim)`, for any T.
        projection_dim: Width of the embedding, from a linear layer as in the authors' code, which tries 32 to 320.
        temperature: tau of Eqs. 2 and 3 (authors' code: 0.1).
        optimizer: Makes the optimiser: Adam, 1e-4 at batches of 256, without weight decay, as in the authors' code.
        warmup_epochs: Epochs of linear warm-up; the authors' code has none.
        lr_schedule: Constant, as in the authors' code, or a half cosine to 0.
    """

    title = "CLOCS"

    def __init__(
        self,
        encoder: nn.Module,
        projection_dim: int = 128,
        temperature: float = 0.1,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.encoder = encoder
        self.projector = projector(out_dim(encoder), projection_dim, "linear")
        self.temperature = temperature

    def step(self, batch: ECGBatch) -> Step:
        """Both halves as one batch, so that batch norm sees what the loss compares."""
        half = batch.signal.shape[-1] // 2
        halves = torch.cat([batch.signal[..., :half], batch.signal[..., half : 2 * half]])
        h1, h2 = self.projector(self.encoder(halves)).chunk(2)
        return Step(clocs_loss(h1, h2, batch.patient, self.temperature, gather=self.training), h1)
