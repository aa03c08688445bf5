"""Scores of methods on many tasks, and the choice among a run's checkpoints by tasks of validation classes.

Shapes: E tasks, m queries of a task, R = E m queries, N ways, D features.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from meta_robust.data.episodes import Episodes
from meta_robust.data.module import FewShotDataModule
from meta_robust.methods import EpisodicMethod, FeatureMethod
from meta_robust.methods.episodic import class_means, unit
from meta_robust.model.norm import BatchNormMode
from shared.checkpoint import load_module
from shared.progress import progress

log = logging.getLogger(__name__)

Scores = NDArray[np.float64]
FIRST, MORE, FINALISTS = 50, 200, 2  # validation tasks of every checkpoint, and of the best ones
AT_ONCE = 512  # images, or tasks of precomputed features


def score_tasks(
    model: EpisodicMethod,
    data: FewShotDataModule,
    episodes: Episodes,
    bn_modes: Iterable[BatchNormMode],
    title: str = "",
) -> dict[BatchNormMode, Scores]:
    """Class probabilities `(R, N)` of all queries of the tasks, task by task, by whose statistics batch norm uses.

    Args:
        model: In eval mode.
        data: The data that the tasks are drawn from.
        episodes: The tasks.
        bn_modes: Whose statistics; a task is learned once for all of them.
        title: Of a progress bar; none without.
    """
    found: dict[BatchNormMode, Scores] = {}
    by_task = list(dict.fromkeys(bn_modes))
    if isinstance(model, FeatureMethod) and "running" in by_task:
        by_task.remove("running")
        found["running"] = score_features(model.embed, model.classify_features, data, episodes)
    if not by_task:
        return found
    parts: dict[BatchNormMode, list[Tensor]] = {mode: [] for mode in by_task}
    numbers: Sequence[int] = range(len(episodes))
    for number in progress(numbers, title, "task") if title else numbers:
        task = episodes[[number]]
        ways = int(task.query_label.max()) + 1
        classifier = model.task_classifier(unit(task.support[0]), task.support_label[0], ways)
        query = unit(task.query[0])
        for mode, each in parts.items():
            each.append(classifier(query, mode).softmax(1).double())
    return found | {mode: torch.cat(each).numpy() for mode, each in parts.items()}


def score_features(
    embed: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor, Tensor, Tensor, int], Tensor],
    data: FewShotDataModule,
    episodes: Episodes,
) -> Scores:
    """As `score_tasks`, for features that do not depend on the task: every image is encoded once.

    Args:
        embed: Images `(B, 3, S, S)` in [0, 1] to features `(B, D)`.
        classify: Features of support, labels, features of queries, and N, to logits `(E, m, N)`.
        data: The data that the tasks are drawn from.
        episodes: The tasks.
    """
    support, query, support_label, query_label = episodes.all()
    ways = int(query_label.max()) + 1
    rows, places = np.unique(np.concatenate([support.ravel(), query.ravel()]), return_inverse=True)
    with torch.no_grad():
        parts = np.array_split(rows, max(1, len(rows) // AT_ONCE))
        features = torch.cat([embed(unit(torch.from_numpy(data.cached(part)))) for part in parts])
    at = [torch.from_numpy(part) for part in (places[: support.size], places[support.size :])]
    at = [part.view(side.shape) for part, side in zip(at, (support, query), strict=True)]
    labels = torch.from_numpy(support_label)
    found = []
    for some_support, some_query in zip(at[0].split(AT_ONCE // 8), at[1].split(AT_ONCE // 8), strict=True):
        logits = classify(features[some_support], labels.expand(len(some_support), -1), features[some_query], ways)
        found.append(logits.double().softmax(2).flatten(0, 1))
    return torch.cat(found).numpy()


def nearest_mean(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    """Logits of a classifier without training: cosine with the class means of centred features of length 1."""
    centre = support.mean(1, keepdim=True)
    support, query = F.normalize(support - centre, dim=2), F.normalize(query - centre, dim=2)
    return 10 * query @ F.normalize(class_means(support, labels, ways), dim=2).mT


def choose_checkpoint(
    paths: Sequence[Path], data: FewShotDataModule, episodes_of: Callable[[str, int], Episodes], title: str
) -> Path:
    """The checkpoint that is best on tasks of the validation classes: on a few, then the best ones on more.

    Args:
        paths: The checkpoints.
        data: The target's data.
        episodes_of: Gives the tasks of a part of the classes, and how many.
        title: Of a progress bar.
    """
    if len(paths) == 1:
        return paths[0]

    def accuracy(path: Path, episodes: Episodes) -> float:
        model = load_module(path, EpisodicMethod)  # type: ignore[type-abstract]
        mode = model.bn_modes[0]
        scores = score_tasks(model, data, episodes, [mode])[mode]
        labels = np.tile(episodes.all().query_label, len(episodes))
        return float((scores.argmax(1) == labels).mean())

    few, more = episodes_of("validation", FIRST), episodes_of("validation", FIRST + MORE)
    found = [accuracy(path, few) for path in progress(paths, title, "checkpoint")]
    best = sorted(range(len(paths)), key=lambda place: -found[place])[:FINALISTS]
    final = {paths[place]: accuracy(paths[place], more) for place in best}
    chosen = max(final, key=lambda path: final[path])
    log.info("%s: %s, %.1f%% on %d validation tasks", title, chosen, 100 * final[chosen], len(more))
    return chosen
