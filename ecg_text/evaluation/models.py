"""The paper's evaluation: zero-shot classification (section 3.4) and linear evaluation (section 3.3).

Every record is encoded once by each model; scores, linear heads and intervals then work on the cached features.

Shapes: M models, N records, C classes, D features.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ecg_text.data.module import SPLITS, ECGDataModule, Split, saved_signal_settings
from ecg_text.model import zero_shot_scores
from ecg_text.module import ETP
from ecg_text.prompts import Prompts, load_prompts
from shared.callbacks import update_results
from shared.checkpoint import load_module
from shared.data.problems import DataError
from shared.data.samplers import EpochBatchSampler
from shared.data.splits import stratified_split
from shared.metrics import BestF1, F1AtThreshold, auroc, bootstrap_auroc, interval
from shared.probe import encode, fine_tune, linear_probe
from shared.runs.scores import Scores
from shared.runs.variant import load_data

log = logging.getLogger(__name__)

# A protocol is "zero_shot", "zero_shot:<prompts>" for further prompts, "linear" or "fine_tune".
TITLES = {
    "zero_shot": "Zero-shot classification",
    "linear": "Linear evaluation",
    "fine_tune": "Full fine-tuning",
}
RANDOM = "Random init"
ROW_NAMES = {"TSTCC": "TS-TCC", "BarlowTwins": "Barlow Twins"}  # the others go by their class's name
FIRST_RANDOM_SEED = 1000  # away from the seeds that models are trained with


def title_of(protocol: str) -> str:
    """What tables and figures call a protocol."""
    name, _, prompts = protocol.partition(":")
    return f"{TITLES[name]}, {prompts} prompts" if prompts else TITLES[name]


@dataclass
class Evaluation:
    """What was computed on one data set.

    Attributes:
        data: The data module, set up.
        rows: Rows of the test records.
        scores: By protocol and method.
        table: A row for each protocol, method and class (and `Average`), as the paper's Tables 2 and 3: `auroc` with
            its standard deviation over the models; best F1 over test thresholds and accuracy there (as the paper most
            likely has it); F1 and accuracy at thresholds chosen on validation. The `Average` row adds the bootstrap
            interval of the AUROC, of its difference to random init, and accuracy and macro F1 of the highest score.
        groups: Macro AUROC by sex and age group.
    """

    data: ECGDataModule
    rows: NDArray[np.int64]
    scores: dict[str, dict[str, Scores]]
    table: pd.DataFrame
    groups: pd.DataFrame


def prepared_like(checkpoint: Path) -> dict[str, Any]:
    """Data settings that prepare signals as the model was trained on."""
    settings = saved_signal_settings(checkpoint)
    return {**vars(settings), "leads": list(settings.leads)}


def evaluate_models(
    checkpoints: dict[int, Path],
    data_config: dict[str, Any],
    options: dict[str, Any],
    method: str = "ETP",
    random_inits: int = 20,
    resamples: int = 1000,
    fine_tune_epochs: int = 0,
    prompts: Sequence[str] = (),
    known: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
) -> Evaluation:
    """Score trained models and random-init ones on a data set.

    Args:
        checkpoints: By seed; all of one method. Zero-shot classification is ETP's alone.
        data_config: `data:` block of the data set.
        options: Its settings to change.
        method: What the tables call the models.
        random_inits: Untrained models (seeds 1000, 1001, ...) to compare with; linear evaluation uses as many of
            them as there are checkpoints.
        resamples: Bootstrap resamples of the test records.
        fine_tune_epochs: Also train the whole encoder for so many epochs; 0 leaves it out.
        prompts: Further prompts for zero-shot classification, see `ecg_text.prompts.load_prompts`.
        known: Linear scores (validation, test) of random-init encoders, to share between methods of one encoder; what
            is found is added.
    """
    any_checkpoint = next(iter(checkpoints.values()))
    options = {**options, **prepared_like(any_checkpoint)}
    data = load_data(ECGDataModule, data_config, options)  # type: ignore[type-abstract]
    rows = {split: data.rows(split, "evaluate") for split in SPLITS}
    if not len(rows["test"]):
        raise DataError("the test split has no labelled record; change the split or label_mode")
    _check_test(data, data.target[rows["test"]])
    rows = _with_validation(data, rows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    any_model = load_module(any_checkpoint, pl.LightningModule)
    with_text = isinstance(any_model, ETP)
    zero_shot: dict[str, Prompts | None] = {}
    if with_text:
        zero_shot = {"zero_shot": None} | {f"zero_shot:{Path(name).stem}": load_prompts(name) for name in prompts}
    protocols = [*zero_shot, "linear", *(["fine_tune"] if fine_tune_epochs else [])]
    scores = {protocol: {RANDOM: Scores(), method: Scores()} for protocol in protocols}
    random_seeds = range(FIRST_RANDOM_SEED, FIRST_RANDOM_SEED + random_inits)
    linear_seeds = random_seeds[: len(checkpoints)]
    jobs = [(RANDOM, seed, any_checkpoint) for seed in (random_seeds if with_text else linear_seeds)]
    jobs += [(method, seed, path) for seed, path in checkpoints.items()]
    known = {} if known is None else known
    for name, seed, path in tqdm(jobs, desc=f"evaluate {method} on {data.name}", unit="model"):
        # An encoder is drawn before the rest of its model, so that these say all of a random one's scores.
        key = repr((seed, any_model.hparams.get("encoder"), data_config, options)) if name == RANDOM else ""
        if key in known and not with_text and not fine_tune_epochs:
            _keep(scores["linear"][name], known[key])
            continue
        torch.manual_seed(seed)
        model = load_module(path, pl.LightningModule, weights=name != RANDOM)
        features = {split: encode(model.encoder, _pairs(data, rows[split]), device) for split in SPLITS}  # type: ignore[arg-type]
        if isinstance(model, ETP):
            for protocol, worded in zero_shot.items():
                if worded is not None:
                    model.set_classes(data.class_names, worded.sentences(data.class_names))
                elif list(model.class_names) != data.classes:
                    model.set_classes(data.class_names)
                _keep(
                    scores[protocol][name],
                    (_zero_shot(model, features["val"].x), _zero_shot(model, features["test"].x)),
                )
        if name == RANDOM and seed not in linear_seeds:
            continue
        probe = linear_probe(features["train"], features["val"], features["test"], data.label_mode, seeds=[seed])
        _keep(scores["linear"][name], (probe.val_scores[0], probe.test_scores[0]))
        if key:
            known[key] = probe.val_scores[0], probe.test_scores[0]
        if fine_tune_epochs:
            tuned = _fine_tune(model.encoder, data, rows, seed, fine_tune_epochs, device)  # type: ignore[arg-type]
            _keep(scores["fine_tune"][name], (tuned[: len(rows["val"])], tuned[len(rows["val"]) :]))
    targets = {split: data.target[rows[split]] for split in SPLITS}
    tables = [_table(protocol, by, targets, data, resamples) for protocol, by in scores.items()]
    groups = _groups(scores, data, rows["test"])
    return Evaluation(data, rows["test"], scores, pd.concat(tables, ignore_index=True), groups)


def _keep(scores: Scores, found: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    """Add one model's scores of the validation and the test records."""
    scores.val.append(found[0])
    scores.test.append(found[1])


