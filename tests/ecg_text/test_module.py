"""ETP's wiring: the paper's equations on its weights, what is trained, and what a model built in Python can do."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ecg_text import ETP, ECGBatch
from shared.backbones import HashedNgrams, ResNet1D
from shared.data.problems import DataError
from shared.metrics import EmbeddingPairs

REPORTS = ["sinus rhythm", "atrial fibrillation", "left bundle branch block", "old infarct"]


def make(tmp_path: Path, **changed: Any) -> ETP:
    torch.manual_seed(0)
    settings = {"text_dim": 16, "projection_dim": 8, "text_cache_dir": str(tmp_path), **changed}
    return ETP(ResNet1D(width=4, layers=[1, 1, 1, 1]), **{"text_encoder": HashedNgrams(16), **settings})


def batch(size: int = 4) -> ECGBatch:
    none = torch.zeros(size, 2)
    return ECGBatch(torch.randn(size, 12, 200), torch.arange(size), none, none[:, 0].bool(), *[torch.arange(size)] * 2)


def oracle(ecg: np.ndarray, text: np.ndarray, weights: dict[str, np.ndarray], sigma: float) -> float:
    """Eqs. 1 to 5 in loops and float64: `ecg` and `text` are what the two encoders give."""
    e = [weights["We"] @ row + weights["be"] for row in ecg]  # Eq. 1
    t = [weights["Wt"] @ row + weights["bt"] for row in text]  # Eq. 2
    s = [[x @ y / np.sqrt((x @ x) * (y @ y)) for y in t] for x in e]
    n = len(e)
    e2t = [-np.log(np.exp(s[i][i] / sigma) / sum(np.exp(s[i][j] / sigma) for j in range(n))) for i in range(n)]  # Eq. 3
    t2e = [-np.log(np.exp(s[i][i] / sigma) / sum(np.exp(s[j][i] / sigma) for j in range(n))) for i in range(n)]  # Eq. 4
    return float((sum(e2t) + sum(t2e)) / (2 * n))  # Eq. 5


def test_two_steps_follow_equations_1_to_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(tmp_path)
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)  # there is no trainer
    model.report_features = model.encode_text(REPORTS)
    parts = {
        "We": "ecg_projector.weight",
        "be": "ecg_projector.bias",
        "Wt": "text_projector.weight",
        "bt": "text_projector.bias",
    }
    optimizer = torch.optim.SGD(model.model.parameters(), lr=0.05)
    one = batch()
    losses = []
    for _ in range(2):
        with torch.no_grad():
            ecg = model.model.encoder(one.signal).double().numpy()  # batch statistics, as in the step itself
        text = model.report_features.double().numpy()
        named = dict(model.model.named_parameters())
        weights = {key: named[name].detach().double().numpy() for key, name in parts.items()}
        expected = oracle(ecg, text, weights, 0.07)
        loss = model.training_step(one, 0)
        assert loss.item() == pytest.approx(expected, abs=2e-5)
        optimizer.zero_grad()
        loss.backward()
        for key, name in parts.items():  # a few entries of each gradient, by central differences
            for index in list(np.ndindex(weights[key].shape))[::53]:
                sides = []
                for sign in (1, -1):
                    moved = {**weights, key: weights[key].copy()}
                    moved[key][index] += sign * 1e-5
                    sides.append(oracle(ecg, text, moved, 0.07))
                slope = (sides[0] - sides[1]) / 2e-5
                assert named[name].grad[index].item() == pytest.approx(slope, abs=1e-4, rel=1e-3), (name, index)
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_a_record_counts_the_same_in_the_last_chunk_of_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of 4 and 2: their plain mean would count the last two records twice, where the loss is lower."""
    model, logged = make(tmp_path).eval(), {}
    monkeypatch.setattr(model, "log_dict", lambda values, **_: logged.update(values))
    monkeypatch.setattr(model, "_trainer", SimpleNamespace(datamodule=SimpleNamespace(batch_size=4)))
    model.val_pairs, model.scored = EmbeddingPairs(), EmbeddingPairs()
    ecg, text = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))
    model.val_pairs.update(ecg, text, torch.arange(6))
    model.on_validation_epoch_end()
    identity = {"We": np.eye(8), "be": np.zeros(8), "Wt": np.eye(8), "bt": np.zeros(8)}
    of_four, of_two = (
        oracle(ecg[rows].double().numpy(), text[rows].double().numpy(), identity, 0.07)
        for rows in (slice(0, 4), slice(4, 6))
    )
    assert float(logged["val/loss"]) == pytest.approx((4 * of_four + 2 * of_two) / 6, rel=1e-5)
    assert abs(of_four - of_two) > 0.1


class Frozen(nn.Module):
    """A text encoder that is a module, with parameters and dropout of its own."""

    name, dim = "frozen", 16

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def encode(self, texts: list[str]) -> Tensor:
        return torch.stack([self.weight.detach() * len(text) for text in texts])


def trained_parameters(model: ETP) -> set[int]:
    return {id(p) for group in model.configure_optimizers().param_groups for p in group["params"]}


