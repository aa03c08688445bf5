"""ASTCL, a reconstruction: its three losses, the reversed gradient, the denoised view, and training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor, nn

from ecg_text.cli import main
from ecg_text.data.module import ECGBatch
from ecg_text.methods import ts_tcc
from ecg_text.methods.astcl import ASTCL, Denoise, adversarial_loss, patient_loss, reverse_gradient
from shared.augment import TwoViews
from shared.backbones import ResNet1D
from shared.distributed import convert_batchnorm
from shared.losses import negative_cosine
from tests.processes import rows_of

PATIENTS = [0, 1, 2, 3, 3, 4, 4, 4]  # 5 of the 14 pairs in the first half's rows


def embeddings(batch: int, dim: int = 6, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """p1, p2, z1, z2."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, dim, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)]


def signals(batch: int = len(PATIENTS), length: int = 160) -> Tensor:
    return torch.randn(batch, 12, length, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def batch_of(signal: Tensor, patient: list[int]) -> ECGBatch:
    count = torch.arange(len(signal))
    return ECGBatch(signal, count, torch.zeros(len(signal), 2), torch.ones(len(signal)), count, torch.tensor(patient))


def small_model(**settings: float) -> ASTCL:
    """Double precision, without draws but that of the position."""
    torch.manual_seed(0)
    views = TwoViews(nn.Identity(), Denoise(levels=2))
    small = {"steps": 3, "projection_dim": 8, "context_dim": 8, "context_layers": 1, "context_heads": 2, "dropout": 0.0}
    return ASTCL(ResNet1D(12, 4), views, **(small | settings)).double()  # type: ignore[arg-type]


def step(model: ASTCL, batch: ECGBatch) -> Tensor:
    torch.manual_seed(0)
    loss = model.step(batch).loss
    loss.backward()
    return loss


# ---- the losses, once more, in NumPy float64 with loops


def patient_oracle(p1: np.ndarray, p2: np.ndarray, z1: np.ndarray, z2: np.ndarray, patient: list[int]) -> float:
    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    values = [
        (cosine(p1[i], z2[j]) + cosine(p2[i], z1[j])) / 2
        for i in range(len(p1))
        for j in range(len(p1))
        if patient[i] == patient[j]
    ]
    return -sum(values) / len(values)


@pytest.mark.parametrize("patient", [[0, 1, 0, 2, 0, 1], [4, 4, 4, 4, 4, 4], [0, 1, 2, 3, 4, 5]])
def test_the_patient_term_equals_its_formula(patient: list[int]) -> None:
    p1, p2, z1, z2 = embeddings(6)
    expected = patient_oracle(p1.numpy(), p2.numpy(), z1.numpy(), z2.numpy(), patient)
    assert patient_loss(p1, p2, z1, z2, torch.tensor(patient)).item() == pytest.approx(expected, rel=1e-12)


def test_other_records_of_a_patient_attract_each_other() -> None:
    """The gradient on record 1's prediction, from record 0's embedding."""
    z = torch.eye(4, dtype=torch.float64)
    for patient, attracts in (([0, 0, 1, 2], True), ([0, 3, 1, 2], False)):
        p1 = torch.eye(4, dtype=torch.float64).requires_grad_()
        patient_loss(p1, z, z, z, torch.tensor(patient)).backward()
        assert p1.grad is not None
        assert (-p1.grad[1, 0].item() > 0.05) == attracts


def test_without_repeated_patients_the_patient_term_is_the_symmetric_negative_cosine() -> None:
    p1, p2, z1, z2 = embeddings(6)
    expected = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
    value = patient_loss(p1, p2, z1, z2, torch.tensor([3, 5, 1, 0, 4, 2]))
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_patient_term_stops_the_gradient_at_the_embeddings() -> None:
    p1, p2, z1, z2 = (x.requires_grad_() for x in embeddings(6))
    patient_loss(p1, p2, z1, z2, torch.tensor([0, 1, 0, 2, 0, 1])).backward()
    assert z1.grad is None
    assert z2.grad is None
    assert all(p.grad is not None and (p.grad.abs().sum(1) > 0).all() for p in (p1, p2))


def test_the_adversarial_term_equals_its_formula() -> None:
    noisy, denoised = embeddings(5, dim=1)[:2]
    values = []
    for h, other in zip(noisy[:, 0].tolist(), denoised[:, 0].tolist(), strict=True):
        values.append(math.log(1 / (1 + math.exp(-h))) + math.log(1 - 1 / (1 + math.exp(-other))))
    assert adversarial_loss(noisy, denoised).item() == pytest.approx(-sum(values) / 10, rel=1e-12)
    assert adversarial_loss(noisy * 1e4, denoised * 1e4).isfinite()


def test_the_temporal_term_predicts_the_other_views_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ts_tcc, "draw_position", lambda *_, **__: 4)
    model = small_model().eval()
    z_BDT = torch.randn(6, 32, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # 3 records, 2 views
    with torch.no_grad():
        value = model.temporal(z_BDT).item()
        z = (z_BDT / z_BDT.norm(dim=1, keepdim=True)).transpose(1, 2)
        predicted = model.future(model.context(z[:, :5])).view(6, 3, 32).numpy()
    z = z.numpy()
    losses = []
    for first, other in ((0, 3), (3, 0)):  # where each direction's records begin
        for b in range(3):
            for k in range(3):
                scores = [math.exp(float(predicted[first + b, k] @ z[other + n, 5 + k])) for n in range(3)]
                losses.append(-math.log(scores[b] / sum(scores)))
    assert value == pytest.approx(sum(losses) / len(losses), rel=1e-10)


# ---- the game between encoder and discriminator


def test_the_reversed_gradient_is_negated_and_scaled_for_what_comes_before_only() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    encoder, discriminator = nn.Linear(3, 5), nn.Linear(5, 1)
    grads = []
    for through in (lambda h: h, lambda h: reverse_gradient(h, 0.25)):
        encoder.zero_grad()
        discriminator.zero_grad()
        h = through(encoder(x))
        assert torch.equal(h, encoder(x))
        adversarial_loss(discriminator(h), discriminator(2 * h)).backward()
        grads.append((encoder.weight.grad.clone(), discriminator.weight.grad.clone()))
    (plain_encoder, plain_discriminator), (turned_encoder, turned_discriminator) = grads
    assert torch.equal(turned_encoder, -0.25 * plain_encoder)
    assert torch.equal(turned_discriminator, plain_discriminator)
    assert plain_encoder.abs().sum() > 0


def test_in_the_method_the_encoder_climbs_what_the_discriminator_descends() -> None:
    batch = batch_of(signals(), PATIENTS)
    grads = {}
    for reversal in (0.5, -1.0):  # -1 turns the gradient back
        model = small_model(reversal=reversal, temporal_weight=0.0, patient_weight=0.0)
        step(model, batch)
        grads[reversal] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, plain in grads[-1.0].items():
        if name.startswith("encoder."):
            torch.testing.assert_close(grads[0.5][name], -0.5 * plain, rtol=1e-9, atol=1e-12)
            assert plain.abs().sum() > 0
        elif name.startswith("discriminator."):
            torch.testing.assert_close(grads[0.5][name], plain, rtol=1e-9, atol=1e-12)


# ---- the denoised view


def denoise_oracle(x: np.ndarray, levels: int, threshold: float) -> np.ndarray:
    coarse, result = x.copy(), np.zeros_like(x)
    for level in range(levels):
        spacing, last = 2**level, len(x) - 1
        smooth = np.empty_like(x)
        for t in range(len(x)):
            right = t + spacing if t + spacing <= last else 2 * last - t - spacing
            smooth[t] = coarse[abs(t - spacing)] / 4 + coarse[t] / 2 + coarse[right] / 4
        detail = coarse - smooth
        noise = np.median(np.abs(detail)) / 0.6745
        result += np.where(np.abs(detail) > threshold * noise, detail, 0)
        coarse = smooth
    return coarse + result


def test_denoise_equals_its_formula() -> None:
    x = torch.randn(2, 3, 41, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = Denoise(levels=3, threshold=1.5)(x)
    for sample in range(2):
        for channel in range(3):
            expected = denoise_oracle(x[sample, channel].numpy(), 3, 1.5)
            np.testing.assert_allclose(ours[sample, channel].numpy(), expected, rtol=0, atol=1e-12)


def test_denoise_removes_noise_and_keeps_spikes() -> None:
    t = torch.arange(1000, dtype=torch.float32)
    clean = sum(torch.exp(-0.5 * ((t - peak) / 2) ** 2) for peak in range(50, 1000, 90)) + 0.2 * torch.sin(t / 40)
    clean = clean.expand(4, 12, -1)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    denoised = Denoise()(noisy)
    assert ((denoised - clean) ** 2).mean() < 0.5 * ((noisy - clean) ** 2).mean()
    assert (denoised - clean)[..., 50].abs().mean() < 0.1  # a peak of height 1
    torch.testing.assert_close(Denoise(threshold=0.0)(noisy), noisy)
    flat = torch.full((1, 1, 20), 3.0)
    assert torch.equal(Denoise()(flat), flat)


# ---- the method


def test_two_encoder_passes_and_the_named_terms_make_the_loss() -> None:
    model = small_model(adversarial_weight=0.5, temporal_weight=2.0, patient_weight=3.0)
    seen = []
    model.encoder.stem.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    made = model.step(batch_of(signals(), PATIENTS))
    assert seen == [2 * len(PATIENTS)]
    assert list(made.terms) == ["adversarial", "temporal", "patient"]
    expected = 0.5 * made.terms["adversarial"] + 2 * made.terms["temporal"] + 3 * made.terms["patient"]
    assert made.loss.item() == pytest.approx(expected.item())
    assert made.embedding.shape == (len(PATIENTS), 8)


def test_the_step_knows_which_records_are_of_one_patient() -> None:
    alone, repeated = (
        small_model().step(batch_of(signals(), patient)).terms["patient"] for patient in (list(range(8)), PATIENTS)
    )
    assert abs(repeated - alone) > 1e-3


def test_a_step_in_bf16_is_finite() -> None:
    model = small_model().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = model.step(batch_of(signals().float(), PATIENTS))
    made.loss.backward()
    assert made.loss.isfinite()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in made.terms.values())
    grads = [p.grad for p in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


PATIENT_SHAPES = "Expected four embeddings of one shape (B, D) and patients (B,), got (4, 3), (4, 3), (4, 3), {}."


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: patient_loss(*[torch.ones(4, 3)] * 3, torch.ones(4, 2), torch.zeros(4)),
            PATIENT_SHAPES.format("(4, 2) and (4,)"),
        ),
        (
            lambda: patient_loss(*[torch.ones(4, 3)] * 4, torch.zeros(3)),
            PATIENT_SHAPES.format("(4, 3) and (3,)"),
        ),
        (
            lambda: adversarial_loss(torch.ones(4, 1), torch.ones(3, 1)),
            "Expected logits of one shape, got (4, 1) and (3, 1).",
        ),
        (lambda: Denoise(levels=0), "levels must be at least 1, got 0."),
        (lambda: Denoise(threshold=-1.0), "threshold must be at least 0, got -1.0."),
        (lambda: small_model(steps=0), "steps must be at least 1, got 0."),
        (
            lambda: small_model(steps=10).step(batch_of(signals(), PATIENTS)),
            "The prediction of 10 steps needs at least 11 positions, but the encoder makes 10 of these signals. "
            "Lower steps below 10 (40% of the positions is TS-TCC's best), or use longer signals.",
        ),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        call()
    assert str(error.value) == message


def worker(rank: int) -> tuple[float, float, dict[str, Tensor | None]]:
    own = rows_of(rank, len(PATIENTS))
    model = small_model()
    convert_batchnorm(model)
    loss = step(model, batch_of(signals()[own], PATIENTS[own]))
    terms = model.step(batch_of(signals()[own], PATIENTS[own])).terms
    return loss.item(), terms["patient"].item(), {name: p.grad for name, p in model.named_parameters()}


def test_two_processes_with_unequal_numbers_of_positives_equal_one(two_processes: Callable[..., list[Any]]) -> None:
    ranks = two_processes(worker)
    model = small_model()
    joined = step(model, batch_of(signals(), PATIENTS))
    assert np.mean([rank[0] for rank in ranks]) == pytest.approx(joined.item(), abs=1e-9)
    assert ranks[0][1] == ranks[1][1]  # both have all pairs of the joined batch
    for name, parameter in model.named_parameters():
        # DDP averages over the processes.
        mean = torch.stack([rank[2][name] for rank in ranks]).mean(0)
        torch.testing.assert_close(mean, parameter.grad, rtol=0, atol=1e-9, msg=name)


def test_it_trains_through_the_command_line_and_keeps_the_last_epoch(command_line, tmp_path: Path) -> None:
    cli = main(command_line("fit", tmp_path, method="astcl"))
    assert cli.run_dir.parts[-2] == "astcl"
    assert yaml.safe_load((cli.run_dir / "config.yaml").read_text())["checkpoint"]["monitor"] is None
    metrics = pd.read_csv(cli.run_dir / "metrics.csv")
    for name in ("loss", "adversarial", "temporal", "patient", "feature_std"):
        for split in ("train", "val"):
            assert metrics[f"{split}/{name}"].dropna().map(math.isfinite).sum() == 2
    best, last = (
        torch.load(cli.run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    assert best["epoch"] == last["epoch"] == 1
    assert all(torch.equal(best["state_dict"][key], value) for key, value in last["state_dict"].items())
