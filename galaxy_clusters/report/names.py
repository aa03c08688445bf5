"""Names of clusters that survive another run, so that notes and hand-made groups stay valid."""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment


class Names(NamedTuple):
    """Names of a run's clusters.

    Attributes:
        of: Name of each label.
        new: Names given for the first time.
        vanished: Names of the previous run that no cluster has now.
    """

    of: dict[int, str]
    new: list[str]
    vanished: list[str]


def match_names(
    previous: "pd.Series[Any]", labels: "pd.Series[Any]", retired: Collection[str] = (), threshold: float = 0.3
) -> Names:
    """Give clusters the names of the previous run's clusters that they are most like; others get C01, C02, ...

    Alike is measured by the Jaccard index over the galaxies that both runs hold, and the pairs are those with the
    largest sum of it, one to one.

    Args:
        previous: Name of each galaxy's cluster, by id, missing for galaxies in none; empty for a first run.
        labels: Label of each galaxy's cluster, by id, -1 for galaxies in none.
        retired: Names of earlier runs, which are not given again.
        threshold: Pairs less alike are no pairs.
    """
    found = sorted(int(label) for label in labels.unique() if label != -1)
    known = sorted(previous.dropna().unique())
    both = previous.index.intersection(labels.index)
    is_name = previous[both].to_numpy(object)[:, None] == np.array(known, dtype=object)
    is_label = labels[both].to_numpy()[:, None] == np.array(found, dtype=np.int64)
    shared = is_name.T.astype(float) @ is_label
    either = is_name.sum(0)[:, None] + is_label.sum(0) - shared
    jaccard = shared / np.maximum(either, 1)
    jaccard[jaccard < threshold] = 0
    pairs = zip(*linear_sum_assignment(jaccard, maximize=True), strict=True)
    of = {found[column]: str(known[row]) for row, column in pairs if jaccard[row, column] > 0}
    numbers = [int(number[1]) for name in (*known, *retired) if (number := re.fullmatch(r"C(\d+)", name))]
    unnamed = [label for label in found if label not in of]
    new = {label: f"C{number:02d}" for number, label in enumerate(unnamed, max(numbers, default=0) + 1)}
    vanished = [name for name in known if name not in of.values()]
    return Names({label: (of | new)[label] for label in found}, list(new.values()), vanished)
