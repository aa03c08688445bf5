"""CLOCS: the loss against its equations, its positives, and training through the command line."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ecg_text.cli import main
from ecg_text.data.module import ECGBatch
from ecg_text.methods.clocs import CLOCS, clocs_loss
from shared.backbones import ResNet1D
from shared.losses import clip_loss
from tests.processes import WORLD_SIZE, rows_of

PATIENTS = [0, 1, 2, 3, 3, 4, 4, 4]  # of the 8 pairs of different records, 1 row is in the first half, 7 in the second


def embeddings(batch: int, dim: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    h1 = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return h1.to(dtype), (h1 + torch.randn(batch, dim, generator=generator, dtype=torch.float64)).to(dtype)


def oracle(h1: np.ndarray, h2: np.ndarray, patient: list[int], tau: float) -> float:
    """Eqs. 1-3 with loops; Eq. 1 is halved."""

    def similarity(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) / tau

    def terms(a: np.ndarray, b: np.ndarray) -> float:
        same, others = [], []
        for i in range(len(a)):
            for j in range(len(b)):
                total = sum(math.exp(similarity(a[i], b[k])) for k in range(len(b)))
                value = -math.log(math.exp(similarity(a[i], b[j])) / total)
                if i == j:
                    same.append(value)
                elif patient[i] == patient[j]:
                    others.append(value)
        return sum(same) / len(same) + (sum(others) / len(others) if others else 0)

    return (terms(h1, h2) + terms(h2, h1)) / 2


@pytest.mark.parametrize("patient", [[0, 1, 0, 2, 0, 1], [7, 7, 7, 7, 7, 7], [0, 1, 2, 3, 4, 5]])
def test_value_and_gradients_equal_the_written_equations(patient: list[int]) -> None:
    h1, h2 = (h.requires_grad_() for h in embeddings(6))
    value = clocs_loss(h1, h2, torch.tensor(patient), 0.1)
    value.backward()
    arrays = h1.detach().numpy().copy(), h2.detach().numpy().copy()
    assert value.item() == pytest.approx(oracle(*arrays, patient, 0.1), rel=1e-12)
    for ours, array in zip((h1.grad, h2.grad), arrays, strict=True):
        for index in [(0, 0), (2, 3), (5, 4)]:
            kept, sides = array[index], []
            for step in (1e-5, -1e-5):
                array[index] = kept + step
                sides.append(oracle(*arrays, patient, 0.1))
            array[index] = kept
            assert ours is not None
            assert ours[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


def test_without_repeated_patients_it_is_the_clip_loss() -> None:
    h1, h2 = embeddings(8)
    patient = torch.tensor([5, 3, 8, 1, 0, 9, 2, 4])
    assert clocs_loss(h1, h2, patient, 0.1).item() == pytest.approx(clip_loss(h1, h2, 0.1).item(), rel=1e-12)


def test_other_records_of_a_patient_attract_and_those_of_others_repel() -> None:
    """The gradient on a record's second half, from another record's first half that is near it."""
    h1 = torch.eye(4, dtype=torch.float64)
    for patient, sign in (([0, 0, 1, 2], 1), ([0, 3, 1, 2], -1)):
        h2 = torch.eye(4, dtype=torch.float64).requires_grad_()
        clocs_loss(h1, h2, torch.tensor(patient), 0.5).backward()
        assert h2.grad is not None
        towards = -h2.grad[1, 0].item()  # how a step of descent moves record 1's second half along record 0's first
        assert towards * sign > 1e-3


def test_the_order_of_the_batch_and_of_the_halves_does_not_matter() -> None:
    """In the authors' code it does: rows after, and columns before the diagonal."""
    h1, h2 = embeddings(8)
    patient = torch.tensor(PATIENTS)
    order = torch.tensor([4, 7, 1, 0, 6, 3, 2, 5])
    value = clocs_loss(h1, h2, patient, 0.1).item()
    assert clocs_loss(h1[order], h2[order], patient[order], 0.1).item() == pytest.approx(value, rel=1e-12)
    assert clocs_loss(h2, h1, patient, 0.1).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("tau", [0.1, 1e-3])
def test_bf16_embeddings_give_a_float32_loss_and_finite_gradients(tau: float) -> None:
    h1, h2 = (h.requires_grad_() for h in embeddings(64, dtype=torch.bfloat16))
    patient = torch.arange(64) // 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = clocs_loss(h1, h2, patient, tau)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(clocs_loss(h1.double(), h2.double(), patient, tau).item(), rel=1e-5)
    assert all(h.grad is not None and h.grad.isfinite().all() and h.grad.abs().sum() > 0 for h in (h1, h2))


