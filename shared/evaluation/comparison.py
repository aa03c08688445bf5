"""Methods side by side on the same test samples: a paper's table beside ours, with intervals of the differences.

Shapes: M models, N samples, C classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from rich.table import Table

from shared.data.problems import DataError
from shared.evaluation.alike import alike
from shared.evaluation.differences import add_differences, beyond_noise, how_tested
from shared.evaluation.evaluate import State
from shared.evaluation.protocol import RANDOM
from shared.evaluation.statistics import STATISTICS, Statistic, statistic
from shared.metrics import FEWEST, PseudoValues, interval
from shared.runs.configs import Configs
from shared.runs.results import append_results
from shared.runs.scores import FILE, Outcome, Scores
from shared.runs.settings import EVALUATION
from shared.runs.table import SYNTHETIC_WARNING, beside_paper, console, difference_text, folders_text, interval_text
from shared.runs.tracking import save_figure
from shared.runs.variant import Variant

ONE_MODEL = (
    "One pre-trained model per method: the intervals cover the noise of the samples, but not that of pre-training, "
    'which more seeds would show (make: SEEDS="0 1 2 3 4"); p-values are therefore too small.'
)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        protocol: Name of a protocol of `evaluate`.
        metric: A metric of `shared.evaluation.STATISTICS`; by default the protocol's own.
    """

    protocol: str
    metric: str | None = None


@dataclass(frozen=True)
class MethodTable:
    """A file of configs/tables whose rows are methods.

    Attributes:
        title: Title of the table.
        reference: The row whose difference to every other row is given.
        columns: Columns by name; the printed differences are those of the first.
        data_sets: By the paper's name of a data set, the names (`run.dataset`) of our data sets that the table can be
            made on; the paper's own comes first.
        values: The paper's values by data set, row and column, in percent. The rows are printed in this order.
        setting: How the paper obtained its numbers, as a sentence.
        transfer: Whether the table is made on all data sets but the one that the methods were trained on.
    """

    title: str
    reference: str
    columns: dict[str, Column]
    data_sets: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    setting: str = ""
    transfer: bool = False


# A row of a column: its name, its models' scores, the protocol that they belong to, and whether it is a floor row.
Row = tuple[str, Outcome, str, bool]
# Of a variant, its scores, the column's protocol, and what evaluation.json says about the variant's protocols.
RowsOf = Callable[[Variant, Scores, str, Mapping[str, Mapping[str, Any]]], Iterator[Row]]


def rows_of_protocol(
    variant: Variant, scores: Scores, protocol: str, protocols: Mapping[str, Mapping[str, Any]]
) -> Iterator[Row]:
    """The floor rows and the variant's own row under a protocol."""
    for row, outcome in scores.found.get(protocol, {}).items():
        yield row, outcome, protocol, row in scores.floors


