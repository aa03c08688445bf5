"""A grid of cells: those that are missing are run, here or on a cluster; those that are finished are checked.

A cell is a command, the folder that it fills, the settings that it stands for, and a test of whether it is done.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from shared.cli import Composed, changed_settings
from shared.data.module import DataModule
from shared.data.problems import DataError
from shared.progress import progress_bar
from shared.runs.results import RESULTS_FILE, has_finished, read_results
from shared.runs.settings import SETTINGS, changed_data, difference, read_yaml, with_seed
from shared.runs.variant import load_data


def fit_is_done(folder: Path) -> bool:
    """Whether a training has finished."""
    return has_finished(read_results(folder))


def verb_is_done(folder: Path) -> bool:
    """Whether a verb's cell has finished: its settings file, which is written last, exists."""
    return (folder / SETTINGS).is_file()


def changed_verb(cell: "Cell") -> str:
    """The settings in which a verb's cell differs from the ones written beside its result."""
    return difference(read_yaml(cell.folder / SETTINGS), cell.settings)


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a verb's cell beside its result, last of all: they mark the result as complete.

    Args:
        folder: Folder of the cell.
        settings: Typed settings. For a cell that is a variant's seed, in a folder `seed_<s>`, they hold `title`,
            `run: {dataset, tags}` and `data:`, as a training's configuration does (see `Variant`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{SETTINGS}.part"
    part.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    os.replace(part, folder / SETTINGS)


@dataclass(frozen=True)
class Cell:
    """One piece of work in a grid: a training, or a verb's result.

    Attributes:
        name: What progress bars and errors call it.
        folder: The folder that it fills.
        command: What comes after `python -m`: module and arguments.
        settings: The settings that it stands for, to compare with those in the folder.
        done: Tells whether a folder holds the finished cell.
        changed: Lists the settings in which the finished cell differs, one per line; empty if none do.
        after: Names of the cells that it needs; they run first.
    """

    name: str
    folder: Path
    command: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    done: Callable[[Path], bool] = verb_is_done
    changed: Callable[["Cell"], str] = changed_verb
    after: Sequence[str] = ()


def fit_cells(
    package: str,
    name: str,
    words: Sequence[str],
    composed: Composed,
    seeds: Sequence[int],
    fingerprint: Callable[[str], str],
    after: Sequence[str] = (),
) -> list[Cell]:
    """The trainings of a variant, one cell per seed.

    Args:
        package: Name of the package.
        name: Name of the variant.
        words: Words of the `fit` command, without a seed.
        composed: The settings that these words stand for.
        seeds: Seeds of the runs.
        fingerprint: `data_fingerprint`, cached for a grid, whose variants mostly have the same data.
        after: Names of the variants that these runs start from; each run starts from the one with its own seed.
    """

    begun = time.time()

    def done(folder: Path) -> bool:
        # A run that is to be overwritten has finished once it has been written again.
        return fit_is_done(folder) and not (composed.overwrite and (folder / RESULTS_FILE).stat().st_mtime < begun)

    block = with_seed(composed.settings["data"], seeds[0])

    def changed(cell: Cell) -> str:
        return changed_settings(composed.parser, cell.folder, dict(cell.settings)) or changed_data(
            cell.folder, partial(fingerprint, json.dumps(block, sort_keys=True, default=str))
        )

    return [
        Cell(
            name=f"{name}, seed {seed}",
            folder=composed.folder / f"seed_{seed}",
            command=[package, "fit", *words, "--seed_everything", str(seed)],
            settings=composed.for_seed(seed),
            done=done,
            changed=changed,
            after=[f"{each}, seed {seed}" for each in after],
        )
        for seed in seeds
    ]


def data_fingerprint(block: str) -> str:
    """Loads the data of a `data:` block, given as JSON, and returns their fingerprint."""
    data: DataModule[Any] = load_data(DataModule, json.loads(block), {})  # type: ignore[type-abstract]
    return data.fingerprint()


def check_finished(cells: Sequence[Cell]) -> None:
    """Check that every finished cell has the settings that are asked for; only then is it left as it is.

    Raises:
        DataError: A finished cell has other settings.
    """
    for cell in cells:
        if cell.done(cell.folder) and (changed := cell.changed(cell)):
            raise DataError(
                f"{cell.name} has finished in {cell.folder} with other settings (- saved, + asked for):\n{changed}\n"
                "Give the new runs names of their own (make: SUFFIX=_new; for a single run: --run.variant NAME), or "
                "remove that folder"
            )


def missing(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have not finished, in order."""
    return [cell for cell in cells if not cell.done(cell.folder)]


def waves(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups, such that a cell needs only cells of earlier groups.

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


# Runs cells, wave by wave, and says how each ended: by name, its exit status and where its output is.
Runner = Callable[[Sequence[Sequence[Cell]]], dict[str, tuple[str, str]]]


def run_cells(cells: Sequence[Cell], runner: Runner) -> None:
    """Run what is missing; a cell that fails stops only those that need it.

    Args:
        cells: The grid.
        runner: Runs the cells, either on this machine (`here`) or on a cluster (`cluster`).

    Raises:
        DataError: Some cells did not finish (the error says where the output of each is), or a finished one has other
            settings.
    """
    check_finished(cells)
    todo = missing(cells)
    if len(todo) < len(cells):
        print(f"{len(cells) - len(todo)} of {len(cells)} runs have already finished and are left as they are")
    ended = runner([wave for wave in map(missing, waves(cells)) if wave]) if todo else {}
    # A finished cell that starts from another's result counts as changed if that result has just changed.
    check_finished([cell for cell in cells if cell.after])
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
        jobs: How many cells run at a time. With 1, a cell writes to the terminal. With more, each cell writes to its
            `<folder>/log.txt`, and the cells share the CPU cores by `OMP_NUM_THREADS` unless that is already set.

    Raises:
        DataError: `jobs` is less than 1.
    """
    if jobs < 1:
        raise DataError(f"jobs is {jobs}; at least 1 run at a time is needed")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))

    def run_all(waves: Sequence[Sequence[Cell]]) -> dict[str, tuple[str, str]]:
        ended: dict[str, tuple[str, str]] = {}
        failed: set[str] = set()
        with progress_bar(sum(map(len, waves)), "runs", "run") as bar, ThreadPoolExecutor(jobs) as pool:

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

            for wave in waves:
                ready = [cell for cell in wave if not failed & set(cell.after)]
                # Stopped by Ctrl-C, `map` cancels the runs that have not begun.
                ended |= dict(zip([cell.name for cell in ready], pool.map(run, ready), strict=True))
                failed |= {cell.name for cell in wave if cell not in ready or not cell.done(cell.folder)}
        return ended

    return run_all
