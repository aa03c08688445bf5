"""Cells as jobs, by submitit's local executor: what a job sees, and a job that is preempted. SLURM itself: README."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from shared.data.problems import DataError
from shared.runs.cluster import Slurm, cluster
from shared.runs.grid import Cell, fit_is_done, missing, run_cells
from shared.runs.job import CellJob

submitit = pytest.importorskip("submitit")
from submitit.core.job_environment import JobEnvironment  # noqa: E402

# `toy fit <folder>` says what it sees of SLURM; `toy slow <folder>` is only done when it is started a second time.
TOY = """
import json, os, pathlib, sys, time
verb, folder = sys.argv[1], pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
print("sees", sorted(name for name in os.environ if name.startswith("SLURM_")), flush=True)
started = folder / "started"
if verb == "slow" and not started.exists():
    started.write_text(str(os.getppid()))
    time.sleep(60)
if verb == "fail":
    sys.exit("no such data")
(folder / "results.json").write_text(json.dumps({"fit/epochs": 1}))
"""


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.chdir(tmp_path)


def cell(name: str, verb: str = "fit", after: tuple[str, ...] = ()) -> Cell:
    return Cell(name, Path("runs") / name, ["toy", verb, f"runs/{name}"], {}, fit_is_done, lambda _: "", after)


def test_jobs_run_what_is_missing_without_slurms_variables_and_failures_are_named() -> None:
    cells = [cell("a"), cell("b", "fail")]
    with pytest.raises(DataError) as error:
        run_cells(cells, cluster("local", Slurm(minutes=5)))
    assert [each.name for each in missing(cells)] == ["b"]
    first, failed = str(error.value).splitlines()[:2]
    assert first == "1 of 2 runs did not finish:"
    assert re.fullmatch(r"  b \(job \d+, exit status 1\): .*_log\.out", failed)
    (output,) = [path.read_text() for path in Path("runs/cluster").rglob("*_log.out") if "sees" in path.read_text()][:1]
    assert "sees []" in output


def test_a_cell_that_needs_others_waits_for_them_and_is_not_started_without() -> None:
    cells = [cell("second", after=("first",)), cell("first"), cell("orphan", after=("failed",)), cell("failed", "fail")]
    with pytest.raises(DataError, match=r"orphan \(not started\): it needs one of the others"):
        run_cells(cells, cluster("local", Slurm(minutes=5)))
    assert [each.name for each in missing(cells)] == ["orphan", "failed"]
    assert not Path("runs/orphan").exists()


def test_a_preempted_job_stops_its_process_and_goes_on_when_it_is_started_again() -> None:
    executor = submitit.AutoExecutor(folder="logs", cluster="local")
    executor.update_parameters(timeout_min=5)
    (job,) = executor.submit_array([CellJob(["toy", "slow", "runs/slow"])])
    begun = time.monotonic()
    started = Path("runs/slow/started")
    while not started.exists() or not started.read_text():
        assert time.monotonic() - begun < 60
        time.sleep(0.2)
    os.kill(int(started.read_text()), JobEnvironment._usr_sig())  # as SLURM tells a job that it is preempted
    assert job.result() is None
    assert json.loads(Path("runs/slow/results.json").read_text()) == {"fit/epochs": 1}


def test_without_submitit_or_slurm_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"^--cluster slurm: "):
        cluster("slurm", Slurm())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(DataError, match=r"^a grid on a cluster needs: pip install submitit$"):
        cluster("local", Slurm())
