"""Ratios of two ways of doing the same, timed in turn in one run, and the CSV they go to."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

PAIRS = 7

Rows = list[dict[str, object]]


def ratio(
    name: str,
    unit: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    amount: int,
    pairs: int,
    calls: int = 1,
    other_amount: int | None = None,
) -> dict[str, object]:
    """Time both in turn; the ratio is other / ours, so above 1 ours is faster.

    What is too short to be timed alone is timed over `calls` calls in a row. Where the other way would take too long,
    it does `other_amount` in place of `amount`, and the ratio is that of the times for each.
    """
    ours(), other()  # warm-up: page cache, allocator, threads
    times = []
    for _ in range(pairs):
        pair = []
        for function, count in ((ours, calls), (other, 1)):
            start = time.perf_counter()
            for _ in range(count):
                function()
            pair.append((time.perf_counter() - start) / count)
        times.append(pair)
    taken = np.array(times) / (amount, other_amount or amount)
    ratios = taken[:, 1] / taken[:, 0]
    row: dict[str, object] = {
        "benchmark": name,
        "unit": unit,
        "ours": round(1 / float(np.median(taken[:, 0])), 1),
        "other": round(1 / float(np.median(taken[:, 1])), 1),
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_min": round(float(ratios.min()), 2),
        "ratio_max": round(float(ratios.max()), 2),
    }
    print(f"{name:<82} {row['ratio']:>7} x  ({row['ratio_min']} to {row['ratio_max']})", flush=True)
    return row


def write_rows(rows: Rows, output: Path, **columns: object) -> pd.DataFrame:
    """Write the rows with hardware and versions, and whatever further columns; the file is replaced."""
    table = pd.DataFrame(rows).assign(
        **columns,
        hardware=f"{os.cpu_count()} CPU cores, {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False)
    print(f"wrote {output}")
    return table
