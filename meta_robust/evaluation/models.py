"""The evaluation of one variant on one data set: tasks of novel classes, beside pixels and an untrained network."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from meta_robust.callbacks import kept_epochs
from meta_robust.data.episodes import Episodes, Ordered, TaskShape
from meta_robust.data.module import FewShotDataModule, check_new_classes, saved_image_settings
from meta_robust.evaluation.episodes import choose_checkpoint, nearest_mean, score_features, score_tasks
from meta_robust.evaluation.figures import DrawnTask, draw_confusions, draw_tasks
from meta_robust.evaluation.tables import METRIC, print_results
from meta_robust.methods import EpisodicMethod
from meta_robust.model.norm import BatchNormMode
from shared.augment.images import resize
from shared.backbones import AlexNet
from shared.checkpoint import load_module
from shared.data.module import SAMPLES
from shared.evaluation import RANDOM, STATISTICS, Evaluation, Job, Protocol
from shared.evaluation.figures import draw_results
from shared.evaluation.protocol import FIRST_RANDOM_SEED
from shared.metrics import difference, interval
from shared.runs.scores import Found, Outcome
from shared.runs.variant import Variant

PIXELS, FROZEN = "Pixels", "Frozen AlexNet (ImageNet)"
FROZEN_PX = 96
RANDOM_NETWORKS = 3  # untrained networks of the floor row
DRAWN, DRAWN_QUERIES, CONFUSIONS = 4, 2, 12  # in the pictures: tasks, queries of a class, pairs of classes
Select = Literal["target", "base", "last"]


@dataclass(frozen=True)
class Settings:
    """How methods are evaluated.

    Attributes:
        episodes: Number of tasks; with `without_replacement` at most that.
        ways: N.
        queries: Q, query images a class.
        shots: Numbers of support images a class; by default the one that a method was trained with, and 1 and 5 for a
            method that is trained on images.
        without_replacement: Whether no image is used twice, so that tasks are independent.
        select: Which checkpoint: the best of all epochs on tasks of the target's validation classes, as the paper does;
            the best on the base set's own; or the last.
        frozen: File with the weights of AlexNet's convolutions, for a row that needs no training: the nearest class
            mean in their features.
    """

    episodes: int = 600
    ways: int = 5
    queries: int = 15
    shots: list[int] | None = None
    without_replacement: bool = False
    select: Select = "target"
    frozen: str | None = None


@dataclass(frozen=True)
class TaskProtocol(Protocol):
    """Tasks with so many shots, by one kind of batch statistics.

    Attributes:
        shots: K.
        bn_mode: Whose statistics; None stands for a method's own choice.
    """

    shots: int = 1
    bn_mode: BatchNormMode | None = None


class FewShotEvaluation(Evaluation[FewShotDataModule]):
    """Accuracy on tasks of novel classes, the same for every method; a row of the scores is a query of a task.

    Args:
        variant: The trained models.
        checkpoints: Their last checkpoints by seed.
        data: The data module, set up.
        transfer: Whether the data set is another one than the models were trained on.
        settings: See `Settings`.

    Raises:
        DataError: Novel classes were trained on, or there are too few images for the tasks.
    """

    def __init__(
        self,
        variant: Variant,
        checkpoints: Mapping[int, Path],
        data: FewShotDataModule,
        transfer: bool,
        settings: Settings,
    ) -> None:
        super().__init__(variant, checkpoints, data, transfer)
        self.settings = settings
        novel = sorted(set(data.class_names[data.split == "novel"]))
        for run in variant.runs.values():
            samples = pd.read_csv(run / SAMPLES, dtype=str, keep_default_na=False)
            check_new_classes(sorted(set(samples["group"][samples["split"] == "base"])), novel, str(run))
        by_images = variant.method.trains_on == "images"
        self.shots = settings.shots or ([1, 5] if by_images else [int(variant.model_settings["shots"])])

    @property
    def protocols(self) -> dict[str, TaskProtocol]:
        """By name, `<K>shot` and, with batch statistics of the support alone, `<K>shot_support`."""
        found = {}
        for shots in self.shots:
            title = f"{self.settings.ways}-way {shots}-shot"
            found[f"{shots}shot"] = TaskProtocol(f"{shots}shot", title, "accuracy", shots)
            name = f"{shots}shot_support"
            found[name] = TaskProtocol(name, f"{title}, support statistics", "accuracy", shots, "support")
        return found

    def episodes(self, shots: int, split: str = "novel", count: int | None = None) -> Episodes:
        """The tasks."""
        settings = self.settings
        shape = TaskShape(settings.ways, shots, settings.queries)
        return self.data.episodes(split, shape, count or settings.episodes, settings.without_replacement and not count)

    def jobs(self) -> list[Job]:
        """Pixels and untrained networks, then the trained models."""
        first = next(iter(self.checkpoints.values()))
        encoder = repr(self.variant.model_settings["encoder"])
        key = repr((self.settings, self.shots))
        jobs = [Job(self._score_pixels, key=f"{PIXELS} {key}")]
        if self.settings.frozen:
            jobs.append(Job(self._score_frozen, key=f"{FROZEN} {key}"))
        for number in range(RANDOM_NETWORKS):
            seed = FIRST_RANDOM_SEED + number
            jobs.append(Job(partial(self._score_random, seed, first), key=f"{RANDOM} {seed} {encoder} {key}"))
        return [*jobs, *(Job(partial(self._score, seed), seed) for seed in self.checkpoints)]

    def _score_pixels(self) -> Found:
        return self._by_nearest_mean(PIXELS, 0, lambda images: images.flatten(1))

    def _score_frozen(self) -> Found:
        encoder = AlexNet(FROZEN_PX, self.settings.frozen).eval()
        return self._by_nearest_mean(FROZEN, 0, lambda images: encoder(resize(images, FROZEN_PX)))

    def _score_random(self, seed: int, checkpoint: Path) -> Found:
        """An untrained encoder with batch statistics of all images that it is given together."""
        torch.manual_seed(seed)
        model = load_module(checkpoint, EpisodicMethod, weights=False)  # type: ignore[type-abstract]
        return self._by_nearest_mean(RANDOM, seed, lambda images: model.encode(images).flatten(1))

    def _by_nearest_mean(self, row: str, seed: int, embed: Any) -> Found:
        found: Found = {}
        for shots in self.shots:
            scores = score_features(embed, nearest_mean, self.data, self.episodes(shots))
            for name in (f"{shots}shot", f"{shots}shot_support"):
                found[name] = {row: Outcome([seed], scores[None])}
        return found

    def _score(self, seed: int) -> Found:
        """Scores of one trained model under every protocol."""
        found: Found = {}
        title = self.variant.title
        for shots in self.shots:
            path = self._checkpoint(seed, shots)
            model = load_module(path, EpisodicMethod)  # type: ignore[type-abstract]
            modes = {
                name: protocol.bn_mode or model.bn_modes[0]
                for name, protocol in self.protocols.items()
                if protocol.shots == shots
            }
            about = f"{title}, {self.protocols[f'{shots}shot'].title}"
            scores = score_tasks(model, self.data, self.episodes(shots), modes.values(), about)
            found |= {name: {title: Outcome([seed], scores[mode][None])} for name, mode in modes.items()}
        return found

    def _checkpoint(self, seed: int, shots: int) -> Path:
        """The checkpoint of a seed that `select` asks for."""
        run = self.variant.runs[seed]
        if self.settings.select == "target" and (paths := kept_epochs(run)):
            title = f"{self.variant.title}, seed {seed}, {shots} shots: choose the epoch"
            return choose_checkpoint(paths, self.data, lambda split, count: self.episodes(shots, split, count), title)
        return self.variant.checkpoint(seed, "last" if self.settings.select == "last" else "best")

    @cached_property
    def tested(self) -> Ordered:
        """The tested tasks; those of other numbers of shots have the same queries."""
        return self.episodes(self.shots[0]).all()

    def test_rows(self) -> NDArray[np.int64]:
        """Rows of the images that are classified, task by task; an image may occur in several tasks."""
        return self.tested.query.ravel()

    @property
    def task(self) -> NDArray[np.int64]:
        """`(R,)`, number of each query's task."""
        return np.repeat(np.arange(len(self.tested.query)), len(self.tested.query_label))

    def samples(self) -> tuple[list[str], NDArray[np.int64]]:
        """A query of a task is a sample, `<task>/<image>`, and the queries of a task belong together."""
        ids = self.data.frame["id"].astype(str).to_numpy()[self.test_rows()]
        return [f"{number}/{name}" for number, name in zip(self.task, ids, strict=True)], self.task

    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        """The ways, and the one-hot class of every query."""
        ways, labels = self.settings.ways, np.tile(self.tested.query_label, len(self.tested.query))
        return [f"way {way}" for way in range(ways)], np.eye(ways, dtype=np.float32)[labels]

    def about(self, protocol: Protocol) -> dict[str, Any]:
        """Shots, batch statistics and selection."""
        assert isinstance(protocol, TaskProtocol)
        mode = protocol.bn_mode or self.variant.method.bn_modes[0]
        return {"shots": protocol.shots, "bn_mode": mode, "select": self.settings.select}

    def table(self, found: Found) -> pd.DataFrame:
        """One row for each protocol and method.

        `value` is the accuracy with `std` over the models and its interval `low` to `high`, which is one of drawing
        tasks from these classes, not of other classes; `literature` is the half-width 1.96 s / sqrt(n) that papers
        print; `ece` the expected calibration error; `gain` the paired difference from random init.
        """
        task, (_, target) = self.task, self.target()
        rows = []
        for name, protocol in self.protocols.items():
            values = {row: STATISTICS["accuracy"](outcome, target, task) for row, outcome in found[name].items()}
            for row, outcome in found[name].items():
                point, test = values[row].point, outcome.test
                assert test is not None
                by_task = (test.argmax(2) == target.argmax(1)).reshape(len(test), task.max() + 1, -1).mean(2).mean(0)
                about: dict[str, Any] = {"protocol": name, "title": protocol.title, "method": row, "models": len(point)}
                about |= {"samples": len(task), "tasks": len(by_task), "value": point.mean()}
                about["std"] = point.std(ddof=1) if len(point) > 1 else np.nan
                _, about["low"], about["high"], _ = interval(values[row])
                about["literature"] = 1.96 * by_task.std(ddof=1) / np.sqrt(len(by_task))
                about["ece"] = float(np.mean([_calibration_error(each, target) for each in test]))
                if row == self.variant.title:
                    about |= self.about(protocol)
                if row != RANDOM:
                    gain = difference(values[row], values[RANDOM])
                    about["gain"], about["gain_low"], about["gain_high"], about["gain_p"] = gain
                rows.append(about)
        return pd.DataFrame(rows)

    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        """Accuracy."""
        assert outcome.test is not None
        _, target = self.target()
        return {"accuracy": float((outcome.test.argmax(2) == target.argmax(1)).mean())}

    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        """Accuracy of every row; of the first trained model a few tasks, and what it confuses."""
        name = f"{self.shots[0]}shot"
        test = found[name][self.variant.title].test
        assert test is not None
        prediction = test[0].argmax(1).reshape(len(self.tested.query), -1)
        title = f"{self.variant.title} on {dataset}, {self.protocols[name].title}"
        return {
            "accuracy": draw_results(table.assign(protocol=table["title"]), dataset, METRIC, note),
            "tasks": draw_tasks(
                [self._drawn(task, prediction[task]) for task in range(min(DRAWN, len(prediction)))], title, note
            ),
            "confusions": draw_confusions(confusions(self.tested, prediction, self.data.class_names), title, note),
        }

    def _drawn(self, task: int, prediction: NDArray[np.int64]) -> DrawnTask:
        """A task to draw, with the first examples and two queries of each class."""
        tested, ways = self.tested, self.settings.ways
        example = [int(np.flatnonzero(tested.support_label == way)[0]) for way in range(ways)]
        shown = np.concatenate([np.flatnonzero(tested.query_label == way)[:DRAWN_QUERIES] for way in range(ways)])
        support, query = tested.support[task, example], tested.query[task, shown]
        names = [str(name) for name in self.data.class_names[support]]
        return DrawnTask(names, self.data.cached(support), self.data.cached(query), tested.query_label[shown],
                         prediction[shown])  # fmt: skip

    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        """Print all rows, in percent."""
        print_results(table, dataset, kind)


