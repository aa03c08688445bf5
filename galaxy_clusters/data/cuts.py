"""Cuts of a catalogue: which galaxies are kept, how many each cut leaves, and what becomes of those without a value."""

import logging
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.data.catalogue import filled_numbers
from galaxy_clusters.data.schema import VoteSchema
from shared.data.problems import DataError
from shared.data.tables import nearest
from shared.runs.settings import load_yaml

log = logging.getLogger(__name__)

COMPARE = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne
}  # fmt: skip
NULLS = ("keep", "drop", "error")
MISSING = ("error", "skip")
CONDITION = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")
KEYS = ("column", "keep", "null", "missing")


@dataclass(frozen=True)
class Cut:
    """Galaxies are kept where `column op value` holds.

    Attributes:
        column: Of the catalogue, or `<question>_<answer>_fraction` of a vote schema.
        op: A key of `COMPARE`.
        value: What the column is compared with.
        null: What happens to a galaxy without a value: it is kept, dropped, or an error.
        missing: What happens where the catalogue has no such column: an error, or the cut is skipped.
    """

    column: str
    op: str
    value: float
    null: Literal["keep", "drop", "error"]
    missing: Literal["error", "skip"] = "error"

    def __str__(self) -> str:
        return f"{self.column} {self.op} {self.value:g}"


def read_cuts(path: Path) -> list[Cut]:
    """Read cuts from a YAML list with entries such as `{column: ra, keep: "< 0.5", null: drop, missing: skip}`.

    `null` must be given; `missing` is `error` unless given.

    Raises:
        DataError: There is no such file, it is no such list, or an entry has something else; the message names it.
    """
    entries = load_yaml(path)
    if not isinstance(entries, list):
        raise DataError(f"{path} does not hold a list of cuts")
    return [_cut(f"{path}: cut {number}", entry) for number, entry in enumerate(entries, 1)]


def apply_cuts(frame: pd.DataFrame, cuts: Sequence[Cut], schema: VoteSchema) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the galaxies that pass all cuts.

    A fraction that is no column is computed from the counts of votes, `<question>_<answer>`, where all answers of the
    question are there (null without a vote), or is one minus the other answer's fraction where the question has two.
    One minus one of three answers is not the other one, so such a column is missing.

    Args:
        frame: A catalogue.
        cuts: In the order in which they are made.
        schema: Which answers belong to a question.

    Returns:
        The rows that are left, with a new index, and a table with a row for each cut: `cut`, the numbers of galaxies
        `before` and `after`, and `null`, how many of those before had no value (NA where the cut was skipped).

    Raises:
        DataError: A column is missing or holds text, or a galaxy has no value, where that is an error; or no galaxy
            is left.
    """
    rows: list[tuple[str, int, int, int | None]] = []
    for cut in cuts:
        before = len(frame)
        values = _values(frame, cut.column, schema)
        if values is None:
            _skip(frame, cut)
            rows.append((str(cut), before, before, None))
            continue
        null = np.isnan(values)
        if null.any() and cut.null == "error":
            first = frame["id"].iloc[int(np.argmax(null))]
            raise DataError(
                f"{first} has no {cut.column} ({null.sum()} of {before} galaxies have none): say `null: keep` or "
                "`null: drop` in the cut"
            )
        kept = np.where(null, cut.null == "keep", COMPARE[cut.op](values, cut.value))
        frame = frame[kept].reset_index(drop=True)
        log.info(
            "cut %s: %d of %d galaxies are left; %d have no value (%s)", cut, len(frame), before, null.sum(), cut.null
        )
        rows.append((str(cut), before, len(frame), int(null.sum())))
        if frame.empty:
            raise DataError(f"the cut {cut} leaves none of {before} galaxies")
    return frame, pd.DataFrame(rows, columns=["cut", "before", "after", "null"]).astype({"null": "Int64"})


def _values(frame: pd.DataFrame, column: str, schema: VoteSchema) -> NDArray[np.float64] | None:
    """A column's values, NaN where there is none; None where the column is neither there nor can be computed."""
    if column in frame:
        return filled_numbers(frame, column)
    vote = column.removesuffix("_fraction")
    for question in schema.questions:
        answers = [f"{question.name}_{answer}" for answer in question.answers]
        if vote == column or vote not in answers:
            continue
        if all(answer in frame for answer in answers):
            counts = np.stack([filled_numbers(frame, answer) for answer in answers])
            total = counts.sum(0)
            share: NDArray[np.float64] = counts[answers.index(vote)] / np.where(total > 0, total, np.nan)
            return share
        others = [f"{answer}_fraction" for answer in answers if answer != vote]
        if len(others) == 1 and others[0] in frame:
            log.info("%s is computed as 1 - %s, its question's only other answer", column, others[0])
            return 1 - filled_numbers(frame, others[0])
    return None


def _skip(frame: pd.DataFrame, cut: Cut) -> None:
    if cut.missing == "error":
        raise DataError(
            f"the cut {cut} needs a column that is neither in the catalogue nor follows from its columns"
            f"{nearest(cut.column, map(str, frame.columns))} (`missing: skip` in the cut would leave the cut out)"
        )
    log.warning("cut %s: skipped, the catalogue has no such column, and none that it follows from", cut)


def _cut(where: str, entry: Any) -> Cut:
    if isinstance(entry, dict):
        entry = {"null" if key is None else key: value for key, value in entry.items()}  # YAML reads `null:` as None
    if not isinstance(entry, dict) or not {"column", "keep", "null"} <= set(entry) <= set(KEYS):
        raise DataError(
            f'{where} is {entry!r}, expected {{column: NAME, keep: "< NUMBER", null: {"|".join(NULLS)}, '
            f"missing: {'|'.join(MISSING)}}}"
        )
    parts = CONDITION.fullmatch(str(entry["keep"]))
    try:
        value = float(parts[2]) if parts else np.nan
    except ValueError:
        value = np.nan
    if parts is None or not np.isfinite(value):
        raise DataError(f"{where}: keep is {entry['keep']!r}, expected one of {' '.join(COMPARE)} and a number")
    missing = entry.get("missing", "error")
    for name, found, known in (("null", entry["null"], NULLS), ("missing", missing, MISSING)):
        if found not in known:
            raise DataError(f"{where}: {name} is {found!r}, expected {', '.join(known)}")
    return Cut(str(entry["column"]), parts[1], value, entry["null"], missing)
