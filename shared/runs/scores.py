"""Scores of evaluated models, and the file that keeps the test records' for the comparison of methods.

Shapes: M models, N records, C classes.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.data.problems import DataError

FILE = "scores.npz"


@dataclass
class Scores:
    """Scores of several models of one method, under one protocol.

    Attributes:
        val: `(M, N_val, C)`.
        test: `(M, N_test, C)`.
    """

    val: list[NDArray[np.float64]] = field(default_factory=list)
    test: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass(frozen=True)
class TestScores:
    """What `evaluate` keeps of a variant on a data set, in `<variant>/evaluation/<data set>/scores.npz`.

    Attributes:
        records: `(N,)` ids of the test records.
        classes: `(C,)` codes.
        target: `(N, C)` in {0, 1}.
        scores: `(M, N, C)` by protocol and method.
    """

    records: list[str]
    classes: list[str]
    target: NDArray[np.float32]
    scores: dict[str, dict[str, NDArray[np.float64]]]

    def same_records(self, other: "TestScores") -> bool:
        """Whether both were evaluated on the same records and classes, so that they can be compared in pairs."""
        return (
            self.records == other.records
            and self.classes == other.classes
            and np.array_equal(self.target, other.target)
        )


def write_scores(
    folder: Path,
    records: list[str],
    classes: list[str],
    target: NDArray[np.float32],
    scores: dict[str, dict[str, Scores]],
) -> None:
    """Write `scores.npz`; its arrays are called `<protocol>/<method>`."""
    arrays: dict[str, Any] = {
        f"{protocol}/{name}": np.stack(kept.test)
        for protocol, by_method in scores.items()
        for name, kept in by_method.items()
        if kept.test
    }
    arrays |= {"records": np.array(records), "classes": np.array(classes), "target": target}
    with (folder / FILE).open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_scores(folder: Path) -> TestScores:
    """Read what `write_scores` wrote.

    Raises:
        DataError: There is no such file, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"no {path}: python -m <package> evaluate writes it")
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = dict(content)
        records, classes, target = (arrays.pop(name) for name in ("records", "classes", "target"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); evaluate again") from error
    for name, array in arrays.items():
        protocol, _, method = name.partition("/")
        scores.setdefault(protocol, {})[method] = array
    return TestScores(records.tolist(), classes.tolist(), target, scores)
