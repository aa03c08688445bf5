"""Differences between the rows of a table: their intervals and tests, and what is said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shared.evaluation.protocol import RANDOM
from shared.metrics import PseudoValues, difference, holm
from shared.runs.table import by_sign

ALPHA = 0.05


def add_differences(
    rows: dict[str, dict[str, Any]], found: Mapping[tuple[str, str], PseudoValues], reference: str
) -> None:
    """Add the differences from random init, and those of the reference, with p-values adjusted for their number.

    Args:
        rows: The rows of a table by name; each gets `<column>_over_random` and `<column>_reference_over`, with `_low`,
            `_high`, `_p` and `_holm`.
        found: Pseudo-values by row and column.
        reference: The row that every other is compared with.
    """
    places: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for row, name in found:
        for key, plus, minus in (("over_random", row, RANDOM), ("reference_over", reference, row)):
            if plus == minus or not {(plus, name), (minus, name)} <= found.keys():
                continue
            value, low, high, p = difference(found[plus, name], found[minus, name])
            if np.isnan(p):  # a metric without an interval
                continue
            column = f"{name}_{key}"
            rows[row] |= {column: value, f"{column}_low": low, f"{column}_high": high, f"{column}_p": p}
            # The reference over random init is one difference that stands in two rows.
            places.setdefault((plus, minus, name), []).append((row, column))
    adjusted = holm([rows[row][f"{column}_p"] for (row, column), *_ in places.values()])
    for where, p in zip(places.values(), adjusted, strict=True):
        for row, column in where:
            rows[row][f"{column}_holm"] = p


def beyond_noise(rows: pd.DataFrame, reference: str, column: str) -> str:
    """Sentences that say which differences of a column are beyond noise, by their adjusted p-values."""
    over_random, over = (by_sign(rows, f"{column}_{key}", ALPHA) for key in ("over_random", "reference_over"))
    return (
        f"{column}: better than random init are {over_random[0]}; worse {over_random[1]}; not told apart from it "
        f"{over_random[2]}. {reference} is better than {over[0]}; worse than {over[1]}; not told apart from {over[2]}."
    )


def how_tested(rows: pd.DataFrame, columns: Sequence[str]) -> str:
    """A sentence that says how many differences of a table were tested, and how."""
    keys = [f"{column}_{key}" for column in columns for key in ("over_random", "reference_over")]
    # The reference over random init is one comparison that stands in two rows.
    random = rows[rows["method"] == RANDOM]
    twice = [f"{column}_reference_over_p" for column in columns if f"{column}_reference_over_p" in rows]
    count = sum(int(rows[f"{key}_p"].notna().sum()) for key in keys if f"{key}_p" in rows)
    count -= int(random[twice].notna().sum().sum())
    return (
        f"Tested: {count} difference{'' if count == 1 else 's'}, each by a t-test over test samples and models; one is "
        f"called better or worse if its p-value, adjusted for their number (Holm), is below {ALPHA}. Intervals are not "
        "adjusted."
    )
