"""`python -m commin table`: evaluations of several folds as one, and the paper's statements beside them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from commin.evaluation.models import PLAIN, row_of
from commin.evaluation.tables import print_results
from shared.data.problems import DataError
from shared.evaluation.evaluate import State
from shared.metrics import difference, mean_values
from shared.runs.results import append_results
from shared.runs.scores import Scores
from shared.runs.settings import read_yaml
from shared.runs.table import console
from shared.runs.variant import Variant

FOLD = re.compile(r"_fold\d+$")
Values = dict[tuple[str, str, str], NDArray[np.float64]]  # by protocol, row and metric: (M, N)


def print_table(table: Path, run: list[str], results: Path | None = None) -> pd.DataFrame:
    """Print every row at every SNR, over all folds together, and what the paper says of Fig. 4 beside it.

    Args:
        table: The paper's statements, a file of configs/tables.
        run: Evaluated variants, `runs/commin/<data set>/<variant>`; names that differ in `_fold<k>` alone are one.
        results: CSV file that the rows are appended to.

    Returns:
        One row for each SNR, method and metric.

    Raises:
        DataError: A variant is not evaluated, or rows were evaluated on different images.
    """
    variants = [Variant(Path(folder)) for folder in run]
    values, groups, kind = _pooled(variants)
    rows = []
    for (protocol, row, metric), found in values.items():
        about = {"protocol": protocol, "title": f"{protocol.removesuffix('dB')} dB", "method": row, "metric": metric}
        rows.append(about | row_of(found, groups, values.get((protocol, PLAIN, metric))))
    printed = pd.DataFrame(rows)
    print_results(printed, variants[0].dataset, kind)
    statements = read_yaml(table)["statements"]
    console(160).print(_statements(statements, values, groups))
    if results:
        first = variants[0]
        printed = printed.assign(
            dataset=first.dataset,
            data_kind=kind,
            variants=" ".join(variant.name for variant in variants),
            seeds=first.seeds_text,
            hours=sum(variant.hours for variant in variants),
            config=first.save_config(results),
        )
        append_results(printed, results)
    return printed


def _pooled(variants: Sequence[Variant]) -> tuple[Values, NDArray[np.int64], str]:
    """The values of all images of all folds, the persons, and the kind of the data.

    Raises:
        DataError: A variant is not evaluated, or the folds have other rows or images than one another.
    """
    folds: dict[str, list[tuple[Variant, Scores]]] = {}
    kinds = set()
    for variant in variants:
        folder = variant.folder / "evaluation" / variant.dataset
        scores, state = Scores.read(folder), State.read(folder)
        kinds.add(state.kind if state else "real")
        fold = FOLD.search(variant.name)
        folds.setdefault(fold[0] if fold else "", []).append((variant, scores))
    by_fold: list[Values] = []
    groups, offset = [], 0
    for members in folds.values():
        first = members[0][1]
        found: Values = {}
        for variant, scores in members:
            if not scores.same_samples(first):
                raise DataError(f"{variant.folder} was evaluated on other images than {members[0][0].folder}")
            for protocol, outcomes in scores.found.items():
                for row, outcome in outcomes.items():
                    found |= {(protocol, row, metric): array for metric, array in outcome.values.items()}
        by_fold.append(found)
        numbers = pd.factorize(first.groups)[0]
        groups.append(numbers + offset)
        offset += numbers.max() + 1
    if any(found.keys() != by_fold[0].keys() for found in by_fold):
        raise DataError("the folds were not evaluated alike: evaluate all of them with the same settings")
    pooled = {key: np.concatenate([found[key] for found in by_fold], axis=1) for key in by_fold[0]}
    return pooled, np.concatenate(groups), "synthetic" if "synthetic" in kinds else "real"


def _statements(statements: Sequence[Mapping[str, Any]], values: Values, groups: NDArray[np.int64]) -> Table:
    """What the paper says, and at how many SNRs it is so here beyond the images' noise."""
    table = Table(title="The paper's statements about Fig. 4, and the same here")
    for column in ("paper", "here: paired difference at each SNR, 95% interval", "so at"):
        table.add_column(column)
    protocols = list(dict.fromkeys(protocol for protocol, _, _ in values))
    for each in statements:
        texts, so = [], 0
        for protocol in protocols:
            ours, other = (values.get((protocol, each[key], each["metric"])) for key in ("row", "than"))
            if ours is None or other is None:
                continue
            found = difference(mean_values(ours, groups, bounded=False), mean_values(other, groups, bounded=False))
            texts.append(f"{found.value:+.2f} \\[{found.low:+.2f}, {found.high:+.2f}]")
            limit = {"less": -found.high, "more": found.low, "within": found.low + each.get("margin", 0.0)}[each["is"]]
            so += limit > 0
        says = f"{each['says']} (here: within {each['margin']} dB)" if "margin" in each else each["says"]
        table.add_row(says, ", ".join(texts) or "not measured", f"{so} of {len(texts)}" if texts else "-")
    return table
