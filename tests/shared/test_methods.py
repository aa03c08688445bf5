"""SimCLR, BYOL, SimSiam and Barlow Twins over a tiny encoder, and what all self-supervised methods share."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from ecg_text.methods import ASTCL, CLOCS, CPC, TSTCC
from shared.augment import TwoViews
from shared.backbones.heads import mlp, projector
from shared.callbacks import SeedEachEpoch
from shared.checkpoint import read_checkpoint
from shared.distributed import convert_batchnorm
from shared.methods import BYOL, BarlowTwins, Pretraining, SimCLR, SimSiam, Supervised, feature_std
from shared.methods.byol import target_momentum
from tabular_imaging import SCARF
from tests.processes import WORLD_SIZE, rows_of

GLOBAL_BATCH, WIDTH = 8, 6
SMALL: dict[type[Pretraining], dict[str, Any]] = {
    SimCLR: {"projection_dim": 5},
    BYOL: {"projection_dim": 5, "hidden_dim": 7},
    SimSiam: {"projection_dim": 5, "predictor_hidden_dim": 4},
    BarlowTwins: {"projection_dim": 5},
}
METHODS = list(SMALL)
TITLES: dict[type[Pretraining], str] = {
    SimCLR: "SimCLR",
    BYOL: "BYOL",
    SimSiam: "SimSiam",
    BarlowTwins: "Barlow Twins",
    ASTCL: "ASTCL",
    CLOCS: "CLOCS",
    CPC: "CPC",
    TSTCC: "TS-TCC",
    SCARF: "SCARF",
    Supervised: "Supervised",
}


class Encoder(nn.Sequential):
    """`(B, 4) -> (B, 6)`, with a batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
        self.out_dim = WIDTH


class Constant(nn.Module):
    """An encoder that has collapsed."""

    out_dim = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), -1)


class Noise(nn.Module):
    """A random view."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn_like(x)


class Shift(nn.Module):
    """A view that is the same whichever process makes it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.sin(5 * x)


def make(cls: type[Pretraining], views: nn.Module | None = None, **arguments: Any) -> Pretraining:
    torch.manual_seed(0)
    arguments = {"encoder": Encoder(), **SMALL[cls], **arguments}
    return cls(views=views or TwoViews(nn.Identity(), Shift()), **arguments)


def inputs(samples: int = GLOBAL_BATCH) -> Tensor:
    """The halves have other means: batch norm or a loss over one of them alone would give another answer."""
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[samples // 2 :] += 2
    return x


def trainer(folder: Path, epochs: int = 1, **arguments: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    arguments = {"enable_checkpointing": False, "num_sanity_val_steps": 0, **arguments}
    return pl.Trainer(max_epochs=epochs, default_root_dir=str(folder), **quiet, **arguments)


def loader(samples: int = 24, batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(inputs(samples).float()), batch_size=batch_size)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# ---- the losses of whole methods, once more, in NumPy float64 with loops


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def simclr_oracle(net: Any, x1: Tensor, x2: Tensor) -> float:
    z = numpy(net.projector(net.encoder(torch.cat([x1, x2]))))
    half, total = len(x1), 0.0
    for i in range(2 * half):
        others = sum(math.exp(cosine(z[i], z[k]) / net.temperature) for k in range(2 * half) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[(i + half) % (2 * half)]) / net.temperature) / others)
    return total / (2 * half)


def byol_oracle(net: Any, x1: Tensor, x2: Tensor) -> float:
    """Eq. 2 and its mirror image, as squared distances of unit vectors."""
    total = 0.0
    for online, other in ((x1, x2), (x2, x1)):
        q = numpy(net.predictor(net.projector(net.encoder(online))))
        z = numpy(net.target(other))
        for a, b in zip(q, z, strict=True):
            total += float(((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2).sum())
    return total / len(x1)


def simsiam_oracle(net: Any, x1: Tensor, x2: Tensor, fixed: tuple[np.ndarray, np.ndarray] | None = None) -> float:
    """Algorithm 1; `fixed` are the projections z1 and z2 of other weights, which a stop-gradient holds still."""
    z = [net.projector(net.encoder(x)) for x in (x1, x2)]
    p = [numpy(net.predictor(value)) for value in z]
    z1, z2 = fixed or (numpy(z[0]), numpy(z[1]))
    terms = [-(cosine(p[0][b], z2[b]) + cosine(p[1][b], z1[b])) / 2 for b in range(len(x1))]
    return sum(terms) / len(terms)


def barlow_oracle(net: Any, x1: Tensor, x2: Tensor) -> float:
    z1, z2 = (numpy(net.projector(net.encoder(x))) for x in (x1, x2))
    z1, z2 = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (z1, z2))
    total = 0.0
    for i in range(z1.shape[1]):
        for j in range(z1.shape[1]):
            c = float(z1[:, i] @ z2[:, j]) / len(z1)
            total += (1 - c) ** 2 if i == j else net.lambda_ * c**2
    return total


