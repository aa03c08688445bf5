"""A paper's table as a grid of runs: run the cells that are missing, print the paper's numbers beside ours.

    python -m shared.table --seeds 0 1 2 --jobs 2 --each simclr byol -- ecg_text fit --config methods/{}.yaml ...

trains what is missing of two methods and three seeds, two runs at a time. `--grid FILE` tries every combination of a
file's values; `{setting}` in the command is then the combination's name.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from rich.table import Table
from tqdm import tqdm

from shared.callbacks import environment, read_results
from shared.cli import NO_SETTINGS, RunOptions
from shared.data.problems import DataError

# By group (e.g. a class or a data set), row (a method) and column (a metric).
PaperValues = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        name: What progress and errors call it.
        folder: The run's folder. The cell is done when `results.json` there has `fit/epochs`.
        command: What comes after `python -m`: module and arguments.
    """

    name: str
    folder: Path
    command: list[str]


def missing(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that have not finished, in their order."""
    return [cell for cell in cells if "fit/epochs" not in read_results(cell.folder)]


def run_cells(cells: Sequence[Cell], jobs: int = 1) -> None:
    """Run the missing cells, each in a process of its own; a cell that fails does not stop the others.

    Args:
        cells: The grid. Finished cells are left as they are, whatever their settings.
        jobs: How many run at a time. One alone writes to the terminal, several to `<folder>/log.txt` each, and share
            the CPU cores by `OMP_NUM_THREADS` where that is not set already.

    Raises:
        DataError: Some cells did not finish; it names each of them and its log.
    """
    if jobs < 1:
        raise DataError(f"jobs is {jobs}; at least 1 run at a time is needed")
    todo = missing(cells)
    if len(todo) < len(cells):
        print(f"{len(cells) - len(todo)} of {len(cells)} runs have finished before and are left as they are")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with tqdm(total=len(todo), desc="runs", unit="run", disable=not todo) as bar:

        def run(cell: Cell) -> int:
            command = [sys.executable, "-m", *cell.command]
            if jobs == 1:
                print(f"\n{cell.name}", file=sys.stderr, flush=True)  # below the bar, above the run's own output
                status = subprocess.run(command, check=False).returncode
            else:
                cell.folder.mkdir(parents=True, exist_ok=True)
                with (cell.folder / "log.txt").open("w") as log:
                    env = {"OMP_NUM_THREADS": threads, **os.environ}
                    status = subprocess.run(command, stdout=log, stderr=log, env=env, check=False).returncode
            bar.update()
            return status

        with ThreadPoolExecutor(jobs) as pool:
            # Stopped by Ctrl-C, `map` cancels the runs that have not begun.
            statuses = dict(zip([cell.name for cell in todo], pool.map(run, todo), strict=True))
    failed = missing(todo)
    if failed:
        where = {cell.name: cell.folder / "log.txt" if jobs > 1 else "its output is above" for cell in failed}
        lines = [f"  {name} (exit status {statuses[name]}): {log}" for name, log in where.items()]
        raise DataError(
            f"{len(failed)} of {len(cells)} runs did not finish:\n" + "\n".join(lines) + "\n"
            "Mend the cause and give the same command again: it runs only what is missing"
        )


def seed_cells(command: Sequence[str], seeds: Iterable[int]) -> list[Cell]:
    """Cells of `<package> fit --config ...`, one for each seed, in the folders that `shared.cli.QuintetCLI` fixes."""
    run: dict[str, Any] = vars(RunOptions())
    for flag, value in itertools.pairwise(_words(command)):
        if flag == "--config":
            if not Path(value).is_file():
                raise DataError(f"no file {value} (--config)")
            run |= yaml.safe_load(Path(value).read_text(encoding="utf-8")).get("run") or {}
        elif flag.startswith("--run."):
            run[flag.removeprefix("--run.")] = value
    folder = Path(run["root"]) / command[0] / run["dataset"] / run["variant"]
    return [
        Cell(f"{run['variant']}, seed {seed}", folder / f"seed_{seed}", [*command, "--seed_everything", str(seed)])
        for seed in seeds
    ]


def read_grid(path: Path) -> dict[str, list[str]]:
    """Every combination of a grid's values: its name, and the flags that set it.

    Args:
        path: YAML, by setting a list of its values: `model.init_args.temperature: [0.1, 0.5]`.

    Raises:
        DataError: There is no such file, or it is no grid.
    """
    if not path.is_file():
        raise DataError(f"no file {path} (--grid)")
    grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise DataError(f"{path} is no grid: expected lines such as model.init_args.temperature: [0.1, 0.5]")
    found = {}
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, map(json.dumps, values), strict=True))
        # The name becomes a folder's: only what needs no quotes in a shell.
        plain = {key.rpartition(".")[2]: re.sub(r"[^\w.-]+", "_", value).strip("_") for key, value in setting.items()}
        name = ",".join(f"{key}={value}" for key, value in plain.items())
        found[name] = [word for key, value in setting.items() for word in (f"--{key}", value)]
    return found


def check_flags(cells: Iterable[Cell]) -> None:
    """Compare the flags of finished cells' commands with what they were trained with.

    Raises:
        DataError: A finished cell has another value, so it is not what is asked for.
    """
    for cell in cells:
        saved_file = cell.folder / "config.yaml"
        if not saved_file.is_file() or "fit/epochs" not in read_results(cell.folder):
            continue
        saved = yaml.safe_load(saved_file.read_text(encoding="utf-8"))
        for flag, value in _flags(cell.command).items():
            found: Any = saved
            for key in flag.split("."):
                found = found.get(key) if isinstance(found, dict) else None
            if flag not in NO_SETTINGS and not _same(found, value):
                raise DataError(
                    f"{cell.name} has finished with --{flag} {found}, not {value}: give the new runs another name "
                    f"(make: SUFFIX=_new), or remove {cell.folder}"
                )


def _flags(command: Sequence[str]) -> dict[str, str]:
    """Values by flag; the last one of a flag counts."""
    pairs = itertools.pairwise(_words(command))
    return {flag.removeprefix("--"): value for flag, value in pairs if flag.startswith("--")}


def _words(command: Sequence[str]) -> list[str]:
    """The command with `--flag=value` as two words."""
    return [part for word in command for part in (word.split("=", 1) if word.startswith("--") else [word])]


def _same(saved: Any, given: str) -> bool:
    """Whether a flag's text means the saved value. A class given by its name alone is taken for the same."""
    if saved is None or isinstance(saved, dict):
        return True
    if isinstance(saved, int | float) and not isinstance(saved, bool):
        try:
            return float(given) == saved
        except ValueError:
            return False
    return bool(yaml.safe_load(given) == saved) or given == str(saved)


def beside_paper(
    ours: pd.DataFrame,
    paper: PaperValues,
    folders: Iterable[Path],
    title: str = "",
    texts: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Table:
    """The paper's values, and beside each ours with its standard deviation.

    Args:
        ours: A row for each (group, row) and, for each of the paper's columns, `<column>` and `<column>_std`, in the
            paper's unit. What is not there, or NaN, is printed as `-`; so the paper's table may be wider than ours.
            `<column>_low` and `<column>_high`, where they are, are printed as an interval.
        paper: As printed.
        folders: Of the runs behind `ours`, for the hours they took.
        title: Of the table.
        texts: Columns of `ours` to print as they are, after the others.
        columns: Of the table; by default those that the paper has.
    """
    columns = columns or list(
        dict.fromkeys(key for rows in paper.values() for values in rows.values() for key in values)
    )
    table = Table(title=title)
    table.add_column("")
    table.add_column("")
    for column in columns:
        table.add_column(f"{column}\npaper", justify="right")
        table.add_column("\nours", justify="right", style="bold")
    for column in texts:
        table.add_column(column, justify="right")
    found: dict[Any, dict[Any, Any]] = ours.to_dict("index")
    for group, rows in paper.items():
        for index, (row, values) in enumerate(rows.items()):
            mine = found.get((group, row), {})
            cells = []
            for column in columns:
                cells.append(f"{values[column]:.1f}" if column in values else "-")
                cells.append(_value(mine, column) if column in mine else "-")
            cells += [str(mine.get(column, "-")) for column in texts]
            table.add_row(group if index == 0 else "", row, *cells)
        table.add_section()
    hours = sum(read_results(folder).get("fit/seconds", 0.0) for folder in folders) / 3600
    table.caption = f"ours: mean ± standard deviation over the models; trained for {hours:.2f} hours in all"
    return table


def _value(row: dict[Any, Any], column: str) -> str:
    mean, deviation = row[column], row[f"{column}_std"]
    if pd.isna(mean):
        return "-"
    text = f"{mean:.1f}" if pd.isna(deviation) else f"{mean:.1f} ± {deviation:.1f}"
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return text if low is None or pd.isna(low) else f"{text} \\[{low:.1f}, {high:.1f}]"  # \\[ is no markup for rich


def by_sign(rows: pd.DataFrame, key: str) -> tuple[str, str, str]:
    """Methods whose difference `key` is beyond noise above 0, beyond noise below it, and neither; in percent points.

    Args:
        rows: `method`, and the difference as `<key>` with its interval `<key>_low` to `<key>_high`, as fractions.
        key: Rows without the difference are left out.
    """
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    for row in rows.to_dict("records"):
        if not pd.isna(row.get(key)):
            group = 0 if row[f"{key}_low"] > 0 else 1 if row[f"{key}_high"] < 0 else 2
            groups[group].append(f"{row['method']} ({100 * row[key]:+.1f})")
    above, below, alike = (", ".join(names) or "none" for names in groups)
    return above, below, alike


def difference(row: Mapping[Any, Any], key: str) -> str:
    """A difference in percent points with its interval, or a dash."""
    value = row.get(key)
    if value is None or pd.isna(value):
        return "-"
    return f"{100 * value:+.1f} \\[{100 * row[f'{key}_low']:.1f}, {100 * row[f'{key}_high']:.1f}]"


def append_results(rows: pd.DataFrame, path: Path) -> None:
    """Append rows to a CSV of results/, each with date, revision, hardware and versions."""
    lines = dict(line.split(": ", 1) for line in environment().splitlines() if ": " in line)
    rows = rows.assign(
        date=datetime.now(UTC).date().isoformat(),
        revision=lines["revision"],
        hardware=f"{os.cpu_count()} CPU cores" if lines["device"].startswith("CPU") else lines["device"],
        python=lines["python"].split()[0],
        torch=torch.__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(rows)
    if path.is_file():
        rows = pd.concat([pd.read_csv(path), rows], ignore_index=True)
    rows.to_csv(path, index=False)
    print(f"appended {count} rows to {path}")


def main(args: list[str] | None = None) -> None:
    """`python -m shared.table --seeds 0 1 --jobs 1 --each <name> <name> -- <package> fit ...`."""
    parser = argparse.ArgumentParser(prog="python -m shared.table", description="Train the runs that are missing.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="default: 0")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--each", nargs="+", default=[""], metavar="NAME", help="repeat the command with {} as each name"
    )
    parser.add_argument("--grid", metavar="FILE", help="repeat it with every combination of a YAML's values, see above")
    parser.add_argument("command", nargs="+", help="after --: <package> fit --config ..., without a seed")
    given = parser.parse_args(args)
    try:
        commands = []
        for name in given.each:
            settings = read_grid(Path(given.grid.replace("{}", name))) if given.grid else {"": []}
            for setting, flags in settings.items():
                words = [word.replace("{}", name).replace("{setting}", setting) for word in given.command]
                commands.append([*words, *flags])
        # Seeds first: stopped half-way, the grid has whole columns of all methods.
        grid = [seed_cells(command, given.seeds) for command in commands]
        cells = [cell for same_seed in zip(*grid, strict=True) for cell in same_seed]
        check_flags(cells)
        run_cells(cells, given.jobs)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
