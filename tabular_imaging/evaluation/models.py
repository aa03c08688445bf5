"""The paper's evaluation (section 4.2) of pre-trained encoders beside untrained ones, with intervals.

Shapes: M models, N samples, C classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from shared.augment import ImageAugment
from shared.data.problems import DataError
from shared.methods import Pretraining
from shared.metrics import bootstrap_auroc, bootstrap_mean, interval, over_models
from shared.probe import LinearHead, encode
from shared.runs.scores import Scores
from tabular_imaging.data.module import SAMPLES, Metric, TabularImagingDataModule
from tabular_imaging.evaluation.classifiers import (
    Classified,
    Evaluator,
    Input,
    Settings,
    ValTest,
    encoder_for,
    load_data_module,
    load_model,
    own_head,
)
from tabular_imaging.methods import SCARF, Supervised
from tabular_imaging.methods.pretraining import TabularPretraining

RANDOM, SUPERVISED = "Random init", "Supervised"
FIRST_RANDOM_SEED = 1000  # away from the seeds that models are trained with
# Recipe, "Evaluation": fine-tuning crops so, less than the paper's pre-training, and augments 80% of the images.
FINE_TUNE_CROP, FINE_TUNE_PROBABILITY = (0.6, 1.0), 0.8


@dataclass
class Evaluation:
    """What was computed on one data set.

    Attributes:
        data: The data module, set up.
        rows: Rows of the test samples.
        scores: By protocol and method.
        table: A row for each protocol and method: `value` of the data's metric with `std` over the models, its
            bootstrap interval `low` to `high`, `gain`, its paired difference to the untrained encoder, and `val`, its
            value on the validation samples, which the classifier was chosen on: for choosing settings.
        groups: The metric by sex and age group, where the data have these.
        heads: By pre-training seed and input, the linear classifier on all labels.
    """

    data: TabularImagingDataModule
    rows: NDArray[np.int64]
    scores: dict[str, dict[str, Scores]]
    table: pd.DataFrame
    groups: pd.DataFrame
    heads: dict[tuple[int, Input], LinearHead | None] = field(default_factory=dict)


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


def evaluate_models(
    checkpoints: dict[int, Path],
    data_config: dict[str, Any],
    options: dict[str, Any],
    method: str,
    settings: Settings,
    inputs: Sequence[Input] = ("image",),
    resamples: int = 1000,
    known: dict[str, Classified] | None = None,
    transfer: bool = False,
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
        transfer: The data are not those that the encoders were trained on.

    Raises:
        DataError: The data have no labels in one of the splits, the model has no part for one of the inputs, or it was
            trained on what is to be predicted.
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
        if name == RANDOM and not transfer:  # every run once, before time is spent on it
            _check_unseen(path.parents[1], model, method, data)
        if isinstance(model, TabularPretraining) and "table" in inputs:  # images need not come with the same table
            model.use_schema(data.schema)
        encoders: dict[Input, nn.Module] = {}
        for kind in inputs:
            encoder = encoder_for(model, kind)
            if encoder is None:
                raise DataError(f"{method} has no encoder of the input {kind}; leave it out of --inputs")
            encoders[kind] = encoder
        if isinstance(model, Supervised):
            if name != RANDOM:
                _keep(scores, name, {"trainable": _own_scores(model, evaluator)})
                heads[seed, "image"] = own_head(model)
            continue
        # One pre-trained model has several classifiers, as in the paper; several models have one each.
        classifiers = range(seed, seed + settings.probe_seeds) if len(paths) == 1 else [seed]
        for kind, encoder in encoders.items():
            key = _random_key(model, kind, classifiers, bool(settings.trainable_epochs)) if name == RANDOM else ""
            if key not in known:
                known[key] = evaluator.classify(encoder, kind, _fine_tune_augment(model, kind), classifiers)
            _keep(scores, name, known[key].scores)
            if name != RANDOM:
                heads[seed, kind] = known.pop(key).head
    rows = evaluator.rows["test"]
    targets = data.target[evaluator.rows["val"]], data.target[rows]
    tables = [
        _table(protocol, by, *targets, data.metric, resamples).assign(labels=evaluator.labels(protocol))
        for protocol, by in scores.items()
    ]
    table = pd.concat(tables, ignore_index=True).assign(checkpoints=len(paths))
    return Evaluation(data, rows, scores, table, _groups(scores, data, rows), heads)


def _check_unseen(run: Path, model: Pretraining, method: str, data: TabularImagingDataModule) -> None:
    """What is to be predicted must not have been trained on: neither the test samples, nor the target as a field."""
    fields = model.schema.features if isinstance(model, TabularPretraining) and model.schema else ()
    if data.target_column in [column.name for column in fields]:
        raise DataError(
            f"{run}: the table that {method} was trained on has {data.target_column} among its fields, so it knows "
            f"what is to be predicted; train anew with --data.init_args.target {data.target_column}"
        )
    if not (run / SAMPLES).is_file():
        return
    samples = pd.read_csv(run / SAMPLES, dtype=str)
    trained = set(samples.loc[samples["split"] == "train", "id"])
    tested = [str(name) for name in data.frame["id"].iloc[data.rows("test", "evaluate")]]
    if seen := sum(name in trained for name in tested):
        raise DataError(
            f"{seen} of the {len(tested)} test samples were trained on in {run}: its table or split has changed since. "
            "Train it anew (--run.overwrite true)"
        )


def _random_key(model: Pretraining, kind: Input, classifiers: Sequence[int], trainable: bool) -> str:
    """What an untrained encoder's scores depend on, beside the data and settings of one call of `evaluate`.

    Where it is fine-tuned, that includes the augmentation.
    """
    part = "encoder" if kind == "image" or isinstance(model, SCARF) else "table_encoder"
    views = (model.hparams.get("views") or {}).get("init_args", {}).get("augment")
    of_table = (model.fields, model.label_as_feature) if isinstance(model, TabularPretraining) else ()
    of_image = views if trainable else None
    return repr((kind, list(classifiers), model.hparams.get(part), of_image if kind == "image" else of_table))


def _keep(scores: dict[str, dict[str, Scores]], name: str, found: dict[str, ValTest]) -> None:
    for protocol, (val, test) in found.items():
        kept = scores.setdefault(protocol, {}).setdefault(name, Scores())
        kept.val.extend(val)
        kept.test.extend(test)


def _own_scores(model: Supervised, evaluator: Evaluator) -> ValTest:
    """Scores `(1, N, C)` of a supervised model by its own classifier."""
    if model.classes != evaluator.data.classes:
        raise DataError("the supervised model was trained on other classes than the data's; train it on these")
    head = own_head(model)
    val, test = (
        head.scores(encode(model.encoder, evaluator.pairs(evaluator.rows[split], "image"), evaluator.device).x)
        for split in ("val", "test")
    )
    return val[None], test[None]


def _fine_tune_augment(model: Pretraining, kind: Input) -> nn.Module | None:
    """The pre-training's augmentation with fine-tuning's crops; none for tables."""
    augment = getattr(getattr(model, "views", None), "augment", None)
    if kind == "table" or not isinstance(augment, ImageAugment):
        return None
    tuned = copy.deepcopy(augment)
    tuned.crop_scale, tuned.probability = FINE_TUNE_CROP, FINE_TUNE_PROBABILITY
    return tuned


def _table(
    protocol: str,
    by_method: dict[str, Scores],
    val_target: NDArray[np.int64],
    target: NDArray[np.int64],
    metric: Metric,
    resamples: int,
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
        row["val"] = metric_samples(np.stack(scores.val), val_target, metric, 1)[1].mean()
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
