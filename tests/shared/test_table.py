"""A grid of runs with tiny real processes, and the table beside the paper's."""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from shared.data.problems import DataError
from shared.runs.table import (
    Cell,
    append_results,
    beside_paper,
    check_flags,
    main,
    missing,
    read_grid,
    run_cells,
    seed_cells,
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


def cell(name: str, verb: str = "fit") -> Cell:
    return Cell(name, Path("runs") / name, ["toy", verb, f"runs/{name}"])


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
    run_cells(cells)
    captured = capfd.readouterr()
    assert captured.out == "fit with None threads\nfit with None threads\n"
    assert "\na\n" in captured.err
    assert "2/2" in captured.err
    assert not list(Path("runs").rglob("log.txt"))
    run_cells(cells)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("2 of 2 runs have finished before and are left as they are\n", "")
    assert [each.folder.joinpath("times.txt").read_text() for each in cells] == ["x", "x"]


def test_several_at_a_time_write_logs_and_share_the_cores(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    cells = [cell("a"), cell("b"), cell("c")]
    run_cells(cells, jobs=2)
    assert capfd.readouterr().out == ""
    assert [each.folder.joinpath("log.txt").read_text() for each in cells] == ["fit with 3 threads\n"] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_cells([cell("d")], jobs=2)
    assert Path("runs/d/log.txt").read_text() == "fit with 1 threads\n"


def test_a_failed_cell_stops_no_other_and_the_error_names_it_and_its_log() -> None:
    cells = [cell("a", "fail"), cell("b"), cell("c", "stop")]
    with pytest.raises(DataError) as error:
        run_cells(cells, jobs=2)
    assert str(error.value) == (
        "2 of 3 runs did not finish:\n"
        "  a (exit status 1): runs/a/log.txt\n"
        "  c (exit status 0): runs/c/log.txt\n"
        "Mend the cause and give the same command again: it runs only what is missing"
    )
    assert Path("runs/a/log.txt").read_text().endswith(" threads\nno such data\n")
    assert missing(cells) == [cells[0], cells[2]]
    run_cells([cell("a"), cell("b"), cell("c")])  # mended
    assert Path("runs/b/times.txt").read_text() == "x"
    assert missing(cells) == []


def test_a_failure_alone_points_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"\A1 of 1 runs did not finish:\n  a \(exit status 1\): its output is above\n"):
        run_cells([cell("a", "fail")])
    assert "no such data" in capfd.readouterr().err


def test_no_job_is_an_error() -> None:
    with pytest.raises(DataError, match=r"\Ajobs is 0; at least 1 run at a time is needed\Z"):
        run_cells([cell("a")], jobs=0)


def test_seeds_lie_where_the_command_line_puts_them() -> None:
    Path("method.yaml").write_text("run: {variant: etp}\nmodel: {}\n")
    Path("data.yaml").write_text("run: {dataset: ptbxl, tags: [real]}\n")
    Path("none.yaml").write_text("trainer: {}\n")
    command = ["toy", "fit", "--config", "method.yaml", "--config=data.yaml", "--config", "none.yaml"]
    (first, second) = seed_cells(command, [0, 7])
    assert first == Cell("etp, seed 0", Path("runs/toy/ptbxl/etp/seed_0"), [*command, "--seed_everything", "0"])
    assert second.folder == Path("runs/toy/ptbxl/etp/seed_7")
    (changed,) = seed_cells([*command, "--run.variant", "mine", "--run.root=elsewhere"], [1])
    assert changed.folder == Path("elsewhere/toy/ptbxl/mine/seed_1")
    with pytest.raises(DataError, match=r"\Ano file absent\.yaml \(--config\)\Z"):
        seed_cells(["toy", "fit", "--config", "absent.yaml"], [0])


def test_the_command_trains_each_seed_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("toy.py").write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path('runs/toy/d/v') / f'seed_{sys.argv[-1]}'\n"
        "(folder / 'results.json').write_text(json.dumps({'fit/epochs': 1}))\n"
        "print(sys.argv[1:])\n"
    )
    options = ["--run.dataset", "d", "--run.variant", "v"]
    main(["--seeds", "0", "1", "--jobs", "2", "--", "toy", "fit", *options])
    logs = [Path(f"runs/toy/d/v/seed_{seed}/log.txt").read_text() for seed in (0, 1)]
    assert logs == [f"{['fit', *options, '--seed_everything', seed]}\n" for seed in ("0", "1")]
    Path("toy.py").write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"\Aerror: 1 of 2 runs did not finish:\n  v, seed 2 \(exit status 3\): "):
        main(["--seeds", "1", "2", "--", "toy", "fit", *options])


