"""Minutes and disk of the demonstrations, each in a fresh folder: `python -m benchmarks.demonstrations`.

What the READMEs say about how long a command takes is a row of results/demonstrations.csv. Unlike the other benchmarks
these are absolute times, of a machine that does nothing else.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from jsonargparse import auto_cli

from benchmarks.timing import Rows, write_rows

COMMANDS = {
    "train-etp": ["ecg_text", "train"],
    "train-mmcl": ["tabular_imaging", "train"],
    "train-rml": ["meta_robust", "train", "--jobs", "2"],
    "table-etp": ["ecg_text", "reproduce"],
}


def measure(name: str, words: list[str]) -> dict[str, object]:
    """Run a command to its end in an empty folder; its output goes there too.

    Raises:
        RuntimeError: It failed; the error holds the end of its output.
    """
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, "-m", *words, "--profile", "demo", "--", "--run.wandb", "disabled"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        minutes = (time.perf_counter() - begun) / 60
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(f"{name}: {minutes:.1f} minutes, {disk / 1e9:.2f} GB on disk", flush=True)
    return {"command": name, "minutes": round(minutes, 2), "disk_gb": round(disk / 1e9, 3)}


def main(
    commands: list[str] = list(COMMANDS),  # noqa: B006
    output: Path = Path("results/demonstrations.csv"),
) -> pd.DataFrame:
    """Measure the demonstrations on their SYNTHETIC sets.

    Args:
        commands: Targets of the Makefile; the install is not counted.
        output: CSV file to write.
    """
    rows: Rows = [measure(name, COMMANDS[name]) for name in commands]
    return write_rows(rows, output, data_kind="synthetic")


if __name__ == "__main__":
    auto_cli(main)
