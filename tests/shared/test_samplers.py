"""Batches that depend on (seed, epoch) alone, and ranks that share one global batch."""

from itertools import chain

import numpy as np
import pytest
import torch

from shared.data.samplers import EpochBatchSampler


def epoch_of(sampler: EpochBatchSampler, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = EpochBatchSampler(20, batch_size=4, seed=3)
    epochs = [epoch_of(first, epoch) for epoch in range(3)]
    again = EpochBatchSampler(20, batch_size=4, seed=3)
    assert [epoch_of(again, epoch) for epoch in (2, 0, 1)] == [epochs[2], epochs[0], epochs[1]]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epoch_of(EpochBatchSampler(20, batch_size=4, seed=4), 0) != epochs[0]
    assert epochs[0] == np.random.default_rng((3, 0)).permutation(20).reshape(5, 4).tolist()


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [4, 4]), (False, [4, 4, 2])])
def test_every_item_once_and_the_last_batch_as_asked(drop_last: bool, sizes: list[int]) -> None:
    sampler = EpochBatchSampler(10, batch_size=4, drop_last=drop_last)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == sizes
    assert len(sampler) == len(sizes)
    items = list(chain.from_iterable(batches))
    assert len(set(items)) == len(items)
    assert set(items) <= set(range(10))


def test_without_shuffling_the_order_is_the_items_own() -> None:
    assert list(EpochBatchSampler(5, batch_size=2, shuffle=False, drop_last=False)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_slices_joined_are_one_processs_batches(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    whole = epoch_of(EpochBatchSampler(22, batch_size=8, drop_last=False, seed=1), 5)
    slices = []
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        slices.append(epoch_of(EpochBatchSampler(22, batch_size=8, drop_last=False, seed=1), 5))
    assert [list(chain.from_iterable(parts)) for parts in zip(*slices, strict=True)] == whole
    assert [len(parts[0]) for parts in slices] == [8 // world_size] * world_size


def test_a_global_batch_must_divide_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0, 3)
    with pytest.raises(
        ValueError, match=r"^batch_size is global: 8 does not divide among 3 processes; choose a multiple$"
    ):
        EpochBatchSampler(20, batch_size=8)


def test_too_few_items_for_one_batch_are_an_error_not_an_empty_epoch() -> None:
    with pytest.raises(
        ValueError, match=r"^7 training items do not fill one batch of 8: lower data\.init_args\.batch_size$"
    ):
        EpochBatchSampler(7, batch_size=8)
    assert list(EpochBatchSampler(7, batch_size=8, drop_last=False, shuffle=False)) == [list(range(7))]