def test_each_name_takes_its_place_in_the_command_and_the_first_seed_of_all_comes_first() -> None:
    Path("toy.py").write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path('runs/toy/d') / sys.argv[5] / f'seed_{sys.argv[-1]}'\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'results.json').write_text(json.dumps({'fit/epochs': 1}))\n"
        "with open('order.txt', 'a') as file: print(sys.argv[5], sys.argv[-1], file=file)\n"
    )
    options = ["--run.dataset", "d", "--run.variant", "{}_short"]
    main(["--seeds", "3", "4", "--each", "a", "b", "--", "toy", "fit", *options])
    assert Path("order.txt").read_text() == "a_short 3\nb_short 3\na_short 4\nb_short 4\n"


def test_a_grid_is_every_combination_of_its_values_by_a_name_without_quotes() -> None:
    Path("grid.yaml").write_text("model.lr: [1.0e-3, 0.1]\nmodel.crop: [[0.3, 1.0], null]\n")
    assert read_grid(Path("grid.yaml")) == {
        "lr=0.001,crop=0.3_1.0": ["--model.lr", "0.001", "--model.crop", "[0.3, 1.0]"],
        "lr=0.001,crop=null": ["--model.lr", "0.001", "--model.crop", "null"],
        "lr=0.1,crop=0.3_1.0": ["--model.lr", "0.1", "--model.crop", "[0.3, 1.0]"],
        "lr=0.1,crop=null": ["--model.lr", "0.1", "--model.crop", "null"],
    }
    with pytest.raises(DataError, match=r"^no file absent\.yaml \(--grid\)$"):
        read_grid(Path("absent.yaml"))
    for content in ("model.lr: 0.1\n", "model.lr: []\n", "- 0.1\n", ""):
        Path("grid.yaml").write_text(content)
        with pytest.raises(DataError, match=r"^grid\.yaml is no grid: expected lines such as model\.init_args\."):
            read_grid(Path("grid.yaml"))


def test_every_name_is_trained_with_every_setting_of_its_own_grid() -> None:
    Path("toy.py").write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path('runs/toy/d') / sys.argv[5] / f'seed_{sys.argv[-1]}'\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'results.json').write_text(json.dumps({'fit/epochs': 1}))\n"
        "with open('order.txt', 'a') as file: print(*sys.argv[5:8], file=file)\n"
    )
    Path("grid_a.yaml").write_text("model.lr: [0.1, 0.2]\n")
    Path("grid_b.yaml").write_text("model.tau: [0.9]\n")
    options = ["--run.dataset", "d", "--run.variant", "{}@{setting}"]
    main(["--each", "a", "b", "--grid", "grid_{}.yaml", "--", "toy", "fit", *options])
    assert Path("order.txt").read_text() == (
        "a@lr=0.1 --model.lr 0.1\na@lr=0.2 --model.lr 0.2\nb@tau=0.9 --model.tau 0.9\n"
    )


