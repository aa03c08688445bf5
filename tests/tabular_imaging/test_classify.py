"""Linear and fine-tuned classifiers of a small trained model: what they see, what they change, what they are called."""

import dataclasses
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.data.problems import DataError
from shared.methods import Pretraining, Supervised
from shared.probe import Features, linear_probe
from shared.runs.variant import Variant
from tabular_imaging import MMCL
from tabular_imaging.cli import main
from tabular_imaging.data.module import TabularImagingDataModule
from tabular_imaging.evaluation.classifiers import (
    Evaluator,
    Settings,
    TableInput,
    encoder_for,
    load_data_module,
    load_model,
    own_head,
)
from tabular_imaging.methods import SCARF

SMALL = Settings(probe_seeds=1, lrs=(1e-2,), weight_decays=(0.0,), probe_epochs=3, batch_size=16)


@pytest.fixture(scope="module")
def data(trained: Path) -> TabularImagingDataModule:
    return load_data_module(Variant(trained).config["data"])


@pytest.fixture
def model(trained: Path, data: TabularImagingDataModule) -> MMCL:
    loaded = load_model(trained / "seed_0" / "checkpoints" / "best.ckpt")
    assert isinstance(loaded, MMCL)
    loaded.use_schema(data.schema)
    return loaded


def settings(**changes: Any) -> Settings:
    return dataclasses.replace(SMALL, **changes)


def test_classifying_changes_neither_weights_nor_batch_norm_statistics(
    model: MMCL, data: TabularImagingDataModule
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any("running_mean" in name and value.abs().sum() > 0 for name, value in before.items())
    evaluator = Evaluator(data, settings(trainable_epochs=1))
    for kind in ("image", "table"):
        encoder = encoder_for(model, kind)
        assert encoder is not None
        encoder.train()  # as a model that was just trained would come
        evaluator.classify(encoder, kind, None, [0])
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)
    assert not model.encoder.training


def test_budgets_are_nested_shares_and_exact_counts_of_the_training_labels(data: TabularImagingDataModule) -> None:
    evaluator = Evaluator(data, settings(fractions=(0.5, 0.1), per_class=(3, 1)))
    rows = {budget.name: set(budget.rows.tolist()) for budget in evaluator.budgets}
    assert list(rows) == ["", "50pct", "10pct", "3_per_class", "1_per_class"]
    assert rows[""] == set(data.rows("train", "evaluate").tolist())
    assert rows["10pct"] < rows["50pct"] < rows[""]
    assert rows["1_per_class"] < rows["3_per_class"] < rows[""]
    classes = range(len(data.classes))
    counts = {name: [int((data.target[list(chosen)] == c).sum()) for c in classes] for name, chosen in rows.items()}
    assert counts["3_per_class"] == [3] * len(data.classes)
    assert counts["1_per_class"] == [1] * len(data.classes)
    for half, whole in zip(counts["50pct"], counts[""], strict=True):
        assert abs(half - whole / 2) < 1
    assert min(counts["10pct"]) >= 1
    titles = ["", "50% of the labels", "10% of the labels", "3 labels a class", "1 label a class"]
    assert [budget.title for budget in evaluator.budgets] == titles


def test_protocols_say_what_is_trained_on_how_many_labels_and_of_what_input(
    model: MMCL, data: TabularImagingDataModule
) -> None:
    few = {"fractions": (0.1,), "per_class": (2,)}
    evaluator = Evaluator(data, settings(trainable_epochs=1, probe_epochs=1, **few))
    image = evaluator.protocols(["image"])
    names = ["_".join(filter(None, part)) for part in product(("frozen", "trainable"), ("", "10pct", "2_per_class"))]
    assert set(image) == set(names) == set(evaluator.classify(model.encoder, "image", None, [0]).scores)
    assert {name for name, protocol in image.items() if protocol.trainable} == {
        name for name in names if name[0] == "t"
    }
    labels = {budget.name: len(budget.rows) for budget in evaluator.budgets}
    assert labels["2_per_class"] == 2 * len(data.classes)
    for name, protocol in image.items():
        budget = name.partition("_")[2]
        assert (protocol.labels, protocol.few, protocol.metric) == (labels[budget], budget != "", "accuracy")
    assert image["frozen"].title == "frozen"
    assert image["trainable_10pct"].title == "fine-tuned, 10% of the labels"
    both = Evaluator(data, settings(per_class=(2,))).protocols(["image", "table"])
    assert list(both) == ["frozen", "frozen_2_per_class", "frozen_table", "frozen_2_per_class_table"]
    assert both["frozen_2_per_class_table"].title == "frozen, 2 labels a class (table)"
    assert both["frozen_2_per_class_table"].input == "table"
    assert both["frozen_2_per_class_table"].labels == 2 * len(data.classes)
    table = Evaluator(data, settings(probe_epochs=1)).classify(TableInput(model), "table", None, [0])
    assert list(table.scores) == ["frozen_table"]
    alone = Evaluator(data, settings(trainable_epochs=1, trainable_low_data=False, **few)).protocols(["image"])
    assert list(alone) == ["frozen", "trainable", "frozen_10pct", "frozen_2_per_class"]