@torch.no_grad()
def _zero_shot(model: ETP, features: Tensor) -> NDArray[np.float64]:
    """Scores `(N, C)` of encoded records `(N, D)`."""
    model = model.cpu()
    embedded = model.model.ecg_projector(features)
    scores: NDArray[np.float64] = zero_shot_scores(embedded, model.class_embedding()).double().numpy()
    return scores


def _pairs(
    data: ECGDataModule, rows: NDArray[np.int64], batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    return ((batch.signal, batch.target) for batch in data.batches(rows, batch_size))


def _check_test(data: ECGDataModule, target: NDArray[np.float32]) -> None:
    """Raise for a class that all test records have, and warn of one that hardly any has."""
    positives = dict(zip(data.classes, target.sum(0), strict=True))
    if everywhere := [code for code, count in positives.items() if count == len(target)]:
        raise DataError(
            f"every test record has the class {', '.join(everywhere)}, so there is nothing to tell it from; change the "
            "split, label_set or label_mode"
        )
    # A resample lacks a class of P records with a probability of about exp(-P): 5% at 3.
    if rare := [code for code, count in positives.items() if count < 3]:
        log.warning(
            "classes with fewer than 3 test records, which many bootstrap resamples leave out: %s", ", ".join(rare)
        )


def _with_validation(data: ECGDataModule, rows: dict[Split, NDArray[np.int64]]) -> dict[Split, NDArray[np.int64]]:
    """In tiny sets, where validation lacks a class, validate on a fifth of the training and validation records."""
    target = data.target[rows["val"]]
    if len(target) and ((target.sum(0) > 0) & (target.sum(0) < len(target))).all():
        return rows
    train = np.concatenate([rows["train"], rows["val"]])
    strata = [tuple(labels) for labels in data.target[train]]
    inner = stratified_split(strata, (0.8, 0.2), seed=0)
    log.warning("not every class occurs in the validation split: a fifth of the training records is used to choose on")
    return {**rows, "train": train[inner == 0], "val": train[inner == 1]}


def _fine_tune(
    encoder: nn.Module,
    data: ECGDataModule,
    rows: dict[Split, NDArray[np.int64]],
    seed: int,
    epochs: int,
    device: torch.device,
) -> NDArray[np.float64]:
    """Scores of validation and test records, one after the other."""
    sampler = EpochBatchSampler(len(rows["train"]), batch_size=32, drop_last=True, seed=seed)  # section 3.2: 32

    def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        sampler.set_epoch(epoch)
        order = np.concatenate(list(sampler))
        return _pairs(data, rows["train"][order], sampler.batch_size)

    held_out = np.concatenate([rows["val"], rows["test"]])
    return fine_tune(
        encoder,
        train_batches,
        lambda: _pairs(data, rows["val"]),
        lambda: _pairs(data, held_out),
        feature_dim=int(encoder.out_dim),  # type: ignore[arg-type]
        num_classes=len(data.classes),
        label_mode=data.label_mode,
        seed=seed,
        epochs=epochs,
        device=device,
    ).test_scores


def _table(
    protocol: str,
    by_method: dict[str, Scores],
    targets: dict[Split, NDArray[np.float32]],
    data: ECGDataModule,
    resamples: int,
) -> pd.DataFrame:
    test = torch.from_numpy(targets["test"]).long()
    val = torch.from_numpy(targets["val"]).long()
    methods = {name: scores for name, scores in by_method.items() if scores.test}
    everything = np.concatenate([np.stack(scores.test) for scores in methods.values()])
    samples = bootstrap_auroc(everything, targets["test"], resamples=resamples).samples
    parts = np.split(samples, np.cumsum([len(scores.test) for scores in methods.values()])[:-1], axis=1)
    means = {name: part.mean(1) for name, part in zip(methods, parts, strict=True)}
    frames: list[pd.DataFrame] = []
    for name, scores in methods.items():
        per_model = []
        for model_val, model_test in zip(scores.val, scores.test, strict=True):
            best, chosen = BestF1(len(data.classes)), BestF1(len(data.classes))
            best.update(torch.from_numpy(model_test), test)
            chosen.update(torch.from_numpy(model_val), val)
            at_threshold = F1AtThreshold(chosen.compute().threshold)
            at_threshold.update(torch.from_numpy(model_test), test)
            on_test, from_val = best.compute(), at_threshold.compute()
            values = {
                "auroc": auroc(model_test, targets["test"]),
                "best_f1": on_test.f1.numpy(),
                "best_f1_accuracy": on_test.accuracy.numpy(),
                "f1": from_val.f1.numpy(),
                "accuracy": from_val.accuracy.numpy(),
            }
            per_model.append({key: np.append(value, np.nanmean(value)) for key, value in values.items()})
        frame = pd.DataFrame({"protocol": protocol, "method": name, "class": [*data.classes, "Average"]})
        frame["models"], frame["records"] = len(per_model), len(test)
        for key in per_model[0]:
            stacked = np.stack([values[key] for values in per_model])
            frame[key] = stacked.mean(0)
            frame[f"{key}_std"] = stacked.std(0, ddof=1) if len(stacked) > 1 else np.nan
        average = frame.index[-1]
        frame.loc[average, ["auroc_low", "auroc_high"]] = interval(means[name])
        if name != RANDOM and RANDOM in means:
            difference = means[name] - means[RANDOM]
            frame.loc[average, ["gain_low", "gain_high"]] = interval(difference)
            frame.loc[average, "gain"] = frame.loc[average, "auroc"] - frames[0]["auroc"].iloc[-1]
        top = [_highest_score(model, targets["test"]) for model in scores.test]
        frame.loc[average, ["top1_accuracy", "top1_f1"]] = np.mean(top, axis=0)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _highest_score(scores: NDArray[np.float64], target: NDArray[np.float32]) -> tuple[float, float]:
    """Section 3.4's prediction, the class of the highest score: share of records that have it, and its macro F1."""
    predicted = np.eye(scores.shape[1])[scores.argmax(1)]
    true_positives = (predicted * target).sum(0)
    f1 = 2 * true_positives / np.maximum(predicted.sum(0) + target.sum(0), 1)
    return float((predicted * target).sum(1).mean()), float(f1.mean())


def _groups(scores: dict[str, dict[str, Scores]], data: ECGDataModule, rows: NDArray[np.int64]) -> pd.DataFrame:
    """Macro AUROC, mean over the models, within each sex and age group; over the classes that occur there."""
    table = data.table.iloc[rows]
    ages = pd.cut(pd.to_numeric(table["age"], errors="coerce"), [0, 40, 60, 75, 400], right=False)
    # Without na_action an unknown age would be an age group of its own.
    labels = {"sex": table["sex"].astype(object), "age": ages.astype(object).map(str, na_action="ignore")}
    result = []
    for kind, column in labels.items():
        for value in sorted(set(column.dropna()) - {""}):
            inside = (column == value).to_numpy(dtype=bool)
            target = data.target[rows[inside]]
            usable = (target.sum(0) > 0) & (target.sum(0) < len(target))
            for protocol, by_method in scores.items():
                for name, kept in by_method.items():
                    if kept.test and usable.any():
                        values = [auroc(model[inside][:, usable], target[:, usable]).mean() for model in kept.test]
                        result.append((protocol, name, kind, value, int(inside.sum()), float(np.mean(values))))
    return pd.DataFrame(result, columns=["protocol", "method", "group", "value", "records", "auroc"])


def record_results(evaluation: Evaluation, run: Path, seeds: Sequence[int], method: str, prefix: str) -> None:
    """Merge each seed's own AUROC into its `results.json`, for the comparison page."""
    targets = evaluation.data.target[evaluation.rows]
    for protocol, by_method in evaluation.scores.items():
        for seed, test in zip(seeds, by_method[method].test, strict=True):
            best = BestF1(targets.shape[1])
            best.update(torch.from_numpy(test), torch.from_numpy(targets).long())
            low, high = interval(bootstrap_auroc(test, targets).samples[:, 0])
            values = {
                "auroc": float(auroc(test, targets).mean()),
                "auroc_low": float(low),
                "auroc_high": float(high),
                "best_f1": float(best.compute().f1.nanmean()),
            }
            update_results(run / f"seed_{seed}", {f"{prefix}{protocol}/{key}": value for key, value in values.items()})