def confusions(tested: Ordered, prediction: NDArray[np.int64], class_names: NDArray[np.object_]) -> pd.Series:
    """What is taken for what most often, by text such as "wolf as fox".

    Args:
        tested: E tasks of m queries.
        prediction: `(E, m)`, predicted ways.
        class_names: Of every image.

    Returns:
        Shares of the queries of the one class, in tasks that hold both, the largest first.
    """
    ways = int(tested.query_label.max()) + 1
    of_way = np.stack([class_names[tested.query[:, tested.query_label == way][:, 0]] for way in range(ways)], axis=1)
    label = np.broadcast_to(tested.query_label, prediction.shape)
    rates = [
        pd.DataFrame({"true": of_way[:, one], "other": of_way[:, other],
                      "share": ((label == one) & (prediction == other)).sum(1) / (label == one).sum(1)})
        for one in range(ways) for other in range(ways) if one != other
    ]  # fmt: skip
    shares = pd.concat(rates).groupby(["true", "other"])["share"].mean().nlargest(CONFUSIONS)
    return shares.set_axis([f"{true} as {other}" for true, other in shares.index])


def _calibration_error(scores: NDArray[np.float64], target: NDArray[np.float32]) -> float:
    """Expected calibration error of probabilities `(R, N)`, in 15 bins."""
    labels = torch.from_numpy(target.argmax(1))
    return float(multiclass_calibration_error(torch.from_numpy(scores), labels, target.shape[1]))


def last_checkpoints(variant: Variant, which: str) -> dict[int, Path]:
    """The last checkpoint of every seed: it identifies the training, among whose epochs the evaluation chooses."""
    return {seed: variant.checkpoint(seed, "last") for seed in variant.seeds}


def image_size(checkpoints: Mapping[int, Path]) -> dict[str, Any]:
    """The size of the images that models were trained on: another data set's are read at this size too."""
    return {"image_px": saved_image_settings(next(iter(checkpoints.values()))).size}
