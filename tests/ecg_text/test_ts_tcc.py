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
from ecg_text.methods import TSTCC
from ecg_text.methods.ts_tcc import TransformerContext, past_and_future, temporal_loss
from shared.backbones import ResNet1D
from shared.distributed import convert_batchnorm
from tests.processes import WORLD_SIZE, rows_of

GLOBAL_BATCH = 6
SMALL = {"context_dim": 8, "context_layers": 2, "context_heads": 2, "context_mlp_dim": 4}


class Given(nn.Module):
    """An encoder that makes given features: first the weak view's, then the strong one's."""

    def __init__(self, z_BDT: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z_BDT)
        self.out_dim = z_BDT.shape[1]

    def features(self, x: Tensor) -> Tensor:
        return self.z


class Reversal(nn.Module):
    """Two views without chance: the signal, and its reversal in time."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.flip(2)


def batch_of(signal: Tensor) -> ECGBatch:
    return ECGBatch(signal, *[torch.zeros(len(signal))] * 5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given_features(batch: int = 3, dim: int = 8, positions: int = 9, **settings: Any) -> TSTCC:
    torch.manual_seed(0)
    encoder = Given(normal(2 * batch, dim, positions))
    return TSTCC(encoder, Reversal(), **{"steps": 4, "dropout": 0.0, **SMALL, **settings}).double()


def step_on(model: TSTCC, batch: int = 3) -> Any:
    return model.step(batch_of(torch.zeros(batch, 12, 96)))


def position_drawn(model: TSTCC, embedding: Tensor) -> int:
    """t, from what the strong view's context has seen."""
    (gradient,) = torch.autograd.grad(embedding.sum(), model.encoder.z, retain_graph=True)
    seen = gradient.abs().sum((0, 1)).nonzero()[:, 0].tolist()
    assert seen == list(range(len(seen)))
    return len(seen) - 1


# ---- the equations, once more, in NumPy float64 with loops


def temporal_oracle(predictions: np.ndarray, z: np.ndarray) -> float:
    batch, steps, _ = z.shape
    total = 0.0
    for k in range(steps):
        for b in range(batch):
            scores = [math.exp(predictions[b, k] @ z[n, k]) for n in range(batch)]
            total += -math.log(scores[b] / sum(scores))
    return total / (steps * batch)


def contextual_oracle(z1: np.ndarray, z2: np.ndarray, tau: float) -> float:
    z = np.concatenate([z1, z2])
    z = z / np.sqrt((z**2).sum(1, keepdims=True))
    total = 0.0
    for i in range(len(z)):
        partner = (i + len(z1)) % len(z)
        scores = {m: math.exp(z[i] @ z[m] / tau) for m in range(len(z)) if m != i}
        total += -math.log(scores[partner] / sum(scores.values()))
    return total / len(z)


