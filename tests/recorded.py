"""For tests of pipelines: what one does is recorded, and its trainings are replaced by what they leave behind."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from shared.runs import pipeline
from shared.runs.grid import Cell

# In order: `fit` with the run's folder and the words of its command, and each other verb with its words.
Called = list[tuple[str, list[str]]]


def record(monkeypatch: pytest.MonkeyPatch, pipelines: ModuleType) -> Called:
    """Replace what a package's pipelines call; the record is filled as they run."""
    called: Called = []

    def runner(waves: Sequence[Sequence[Cell]]) -> dict[str, tuple[str, str]]:
        for cell in (cell for wave in waves for cell in wave):
            called.append(("fit", [str(cell.folder), *cell.command]))
            finish(cell)
        return {}

    def call(function: Callable[..., Any], args: Sequence[str], prog: str | None = None) -> None:
        called.append((function.__name__, list(args)))

    def compare(root: Path) -> Path:
        called.append(("compare", [str(root)]))
        return root / "compare.html"

    def write_synthetic(root: Path, **settings: Any) -> None:
        called.append(("synthetic", [str(root), *(f"{name}={value}" for name, value in settings.items())]))

    monkeypatch.setattr(pipeline, "here", lambda jobs: runner)
    monkeypatch.setattr(pipeline, "call", call)
    monkeypatch.setattr(pipeline, "compare", compare)
    monkeypatch.setattr(pipelines, "write_synthetic", write_synthetic)
    if hasattr(pipelines, "call"):
        monkeypatch.setattr(pipelines, "call", call)
    return called


def finish(cell: Cell) -> None:
    """What a training leaves, as far as a grid looks at it."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "results.json").write_text(json.dumps({"fit/epochs": 1}))
    (cell.folder / "config.yaml").write_text(yaml.safe_dump(dict(cell.settings)))
