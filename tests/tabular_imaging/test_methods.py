"""SCARF and the supervised baseline: their losses, transcribed, and their checkpoints."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import Tensor, nn

from shared.augment import Views
from shared.checkpoint import load_module
from shared.methods import Step, Supervised
from tabular_imaging import SCARF, DVMCarDataModule, ImageTableBatch, TabularEncoder
from tabular_imaging.cli import main
from tabular_imaging.data.columns import Column
from tabular_imaging.data.schema import Schema

BATCH, WIDTH = 6, 5
COLUMNS = (
    Column("length", "continuous", morphometric=True),
    Column("price", "continuous"),
    Column("fuel", "categorical", categories=("diesel", "electric", "petrol")),
)
SCHEMA = Schema(COLUMNS, target="model", classes=("a", "b", "c"))


class Encoder(nn.Module):
    """`(B, 1, 2, 2) -> (B, 5)`, in float64."""

    out_dim = WIDTH

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(4, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(self.linear(x.flatten(1).to(self.linear.weight) / 255))
        return features


class Darker(nn.Module):
    """A view that is not the image itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x // 2


def samples(target: list[int]) -> ImageTableBatch:
    draw = torch.Generator().manual_seed(1)
    table = torch.randn(len(target), 3, generator=draw, dtype=torch.float64)
    table[:, 2] = torch.arange(len(target)) % 3
    image = torch.randint(256, (len(target), 1, 2, 2), generator=draw).to(torch.uint8)
    return ImageTableBatch(image, table, torch.tensor(target), torch.arange(len(target)))