def test_a_finished_run_with_another_flag_is_not_taken_for_the_one_asked_for() -> None:
    folder = Path("runs/toy/d/v/seed_0")
    write_results(folder, {"fit/epochs": 15})
    model = {"lr": 2e-3, "net": {"a": 1}, "layers": [2, 2]}
    saved = {
        "trainer": {"max_epochs": 15, "accelerator": "cpu"},
        "model": {"init_args": model},
        "threads": 1,
        "run": {"overwrite": False, "dataset": "d", "variant": "v"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    base = ["toy", "fit", "--run.dataset", "d", "--run.variant", "v"]
    same = ["--trainer.max_epochs", "30", "--trainer.max_epochs=15", "--trainer.accelerator", "cpu", "--threads", "2"]
    same += ["--model.init_args.lr", "2e-3", "--run.overwrite", "true", "--model.init_args.net", "some.Class"]
    check_flags(seed_cells([*base, *same, "--model.init_args.layers", "[2, 2]"], [0, 1]))
    with pytest.raises(DataError, match=r"has finished with --model.init_args.layers \[2, 2\], not \[1, 2\]: "):
        check_flags(seed_cells([*base, "--model.init_args.layers=[1, 2]"], [0]))
    with pytest.raises(DataError) as error:
        check_flags(seed_cells([*base, "--trainer.max_epochs", "30"], [0, 1]))
    assert str(error.value) == (
        "v, seed 0 has finished with --trainer.max_epochs 15, not 30: give the new runs another name (make: "
        "SUFFIX=_new), or remove runs/toy/d/v/seed_0"
    )
    with pytest.raises(
        SystemExit, match=r"\Aerror: v, seed 0 has finished with --model.init_args.lr 0.002, not 1e-4: "
    ):
        main(["--seeds", "0", "--", *base, "--model.init_args.lr", "1e-4"])


def test_ours_stand_beside_the_paper_with_deviation_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    paper = {"NORM": {"Random init": {"AUC": 52.7, "F1": 72.8}, "ETP": {"AUC": 71.8}}, "MI": {"ETP": {"AUC": 46.4}}}
    ours = pd.DataFrame(
        {"AUC": [50.04, 81.26, float("nan")], "AUC_std": [1.25, float("nan"), float("nan")]},
        index=pd.MultiIndex.from_tuples([("NORM", "Random init"), ("NORM", "ETP"), ("MI", "ETP")]),
    )
    write_results(Path("runs/a"), {"fit/seconds": 1800.0})
    write_results(Path("runs/b"), {"fit/seconds": 900.0})
    folders = [Path("runs/a"), Path("runs/b"), Path("runs/c")]
    table = beside_paper(ours, paper, folders, "Table 2")
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    assert [column.header for column in table.columns] == ["", "", "AUC\npaper", "\nours", "F1\npaper", "\nours"]
    assert cells == [
        ("NORM", "Random init", "52.7", "50.0 ± 1.2", "72.8", "-"),
        ("", "ETP", "71.8", "81.3", "-", "-"),
        ("MI", "ETP", "46.4", "-", "-", "-"),
    ]
    assert table.caption == "ours: mean ± standard deviation over the models; trained for 0.75 hours in all"
    Console(file=sys.stdout, width=80).print(table)
    assert "Table 2" in capsys.readouterr().out


def test_results_are_appended_with_what_made_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results" / "toy.csv"
    append_results(pd.DataFrame({"method": ["a", "b"], "auroc": [0.5, 0.75]}), path)
    append_results(pd.DataFrame({"method": ["c"], "f1": [0.25]}), path)
    rows = pd.read_csv(path)
    assert rows["method"].tolist() == ["a", "b", "c"]
    assert rows["f1"].isna().tolist() == [True, True, False]
    assert rows[["date", "revision", "hardware", "python", "torch"]].notna().all().all()
    assert capsys.readouterr().out == f"appended 2 rows to {path}\nappended 1 rows to {path}\n"


def test_intervals_and_texts_are_printed_where_there_are_any() -> None:
    ours = pd.DataFrame(
        {"AUC": [80.0, 81.0], "AUC_std": [1.0, 2.0], "AUC_low": [78.0, float("nan")], "AUC_high": [82.0, float("nan")]},
        index=pd.MultiIndex.from_tuples([("set", "a"), ("set", "b")]),
    ).assign(note=["+1", "-2"])
    console = Console(width=100, record=True)
    console.print(beside_paper(ours, {"set": {"a": {"AUC": 70.0}, "b": {"AUC": 71.0}, "c": {}}}, [], texts=["note"]))
    lines = [line.split("│")[2:-1] for line in console.export_text().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["a", "70.0", "80.0 ± 1.0 [78.0, 82.0]", "+1"],
        ["b", "71.0", "81.0 ± 2.0", "-2"],
        ["c", "-", "-", "-"],
    ]
