"""The paper's evaluation (section 4.2): a linear classifier on a frozen encoder, or the whole network trained on.

A protocol is named `frozen` or `trainable`, with the share or number of labels where not all are used (`frozen@10%`,
`frozen@3 a class`), and with ` (table)` where the input is the table instead of the image.

Shapes: M models, N samples, C classes, D features.
"""

import copy
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from shared.augment import ImageAugment
from shared.checkpoint import load_module
from shared.data.report import DataError
from shared.data.samplers import EpochBatchSampler
from shared.data.splits import labels_per_class, nested_subsets
from shared.methods import Pretraining
from shared.metrics import bootstrap_auroc, bootstrap_mean, interval, over_models
from shared.probe import Features, FineTuned, LinearHead, ProbeResult, class_scores, encode, fine_tune, linear_probe
from shared.runs import load_data
from shared.scores import Scores
from tabular_imaging.data import SPLITS, ImageTableBatch, Metric, Split, TabularImagingDataModule
from tabular_imaging.methods import SCARF, Supervised
from tabular_imaging.pretraining import TabularPretraining

log = logging.getLogger(__name__)

Input = Literal["image", "table"]
ValTest = tuple[NDArray[np.float64], NDArray[np.float64]]  # scores (M, N, C) of validation and test samples
RANDOM, SUPERVISED = "Random init", "Supervised"
FIRST_RANDOM_SEED = 1000  # away from the seeds that models are trained with
# Recipe, "Evaluation": fine-tuning crops less than pre-training, and augments 80% of the images.
FINE_TUNE_CROP, FINE_TUNE_PROBABILITY = (0.6, 1.0), 0.8
PATIENCE, MIN_DELTA = 10, 2e-4  # of its early stopping on validation


@dataclass(frozen=True)
class Settings:
    """How classifiers are trained.

    Attributes:
        probe_seeds: Of the classifiers of one pre-trained model (section 4.2: five). With several pre-trained models
            each has one.
        lrs: Grid of the linear classifier's learning rates.
        weight_decays: Grid of its regularisation; both are chosen on validation, with the epoch.
        probe_epochs: Passes over the features, at most.
        trainable_epochs: Passes of fine-tuning, at most (recipe: 500, with early stopping); 0 leaves it out.
        trainable_lr: Of fine-tuning (recipe: 1e-3, cars 1e-4).
        batch_size: Of fine-tuning.
        fractions: Low-data regimes as shares of the labelled training samples, e.g. 0.1 and 0.01 (section 4.4).
        per_class: Low-data regimes as numbers of labels a class.
    """

    probe_seeds: int = 5
    lrs: tuple[float, ...] = (1e-3, 1e-2)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    probe_epochs: int = 100
    trainable_epochs: int = 0
    trainable_lr: float = 1e-3
    batch_size: int = 64
    fractions: tuple[float, ...] = ()
    per_class: tuple[int, ...] = ()


@dataclass
class Evaluation:
    """What was computed on one data set.

    Attributes:
        data: The data module, set up.
        rows: Rows of the test samples.
        scores: By protocol and method.
        table: A row for each protocol and method: `value` of the data's metric with `std` over the models, its
            bootstrap interval `low` to `high`, and `gain`, its difference to the untrained encoder, paired over samples.
        groups: The metric by sex and age group, where the data have these.
        heads: By pre-training seed and input, the linear classifier on all labels.
    """

    data: TabularImagingDataModule
    rows: NDArray[np.int64]
    scores: dict[str, dict[str, Scores]]
    table: pd.DataFrame
    groups: pd.DataFrame
    heads: dict[tuple[int, Input], LinearHead | None] = field(default_factory=dict)


class TableInput(nn.Module):
    """A model's table encoder as one that takes the data's whole table and the label's column last.

    Args:
        model: Built for the data's schema.
    """

    def __init__(self, model: TabularPretraining) -> None:
        super().__init__()
        self.encoder = model.table_encoder
        self.out_dim = model.table_encoder.out_dim
        self.columns = model.columns
        self.label_as_feature = model.label_as_feature

    def forward(self, table: Tensor) -> Tensor:
        """`(B, M) -> (B, D)`. A label that is a feature is hidden: what a classifier shall find is not given to it."""
        chosen = table[:, self.columns]
        if self.label_as_feature:
            chosen = torch.cat([chosen, torch.full_like(chosen[:, :1], -1)], dim=1)
        features: Tensor = self.encoder(chosen)
        return features


