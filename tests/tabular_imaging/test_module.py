"""MMCL: its loss against a transcription of the equations, what it sees of the table, and its checkpoints."""

import math
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.augment import Views
from shared.checkpoint import CheckpointError, load_module
from shared.data.problems import DataError
from tabular_imaging import MMCL, SCARF, ImageTableBatch, TabularEncoder
from tabular_imaging.cli import main
from tabular_imaging.data.columns import Column
from tabular_imaging.data.schema import Schema

BATCH, WIDTH = 6, 5
COLUMNS = (
    Column("length", "continuous", morphometric=True),
    Column("price", "continuous"),
    Column("body", "categorical", categories=("suv", "van"), morphometric=True),
    Column("fuel", "categorical", categories=("diesel", "electric", "petrol")),
)
SCHEMA = Schema(COLUMNS, target="model", classes=("a", "b", "c", "d"))
LABELS = ("none", "false_negative_elimination", "supcon")


class Encoder(nn.Module):
    """`(B, 1, 2, 2) -> (B, 5)`, in float64."""

    out_dim = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.linear(x.flatten(1).to(self.linear.weight) / 255)
        return features


def make(schema: Schema = SCHEMA, **arguments: Any) -> MMCL:
    """A small MMCL in float64 whose view is the image itself and whose table stays as it is."""
    torch.manual_seed(0)
    arguments = {"projection_dim": 3, "corruption_rate": 0.0, **arguments}
    net = MMCL(Encoder(), Views(nn.Identity(), count=1), TabularEncoder(hidden_dim=7, out_dim=6), **arguments)
    net.use_schema(schema)
    batch = samples()
    net.marginals = net.select(batch.table, batch.target)
    return net.double()


def samples() -> ImageTableBatch:
    """Labels occur twice, once and not at all; one category is unknown."""
    draw = torch.Generator().manual_seed(1)
    table = torch.randn(BATCH, 4, generator=draw, dtype=torch.float64)
    table[:, 2] = torch.tensor([0, 1, 1, 0, 1, 0])
    table[:, 3] = torch.tensor([2, 0, -1, 1, 1, 0])
    image = torch.randint(256, (BATCH, 1, 2, 2), generator=draw).to(torch.uint8)
    return ImageTableBatch(image, table, torch.tensor([1, 0, 1, -1, 3, -1]), torch.arange(BATCH))


# ---- MMCL once more, in NumPy float64 with loops


def numpy(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def linear(x: np.ndarray, layer: Any) -> np.ndarray:
    product_ = x @ numpy(layer.weight).T
    return product_ if layer.bias is None else product_ + numpy(layer.bias)


def inputs_of(table: np.ndarray, columns: list[Column]) -> np.ndarray:
    rows = []
    for row in table:
        inputs: list[float] = []
        for value, column in zip(row, columns, strict=True):
            if column.kind == "continuous":
                inputs.append(value)
            else:
                inputs += [1.0 if value == code else 0.0 for code in range(len(column.categories))]
        rows.append(inputs)
    return np.array(rows)


def project(x: np.ndarray, head: Any) -> np.ndarray:
    if isinstance(head, nn.Linear):
        return linear(x, head)
    return linear(np.maximum(linear(x, head[0]), 0), head[-1])


def table_features(table: np.ndarray, columns: list[Column], encoder: Any) -> np.ndarray:
    """Linear - BatchNorm on the batch's statistics - ReLU - Linear."""
    hidden = linear(inputs_of(table, columns), encoder.mlp[0])
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    hidden = hidden * numpy(encoder.mlp[1].weight) + numpy(encoder.mlp[1].bias)
    return linear(np.maximum(hidden, 0), encoder.mlp[3])


def loss_of(z_i: np.ndarray, z_t: np.ndarray, target: list[int], net: MMCL) -> float:
    """Eqs. 1 to 3 and section 4.6."""
    count, total = len(z_i), 0.0
    unit_i, unit_t = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_i, z_t))
    similarity = np.exp(unit_i @ unit_t.T / net.temperature)
    for i in range(count):
        alike = [k for k in range(count) if k == i or (target[i] != -1 and target[k] == target[i])]
        positives = alike if net.labels == "supcon" else [i]
        left_out = set(alike) - {i} if net.labels == "false_negative_elimination" else set()
        left_out |= set() if net.positive_in_denominator else {i}
        kept = [k for k in range(count) if k not in left_out]
        for row, share in ((similarity[i], net.image_weight), (similarity[:, i], 1 - net.image_weight)):
            below = sum(row[k] for k in kept)
            total -= share * sum(math.log(row[p] / below) for p in positives) / len(positives)
    return total / count