FEW = (
    "A contrastive loss needs at least 2 records in the global batch, got 1: there are no negatives. "
    "Raise batch_size or set drop_last=True."
)
SHAPES = "Expected two embeddings of one shape (B, D) and patients (B,), got {}."


@pytest.mark.parametrize(
    ("h1", "h2", "patient", "temperature", "message"),
    [
        ((4, 3), (5, 3), (4,), 0.1, SHAPES.format("(4, 3), (5, 3) and (4,)")),
        ((4, 3), (4, 3), (5,), 0.1, SHAPES.format("(4, 3), (4, 3) and (5,)")),
        ((4, 3), (4, 3), (4, 1), 0.1, SHAPES.format("(4, 3), (4, 3) and (4, 1)")),
        ((4,), (4,), (4,), 0.1, SHAPES.format("(4,), (4,) and (4,)")),
        ((4, 3), (4, 3), (4,), 0.0, "temperature must be a finite number above 0, got 0.0."),
        ((4, 3), (4, 3), (4,), math.nan, "temperature must be a finite number above 0, got nan."),
        ((1, 3), (1, 3), (1,), 0.1, FEW),
    ],
)
def test_bad_input_is_named(h1, h2, patient, temperature, message) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        clocs_loss(torch.ones(h1), torch.ones(h2), torch.ones(patient, dtype=torch.int64), temperature)
    assert str(error.value) == message


def worker(rank: int) -> tuple[float, Tensor | None, Tensor | None, float]:
    own = rows_of(rank, len(PATIENTS))
    h1, h2 = (h[own].clone().requires_grad_() for h in embeddings(len(PATIENTS)))
    value = clocs_loss(h1, h2, torch.tensor(PATIENTS[own]), 0.1)
    value.backward()
    alone = clocs_loss(h1, h2, torch.tensor(PATIENTS[own]), 0.1, gather=False)
    return value.item(), h1.grad, h2.grad, alone.item()


def test_two_processes_with_unequal_numbers_of_positives_equal_one(two_processes: Callable[..., list[Any]]) -> None:
    h1, h2 = (h.requires_grad_() for h in embeddings(len(PATIENTS)))
    joined = clocs_loss(h1, h2, torch.tensor(PATIENTS), 0.1)
    joined.backward()
    values, grads_1, grads_2, alone = zip(*two_processes(worker), strict=True)
    assert np.mean(values) == pytest.approx(joined.item(), abs=1e-10)
    assert np.mean(alone) != pytest.approx(joined.item(), abs=1e-2)
    # The sum of the processes' losses is differentiated; DDP divides by their number.
    torch.testing.assert_close(torch.cat(grads_1) / WORLD_SIZE, h1.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cat(grads_2) / WORLD_SIZE, h2.grad, rtol=0, atol=1e-10)


def batch_of(signal: Tensor, patient: list[int]) -> ECGBatch:
    count = torch.arange(len(signal))
    return ECGBatch(signal, count, torch.zeros(len(signal), 2), torch.ones(len(signal)), count, torch.tensor(patient))


def test_the_views_are_the_halves_of_the_record_and_go_through_the_encoder_together() -> None:
    class Seen(nn.Module):
        out_dim = 2

        def forward(self, x: Tensor) -> Tensor:
            self.x = x
            return x.mean(-1)

    signal = torch.randn(3, 2, 11)
    encoder = Seen()
    step = CLOCS(encoder, projection_dim=4).step(batch_of(signal, [0, 1, 0]))
    assert torch.equal(encoder.x, torch.cat([signal[..., :5], signal[..., 5:10]]))
    assert step.embedding.shape == (3, 4)


def test_the_step_knows_which_records_are_of_one_patient() -> None:
    model = CLOCS(ResNet1D(12, 8))
    signal = torch.randn(4, 12, 200)
    alone, repeated = (model.step(batch_of(signal, patient)).loss for patient in ([0, 1, 2, 3], [0, 1, 2, 0]))
    assert repeated > alone + 0.1


def test_it_trains_through_the_command_line(command_line, tmp_path: Path) -> None:
    cli = main(command_line("fit", tmp_path, method="clocs"))
    metrics = pd.read_csv(cli.run_dir / "metrics.csv")
    assert cli.run_dir.parts[-2] == "clocs"
    assert (cli.run_dir / "checkpoints" / "best.ckpt").is_file()
    loss = metrics["train/loss"].dropna()
    assert len(loss) == 2
    assert loss.iloc[1] < loss.iloc[0]
    assert metrics["val/loss"].dropna().between(0, 10).all()
    assert (metrics["train/feature_std"].dropna() > 0).all()
