"""Figures in documents against the rows of results/ that they cite: `python -m shared.runs.cited README.md ...`.

A row of a table with figures, or a paragraph or an item of a list, has a comment that names the rows, which a reader of
the page does not see. In a paragraph it is a line of its own at the end, because Markdown ends a paragraph before it:

    | ETP | 78.8 [76.1, 81.7] <!-- results/etp.csv: protocol=zero_shot; method=ETP (MiniLM); class=Average --> |

Every decimal figure must be a value of the named rows, as it is or in percent, rounded as shown; a time in minutes may
come from a column `hours`. In sections of results, whatever has a decimal figure needs such a comment.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

SECTIONS = ("Results", "What to expect", "Speed")
MARK = re.compile(r"<!-- (?P<file>results/[\w.]+\.csv)(?:: (?P<rows>.*?))? -->")
FIGURE = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.\d+(?![\w.]*\w)")
ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")
NOT_TEXT = re.compile(r"`[^`]*`|\]\([^)]*\)|<!--.*?-->")  # code, addresses and comments


def wrong(document: Path, root: Path) -> Iterator[str]:
    """What is wrong with the figures of a document, one message each.

    Args:
        document: A Markdown file.
        root: Folder that holds results/.
    """
    section = ""
    for number, block in _blocks(document.read_text(encoding="utf-8")):
        if block.startswith("## "):
            section = block.removeprefix("## ").strip()
        figures, marks = FIGURE.findall(NOT_TEXT.sub("", block)), list(MARK.finditer(block))
        if not figures:
            continue
        if not marks:
            if section in SECTIONS:
                hint = "name it in <!-- results/FILE.csv: column=value -->"
                yield f"{document}:{number}: {figures[0]} is of no row; {hint}"
            continue
        known: list[float] = []
        for mark in marks:
            try:
                known += _values(root / mark["file"], mark["rows"] or "")
            except ValueError as error:
                yield f"{document}:{number}: {error}"
        cited = " and ".join(mark[0].strip("<!- >") for mark in marks)
        for figure in figures:
            if not _is_known(figure, known):
                yield f"{document}:{number}: {figure} is in no row of {cited}"


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Headings, rows of tables, items of lists and paragraphs, each with the number of its first line; without code."""
    block, first, in_code = "", 0, False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fence = line.startswith("```")
        if fence or in_code or not line.strip() or line.startswith(("#", "|")) or ITEM.match(line):
            if block:
                yield first, block
            block = ""
        in_code ^= fence
        if fence or in_code or not line.strip():
            continue
        first = first if block else number
        block = f"{block} {line}" if block else line


def _values(path: Path, rows: str) -> list[float]:
    """Every number of the chosen rows of a CSV.

    Raises:
        ValueError: There is no such file, column or row.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for condition in filter(None, rows.split("; ")):
        column, _, value = condition.partition("=")
        if column not in table:
            raise ValueError(f"{path} has no column {column}")
        table = table[table[column].isin(value.split("|"))]
    if table.empty:
        raise ValueError(f"{path} has no row with {rows}")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    minutes = 60 * numbers["hours"] if "hours" in numbers else pd.Series(dtype=float)
    found = np.concatenate([numbers.to_numpy(dtype=float).ravel(), minutes.to_numpy(dtype=float)])
    return [float(value) for value in found[np.isfinite(found)]]


def _is_known(figure: str, known: Sequence[float]) -> bool:
    plain = figure.replace(",", "").lstrip("+")
    half = 0.5 * 10.0 ** -len(plain.partition(".")[2]) + 1e-9
    return any(abs(scale * value - float(plain)) <= half for value in known for scale in (1, 100))


def main(documents: Sequence[str]) -> None:
    """Check documents; the folder with results/ is the working directory.

    Raises:
        SystemExit: A figure is not in the rows that it cites.
    """
    if messages := [message for document in documents for message in wrong(Path(document), Path())]:
        raise SystemExit("\n".join(messages))
    print(f"the figures of {len(documents)} documents are those of results/")


if __name__ == "__main__":
    main(sys.argv[1:])
