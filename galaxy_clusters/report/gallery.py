"""Contact sheets: of each cluster, its strongest and weakest members and the nearest galaxies that are none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from galaxy_clusters.data.source import Pixels
from shared.data.files import whole
from shared.evaluation.figures import ACCENT, INK, ORANGE

Rows = NDArray[np.int64]

TILE, CAPTION, GAP, MARGIN = 112, 14, 6, 14  # pixels of a sheet
NEAR = 500  # strongest members, to which outsiders are near


class Members(NamedTuple):
    """Rows of the galaxies that stand for a cluster.

    Attributes:
        core: The strongest members, the strongest first.
        edge: The weakest of the others, the weakest last.
        outside: Galaxies that are no members, the nearest to one first.
    """

    core: Rows
    edge: Rows
    outside: Rows


HEADINGS = ("core: strongest members", "edge: weakest members", "nearest outsiders: no members")  # of `Members`


def choose(x: NDArray[Any], member: NDArray[np.bool_], strength: NDArray[np.floating], count: int = 8) -> Members:
    """The galaxies that stand for a cluster, up to `count` of each kind.

    Args:
        x: Representation `(N, D)`.
        member: `(N,)` whether each galaxy is in the cluster.
        strength: `(N,)` how strongly, in [0, 1].
        count: How many of each kind.
    """
    from sklearn.metrics import pairwise_distances_argmin_min  # takes a while

    members = np.flatnonzero(member)
    members = members[np.argsort(-strength[members], kind="stable")]
    _, distance = pairwise_distances_argmin_min(x, x[members[:NEAR]])
    distance[members] = np.inf
    outside = np.argsort(distance, kind="stable")[: min(count, len(x) - len(members))]
    return Members(members[:count], members[count:][-count:], outside)


def draw_sheet(
    name: str,
    evidence: Mapping[str, str],
    chosen: Members,
    ids: Sequence[str],
    pixels: Pixels,
    note: str = "",
    columns: int = 8,
) -> Image.Image:
    """A contact sheet of one cluster.

    Args:
        name: Of the cluster.
        evidence: What is known of it, such as `{"size": "43", "p": "0.03"}`, written above the pictures.
        chosen: Of `choose`.
        ids: Identifiers of all galaxies, `(N,)`.
        pixels: Gives images `(R, C, S, S)` uint8 of R rows; three channels are red, green, blue, others are averaged.
        note: Text before the name, "SYNTHETIC" for synthetic data.
        columns: Pictures in a line.
    """
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    title, text, small = _font(20), _font(13), _font(9)
    lines = _wrapped([f"{key} {value}" for key, value in evidence.items()], text, width - 2 * MARGIN)
    kinds = [(heading, rows) for heading, rows in zip(HEADINGS, chosen, strict=True) if len(rows)]
    depth = sum(24 + -(-len(rows) // columns) * (TILE + CAPTION + GAP) for _, rows in kinds)
    top = MARGIN + 30 + 18 * len(lines)
    sheet = Image.new("RGB", (width, top + depth + MARGIN - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    at = MARGIN
    if note:
        draw.text((at, MARGIN - 4), f"{note}: ", ORANGE, title)
        at += round(title.getlength(f"{note}: "))
    draw.text((at, MARGIN - 4), name, INK, title)
    for place, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 26 + 18 * place), line, INK, text)
    for heading, rows in kinds:
        draw.text((MARGIN, top + 4), heading, ACCENT, text)
        top += 24
        for place, (row, image) in enumerate(zip(rows, pixels(rows), strict=True)):
            left, down = MARGIN + place % columns * (TILE + GAP), top + place // columns * (TILE + CAPTION + GAP)
            sheet.paste(as_picture(image, TILE), (left, down))
            draw.text((left, down + TILE + 1), _fitting(ids[row], small), INK, small)
        top += -(-len(rows) // columns) * (TILE + CAPTION + GAP)
    return sheet


def write_gallery(
    folder: Path,
    galaxies: pd.DataFrame,
    x: NDArray[Any],
    evidence: Mapping[str, Mapping[str, str]],
    pixels: Pixels | None = None,
    note: str = "",
    count: int = 8,
) -> dict[str, Path | dict[str, list[str]]]:
    """Write a contact sheet for each cluster.

    Args:
        folder: Where `<cluster>.png` are written; those of an earlier call that are of no cluster now are removed.
        galaxies: Table with `id`, `cluster` (its name, missing for galaxies in none) and `strength`, `(N,)`.
        x: Representation `(N, D)`.
        evidence: By cluster, what is known of it; its keys are the clusters, in order.
        pixels: Gives images of rows, see `draw_sheet`; None where there are none.
        note: Text before the names, "SYNTHETIC" for synthetic data.
        count: Galaxies of each kind.

    Returns:
        By cluster, its sheet, or without images the identifiers that would be on it, under the headings of its lines.
    """
    ids, strength = galaxies["id"].tolist(), galaxies["strength"].to_numpy(float)
    shown: dict[str, Path | dict[str, list[str]]] = {}
    for name, known in evidence.items():
        chosen = choose(x, (galaxies["cluster"] == name).to_numpy(bool), strength, count)
        if pixels is None:
            shown[name] = {heading: [ids[row] for row in rows] for heading, rows in zip(HEADINGS, chosen, strict=True)}
            continue
        path = folder / f"{name}.png"
        with whole(path) as part:
            draw_sheet(name, known, chosen, ids, pixels, note, count).save(part, "PNG")
        shown[name] = path
    for path in folder.glob("*.png"):
        if path not in shown.values():
            path.unlink()
    return shown


def as_picture(image: NDArray[np.uint8], size: int) -> Image.Image:
    """An image `(C, S, S)` as a square picture in colour; channels that are not three are averaged."""
    if len(image) != 3:
        image = np.repeat(image.mean(0, keepdims=True).round().astype(np.uint8), 3, axis=0)
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of figures, which has more letters than Pillow's own."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _wrapped(parts: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The parts in lines, with dots between them; a part that is longer than a line is broken between its words."""
    words = [word for part in parts for word in (*part.split(), "\u00b7")][:-1]
    lines: list[str] = []
    for word in words:
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text, without its middle if it is wider than a picture, because related names often differ at their ends."""
    text = text if text.isprintable() else repr(text)
    keep = len(text)
    shown = text
    while font.getlength(shown) > TILE and keep > 2:
        keep -= 1
        shown = f"{text[: keep // 2]}\u2026{text[len(text) - (keep - keep // 2) :]}"
    return shown