def expected_loss(net: MMCL, batch: ImageTableBatch, fields: list[int], table: np.ndarray | None = None) -> float:
    """Of a batch whose table, with the label last under LaaF, is `table` (by default its own)."""
    columns = [COLUMNS[field] for field in fields]
    if table is None:
        table = numpy(batch.table)[:, fields]
        if net.label_as_feature:
            table = np.column_stack([table, batch.target.numpy()])
    if net.label_as_feature:
        columns.append(Column("model", "categorical", categories=SCHEMA.classes))
    image = batch.image.numpy().astype(np.float64).reshape(BATCH, -1) / 255
    z_i = project(linear(image, net.encoder.linear), net.image_projector)
    z_t = project(table_features(table, columns, net.table_encoder), net.table_projector)
    return loss_of(z_i, z_t, batch.target.tolist(), net)


@pytest.mark.parametrize("weight", [0.5, 0.2])
@pytest.mark.parametrize("label_as_feature", [False, True], ids=["plain", "laaf"])
@pytest.mark.parametrize("labels", LABELS)
def test_the_loss_is_the_papers(labels: Any, label_as_feature: bool, weight: float) -> None:
    net = make(labels=labels, label_as_feature=label_as_feature, image_weight=weight, temperature=0.3)
    step = net.step(samples())
    assert step.loss.item() == pytest.approx(expected_loss(net, samples(), [0, 1, 2, 3]), rel=1e-9)
    torch.testing.assert_close(step.embedding, net.image_projector(net.encoder(samples().image)))
    assert set(step.terms) == {"retrieval_accuracy"}


@pytest.mark.parametrize("labels", LABELS[:2])
def test_the_positive_leaves_the_denominator_as_eq_2_is_printed(labels: Any) -> None:
    net = make(labels=labels, positive_in_denominator=False)
    loss = net.step(samples()).loss.item()
    assert loss == pytest.approx(expected_loss(net, samples(), [0, 1, 2, 3]), rel=1e-9)
    assert loss != pytest.approx(make(labels=labels).step(samples()).loss.item(), rel=1e-3)


def test_each_use_of_labels_and_each_lambda_is_another_loss() -> None:
    found = {
        (labels, laaf, weight): make(labels=labels, label_as_feature=laaf, image_weight=weight)
        .step(samples())
        .loss.item()
        for labels, laaf, weight in product(LABELS, (False, True), (0.0, 0.3, 1.0))
    }
    assert len({round(value, 6) for value in found.values()}) == len(found)
    for labels, laaf in product(LABELS, (False, True)):  # Eq. 3 is linear in lambda
        mixed = 0.7 * found[labels, laaf, 0.0] + 0.3 * found[labels, laaf, 1.0]
        assert found[labels, laaf, 0.3] == pytest.approx(mixed, rel=1e-12)


def test_without_labels_every_use_of_them_is_the_plain_loss() -> None:
    batch = samples()._replace(target=torch.full((BATCH,), -1))
    losses = [make(labels=labels).step(batch).loss.item() for labels in LABELS]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)


@pytest.mark.parametrize("labels", LABELS)
def test_every_parameter_gets_a_finite_gradient_in_bf16_autocast(labels: Any) -> None:
    net = make(labels=labels, label_as_feature=True).float()
    batch = samples()
    with torch.autocast("cpu", torch.bfloat16):
        step = net.step(batch._replace(table=batch.table.float()))
    assert step.loss.dtype == torch.float32
    step.loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


# ---- the heads


def layers(head: nn.Module) -> list[Any]:
    return [
        (type(layer), *((layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else ()))
        for layer in head.modules()
        if not isinstance(layer, nn.Sequential)
    ]


def test_the_heads_are_the_papers_by_default_and_the_authors_with_a_switch() -> None:
    paper, authors = make(), make(table_projector="mlp")
    hidden = [(nn.Linear, WIDTH, WIDTH), (nn.ReLU,), (nn.Linear, WIDTH, 3)]
    assert layers(paper.image_projector) == layers(authors.image_projector) == hidden
    assert layers(paper.table_projector) == [(nn.Linear, 6, 3)]
    assert layers(authors.table_projector) == [(nn.Linear, 6, 6), (nn.ReLU,), (nn.Linear, 6, 3)]
    assert layers(make(image_projector="linear").image_projector) == [(nn.Linear, WIDTH, 3)]
    loss = authors.step(samples()).loss.item()
    assert loss == pytest.approx(expected_loss(authors, samples(), [0, 1, 2, 3]), rel=1e-9)


# ---- its name in tables


PLAIN = {"fields": "all", "labels": "none", "label_as_feature": False}


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({}, "MMCL"),
        ({"fields": "morphometric"}, "Morphometric Features"),
        ({"fields": "non_morphometric"}, "Non-Morphometric Features"),
        ({"labels": "false_negative_elimination"}, "FN Elimination"),
        ({"labels": "supcon"}, "SupCon"),
        ({"label_as_feature": True}, "LaaF"),
        ({"labels": "false_negative_elimination", "label_as_feature": True}, "FN Elimination + LaaF"),
        (
            {"fields": "morphometric", "labels": "supcon", "label_as_feature": True},
            "Morphometric Features + SupCon + LaaF",
        ),
    ],
)
def test_a_variant_is_called_what_the_papers_tables_call_it(settings: dict[str, Any], title: str) -> None:
    assert MMCL.variant_title({**PLAIN, **settings}) == title


