"""Evidence that clusters exist: what smooth data alone would show, what could have been found, what else explains them.

Everything here takes the way from a representation to clusters as a function, and a representation as an array.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galaxy_clusters.clustering.leaves import Clusters
from shared.data.files import write_whole
from shared.data.problems import DataError
from shared.progress import progress

Points = NDArray[np.float32]  # a representation (N, D)
Labels = NDArray[np.int64]  # the cluster of each of N galaxies, -1 for those in none
ToLabels = Callable[[Points], Labels]
ToClusters = Callable[[Points], Clusters]


def replicated(
    work: Callable[[int], Any], count: int, title: str, path: Path | None = None, settings: dict[str, Any] | None = None
) -> list[Any]:
    """The results of `work(0)` to `work(count - 1)`, kept in a file, so that a killed loop goes on where it stopped.

    Args:
        work: Gives what JSON can hold; a function of the number alone.
        count: How many.
        title: What is being done, for the progress bar.
        path: File of one JSON line a result, below a line of the settings; None keeps nothing. It is written whole
            after each result.
        settings: What else the results depend on, in plain values.

    Returns:
        The results, as JSON gives them back.

    Raises:
        DataError: The file holds results of other settings, or is damaged.
    """
    first = json.loads(json.dumps(settings or {}))
    done = _kept(path, first) if path is not None and path.exists() else []
    for number in progress(range(len(done), count), title, "chain"):
        done.append(json.loads(json.dumps(work(number))))
        if path is not None:
            write_whole(path, "".join(json.dumps(line) + "\n" for line in (first, *done)))
    return done[:count]


def runs_file(folder: Path, stage: str, *what: Any) -> Path:
    """Where results of `replicated` are kept: another file for other settings, so that none has to be deleted."""
    digest = hashlib.blake2b(json.dumps(what).encode(), digest_size=6).hexdigest()
    return folder / "runs" / f"{stage}-{digest}.jsonl"


def _kept(path: Path, settings: dict[str, Any]) -> list[Any]:
    try:
        first, *results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise DataError(f"{path} is no file of results, one JSON line each: delete it") from None
    if first != settings:
        names = [name for name in sorted({*first, *settings}) if first.get(name) != settings.get(name)]
        raise DataError(
            f"{path} holds results of other settings (other {', '.join(names)}): delete it or use another folder"
        )
    return results
