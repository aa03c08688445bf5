"""Pictures: the 12 leads on ECG paper, augmented leads, the similarity of records and classes, and bars per class.

They are matplotlib figures made without pyplot, so nothing is shown or left open, and no window system is needed.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

PAPER = "#fffaf7"
GRID_MINOR, GRID_MAJOR = "#f6d9d3", "#e9a79b"
INK, ACCENT, GREY = "#1d2433", "#1f6f8b", "#a7adb8"
SECONDS_A_COLUMN = 2.5  # the usual print has four columns of 2.5 s, and a rhythm strip

LEAD_SPACING = 8.0  # distance between the leads of an augmented record, in standard deviations


class Panel(NamedTuple):
    """One augmentation of a record, for `draw_augmentations`.

    Attributes:
        name: The augmentation as it is called, `TimeOut(low=0.0, high=0.5)`.
        signal: `(L, T')` augmented signal.
        seconds: Number of seconds that are drawn.
    """

    name: str
    signal: NDArray[np.floating]
    seconds: float


def draw_ecg(
    millivolts: NDArray[np.floating],
    leads: Sequence[str],
    sampling_rate: float,
    title: str = "",
    scores: Mapping[str, float] | None = None,
) -> Figure:
    """A 12-lead ECG as it is printed: 25 mm/s and 10 mm/mV on a 1 mm and 5 mm grid, with a rhythm strip.

    Args:
        millivolts: `(12, T)` signal; 10 s fill the page, and longer signals are cut.
        leads: Names of the rows, in the order of `ecg_text.data.records.LEADS`.
        sampling_rate: Sampling rate in Hz.
        title: Title drawn above the ECG.
        scores: Zero-shot scores by class, drawn beside the ECG as bars with the highest on top.
    """
    rows = [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11], [min(1, len(leads) - 1)]]
    figure = Figure(figsize=(14 if scores else 11, 6.2))
    axes = figure.subplots(1, 2 if scores else 1, width_ratios=[4, 1.15] if scores else [1], squeeze=False)
    axis = axes[0, 0]
    spacing = 3.0  # mV between rows
    for row, channels in enumerate(rows):
        baseline = (len(rows) - 1 - row) * spacing
        span = SECONDS_A_COLUMN if len(channels) > 1 else SECONDS_A_COLUMN * 4
        for column, channel in enumerate(channels):
            start = column * span if len(channels) > 1 else 0.0
            first, last = round(start * sampling_rate), round((start + span) * sampling_rate)
            trace = millivolts[channel, first:last] - np.median(millivolts[channel])
            time = start + np.arange(len(trace)) / sampling_rate
            axis.plot(time, baseline + np.clip(trace, -2.2, 2.2), color=INK, linewidth=0.8)
            axis.text(start + 0.05, baseline + 1.05, leads[channel], fontsize=10, fontweight="bold", color=INK)
            if column:
                axis.vlines(start, baseline - 0.6, baseline + 0.6, color=INK, linewidth=0.8)
    axis.set_facecolor(PAPER)
    axis.set_xlim(0, SECONDS_A_COLUMN * 4)
    axis.set_ylim(-1.9, (len(rows) - 1) * spacing + 1.9)
    axis.set_aspect(0.4)  # 25 mm/s and 10 mm/mV: one second is as long as 2.5 mV are high
    axis.xaxis.set_major_locator(MultipleLocator(0.2))
    axis.xaxis.set_minor_locator(MultipleLocator(0.04))
    axis.yaxis.set_major_locator(MultipleLocator(0.5))
    axis.yaxis.set_minor_locator(MultipleLocator(0.1))
    axis.grid(which="minor", color=GRID_MINOR, linewidth=0.3)
    axis.grid(which="major", color=GRID_MAJOR, linewidth=0.5)
    axis.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("25 mm/s, 10 mm/mV (lower strip: lead II)", loc="right", fontsize=8)
    if scores:
        _draw_scores(axes[0, 1], scores)
    figure.tight_layout()
    return figure


def _draw_scores(axis: Axes, scores: Mapping[str, float]) -> None:
    ordered = sorted(scores.items(), key=lambda item: item[1])
    names, values = [name for name, _ in ordered], [value for _, value in ordered]
    colours = [GREY] * (len(values) - 1) + [ACCENT]
    axis.barh(names, values, color=colours)
    axis.axvline(0, color=INK, linewidth=0.8)
    for index, value in enumerate(values):
        axis.text(max(value, 0), index, f" {value:.2f}", va="center", fontsize=9)
    axis.margins(x=0.25)
    axis.set_title("cosine similarity", loc="left", fontsize=11)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)


def draw_augmentations(
    signal: NDArray[np.floating],
    panels: Sequence[Panel],
    leads: Sequence[str],
    sampling_rate: float,
    title: str = "",
) -> Figure:
    """What each augmentation does: one panel each, with the leads one above the other and the original in grey.

    Args:
        signal: `(L, T)` original signal, in standard deviations of each lead.
        panels: Its augmentations; the panels' time axes differ.
        leads: Names of the rows.
        sampling_rate: Sampling rate in Hz.
        title: Title drawn above all panels.
    """
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(14, 0.6 + 2.6 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    offsets = -LEAD_SPACING * np.arange(len(leads))
    for axis, panel in zip(axes, panels, strict=False):
        for trace, colour, width in ((signal, GREY, 1.1), (panel.signal, ACCENT, 0.8)):
            shown = trace[:, : round(panel.seconds * sampling_rate)]
            axis.plot(np.arange(shown.shape[1]) / sampling_rate, shown.T + offsets, color=colour, linewidth=width)
        name, _, settings = panel.name.partition("(")
        axis.set_title(name, loc="left", fontsize=11, fontweight="bold", color=INK, pad=20)
        settings = textwrap.fill(settings.removesuffix(")"), 66)
        axis.annotate(settings, (0, 1), (0, 15), "axes fraction", "offset points", fontsize=8, va="top")
        axis.set_yticks(offsets, leads)
        axis.set_xlim(0, panel.seconds)
        axis.set_ylim(offsets[-1] - 0.8 * LEAD_SPACING, 0.95 * LEAD_SPACING)
        axis.tick_params(left=False, labelsize=8)
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.supxlabel("seconds", fontsize=9)
    figure.tight_layout(h_pad=1.5, rect=(0, 0, 1, 0.99))
    return figure


def draw_similarity(scores: NDArray[np.floating], target: NDArray[np.floating], classes: Sequence[str]) -> Figure:
    """Mean zero-shot score of the records of each class (rows) for each class's prompt (columns).

    Every column is centred, because a prompt's overall level says nothing about a record.

    Args:
        scores: `(N, C)` zero-shot scores.
        target: `(N, C)` in {0, 1}; every class must occur.
        classes: Codes of the classes.
    """
    mean = (target.T @ scores) / target.sum(0)[:, None]
    centred = mean - mean.mean(0)
    limit = float(np.abs(centred).max()) or 1.0
    size = 1.8 + 0.75 * len(classes)
    figure = Figure(figsize=(size + 1.2, size))
    axis = figure.subplots()
    picture = axis.imshow(centred, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for row, column in np.ndindex(*centred.shape):
        dark = abs(centred[row, column]) > 0.6 * limit
        axis.text(column, row, f"{centred[row, column]:+.2f}", ha="center", va="center", color="white" if dark else INK)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set_xlabel("prompt")
    axis.set_ylabel("records of class")
    figure.colorbar(picture, ax=axis, label="cosine similarity, column mean removed", shrink=0.8)
    figure.tight_layout()
    return figure


def draw_methods(rows: pd.DataFrame, paper: Mapping[str, float | None], title: str) -> Figure:
    """Macro AUROC of every method with its interval, and the paper's value as a hollow marker.

    Args:
        rows: Rows as made by `shared.evaluation.compare`.
        paper: The paper's AUC by method, in percent.
        title: Title drawn above the plot.
    """
    ordered = rows.set_index("method")
    place = np.arange(len(ordered))[::-1]
    figure = Figure(figsize=(7.5, 1.4 + 0.33 * len(ordered)))
    axis = figure.subplots()
    mean = ordered["AUC"].to_numpy(float)
    ends = np.abs(ordered[["AUC_low", "AUC_high"]].to_numpy(float).T - mean)
    axis.errorbar(100 * mean, place, xerr=100 * ends, fmt="o", color=ACCENT, capsize=3, label="ours, 95% interval")
    printed = np.array([paper.get(name) for name in ordered.index], dtype=float)
    if not np.isnan(printed).all():
        axis.plot(printed, place, "D", color=GREY, markerfacecolor="none", label="the paper (all of its data)")
    if "Random init" in ordered.index:
        axis.axvline(100 * mean[list(ordered.index).index("Random init")], color=GREY, linewidth=0.8, linestyle=":")
    axis.set_yticks(place, ordered.index)
    axis.set_xlabel("macro AUROC, %")
    axis.set_title(title, loc="left", fontsize=11)
    axis.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.18))
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def draw_class_bars(table: pd.DataFrame, title: str) -> Figure:
    """AUROC of every class and their average, one bar per method; lines show a standard deviation over the models.

    Args:
        table: Rows of `ECGEvaluation.table` for one protocol.
        title: Title drawn above the bars.
    """
    methods = list(table["method"].unique())
    classes = list(table["class"].unique())
    width = 0.8 / len(methods)
    figure = Figure(figsize=(2.5 + 0.9 * len(classes), 3.6))
    axis = figure.subplots()
    for index, method in enumerate(methods):
        rows = table[table["method"] == method].set_index("class").loc[classes]
        place = np.arange(len(classes)) - 0.4 + width * (index + 0.5)
        deviation = rows["auroc_std"].fillna(0)
        colour = GREY if index == 0 and len(methods) > 1 else ACCENT
        axis.bar(place, rows["auroc"], width * 0.92, yerr=deviation, color=colour, label=method, ecolor=INK, capsize=2)
    axis.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(classes)), classes)
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("AUROC")
    axis.set_title(title, loc="left", fontsize=11)
    axis.legend(frameon=False, ncols=len(methods), loc="upper right", bbox_to_anchor=(1, 1.14))
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure
