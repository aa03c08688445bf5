"""Pictures: what the model sees, which fields and pixels matter to it, and its results over labels and methods.

They are matplotlib figures made without pyplot, so nothing is shown or left open, and no window system is needed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from numpy.typing import NDArray

from shared.evaluation.figures import ACCENT, GREY, INK, ORANGE, head, open_frame, short

# Okabe and Ito's palette, which colour-blind people can distinguish, without their yellow, which is too faint for a
# line.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX<"  # one more than colours, so that no two of 56 lines look alike


def draw_importance(
    names: Sequence[str],
    importance: NDArray[np.floating],
    morphometric: Sequence[bool],
    title: str = "",
    top: int = 20,
    note: str = "",
) -> Figure:
    """The most important fields as ranked bars, morphometric ones in orange: MMCL Figs. 3 and 4.

    Args:
        names: Names of the M fields.
        importance: `(M,)` shares, as given by `attributions.field_importance`; shown in percent.
        morphometric: `(M,)` flags: whether the field is a size or a shape. Their total is in the legend (Table 2).
        title: Title drawn above the bars.
        top: Largest number of fields that are drawn.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    percent, is_shape = 100 * np.asarray(importance, float), np.asarray(morphometric, bool)
    order = np.argsort(-percent, kind="stable")[:top]
    place = np.arange(len(order))[::-1]
    figure = Figure(figsize=(7.5, 1.5 + 0.27 * len(order)), layout="constrained")
    axis = figure.subplots()
    axis.barh(place, percent[order], color=[ORANGE if shape else ACCENT for shape in is_shape[order]])
    for y, value in zip(place, percent[order], strict=True):
        axis.annotate(f"{value:.1f}", (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(place, [short(names[index]) for index in order])
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.margins(x=0.08)
    shown = "" if len(order) == len(names) else f" (the first {len(order)} of {len(names)} fields)"
    axis.set_xlabel(f"importance for the embedding, %{shown}")
    if is_shape.any():
        handles = [
            Patch(color=colour, label=f"{label}: {percent[group].sum():.1f}% in all, {group.sum()} fields")
            for colour, label, group in ((ORANGE, "morphometric", is_shape), (ACCENT, "other", ~is_shape))
        ]
        figure.legend(handles=handles, frameon=False, ncols=2, loc="outside lower left")
    head(figure, title, note)
    open_frame(axis)
    return figure


def draw_low_data(table: pd.DataFrame, title: str = "", metric: str = "top-1 accuracy", note: str = "") -> Figure:
    """A metric over the number of labels, one line per method, with shaded 95% intervals on a log axis: MMCL Fig. 2.

    Args:
        table: Table with the columns `method`, `value`, `low`, `high` (shares, shown in percent), and `labels` (a
            count) or `fraction` (of the training set).
        title: Title drawn above the lines.
        metric: Name of the metric.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    over = "labels" if "labels" in table else "fraction"
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axis = figure.subplots()
    for index, (method, rows) in enumerate(table.groupby("method", sort=False)):
        rows = rows.sort_values(over)
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        dashes = "-" if index < len(PALETTE) else "--"
        axis.fill_between(rows[over], 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.16, linewidth=0)
        axis.plot(
            rows[over], 100 * rows["value"], dashes, marker=marker, color=colour, markersize=5.5, label=str(method)
        )
    axis.set_xscale("log")
    axis.set_xticks(np.unique(table[over]))  # the sizes that were run, rather than powers of ten
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if over == "labels" else f"{100 * x:g}%"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("labels to train on" if over == "labels" else "share of the labelled training set")
    axis.set_ylabel(f"{metric}, %")
    axis.grid(axis="y", color=GREY, alpha=0.35, linewidth=0.6)
    figure.legend(frameon=False, ncols=3, loc="outside lower left", title="shaded: 95% interval", alignment="left")
    head(figure, title, note)
    open_frame(axis)
    return figure


def draw_grad_cam(
    images: NDArray[np.generic],
    maps: NDArray[np.floating],
    titles: Sequence[str],
    title: str = "",
    note: str = "",
) -> Figure:
    """Each image, and beside it the same image under its guided Grad-CAM map: MMCL Fig. 5.

    A map is drawn from 0 to its own 99.5th percentile, so it shows where in an image something is seen, not how much.

    Args:
        images: `(N, C, H, W)` images, uint8 or floats in [0, 1], with one, two or three channels.
        maps: `(N, H, W)` maps, at least 0, as given by `attributions.guided_grad_cam`.
        titles: Title of each image: the class that is explained, and the predicted one.
        title: Title drawn above all images.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    pairs = min(3, len(images))
    lines = -(-len(images) // pairs)
    figure = Figure(figsize=(4.1 * pairs, 0.5 + 2.3 * lines), layout="constrained")
    head(figure, title, note)
    cells = figure.subfigures(lines, pairs, squeeze=False).ravel()
    for cell, image, heat, name in zip(cells[: len(images)], images, maps, titles, strict=True):
        plain, overlay = cell.subplots(1, 2)
        picture = _picture(image)
        level = np.clip(heat / (np.percentile(heat, 99.5) or 1.0), 0, 1)
        plain.imshow(picture)
        overlay.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=1.3)  # dimmed, so that the map stands out
        overlay.imshow(level, cmap="inferno", alpha=np.sqrt(level), vmin=0, vmax=1)
        if not level.any():
            overlay.text(0.5, 0.5, "nothing speaks for it", transform=overlay.transAxes, ha="center", fontsize=8)
        plain.set_title(short(name, 48), loc="left", fontsize=9)
        plain.set_axis_off()
        overlay.set_axis_off()
    return figure


def draw_pairs(
    images: NDArray[np.generic],
    views: NDArray[np.generic],
    rows: Sequence[Mapping[str, str]],
    title: str = "",
    note: str = "",
) -> Figure:
    """What the model is trained on: each sample's image, its augmented view, and some values of its row of the table.

    Args:
        images: `(N, C, H, W)` images, uint8 or floats in [0, 1].
        views: `(N, C, H', W')` augmented views, of any size.
        rows: For each sample the values of some fields as text, by name; corrupted values can be marked there.
        title: Title drawn above all images.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    lines = max(map(len, rows))
    figure = Figure(figsize=(2.2 * len(images), 5.0 + 0.16 * lines), layout="constrained")
    axes = figure.subplots(3, len(images), squeeze=False, height_ratios=[1, 1, 0.12 + 0.085 * lines])
    for column, (image, view, row) in enumerate(zip(images, views, rows, strict=True)):
        axes[0, column].imshow(_picture(image))
        axes[1, column].imshow(_picture(view))
        for line, (name, value) in enumerate(row.items()):
            height = 1 - line / lines
            axes[2, column].text(0.03, height, short(name, 14), fontsize=8, va="top", color=INK, alpha=0.7)
            axes[2, column].text(0.97, height, short(value, 14), fontsize=8, va="top", ha="right", color=INK)
        axes[2, column].set_xlim(0, 1)
    for axis in axes.ravel():
        axis.set_axis_off()
    for line, name in enumerate(("image", "augmented view", "table")[: 3 if lines else 2]):
        axes[line, 0].set_title(name, loc="left", fontsize=9, fontweight="bold")
    head(figure, title, note)
    return figure


def _picture(image: NDArray[np.generic]) -> NDArray[np.float64]:
    """`(C, H, W)` to `(H, W, 3)` in [0, 1]; two channels (end-systole, end-diastole) are averaged."""
    values = np.asarray(image, float) / (255 if image.dtype == np.uint8 else 1)
    if len(values) != 3:
        values = np.repeat(values.mean(0, keepdims=True), 3, axis=0)
    return np.clip(values.transpose(1, 2, 0), 0, 1)
