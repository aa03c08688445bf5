"""A training in a process of its own, killed with SIGKILL in mid-epoch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd


def finished_epochs(folder: Path) -> int:
    """Number of epochs that a run has logged."""
    try:
        return int(pd.read_csv(folder / "metrics.csv")["train/loss"].notna().sum())
    except (FileNotFoundError, KeyError, pd.errors.EmptyDataError):
        return 0


def kill_after(epochs: int, package: str, arguments: list[str], folder: Path) -> None:
    """Run the command in a process of its own, and kill it once it is past `epochs`, in the middle of the next."""
    process = subprocess.Popen(
        [sys.executable, "-m", package, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # other tests run beside it
    )
    deadline = time.monotonic() + 90
    try:
        while finished_epochs(folder) < epochs:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
