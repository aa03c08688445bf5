"""A grid of cells: what is missing of it is run, here or on a cluster, and what is there is checked, not trusted.

A cell is a command, the folder it fills, the settings it stands for, and what says that it is done.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shared.cli import Composed, changed_settings
from shared.data.problems import DataError
from shared.progress import progress_bar
from shared.runs.results import read_results
from shared.runs.settings import difference, read_yaml

SETTINGS = "settings.yaml"  # of a verb's cell, beside its result


def fit_is_done(folder: Path) -> bool:
    """Whether a training has finished: `results.json` has `fit/epochs`."""
    return "fit/epochs" in read_results(folder)


def verb_is_done(folder: Path) -> bool:
    """Whether a verb's cell has finished: its settings are written last."""
    return (folder / SETTINGS).is_file()


def changed_verb(cell: "Cell") -> str:
    """The settings in which a verb's cell differs from the ones written beside its result."""
    return difference(read_yaml(cell.folder / SETTINGS), cell.settings)


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a verb's cell beside its result, last of all: they say that it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{SETTINGS}.part"
    part.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    os.replace(part, folder / SETTINGS)


@dataclass(frozen=True)
class Cell:
    """One piece of work of a grid: a training, or a verb's result.

    Attributes:
        name: What progress and errors call it.
        folder: What it fills.
        command: What comes after `python -m`: module and arguments.
        settings: What it stands for, to compare with what is in the folder.
        done: Whether a folder holds the finished cell.
        changed: The settings in which the finished cell differs, a line each; empty if none do.
        after: Names of cells that it needs, which run first.
    """

    name: str
    folder: Path
    command: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    done: Callable[[Path], bool] = verb_is_done
    changed: Callable[["Cell"], str] = changed_verb
    after: Sequence[str] = ()


def fit_cells(
    package: str, name: str, words: Sequence[str], composed: Composed, seeds: Sequence[int], after: Sequence[str] = ()
) -> list[Cell]:
    """The trainings of a variant, a cell for each seed.

    Args:
        package: Name of the package.
        name: Of the variant.
        words: Of the `fit` command, without a seed.
        composed: What the words stand for.
        seeds: Of the runs.
        after: Names of variants whose runs of the same seed these runs start from.
    """

    def changed(cell: Cell) -> str:
        return changed_settings(composed.parser, cell.folder, dict(cell.settings))

    return [
        Cell(
            name=f"{name}, seed {seed}",
            folder=composed.folder / f"seed_{seed}",
            command=[package, "fit", *words, "--seed_everything", str(seed)],
            settings=composed.for_seed(seed),
            done=fit_is_done,
            changed=changed,
            after=[f"{each}, seed {seed}" for each in after],
        )
        for seed in seeds
    ]


def check_finished(cells: Sequence[Cell]) -> None:
    """A finished cell is left as it is only if it has the settings that are asked for.

    Raises:
        DataError: One has others.
    """
    for cell in cells:
        if cell.done(cell.folder) and (changed := cell.changed(cell)):
            raise DataError(
                f"{cell.name} has finished in {cell.folder} with other settings (- there, + asked for):\n{changed}\n"
                "Give the new runs names of their own (make: SUFFIX=_new; of a single run: --run.variant NAME), or "
                "remove that folder"
            )


def missing(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have not finished, in their order."""
    return [cell for cell in cells if not cell.done(cell.folder)]


def waves(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups: each needs only cells of the groups before its own.

    Raises:
        DataError: Cells need one another, or one needs a cell that is not in the grid.
    """
    names = {cell.name for cell in cells}
    found: list[list[Cell]] = []
    past: set[str] = set()
    left = list(cells)
    for cell in cells:
        if unknown := set(cell.after) - names:
            raise DataError(f"{cell.name} needs {', '.join(sorted(unknown))}, which is not in the grid")
    while left:
        ready = [cell for cell in left if set(cell.after) <= past]
        if not ready:
            raise DataError(f"these cells need one another: {', '.join(cell.name for cell in left)}")
        found.append(ready)
        past |= {cell.name for cell in ready}
        left = [cell for cell in left if cell.name not in past]
    return found


# Runs cells that are all ready, and says how each ended: by name its exit status and where its output is.
Runner = Callable[[Sequence[Cell]], dict[str, tuple[str, str]]]


def run_cells(cells: Sequence[Cell], runner: Runner) -> None:
    """Run what is missing; a cell that fails stops only those that need it.

    Args:
        cells: The grid.
        runner: Where: `here`, or a cluster's.

    Raises:
        DataError: Some cells did not finish, each named with where its output is; or a finished one has other settings.
    """
    check_finished(cells)
    todo = missing(cells)
    if len(todo) < len(cells):
        print(f"{len(cells) - len(todo)} of {len(cells)} runs have finished before and are left as they are")
    ended: dict[str, tuple[str, str]] = {}
    for wave in waves(cells):
        unfinished = {cell.name for cell in missing(cells)}
        ready = [cell for cell in missing(wave) if not unfinished & set(cell.after)]
        # A cell that starts from another's result is another one where that has changed since.
        check_finished([cell for cell in wave if cell.after])
        if ready:
            ended |= runner(ready)
    if failed := missing(todo):
        lines = []
        for cell in failed:
            status, output = ended.get(cell.name, ("not started", "it needs one of the others"))
            lines.append(f"  {cell.name} ({status}): {output}")
        raise DataError(
            f"{len(failed)} of {len(cells)} runs did not finish:\n" + "\n".join(lines) + "\n"
            "Fix the cause and give the same command again: it runs only what is missing"
        )


def here(jobs: int = 1) -> Runner:
    """Runs cells on this machine, each in a process of its own.

    Args:
        jobs: How many at a time. One alone writes to the terminal, several to `<folder>/log.txt` each, and share the
            CPU cores by `OMP_NUM_THREADS` where that is not set already.

    Raises:
        DataError: Fewer than one.
    """
    if jobs < 1:
        raise DataError(f"jobs is {jobs}; at least 1 run at a time is needed")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))

    def run_all(cells: Sequence[Cell]) -> dict[str, tuple[str, str]]:
        with progress_bar(len(cells), "runs", "run") as bar:

            def run(cell: Cell) -> tuple[str, str]:
                command = [sys.executable, "-m", *cell.command]
                if jobs == 1:
                    print(f"\n{cell.name}", file=sys.stderr, flush=True)  # below the bar, above the run's own output
                    status, output = subprocess.run(command, check=False).returncode, "its output is above"
                else:
                    cell.folder.mkdir(parents=True, exist_ok=True)
                    output = str(cell.folder / "log.txt")
                    with Path(output).open("w") as log:
                        env = {"OMP_NUM_THREADS": threads, **os.environ}
                        status = subprocess.run(command, stdout=log, stderr=log, env=env, check=False).returncode
                bar.update()
                return f"exit status {status}", output

            with ThreadPoolExecutor(jobs) as pool:
                # Stopped by Ctrl-C, `map` cancels the runs that have not begun.
                return dict(zip([cell.name for cell in cells], pool.map(run, cells), strict=True))

    return run_all
