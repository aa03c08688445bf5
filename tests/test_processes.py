"""The helper for tests of two processes itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.processes import rows_of

TwoProcesses = Callable[..., list[Any]]


def total_of_rows(rank: int, x: torch.Tensor) -> tuple[float, int]:
    total = x[rows_of(rank, len(x))].sum()
    dist.all_reduce(total)
    return total.item(), torch.get_num_threads()


def fail_on_rank_1(rank: int) -> None:
    if rank == 1:
        raise ValueError("rank 1 has no data")
    dist.barrier()


def test_both_run_the_function_in_one_group_and_errors_come_back_with_their_tracebacks(
    two_processes: TwoProcesses,
) -> None:
    x = torch.arange(6.0)
    assert two_processes(total_of_rows, x) == [(15.0, 1)] * 2
    with pytest.raises(ExceptionGroup, match=r"^fail_on_rank_1 failed in 2 of 2 processes") as error:
        two_processes(fail_on_rank_1)
    waiting, failed = error.value.exceptions
    assert isinstance(waiting, RuntimeError)  # at once: it does not wait until the group's timeout
    assert repr(failed) == "ValueError('rank 1 has no data')"
    assert 'raise ValueError("rank 1 has no data")' in str(failed.__cause__)
    assert two_processes(total_of_rows, x) == [(15.0, 1)] * 2  # and they can go on
