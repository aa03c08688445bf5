"""The data module of few-shot classification: images of classes that are split into base, validation and novel."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from meta_robust.data.episodes import (
    EpisodeBatch,
    Episodes,
    Rows,
    Task,
    TaskShape,
    check_enough,
    disjoint_tasks,
    draw_task,
    task_rng,
)
from shared.checkpoint import saved_data_settings
from shared.data.arrays import ArrayCache
from shared.data.images import Fit, ImageSettings, image_cache
from shared.data.module import DataModule
from shared.data.problems import DataError, OnError, Problems
from shared.data.samplers import EpochBatchSampler, TaskSampler, loader_of
from shared.distributed import rank_and_world_size
from shared.runs.settings import read_yaml

log = logging.getLogger(__name__)

PARTS = ("base", "validation", "novel")
GROUPS = Path(__file__).parents[1] / "configs" / "groups"
IMAGE_ARGUMENTS = ("image_px", "fit")  # saved in every checkpoint
EPISODE_SEED = 0  # of validation and test episodes: all methods and all seeds of a method see the same


class ImageBatch(NamedTuple):
    """Labelled images.

    Attributes:
        image: `(B, C, S, S)` uint8.
        label: `(B,)` int64, number of the class among the base classes; -1 for others.
        row: `(B,)` rows of the data module's frame.
    """

    image: Tensor
    label: Tensor
    row: Tensor


class _Images(Dataset[ImageBatch]):
    def __init__(self, data: "FewShotDataModule", rows: Rows) -> None:
        self.data, self.rows = data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Sequence[int]) -> ImageBatch:
        rows = self.rows[positions]
        return ImageBatch(
            torch.from_numpy(self.data.cached(rows)),
            torch.from_numpy(self.data.base_label[rows]),
            torch.from_numpy(rows),
        )


class FewShotDataModule(DataModule[Any]):
    """Images of classes: tasks are drawn from base classes to train on, from validation classes to select on.

    A subclass reads the classes (`read_frame`: `id`, `split`, `class`) and opens the cache of their images. The model
    says in its `setup` which tasks it needs (`shape`, and `trains_on`).

    Args:
        root: Folder of the data set.
        image_px: S, pixels of either side; every image has three channels, grey ones three times the same.
        fit: How images that are not square become so, see `shared.data.images.ImageSettings`.
        updates_per_epoch: Meta-updates of an epoch, of `batch_size` tasks each.
        val_episodes: Validation tasks after each epoch.
        share: Share of the images of each base class that is trained on.
        groups: Groups of base classes by name, each a list of classes, or of what stands before the slash in their
            names (alphabets): a YAML file, or the name of one in configs/groups. A training task is then drawn from one
            group. None draws from all classes.
        batch_size: Tasks of an update.
        image_batch_size: Images of an update, for a method that trains on images of base classes instead.
        on_error: What happens to an image that cannot be read.
        cache_dir: Folder that caches are written to.
        num_workers: Number of loader processes.
        seed: Seed of the training tasks.

    Attributes:
        shape: Size of the training and validation tasks; a model sets it.
        trains_on: Whether the training loader gives tasks or images; a model sets it.
        class_names: `(N,)` class of each image.
        base_classes: Names of the base classes, sorted.
        base_label: `(N,)`, see `ImageBatch.label`.

    Raises:
        ValueError: `share` is not in (0, 1].
    """

    noun = "image"
    splits: ClassVar[tuple[str, str, str]] = PARTS
    file_columns = ("path",)
    group_name = "class"  # a class belongs to one part, so that novel classes are new

    def __init__(
        self,
        root: str,
        image_px: int = 84,
        fit: Fit = "crop",
        updates_per_epoch: int = 250,
        val_episodes: int = 100,
        share: float = 1.0,
        groups: str | None = None,
        batch_size: int = 4,
        image_batch_size: int = 16,
        on_error: OnError = "raise",
        cache_dir: str = "data/cache",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(root, batch_size, on_error, cache_dir, num_workers, seed)
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self.save_hyperparameters(*IMAGE_ARGUMENTS, logger=False)  # Lightning puts them into the checkpoint
        self.image_settings = ImageSettings(image_px, 3, fit)
        self.updates_per_epoch, self.val_episodes = updates_per_epoch, val_episodes
        self.image_batch_size, self.share = image_batch_size, share
        self.groups_file = groups
        self.shape: TaskShape | None = None
        self.trains_on: Literal["tasks", "images"] = "tasks"

    @abstractmethod
    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row an image: `id`, `split` and `class`."""

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        """All images as `(N, 3, S, S)` uint8, from the files in the column `path`."""
        paths, names = frame["path"].tolist(), frame["id"].tolist()
        return image_cache(self.cache_dir / self.name, paths, names, self.image_settings, problems)

    def make_arrays(self, frame: pd.DataFrame, problems: Problems) -> None:
        """Number the base classes, and say what was found."""
        self.class_names: NDArray[np.object_] = frame["class"].to_numpy(dtype=object)
        unknown = sorted(set(self.split) - set(PARTS))
        if unknown:
            raise DataError(f"parts of the split are {', '.join(PARTS)}; {self.root} also has {', '.join(unknown)}")
        base = self.split == PARTS[0]
        self.base_classes = sorted(set(self.class_names[base]))
        numbers = {name: number for number, name in enumerate(self.base_classes)}
        self.base_label = np.array([numbers.get(name, -1) for name in self.class_names], dtype=np.int64)
        counts = frame.groupby("split")["class"].agg(["nunique", "size"])
        said = ", ".join(
            f"{part} {counts['nunique'][part]} ({counts['size'][part]:,} images)"
            for part in PARTS
            if part in counts.index
        )
        log.info("%s: classes %s", self.name, said)

    @cached_property
    def classes(self) -> dict[str, dict[str, Rows]]:
        """By part of the split and class, sorted by name, the rows of the images.

        Of base classes only the share that is trained on, which is the same images for every method and seed.
        """
        found: dict[str, dict[str, Rows]] = {part: {} for part in PARTS}
        rows_of = pd.Series(np.arange(len(self.split))).groupby([self.split, self.class_names])
        for (part, name), series in rows_of:
            rows = series.to_numpy()
            if part == PARTS[0] and self.share < 1:
                kept = max(1, round(self.share * len(rows)))
                rows = np.sort(np.random.default_rng(0).permutation(rows)[:kept])
            found[str(part)][str(name)] = rows
        return found

    @cached_property
    def class_groups(self) -> list[list[Rows]]:
        """The base classes in the groups that tasks are drawn from; without groups, all in one.

        Raises:
            DataError: A group names a class that is not among the base classes.
        """
        classes = self.classes[PARTS[0]]
        if self.groups_file is None:
            return [list(classes.values())]
        named = GROUPS / f"{self.groups_file}.yaml"
        found = []
        for names in read_yaml(named if named.is_file() else Path(self.groups_file)).values():
            # A class is named by itself, or by what stands before its slash, as an alphabet.
            members = [name for name in classes if name in names or name.partition("/")[0] in names]
            absent = sorted(set(names) - set(members) - {name.partition("/")[0] for name in members})
            if absent:
                raise DataError(f"{self.groups_file} names classes that are not base classes: {', '.join(absent)}")
            found.append(members)
        left_out = len(classes) - len({name for members in found for name in members})
        log.info("%s: %d groups of classes; %d classes are in none and left out", self.name, len(found), left_out)
        return [[classes[name] for name in members] for members in found]

    def dataset(self, rows: Rows) -> Dataset[ImageBatch]:
        """Labelled images."""
        return _Images(self, rows)

    def _shape(self) -> TaskShape:
        if self.shape is None:
            raise DataError("the model has not said what tasks it needs (FewShotDataModule.shape)")
        return self.shape

    def train_dataloader(self) -> DataLoader[Any]:
        """Training tasks; or, for a method that trains on images, those of the base classes, shuffled."""
        if self.trains_on == "images":
            rows = np.concatenate(list(self.classes[PARTS[0]].values()))
            return self.loader(rows, train=True, batch_size=self.image_batch_size)
        shape, groups = self._shape(), self.class_groups
        check_enough(self.classes[PARTS[0]], shape, PARTS[0])
        if len(groups) > 1 and min(map(len, groups)) < 2 * shape.ways:
            raise DataError(
                f"{self.groups_file}: a group has {min(map(len, groups))} classes; tasks of {shape.ways} ways need "
                "twice as many, to differ from one another"
            )
        sampler = TaskSampler(self.updates_per_epoch, self.batch_size)
        episodes = Episodes(
            lambda number: draw_task(groups, shape, task_rng(self.seed, 0, number)),
            self.cached,
            lambda number: self.seed * 2**32 + number // self.batch_size,
            sampler.length,
        )
        return loader_of(episodes, sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader[EpisodeBatch]:
        """Validation tasks, the same after each epoch and for every method and seed."""
        return self._in_order(PARTS[1], self.val_episodes)

    def test_dataloader(self) -> DataLoader[EpisodeBatch]:
        """600 tasks of novel classes."""
        return self._in_order(PARTS[2], 600)

    def _in_order(self, split: str, count: int) -> DataLoader[EpisodeBatch]:
        """Tasks one at a time on each process."""
        sampler = EpochBatchSampler(count, rank_and_world_size()[1], shuffle=False)
        return loader_of(self.episodes(split, self._shape(), count), sampler, self.num_workers)

    def episodes(self, split: str, shape: TaskShape, count: int, disjoint: bool = False) -> Episodes:
        """Tasks of validation or novel classes, the same for every method and seed.

        Args:
            split: A part of the classes.
            shape: Size of the tasks.
            count: Number of tasks.
            disjoint: Whether no image is used twice; there may then be fewer tasks.

        Raises:
            DataError: The classes do not suffice, see `check_enough`.
        """
        by_class, place = self.classes[split], PARTS.index(split)
        check_enough(by_class, shape, split)
        groups: Sequence[Sequence[Rows]] = [list(by_class.values())]
        if disjoint:
            tasks = disjoint_tasks(groups[0], shape, task_rng(EPISODE_SEED, place))[:count]
            return Episodes(tasks.__getitem__, self.cached, lambda number: 0, len(tasks))

        def task(number: int) -> Task:
            return draw_task(groups, shape, task_rng(EPISODE_SEED, place, number))

        return Episodes(task, self.cached, lambda number: number, count)

    def content(self) -> Sequence[Any]:
        """Which images are trained on, and in which groups of classes."""
        if self.groups_file is None:
            return (self.share,)
        return (self.share, *(np.concatenate(group) for group in self.class_groups))


def saved_image_settings(checkpoint: str | Path) -> ImageSettings:
    """How the images that a model was trained on were prepared, read from its checkpoint.

    Raises:
        CheckpointError: The file is not a checkpoint of ours, or the training did not use one of these data modules.
    """
    saved = saved_data_settings(checkpoint, IMAGE_ARGUMENTS)
    return ImageSettings(saved["image_px"], 3, saved["fit"])


def check_new_classes(base: Sequence[str], novel: Sequence[str], trained_on: str) -> None:
    """Check that the classes to be tested on were not trained on under the same name, in whatever capitals.

    Raises:
        DataError: Some were.
    """
    known = {name.strip().casefold() for name in base}
    shared = [name for name in novel if name.strip().casefold() in known]
    if shared:
        raise DataError(
            f"{len(shared)} of the classes to be tested on were trained on in {trained_on} (the first is {shared[0]}): "
            "give the novel classes of the target a split without them"
        )