def test_scores_are_log_probabilities_of_each_classifier_on_validation_and_test(
    model: MMCL, data: TabularImagingDataModule
) -> None:
    found = Evaluator(data, settings(trainable_epochs=1)).classify(model.encoder, "image", None, [4, 5])
    for val, test in found.scores.values():
        assert val.shape == (2, len(data.rows("val", "evaluate")), len(data.classes))
        assert test.shape == (2, len(data.rows("test", "evaluate")), len(data.classes))
        np.testing.assert_allclose(np.exp(test).sum(2), 1, atol=1e-6)
        assert not np.allclose(test[0], test[1])  # other seeds, other classifiers


def test_a_budgets_classifier_has_seen_its_own_rows_and_no_others(model: MMCL, data: TabularImagingDataModule) -> None:
    evaluator = Evaluator(data, settings(per_class=(2,)))
    found = evaluator.classify(model.encoder, "image", None, [7])
    images = {split: torch.from_numpy(data.cached(rows)) for split, rows in evaluator.rows.items()}
    targets = {split: torch.eye(len(data.classes))[data.target[rows]] for split, rows in evaluator.rows.items()}
    with torch.no_grad():
        features = {split: Features(model.encoder(images[split]), targets[split]) for split in images}
    few = [row in set(evaluator.budgets[1].rows.tolist()) for row in evaluator.rows["train"].tolist()]
    assert sum(few) == 2 * len(data.classes)
    for budget, chosen in (("", [True] * len(few)), ("_2_per_class", few)):
        expected = linear_probe(
            Features(features["train"].x[chosen], features["train"].target[chosen]),
            features["val"],
            features["test"],
            "single",
            seeds=[7],
            lrs=[1e-2],
            weight_decays=[0.0],
            epochs=3,
            batch_size=16,
            metric="accuracy",
        )
        np.testing.assert_allclose(found.scores[f"frozen{budget}"][1], expected.test_scores, atol=1e-4)
        if not budget:
            assert found.head is not None
            torch.testing.assert_close(found.head.weight, expected.heads[0].weight, atol=1e-4, rtol=1e-3)


