"""Cells on a SLURM cluster: one job array for all that are ready, through submitit (an optional dependency)."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from shared.data.problems import DataError
from shared.runs.grid import Cell, Runner

Where = Literal["slurm", "local"]


@dataclass(frozen=True)
class Slurm:
    """What a cell's job asks for.

    Attributes:
        partition: Of the cluster; its default if none is given.
        minutes: At most. A job that runs out of time, or is preempted, is queued again and goes on from its last
            finished epoch.
        gpus: Of a job.
        cpus: Of a job.
        memory_gb: Of a job; the cluster's default if none is given.
        at_once: Jobs of the array that may run at a time.
        folder: Where submitit keeps its files and the jobs' output.
    """

    partition: str | None = None
    minutes: int = 720
    gpus: int = 0
    cpus: int = 4
    memory_gb: int | None = None
    at_once: int = 256
    folder: str = "runs/cluster"


class CellJob:
    """Runs one cell in a process of its own; travels to the job.

    Args:
        command: What comes after `python -m`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run it, and return its exit status.

        `fit` must not see SLURM's variables: Lightning would take SLURM's environment, install a requeue of its own
        and prefer a checkpoint from the middle of an epoch, after which the run would not be the same. A cell is one
        task, so nothing of them is needed; submitit alone requeues.
        """
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        self._process = subprocess.Popen([sys.executable, "-m", *self.command], env=env)
        return self._process.wait()

    def checkpoint(self) -> Any:
        """What submitit queues when the job is preempted or out of time: the same cell, which resumes."""
        if self._process is not None:  # two processes must not write one run
            self._process.kill()
            self._process.wait()
        return import_module("submitit").helpers.DelayedSubmission(CellJob(self.command))


def cluster(where: Where, options: Slurm) -> Runner:
    """Runs cells as jobs, and waits for them. Ctrl-C cancels those that have not finished.

    Args:
        where: `slurm`, or `local`: submitit's processes on this machine, to try it.
        options: What a job asks for.

    Raises:
        DataError: submitit is not installed, or there is no SLURM here.
    """
    try:
        submitit = import_module("submitit")
    except ImportError as error:
        raise DataError("a grid on a cluster needs: pip install submitit") from error
    try:
        executor = submitit.AutoExecutor(folder=f"{options.folder}/%j", cluster=where)
    except RuntimeError as error:
        raise DataError(f"--cluster {where}: {error}") from error
    executor.update_parameters(
        timeout_min=options.minutes, gpus_per_node=options.gpus, cpus_per_task=options.cpus, tasks_per_node=1, nodes=1
    )
    if where == "slurm":
        given = {"slurm_partition": options.partition, "slurm_array_parallelism": options.at_once}
        given |= {"mem_gb": options.memory_gb, "slurm_job_name": "quintet"}
        executor.update_parameters(**{key: value for key, value in given.items() if value is not None})

    def run_all(cells: Sequence[Cell]) -> dict[str, tuple[str, str]]:
        jobs = executor.submit_array([CellJob(cell.command) for cell in cells])
        print(f"submitted {len(jobs)} jobs ({jobs[0].job_id} ...); Ctrl-C cancels them, the same command goes on")
        ended: dict[str, tuple[str, str]] = {}
        try:
            for cell, job in zip(cells, jobs, strict=True):
                try:
                    status = f"exit status {job.result()}"
                except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
                    status = f"job {job.job_id} {job.state}, {str(error).splitlines()[0]}"
                ended[cell.name] = status, str(Path(job.paths.stdout))
        except KeyboardInterrupt:
            for job in jobs:
                job.cancel()
            raise SystemExit("stopped; the jobs are cancelled, and the same command goes on where they were") from None
        return ended

    return run_all