def test_temporal_loss_and_gradients_equal_the_written_equation() -> None:
    arrays = [normal(4, 3, 2, seed=seed).numpy().copy() for seed in (0, 1)]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    loss = temporal_loss(*tensors)
    loss.backward()
    assert loss.item() == pytest.approx(temporal_oracle(*arrays), rel=1e-12)
    for x, array in zip(tensors, arrays, strict=True):
        for index in np.ndindex(*array.shape):
            value = array[index]
            sides = []
            for step in (1e-5, -1e-5):
                array[index] = value + step
                sides.append(temporal_oracle(*arrays))
            array[index] = value
            assert x.grad[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_the_module_is_the_equations_on_its_networks_outputs() -> None:
    model = given_features(temperature=0.2, temporal_weight=1.3, contextual_weight=0.4)
    step = step_on(model)
    t = position_drawn(model, step.embedding)

    z = model.encoder.z.detach().numpy().transpose(0, 2, 1)
    z = z / np.sqrt((z**2).sum(2, keepdims=True))
    context = model.context(torch.tensor(z[:, : t + 1])).detach()
    W = model.predictor.weight.detach().numpy().reshape(4, 8, 8)
    bias = model.predictor.bias.detach().numpy().reshape(4, 8)
    c = context.numpy()
    predictions = np.array([[W[k] @ c[b] + bias[k] for k in range(4)] for b in range(6)])
    future = np.array([[z[b, t + k] for k in range(1, 5)] for b in range(6)])
    # Rows 0 to 2 are the weak view, 3 to 5 the strong one; each predicts the other.
    temporal = temporal_oracle(predictions[3:], future[:3]) + temporal_oracle(predictions[:3], future[3:])
    projected = model.projector(context).detach().numpy()
    contextual = contextual_oracle(projected[:3], projected[3:], 0.2)

    assert step.terms["temporal"].item() == pytest.approx(temporal, rel=1e-10)
    assert step.terms["contextual"].item() == pytest.approx(contextual, rel=1e-10)
    assert step.loss.item() == pytest.approx(1.3 * temporal + 0.4 * contextual, rel=1e-10)
    torch.testing.assert_close(step.embedding, context[3:])


def test_every_step_is_predicted() -> None:
    """Public code has trained on one step only."""
    predictions, z = (normal(4, 3, 2, seed=seed).requires_grad_() for seed in (0, 1))
    temporal_loss(predictions, z).backward()
    assert (predictions.grad.abs().sum(2) > 1e-4).all()
    assert (z.grad.abs().sum(2) > 1e-4).all()

    model = given_features()
    step_on(model).terms["temporal"].backward()
    assert (model.predictor.weight.grad.reshape(4, 8, 8).abs().sum((1, 2)) > 1e-4).all()


def test_the_position_is_drawn_from_all_that_leave_room_for_the_steps() -> None:
    """And what follows it is not seen by the context, which `position_drawn` looks at."""
    model = given_features(positions=7)
    drawn = {position_drawn(model, step_on(model).embedding) for _ in range(40)}
    assert drawn == {0, 1, 2}


def test_the_future_ends_with_the_last_step() -> None:
    model = given_features(positions=9)
    for _ in range(20):
        step = step_on(model)
        t = position_drawn(model, step.embedding)
        (gradient,) = torch.autograd.grad(step.loss, model.encoder.z)
        used = gradient.abs().sum((0, 1)).nonzero()[:, 0].tolist()
        assert used == list(range(t + 5))


def test_the_context_depends_on_every_past_position_and_its_layers_start_unlike() -> None:
    context = TransformerContext(3, context_dim=8, layers=2, heads=2, mlp_dim=4, dropout=0.0).double()
    z = normal(2, 5, 3).requires_grad_()
    c = context(z)
    assert c.shape == (2, 8)
    c.square().sum().backward()
    assert (z.grad.abs().sum(2) > 0).all()
    first, second = context.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_validation_draws_the_same_position_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = given_features(positions=40).eval()
    losses: list[float] = []
    monkeypatch.setattr(model, "_log", lambda split, step, samples: losses.append(step.loss.item()))
    for epoch in range(2):
        torch.manual_seed(100 + epoch)
        for batch_idx in range(4):
            model.validation_step(batch_of(torch.zeros(3, 12, 96)), batch_idx)
    assert losses[:4] == losses[4:]
    assert len(set(losses)) > 1


def test_step_is_finite_in_bf16_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = TSTCC(ResNet1D(12, width=2), Reversal(), steps=4, **SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = model.step(batch_of(torch.randn(4, 12, 200)))
    step.loss.backward()
    assert step.loss.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name

    predictions, z = (1000 * normal(4, 3, 2, seed=seed).bfloat16() for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = temporal_loss(predictions, z)
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(temporal_loss(predictions.double(), z.double()).item(), rel=1e-6)


def test_the_predicted_positions_lie_evenly_within_the_horizon() -> None:
    z_BDT = torch.randn(2, 3, 40, dtype=torch.float64)
    unit = (z_BDT / z_BDT.norm(dim=1, keepdim=True)).transpose(1, 2)
    for horizon, spacing in ((0.1, 1), (0.4, 4), (0.01, 1)):
        past, future = past_and_future(z_BDT, 4, horizon, gather=False)
        t = past.shape[1] - 1
        torch.testing.assert_close(past, unit[:, : t + 1])
        torch.testing.assert_close(future, unit[:, [t + spacing * k for k in (1, 2, 3, 4)]])
    seen = {past_and_future(z_BDT, 4, 0.4, gather=False)[0].shape[1] for _ in range(500)}
    assert seen == set(range(1, 25))  # every position that leaves room for 4 * 4
    # What the docstring says of 10 s at 100 and at 500 Hz.
    assert [int(0.4 * positions) // 25 for positions in (63, 313)] == [1, 5]


def test_bad_input_is_named() -> None:
    model = TSTCC(ResNet1D(12, width=1), Reversal(), steps=25, **SMALL)
    assert model.step(batch_of(torch.randn(2, 12, 16 * 26))).loss.isfinite()
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        model.step(batch_of(torch.randn(2, 12, 16 * 25)))
    assert str(error.value) == (
        "The prediction of 25 steps needs at least 26 positions, but the encoder makes 25 of these signals. "
        "Lower steps below 25 (40% of the positions is TS-TCC's best), or use longer signals."
    )
    with pytest.raises(ValueError, match=r"^steps must be at least 1, got 0\.$"):
        TSTCC(ResNet1D(12, width=1), Reversal(), steps=0)
    with pytest.raises(ValueError, match=r"^horizon must be in \(0, 1\), got 1\.0\.$"):
        TSTCC(ResNet1D(12, width=1), Reversal(), horizon=1.0)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        temporal_loss(torch.ones(4, 3, 2), torch.ones(4, 1, 2))
    assert str(error.value) == (
        "Expected predictions and features of one shape (B, K, D), got (4, 3, 2) and (4, 1, 2)."
    )


# ---- two gloo processes against one process on the joined batch


def step_of(rows: slice, seed: int) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a training step on the given rows of the global batch; the seed is that of its draws."""
    torch.manual_seed(0)
    model = TSTCC(ResNet1D(2, width=1), Reversal(), steps=3, dropout=0.0, **SMALL)
    model = convert_batchnorm(model).double()
    signal = normal(GLOBAL_BATCH, 2, 400)
    torch.manual_seed(seed)
    loss = model.step(batch_of(signal[rows])).loss
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def worker(rank: int) -> tuple[float, dict[str, Tensor]]:
    return step_of(rows_of(rank, GLOBAL_BATCH), seed=5 + rank)


def test_two_processes_give_the_loss_and_gradient_of_the_joined_batch(two_processes: Callable[..., list[Any]]) -> None:
    """Though they are seeded apart, as `SeedEachEpoch` does: the position is that of the first."""
    draws = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        draws.append(int(torch.randint(25 - 3, (1,))))
    assert draws[0] != draws[1]
    ranks = two_processes(worker)
    loss, gradients = step_of(slice(None), seed=5)
    assert np.mean([rank[0] for rank in ranks]) == pytest.approx(loss, abs=1e-10)
    for name, gradient in gradients.items():
        # The sum of the ranks' losses is differentiated; DDP divides by the world size.
        torch.testing.assert_close(sum(rank[1][name] for rank in ranks) / WORLD_SIZE, gradient, rtol=0, atol=1e-9)


# ---- through the command line, on the SYNTHETIC set


@pytest.mark.slow
def test_the_shipped_configuration_trains_and_an_interrupted_run_resumes_to_the_same_end(
    command_line: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(runs: str) -> Any:
        return main(command_line("fit", tmp_path / runs, method="ts_tcc"))

    training_step = TSTCC.training_step

    def stop_in_second_epoch(self: TSTCC, batch: ECGBatch, batch_idx: int) -> Tensor:
        if self.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("power cut")
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TSTCC, "training_step", stop_in_second_epoch)
        with pytest.raises(RuntimeError, match="power cut"):
            fit("interrupted")
    resumed, whole = fit("interrupted"), fit("whole")
    assert type(whole.model) is TSTCC
    assert whole.run_dir == tmp_path / "whole" / "ecg_text" / "ptbxl_synthetic" / "ts_tcc" / "seed_0"

    states = [
        torch.load(cli.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for cli in (resumed, whole)
    ]
    for key, value in states[1].items():
        torch.testing.assert_close(states[0][key], value, rtol=0, atol=1e-6, msg=key)
    metrics = [pd.read_csv(cli.run_dir / "metrics.csv") for cli in (resumed, whole)]
    for column in ("train/loss", "val/loss", "train/temporal", "train/contextual", "val/contextual"):
        values = [table[column].dropna().tolist() for table in metrics]
        assert len(values[1]) == 2
        assert all(map(math.isfinite, values[1]))
        assert values[0] == pytest.approx(values[1], abs=1e-5), column
