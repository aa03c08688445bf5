"""The paper's evaluation: zero-shot classification (section 3.4) and linear evaluation (section 3.3).

Each model encodes every record once; scores, linear heads and intervals then work on the cached features.

Shapes: M models, N records, C classes, D features.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_text.data.module import ECGDataModule, saved_signal_settings
from ecg_text.evaluation.figures import draw_class_bars, draw_ecg, draw_similarity
from ecg_text.evaluation.protocols import (
    FINE_TUNE,
    LINEAR,
    ZERO_SHOT,
    ZERO_SHOT_PROBABILITY,
    ECGProtocol,
    zero_shot_with,
)
from ecg_text.evaluation.tables import AVERAGE, print_classes
from ecg_text.model import zero_shot_scores
from ecg_text.module import ETP
from ecg_text.prompts import load_prompts
from shared.backbones import out_dim
from shared.checkpoint import load_module
from shared.data.groups import units
from shared.data.problems import DataError
from shared.data.samplers import EpochBatchSampler
from shared.data.splits import SPLITS, Split, group_split
from shared.evaluation import RANDOM, Evaluation, Job, Protocol
from shared.evaluation.protocol import FIRST_RANDOM_SEED
from shared.methods import Pretraining
from shared.metrics import (
    FEWEST,
    BestF1,
    F1AtThreshold,
    PseudoValues,
    auroc,
    auroc_values,
    difference,
    interval,
    usable_classes,
)
from shared.probe import encode, fine_tune, linear_probe
from shared.runs.scores import Found, Outcome
from shared.runs.variant import Variant

log = logging.getLogger(__name__)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How models are evaluated.

    Attributes:
        random_inits: Number of untrained models (seeds 1000, 1001, ...) to compare with; linear evaluation uses as many
            of them as there are checkpoints.
        fine_tune_epochs: Number of epochs for which the whole encoder is fine-tuned too; 0 leaves this out.
        prompts: Further prompts for zero-shot classification.
    """

    random_inits: int = 20
    fine_tune_epochs: int = 0
    prompts: Sequence[str] = ()


def prepared_like(checkpoint: Path) -> dict[str, Any]:
    """Data settings that prepare signals in the way that the model was trained with."""
    settings = saved_signal_settings(checkpoint)
    return {**vars(settings), "leads": list(settings.leads)}


