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
from ecg_text.methods import CPC
from ecg_text.methods.cpc import CPCPredictor, cpc_loss
from shared.backbones import ResNet1D
from shared.distributed import convert_batchnorm
from tests.processes import WORLD_SIZE, rows_of

GLOBAL_BATCH = 6


class Given(nn.Module):
    """An encoder that makes given features."""

    def __init__(self, z_BDT: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z_BDT)
        self.out_dim = z_BDT.shape[1]

    def features(self, x: Tensor) -> Tensor:
        return self.z


def batch_of(signal: Tensor) -> ECGBatch:
    return ECGBatch(signal, *[torch.zeros(len(signal))] * 5)


def sequences(batch: int = 3, positions: int = 6, dim: int = 2, steps: int = 3) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return normal(batch, positions, dim), [normal(batch, positions - k, dim) for k in range(1, steps + 1)]


def oracle(z: np.ndarray, predictions: list[np.ndarray]) -> tuple[float, float]:
    """Eqs. 3 and 4 for every sequence, position and step, averaged within a step, then over steps."""
    batch, positions, _ = z.shape
    losses, hits = [], []
    for k, p in enumerate(predictions, 1):
        of_step, hits_of_step = [], []
        for b in range(batch):
            for t in range(positions - k):
                positive = math.exp(p[b, t] @ z[b, t + k])
                negatives = [math.exp(p[b, t] @ z[other, t + k]) for other in range(batch) if other != b]
                negatives += [math.exp(p[b, t] @ z[b, other]) for other in range(positions) if other != t + k]
                of_step.append(-math.log(positive / (positive + sum(negatives))))
                hits_of_step.append(positive > max(negatives))
        losses.append(np.mean(of_step))
        hits.append(np.mean(hits_of_step))
    return float(np.mean(losses)), float(np.mean(hits))


