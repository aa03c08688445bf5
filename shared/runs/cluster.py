"""Cells on a SLURM cluster: one job array for all cells that are ready, through submitit (an optional dependency)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from shared.data.problems import DataError
from shared.runs.grid import Cell, Runner
from shared.runs.job import CellJob

Where = Literal["slurm", "local"]
TIMEOUTS = 100  # after each of which a job goes on from its last finished epoch


@dataclass(frozen=True)
class Slurm:
    """Resources that a cell's job asks for.

    Attributes:
        partition: Partition of the cluster; by default the cluster's own.
        minutes: Time limit of a job. A job that runs out of time, or is preempted, is queued again and resumes from
            its last finished epoch.
        gpus: Number of GPUs per job.
        cpus: Number of CPU cores per job.
        memory_gb: Memory per job in GB; by default the cluster's own.
        at_once: Largest number of the array's jobs that run at a time.
        folder: Folder in which submitit keeps its files and the jobs' output.
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
        where: `slurm`, or `local`, which runs submitit's processes on this machine, for a trial.
        options: Resources that a job asks for.

    Raises:
        DataError: submitit is not installed, or there is no SLURM here.
    """
    try:
        submitit = import_module("submitit")
    except ImportError as error:
        raise DataError("a grid on a cluster needs: pip install submitit") from error
    try:
        # submitit gives up after three time-outs by default, but a long training may need more.
        limit = {"slurm_max_num_timeout": TIMEOUTS} if where == "slurm" else {}
        executor = submitit.AutoExecutor(folder=f"{options.folder}/%j", cluster=where, **limit)
    except RuntimeError as error:
        raise DataError(f"--cluster {where}: {error}") from error
    executor.update_parameters(
        timeout_min=options.minutes, gpus_per_node=options.gpus, cpus_per_task=options.cpus, tasks_per_node=1, nodes=1
    )
    if where == "slurm":
        given = {"slurm_partition": options.partition, "slurm_array_parallelism": options.at_once}
        given |= {"mem_gb": options.memory_gb, "slurm_job_name": "quintet"}
        executor.update_parameters(**{key: value for key, value in given.items() if value is not None})

    def submit(waves: Sequence[Sequence[Cell]]) -> Iterator[tuple[Cell, Any]]:
        """The first wave is one job array; a cell that needs others is a job that depends on theirs."""
        jobs: dict[str, Any] = {}
        for number, wave in enumerate(waves):
            if number == 0:
                jobs |= dict(
                    zip(
                        [cell.name for cell in wave],
                        executor.submit_array([CellJob(cell.command) for cell in wave]),
                        strict=True,
                    )
                )
            for cell in wave:
                if number:
                    needed = [jobs[name] for name in cell.after if name in jobs]
                    if where == "slurm" and needed:
                        ids = ":".join(job.job_id for job in needed)
                        executor.update_parameters(slurm_additional_parameters={"dependency": f"afterok:{ids}"})
                    elif any(job.exception() for job in needed):  # waits for it: there is no scheduler that would
                        continue
                    jobs[cell.name] = executor.submit(CellJob(cell.command))
                yield cell, jobs[cell.name]

    def run_all(waves: Sequence[Sequence[Cell]]) -> dict[str, tuple[str, str]]:
        ended: dict[str, tuple[str, str]] = {}
        failed: set[str] = set()
        submitted: list[tuple[Cell, Any]] = []
        try:
            for cell, job in submit(waves):
                submitted.append((cell, job))
            print(
                f"submitted {len(submitted)} jobs ({submitted[0][1].job_id} ...); Ctrl-C cancels them, the same "
                "command resumes them"
            )
            for cell, job in submitted:
                if failed & set(cell.after):  # it would wait for ever
                    job.cancel()
                    failed.add(cell.name)
                elif error := job.exception():
                    failed.add(cell.name)
                    found = re.search(r"exit status -?\d+", str(error))
                    status = found.group() if found else str(error).strip().splitlines()[0]
                    ended[cell.name] = f"job {job.job_id}, {status}", str(Path(job.paths.stdout))
        except KeyboardInterrupt:
            for _, job in submitted:
                job.cancel()
            raise SystemExit("stopped; the jobs are cancelled, and the same command resumes where they were") from None
        return ended

    return run_all
