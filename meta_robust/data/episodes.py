"""Episodes: few-shot tasks that are a function of (seed, split, task number) and of nothing else.

So the same task is seen in one process and in two, before and after a kill, and by every method.

Shapes: T tasks, N ways, K shots, Q queries a class, C channels, S x S pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from shared.data.problems import DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class TaskShape:
    """The size of a task.

    Attributes:
        ways: N, number of classes.
        shots: K, support images a class.
        queries: Q, query images a class.

    Raises:
        ValueError: Fewer than two classes, or fewer than one image on a side.
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15

    def __post_init__(self) -> None:
        if self.ways < 2 or self.shots < 1 or self.queries < 1:
            raise ValueError(
                f"a task needs at least 2 ways, 1 shot and 1 query, got {self.ways}, {self.shots} and {self.queries}"
            )


class EpisodeBatch(NamedTuple):
    """Tasks of one shape.

    Attributes:
        support: `(T, N*K, C, S, S)` uint8 images, class by class.
        query: `(T, N*Q, C, S, S)` uint8 images. They are interleaved: first one of each class, then the next of each.
        support_label: `(T, N*K)` int64 in [0, N), the class's place within the task.
        query_label: `(T, N*Q)`.
        query_row: `(T, N*Q)` rows of the data module's frame.
        group: `(T,)` number of the group of classes that the task was drawn from; 0 without groups.
        seed: `(T,)` int64, for everything else that is drawn for a task.
        update_seed: `(T,)` int64, for what all tasks of an update share.
    """

    support: Tensor
    query: Tensor
    support_label: Tensor
    query_label: Tensor
    query_row: Tensor
    group: Tensor
    seed: Tensor
    update_seed: Tensor


class Task(NamedTuple):
    """Rows of a task's images.

    Attributes:
        support: `(N, K)`.
        query: `(N, Q)`.
        group: Number of the group that the classes were drawn from.
        seed: For what else is drawn for the task.
    """

    support: Rows
    query: Rows
    group: int
    seed: int


class Ordered(NamedTuple):
    """Tasks of one shape, as `EpisodeBatch` orders their images.

    Attributes:
        support: `(T, N*K)` rows.
        query: `(T, N*Q)` rows.
        support_label: `(N*K,)`, the same for all.
        query_label: `(N*Q,)`.
    """

    support: Rows
    query: Rows
    support_label: Rows
    query_label: Rows


def in_order(tasks: Sequence[Task]) -> Ordered:
    """The rows and the classes of tasks' images: the support class by class, the queries one of each class in turn."""
    support = np.stack([task.support.ravel() for task in tasks])
    query = np.stack([task.query.T.ravel() for task in tasks])
    (ways, shots), queries = tasks[0].support.shape, tasks[0].query.shape[1]
    return Ordered(support, query, np.repeat(np.arange(ways), shots), np.tile(np.arange(ways), queries))


def task_rng(seed: int, split: int, *number: int) -> np.random.Generator:
    """The generator of one task, or of one update; `split` is the place of the split among the three."""
    return np.random.default_rng((seed, split, *number))


def draw_task(groups: Sequence[Sequence[Rows]], shape: TaskShape, rng: np.random.Generator) -> Task:
    """Draw classes, their order and their images; tasks of more shots have the same classes and queries.

    Args:
        groups: Groups of classes, of which a task takes one; a class is the rows of its images.
        shape: Size of the task.
        rng: See `task_rng`.
    """
    group = int(rng.integers(len(groups))) if len(groups) > 1 else 0
    classes = rng.choice(len(groups[group]), shape.ways, replace=False)
    seed = int(rng.integers(2**62))
    rows = np.stack([rng.permutation(groups[group][each])[: shape.queries + shape.shots] for each in classes])
    return Task(rows[:, shape.queries :], rows[:, : shape.queries], group, seed)


def disjoint_tasks(classes: Sequence[Rows], shape: TaskShape, rng: np.random.Generator) -> list[Task]:
    """As many tasks as there are images for, no image twice: the classes with the most images left are taken first.

    Args:
        classes: Rows of the images of each class.
        shape: Size of the tasks.
        rng: See `task_rng`.
    """
    need = shape.shots + shape.queries
    left = [rng.permutation(rows) for rows in classes]
    tasks: list[Task] = []
    while True:
        order = sorted(range(len(left)), key=lambda each: (-len(left[each]), rng.random()))[: shape.ways]
        if len(left[order[-1]]) < need:
            return tasks
        order = [order[place] for place in rng.permutation(shape.ways)]
        rows = np.stack([left[each][:need] for each in order])
        for each in order:
            left[each] = left[each][need:]
        tasks.append(Task(rows[:, : shape.shots], rows[:, shape.shots :], 0, int(rng.integers(2**62))))


def check_enough(by_class: dict[str, Rows], shape: TaskShape, split: str) -> None:
    """Check that tasks of a shape can be drawn from the classes of a split.

    Raises:
        DataError: There are fewer classes than ways, or a class has fewer images than shots and queries.
    """
    if len(by_class) < shape.ways:
        raise DataError(f"{shape.ways}-way tasks need {shape.ways} {split} classes, there are {len(by_class)}")
    need = shape.shots + shape.queries
    for name, rows in by_class.items():
        if len(rows) < need:
            raise DataError(
                f"the {split} class {name} has {len(rows)} images, but tasks of {shape.shots} shots and "
                f"{shape.queries} queries need {need}: lower queries (--model.init_args.queries; evaluate: --queries), "
                "or leave the class out of the split"
            )


class Episodes(Dataset[EpisodeBatch]):
    """Tasks by their numbers: `episodes[[3, 4]]` is a batch of two.

    Args:
        task: Gives the task of a number.
        images: Gives the images `(R, C, S, S)` of rows.
        update_seed: Gives, for a task's number, the seed that all tasks of its update share.
        length: Number of tasks.
    """

    def __init__(
        self,
        task: Callable[[int], Task],
        images: Callable[[Rows], NDArray[Any]],
        update_seed: Callable[[int], int],
        length: int,
    ) -> None:
        self.task, self.images, self.update_seed, self.length = task, images, update_seed, length

    def __len__(self) -> int:
        return self.length

    def all(self) -> Ordered:
        """Rows and classes of all tasks, without their images."""
        return in_order([self.task(number) for number in range(self.length)])

    def __getitem__(self, numbers: Sequence[int]) -> EpisodeBatch:
        tasks = [self.task(number) for number in numbers]
        support, query, support_label, query_label = in_order(tasks)
        return EpisodeBatch(
            support=self._gather(support),
            query=self._gather(query),
            support_label=torch.from_numpy(support_label).expand(len(tasks), -1),
            query_label=torch.from_numpy(query_label).expand(len(tasks), -1),
            query_row=torch.from_numpy(query),
            group=torch.tensor([task.group for task in tasks]),
            seed=torch.tensor([task.seed for task in tasks]),
            update_seed=torch.tensor([self.update_seed(number) for number in numbers]),
        )

    def _gather(self, rows: Rows) -> Tensor:
        images = torch.from_numpy(self.images(rows.ravel()))
        return images.view(*rows.shape, *images.shape[1:])