# ---- what it sees of the table


@pytest.mark.parametrize(("fields", "seen"), [("morphometric", [0, 2]), ("non_morphometric", [1, 3])])
def test_fields_hides_the_other_columns(fields: Any, seen: list[int]) -> None:
    net = make(fields=fields)
    assert [column.name for column in net.schema.columns] == [COLUMNS[field].name for field in seen]  # type: ignore[union-attr]
    batch = samples()
    batch.table.requires_grad_()
    loss = net.step(batch).loss
    assert loss.item() == pytest.approx(expected_loss(net, batch, seen), rel=1e-9)
    loss.backward()
    gradient = batch.table.grad
    assert gradient is not None
    assert (gradient.abs().sum(0) > 0).tolist() == [field == seen[0] for field in range(4)]  # codes have no gradient
    for field in range(4):
        table = samples().table
        table[:, field] = table[:, field].roll(1)
        changed = net.step(batch._replace(table=table)).loss.item()
        assert (changed == loss.item()) == (field not in seen), field


def test_the_label_is_the_last_field_and_an_absent_one_is_all_zeros() -> None:
    net = make(label_as_feature=True)
    assert net.schema is not None
    assert net.schema.names == ("length", "price", "body", "fuel", "model")
    assert net.schema.cardinalities == (1, 1, 2, 3, 4)
    batch = samples()
    selected = net.select(batch.table, batch.target)
    torch.testing.assert_close(selected[:, :4], batch.table)
    assert selected[:, 4].tolist() == batch.target.tolist()
    last = net.table_encoder.one_hot(selected)[:, -4:]
    expected = [[float(code == label) for code in range(4)] for label in batch.target.tolist()]
    assert last.tolist() == expected
    assert last[batch.target == -1].sum() == 0
    assert net.table_encoder.one_hot.out_dim == 11


def test_the_label_stays_with_some_of_the_fields() -> None:
    net = make(label_as_feature=True, fields="morphometric")
    assert net.schema is not None
    assert net.schema.names == ("length", "body", "model")
    loss = net.step(samples()).loss.item()
    assert loss == pytest.approx(expected_loss(net, samples(), [0, 2]), rel=1e-9)


@pytest.mark.parametrize(("rate", "changed"), [(0.0, 0), (0.3, 1), (0.4, 2), (1.0, 5)])
def test_the_label_is_corrupted_like_any_field(rate: float, changed: int) -> None:
    net = make(label_as_feature=True, corruption_rate=rate)
    net.marginals = torch.full((1, 5), 77.0, dtype=torch.float64)
    torch.manual_seed(0)
    batch = samples()
    batch = ImageTableBatch(*(part.repeat_interleave(50, 0) for part in batch))
    replaced = net.corrupted(batch) == 77
    assert replaced.sum(1).tolist() == [changed] * len(batch.table)  # int(0.3 * 5) fields of each row
    assert replaced[:, 4].any() == (changed > 0)


