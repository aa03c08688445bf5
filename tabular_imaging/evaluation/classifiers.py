"""Classifiers on one encoder: linear ones on its frozen features, or ones that train the encoder too (section 4.2).

Shapes: M models, N samples, C classes, D features.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.backbones import out_dim
from shared.checkpoint import CheckpointError, load_module
from shared.data.problems import DataError
from shared.data.samplers import EpochBatchSampler
from shared.data.splits import SPLITS, Split, labels_per_class, nested_subsets
from shared.evaluation import Protocol
from shared.methods import Pretraining, Supervised
from shared.metrics import FEWEST, usable_classes
from shared.probe import Features, FineTuned, LinearHead, ProbeResult, encode, fine_tune, linear_probe
from shared.runs.variant import load_data
from tabular_imaging.data.module import ImageTableBatch, TabularImagingDataModule
from tabular_imaging.methods import SCARF
from tabular_imaging.methods.pretraining import TabularPretraining

Input = Literal["image", "table"]
METRIC_NAMES = {"accuracy": "top-1 accuracy", "auroc": "AUC"}
ValTest = tuple[NDArray[np.float64], NDArray[np.float64]]  # scores (M, N, C) of validation and test samples
# For early stopping on validation in fine-tuning (recipe): 10 epochs. Where an epoch has few steps, that is long before
# validation has stopped rising, so it waits for at least so many steps too.
PATIENCE, PATIENCE_STEPS, MIN_DELTA = 10, 300, 2e-4


@dataclass(frozen=True)
class Settings:
    """How classifiers are trained; configs/sets/<set>/evaluation.yaml holds a data set's own settings.

    Attributes:
        probe_seeds: Number of classifiers per pre-trained model if there is only one (section 4.2: five); with several
            pre-trained models each has one classifier.
        lrs: Learning rates of the linear classifier to choose from.
        weight_decays: Weight decays of the linear classifier to choose from; both are chosen on validation, together
            with the epoch.
        probe_epochs: Largest number of passes over the features for the linear classifier.
        trainable_epochs: Largest number of epochs of fine-tuning (recipe: 500, with early stopping); 0 leaves
            fine-tuning out.
        trainable_lr: Learning rate of fine-tuning (recipe: 1e-3, for cars 1e-4).
        batch_size: Batch size of the linear classifier and of fine-tuning.
        trainable_low_data: Whether to fine-tune in the low-data regimes too.
        fractions: Low-data regimes as shares of the labelled training samples, e.g. 0.1 and 0.01 (section 4.4).
        per_class: Low-data regimes as numbers of labels per class.
    """

    probe_seeds: int = 5
    lrs: tuple[float, ...] = (1e-3, 1e-2)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    probe_epochs: int = 100
    trainable_epochs: int = 0
    trainable_lr: float = 1e-3
    batch_size: int = 64
    trainable_low_data: bool = True
    fractions: tuple[float, ...] = ()
    per_class: tuple[int, ...] = ()


@dataclass(frozen=True)
class Budget:
    """The training labels that a classifier gets.

    Attributes:
        name: Part of a protocol's name; empty for all labels.
        title: Name in figures.
        rows: Rows of the training samples.
    """

    name: str
    title: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class ClassifierProtocol(Protocol):
    """What is trained, on how many labels, and for which input.

    Attributes:
        trainable: Whether the encoder is trained too; otherwise it is frozen.
        input: The input that is classified.
        labels: Number of training labels that are used.
        few: Whether these are fewer than all.
        beside: Of fine-tuning, the name of the protocol for the frozen encoder on the same labels, beside which tables
            show supervised training.
    """

    trainable: bool = False
    input: Input = "image"
    labels: int = 0
    few: bool = False
    beside: str = ""


def load_model(checkpoint: Path, weights: bool = True) -> Pretraining:
    """The model of a checkpoint, in eval mode; without `weights` it is untrained."""
    return load_module(checkpoint, Pretraining, weights=weights)  # type: ignore[type-abstract]


def load_data_module(config: dict[str, Any], options: dict[str, Any] | None = None) -> TabularImagingDataModule:
    """The data module of a `data:` block, set up; `options` replace some of its settings."""
    return load_data(TabularImagingDataModule, config, options or {})  # type: ignore[type-abstract]


class TableInput(nn.Module):
    """A model's table encoder, made to take all columns of the data's table; it adds the label's column if needed.

    Args:
        model: The model, built for the data's schema.
    """

    def __init__(self, model: TabularPretraining) -> None:
        super().__init__()
        self.encoder = model.table_encoder
        self.out_dim = model.table_encoder.out_dim
        self.columns = model.columns
        self.label_as_feature = model.label_as_feature

    def forward(self, table: Tensor) -> Tensor:
        """`(B, M) -> (B, D)`. A label that is a feature is hidden: a classifier must not see what it is to predict."""
        chosen = table[:, self.columns]
        if self.label_as_feature:
            chosen = torch.cat([chosen, torch.full_like(chosen[:, :1], -1)], dim=1)
        features: Tensor = self.encoder(chosen)
        return features


def encoder_for(model: Pretraining, kind: Input) -> nn.Module | None:
    """The part of a model that takes images or tables; None if it has no such part."""
    if kind == "table":
        return TableInput(model) if isinstance(model, TabularPretraining) else None
    return None if isinstance(model, SCARF) else model.encoder


def own_head(model: Supervised) -> LinearHead:
    """The classifier that a supervised model was trained with; its features are not standardised."""
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    width = weight.shape[1]
    return LinearHead(weight.T.contiguous(), bias, torch.zeros(width), torch.ones(width), "single")


def inputs_of(batch: ImageTableBatch, kind: Input) -> Tensor:
    """The part of a batch that the encoder of `encoder_for` takes."""
    return batch.image if kind == "image" else batch.table


@dataclass
class Classified:
    """The results of the classifiers of one encoder and one input.

    Attributes:
        scores: Scores of the validation and the test samples, by name of the protocol.
        head: The first linear classifier that was trained on all labels.
    """

    scores: dict[str, ValTest] = field(default_factory=dict)
    head: LinearHead | None = None


class Evaluator:
    """Evaluates encoders on one data set, all of them on the same samples.

    Args:
        data: The data module, set up.
        settings: How classifiers are trained.

    Raises:
        DataError: A split has no labels, or a class has too few.
    """

    def __init__(self, data: TabularImagingDataModule, settings: Settings) -> None:
        if not data.classes:
            raise DataError(
                "the data have no target column, so there is nothing to classify; train with "
                "--data.init_args.target NAME"
            )
        self.data, self.settings = data, settings
        self.rows: dict[Split, NDArray[np.int64]] = {split: data.rows(split, "evaluate") for split in SPLITS}
        for split, rows in self.rows.items():
            if not len(rows):
                raise DataError(f"the {split} split has no labelled sample; change the split")
            absent = set(range(len(data.classes))) - set(data.target[rows].tolist())
            if absent and data.metric == "auroc":
                names = ", ".join(data.classes[index] for index in sorted(absent))
                raise DataError(f"the {split} split has no sample of {names}, so there is no AUC; change the split")
        if data.metric == "auroc":
            test = self.rows["test"]
            target = np.eye(len(data.classes))[data.target[test]]
            if not usable_classes(target, data.groups[test]).any():
                raise DataError(
                    f"every class has fewer than {FEWEST} test samples of it or of the others, so its AUC has no "
                    "interval; change the split"
                )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.budgets = self._budgets()

    def _budgets(self) -> list[Budget]:
        """The budgets: all training labels, and the low-data regimes that are asked for."""
        rows, target, settings = self.rows["train"], self.data.target, self.settings
        budgets = [Budget("", "", rows)]
        if settings.fractions:
            for fraction, subset in nested_subsets(target, rows, settings.fractions).items():
                budgets.append(Budget(f"{100 * fraction:g}pct", f"{100 * fraction:g}% of the labels", subset))
        if settings.per_class:
            labels, counts = np.unique(target[rows], return_counts=True)
            if counts.min() < max(settings.per_class):  # `labels_per_class` would name the class by its number
                rarest = self.data.classes[labels[counts.argmin()]]
                raise DataError(
                    f"class {rarest} has {counts.min()} labels to train on, fewer than the "
                    f"{max(settings.per_class)} of --settings.per_class"
                )
            for count, subset in labels_per_class(target, rows, settings.per_class).items():
                budgets.append(
                    Budget(f"{count}_per_class", f"{count} label{'' if count == 1 else 's'} a class", subset)
                )
        return budgets

    def protocol(self, trainable: bool, budget: Budget, kind: Input) -> ClassifierProtocol:
        """The protocol of a budget and an input."""
        name, frozen = (
            "_".join(filter(None, [start, budget.name, "" if kind == "image" else kind]))
            for start in ("trainable" if trainable else "frozen", "frozen")
        )
        title = ", ".join(filter(None, ["fine-tuned" if trainable else "frozen", budget.title]))
        return ClassifierProtocol(
            name=name,
            title=title if kind == "image" else f"{title} ({kind})",
            metric=self.data.metric,
            trainable=trainable,
            input=kind,
            labels=len(budget.rows),
            few=bool(budget.name),
            beside=frozen if trainable else "",
        )

    def protocols(self, kinds: Sequence[Input]) -> dict[str, ClassifierProtocol]:
        """Everything that `classify` gives for these inputs, by name."""
        found = [self.protocol(trainable, budget, kind) for kind in kinds for trainable, budget in self._wanted()]
        return {protocol.name: protocol for protocol in found}

    def _wanted(self) -> Iterator[tuple[bool, Budget]]:
        """For every classifier, whether the encoder is trained too, and the budget of labels."""
        for budget in self.budgets:
            yield False, budget
            if self.settings.trainable_epochs and (not budget.name or self.settings.trainable_low_data):
                yield True, budget

    def pairs(
        self, rows: NDArray[np.int64], kind: Input, augment: nn.Module | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and one-hot targets in batches."""
        classes = len(self.data.classes)
        for batch in self.data.batches(rows, self.settings.batch_size):
            x = inputs_of(batch, kind)
            target = nn.functional.one_hot(batch.target, classes).float()
            yield (x if augment is None else augment(x.to(self.device))), target

    def classify(
        self,
        encoder: nn.Module,
        kind: Input,
        augment: nn.Module | None,
        seeds: Sequence[int],
        frozen_only: bool = False,
    ) -> Classified:
        """Train linear classifiers on a frozen encoder for every budget of labels and, if asked for, fine-tune copies.

        Args:
            encoder: Encoder for inputs of this kind.
            kind: The kind of input.
            augment: Augmentation of the inputs in fine-tuning.
            seeds: Seeds of the classifiers, one for each.
            frozen_only: Whether to leave out fine-tuning, also where the settings ask for it.
        """
        features = {split: encode(encoder, self.pairs(rows, kind), self.device) for split, rows in self.rows.items()}
        found = Classified()
        for trainable, budget in self._wanted():
            name = self.protocol(trainable, budget, kind).name
            if trainable and frozen_only:
                continue
            if trainable:
                tuned = [self._trainable(encoder, augment, kind, budget, seed) for seed in seeds]
                val, test = ([getattr(each, f"{split}_scores") for each in tuned] for split in ("val", "test"))
                found.scores[name] = np.stack(val), np.stack(test)
                continue
            linear = self._frozen(features, budget, seeds)
            found.scores[name] = linear.val_scores, linear.test_scores
            if not budget.name:
                found.head = linear.heads[0]
        return found

    def _frozen(self, features: dict[Split, Features], budget: Budget, seeds: Sequence[int]) -> ProbeResult:
        chosen = np.isin(self.rows["train"], budget.rows)
        train = Features(features["train"].x[chosen], features["train"].target[chosen])
        return linear_probe(
            train,
            features["val"],
            features["test"],
            self.data.label_mode,
            seeds=seeds,
            lrs=self.settings.lrs,
            weight_decays=self.settings.weight_decays,
            epochs=self.settings.probe_epochs,
            batch_size=self.settings.batch_size,
            metric=self.data.metric,
            device=self.device,
        )

    def _trainable(
        self, encoder: nn.Module, augment: nn.Module | None, kind: Input, budget: Budget, seed: int
    ) -> FineTuned:
        """Fine-tune a copy of the encoder on a budget's rows."""
        rows = budget.rows
        sampler = EpochBatchSampler(len(rows), min(self.settings.batch_size, len(rows)), seed=seed)

        def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            sampler.set_epoch(epoch)
            return self.pairs(rows[np.concatenate(list(sampler))], kind, augment)

        return fine_tune(
            copy.deepcopy(encoder),
            train_batches,
            lambda: self.pairs(self.rows["val"], kind),
            lambda: self.pairs(self.rows["test"], kind),
            feature_dim=out_dim(encoder),
            num_classes=len(self.data.classes),
            label_mode=self.data.label_mode,
            seed=seed,
            lr=self.settings.trainable_lr,
            epochs=self.settings.trainable_epochs,
            metric=self.data.metric,
            patience=max(PATIENCE, math.ceil(PATIENCE_STEPS / len(sampler))),
            min_delta=MIN_DELTA,
            device=self.device,
        )


def save_classifier(run: Path, kind: Input, head: LinearHead, classes: list[str]) -> None:
    """Keep a run's linear classifier as `checkpoints/classifier_<kind>.pt`."""
    torch.save({**vars(head), "classes": classes}, run / "checkpoints" / f"classifier_{kind}.pt")


def load_classifier(run: Path, kind: Input) -> tuple[LinearHead, list[str]]:
    """Read what `save_classifier` wrote.

    Raises:
        CheckpointError: The file is missing or damaged, or not a classifier.
    """
    path = run / "checkpoints" / f"classifier_{kind}.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        classes = content.pop("classes")
        return LinearHead(**content), list(classes)
    except Exception as error:  # torch raises many types for files that are not checkpoints
        raise CheckpointError(f"{path} is not a classifier ({type(error).__name__}); evaluate the run again") from error
