"""Cells on a SLURM cluster: one job array for all that are ready, through submitit (an optional dependency)."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from shared.data.problems import DataError
from shared.runs.grid import Cell, Runner
from shared.runs.job import CellJob

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
