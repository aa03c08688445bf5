"""A grid of cells with tiny real processes: what runs, in what order, what is refused, what is said."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from pytorch_lightning.cli import LightningArgumentParser
from torch.utils.data import Dataset

from shared.cli import Composed
from shared.data.module import DataModule
from shared.data.problems import DataError, Problems
from shared.runs.grid import (
    Cell,
    data_fingerprint,
    fit_cells,
    fit_is_done,
    here,
    missing,
    run_cells,
    waves,
    write_settings,
)

# Stands for a package: `toy fit <folder>` writes a finished run's results.json; `toy stop` and `toy fail` do not.
TOY = """
import json, os, pathlib, sys
verb, folder = sys.argv[1], pathlib.Path(sys.argv[2])
print(verb, "with", os.environ.get("OMP_NUM_THREADS"), "threads", flush=True)
if verb == "fail":
    sys.exit("no such data")
folder.mkdir(parents=True, exist_ok=True)
times = folder / "times.txt"
times.write_text(times.read_text() + "x" if times.is_file() else "x")
if verb == "fit":
    (folder / "results.json").write_text(json.dumps({"fit/epochs": 1, "fit/seconds": 1800.0}))
"""


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.chdir(tmp_path)


def cell(name: str, verb: str = "fit", after: tuple[str, ...] = ()) -> Cell:
    folder = Path("runs") / name
    return Cell(name, folder, ["toy", verb, str(folder)], {}, fit_is_done, lambda _: "", after)


def write_results(folder: Path, results: dict[str, float]) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))


def test_a_cell_is_missing_until_its_results_say_that_the_training_has_finished() -> None:
    cells = [cell("none"), cell("interrupted"), cell("done")]
    write_results(cells[1].folder, {"zero_shot/auroc": 0.5})
    write_results(cells[2].folder, {"fit/epochs": 3})
    assert [each.name for each in missing(cells)] == ["none", "interrupted"]


def test_one_at_a_time_writes_to_the_terminal_and_a_second_call_runs_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    cells = [cell("a"), cell("b")]
    run_cells(cells, here())
    captured = capfd.readouterr()
    assert captured.out == "fit with None threads\nfit with None threads\n"
    assert "\na\n" in captured.err
    assert "2/2" in captured.err
    assert not list(Path("runs").rglob("log.txt"))
    run_cells(cells, here())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("2 of 2 runs have already finished and are left as they are\n", "")
    assert [each.folder.joinpath("times.txt").read_text() for each in cells] == ["x", "x"]


def test_several_at_a_time_write_logs_and_share_the_cores(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    cells = [cell("a"), cell("b"), cell("c")]
    run_cells(cells, here(2))
    assert capfd.readouterr().out == ""
    assert [each.folder.joinpath("log.txt").read_text() for each in cells] == ["fit with 3 threads\n"] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_cells([cell("d")], here(2))
    assert Path("runs/d/log.txt").read_text() == "fit with 1 threads\n"


def test_a_failed_cell_stops_no_other_and_the_error_names_it_and_its_log() -> None:
    cells = [cell("a", "fail"), cell("b"), cell("c", "stop")]
    with pytest.raises(DataError) as error:
        run_cells(cells, here(2))
    assert str(error.value) == (
        "2 of 3 runs did not finish:\n"
        "  a (exit status 1): runs/a/log.txt\n"
        "  c (exit status 0): runs/c/log.txt\n"
        "Fix the cause and give the same command again: it runs only what is missing"
    )
    assert Path("runs/a/log.txt").read_text().endswith(" threads\nno such data\n")
    assert missing(cells) == [cells[0], cells[2]]
    run_cells([cell("a"), cell("b"), cell("c")], here())  # fixed
    assert Path("runs/b/times.txt").read_text() == "x"
    assert missing(cells) == []


def test_a_failure_alone_points_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"\A1 of 1 runs did not finish:\n  a \(exit status 1\): its output is above\n"):
        run_cells([cell("a", "fail")], here())
    assert "no such data" in capfd.readouterr().err


def test_no_job_is_an_error() -> None:
    with pytest.raises(DataError, match=r"\Ajobs is 0; at least 1 run at a time is needed\Z"):
        here(0)


def test_a_cell_that_needs_another_runs_after_it_and_not_without_it() -> None:
    second, first = cell("second", after=("first",)), cell("first")
    assert [[each.name for each in wave] for wave in waves([second, first])] == [["first"], ["second"]]
    with pytest.raises(DataError) as error:
        run_cells([second, cell("first", "fail")], here(2))
    assert str(error.value).splitlines()[1:3] == [
        "  second (not started): it needs one of the others",
        "  first (exit status 1): runs/first/log.txt",
    ]
    assert not second.folder.exists()
    run_cells([second, first], here(2))
    assert missing([first, second]) == []


def test_cells_that_can_never_run_are_an_error() -> None:
    with pytest.raises(DataError, match=r"^a needs b, which is not in the grid$"):
        waves([cell("a", after=("b",))])
    with pytest.raises(DataError, match=r"^these cells need one another: a, b$"):
        waves([cell("a", after=("b",)), cell("b", after=("a",))])


def test_a_verbs_cell_is_done_when_its_settings_are_written_and_others_are_refused() -> None:
    def embedding(settings: dict[str, object]) -> Cell:
        return Cell("embedding", Path("runs/embedding"), ["toy", "stop", "runs/embedding"], settings)

    assert missing([embedding({"px": 64})])
    write_settings(Path("runs/embedding"), {"px": 64, "root": "here", "model": {"name": "a", "layers": [1, 2]}})
    run_cells([embedding({"px": 64, "root": "there", "model": {"name": "a", "layers": [1, 2]}})], here())
    with pytest.raises(DataError) as error:
        run_cells([embedding({"px": 96, "model": {"name": "a", "layers": [1, 2]}, "crop": True})], here())
    assert str(error.value) == (
        "embedding has finished in runs/embedding with other settings (- saved, + asked for):\n"
        "- px: 64\n+ px: 96\n+ crop: true\n"
        "Give the new runs names of their own (make: SUFFIX=_new; for a single run: --run.variant NAME), or remove "
        "that folder"
    )
    assert yaml.safe_load(Path("runs/embedding/settings.yaml").read_text())["px"] == 64


class Table(DataModule[Any]):
    """A table without anything else."""

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        return pd.read_csv(self.root / "table.csv", dtype=str)

    def dataset(self, rows: NDArray[np.int64]) -> Dataset[Any]:
        raise NotImplementedError


def test_finished_trainings_are_left_alone_only_while_the_data_at_their_root_are_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Path("table.csv")
    table.write_text("id,split\n1,train\n2,val\n3,test\n")
    settings = {"data": {"class_path": f"{__name__}.Table", "init_args": {"root": "."}}}
    composed = Composed(Path("runs/a"), settings, False, cast(LightningArgumentParser, None))

    def cells() -> list[Cell]:
        return fit_cells("toy", "a", ["--a"], composed, [3, 4], cache(data_fingerprint))

    for each in cells():
        write_results(each.folder, {"fit/epochs": 1})
        (each.folder / "config.yaml").write_text(yaml.safe_dump(dict(each.settings)))
        data = Table(".")
        data.setup()
        data.save(each.folder)
    run_cells(cells(), here())
    assert capsys.readouterr().out == "2 of 2 runs have already finished and are left as they are\n"

    before = data.fingerprint()
    table.write_text("id,split\n1,train\n3,test\n")
    now = data_fingerprint(json.dumps(settings["data"]))
    assert now != before
    with pytest.raises(DataError) as error:
        run_cells(cells(), here())
    assert str(error.value) == (
        "a, seed 3 has finished in runs/a/seed_3 with other settings (- saved, + asked for):\n"
        f"- data, content: {before}\n+ data, content: {now}\n"
        "Give the new runs names of their own (make: SUFFIX=_new; for a single run: --run.variant NAME), or remove "
        "that folder"
    )
    assert json.loads(Path("runs/a/seed_3/data.json").read_text()) == {"fingerprint": before}
