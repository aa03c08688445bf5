"""ETP's network (paper, section 2.1, Eqs. 1 and 2) and zero-shot scores (section 3.4), in plain torch.

Shapes: B records, C classes, P prompts, E width of the shared embedding (the paper's d).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.backbones import out_dim
from shared.backbones import projector as projection_head


class ECGTextModel(nn.Module):
    """An ECG encoder with two projectors: one for its features, one for those of a frozen language model.

    Args:
        encoder: The paper's F_ecg, `(B, L, T) -> (B, encoder.out_dim)`.
        text_dim: Width of the language model's features (the output of the paper's F_text).
        projection_dim: Width d of the shared embedding.
        projector: Kind of both projectors, see `shared.backbones.projector`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        text_dim: int,
        projection_dim: int,
        projector: Literal["linear", "mlp"],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.ecg_projector = projection_head(out_dim(encoder), projection_dim, projector)
        self.text_projector = projection_head(text_dim, projection_dim, projector)

    def embed_ecg(self, signal: Tensor) -> Tensor:
        """Eq. 1: P_ecg(F_ecg(e)), `(B, L, T) -> (B, E)`, not normalised."""
        embedded: Tensor = self.ecg_projector(self.encoder(signal))
        return embedded

    def embed_text(self, features: Tensor) -> Tensor:
        """Eq. 2: P_t applied to the language model's features, `(B, text_dim) -> (B, E)`, not normalised."""
        embedded: Tensor = self.text_projector(features)
        return embedded


def class_embeddings(prompt_embeddings: Tensor, prompts_per_class: Sequence[int]) -> Tensor:
    """One embedding per class: the mean of its prompts' normalised embeddings, normalised (CLIP's ensembling).

    Args:
        prompt_embeddings: `(P, E)` embeddings of the prompts, class by class.
        prompts_per_class: The number of prompts of each class.

    Returns:
        `(C, E)` embeddings of unit length.
    """
    with torch.autocast(prompt_embeddings.device.type, enabled=False):
        unit = F.normalize(prompt_embeddings.float(), dim=1)
        means = [chunk.mean(0) for chunk in unit.split(list(prompts_per_class))]
        return F.normalize(torch.stack(means), dim=1)


def zero_shot_scores(ecg_embeddings: Tensor, class_embedding: Tensor) -> Tensor:
    """Cosine similarity of records `(B, E)` and classes `(C, E)`: `(B, C)` in [-1, 1] (section 3.4).

    The class with the highest score is the prediction; a class's column ranks the records for it. Scores are computed
    in float32 even inside bf16 autocast, which would leave only a few distinct values to rank by.
    """
    with torch.autocast(ecg_embeddings.device.type, enabled=False):
        return F.normalize(ecg_embeddings.float(), dim=1) @ class_embedding.float().T