class Counting(nn.Module):
    """An augmentation that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        return image


def test_fine_tuning_augments_its_training_images_and_nothing_else(model: MMCL, data: TabularImagingDataModule) -> None:
    augment = Counting()
    evaluator = Evaluator(data, settings(trainable_epochs=2))
    found = evaluator.classify(model.encoder, "image", augment, [0])
    whole_batches = len(evaluator.rows["train"]) // 16
    assert [len(seen) for seen in augment.seen] == [16] * whole_batches * 2
    train = {image.tobytes() for image in data.cached(evaluator.rows["train"])}
    halves = augment.seen[:whole_batches], augment.seen[whole_batches:]
    epochs = [{image.numpy().tobytes() for seen in half for image in seen} for half in halves]
    assert all(epoch <= train for epoch in epochs)
    assert not torch.equal(augment.seen[0], augment.seen[whole_batches])  # another order in another epoch
    assert not np.allclose(found.scores["trainable"][1], found.scores["frozen"][1], atol=1e-3)


def test_the_label_that_a_table_encoder_learned_from_is_hidden_from_the_classifier(
    command_line: Any, tmp_path: Path, data: TabularImagingDataModule
) -> None:
    main(command_line("fit", tmp_path, "--trainer.max_epochs", "1", variant="mmcl_laaf"))
    loaded = load_model(next(tmp_path.rglob("best.ckpt")))
    assert isinstance(loaded, MMCL)
    assert loaded.label_as_feature
    loaded.use_schema(data.schema)
    table = torch.from_numpy(data.table[:20])
    target = torch.from_numpy(data.target[:20])
    with torch.no_grad():
        found = TableInput(loaded)(table)
        hidden = loaded.table_encoder(torch.cat([table, torch.full((20, 1), -1.0)], 1))
        told = loaded.table_encoder(loaded.select(table, target))
    torch.testing.assert_close(found, hidden, rtol=0, atol=0)
    assert (found - told).abs().max() > 1e-3


def test_a_table_encoder_gets_the_columns_it_was_trained_on(
    command_line: Any, tmp_path: Path, data: TabularImagingDataModule
) -> None:
    main(command_line("fit", tmp_path, "--trainer.max_epochs", "1", variant="mmcl_morphometric"))
    loaded = load_model(next(tmp_path.rglob("best.ckpt")))
    assert isinstance(loaded, MMCL)
    loaded.use_schema(data.schema)
    sizes = [index for index, column in enumerate(data.schema.columns) if column.morphometric]
    assert 0 < len(sizes) < len(data.schema.columns)
    table = torch.from_numpy(data.table[:20])
    with torch.no_grad():
        torch.testing.assert_close(TableInput(loaded)(table), loaded.table_encoder(table[:, sizes]), rtol=0, atol=0)


def test_a_model_has_encoders_of_what_it_was_trained_on(model: MMCL) -> None:
    assert encoder_for(model, "image") is model.encoder
    assert isinstance(encoder_for(model, "table"), TableInput)
    scarf = SCARF.__new__(SCARF)
    nn.Module.__init__(scarf)
    assert encoder_for(scarf, "image") is None
    images_alone = cast(Pretraining, SimpleNamespace(encoder=model.encoder))
    assert encoder_for(images_alone, "table") is None
    assert encoder_for(images_alone, "image") is model.encoder


def test_a_supervised_models_own_classifier_gives_its_own_probabilities(model: MMCL) -> None:
    torch.manual_seed(0)
    supervised = Supervised(model.encoder, nn.Identity())
    supervised.use_classes(["a", "b", "c"])
    features = torch.randn(9, supervised.head.in_features)
    expected = supervised.scores(features).log_softmax(1).detach().numpy()
    np.testing.assert_allclose(own_head(supervised).scores(features), expected, atol=1e-6)


def test_data_that_cannot_be_evaluated_say_why(data: TabularImagingDataModule) -> None:
    def stub(classes: list[str], target: list[int], metric: str = "accuracy") -> TabularImagingDataModule:
        rows = {"train": [0, 1, 2], "val": [3, 4], "test": [5, 6]}
        labels = np.array(target)

        def chosen(split: str, _: str) -> np.ndarray:
            return np.array([row for row in rows[split] if labels[row] >= 0], dtype=np.int64)

        return cast(
            TabularImagingDataModule, SimpleNamespace(classes=classes, target=labels, metric=metric, rows=chosen)
        )

    with pytest.raises(DataError) as error:
        Evaluator(stub([], [-1] * 7), SMALL)
    assert str(error.value) == (
        "the data have no target column, so there is nothing to classify; train with --data.init_args.target NAME"
    )
    with pytest.raises(DataError, match=r"^the val split has no labelled sample; change the split$"):
        Evaluator(stub(["a", "b"], [0, 1, 0, -1, -1, 0, 1]), SMALL)
    with pytest.raises(
        DataError, match=r"^class b has 1 labels to train on, fewer than the 2 of --settings.per_class$"
    ):
        Evaluator(stub(["a", "b", "never trained"], [0, 1, 0, 0, 1, 0, 1]), settings(per_class=(1, 2)))
    lacks = [0, 1, 2, 0, 1, 1, 1]
    Evaluator(stub(["a", "b", "c"], lacks), SMALL)  # accuracy needs no class to be there
    with pytest.raises(DataError, match=r"^the val split has no sample of c, so there is no AUC; change the split$"):
        Evaluator(stub(["a", "b", "c"], lacks, "auroc"), SMALL)