def test_the_optimizer_gets_the_encoder_and_the_projectors_only(tmp_path: Path) -> None:
    model = make(tmp_path, text_encoder=Frozen())
    assert trained_parameters(model) == {id(p) for p in model.model.parameters()}
    assert not any("text_encoder" in name for name in model.state_dict())
    assert model.text_encoder.weight.tolist() == [1.0] * 16
    optimizer = model.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (2e-3, 1e-5)


def test_a_learnable_temperature_is_trained_and_starts_at_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(tmp_path, temperature=0.2, learn_temperature=True)
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
    assert id(model.log_temperature) in trained_parameters(model)
    assert model.temperature.item() == pytest.approx(0.2)
    model.report_features = model.encode_text(REPORTS)
    model.training_step(batch(), 0).backward()
    assert model.log_temperature.grad.item() != 0
    assert id(make(tmp_path).log_temperature) not in trained_parameters(make(tmp_path))


@pytest.mark.parametrize(
    ("schedule", "warmup_epochs", "expected"),
    [
        ("constant", 1, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", 0, [1.0, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
        ("cosine", 1, [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_the_learning_rate_of_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, warmup_epochs: int, expected: list[float]
) -> None:
    model = make(
        tmp_path, lr_schedule=schedule, warmup_epochs=warmup_epochs, optimizer=lambda p: torch.optim.SGD(p, lr=1.0)
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(pl.Trainer, "estimated_stepping_batches", 6)
    model.trainer = trainer
    configured = model.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]
    assert scheduler["interval"] == "step"
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler["scheduler"].step()
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_wrong_text_dim_says_which_is_right(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        make(tmp_path, text_dim=20).encode_text(REPORTS)
    assert str(error.value) == (
        "HashedNgrams(16, version 1) gives features of width 16, but text_dim is 20: set --model.init_args.text_dim 16"
    )


def test_another_data_module_is_refused(tmp_path: Path) -> None:
    class Other(pl.LightningDataModule):
        def train_dataloader(self) -> list[int]:
            return [0]

    trainer = pl.Trainer(fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(TypeError, match="ETP needs one of ecg_text's data modules, got Other"):
        trainer.fit(make(tmp_path), datamodule=Other())


def test_a_model_built_in_python_saves_and_loads(tmp_path: Path) -> None:
    model = make(tmp_path, temperature=0.3).eval()
    model.set_classes({"AF": "atrial fibrillation", "NORM": "normal ECG"})
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=0)
    model.trainer = trainer
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = ETP.load_from_checkpoint(
        tmp_path / "model.ckpt", encoder=ResNet1D(width=4, layers=[1, 1, 1, 1]), text_encoder=HashedNgrams(16)
    ).eval()
    assert loaded.temperature.item() == pytest.approx(0.3)
    assert loaded.prompts == model.prompts
    signal = torch.randn(2, 12, 200)
    assert torch.equal(loaded(signal), model(signal))


def test_scores_are_cosines_with_the_mean_prompt(tmp_path: Path) -> None:
    model = make(tmp_path).eval()
    model.set_classes({"AF": "", "NORM": ""}, [["atrial fibrillation", "no p waves"], ["normal"]])
    signal = torch.randn(3, 12, 200)
    with torch.no_grad():
        scores = model(signal)
        ecg = model.model.embed_ecg(signal).double().numpy()
        text = (
            model.model.embed_text(model.encode_text(["atrial fibrillation", "no p waves", "normal"])).double().numpy()
        )
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    for column, prompt in enumerate([(unit[0] + unit[1]) / 2, unit[2]]):
        expected = ecg @ prompt / np.linalg.norm(ecg, axis=1) / np.linalg.norm(prompt)
        np.testing.assert_allclose(scores[:, column].numpy(), expected, atol=1e-5)


def test_the_encoder_has_one_name_in_a_checkpoint(tmp_path: Path) -> None:
    model = make(tmp_path)
    assert model.encoder is model.model.encoder
    assert not any(name.startswith("encoder.") for name in model.state_dict())


def test_a_model_built_in_python_comes_without_lightnings_advice(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    make(tmp_path, augment=nn.Identity())
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("text_encoder", "title"),
    [
        ({"class_path": "shared.backbones.HashedNgrams", "init_args": {"dim": 512}}, "ETP (n-grams)"),
        (
            {"class_path": "shared.backbones.HuggingFaceText", "init_args": {"model": "packaged:minilm"}},
            "ETP (MiniLM)",
        ),
        (
            {
                "class_path": "shared.backbones.HuggingFaceText",
                "init_args": {"model": "emilyalsentzer/Bio_ClinicalBERT"},
            },
            "ETP",
        ),
        ({"class_path": "mine.LanguageModel"}, "ETP"),
    ],
)
def test_tables_name_the_language_model_where_it_is_not_the_papers(text_encoder: dict[str, Any], title: str) -> None:
    assert ETP.variant_title({"text_encoder": text_encoder}) == title
