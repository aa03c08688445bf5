"""The paper's evaluation (section 4.2) of pre-trained encoders beside untrained ones, with intervals.

Shapes: M models, N samples, C classes.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from shared.augment import ImageAugment
from shared.backbones import Pixels
from shared.data.problems import DataError
from shared.data.splits import Split
from shared.evaluation import RANDOM, STATISTICS, Evaluation, Job, Protocol, Statistic
from shared.evaluation.figures import draw_results
from shared.evaluation.protocol import FIRST_RANDOM_SEED
from shared.evaluation.statistics import auroc_of_one_label, without_first_of_two
from shared.methods import Pretraining, Supervised
from shared.metrics import PseudoValues, auroc, difference, interval
from shared.probe import LinearHead, encode
from shared.runs.scores import Found, Outcome
from shared.runs.variant import Variant
from tabular_imaging.data.module import TabularImagingDataModule
from tabular_imaging.evaluation.classifiers import (
    METRIC_NAMES,
    ClassifierProtocol,
    Evaluator,
    Input,
    Settings,
    ValTest,
    encoder_for,
    load_model,
    own_head,
    save_classifier,
)
from tabular_imaging.evaluation.figures import draw_low_data
from tabular_imaging.evaluation.tables import print_results
from tabular_imaging.methods import SCARF
from tabular_imaging.methods.pretraining import TabularPretraining

# With two classes, the area is that of the second class only.
TABULAR_STATISTICS: dict[str, Statistic] = {**STATISTICS, "auroc": auroc_of_one_label}
PIXELS = "Pixels"  # a floor row
# Recipe, "Evaluation": fine-tuning crops less than the paper's pre-training, and augments 80% of the images.
FINE_TUNE_CROP, FINE_TUNE_PROBABILITY = (0.6, 1.0), 0.8


class TabularEvaluation(Evaluation[TabularImagingDataModule]):
    """Evaluation of trained and untrained encoders on a data set.

    Args:
        variant: The trained models.
        checkpoints: Their checkpoints by seed.
        data: The data module, set up.
        transfer: Whether the data set is another one than the models were trained on.
        settings: How classifiers are trained.
        inputs: The inputs that are classified: images, tables, or both (each on its own).

    Raises:
        DataError: The data have no labels in one of the splits, the model has no encoder for one of the inputs, or it
            was trained on what is to be predicted.
    """

    statistics: ClassVar[dict[str, Statistic]] = TABULAR_STATISTICS

    def __init__(
        self,
        variant: Variant,
        checkpoints: Mapping[int, Path],
        data: TabularImagingDataModule,
        transfer: bool,
        settings: Settings,
        inputs: Sequence[Input],
    ) -> None:
        super().__init__(variant, checkpoints, data, transfer)
        self.supervised = issubclass(variant.method, Supervised) and not transfer
        if self.supervised:  # it was trained on all labels, and its own classifier is what fine-tuning would give
            settings = dataclasses.replace(settings, trainable_epochs=0, fractions=(), per_class=())
        self.settings, self.inputs = settings, inputs
        self.evaluator = Evaluator(data, settings)
        self.heads: dict[tuple[int, Input], LinearHead | None] = {}

    @property
    def protocols(self) -> dict[str, ClassifierProtocol]:
        """Protocols by name; for a supervised model the fine-tuned one stands for its own classifier."""
        found = self.evaluator.protocols(self.inputs)
        if self.supervised:
            own = self.evaluator.protocol(True, self.evaluator.budgets[0], "image")
            found[own.name] = own
        return found

    def jobs(self) -> list[Job]:
        """The untrained encoders, then the trained ones."""
        jobs = []
        for index, path in enumerate(self.checkpoints.values()):
            model = load_model(path, weights=False)
            if not self.transfer:  # checked once for every run, before any time is spent on it
                _check_target_unseen(path.parents[1], model, self.variant.title, self.data)
            seed = FIRST_RANDOM_SEED + index
            for kind in self.inputs:
                key = _random_key(model, kind, self._classifiers(seed), self.settings)
                jobs.append(Job(partial(self._score, RANDOM, seed, path, [kind]), key=key))
        if "image" in self.inputs:
            jobs.append(Job(self._score_pixels, key=repr((PIXELS, self.settings))))
        for seed, path in self.checkpoints.items():
            jobs.append(Job(partial(self._score, self.variant.title, seed, path, self.inputs), seed))
        return jobs

    def _classifiers(self, seed: int) -> Sequence[int]:
        """Seeds of a model's classifiers: several for a single pre-trained model, as in the paper, otherwise one."""
        return range(seed, seed + self.settings.probe_seeds) if len(self.checkpoints) == 1 else [seed]

    def _score(self, row: str, seed: int, checkpoint: Path, kinds: Sequence[Input]) -> Found:
        """Scores of one model's classifiers under every protocol."""
        torch.manual_seed(seed)
        model = load_model(checkpoint, weights=row != RANDOM)
        if isinstance(model, TabularPretraining) and "table" in kinds:  # images need not come with the same table
            model.use_schema(self.data.schema)
        encoders: dict[Input, nn.Module] = {}
        for kind in kinds:
            encoder = encoder_for(model, kind)
            if encoder is None:
                raise DataError(f"{self.variant.title} has no encoder for the input {kind}; leave it out of --inputs")
            encoders[kind] = encoder
        found: Found = {}
        seeds = self._classifiers(seed)
        for kind, encoder in encoders.items():
            classified = self.evaluator.classify(encoder, kind, _fine_tune_augment(model, kind), seeds)
            for name, (val, test) in classified.scores.items():
                found[name] = {row: Outcome([seed] * len(seeds), test, val)}  # several classifiers of one model
            if row != RANDOM:
                self.heads[seed, kind] = classified.head
        if isinstance(model, Supervised) and self.supervised and row != RANDOM:
            name = next(name for name, protocol in self.protocols.items() if protocol.trainable)
            val, test = _own_scores(model, self.evaluator)
            found[name] = {row: Outcome([seed], test, val)}
            self.heads[seed, "image"] = own_head(model)
        return found

    def _score_pixels(self) -> Found:
        """Scores of linear classifiers without any network, on the images' pixels."""
        encoder = Pixels(self.data.image_settings.channels)
        classified = self.evaluator.classify(encoder, "image", None, [0], frozen_only=True)
        return {name: {PIXELS: Outcome([0], test, val)} for name, (val, test) in classified.scores.items()}

    def test_rows(self) -> NDArray[np.int64]:
        """Rows of the labelled test samples."""
        return self.evaluator.rows["test"]

    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        """Names of the classes, and one-hot classes of the test samples."""
        return self.data.classes, self._one_hot("test")

    def _one_hot(self, split: Split) -> NDArray[np.float32]:
        return np.eye(len(self.data.classes), dtype=np.float32)[self.data.target[self.evaluator.rows[split]]]

    def about(self, protocol: Protocol) -> dict[str, Any]:
        """The number of labels that a protocol uses."""
        assert isinstance(protocol, ClassifierProtocol)
        return {"labels": protocol.labels, "beside": protocol.beside}

    def _values(self, outcome: Outcome) -> PseudoValues:
        """Pseudo-values of the data's metric on the test samples."""
        return self.statistics[self.data.metric](outcome, self._one_hot("test"), self.data.groups[self.test_rows()])

    def _mean(self, scores: NDArray[np.float64] | None, target: NDArray[np.float32]) -> float:
        """Mean of the data's metric over the models' scores `(M, N, C)`, however few samples a class has."""
        assert scores is not None
        if self.data.metric == "accuracy":
            return float((scores.argmax(2) == target.argmax(1)).mean())
        scores, target = without_first_of_two(scores, target)
        return float(np.nanmean([auroc(model, target) for model in scores]))

    def table(self, found: Found) -> pd.DataFrame:
        """One row for each protocol and method.

        A row has the `value` of the data's metric with `std` over the models and its interval `low` to
        `high`; `gain`, the paired difference from the untrained encoder; and `val`, the value on the validation samples
        that the classifier was chosen on, which serves to choose settings.
        """
        rows: list[dict[str, Any]] = []
        for name, protocol in self.protocols.items():
            values: dict[str, PseudoValues] = {}
            for row, outcome in found[name].items():
                values[row] = self._values(outcome)
                point = values[row].point
                about: dict[str, Any] = {"protocol": name, "title": protocol.title, "method": row, "models": len(point)}
                about |= {"samples": len(self.test_rows()), "metric": self.data.metric, "value": point.mean()}
                about["std"] = point.std(ddof=1) if len(point) > 1 else np.nan
                _, about["low"], about["high"], _ = interval(values[row])
                about["val"] = self._mean(outcome.val, self._one_hot("val"))
                if row != RANDOM and RANDOM in values:
                    gain = difference(values[row], values[RANDOM])
                    about["gain"], about["gain_low"], about["gain_high"], about["gain_p"] = gain
                rows.append(about | {"labels": protocol.labels, "checkpoints": len(self.checkpoints)})
        return pd.DataFrame(rows)

    def groups(self, found: Found) -> pd.DataFrame:
        """The metric, averaged over the models, in each sex and age group that the data name."""
        frame, target = self.data.frame.iloc[self.test_rows()], self._one_hot("test")
        labels = {"sex": frame["sex"].astype(object)} if "sex" in frame else {}
        if "age" in frame:
            ages = pd.cut(pd.to_numeric(frame["age"], errors="coerce"), [0, 50, 60, 70, 400], right=False)
            # Without na_action, unknown ages would form an age group of their own.
            labels["age"] = ages.astype(object).map(str, na_action="ignore")
        result = []
        for kind, column in labels.items():
            for value in sorted(set(column.dropna())):
                inside = (column == value).to_numpy(dtype=bool)
                if self.data.metric == "auroc" and not target[inside].any(0).all():
                    continue  # there is no AUC unless every class occurs
                for protocol, rows in found.items():
                    for name, outcome in rows.items():
                        assert outcome.test is not None
                        mean = self._mean(outcome.test[:, inside], target[inside])
                        result.append((protocol, name, kind, value, int(inside.sum()), mean))
        return pd.DataFrame(result, columns=["protocol", "method", "group", "value", "samples", self.data.metric])

    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        """The value of the data's metric."""
        return {protocol.metric: self._mean(outcome.test, self._one_hot("test"))}

    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        """Every method with all labels, and its frozen image encoder over the number of labels."""
        metric = METRIC_NAMES[self.data.metric]
        few = table["protocol"].map(lambda name: self.protocols[name].few)
        shown = table.assign(protocol=table["title"])
        figures = {"results": draw_results(shown[~few], f"{metric} on {dataset}", metric, note)}
        frozen = table[table["protocol"].map(self._is_frozen_image)]
        if frozen["protocol"].nunique() > 1:
            figures["low_data"] = draw_low_data(frozen, f"few labels on {dataset}", metric, note)
        return figures

    def _is_frozen_image(self, name: str) -> bool:
        """Whether a protocol is linear classification with a frozen image encoder, on any number of labels (Fig. 2)."""
        protocol = self.protocols[name]
        return not protocol.trainable and protocol.input == "image"

    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        """Print all rows, in percent."""
        print_results(table, dataset, kind)

    def keep(self) -> None:
        """Save the classifiers that were trained on all labels, for `predict` and `explain`."""
        for (seed, kind), head in self.heads.items():
            if head is not None:
                save_classifier(self.variant.runs[seed], kind, head, self.data.classes)


