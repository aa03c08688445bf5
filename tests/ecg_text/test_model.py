"""ETP's network and zero-shot scores against NumPy in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from ecg_text.model import ECGTextModel, class_embeddings, zero_shot_scores
from shared.backbones import ResNet1D


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_class_embeddings_are_normalised_means_of_normalised_prompts() -> None:
    prompts = np.random.default_rng(0).normal(size=(6, 5)) * np.array([[1], [100], [0.01], [1], [3], [7]])
    counts = [1, 3, 2]
    groups = np.split(unit(prompts), np.cumsum(counts)[:-1])
    expected = unit(np.stack([group.mean(0) for group in groups]))
    got = class_embeddings(torch.tensor(prompts), counts)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_zero_shot_scores_are_cosines() -> None:
    rng = np.random.default_rng(1)
    records, classes = rng.normal(size=(4, 5)) * 30, unit(rng.normal(size=(3, 5)))
    got = zero_shot_scores(torch.tensor(records, dtype=torch.float64), torch.tensor(classes))
    np.testing.assert_allclose(got.numpy(), unit(records) @ classes.T, atol=1e-6)
    assert got.dtype == torch.float32
    in_half = zero_shot_scores(torch.tensor(records).bfloat16(), torch.tensor(classes, dtype=torch.float32))
    assert in_half.dtype == torch.float32  # the scores are float32 whatever the encoder ran in


def test_bf16_autocast_leaves_scores_and_class_embeddings_in_float32() -> None:
    torch.manual_seed(0)
    records, prompts = torch.randn(300, 16), torch.randn(4, 16)
    expected = zero_shot_scores(records, class_embeddings(prompts, [2, 2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = zero_shot_scores(records, class_embeddings(prompts, [2, 2]))
    torch.testing.assert_close(got, expected)
    assert len(got[:, 0].unique()) == 300  # a bf16 product would leave about ten values to rank by


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_embeddings_are_projected_features(kind: str) -> None:
    torch.manual_seed(0)
    model = ECGTextModel(ResNet1D(12, width=4), text_dim=7, projection_dim=5, projector=kind).eval()  # type: ignore[arg-type]
    signal, text = torch.randn(3, 12, 100), torch.randn(3, 7)
    assert model.embed_ecg(signal).shape == model.embed_text(text).shape == (3, 5)
    torch.testing.assert_close(model.embed_ecg(signal), model.ecg_projector(model.encoder(signal)))
    if kind == "linear":
        assert isinstance(model.text_projector, nn.Linear)
        torch.testing.assert_close(
            model.embed_text(text), text @ model.text_projector.weight.T + model.text_projector.bias
        )


def test_an_unknown_projector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^projector must be 'linear' or 'mlp', got 'deep'$"):
        ECGTextModel(ResNet1D(12, width=4), 7, 5, "deep")  # type: ignore[arg-type]