class ECGEvaluation(Evaluation[ECGDataModule]):
    """Evaluation of trained and untrained models on a data set.

    Args:
        variant: The trained models. Only ETP's are also evaluated by zero-shot classification.
        checkpoints: Their checkpoints by seed.
        data: The data module, set up.
        transfer: Whether the data set is another one than the models were trained on.
        settings: How models are evaluated.

    Raises:
        DataError: The test split has no labelled record, or all its labelled records have the same class.
    """

    def __init__(
        self,
        variant: Variant,
        checkpoints: Mapping[int, Path],
        data: ECGDataModule,
        transfer: bool,
        settings: Settings,
    ) -> None:
        super().__init__(variant, checkpoints, data, transfer)
        self.settings = settings
        rows = {split: data.rows(split, "evaluate") for split in SPLITS}
        if not len(rows["test"]):
            raise DataError("the test split has no labelled record; change the split or label_mode")
        check_test(data, rows["test"])
        self.rows = _with_validation(data, rows)
        self.targets = {split: data.target[rows] for split, rows in self.rows.items()}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.with_text = issubclass(variant.method, ETP)

    @property
    def protocols(self) -> dict[str, ECGProtocol]:
        """Protocols by name."""
        with_prompts = map(zero_shot_with, self.settings.prompts)
        zero_shot = [ZERO_SHOT, ZERO_SHOT_PROBABILITY, *with_prompts] if self.with_text else []
        fine_tuned = [FINE_TUNE] if self.settings.fine_tune_epochs else []
        return {protocol.name: protocol for protocol in (*zero_shot, LINEAR, *fine_tuned)}

    def jobs(self) -> list[Job]:
        """The untrained models, then the trained ones."""
        any_checkpoint = next(iter(self.checkpoints.values()))
        seeds = range(FIRST_RANDOM_SEED, FIRST_RANDOM_SEED + self.settings.random_inits)
        linear = seeds[: len(self.checkpoints)]
        jobs = []
        for seed in seeds if self.with_text else linear:
            # An encoder is drawn before the rest of its model, so the scores of a random one depend only on these.
            key = repr((seed, self.variant.model_settings.get("encoder")))
            shared = not self.with_text and not self.settings.fine_tune_epochs
            score = partial(self._score, RANDOM, seed, any_checkpoint, seed in linear)
            jobs.append(Job(score, key=key if shared else ""))
        for seed, path in self.checkpoints.items():
            jobs.append(Job(partial(self._score, self.variant.title, seed, path), seed))
        return jobs

    def _score(self, row: str, seed: int, checkpoint: Path, probed: bool = True) -> Found:
        """Scores of one model under every protocol; without `probed` only under the zero-shot ones."""
        torch.manual_seed(seed)
        model = load_module(checkpoint, Pretraining, weights=row != RANDOM)  # type: ignore[type-abstract]
        features = {split: encode(model.encoder, _pairs(self.data, self.rows[split]), self.device) for split in SPLITS}
        found: Found = {}

        def keep(protocol: Protocol, val: Array, test: Array) -> None:
            found[protocol.name] = {row: Outcome([seed], test[None], val[None])}

        if isinstance(model, ETP):
            names = self.data.class_names
            for protocol in self.protocols.values():
                if not protocol.zero_shot:
                    continue
                if protocol.prompts is not None:
                    model.set_classes(names, load_prompts(protocol.prompts).sentences(names))
                elif list(model.class_names) != self.data.classes:
                    model.set_classes(names)
                scores = [zero_shot(model, features[split].x) for split in ("val", "test")]
                if protocol.probability:
                    scores = [over_classes(model, cosines) for cosines in scores]
                keep(protocol, *scores)
        if not probed:
            return found
        train, val, test = (features[split] for split in SPLITS)
        probe = linear_probe(train, val, test, self.data.label_mode, seeds=[seed])
        keep(LINEAR, probe.val_scores[0], probe.test_scores[0])
        if self.settings.fine_tune_epochs:
            epochs = self.settings.fine_tune_epochs
            tuned = _fine_tune(model.encoder, self.data, self.rows, seed, epochs, self.device)
            keep(FINE_TUNE, tuned[: len(self.rows["val"])], tuned[len(self.rows["val"]) :])
        return found

    def test_rows(self) -> NDArray[np.int64]:
        """Rows of the labelled test records."""
        return self.rows["test"]

    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        """Codes of the classes, and target of the test records."""
        return self.data.classes, self.targets["test"]

    def about(self, protocol: Protocol) -> dict[str, Any]:
        """The label mode, which says which records count."""
        return {"label_mode": self.data.label_mode}

    def table(self, found: Found) -> pd.DataFrame:
        """One row for each protocol, method and class (and `Average`), as in the paper's Tables 2 and 3.

        A row has `auroc` with its standard deviation over the models, its interval, and its difference from random init
        with interval and p-value; the best F1 over thresholds on the test records and the accuracy there (most likely
        the paper's choice); and F1 and accuracy at thresholds chosen on validation. The average AUROC is over the
        classes that enough test records have (`usable_classes`). Zero-shot rows say how many prompts there are, and how
        many stand word for word in a training report (`prompts_in_reports`). The `Average` row adds accuracy and macro
        F1 when the class with the highest score is predicted, and `majority`, the accuracy of always predicting the
        most frequent.
        """
        tables = [
            self._of_protocol(name, found[name]).assign(**self._prompts_in_reports(protocol))
            for name, protocol in self.protocols.items()
        ]
        return pd.concat(tables, ignore_index=True).assign(label_mode=self.data.label_mode)

    def _prompts_in_reports(self, protocol: ECGProtocol) -> dict[str, int]:
        """How many prompts there are, and how many of them stand word for word in a training report."""
        if not protocol.zero_shot:
            return {}
        prompts = load_prompts(protocol.prompts or str(self.variant.model_settings.get("prompts")))
        sentences = {text.lower() for texts in prompts.sentences(self.data.class_names) for text in texts}
        if self.transfer:  # the model was trained on other reports
            return {"prompts": len(sentences)}
        trained_on = self.data.report[self.data.rows("train", "pretrain")]
        reports = [self.data.reports[index].lower() for index in np.unique(trained_on[trained_on >= 0])]
        found = sum(any(sentence in report for report in reports) for sentence in sentences)
        return {"prompts": len(sentences), "prompts_in_reports": found}

    def _of_protocol(self, protocol: str, rows: Mapping[str, Outcome]) -> pd.DataFrame:
        target, val_target = (torch.from_numpy(self.targets[split]).long() for split in ("test", "val"))
        usable = usable_classes(self.targets["test"], self.data.groups[self.rows["test"]])
        values: dict[str, list[PseudoValues | None]] = {}
        frames: list[pd.DataFrame] = []
        for name, outcome in rows.items():
            assert outcome.test is not None
            assert outcome.val is not None
            values[name] = self._auroc_values(outcome.test)
            per_model = []
            for model_val, model_test in zip(outcome.val, outcome.test, strict=True):
                best, chosen = BestF1(len(self.data.classes)), BestF1(len(self.data.classes))
                best.update(torch.from_numpy(model_test), target)
                chosen.update(torch.from_numpy(model_val), val_target)
                at_threshold = F1AtThreshold(chosen.compute().threshold)
                at_threshold.update(torch.from_numpy(model_test), target)
                on_test, from_val = best.compute(), at_threshold.compute()
                measured = {
                    "auroc": auroc(model_test, self.targets["test"]),
                    "best_f1": on_test.f1.numpy(),
                    "best_f1_accuracy": on_test.accuracy.numpy(),
                    "f1": from_val.f1.numpy(),
                    "accuracy": from_val.accuracy.numpy(),
                }
                per_model.append({key: np.append(value, np.nanmean(value)) for key, value in measured.items()})
                per_model[-1]["auroc"][-1] = measured["auroc"][usable].mean()
            frame = pd.DataFrame({"protocol": protocol, "method": name, "class": [*self.data.classes, AVERAGE]})
            frame["models"], frame["samples"] = len(per_model), len(target)
            for key in per_model[0]:
                stacked = np.stack([measured[key] for measured in per_model])
                frame[key] = stacked.mean(0)
                frame[f"{key}_std"] = stacked.std(0, ddof=1) if len(stacked) > 1 else np.nan
            frame[["auroc_low", "auroc_high"]] = [
                (np.nan, np.nan) if of_class is None else interval(of_class)[1:3] for of_class in values[name]
            ]
            if name != RANDOM and RANDOM in values:
                frame[["gain", "gain_low", "gain_high", "gain_p"]] = [
                    (np.nan,) * 4 if plus is None or minus is None else difference(plus, minus)
                    for plus, minus in zip(values[name], values[RANDOM], strict=True)
                ]
            if name != RANDOM:
                _warn_of_inverted(frame, self.protocols[protocol])
            top = [_highest_score(model, self.targets["test"]) for model in outcome.test]
            average = frame.index[-1]
            frame.loc[average, ["top1_accuracy", "top1_f1"]] = np.mean(top, axis=0)
            frame.loc[average, "majority"] = self.targets["test"].mean(0).max()
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def _auroc_values(self, scores: Array) -> list[PseudoValues | None]:
        """Pseudo-values of each class's AUROC, then of their average; None for a class that too few records have."""
        target, patients = self.targets["test"], self.data.groups[self.rows["test"]]
        of_classes = [
            auroc_values(scores[..., [c]], target[:, [c]], patients) if enough else None
            for c, enough in enumerate(usable_classes(target, patients))
        ]
        return [*of_classes, auroc_values(scores, target, patients)]

    def groups(self, found: Found) -> pd.DataFrame:
        """Macro AUROC, averaged over the models, in each sex and age group, over the classes that occur there."""
        frame = self.data.frame.iloc[self.rows["test"]]
        ages = pd.cut(pd.to_numeric(frame["age"], errors="coerce"), [0, 40, 60, 75, 400], right=False)
        # Without na_action, unknown ages would form an age group of their own.
        labels = {"sex": frame["sex"].astype(object), "age": ages.astype(object).map(str, na_action="ignore")}
        result = []
        for kind, column in labels.items():
            for value in sorted(set(column.dropna()) - {""}):
                inside = (column == value).to_numpy(dtype=bool)
                target = self.targets["test"][inside]
                usable = (target.sum(0) > 0) & (target.sum(0) < len(target))
                if not usable.any():
                    continue
                for protocol, rows in found.items():
                    for name, outcome in rows.items():
                        assert outcome.test is not None
                        values = [auroc(model[inside][:, usable], target[:, usable]).mean() for model in outcome.test]
                        result.append((protocol, name, kind, value, int(inside.sum()), float(np.mean(values))))
        return pd.DataFrame(result, columns=["protocol", "method", "group", "value", "samples", "auroc"])

    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        """Macro AUROC with its interval, and best F1."""
        assert outcome.test is not None
        patients = self.data.groups[self.rows["test"]]
        area, low, high, _ = interval(auroc_values(outcome.test, self.targets["test"], patients))
        f1 = self.statistics["best_f1"](outcome, self.targets["test"], patients).point.mean()
        return {"auroc": area, "auroc_low": low, "auroc_high": high, "best_f1": float(f1)}

    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        """Bars by class for each protocol; for ETP also the similarities and one record with its scores."""
        kind = f" ({note.lower()} data)" if note else ""
        figures = {
            name: draw_class_bars(table[table["protocol"] == name], f"{protocol.title} on {dataset}{kind}")
            for name, protocol in self.protocols.items()
        }
        if not self.with_text:
            return figures
        outcome = found[ZERO_SHOT.name][self.variant.title]
        assert outcome.test is not None
        scores, rows = outcome.test[0], self.rows["test"]
        figures["similarity"] = draw_similarity(scores, self.targets["test"], self.data.classes)
        example = int(scores.max(1).argmax())  # the record that the model is most certain about
        record = self.data.frame.iloc[rows[example]]
        settings = self.data.signal_settings
        figures["example"] = draw_ecg(
            self.data.cached(rows[example]) / 1000,
            settings.leads,
            settings.sampling_rate,
            title=f"{dataset} {record['id']}, labels: {', '.join(record['labels'])}{kind}",
            scores=dict(zip(self.data.classes, scores[example].tolist(), strict=True)),
        )
        return figures

    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        """Print each protocol in the form of the paper's Tables 2 and 3."""
        print_classes(table, {name: protocol.title for name, protocol in self.protocols.items()}, dataset, kind)