def test_the_loss_is_of_the_corrupted_table() -> None:
    net = make(corruption_rate=1.0, label_as_feature=True)
    net.marginals = torch.tensor([[0.4, -1.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    table = np.repeat(numpy(net.marginals), BATCH, axis=0)
    assert net.step(samples()).loss.item() == pytest.approx(
        expected_loss(net, samples(), [0, 1, 2, 3], table), rel=1e-9
    )


# ---- the schema and checkpoints


def other(**change: Any) -> Schema:
    """The schema with another column `length`."""
    length = {"name": "length", "kind": "continuous", "morphometric": True, **change}
    return Schema((Column(**length), *COLUMNS[1:]), SCHEMA.target, SCHEMA.classes)


@pytest.mark.parametrize(
    ("schema", "difference"),
    [
        (other(name="width"), "length is missing, width is new"),
        (other(mean=2.0), "length differs in mean"),
        (Schema((COLUMNS[1], COLUMNS[0], *COLUMNS[2:]), "model", SCHEMA.classes), "the columns are in another order"),
        (Schema(COLUMNS, "model", ("a", "b", "c")), "classes differs"),
    ],
)
def test_data_with_another_schema_are_refused(schema: Schema, difference: str) -> None:
    net = make()
    message = (
        f"the model was trained on other fields than the data's: {difference}. Use the table it was trained on, or "
        "train again (--run.overwrite true)"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        net.use_schema(schema)
    net.use_schema(SCHEMA)  # its own is none
    content: dict[str, Any] = {}
    make(schema).on_save_checkpoint(content)
    message = (
        f"the data's fields are not those of the checkpoint: {schema.difference(SCHEMA)}. Use the table it was "
        "trained on"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        net.on_load_checkpoint(content)


def test_a_label_or_sizes_that_the_data_lack_are_named() -> None:
    with pytest.raises(DataError, match=r"^label_as_feature needs a target column$"):
        make(Schema(COLUMNS), label_as_feature=True)
    with pytest.raises(DataError, match=r"^no column of price, fuel is morphometric; name the columns of size and "):
        make(Schema((COLUMNS[1], COLUMNS[3])), fields="morphometric")


@pytest.fixture(scope="module")
def fitted(command_line: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """MMCL with all that a checkpoint must bring back, trained for an epoch by the command line."""
    more = ["--trainer.max_epochs", "1", "--model.init_args.fields", "non_morphometric"]
    runs = tmp_path_factory.mktemp("fitted")
    return main(command_line("fit", runs, *more, variant="mmcl_supcon_laaf"))


def test_a_checkpoint_rebuilds_mmcl_alone_with_equal_outputs(fitted: Any) -> None:
    path = fitted.run_dir / "checkpoints" / "best.ckpt"
    data, trained = fitted.datamodule, fitted.model.eval()
    net = load_module(path, MMCL)
    assert net.schema == trained.schema == data.schema.select("non_morphometric", label_as_feature=True)
    assert (net.labels, net.label_as_feature, net.fields) == ("supcon", True, "non_morphometric")
    batch = next(data.batches(data.rows("test", "evaluate"), 8))
    assert batch.image.dtype == torch.uint8
    with torch.no_grad():
        assert torch.equal(net(batch.image), trained(batch.image))
        net.use_schema(data.schema)  # of all columns
        assert net.columns == trained.columns
        table = net.select(batch.table, batch.target)
        assert torch.equal(net.table_encoder(table), trained.table_encoder(table))
        for name in ("image_projector", "table_projector"):
            ours, theirs = getattr(net, name).state_dict(), getattr(trained, name).state_dict()
            assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    untrained = load_module(path, MMCL, weights=False)
    assert untrained.schema == net.schema
    assert not torch.equal(untrained(batch.image), net(batch.image))


def test_a_checkpoint_of_mmcl_is_no_scarf(fitted: Any) -> None:
    path = fitted.run_dir / "checkpoints" / "best.ckpt"
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} holds a MMCL, expected a SCARF$"):
        load_module(path, SCARF)


def drop(content: dict[str, Any]) -> None:
    del content["schema"]


def rename_a_column(content: dict[str, Any]) -> None:
    content["schema"]["columns"][1]["name"] = content["schema"]["columns"][0]["name"]


def lose_a_column(content: dict[str, Any]) -> None:
    del content["schema"]["columns"][0]


def make_it_text(content: dict[str, Any]) -> None:
    content["schema"]["columns"][0]["mean"] = "0"


def empty_it(content: dict[str, Any]) -> None:
    content["schema"] = None


def add_a_key(content: dict[str, Any]) -> None:
    content["schema"]["class_path"] = "os.system"


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (drop, "KeyError: 'schema'"),
        (rename_a_column, "DataError: a schema has a column twice"),
        (lose_a_column, "size mismatch for table_encoder.mlp.0.weight"),
        (make_it_text, "DataError: schema, column 0: mean must be int | float, got '0'"),
        (empty_it, "DataError: schema: expected the keys columns, target, classes, label_as_feature; got None"),
        (add_a_key, "DataError: schema: expected the keys columns, target, classes, label_as_feature; got {"),
    ],
)
def test_a_tampered_schema_is_refused(fitted: Any, tmp_path: Path, tamper: Callable[..., None], reason: str) -> None:
    content = torch.load(fitted.run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    tamper(content)
    path = tmp_path / "tampered.ckpt"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as error:
        load_module(path, MMCL)
    assert str(error.value).startswith(f"{path} does not fit this version of MMCL (")
    assert reason in str(error.value)