def read_method_table(path: Path) -> MethodTable:
    """Read a file of configs/tables.

    Raises:
        DataError: There is no such file, or it is not a table of methods.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; the paper's tables are in <package>/configs/tables/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        columns = {name: Column(**column) for name, column in content.pop("columns").items()}
        return MethodTable(columns=columns, **content)
    except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a table of methods ({error}); see the files of configs/tables/") from error


def compare(
    variants: Sequence[Variant],
    dataset: str,
    table: MethodTable,
    statistics: Mapping[str, Statistic] = STATISTICS,
    rows_of: RowsOf = rows_of_protocol,
    about: Callable[[Variant], dict[str, Any]] = lambda variant: {},
) -> pd.DataFrame:
    """One row for each floor row and each variant, all on the same test samples.

    A row has intervals of its value, of its difference from random init, and of the reference's difference from it,
    over test samples and models (see `shared.metrics.interval`). The p-values of all differences of the table together
    are adjusted for their number (`shared.metrics.holm`).

    Args:
        variants: Variants that were evaluated on the data set and trained alike (see `shared.evaluation.alike`).
        dataset: Name of the evaluation, a folder of `<variant>/evaluation`.
        table: The table, which says which columns there are and which row the others are compared with.
        statistics: Statistics by metric.
        rows_of: Gives the rows that a variant has in a column. The floor rows are taken from the first variant.
        about: Gives further columns of a variant's row.

    Returns:
        `method, variant, seeds, epochs, steps, models, samples, hours`, where several variants that each have a column
        of their own may be one row; for each column of the table its value with
        `_std`, `_low`, `_high`, `_models` (the value of each model) and `_metric`, what evaluation.json says about its
        protocol, and the differences `_over_random` and `_reference_over` with `_low`, `_high`, `_p` and `_holm`.
        Values are fractions, not percent. `attrs["left_out"]` names classes that the columns leave out.

    Raises:
        DataError: A variant has no such evaluation, or was evaluated on other samples than the first; or two variants
            have the same name.
    """
    first = Scores.read(variants[0].folder / "evaluation" / dataset)
    rows: dict[str, dict[str, Any]] = {}
    found: dict[tuple[str, str], PseudoValues] = {}
    seen: set[tuple[str, str]] = set()
    for variant in variants:
        folder = variant.folder / "evaluation" / dataset
        scores, state = Scores.read(folder), State.read(folder)
        if state is None:
            raise DataError(f"{folder / EVALUATION} is missing or damaged; evaluate again")
        if not scores.same_samples(first):
            raise DataError(
                f"{folder} and {variants[0].folder / 'evaluation' / dataset} were evaluated on different samples or "
                "classes, so they cannot be compared; train and evaluate both with the same data settings"
            )
        has_scores = False
        for name, column in table.columns.items():
            for row, outcome, protocol, is_floor in rows_of(variant, scores, column.protocol, state.protocols):
                has_scores |= not is_floor
                if (row, name) in seen:
                    if not is_floor:
                        raise DataError(
                            f"{variant.folder} and another of the variants are both {row}; compare one at a time"
                        )
                    continue
                seen.add((row, name))
                mine = rows.setdefault(row, _about(None if is_floor else variant, row, about))
                if not is_floor and variant.name not in mine["variant"].split():
                    # A column of its own: a method that is trained once for each number of shots, say.
                    mine |= {"variant": f"{mine['variant']} {variant.name}", "hours": mine["hours"] + variant.hours}
                described = state.protocols[protocol]
                metric = column.metric or described["metric"]
                values = statistic(metric, dict(statistics))(outcome, scores.target, first.groups)
                point, found[row, name] = values.point, values
                mine |= {"models": len(point), "samples": len(scores.samples)}
                mine |= {name: point.mean(), f"{name}_std": point.std(ddof=1) if len(point) > 1 else np.nan}
                mine[f"{name}_models"] = " ".join(f"{value:.4f}" for value in point)
                mine |= {f"{name}_{key}": value for key, value in described.items() if key not in ("title", "beside")}
                mine[f"{name}_metric"] = metric
                _, mine[f"{name}_low"], mine[f"{name}_high"], _ = interval(values)
        if not has_scores:
            wanted = ", ".join(column.protocol for column in table.columns.values())
            raise DataError(f"{folder} has no scores of {wanted}; evaluate again")
    add_differences(rows, found, table.reference)
    compared = pd.DataFrame(rows.values())
    left_out = sorted({index for values in found.values() for index in values.left_out})
    compared.attrs["left_out"] = [first.classes[index] for index in left_out]
    return compared


def _about(variant: Variant | None, row: str, about: Callable[[Variant], dict[str, Any]]) -> dict[str, Any]:
    """The columns of a row that come before its values; a floor row has no variant."""
    if variant is None:
        return {"method": row, "variant": "", "seeds": "", "epochs": 0, "steps": 0, "hours": 0.0}
    return {
        "method": row,
        "variant": variant.name,
        "seeds": variant.seeds_text,
        "epochs": variant.epochs,
        "steps": variant.steps,
        "hours": variant.hours,
        **about(variant),
    }


def print_comparison(
    table: MethodTable,
    stem: str,
    evaluated: Sequence[Variant],
    configs: Configs,
    draw: Callable[[pd.DataFrame, MethodTable, str, str], Figure],
    results: Path | None = None,
    apart: bool = False,
    statistics: Mapping[str, Statistic] = STATISTICS,
    rows_of: RowsOf = rows_of_protocol,
    about: Callable[[Variant], dict[str, Any]] = lambda variant: {},
    finish: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
    texts: Callable[[pd.DataFrame], dict[str, list[str]]] = lambda rows: {},
    note: str = "",
) -> pd.DataFrame:
    """Print a paper's table beside ours for every data set that all variants were evaluated on, and draw it.

    Data sets and methods that the paper's table lacks are shown without the paper's values.

    Args:
        table: The paper's table.
        stem: Name of its file, which names the figures and the rows of results.
        evaluated: The evaluated variants.
        configs: The package's configs/, which say what budget a method has of its own.
        draw: Draws the rows; it gets the table, a title, and a note, which is "SYNTHETIC" for synthetic data.
        results: CSV file that the rows are appended to.
        apart: Whether to print variants that were not trained alike in separate tables, rather than refuse them.
        statistics: Statistics by metric.
        rows_of: Gives the rows that a variant has in a column, see `compare`.
        about: Gives further columns of a variant's row, see `compare`.
        finish: Adds columns that follow from several rows.
        texts: Gives further printed columns, by name, for the rows.
        note: Text printed below the table.

    Returns:
        The rows of all tables, see `compare`.

    Raises:
        DataError: The variants were not trained alike, or there is no data set that all of them were evaluated on.
    """
    everything = []
    for variants in alike(evaluated, configs, apart):
        for name, dataset in _data_sets(table, variants):
            rows = finish(compare(variants, dataset, table, statistics, rows_of, about))
            order = [RANDOM, *table.values.get(name, next(iter(table.values.values()), {}))]
            places = rows["method"].map({row: place for place, row in enumerate(order)})
            places = places.fillna(len(order))  # rows that the paper lacks come last
            rows = rows.iloc[places.argsort(kind="stable")].reset_index(drop=True)
            synthetic = any(variant.is_synthetic for variant in variants) or _is_synthetic(variants[0], dataset)
            rows = _with_settings(rows, table, stem, name, dataset, variants[0], synthetic)
            _print(table, name, dataset, variants, rows, texts(rows), synthetic, note)
            figure = draw(rows, table, f"{table.title}, {dataset}", "SYNTHETIC" if synthetic else "")
            path = save_figure(figure, variants[0].folder.parent / "comparison", f"{dataset}_{stem}")
            print(f"wrote {path}")
            everything.append(rows)
    found = pd.concat(everything, ignore_index=True)
    if results:
        by_name = {variant.name: variant.save_config(results) for variant in evaluated}
        configs_of = [" ".join(by_name[name] for name in names.split()) for names in found["variant"]]
        append_results(found.round(4).assign(config=configs_of), results)
    return found


def _is_synthetic(variant: Variant, dataset: str) -> bool:
    state = State.read(variant.folder / "evaluation" / dataset)
    return state is not None and state.kind == "synthetic"


def _data_sets(table: MethodTable, variants: Sequence[Variant]) -> list[tuple[str, str]]:
    """The paper's name and ours for each data set that the table can be made on.

    Raises:
        DataError: There is no such data set.
    """
    trained_on = variants[0].dataset
    by_name = dict(table.data_sets)
    if table.transfer:
        others = sorted(path.parent.name for path in variants[0].folder.glob(f"evaluation/*/{FILE}"))
        named = {name for names in by_name.values() for name in names}
        by_name |= {name: [name] for name in others if name not in {trained_on, *named}}
    elif trained_on not in {name for names in by_name.values() for name in names}:
        by_name[trained_on] = [trained_on]
    found = []
    for name, candidates in by_name.items():
        for dataset in candidates:
            if all((variant.folder / "evaluation" / dataset / FILE).is_file() for variant in variants):
                found.append((name, dataset))
                break
    if not found:
        package = variants[0].package
        raise DataError(
            f"no data set of {table.title} has all variants evaluated: run python -m {package} evaluate --run "
            f"{folders_text(variant.folder for variant in variants)}"
        )
    return found


def _print(
    table: MethodTable,
    name: str,
    dataset: str,
    variants: Sequence[Variant],
    rows: pd.DataFrame,
    texts: Mapping[str, list[str]],
    synthetic: bool,
    note: str,
) -> None:
    out = console(150)
    if synthetic:
        out.print(SYNTHETIC_WARNING, style="bold red")
    columns = [column for column in table.columns if column in rows]
    ends = ("", "_std", "_low", "_high")
    shown = 100 * rows[[f"{column}{end}" for column in columns for end in ends if f"{column}{end}" in rows]].astype(
        float
    )
    records = rows.to_dict("records")
    first = columns[0]
    shown["over random init"] = [difference_text(row, f"{first}_over_random") for row in records]
    shown[f"{table.reference} over it"] = [difference_text(row, f"{first}_reference_over") for row in records]
    for key, values in texts.items():
        shown[key] = values
    shown["epochs (steps)"] = [f"{row['epochs']} ({row['steps']})" if row["variant"] else "-" for row in records]
    shown["hours"] = [f"{row['hours']:.2f}" if row["hours"] else "-" for row in records]
    shown = shown.set_index(pd.MultiIndex.from_product([[name], rows["method"]]))
    printed = table.values.get(name, {})
    ordered = [row for row in rows["method"] if row == RANDOM] + [*printed, *rows["method"]]
    paper = {name: {row: printed.get(row, {}) for row in ordered}}
    kind = " (SYNTHETIC data)" if synthetic else ""
    title = f"{table.title}; ours trained on {variants[0].dataset}, evaluated on {dataset}{kind}, percent"
    extra = ["over random init", f"{table.reference} over it", *texts, "epochs (steps)", "hours"]
    hours = sum(variant.hours for variant in variants)
    out.print(beside_paper(shown, paper, hours, title, extra, columns))
    left_out = rows.attrs.get("left_out", [])
    differences = f" The differences are those of {first}." if len(columns) > 1 else ""
    said = [
        f"[...]: 95% interval over {rows['samples'].iloc[0]} test samples and the models, paired by sample for "
        f"differences.{differences}",
        *([f"Left out, as fewer than {FEWEST} groups have or lack them: {', '.join(left_out)}."] if left_out else []),
        *([table.setting] if table.setting else []),
        *([note] if note else []),
    ]
    out.print(" ".join(said), highlight=False, markup=False)
    if any(len(row["seeds"].split()) == 1 for row in records):
        out.print(ONE_MODEL, style="yellow", highlight=False, markup=False)
    with_differences = [
        column for column in columns if {f"{column}_over_random", f"{column}_reference_over"} & set(rows)
    ]
    if with_differences:
        out.print(how_tested(rows, with_differences), highlight=False, markup=False)
    for column in with_differences:
        out.print(beyond_noise(rows, table.reference, column), highlight=False, markup=False)


def print_rows(
    table: pd.DataFrame, dataset: str, kind: str, metric: str, models: str, one_model: bool = False, note: str = ""
) -> None:
    """Print the rows of one variant's evaluation, in percent.

    Args:
        table: Rows with `protocol`, `method`, `models`, `samples`, `value`, `std`, `low`, `high` and, where there is
            one, the difference `gain` from random init with its interval.
        dataset: Name of the data set.
        kind: `synthetic` or `real`.
        metric: What the values are.
        models: What the models of a row are called in the column of their number.
        one_model: Whether all belong to one pre-trained model, so that the intervals do not cover its noise.
        note: Text printed below.
    """
    out = console()
    label = "SYNTHETIC data" if kind == "synthetic" else "real data"
    shown = Table(title=f"{metric}, percent, on {dataset} ({label}; {table['samples'].iloc[0]} test samples)")
    for column in ("Protocol", "Method", models, metric, "95% interval", "over untrained"):
        shown.add_column(column, justify="left" if column in ("Protocol", "Method") else "right")
    for protocol, part in table.groupby("protocol", sort=False):
        for index, row in enumerate(part.to_dict("records")):
            value = f"{100 * row['value']:.1f}"
            value += "" if pd.isna(row["std"]) else f" ± {100 * row['std']:.1f}"
            name = row["method"] if row["method"] == RANDOM else f"[bold]{row['method']}[/]"
            first = str(protocol) if index == 0 else ""
            over = difference_text(row, "gain")
            shown.add_row(first, name, str(row["models"]), value, f"\\{interval_text(row)}", over)
        shown.add_section()
    out.print(shown)
    if one_model:
        out.print(ONE_MODEL, style="yellow")
    out.print(note, highlight=False, markup=False)


def _with_settings(
    rows: pd.DataFrame, table: MethodTable, stem: str, name: str, dataset: str, variant: Variant, synthetic: bool
) -> pd.DataFrame:
    """Rows of results/: our values, the paper's values, and the settings that all variants share."""
    printed = table.values.get(name, {})
    for column in table.columns:
        paper = [printed.get(method, {}).get(column) for method in rows["method"]]
        if any(value is not None for value in paper):
            rows[f"{column}_paper_percent"] = paper
    return rows.assign(
        table=stem,
        paper_data_set=name if name in table.data_sets else "",
        dataset=dataset,
        trained_on=variant.dataset,
        data_kind="synthetic" if synthetic else "real",
        batch_size=variant.config["data"]["init_args"].get("batch_size"),
        precision=(variant.config.get("trainer") or {}).get("precision"),
    )
