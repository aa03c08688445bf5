"""Figures that every evaluation can draw, and what all of a package's figures look like.

They are matplotlib figures made without pyplot, so nothing is shown or left open, and no window system is needed.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, ACCENT, GREY = "#1d2433", "#1f6f8b", "#a7adb8"
ORANGE = "#e08214"


def draw_results(rows: pd.DataFrame, title: str = "", metric: str = "accuracy", note: str = "") -> Figure:
    """Every method with its 95% interval, one bar per protocol.

    Args:
        rows: Table with the columns `method`, `protocol`, `value`, `low`, `high` (shares, shown in percent); it is best
            sorted like the paper's table. A value that is absent or not a number, as of a run that did not converge, is
            drawn as a dash.
        title: Title drawn above the bars.
        metric: Name of the metric.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    methods, protocols = list(rows["method"].unique()), list(rows["protocol"].unique())
    figure = Figure(figsize=(7.5, 1.6 + 0.42 * len(methods)), layout="constrained")
    axis = figure.subplots()
    height = 0.76 / len(protocols)
    for index, protocol in enumerate(protocols):
        part = rows[rows["protocol"] == protocol].set_index("method").reindex(methods)
        value, low, high = (100 * part[column].to_numpy(float) for column in ("value", "low", "high"))
        place = np.arange(len(methods))[::-1] + 0.38 - height * (index + 0.5)
        colour = (ACCENT, ORANGE, GREY)[index % 3]
        whiskers = np.clip([value - low, high - value], 0, None)
        axis.barh(place, value, 0.92 * height, xerr=whiskers, color=colour, ecolor=INK, capsize=2, label=protocol)
        for y, number, end in zip(place, value, np.fmax(value, high), strict=True):
            text, x = (f"{number:.1f}", end) if np.isfinite(number) else ("—", 0.0)
            axis.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(np.arange(len(methods))[::-1], [short(method) for method in methods])
    axis.set_ylim(-0.55, len(methods) - 0.45)
    axis.set_xlim(0, 1.1 * np.nanmax(100 * rows[["value", "high"]].to_numpy(float)))
    axis.set_xlabel(f"{metric}, % (whiskers: 95% interval)")
    figure.legend(frameon=False, ncols=len(protocols), loc="outside lower left")
    head(figure, title, note)
    open_frame(axis)
    return figure


def short(text: str, width: int = 36) -> str:
    """The text, without its middle if it is long, because related names often differ at their ends."""
    if len(text) <= width:
        return text
    return f"{text[: width - width // 2 - 1]}…{text[-(width // 2) :]}"


def head(figure: Figure, title: str, note: str) -> None:
    """The title above a figure, after a note such as "SYNTHETIC"."""
    text = f"{note}: {title}" if note and title else note or title
    lines = textwrap.fill(text, int(11 * figure.get_figwidth()))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=11, color=INK)


def open_frame(axis: Axes) -> None:
    """Leave out the frame's upper and right sides."""
    axis.spines[["top", "right"]].set_visible(False)
