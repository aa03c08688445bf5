"""Batch samplers whose order depends on (seed, epoch) alone, so that a resumed run sees the same batches."""

from collections.abc import Iterator, Sized
from typing import TypeVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

BatchT = TypeVar("BatchT")


class EpochBatchSampler(Sampler[list[int]]):
    """Yields lists of indices; the order is a function of `(seed, epoch)` and of nothing else.

    Pass it as `DataLoader(dataset, sampler=..., batch_size=None)`, so that the data set gathers a whole batch at
    once. Lightning calls `set_epoch`. Under distributed training every rank takes its slice of the same global
    batch: the ranks' batches, joined in rank order, are the batch that one process would see.

    Args:
        length: Number of items.
        batch_size: Global batch size; divided among the ranks.
        shuffle: Whether to permute the items each epoch.
        drop_last: Drop the last incomplete global batch. Without it, a batch that does not divide among the ranks
            gives some ranks an item less.
        seed: Seed of the permutation.

    Raises:
        ValueError: If the batch size is not divisible by the number of ranks, or no batch can be formed.

    Example:
        >>> sampler = EpochBatchSampler(5, batch_size=2, shuffle=False, drop_last=False)
        >>> list(sampler)
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, length: int, batch_size: int, shuffle: bool = True, drop_last: bool = True, seed: int = 0
    ) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.world_size = torch.distributed.get_world_size() if distributed else 1
        self.rank = torch.distributed.get_rank() if distributed else 0
        if batch_size % self.world_size:
            raise ValueError(
                f"batch_size is global: {batch_size} does not divide among {self.world_size} processes; "
                "choose a multiple"
            )
        if drop_last and length < batch_size:
            raise ValueError(
                f"{length} training items do not fill one batch of {batch_size}: lower data.init_args.batch_size"
            )
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for batch in range(len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield np.array_split(indices, self.world_size)[self.rank].tolist()


class TaskSampler(EpochBatchSampler):
    """Yields lists of task numbers that go on over the epochs, so that a task is a function of (seed, number) alone.

    Args:
        updates: Number of lists in an epoch.
        batch_size: Tasks of a list over all ranks.

    Raises:
        ValueError: As `EpochBatchSampler`.

    Example:
        >>> sampler = TaskSampler(updates=2, batch_size=2)
        >>> sampler.set_epoch(3)
        >>> list(sampler)
        [[12, 13], [14, 15]]
    """

    def __init__(self, updates: int, batch_size: int) -> None:
        super().__init__(updates * batch_size, batch_size, shuffle=False)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield [self.epoch * self.length + number for number in batch]


def loader_of(dataset: Dataset[BatchT], sampler: Sampler[list[int]], num_workers: int = 0) -> DataLoader[BatchT]:
    """Batches of a data set that gathers a whole batch at once, from the lists of a sampler."""
    return DataLoader(
        dataset=dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )


def batch_loader(
    dataset: Dataset[BatchT], batch_size: int, train: bool, seed: int = 0, num_workers: int = 0
) -> DataLoader[BatchT]:
    """Batches of a data set that gathers a whole batch at once, from a list of positions.

    Args:
        dataset: `dataset[positions]` is a batch.
        batch_size: Global batch size.
        train: Shuffled by (seed, epoch), without the last incomplete batch; otherwise all items in their order.
        seed: Of the order.
        num_workers: Loader processes.
    """
    length = len(cast(Sized, dataset))
    sampler = EpochBatchSampler(length, batch_size, shuffle=train, drop_last=train, seed=seed)
    return loader_of(dataset, sampler, num_workers)
