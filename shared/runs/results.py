"""A run's own record: `results.json`, the environment that it ran in, and the CSVs of results/."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
import torch

RESULTS_FILE = "results.json"


def read_results(run_dir: Path) -> dict[str, float]:
    """The run's `results.json`, or nothing if there is none."""
    path = run_dir / RESULTS_FILE
    results: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    return results


def has_finished(results: Mapping[str, float]) -> bool:
    """Whether the training that wrote these results has finished; evaluating an interrupted one adds other values."""
    return "fit/epochs" in results


def update_results(run_dir: Path, results: dict[str, float]) -> None:
    """Merge values into the run's `results.json` (a flat dictionary of numbers)."""
    path = run_dir / RESULTS_FILE
    merged = read_results(run_dir) | results
    # Replaced in one step, so that there is never half a file.
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(merged, indent=1, sort_keys=True))
    os.replace(partial, path)


def environment() -> str:
    """Git revision, hardware and package versions, as text."""
    revision = ""
    if git := shutil.which("git"):
        command = [git, "describe", "--always", "--dirty"]
        folder = Path(__file__).parent
        revision = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    packages = sorted({f"{d.name}=={d.version}" for d in distributions() if d.name}, key=str.lower)
    return "\n".join(
        [
            f"revision: {revision or 'not a git checkout'}",
            f"python: {platform.python_version()} on {platform.platform()}",
            f"device: {device}; {torch.get_num_threads()} torch threads",
            *packages,
            "",
        ]
    )


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
