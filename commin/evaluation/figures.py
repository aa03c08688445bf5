"""Pictures of received images, and quality against SNR."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from shared.evaluation.figures import INK, head, open_frame

# What Fig. 4 shows and, where it was measured, whether the person can still be told.
CURVES = (
    ("psnr", "PSNR, dB (more is better)"),
    ("lpips", "LPIPS, AlexNet (less is better)"),
    ("gradient_ssim", "gradient SSIM (more is better)"),
    ("identified_alexnet", "persons identified, by AlexNet"),
    ("identified_pixels", "persons identified, by pixels"),
)
SENT = "Sent image"


def draw_curves(table: pd.DataFrame, title: str, note: str) -> Figure:
    """A panel for each metric: every row against SNR, with 95% intervals.

    Args:
        table: Columns `title` ("-5 dB"), `method`, `metric`, `value`, `low`, `high`.
        title: Title above the panels.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    shown = [(metric, label) for metric, label in CURVES if (table["metric"] == metric).any()][:4]
    methods = list(table["method"].unique())
    figure = Figure(figsize=(4.4 * min(2, len(shown)) + 0.4, 3.4 * ((len(shown) + 1) // 2) + 0.3 * len(methods)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots((len(shown) + 1) // 2, min(2, len(shown)), squeeze=False).ravel()
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for axis, (metric, label) in zip(axes, shown, strict=False):
        for number, method in enumerate(methods):
            rows = table[(table["metric"] == metric) & (table["method"] == method)]
            # What was sent is perfect by every measure of likeness; whether it is identified is of interest.
            if rows.empty or (method == SENT and not metric.startswith("identified")):
                continue
            snr = rows["title"].str.removesuffix(" dB").astype(float).to_numpy()
            value, low, high = (rows[column].to_numpy(float) for column in ("value", "low", "high"))
            whiskers = np.nan_to_num(np.clip([value - low, high - value], 0, None))
            style = {"color": colours[number % len(colours)], "lw": 1.2, "ms": 3, "capsize": 2, "elinewidth": 0.7}
            axis.errorbar(snr, value, whiskers, marker="o", label=method, **style)
        axis.set_xlabel("SNR, dB")
        axis.set_ylabel(label)
        open_frame(axis)
    for axis in axes[len(shown) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=2, loc="outside lower left", fontsize=8)
    head(figure, title, note)
    return figure


def draw_pictures(columns: Mapping[str, Tensor], title: str, note: str, rows: Sequence[str] = ()) -> Figure:
    """Images side by side: a column for each method, a row for each image.

    Args:
        columns: By name, `(n, 3, H, W)` uint8.
        title: Title above them.
        note: Text put before the title.
        rows: Names of the rows.
    """
    count = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.25 * len(columns) + 0.2, 1.2 * count + 1.1), layout="constrained")
    axes = figure.subplots(count, len(columns), squeeze=False)
    for place, (name, images) in enumerate(columns.items()):
        for row in range(count):
            axis = axes[row, place]
            axis.imshow(images[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if rows and place == 0:
                axis.set_ylabel(rows[row], fontsize=8)
        axes[0, place].set_title(_wrapped(name), fontsize=8, color=INK, va="bottom")
    head(figure, title, note)
    return figure


def _wrapped(name: str, width: int = 16) -> str:
    """A name on as many lines as it needs."""
    lines: list[str] = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def draw_parts(parts: Mapping[str, Tensor], title: str, note: str) -> Figure:
    """Fig. 2: the image, its coarse part, what was received, and the details.

    Args:
        parts: By name, `(n, 3, H, W)` floats in [-1, 1]; details are about 0, which is drawn as grey.
        title: Title above them.
        note: Text put before the title.
    """
    shown = {name: ((part.detach() + 1) * 127.5).round().clamp(0, 255).byte() for name, part in parts.items()}
    return draw_pictures(shown, title, note)