ORACLES: dict[type[Pretraining], Callable[..., float]] = {
    SimCLR: simclr_oracle,
    BYOL: byol_oracle,
    SimSiam: simsiam_oracle,
    BarlowTwins: barlow_oracle,
}


def numpy(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("cls", METHODS)
def test_the_loss_is_the_papers_and_the_embedding_the_first_views_projection(
    cls: type[Pretraining], training: bool
) -> None:
    net: Any = make(cls).double().train(training)
    if cls is BYOL:
        net.target[0][0].weight.data.mul_(-1)  # at first the target is the online network
    x = inputs()
    step = net.step((x, "other fields"))
    assert step.loss.item() == pytest.approx(ORACLES[cls](net, *net.views(x)), rel=1e-9)
    x1, x2 = net.views(x)
    seen = torch.cat([x1, x2]) if cls is SimCLR else x1  # its batch norms see both views as one batch
    torch.testing.assert_close(step.embedding, net.projector(net.encoder(seen))[: len(x)])


@pytest.mark.parametrize("cls", METHODS)
def test_every_trained_parameter_gets_a_finite_gradient_in_bf16_autocast(cls: type[Pretraining]) -> None:
    net = make(cls)
    with torch.autocast("cpu", torch.bfloat16):
        step = net.step((inputs().float(),))
    assert step.loss.dtype == torch.float32
    step.loss.backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def layers(head: nn.Module) -> list[tuple[Any, ...]]:
    """Linear layers as (in, out), batch norms as (width, affine)."""
    found: list[tuple[Any, ...]] = []
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            found.append(("linear", layer.in_features, layer.out_features))
        elif isinstance(layer, nn.BatchNorm1d):
            found.append(("norm", layer.num_features, layer.affine))
        elif isinstance(layer, nn.ReLU):
            found.append(("relu",))
    return found


def hidden(in_dim: int, out_dim: int) -> list[tuple[Any, ...]]:
    return [("linear", in_dim, out_dim), ("norm", out_dim, True), ("relu",)]


def test_heads_have_the_papers_layers() -> None:
    with torch.device("meta"):
        views = TwoViews(nn.Identity())
        simclr, byol, simsiam, barlow = (cls(Encoder(), views) for cls in (SimCLR, BYOL, SimSiam, BarlowTwins))
    assert layers(simclr.projector) == [*hidden(6, 6), ("linear", 6, 128)]
    assert layers(byol.projector) == [*hidden(6, 4096), ("linear", 4096, 256)]
    assert layers(byol.predictor) == [*hidden(256, 4096), ("linear", 4096, 256)]
    output = [("linear", 2048, 2048), ("norm", 2048, False)]
    assert layers(simsiam.projector) == [*hidden(6, 2048), *hidden(2048, 2048), *output]
    assert layers(simsiam.predictor) == [*hidden(2048, 512), ("linear", 512, 2048)]
    assert layers(barlow.projector) == [*hidden(6, 8192), *hidden(8192, 8192), ("linear", 8192, 8192)]


def test_the_projector_of_earlier_checkpoints_keeps_its_keys_and_its_initial_draws() -> None:
    torch.manual_seed(0)
    earlier = nn.Sequential(nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    torch.manual_seed(0)
    now = projector(8, 4, "mlp", hidden_dim=6).state_dict()
    assert list(now) == list(earlier.state_dict())
    assert all(torch.equal(now[name], value) for name, value in earlier.state_dict().items())


def test_a_head_without_two_widths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^dims must hold at least an input and an output width, got \[8\]$"):
        mlp([8])


# ---- SimSiam's stop-gradient


def test_simsiams_gradient_is_that_with_the_projections_held_still() -> None:
    net: Any = make(SimSiam).double()
    x1, x2 = net.views(inputs())
    net.step((inputs(),)).loss.backward()
    weight = net.encoder[0].weight
    fixed = tuple(numpy(net.projector(net.encoder(x))).copy() for x in (x1, x2))
    stopped, flowing, step = np.empty((WIDTH, 4)), np.empty((WIDTH, 4)), 1e-6
    for index in np.ndindex(WIDTH, 4):
        value = weight.data[index].item()
        for result, held in ((stopped, fixed), (flowing, None)):
            weight.data[index] = value + step
            above = simsiam_oracle(net, x1, x2, held)
            weight.data[index] = value - step
            result[index] = (above - simsiam_oracle(net, x1, x2, held)) / (2 * step)
            weight.data[index] = value
    np.testing.assert_allclose(weight.grad.numpy(), stopped, rtol=0, atol=1e-7)
    assert np.abs(stopped - flowing).max() > 1e-3  # without the stop-gradient it would be another


# ---- BYOL's target


@pytest.mark.parametrize("tau_base", [0.996, 0.5])
def test_the_targets_momentum_rises_on_the_papers_cosine(tau_base: float) -> None:
    for k in range(11):
        expected = 1 - (1 - tau_base) * (math.cos(math.pi * k / 10) + 1) / 2
        assert target_momentum(k, 10, tau_base) == pytest.approx(expected, abs=1e-15)
    assert target_momentum(0, 10, tau_base) == pytest.approx(tau_base)
    assert target_momentum(10, 10, tau_base) == 1


def test_byols_target_starts_as_a_copy_and_shares_nothing() -> None:
    encoder = Encoder()
    net: Any = make(BYOL, encoder=encoder)
    assert net.encoder is encoder
    online = [*net.encoder.parameters(), *net.projector.parameters()]
    for xi, theta in zip(net.target.parameters(), online, strict=True):
        assert torch.equal(xi, theta)
        assert xi.data_ptr() != theta.data_ptr()
        assert not xi.requires_grad
    assert {name.split(".")[0] for name in net.state_dict()} == {"encoder", "projector", "predictor", "target"}


@pytest.mark.parametrize("tau_base", [-0.1, 1.1])
def test_a_momentum_that_is_no_share_is_refused(tau_base: float) -> None:
    with pytest.raises(ValueError, match=rf"^tau_base must lie in \[0, 1\], got {tau_base}$"):
        make(BYOL, tau_base=tau_base)


class Trace(pl.Callback):
    """Weights after every batch, and what the optimiser knows."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.states.append(weights(pl_module))
        self.optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.states.append(weights(pl_module))


def test_byols_target_moves_by_the_average_of_the_online_weights_once_an_optimiser_step(tmp_path: Path) -> None:
    net: Any = make(BYOL, tau_base=0.5, optimizer=lambda p: torch.optim.SGD(p, lr=0.5), lr_schedule="constant")
    trace = Trace()
    # Six batches an epoch, a step every second: K = 6 steps.
    trainer(tmp_path, 2, accumulate_grad_batches=2, callbacks=[trace]).fit(net, loader(48))
    assert trace.optimised == {id(p) for part in (net.encoder, net.projector, net.predictor) for p in part.parameters()}
    assert all(p.grad is None for p in net.target.parameters())

    names = {f"target.0.{name}": f"encoder.{name}" for name, _ in net.encoder.named_parameters()}
    names |= {f"target.1.{name}": f"projector.{name}" for name, _ in net.projector.named_parameters()}
    assert len(trace.states) == 13
    for batch, (before, after) in enumerate(zip(trace.states, trace.states[1:], strict=False)):
        k, is_step = batch // 2, batch % 2 == 1
        tau = 1 - 0.5 * (math.cos(math.pi * k / 6) + 1) / 2
        for target, online in names.items():
            if not is_step:
                assert torch.equal(after[target], before[target])
                continue
            expected = tau * before[target].double().numpy() + (1 - tau) * after[online].double().numpy()
            np.testing.assert_allclose(after[target].numpy(), expected, rtol=0, atol=1e-6)
        if is_step:
            assert not torch.equal(after["encoder.0.weight"], before["encoder.0.weight"])


def test_byols_target_uses_batch_statistics_and_keeps_running_ones_of_its_own() -> None:
    net: Any = make(BYOL, views=TwoViews(nn.Identity()))
    x = inputs().float()
    net.target[0][0].weight.data.mul_(2)  # other activations than the online network's
    net.step((x,))
    online, target = net.encoder[1], net.target[0][1]
    assert target.num_batches_tracked == online.num_batches_tracked == 2
    mean = net.target[0][0](x).mean(0)
    torch.testing.assert_close(target.running_mean, 0.1 * mean + 0.9 * 0.1 * mean)
    before = target.running_mean.clone()
    net.update_target(0.0)
    assert torch.equal(target.running_mean, before)  # weights are averaged, statistics are not
    assert torch.equal(net.target[0][0].weight, net.encoder[0].weight)


def test_a_resumed_byol_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def fit(epochs: list[int], ckpt_path: str | None = None) -> dict[str, Tensor]:
        net = make(BYOL, views=TwoViews(Noise()))
        torch.manual_seed(123 + len(epochs))  # the state of the generator must not matter
        keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        callbacks = [SeedEachEpoch(0), keep]
        run = trainer(tmp_path, 2, callbacks=callbacks, enable_checkpointing=True)
        run.fit(net, loader(), ckpt_path=ckpt_path)
        assert run.global_step == 6
        return weights(net)

    whole = fit([0, 1])
    resumed = fit([1], str(tmp_path / "epoch=0.ckpt"))
    assert max(float((whole[name] - resumed[name]).abs().max()) for name in whole) == 0.0
    first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(first["target.0.0.weight"], whole["target.0.0.weight"])


# ---- the watch for collapse


def test_feature_std_is_0_at_a_collapse_and_about_1_where_directions_fill_the_sphere() -> None:
    z = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(z).item() == pytest.approx(1, abs=0.02)
    assert feature_std(z * torch.rand(2000, 1)).item() == pytest.approx(1, abs=0.02)  # lengths do not matter
    assert feature_std(torch.ones(8, 4) * torch.arange(1, 9)[:, None]).item() == pytest.approx(0, abs=1e-6)
    unit = z.double().numpy() / np.linalg.norm(z.double().numpy(), axis=1, keepdims=True)
    assert feature_std(z).item() == pytest.approx(unit.std(0).mean() * 8, abs=1e-5)


@pytest.mark.parametrize("cls", METHODS)
@pytest.mark.parametrize("collapsed", [True, False], ids=["collapsed", "healthy"])
def test_a_collapse_is_warned_of_in_training_and_nothing_else_is(
    cls: type[Pretraining], collapsed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Batch norm's statistics of one point are not zero in floating point, so the projector must not have any.
    net: Any = make(cls, encoder=Constant() if collapsed else Encoder(), views=TwoViews(Noise()))
    net.projector = nn.Linear(WIDTH, 5)
    if cls is BYOL:
        net.target[1] = nn.Linear(WIDTH, 5).requires_grad_(False)
    run = trainer(tmp_path, 2)
    with caplog.at_level(logging.WARNING, logger="shared.methods"):
        run.fit(net, loader(), loader())
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("shared.methods")]
    value = float(run.callback_metrics["train/feature_std"])
    if not collapsed:
        assert value > 0.3
        assert messages == []
        return
    assert value < 1e-6
    assert messages == [
        f"epoch {epoch}: the embeddings have collapsed (train/feature_std 0.000; 1 is healthy, 0 is one point). "
        "Lower the learning rate, or enlarge the batch"
        for epoch in (0, 1)
    ]


# ---- names


@pytest.mark.parametrize(("cls", "title"), TITLES.items())
def test_tables_call_a_method_by_its_title_whatever_its_settings(cls: type[Pretraining], title: str) -> None:
    assert cls.title == cls.variant_title({"projection_dim": 5}) == title


# ---- the training loop


@pytest.mark.parametrize("cls", METHODS)
def test_a_method_trains_and_its_checkpoint_brings_the_weights_back(cls: type[Pretraining], tmp_path: Path) -> None:
    net = make(cls, views=TwoViews(Noise()))
    before = weights(net)
    run = trainer(tmp_path, 2)
    run.fit(net, loader(), loader(9))  # the last validation batch holds a single sample
    assert {"train/loss", "train/feature_std", "val/loss", "val/feature_std"} <= run.callback_metrics.keys()
    assert all(torch.isfinite(value) for value in run.callback_metrics.values())
    assert run.lr_scheduler_configs[0].scheduler.get_last_lr() == [pytest.approx(0, abs=1e-12)]
    assert not torch.equal(before["encoder.0.weight"], net.encoder[0].weight)

    run.save_checkpoint(tmp_path / "model.ckpt")
    content = read_checkpoint(tmp_path / "model.ckpt")  # weights and plain values only
    assert SMALL[cls].items() <= content["hyper_parameters"].items()
    assert "encoder" not in content["hyper_parameters"]
    again = make(cls, encoder=Encoder())
    again.load_state_dict(content["state_dict"])
    net.eval(), again.eval()
    x = inputs().float()
    assert torch.equal(again(x), net.encoder(x))
    with torch.no_grad():
        columns = again.predict_step((x,), 0)
    np.testing.assert_array_equal(np.stack(columns["embedding"]), numpy(net.encoder(x)))


@pytest.mark.parametrize("cls", METHODS)
def test_validation_draws_the_same_in_every_epoch_and_leaves_the_trainings_draws_alone(
    cls: type[Pretraining], tmp_path: Path
) -> None:
    class Draws(pl.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.undisturbed: list[bool] = []

        def on_validation_batch_start(self, *_: Any) -> None:
            self.before = torch.get_rng_state()

        def on_validation_batch_end(self, *_: Any) -> None:
            self.undisturbed.append(torch.equal(self.before, torch.get_rng_state()))

        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.losses.append(float(trainer.callback_metrics["val/loss"]))

    draws = Draws()
    net: Any = make(cls, views=TwoViews(Noise()), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 0.0  # so that nothing but the draws could change the validation loss
    trainer(tmp_path, 3, callbacks=[SeedEachEpoch(0), draws]).fit(net, loader(), loader(16))
    assert len(draws.losses) == 3
    assert len(set(draws.losses)) == 1
    assert draws.undisturbed == [True] * 6
    # Other batches have other draws: the same samples twice do not give the same loss twice.
    same = DataLoader(TensorDataset(inputs(8).float().repeat(2, 1)), batch_size=8)
    losses = []
    net._log = lambda split, step, samples: losses.append(step.loss.item())
    with torch.no_grad():
        for number, batch in enumerate(same):
            net.eval().validation_step(batch, number)
    assert losses[0] != losses[1]


# ---- two gloo processes against one process on the joined batch


class Stepper(nn.Module):
    """What DDP wraps: Lightning too sends `training_step` through the wrapper's forward."""

    def __init__(self, method: Pretraining) -> None:
        super().__init__()
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        return self.method.step((x,)).loss


def optimise(method: Pretraining, wrapped: nn.Module, x: Tensor) -> list[float]:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = wrapped(x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if isinstance(method, BYOL):
            method.update_target(0.9)
    method.eval()
    with torch.no_grad():
        losses.append(method.step((x,)).loss.item())
    return losses


def worker(rank: int) -> dict[str, Any]:
    results = {}
    for cls in METHODS:
        method = make(cls).double()
        method.configure_model()  # the conversion of the batch norms, as Lightning calls it
        losses = optimise(method, DistributedDataParallel(Stepper(method)), inputs()[rows_of(rank, GLOBAL_BATCH)])
        results[cls.__name__] = (losses, method.state_dict())
    return results


@pytest.fixture(scope="module")
def ranks(two_processes: Callable[..., list[Any]]) -> list[Any]:
    """What each of two processes computed, with every method."""
    return two_processes(worker)


@pytest.mark.parametrize("cls", METHODS)
def test_two_processes_step_as_one_does_on_the_joined_batch(cls: type[Pretraining], ranks: list[Any]) -> None:
    one = make(cls).double()
    losses = optimise(one, Stepper(one), inputs())
    found = [rank[cls.__name__] for rank in ranks]
    # Training losses are of the joined batch; in eval mode each process sees its own samples alone.
    np.testing.assert_allclose(np.mean([values[:2] for values, _ in found], axis=0), losses[:2], rtol=0, atol=1e-9)
    halves = [one.step((half,)).loss.item() for half in inputs().chunk(WORLD_SIZE)]
    assert [values[2] for values, _ in found] == pytest.approx(halves, abs=1e-9)
    for _, state in found:
        assert list(state) == list(one.state_dict())
        for name, value in one.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-9, msg=name)


def test_one_process_keeps_torchs_own_batch_norm() -> None:
    net = make(SimCLR)
    net.configure_model()
    assert type(net.encoder[1]) is nn.BatchNorm1d
    assert type(convert_batchnorm(net).encoder[1]) is not nn.BatchNorm1d
