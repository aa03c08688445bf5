"""How an evaluation is printed, and where the package's configurations are."""

from pathlib import Path

import pandas as pd
from rich.table import Table

from shared.runs.configs import Configs
from shared.runs.table import SYNTHETIC_WARNING, console

CONFIGS = Configs(Path(__file__).parents[1] / "configs")
# Title, decimals, and what a difference to DeepJSCC is multiplied with.
METRICS = {
    "psnr": ("PSNR, dB, more is better", 2),
    "lpips": ("LPIPS (AlexNet), less is better", 3),
    "ssim": ("SSIM, more is better", 3),
    "gradient_ssim": ("SSIM of gradients, more is better", 3),
    "identified_alexnet": ("share of persons identified by AlexNet's features", 2),
    "identified_pixels": ("share of persons identified by pixels", 2),
}
FURTHER = ("novelty", "sent_again", "seconds")  # in results.csv, not printed


def print_results(table: pd.DataFrame, dataset: str, kind: str) -> None:
    """Print a table for each metric: a row for each method, a column for each SNR.

    Args:
        table: Columns `title`, `method`, `metric`, `value`, `low`, `high`, and `over` with its interval.
        dataset: Name of the data set.
        kind: `synthetic` or `real`.
    """
    out = console(160)
    if kind == "synthetic":
        out.print(SYNTHETIC_WARNING)
    for metric, (name, decimals) in METRICS.items():
        rows = table[table["metric"] == metric]
        if rows.empty:
            continue
        snrs = list(rows["title"].unique())
        printed = Table(title=f"{dataset}: {name}")
        for column in ["Method", *snrs]:
            printed.add_column(column, justify="left" if column == "Method" else "right")
        for method in rows["method"].unique():
            cells = rows[rows["method"] == method].set_index("title")
            printed.add_row(method, *(_cell(cells, snr, decimals) for snr in snrs))
        out.print(printed)
    first = table.iloc[0]
    out.print(
        f"{first['samples']} images of {first['persons']} persons or groups; [...]: 95% interval of drawing them, for "
        "one training. The channel's noise is the same for all methods."
    )
    if "lpips" not in set(table["metric"]):
        out.print("LPIPS: not measured (no --settings.lpips); gradient SSIM does not stand for it and decides nothing.")


def _cell(cells: pd.DataFrame, snr: str, decimals: int) -> str:
    if snr not in cells.index:
        return "-"
    value, low, high = (float(cells.loc[snr, key]) for key in ("value", "low", "high"))  # type: ignore[arg-type]
    if value >= 99:
        return "equal"
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