@torch.no_grad()
def zero_shot(model: ETP, features: Tensor) -> NDArray[np.float64]:
    """Scores `(N, C)` of encoded records `(N, D)`."""
    model = model.cpu()
    embedded = model.model.ecg_projector(features)
    scores: NDArray[np.float64] = zero_shot_scores(embedded, model.class_embedding()).double().numpy()
    return scores


def over_classes(model: ETP, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities of the classes, `(N, C)`: their cosines at the temperature of the training, normalised."""
    logits = torch.from_numpy(cosines / float(model.temperature.detach()))
    found: NDArray[np.float64] = logits.log_softmax(1).numpy()
    return found


def _pairs(
    data: ECGDataModule, rows: NDArray[np.int64], batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    return ((batch.signal, batch.target) for batch in data.batches(rows, batch_size))


def check_test(data: ECGDataModule, rows: NDArray[np.int64]) -> None:
    """Raise an error if all test records have the same class, and warn about a class that hardly any of them has."""
    target = data.target[rows]
    positives = dict(zip(data.classes, target.sum(0), strict=True))
    if everywhere := [code for code, count in positives.items() if count == len(target)]:
        raise DataError(
            f"every test record has the class {', '.join(everywhere)}, so there is nothing to distinguish it from; "
            "change the split, label_set or label_mode"
        )
    usable = usable_classes(target, data.groups[rows])
    if not usable.any():
        raise DataError(
            f"no class has {FEWEST} test patients who have it and {FEWEST} who do not; change the split or label_mode"
        )
    if rare := [code for code, enough in zip(data.classes, usable, strict=True) if not enough]:
        log.warning(
            "classes that fewer than %d test patients have or lack, and so left out of the average AUC: %s",
            FEWEST,
            ", ".join(rare),
        )


def _warn_of_inverted(frame: pd.DataFrame, protocol: ECGProtocol) -> None:
    """Warn of classes whose AUC is below 0.5 beyond noise."""
    advice = ": its prompts describe the others better; try other prompts" if protocol.zero_shot else ""
    for row in frame[(frame["auroc_high"] < 0.5) & (frame["class"] != AVERAGE)].to_dict("records"):
        log.warning(
            "%s: %s ranks the records with %s below the others, AUC %.1f [%.1f, %.1f]%s",
            protocol.title,
            row["method"],
            row["class"],
            *(100 * row[key] for key in ("auroc", "auroc_low", "auroc_high")),
            advice,
        )


def _with_validation(data: ECGDataModule, rows: dict[Split, NDArray[np.int64]]) -> dict[Split, NDArray[np.int64]]:
    """If validation lacks a class, as in tiny sets, validate on a fifth of the training and validation records."""
    target = data.target[rows["val"]]
    if len(target) and ((target.sum(0) > 0) & (target.sum(0) < len(target))).all():
        return rows
    train = np.concatenate([rows["train"], rows["val"]])
    strata = [str(np.flatnonzero(labels)) for labels in data.target[train]]
    records = data.frame.iloc[train]
    inner = group_split(units(records["patient"], records["id"].astype(str)), strata, (0.8, 0.2), seed=0)
    log.warning("not every class occurs in the validation split: a fifth of the training records replaces it")
    return {**rows, "train": train[inner == 0], "val": train[inner == 1]}


def _fine_tune(
    encoder: nn.Module,
    data: ECGDataModule,
    rows: dict[Split, NDArray[np.int64]],
    seed: int,
    epochs: int,
    device: torch.device,
) -> NDArray[np.float64]:
    """Scores of the validation records followed by those of the test records."""
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
        feature_dim=out_dim(encoder),
        num_classes=len(data.classes),
        label_mode=data.label_mode,
        seed=seed,
        epochs=epochs,
        device=device,
    ).test_scores


def _highest_score(scores: NDArray[np.float64], target: NDArray[np.float32]) -> tuple[float, float]:
    """Accuracy and macro F1 of section 3.4's prediction, the class with the highest score."""
    predicted = np.eye(scores.shape[1])[scores.argmax(1)]
    true_positives = (predicted * target).sum(0)
    f1 = 2 * true_positives / np.maximum(predicted.sum(0) + target.sum(0), 1)
    return float((predicted * target).sum(1).mean()), float(f1.mean())
