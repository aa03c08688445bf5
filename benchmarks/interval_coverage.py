"""How often the intervals of `shared.metrics` hold the truth: `make bench-intervals`.

Models and test samples are simulated (SYNTHETIC) with random effects on a latent scale, so the truth is known in closed
form: the mean of the metric over all models that a training might give and all samples that a test set might hold.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jsonargparse import auto_cli
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.timing import write_rows
from shared.metrics import Interval, PseudoValues, auroc_values, difference, interval, mean_values

Floats = NDArray[np.float64]
Metric = Literal["accuracy", "accuracy_95", "accuracy_patients", "auroc", "macro_auroc_rare"]
NOISE = {"none": 0.0, "small": 0.1, "large": 0.6}  # of models, in standard deviations of a sample's residual
RECORDS, MODELS = (30, 200, 1000), (2, 3, 5, 20)
MEANS = {"accuracy": (1.3, 0.9), "accuracy_95": (2.4, 2.0), "accuracy_patients": (1.3, 0.9)}
SEPARATIONS = (1.6, 1.2)
RARE = (0.5, 0.2, 0.15, 0.1, 0.05)  # shares of five classes; of 30 records two have the rarest
OF_A_PATIENT = 4  # records
LOWEST, HIGHEST, FROM = 0.92, 0.975, 5  # what coverage should be: at most HIGHEST from so many models up


class Cell(NamedTuple):
    """What is simulated: the metric, the model noise, and the numbers of records and models."""

    metric: Metric
    noise: str
    records: int
    models: int


def accuracies(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[PseudoValues, float]]:
    """Two methods' correct and wrong predictions of the same records, each with the truth."""
    spread = NOISE[cell.noise]
    of_record = rng.normal(size=cell.records)
    groups = None
    if cell.metric == "accuracy_patients":
        groups = np.arange(cell.records) // OF_A_PATIENT
        of_record = rng.normal(size=cell.records)[groups]
    for mean in MEANS[cell.metric]:
        of_model = spread * rng.normal(size=(cell.models, 1))
        correct = mean + of_model + of_record + rng.normal(size=(cell.models, cell.records)) > 0
        yield mean_values(correct, groups), float(norm.cdf(mean / np.sqrt(2 + spread**2)))


def areas(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[PseudoValues, float]]:
    """Two methods' scores of the same records, of one class or of five that differ in size, each with the truth."""
    spread, shares = NOISE[cell.noise], RARE if cell.metric == "macro_auroc_rare" else (0.3, 0.7)
    bounds = np.rint(np.cumsum(shares) * cell.records).astype(int)[:-1]
    target = np.eye(len(shares))[np.searchsorted(bounds, np.arange(cell.records), side="right")]
    target = target if cell.metric == "macro_auroc_rare" else target[:, :1]
    of_record = rng.normal(size=target.shape)
    for separation in SEPARATIONS:
        of_model = separation + spread * rng.normal(size=(cell.models, 1, 1))
        scores = of_model * target + of_record + rng.normal(size=(cell.models, *target.shape))
        yield auroc_values(scores, target), float(norm.cdf(separation / np.sqrt(4 + spread**2)))


SIMULATE: dict[str, Callable[[Cell, np.random.Generator], Iterator[tuple[PseudoValues, float]]]] = {
    **dict.fromkeys(MEANS, accuracies),
    **dict.fromkeys(("auroc", "macro_auroc_rare"), areas),
}


def simulate(cell: Cell, simulations: int) -> list[dict[str, object]]:
    """Rows of a cell: coverage and width of a method's value and of the difference of two methods."""
    rng = np.random.default_rng(zlib.crc32(repr(cell).encode()))  # of its own, whatever else is simulated
    found: dict[str, list[tuple[Interval, float]]] = {"single": [], "paired": []}
    spreads = []
    for _ in range(simulations):
        (plus, truth), (minus, other) = SIMULATE[cell.metric](cell, rng)
        found["single"].append((interval(plus), truth))
        found["paired"].append((difference(plus, minus), truth - other))
        spreads.append(plus.point.std(ddof=1))
    rows: list[dict[str, object]] = []
    for kind, intervals in found.items():
        ends = np.array([(each.low, each.high, truth) for each, truth in intervals])
        coverage = float(((ends[:, 0] <= ends[:, 2]) & (ends[:, 2] <= ends[:, 1])).mean())
        rows.append(
            {
                **cell._asdict(),
                "interval": kind,
                "truth": round(float(ends[0, 2]), 4),
                "std_of_models": round(float(np.mean(spreads)), 4),
                "simulations": simulations,
                "coverage": round(coverage, 4),
                "median_width": round(float(np.median(ends[:, 1] - ends[:, 0])), 4),
                "verdict": verdict(coverage, cell),
            }
        )
    return rows


def verdict(coverage: float, cell: Cell) -> str:
    """What a cell's coverage would need, in words; empty if it is as it should be."""
    if coverage < LOWEST:
        return f"too short: needs more {'records' if cell.noise == 'none' else 'models'}"
    return "too wide" if coverage > HIGHEST and cell.models >= FROM else ""


def main(
    simulations: int = 2000,
    metrics: list[Metric] = ["accuracy", "accuracy_95", "accuracy_patients", "auroc", "macro_auroc_rare"],  # noqa: B006
    jobs: int = os.cpu_count() or 1,
    output: Path = Path("results/interval_coverage.csv"),
) -> pd.DataFrame:
    """Simulate every cell, print the grid and write it.

    Args:
        simulations: Number of simulated experiments per cell; with 2,000, a coverage of 95% is known to half a point.
        metrics: Metrics to simulate.
        jobs: Number of processes.
        output: CSV file to write.
    """
    cells = [Cell(*each) for each in product(metrics, NOISE, RECORDS, MODELS)]
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(jobs) as pool:
        for done in pool.map(simulate, cells, [simulations] * len(cells)):
            rows += done
            single, paired = (f"{100 * float(str(row['coverage'])):.1f}" for row in done)
            print(*cells[len(rows) // 2 - 1], f"coverage single {single} paired {paired}", flush=True)
    table = pd.DataFrame(rows)
    grid = table.assign(coverage=100 * table["coverage"]).pivot_table(
        index=["metric", "interval", "noise", "records"], columns="models", values="coverage", sort=False
    )
    print(grid.round(1).to_string())
    named = ["metric", "interval", "noise", "records", "models", "coverage", "verdict"]
    print(table.loc[table["verdict"] != "", named].to_string(index=False))
    return write_rows(rows, output)


if __name__ == "__main__":
    auto_cli(main)