def test_loss_accuracy_and_gradients_equal_the_written_equations() -> None:
    z, predictions = sequences()
    tensors = [z.requires_grad_(), *(p.requires_grad_() for p in predictions)]
    loss, accuracy = cpc_loss(z, predictions)
    loss.backward()
    arrays = [x.detach().numpy().copy() for x in tensors]
    assert (loss.item(), accuracy.item()) == pytest.approx(oracle(arrays[0], arrays[1:]), rel=1e-6)
    assert loss.item() == pytest.approx(oracle(arrays[0], arrays[1:])[0], rel=1e-12)
    assert 0 < accuracy < 1

    for x, array in zip(tensors, arrays, strict=True):
        for index in np.ndindex(*array.shape):
            value = array[index]
            sides = []
            for step in (1e-5, -1e-5):
                array[index] = value + step
                sides.append(oracle(arrays[0], arrays[1:])[0])
            array[index] = value
            assert x.grad[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_the_module_is_the_equations_on_its_networks_outputs() -> None:
    z, _ = sequences()
    model = CPC(Given(z.transpose(1, 2)), steps=3, context_dim=4, context_layers=2).double()
    step = model.step(batch_of(torch.zeros(3, 12, 96)))
    c = model.predictor.context(z).detach().numpy()
    W = [W_k.weight.detach().numpy() for W_k in model.predictor.W]
    predictions = [
        np.array([[W_k @ c[b, t] for t in range(6 - k)] for b in range(3)]) for k, W_k in enumerate(W, start=1)
    ]
    loss, accuracy = oracle(z.numpy(), predictions)
    assert step.loss.item() == pytest.approx(loss, rel=1e-12)
    assert step.terms["accuracy"].item() == pytest.approx(accuracy, rel=1e-6)
    torch.testing.assert_close(step.embedding, z.mean(1))


def test_every_step_and_every_position_is_predicted() -> None:
    """Public code has trained on one step only."""
    z, predictions = sequences()
    for p in predictions:
        p.requires_grad_()
    cpc_loss(z, predictions)[0].backward()
    for p in predictions:
        assert (p.grad.abs().sum(2) > 1e-4).all()

    torch.manual_seed(0)
    model = CPC(Given(z.transpose(1, 2)), steps=3, context_dim=4).double()
    model.step(batch_of(torch.zeros(3, 12, 96))).loss.backward()
    for W_k in model.predictor.W:
        assert W_k.weight.grad.abs().sum() > 1e-4
    assert (model.encoder.z.grad.abs().sum(1) > 1e-4).all()


def test_a_future_that_is_predicted_less_well_raises_the_loss() -> None:
    z, predictions = sequences()
    predictions = [10 * z[:, k:] for k in range(1, 4)]
    before = cpc_loss(z, predictions)[0].item()
    for k, prediction in enumerate(predictions):
        worse = [p.clone() for p in predictions]
        worse[k][1, 2] = -prediction[1, 2]
        assert cpc_loss(z, worse)[0].item() > before + 0.01


def test_the_context_has_not_seen_what_it_predicts() -> None:
    z, _ = sequences(positions=8)
    predictor = CPCPredictor(2, steps=2, context_dim=4, layers=2).double()
    before = predictor.context(z)
    for t in range(7):
        later = z.clone()
        later[:, t + 1 :] += 1
        after = predictor.context(later)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        assert (after[:, t + 1 :] != before[:, t + 1 :]).any(2).all()


def test_equal_candidates_are_no_hit_and_a_perfect_prediction_is_one() -> None:
    loss, accuracy = cpc_loss(torch.ones(4, 5, 3), [torch.ones(4, 4, 3)])
    assert loss.item() == pytest.approx(math.log(4 + 5 - 1))
    assert accuracy == 0
    z = torch.eye(20).reshape(4, 5, 20)
    loss, accuracy = cpc_loss(z, [50 * z[:, 1:], 50 * z[:, 2:]])
    assert loss < 1e-6
    assert accuracy == 1


def test_the_encoder_strides_16_samples_and_sees_219() -> None:
    """What the docstring says of the overlap between what is predicted and what the context has seen."""
    encoder = ResNet1D(1, width=1).eval()
    for parameter in encoder.parameters():
        nn.init.constant_(parameter, 0.5)  # nothing cancels, no ReLU is off
    x = torch.ones(1, 1, 640, requires_grad=True)
    features = encoder.features(x)
    spans = []
    for position in (19, 20):
        (gradient,) = torch.autograd.grad(features[0, :, position].sum(), x, retain_graph=True)
        seen = gradient[0, 0].nonzero()
        spans.append((seen.min().item(), seen.max().item()))
    assert [last - first + 1 for first, last in spans] == [219, 219]
    assert spans[1][0] - spans[0][0] == 16
    assert 13 * 16 < 219 <= 14 * 16


def test_step_is_finite_in_bf16_and_its_products_are_float32() -> None:
    torch.manual_seed(0)
    model = CPC(ResNet1D(12, width=2), steps=4, context_dim=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = model.step(batch_of(torch.randn(4, 12, 200)))
    step.loss.backward()
    assert step.loss.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name

    z, predictions = sequences()
    rounded = z.bfloat16(), [1000 * p.bfloat16() for p in predictions]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cpc_loss(*rounded)[0]
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(cpc_loss(rounded[0].double(), [p.double() for p in rounded[1]])[0].item())


def test_signals_too_short_for_the_steps_are_named() -> None:
    model = CPC(ResNet1D(12, width=1), steps=12, context_dim=4)
    assert model.step(batch_of(torch.randn(2, 12, 16 * 13))).loss.isfinite()
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        model.step(batch_of(torch.randn(2, 12, 16 * 12)))
    assert str(error.value) == (
        "CPC predicts 12 steps ahead and needs at least 13 positions, but the encoder makes 12 of these signals. "
        "Lower steps below 12, or use longer signals."
    )
    with pytest.raises(ValueError, match=r"^steps must be at least 1, got 0\.$"):
        CPC(ResNet1D(12, width=1), steps=0)


# ---- two gloo processes against one process on the joined batch


def step_of(rows: slice) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a training step on the given rows of the global batch."""
    torch.manual_seed(0)
    model = convert_batchnorm(CPC(ResNet1D(2, width=1), steps=3, context_dim=4)).double()
    signal = torch.randn(GLOBAL_BATCH, 2, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = model.step(batch_of(signal[rows])).loss
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def worker(rank: int) -> tuple[float, dict[str, Tensor]]:
    return step_of(rows_of(rank, GLOBAL_BATCH))


def test_two_processes_give_the_loss_and_gradient_of_the_joined_batch(two_processes: Callable[..., list[Any]]) -> None:
    ranks = two_processes(worker)
    loss, gradients = step_of(slice(None))
    assert np.mean([rank[0] for rank in ranks]) == pytest.approx(loss, abs=1e-10)
    for name, gradient in gradients.items():
        # The sum of the ranks' losses is differentiated; DDP divides by the world size.
        torch.testing.assert_close(sum(rank[1][name] for rank in ranks) / WORLD_SIZE, gradient, rtol=0, atol=1e-9)


# ---- through the command line, on the SYNTHETIC set


@pytest.mark.slow
def test_the_shipped_configuration_trains(command_line: Callable[..., list[str]], tmp_path: Path) -> None:
    cli = main(command_line("fit", tmp_path, "--model.init_args.context_dim", "32", method="cpc"))
    assert type(cli.model) is CPC
    assert cli.run_dir == tmp_path / "ecg_text" / "ptbxl_synthetic" / "cpc" / "seed_0"
    metrics = pd.read_csv(cli.run_dir / "metrics.csv")
    for column in ("train/loss", "val/loss", "train/accuracy", "val/accuracy", "train/feature_std"):
        assert metrics[column].dropna().map(math.isfinite).sum() == 2, column
    first, second = metrics["train/loss"].dropna()
    assert second < first