def encoder_for(model: Pretraining, kind: Input) -> nn.Module | None:
    """The part of a model that takes images or tables; None where it has no such part."""
    if kind == "table":
        return TableInput(model) if isinstance(model, TabularPretraining) else None
    return None if isinstance(model, SCARF) else model.encoder


def inputs_of(batch: ImageTableBatch, kind: Input) -> Tensor:
    """What `encoder_for` takes of a batch."""
    return batch.image if kind == "image" else batch.table


def metric_samples(
    scores_MNC: NDArray[np.float64], target: NDArray[np.int64], metric: Metric, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The metric of every model on resampled samples `(R, M)`, and on the samples as they are `(M,)`."""
    if metric == "accuracy":
        means = bootstrap_mean(scores_MNC.argmax(2) == target, resamples)
        return means.samples, means.point
    areas = bootstrap_auroc(*_one_versus_rest(scores_MNC, target), resamples=resamples)
    return areas.samples, areas.point


def _one_versus_rest(
    scores_MNC: NDArray[np.float64], target: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and targets by class; of two classes the second, so that the area is that class's alone."""
    one_hot = np.eye(scores_MNC.shape[2])[target]
    return (scores_MNC[..., 1:], one_hot[:, 1:]) if one_hot.shape[1] == 2 else (scores_MNC, one_hot)


@dataclass
class Classified:
    """What classifiers of one encoder and one input found.

    Attributes:
        scores: By protocol, of the validation and the test samples.
        head: The first linear classifier on all labels.
    """

    scores: dict[str, ValTest] = field(default_factory=dict)
    head: LinearHead | None = None


class Evaluator:
    """Evaluates encoders on one data set, each on the same samples.

    Args:
        data: Set up.
        settings: How classifiers are trained.
    """

    def __init__(self, data: TabularImagingDataModule, settings: Settings) -> None:
        if not data.classes:
            raise DataError(
                "the data have no target column, so there is nothing to classify: name it with --options.target NAME"
            )
        self.data, self.settings = data, settings
        self.rows: dict[Split, NDArray[np.int64]] = {split: data.rows(split, "evaluate") for split in SPLITS}
        for split, rows in self.rows.items():
            if not len(rows):
                raise DataError(f"the {split} split has no labelled sample; change the split")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.budgets = self._budgets()

    def _budgets(self) -> dict[str, NDArray[np.int64]]:
        """Training rows by what a protocol's name says of them."""
        rows, target, settings = self.rows["train"], self.data.target, self.settings
        budgets = {"": rows}
        if settings.fractions:
            subsets = nested_subsets(target, rows, settings.fractions)
            budgets |= {f"@{100 * fraction:g}%": subset for fraction, subset in subsets.items()}
        if settings.per_class:
            counted = labels_per_class(target, rows, settings.per_class)
            budgets |= {f"@{count} a class": subset for count, subset in counted.items()}
        return budgets

    def labels(self, protocol: str) -> int:
        """How many training labels a protocol uses."""
        return len(self.budgets[re.sub(r"^(frozen|trainable)| \(table\)$", "", protocol)])

    def pairs(
        self, rows: NDArray[np.int64], kind: Input, augment: nn.Module | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and one-hot targets in batches."""
        classes = len(self.data.classes)
        for batch in self.data.batches(rows, self.settings.batch_size):
            x = inputs_of(batch, kind)
            target = nn.functional.one_hot(batch.target, classes).float()
            yield (x if augment is None else augment(x.to(self.device))), target

    def classify(self, encoder: nn.Module, kind: Input, augment: nn.Module | None, seeds: Sequence[int]) -> Classified:
        """Linear classifiers of a frozen encoder for every budget of labels; and, if asked for, copies of it trained on.

        Args:
            encoder: Of the inputs of this kind.
            kind: What is classified.
            augment: Of the inputs, in fine-tuning.
            seeds: Of the classifiers, one each.
        """
        features = {split: encode(encoder, self.pairs(rows, kind), self.device) for split, rows in self.rows.items()}
        suffix = "" if kind == "image" else f" ({kind})"
        found = Classified()
        for budget in self.budgets:
            linear = self._frozen(features, budget, seeds)
            found.scores[f"frozen{budget}{suffix}"] = linear.val_scores, linear.test_scores
            if not budget:
                found.head = linear.heads[0]
            if self.settings.trainable_epochs:
                tuned = [self._trainable(encoder, augment, kind, budget, seed) for seed in seeds]
                val, test = ([getattr(each, f"{split}_scores") for each in tuned] for split in ("val", "test"))
                found.scores[f"trainable{budget}{suffix}"] = np.stack(val), np.stack(test)
        return found

    def _frozen(self, features: dict[Split, Features], budget: str, seeds: Sequence[int]) -> ProbeResult:
        chosen = np.isin(self.rows["train"], self.budgets[budget])
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
            metric=self.data.metric,
            device=self.device,
        )

    def _trainable(
        self, encoder: nn.Module, augment: nn.Module | None, kind: Input, budget: str, seed: int
    ) -> FineTuned:
        """A copy of the encoder, trained on a budget's rows."""
        rows = self.budgets[budget]
        sampler = EpochBatchSampler(len(rows), min(self.settings.batch_size, len(rows)), seed=seed)

        def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            sampler.set_epoch(epoch)
            return self.pairs(rows[np.concatenate(list(sampler))], kind, augment)

        return fine_tune(
            copy.deepcopy(encoder),
            train_batches,
            lambda: self.pairs(self.rows["val"], kind),
            lambda: self.pairs(self.rows["test"], kind),
            feature_dim=int(encoder.out_dim),  # type: ignore[arg-type]
            num_classes=len(self.data.classes),
            label_mode=self.data.label_mode,
            seed=seed,
            lr=self.settings.trainable_lr,
            epochs=self.settings.trainable_epochs,
            metric=self.data.metric,
            patience=PATIENCE,
            min_delta=MIN_DELTA,
            device=self.device,
        )


def load_model(checkpoint: Path, weights: bool = True) -> Pretraining:
    """The model of a checkpoint, in eval mode; without its weights, one as untrained."""
    return load_module(checkpoint, Pretraining, weights=weights)  # type: ignore[type-abstract]


def load_data_module(config: dict[str, Any], options: dict[str, Any] | None = None) -> TabularImagingDataModule:
    """The data module of a `data:` block, set up, with some settings changed."""
    return load_data(TabularImagingDataModule, config, options or {})  # type: ignore[type-abstract]


def evaluate_models(
    checkpoints: dict[int, Path],
    data_config: dict[str, Any],
    options: dict[str, Any],
    method: str,
    settings: Settings,
    inputs: Sequence[Input] = ("image",),
    resamples: int = 1000,
    known: dict[str, Classified] | None = None,
) -> Evaluation:
    """Score trained encoders and untrained ones on a data set.

    Args:
        checkpoints: By seed; all of one method.
        data_config: `data:` block of the data set.
        options: Its settings to change.
        method: What the tables call the models.
        settings: How classifiers are trained.
        inputs: What is classified: images, tables, or both apart.
        resamples: Bootstrap resamples of the test samples.
        known: What was found of untrained encoders, to share between methods of one encoder; it is added to.

    Raises:
        DataError: The data have no labels in one of the splits, or the model has no part for one of the inputs.
    """
    data = load_data_module(data_config, options)
    evaluator = Evaluator(data, settings)
    known = {} if known is None else known
    scores: dict[str, dict[str, Scores]] = {}
    heads: dict[tuple[int, Input], LinearHead | None] = {}
    paths = list(checkpoints.values())
    jobs = [(RANDOM, FIRST_RANDOM_SEED + index, path) for index, path in enumerate(paths)]
    jobs += [(method, seed, path) for seed, path in checkpoints.items()]
    for name, seed, path in tqdm(jobs, desc=f"evaluate {method} on {data.name}", unit="model"):
        torch.manual_seed(seed)
        model = load_model(path, weights=name != RANDOM)
        if isinstance(model, TabularPretraining):
            model.use_schema(data.schema)
        if isinstance(model, Supervised):
            if name != RANDOM:
                _keep(scores, name, {"trainable": _own_scores(model, evaluator)})
            continue
        # One pre-trained model has several classifiers, as in the paper; several models have one each.
        classifiers = range(seed, seed + settings.probe_seeds) if len(paths) == 1 else [seed]
        for kind in inputs:
            key = _random_key(model, kind, classifiers) if name == RANDOM else ""
            if key not in known:
                encoder = encoder_for(model, kind)
                if encoder is None:
                    raise DataError(f"{method} has no encoder of the input {kind}; leave it out of --inputs")
                known[key] = evaluator.classify(encoder, kind, _fine_tune_augment(model, kind), classifiers)
            _keep(scores, name, known[key].scores)
            if name != RANDOM:
                heads[seed, kind] = known.pop(key).head
    rows = evaluator.rows["test"]
    target = data.target[rows]
    tables = [
        _table(protocol, by, target, data.metric, resamples).assign(labels=evaluator.labels(protocol))
        for protocol, by in scores.items()
    ]
    table = pd.concat(tables, ignore_index=True).assign(checkpoints=len(paths))
    return Evaluation(data, rows, scores, table, _groups(scores, data, rows), heads)


def _random_key(model: Pretraining, kind: Input, classifiers: Sequence[int]) -> str:
    """What an untrained encoder's scores depend on, beside the data and settings of one call of `evaluate`."""
    part = "encoder" if kind == "image" or isinstance(model, SCARF) else "table_encoder"
    views = (model.hparams.get("views") or {}).get("init_args", {}).get("augment")
    of_table = (model.fields, model.label_as_feature) if isinstance(model, TabularPretraining) else ()
    return repr((kind, list(classifiers), model.hparams.get(part), views if kind == "image" else of_table))


def _keep(scores: dict[str, dict[str, Scores]], name: str, found: dict[str, ValTest]) -> None:
    for protocol, (val, test) in found.items():
        kept = scores.setdefault(protocol, {}).setdefault(name, Scores())
        kept.val.extend(val)
        kept.test.extend(test)


@torch.no_grad()
def _own_scores(model: Supervised, evaluator: Evaluator) -> ValTest:
    """Scores `(1, N, C)` of a supervised model by its own classifier."""
    if model.classes != evaluator.data.classes:
        raise DataError("the supervised model was trained on other classes than the data's; train it on these")
    val, test = (
        class_scores(model.scores(encode(model.encoder, evaluator.pairs(evaluator.rows[split], "image")).x), "single")
        for split in ("val", "test")
    )
    return val[None], test[None]


def _fine_tune_augment(model: Pretraining, kind: Input) -> nn.Module | None:
    """The pre-training's augmentation, gentler; none for tables."""
    augment = getattr(getattr(model, "views", None), "augment", None)
    if kind == "table" or not isinstance(augment, ImageAugment):
        return None
    gentle = copy.deepcopy(augment)
    gentle.crop_scale, gentle.probability = FINE_TUNE_CROP, FINE_TUNE_PROBABILITY
    return gentle


def _table(
    protocol: str, by_method: dict[str, Scores], target: NDArray[np.int64], metric: Metric, resamples: int
) -> pd.DataFrame:
    drawn: dict[str, NDArray[np.float64]] = {}
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for name, scores in by_method.items():
        samples, point = metric_samples(np.stack(scores.test), target, metric, resamples)
        drawn[name] = over_models(samples, rng)
        low, high = interval(drawn[name])
        deviation = point.std(ddof=1) if len(point) > 1 else np.nan
        row: dict[str, Any] = {
            "protocol": protocol,
            "method": name,
            "models": len(point),
            "samples": len(target),
            "metric": metric,
        }
        row |= {"value": point.mean(), "std": deviation, "low": low, "high": high}
        if name != RANDOM and RANDOM in drawn:
            row["gain"] = row["value"] - rows[0]["value"]
            row["gain_low"], row["gain_high"] = interval(drawn[name] - drawn[RANDOM])
        rows.append(row)
    return pd.DataFrame(rows)


def _groups(
    scores: dict[str, dict[str, Scores]], data: TabularImagingDataModule, rows: NDArray[np.int64]
) -> pd.DataFrame:
    """The metric, mean over the models, within each sex and age group that the data name."""
    table, target = data.frame.iloc[rows], data.target[rows]
    labels = {"sex": table["sex"].astype(object)} if "sex" in table else {}
    if "age" in table:
        ages = pd.cut(pd.to_numeric(table["age"], errors="coerce"), [0, 50, 60, 70, 400], right=False)
        # Without na_action an unknown age would be an age group of its own.
        labels["age"] = ages.astype(object).map(str, na_action="ignore")
    result = []
    for kind, column in labels.items():
        for value in sorted(set(column.dropna())):
            inside = (column == value).to_numpy(dtype=bool)
            if data.metric == "auroc" and len(set(target[inside])) < len(data.classes):
                continue  # no area without both classes
            for protocol, by_method in scores.items():
                for name, kept in by_method.items():
                    _, point = metric_samples(np.stack(kept.test)[:, inside], target[inside], data.metric, 1)
                    result.append((protocol, name, kind, value, int(inside.sum()), float(point.mean())))
    return pd.DataFrame(result, columns=["protocol", "method", "group", "value", "samples", data.metric])
