"""Two gloo processes that wait for work, so that the tests of what processes do together spawn them once."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WORLD_SIZE = 2


def rows_of(rank: int, global_batch: int) -> slice:
    """The rows of the global batch that the process of this rank sees."""
    share = global_batch // WORLD_SIZE
    return slice(rank * share, (rank + 1) * share)


def call_in_group(rank: int, rendezvous: Path, work: bytes) -> bytes:
    """Runs in the spawned process: calls the pickled function as a member of a new process group."""
    function, arguments = pickle.loads(work)
    dist.init_process_group(
        "gloo", rendezvous.as_uri(), timeout=timedelta(seconds=60), rank=rank, world_size=WORLD_SIZE
    )
    try:
        return pickle.dumps(function(rank, *arguments))
    finally:
        dist.destroy_process_group()


@contextmanager
def two_processes() -> Iterator[Callable[..., list[Any]]]:
    """Yields `run(function, *arguments)`, which returns what `function(rank, *arguments)` returned on rank 0 and 1.

    The processes are spawned at the first call, with one torch thread, and end with the context. Each call has a
    process group of its own, which ends with the call, so a process that waits for one that failed fails as well.
    Their exceptions are raised as an `ExceptionGroup`, each with its process's traceback as its cause. The function is
    found by the name of its module, so the repository's root must be in `sys.path`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        spawn = multiprocessing.get_context("spawn")
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, spawn, torch.set_num_threads, (1,))) for _ in range(WORLD_SIZE)
        ]

        def run(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            # Pickled here and not by the pool, whose pickler moves tensors to shared memory, a file handle each.
            work = pickle.dumps((function, arguments))
            rendezvous = Path(tempfile.mkdtemp(dir=folder), "rendezvous")
            futures = [pool.submit(call_in_group, rank, rendezvous, work) for rank, pool in enumerate(pools)]
            if errors := [error for future in futures if isinstance(error := future.exception(), Exception)]:
                raise ExceptionGroup(f"{function.__name__} failed in {len(errors)} of {WORLD_SIZE} processes", errors)
            return [pickle.loads(future.result()) for future in futures]

        yield run
