"""Variants and evaluations as training and `evaluate` leave them, made by hand: all numbers in them are SYNTHETIC."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from shared.evaluation.evaluate import State
from shared.runs.scores import Outcome, Scores

RESULTS = {"fit/epochs": 15, "fit/steps": 150, "fit/seconds": 900.0}


def write_variant(
    folder: Path,
    class_path: str,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1),
    results: Mapping[str, float] = RESULTS,
) -> Path:
    """Runs in `<...>/<data set>/<variant>`, as far as they are read; `settings` by dotted name change their config."""
    config: dict[str, Any] = {
        "run": {"dataset": folder.parent.name, "variant": folder.name, "tags": ["real"]},
        "trainer": {"max_epochs": 15, "precision": "32-true"},
        "model": {"class_path": class_path, "init_args": {"encoder": {"init_args": {"width": 32}}}},
        "data": {"class_path": "toy.Data", "init_args": {"batch_size": 64}},
    }
    for name, value in (settings or {}).items():
        *above, last = name.split(".")
        block = config
        for key in above:
            block = block[key]
        block[last] = value
    for seed in seeds:
        run = folder / f"seed_{seed}"
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / "best.ckpt").touch()
        (run / "results.json").write_text(json.dumps(dict(results)))
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def write_evaluation(
    folder: Path,
    target: NDArray[np.float32],
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]],
    protocols: Mapping[str, Mapping[str, Any]],
    samples: Sequence[str] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Path:
    """`scores.npz`, from scores `(M, N, C)` by protocol and row, and `evaluation.json`; each sample its own group."""
    folder.mkdir(parents=True, exist_ok=True)
    count, classes = target.shape
    names = list(samples or map(str, range(count)))
    found = {
        protocol: {row: Outcome(range(len(array)), array) for row, array in rows.items()}
        for protocol, rows in scores.items()
    }
    groups = np.arange(count) if groups is None else groups
    Scores(names, groups, [f"class {index}" for index in range(classes)], target, found, ["Random init"]).write(folder)
    State({}, {}, "", {name: dict(about) for name, about in protocols.items()}).write(folder)
    return folder
