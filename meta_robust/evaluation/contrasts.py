"""What each part of a method gives: differences of two variants on the same tasks."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from shared.data.problems import DataError
from shared.evaluation import STATISTICS
from shared.evaluation.differences import ALPHA
from shared.evaluation.evaluate import State
from shared.metrics import difference, holm
from shared.runs.scores import FILE, Scores
from shared.runs.settings import read_yaml
from shared.runs.variant import Variant


def read_contrasts(path: Path) -> dict[str, tuple[str, str]]:
    """The lines of a file: two variants for each name, of which the second is taken from the first.

    Raises:
        DataError: The file has another form.
    """
    found = read_yaml(path)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in found.values()):
        raise DataError(f"{path}: expected two variants in each line, such as all of RML: [rml, maml]")
    return {name: (str(pair[0]), str(pair[1])) for name, pair in found.items()}


def contrast_rows(contrasts: Mapping[str, tuple[str, str]], variants: Sequence[Variant]) -> pd.DataFrame:
    """The differences, in every evaluation that both variants of a line have.

    Args:
        contrasts: See `read_contrasts`.
        variants: Evaluated variants, of the same data set.

    Returns:
        `line, plus, minus, dataset, protocol, title, models, samples, value, low, high, p, holm`. A p-value is adjusted
        for the number of lines that are tested on the same tasks.

    Raises:
        DataError: Two variants were evaluated on different tasks, or there is no line.
    """
    by_name = {variant.name: variant for variant in variants}
    read = cache(Scores.read)  # a variant stands in several lines
    rows = []
    for line, (plus, minus) in contrasts.items():
        if plus in by_name and minus in by_name:
            folders = [by_name[name].folder / "evaluation" for name in (plus, minus)]
            datasets = [{path.parent.name for path in folder.glob(f"*/{FILE}")} for folder in folders]
            for dataset in sorted(set.intersection(*datasets)):
                about = {"line": line, "plus": plus, "minus": minus, "dataset": dataset}
                rows += [about | row for row in _differences(by_name[plus], by_name[minus], dataset, read)]
    if not rows:
        lines = ", ".join(f"{plus} and {minus}" for plus, minus in contrasts.values())
        raise DataError(f"no line has both variants evaluated; there are lines of {lines}")
    found = pd.DataFrame(rows)
    for _, part in found.groupby(["dataset", "protocol"]):
        found.loc[part.index, "holm"] = holm(part["p"])
    return found


def _differences(plus: Variant, minus: Variant, dataset: str, read: Callable[[Path], Scores]) -> list[dict[str, Any]]:
    """One row for each protocol that both have."""
    one, other = (read(each.folder / "evaluation" / dataset) for each in (plus, minus))
    if not one.same_samples(other):
        raise DataError(
            f"{plus.folder} and {minus.folder} were evaluated on different tasks of {dataset}: evaluate both alike"
        )
    state = State.read(plus.folder / "evaluation" / dataset)
    rows = []
    for protocol in one.found.keys() & other.found.keys():
        mine, theirs = one.found[protocol].get(plus.title), other.found[protocol].get(minus.title)
        if mine is None or theirs is None:
            continue
        values, others = (STATISTICS["accuracy"](each, one.target, one.groups) for each in (mine, theirs))
        value, low, high, p = difference(values, others)
        title = state.protocols[protocol]["title"] if state else protocol
        rows.append({"protocol": protocol, "title": title, "models": min(len(values.point), len(others.point)),
                     "samples": len(one.samples), "value": value, "low": low, "high": high, "p": p})  # fmt: skip
    return sorted(rows, key=lambda row: str(row["protocol"]))


def in_words(row: Mapping[Any, Any]) -> str:
    """A line as a sentence."""
    value, low, high = (100 * float(row[key]) for key in ("value", "low", "high"))
    told = "beyond noise" if row["holm"] < ALPHA else "not told apart from 0"
    count = f"{row['models']} model{'' if row['models'] == 1 else 's'} each"
    return (
        f"{row['line']}: {row['plus']} - {row['minus']} = {value:+.1f} points [{low:.1f}, {high:.1f}], {told} ({count})"
    )
