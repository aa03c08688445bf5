"""`python -m ecg_text table`: a table of the paper beside what `evaluate` found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from ecg_text.data.labels import read_csv
from ecg_text.evaluation.comparison import SYNTHETIC_WARNING, MethodTable, print_comparison
from ecg_text.evaluation.models import RANDOM
from shared.data.problems import DataError
from shared.runs.table import beside_paper
from shared.runs.variant import read_data_config

CONFIGS = Path(__file__).parents[1] / "configs"
# The paper's columns in classes.csv. ACC and F1 are at the threshold of best F1, as the paper most likely has them.
COLUMNS = {"AUC": "auroc", "ACC": "best_f1_accuracy", "F1": "best_f1"}
AVERAGE = "Average"


@dataclass(frozen=True)
class PaperTable:
    """A file of configs/tables.

    Attributes:
        title: What it shows.
        protocol: In `classes.csv`.
        train: Files of configs/ that make the paper's training run.
        evaluate: Files of configs/ with the data sets that the table can be made on; first the paper's.
        values: By class, method and column, in percent.
    """

    title: str
    protocol: str
    train: list[str]
    evaluate: list[str]
    values: dict[str, dict[str, dict[str, float]]]


def read_table(path: Path) -> PaperTable | MethodTable:
    """Read a file of configs/tables: classes in rows (Tables 2 and 3), or methods (Table 1).

    Raises:
        DataError: There is no such file, or it is not such a file.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; the paper's tables are in ecg_text/configs/tables/")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return MethodTable(**content) if "data_sets" in content else PaperTable(**content)
    except TypeError as error:
        raise DataError(
            f"{path} is no table of the paper ({error}); see ecg_text/configs/tables/table2.yaml"
        ) from error


def print_table(table: Path, runs: list[str], results: Path | None = None) -> None:
    """Print a table of the paper beside ours, and how ours differs in protocol.

    Tables 2 and 3 are printed for each variant. Table 1 has the variants as rows, with intervals and differences.

    Args:
        table: A file of configs/tables.
        runs: Variants that were evaluated: `runs/ecg_text/<data set>/<variant>`, all seeds together.
        results: CSV that the rows of Table 1 are appended to.
    """
    paper = read_table(table)
    if isinstance(paper, MethodTable):
        print_comparison(paper, CONFIGS, [Path(run) for run in runs], results)
        return
    console = Console(width=None if Console().is_terminal else 120)
    for run in map(Path, runs):
        folders = sorted(run.glob("seed_*"))
        if not folders:
            raise DataError(f"no {run}/seed_*: train first (make train-etp), or pass another --runs")
        trained_on = read_data_config(folders[0] / "config.yaml")
        evaluations = [read_data_config(CONFIGS / name) for name in paper.evaluate]
        # A run's own configuration says more of its data set than the file that it began with.
        evaluations = [trained_on if trained_on[0] == each[0] else each for each in evaluations]
        found = [each for each in evaluations if (run / "evaluation" / each[0] / "classes.csv").is_file()]
        if not found:
            names, short = [name for name, _, _ in evaluations], paper.title.split(":")[0]
            data = "" if trained_on[0] in names else f" --data ecg_text/configs/{paper.evaluate[0]}"
            raise DataError(
                f"{run}/evaluation has no classes.csv of {' or '.join(names)}, which {short} needs: "
                f"python -m ecg_text evaluate --run {run}{data} writes it"
            )
        for dataset, tags, config in found:
            rows = _read_rows(run / "evaluation" / dataset / "classes.csv", paper.protocol)
            synthetic = "synthetic" in {*tags, *trained_on[1]}
            title = f"{paper.title}; ours: {run.name}{' (SYNTHETIC data)' if synthetic else ''}"
            if synthetic:
                console.print(SYNTHETIC_WARNING, style="bold red")
            console.print(beside_paper(_ours(rows), paper.values, folders, title))
            console.print(_differences(paper, run, dataset, config, rows), highlight=False, markup=False)


def _read_rows(path: Path, protocol: str) -> pd.DataFrame:
    columns = [*COLUMNS.values(), *(f"{column}_std" for column in COLUMNS.values())]
    rows = read_csv(path, ["protocol", "method", "class", "models", "records", *columns])
    rows = rows[rows["protocol"] == protocol]
    if rows.empty:
        raise DataError(f"{path} has no row of protocol {protocol}; run python -m ecg_text evaluate again")
    return rows


def _ours(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of classes.csv by class and the paper's method, in percent; all that is not random init is ETP."""
    methods = rows["method"].where(rows["method"] == RANDOM, "ETP")
    renamed = {f"{name}{end}": f"{column}{end}" for column, name in COLUMNS.items() for end in ("", "_std")}
    indexed = rows.set_index([rows["class"], methods])
    return 100 * indexed[list(renamed)].rename(columns=renamed)


def _differences(paper: PaperTable, run: Path, dataset: str, config: dict[str, Any], rows: pd.DataFrame) -> str:
    """Training and evaluation, ours and the paper's, as two sentences."""
    setting: dict[str, Any] = {}
    for name in paper.train:
        setting |= yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8")).get("run") or {}
    printed_on, _, printed_config = read_data_config(CONFIGS / paper.evaluate[0])
    average = rows[rows["class"] == AVERAGE]
    models = ", ".join(f"{row.models} x {row.method}" for row in average.itertuples())
    left_out = [name for name in paper.values if name not in set(rows["class"])]
    ours = f"{run.name} trained on {run.parent.name}, evaluated on {int(rows['records'].iloc[0])} test records of "
    ours += f"{dataset}, label mode {config['init_args']['label_mode']}, {models}"
    if left_out:
        ours += f", without {', '.join(left_out)} (so the averages are of other classes)"
    printed = f"{setting['variant']} trained on {setting['dataset']}, evaluated on {printed_on}, "
    printed += f"label mode {printed_config['init_args']['label_mode']}"
    return f"Ours: {ours}. The paper's setting: {printed}."