def numpy(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def linear(x: np.ndarray, layer: Any) -> np.ndarray:
    out = x @ numpy(layer.weight).T
    return out if layer.bias is None else out + numpy(layer.bias)


# ---- SCARF


def scarf(**arguments: Any) -> SCARF:
    torch.manual_seed(0)
    net = SCARF(TabularEncoder(hidden_dim=7, out_dim=WIDTH), **{"projection_dim": 4, **arguments})
    net.use_schema(SCHEMA.select("all", label_as_feature=False))
    batch = samples([0, 1, 2, 0, -1, 1])
    net.marginals = net.select(batch.table, batch.target)
    return net.double()


def scarf_loss(net: SCARF, rows: np.ndarray, corrupted: np.ndarray) -> float:
    """Algorithm 1, with the rows and the corrupted ones as one batch."""
    encoder: Any = net.encoder
    inputs = []
    for row in np.concatenate([rows, corrupted]):
        fuel = [1.0 if row[2] == code else 0.0 for code in range(3)]
        label = [1.0 if row[3] == code else 0.0 for code in range(3)] if net.label_as_feature else []
        inputs.append([row[0], row[1], *fuel, *label])
    hidden = linear(np.array(inputs), encoder.mlp[0])
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    features = linear(np.maximum(hidden, 0), encoder.mlp[3])
    z = linear(np.maximum(linear(features, net.projector[0]), 0), net.projector[2])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    count, total = len(rows), 0.0
    for i in range(count):
        likeness = [math.exp(float(z[i] @ z[count + k]) / net.temperature) for k in range(count)]
        total -= math.log(likeness[i] / sum(likeness))
    return total / count


@pytest.mark.parametrize("label_as_feature", [False, True], ids=["plain", "laaf"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_scarfs_loss_is_algorithm_1(temperature: float, label_as_feature: bool) -> None:
    net = scarf(corruption_rate=0.6, temperature=temperature, label_as_feature=label_as_feature)
    batch = samples([0, 1, 2, 0, -1, 1])
    torch.manual_seed(5)
    step = net.step(batch)
    torch.manual_seed(5)
    rows, corrupted = net.input_of(batch), net.corrupted(batch)
    assert (rows != corrupted).sum(1).max() == (2 if label_as_feature else 1)  # int(0.6 M) fields, some by themselves
    assert step.loss.item() == pytest.approx(scarf_loss(net, numpy(rows), numpy(corrupted)), rel=1e-9)
    assert step.embedding.shape == (BATCH, 4)


def test_scarfs_input_is_the_table_and_its_encoder_needs_no_image() -> None:
    net = scarf(label_as_feature=True, fields="morphometric")
    batch = samples([0, 1, 2, 0, -1, 1])
    expected = torch.stack([batch.table[:, 0], batch.target.double()], dim=1)
    assert torch.equal(net.input_of(batch), expected)
    with torch.no_grad():
        columns = net.eval().predict_step(batch, 0)
    np.testing.assert_array_equal(columns["row"], np.arange(BATCH))
    np.testing.assert_allclose(columns["embedding"], numpy(net(expected)), rtol=1e-6)
    assert net.encoder is net.table_encoder
    without = batch._replace(image=torch.empty(0))
    torch.manual_seed(0)
    loss = net.train().step(batch).loss
    torch.manual_seed(0)
    assert net.step(without).loss == loss


def test_scarfs_head_has_no_batch_norm() -> None:
    assert [type(layer) for layer in scarf().projector] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [layer.weight.shape for layer in scarf().projector if isinstance(layer, nn.Linear)] == [(5, 5), (4, 5)]


# ---- the supervised baseline


def supervised(classes: list[str] | None = None, norm: bool = False) -> Supervised:
    torch.manual_seed(0)
    net = Supervised(Encoder(norm), Views(Darker(), count=1))
    net.use_classes(classes or ["a", "b", "c"])
    return net.double()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_loss_is_the_cross_entropy_of_one_view_or_in_validation_of_the_image(training: bool) -> None:
    net: Any = supervised().train(training)
    target = [0, 1, 2, 0, 1, 2]
    batch = samples(target)
    image = numpy(batch.image).reshape(BATCH, -1)
    view = image // 2 if training else image
    logits = linear(linear(view / 255, net.encoder.linear), net.head)
    losses = [
        -math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
        for row, label in zip(logits, target, strict=True)
    ]
    step = net.step(batch)
    assert step.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    np.testing.assert_allclose(numpy(step.embedding), logits)
    np.testing.assert_allclose(numpy(net.scores(net.encoder(batch.image // 2 if training else batch.image))), logits)


def test_the_classifier_is_kept_where_the_classes_are_the_same() -> None:
    net = supervised()
    head = net.head
    net.use_classes(["a", "b", "c"])
    assert net.head is head
    net.use_classes(["a", "b", "d"])  # as many, but others
    assert net.head is not head
    assert net.head.weight.shape == (3, WIDTH)


def test_the_classes_are_in_the_checkpoint() -> None:
    net, content = supervised(["z", "y"]), dict[str, Any]()
    net.on_save_checkpoint(content)
    fresh = Supervised(Encoder(), Views(Darker(), count=1))
    assert fresh.head.weight.shape == (0, WIDTH)
    fresh.on_load_checkpoint(content)
    assert fresh.classes == ["z", "y"]
    fresh.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    ("make", "needed"), [(scarf, "one of tabular_imaging's data modules"), (supervised, "a data module with classes")]
)
def test_a_data_module_that_does_not_fit_is_refused(make: Callable[[], Any], needed: str) -> None:
    net = make()
    net._trainer = SimpleNamespace(datamodule=object())
    with pytest.raises(TypeError, match=rf"^{type(net).__name__} needs {needed}, got object$"):
        net.setup("fit")


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_the_supervised_model_sees_labelled_samples_alone_and_logs_the_datas_metric(
    metric: str, command_line: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(self: DVMCarDataModule, split: str, purpose: str) -> np.ndarray:
        """Every third training sample has a label, say; the others are there to pre-train on."""
        found = np.flatnonzero(self.split == split)
        return found[::3] if split == "train" and purpose == "evaluate" else found

    seen: list[int] = []
    step = Supervised.step

    def watched(self: Supervised, batch: ImageTableBatch) -> Step:
        seen.extend(batch.row.tolist() if self.training else [])
        return step(self, batch)

    monkeypatch.setattr(DVMCarDataModule, "rows", rows)
    monkeypatch.setattr(Supervised, "step", watched)
    monitored = ["--checkpoint.monitor", f"val/{metric}", "--trainer.callbacks", "null"]
    more = ["--data.init_args.metric", metric, "--trainer.max_epochs", "1", *monitored]
    cli = main(command_line("fit", tmp_path, *more, method="supervised"))
    data: Any = cli.datamodule
    assert set(seen) <= set(data.rows("train", "evaluate").tolist())
    assert len(seen) == len(set(seen)) == 16  # of about 20 a whole batch

    val = data.rows("val", "evaluate")
    with torch.no_grad():
        (batch,) = data.batches(val, len(val))
        net: Any = cli.model.eval()
        probability = net.scores(net.encoder(batch.image)).softmax(1).numpy()
    target = data.target[val]
    expected = {
        "accuracy": accuracy_score(target, probability.argmax(1)),
        "auroc": roc_auc_score(target, probability, multi_class="ovr"),
    }
    logged = pd.read_csv(cli.run_dir / "metrics.csv")[f"val/{metric}"].dropna()
    assert logged.tolist() == [pytest.approx(expected[metric], abs=1e-6)]


# ---- both through the command line


@pytest.mark.parametrize("method", ["scarf", "supervised"])
def test_a_checkpoint_rebuilds_the_method_alone_with_equal_outputs(
    method: str, command_line: Callable[..., list[str]], tmp_path: Path
) -> None:
    cli = main(command_line("fit", tmp_path, "--trainer.max_epochs", "1", method=method))
    trained, data = cli.model.eval(), cli.datamodule
    net: Any = load_module(cli.run_dir / "checkpoints" / "last.ckpt", type(trained))
    batch = next(data.batches(data.rows("test", "evaluate"), 8))
    if method == "scarf":
        net.use_schema(data.schema)
        assert net.schema == data.schema
    else:
        assert net.classes == data.classes
        assert net.head.out_features == 4
    with torch.no_grad():
        features = net(net.input_of(batch))
        assert torch.equal(features, trained(trained.input_of(batch)))
        if method == "supervised":
            assert torch.equal(net.scores(features), trained.head(features))
