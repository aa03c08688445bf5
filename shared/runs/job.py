"""What a cluster's job does. A separate module, because every job imports it: it needs neither torch nor Lightning."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

KILL_WAIT = 120  # seconds, more than a cluster leaves between telling a job to stop and killing it


class CellJob:
    """Runs one cell in a process of its own. The object is pickled and sent to the job.

    Args:
        command: What comes after `python -m`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run it.

        `fit` must not see SLURM's variables: Lightning would take SLURM's environment, install a requeue of its own
        and prefer a checkpoint from the middle of an epoch, after which the run would not be the same. A cell is one
        task, so it needs none of them; only submitit requeues it.
        """
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        # A job that is told to stop is queued again or cancelled. The cell's exit status is then not a result, so none
        # is returned before the job is killed.
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))
        self._process = subprocess.Popen([sys.executable, "-m", *self.command], env=env)
        status = self._process.wait()
        if told and status:
            time.sleep(KILL_WAIT)
        if status:  # so that the job fails too, and with it those that depend on it
            raise RuntimeError(f"exit status {status}")

    def checkpoint(self) -> Any:
        """What submitit queues when the job is preempted or runs out of time: the same cell, which resumes."""
        if self._process is not None:  # two processes must not write one run
            self._process.kill()  # without waiting for it: the main thread waits, and holds the lock
        goes_on = ["--run.overwrite", "false"] if self.command[1:2] == ["fit"] else []  # the new run has begun
        return import_module("submitit").helpers.DelayedSubmission(CellJob([*self.command, *goes_on]))
