"""Scores of evaluated models on the samples of a test set, and the file that keeps them for comparisons.

Shapes: M models, N samples, C classes.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.problems import DataError

FILE = "scores.npz"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """The scores of the M models of one row under one protocol.

    Attributes:
        models: `(M,)` ids of the models: the seeds that they were trained or initialised with.
        test: `(M, N, C)` class scores of the test samples; None if there are only plain values.
        val: `(M, N_val, C)` class scores of the validation samples, for choosing settings; not kept in the file.
        values: By metric, `(M, N)` plain values of the samples (the PSNR of an image, the accuracy of an episode).
    """

    models: Sequence[int]
    test: Floats | None = None
    val: Floats | None = None
    values: Mapping[str, Floats] = field(default_factory=dict)

    @staticmethod
    def join(outcomes: Sequence["Outcome"]) -> "Outcome":
        """The models of several outcomes as one."""

        def stacked(arrays: Sequence[Floats | None]) -> Floats | None:
            present = [array for array in arrays if array is not None]
            return np.concatenate(present) if present else None

        values = {key: np.concatenate([each.values[key] for each in outcomes]) for key in outcomes[0].values}
        models = [model for each in outcomes for model in each.models]
        return Outcome(
            models, stacked([each.test for each in outcomes]), stacked([each.val for each in outcomes]), values
        )


# Outcomes by name of the protocol and by row: a method, a floor row, or one of several rows that one evaluation gives.
Found = dict[str, dict[str, Outcome]]


@dataclass(frozen=True)
class Scores:
    """What `evaluate` keeps of a variant on a data set, in `<variant>/evaluation/<data set>/scores.npz`.

    Attributes:
        samples: `(N,)` ids of the test samples.
        groups: `(N,)` numbers of the groups that the samples belong to (all records of one patient, say).
        classes: `(C,)` names of the classes; empty if there are none.
        target: `(N, C)` in {0, 1}.
        found: Outcomes by protocol and row, without the validation scores.
        floors: Rows that are not trained models: random init, and what else a package sets beside its models.
    """

    samples: list[str]
    groups: NDArray[np.int64]
    classes: list[str]
    target: NDArray[np.float32]
    found: Found
    floors: list[str] = field(default_factory=list)

    def same_samples(self, other: "Scores") -> bool:
        """Whether both have the same samples, groups, classes and targets, so that they can be compared in pairs."""
        mine, others = (pd.factorize(each.groups)[0] for each in (self, other))  # the numbers themselves mean nothing
        return (
            self.samples == other.samples
            and np.array_equal(mine, others)
            and self.classes == other.classes
            and np.array_equal(self.target, other.target)
        )

    def write(self, folder: Path) -> None:
        """Write `scores.npz`; its arrays are named `<protocol>/<row>/<models, scores or values:METRIC>`."""
        arrays: dict[str, Any] = {
            "samples": np.array(self.samples),
            "groups": self.groups,
            "classes": np.array(self.classes, dtype=str),
            "target": self.target,
            "floors": np.array(self.floors, dtype=str),
        }
        for protocol, rows in self.found.items():
            for row, outcome in rows.items():
                arrays[f"{protocol}/{row}/models"] = np.array(outcome.models)
                if outcome.test is not None:
                    arrays[f"{protocol}/{row}/scores"] = outcome.test
                if named := [metric for metric in outcome.values if "/" in metric]:
                    raise ValueError(f"the name of a metric must not hold a slash, got {', '.join(named)}")
                arrays |= {f"{protocol}/{row}/values:{metric}": array for metric, array in outcome.values.items()}
        with (folder / FILE).open("wb") as file:
            np.savez_compressed(file, **arrays)

    @staticmethod
    def read(folder: Path) -> "Scores":
        """Read what `write` wrote.

        Raises:
            DataError: There is no such file, or it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            raise DataError(f"no {path}: python -m <package> evaluate writes it")
        parts: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
        try:
            with np.load(path, allow_pickle=False) as content:
                arrays = dict(content)
            names = ("samples", "groups", "classes", "target", "floors")
            samples, groups, classes, target, floors = (arrays.pop(name) for name in names)
            for name, array in arrays.items():
                place, kind = name.rsplit("/", 1)
                protocol, row = place.split("/", 1)
                parts.setdefault((protocol, row), {})[kind] = array
            found: Found = {}
            for (protocol, row), by_kind in parts.items():
                models, scores = by_kind.pop("models").tolist(), by_kind.pop("scores", None)
                values = {kind.removeprefix("values:"): array for kind, array in by_kind.items()}
                found.setdefault(protocol, {})[row] = Outcome(models, scores, None, values)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read ({error}); evaluate again") from error
        return Scores(samples.tolist(), groups, classes.tolist(), target, found, floors.tolist())
