"""Whether something else than morphology explains a cluster: one brick, run or PSF, or one galaxy under many ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from astropy.stats import kuiper_two
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import hypergeom, ks_2samp

from galaxy_clusters.evaluation import Labels
from shared.data.problems import DataError
from shared.metrics import holm
from shared.metrics.clusters import UNASSIGNED

ALPHA = 0.05
UNKNOWN = "unknown"

Floats = NDArray[np.float64]


def systematics(
    labels: Labels, frame: pd.DataFrame, categories: list[str], numbers: list[str], periods: Mapping[str, float] = {}
) -> pd.DataFrame:
    """Each cluster against the other galaxies in each column of the survey.

    Categories are tested for concentration: the hypergeometric chance that as many members as found share one value,
    for the least likely value, times the number of values in the sample. Numbers are tested by the largest difference
    of the distributions, on a line by Kolmogorov and Smirnov, on a circle by Kuiper.

    Args:
        labels: Clusters `(N,)`.
        frame: A row a galaxy. Galaxies without a value do not count.
        categories: Columns whose values are names, also if these are numbers: brick, run, camcol.
        numbers: Columns of numbers: PSF width, depth, size, magnitude, position angle.
        periods: Of those numbers that are angles: 180 for a position angle in degrees.

    Returns:
        A row a cluster and column: `cluster`, `column`, `size` (members with a value), `statistic` (share of members
        with the least likely value, or the largest difference), `distinct` and `expected_distinct` (values among the
        members, and among as many random galaxies; NaN for numbers), `p` (NaN if the cluster or the rest has no value),
        `p_holm`, corrected for the number of rows, and `flag`: empty, or what is wrong where `p_holm` is below 0.05.

    Raises:
        DataError: A column is missing or no column of numbers, or there is another number of rows.
    """
    if len(labels) != len(frame):
        raise DataError(f"there are {len(labels)} labels and {len(frame)} rows of the catalogue: give one row a galaxy")
    if missing := [name for name in (*categories, *numbers) if name not in frame]:
        raise DataError(f"the catalogue has no column {missing[0]}; it has {', '.join(map(str, frame.columns))}")
    columns = ["cluster", "column", "size", "statistic", "distinct", "expected_distinct", "p", "said"]
    rows = [row for name in categories for row in _concentration(labels, name, frame[name])]
    rows += [row for name in numbers for row in _difference(labels, name, frame[name], periods.get(name))]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(table["p"])
    table["flag"] = table.pop("said").where(table["p_holm"] < ALPHA, "")
    return table.sort_values(["cluster", "column"], ignore_index=True)


def flags(table: pd.DataFrame) -> "pd.Series[str]":
    """The flags of each cluster in one line; empty where there are none.

    Args:
        table: As `systematics` returns it.
    """
    return table.groupby("cluster")["flag"].agg(lambda found: "; ".join(flag for flag in found if flag)).rename("flags")


def distinct_systems(labels: Labels, systems: NDArray[Any] | None) -> pd.DataFrame:
    """How many objects on the sky a cluster holds: a shredded galaxy is one, under many ids.

    Args:
        labels: Clusters `(N,)`.
        systems: Which system each galaxy belongs to `(N,)`, -1 where its position is not known; None if none is.

    Returns:
        A row a cluster, named by it: `systems`, the number of distinct ones, or `"unknown"` if the position of any
        member is, and `largest_system`, the share of the members in the largest (NaN if unknown).
    """
    found: list[tuple[int | str, float]] = []
    names = np.unique(labels[labels != UNASSIGNED])
    for name in names:
        own = systems[labels == name] if systems is not None else np.array([UNASSIGNED])
        if (own == UNASSIGNED).any():
            found.append((UNKNOWN, np.nan))
            continue
        counts = np.unique(own, return_counts=True)[1]
        found.append((len(counts), counts.max() / counts.sum()))
    return pd.DataFrame(found, pd.Index(names, name="cluster"), ["systems", "largest_system"])


def _concentration(labels: Labels, name: str, column: "pd.Series[Any]") -> list[dict[str, Any]]:
    codes, values = pd.factorize(column)
    known = codes >= 0
    of_value = np.bincount(codes[known], minlength=len(values))
    total = int(known.sum())
    rows = []
    for cluster in np.unique(labels[labels != UNASSIGNED]):
        members = np.bincount(codes[known & (labels == cluster)], minlength=len(values))
        row: dict[str, Any] = {"cluster": int(cluster), "column": name, "size": int(members.sum())}
        if 0 < members.sum() < total:
            size = int(members.sum())
            chances = hypergeom.sf(members - 1, total, of_value, size)
            worst = int(chances.argmin())
            share = members[worst] / size
            row |= {
                "statistic": share,
                "distinct": int((members > 0).sum()),
                "expected_distinct": _expected_distinct(of_value, size),
                "p": min(float(chances[worst]) * len(values), 1.0),
                "said": f"{share:.0%} in one {name}, {values[worst]} ({of_value[worst] / total:.1%} of the sample)",
            }
        rows.append(row)
    return rows


def _expected_distinct(of_value: NDArray[np.int64], size: int) -> float:
    """Number of distinct values among `size` random galaxies: one less the chance of missing it, for each value."""
    total = int(of_value.sum())
    others = total - of_value
    possible = others >= size
    missed = np.exp(_log_choose(others[possible], size) - _log_choose(np.array([total]), size))
    return float(len(of_value) - missed.sum())


def _log_choose(n: NDArray[np.int64], k: int) -> Floats:
    chosen: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return chosen


def _difference(labels: Labels, name: str, column: "pd.Series[Any]", period: float | None) -> list[dict[str, Any]]:
    try:
        values = column.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"the column {name} holds more than numbers: name it among the categories") from None
    known = np.isfinite(values)
    rows = []
    for cluster in np.unique(labels[labels != UNASSIGNED]):
        inside, rest = values[known & (labels == cluster)], values[known & (labels != cluster)]
        row: dict[str, Any] = {"cluster": int(cluster), "column": name, "size": len(inside)}
        if len(inside) and len(rest):
            said = f"{name} {np.median(inside):.3g} against {np.median(rest):.3g} (medians)"
            if period is None:
                statistic, p = ks_2samp(inside, rest)
            else:
                statistic, p = kuiper_two(inside % period, rest % period)
                said = f"{name} is not spread as that of the others"
            row |= {"statistic": float(statistic), "p": float(min(p, 1.0)), "said": said}
        rows.append(row)
    return rows
