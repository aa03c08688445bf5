"""Pictures of classified photographs, and of accuracy by environment."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shared.evaluation.figures import ACCENT, INK, ORANGE, head, short

COLUMNS, EXAMPLES = 10, 5
CELL = 1.1  # inches


def draw_classified(
    support: Mapping[str, NDArray[np.floating]], query: NDArray[np.uint8], table: pd.DataFrame, title: str
) -> Figure:
    """The examples of each class, a column each, and the classified photographs below.

    Args:
        support: By class, `(k, 3, S, S)` in [0, 1]; of each at most five are drawn.
        query: `(m, 3, S, S)`.
        table: The m rows of `classify`; a photograph that lies farther from its class than all that it is compared with
            has an orange frame.
        title: Name of the method.
    """
    columns = max(COLUMNS, len(support))
    examples = min(EXAMPLES, max(map(len, support.values())))
    rows = -(-len(query) // columns)
    figure = Figure(figsize=(CELL * columns, CELL * (examples + 1.4 * rows) + 0.8), layout="constrained")
    grid = figure.subplots(examples + rows, columns, squeeze=False, height_ratios=[1.0] * examples + [1.4] * rows)
    for axis in grid.flat:
        axis.axis("off")
    for column, (name, images) in enumerate(support.items()):
        grid[0, column].set_title(short(name, 14), fontsize=8, color=ACCENT, fontweight="bold")
        for line, image in enumerate(images[:examples]):
            _show(grid[line, column], image)
    for axis, image, (_, found) in zip(grid[examples:].flat, query, table.iterrows(), strict=False):
        _show(axis, image / 255)
        name = str(found["prediction"])
        axis.set_title(f"{short(name, 14)}\n{100 * found[f'probability/{name}']:.0f}%", fontsize=7, color=INK)
        if found["farther_than"] == 1:
            axis.axis("on")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(color=ORANGE, linewidth=3)
    head(figure, f"{title}: examples of each class, and below them photographs with the class that they are given and "
         "its probability (orange: farther from the class than all that they are compared with)", "")  # fmt: skip
    return figure


def _show(axis: Axes, image: NDArray[np.floating]) -> None:
    axis.imshow(image.transpose(1, 2, 0))


def draw_environments(table: pd.DataFrame, title: str, note: str) -> Figure:
    """Two heat maps, adapted in (rows) by tested in (columns): the method, and mean colour alone.

    Args:
        table: As `environments` returns it.
        title: Method and data set.
        note: Text put before the title, "SYNTHETIC" for synthetic data.
    """
    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    kinds = [str(kind) for kind in table["support"].unique()]
    named = (("accuracy", "the method"), ("colour_alone", "mean colour alone"))
    for axis, (column, name) in zip(figure.subplots(1, 2), named, strict=True):
        values = 100 * table[column].to_numpy(float).reshape(len(kinds), len(kinds))
        axis.imshow(values, vmin=0, vmax=100, cmap="Blues")
        for (row, place), value in np.ndenumerate(values):
            axis.text(place, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 60 else INK)
        axis.set_xticks(range(len(kinds)), kinds, rotation=45, ha="right")
        axis.set_yticks(range(len(kinds)), kinds)
        axis.set(xlabel="tested in", ylabel="adapted in", title=f"{name}, accuracy in %")
    head(figure, title, note)
    return figure
