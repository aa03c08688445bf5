"""Pictures of tasks and of classified photographs, of what is confused, and of accuracy by environment."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shared.evaluation.figures import ACCENT, INK, ORANGE, head, open_frame, short

COLUMNS, EXAMPLES = 10, 5
CELL = 1.1  # inches


class DrawnTask(NamedTuple):
    """A task to draw.

    Attributes:
        names: Of the N classes.
        support: `(N, 3, S, S)` uint8, an example of each.
        query: `(m, 3, S, S)` uint8.
        label: `(m,)`, class of each query.
        prediction: `(m,)`.
    """

    names: Sequence[str]
    support: NDArray[np.uint8]
    query: NDArray[np.uint8]
    label: NDArray[np.integer]
    prediction: NDArray[np.integer]


def draw_tasks(tasks: Sequence[DrawnTask], title: str, note: str) -> Figure:
    """A task a row: an example of each class, then queries, with what each is taken for if that is wrong.

    Args:
        tasks: Tasks of as many classes and queries.
        title: Method, and what the tasks are.
        note: As for `draw_environments`.
    """
    ways = len(tasks[0].names)
    columns = ways + len(tasks[0].query) + 1  # an empty one between examples and queries
    figure = Figure(figsize=(CELL * columns, 1.4 * CELL * len(tasks) + 0.8), layout="constrained")
    grid = figure.subplots(len(tasks), columns, squeeze=False)
    for line, task in zip(grid, tasks, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, image, name in zip(line, task.support, task.names, strict=False):
            _show(axis, image / 255)
            axis.set_title(short(name, 14), fontsize=7, color=ACCENT, fontweight="bold")
        each = zip(line[ways + 1 :], task.query, task.label, task.prediction, strict=True)
        for axis, image, label, prediction in each:
            _show(axis, image / 255)
            if label != prediction:
                axis.set_title(f"{short(task.names[label], 14)}\nas {short(task.names[prediction], 14)}", fontsize=7,
                               color=ORANGE)  # fmt: skip
    head(figure, f"{title}: an example of each class, and queries (a name stands over those that are wrong)", note)
    return figure


def draw_confusions(shares: pd.Series, title: str, note: str) -> Figure:
    """What is taken for what most often.

    Args:
        shares: By text, such as "wolf as fox", the share of the queries of the one, in tasks that hold both, that are
            taken for the other; the largest first.
        title: Method, and what the tasks are.
        note: As for `draw_environments`.
    """
    figure = Figure(figsize=(7, 0.32 * len(shares) + 1.2), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(range(len(shares)), 100 * shares.to_numpy(float), color=ACCENT)
    axis.bar_label(bars, fmt="%.0f", padding=3)
    axis.set_yticks(range(len(shares)), [short(str(name), 44) for name in shares.index])
    axis.invert_yaxis()
    axis.set_xlabel("of the class's queries in tasks that hold both, in %")
    open_frame(axis)
    head(figure, title, note)
    return figure


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