def _check_target_unseen(run: Path, model: Pretraining, method: str, data: TabularImagingDataModule) -> None:
    """Check that a model was not trained on the target as a field of the table."""
    fields = model.schema.features if isinstance(model, TabularPretraining) and model.schema else ()
    if data.target_column in [column.name for column in fields]:
        raise DataError(
            f"{run}: the table that {method} was trained on has {data.target_column} among its fields, so it knows "
            f"what is to be predicted; train again with --data.init_args.target {data.target_column}"
        )


def _random_key(model: Pretraining, kind: Input, classifiers: Sequence[int], settings: Settings) -> str:
    """What an untrained encoder's scores depend on, besides the data.

    If the encoder is fine-tuned, this includes the augmentation.
    """
    part = "encoder" if kind == "image" or isinstance(model, SCARF) else "table_encoder"
    views = (model.hparams.get("views") or {}).get("init_args", {}).get("augment")
    of_table: tuple[Any, ...] = (model.fields, model.label_as_feature) if isinstance(model, TabularPretraining) else ()
    if kind == "table":  # a table encoder is drawn after what its method has before it
        of_table = (*of_table, type(model).__name__, model.hparams.get("encoder"))
    of_image = views if settings.trainable_epochs else None
    return repr((kind, settings, list(classifiers), model.hparams.get(part), of_image if kind == "image" else of_table))


def _own_scores(model: Supervised, evaluator: Evaluator) -> ValTest:
    """Scores `(1, N, C)` of a supervised model by its own classifier."""
    if model.classes != evaluator.data.classes:
        raise DataError("the supervised model was trained on classes other than those of the data; train it on these")
    head = own_head(model)
    val, test = (
        head.scores(encode(model.encoder, evaluator.pairs(evaluator.rows[split], "image"), evaluator.device).x)
        for split in ("val", "test")
    )
    return val[None], test[None]


def _fine_tune_augment(model: Pretraining, kind: Input) -> nn.Module | None:
    """The augmentation of pre-training with the crops of fine-tuning; None for tables."""
    augment = getattr(getattr(model, "views", None), "augment", None)
    if kind == "table" or not isinstance(augment, ImageAugment):
        return None
    tuned = copy.deepcopy(augment)
    tuned.crop_scale, tuned.probability = FINE_TUNE_CROP, FINE_TUNE_PROBABILITY
    return tuned
