"""One offline HTML page with the map of all galaxies: colours, thumbnails, search, and lists of ids to take away.

Numbers travel as base64 arrays and thumbnails as sprite sheets, so that thousands of galaxies fit into a file that can
be mailed. The page's fixed part (style, drawing) is `map.html`.
"""

import base64
import io
import json
import logging
from collections.abc import Iterator
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from galaxy_clusters.data.source import Pixels
from galaxy_clusters.report.gallery import as_picture
from shared.data.cells import category_name, listed, natural_order, tidy
from shared.data.files import whole
from shared.data.problems import DataError

log = logging.getLogger(__name__)

DENSE = 100_000  # galaxies from which on all are drawn as densities, and only those in clusters as points
BINS = 512  # of the densities, a side
MAX_THUMBNAILS = 7_000
SHEET = 32  # thumbnails a side of a sprite sheet
THUMBNAIL = 64  # pixels; a multiple of 16, so that JPEG's blocks do not mix neighbours
QUALITIES = (85, 75, 65, 50, 35, 20)  # of JPEG: the first with which the page is small enough
MAX_CATEGORIES = 60  # beside clusters; of a column with more, the commonest
FEW = 12  # whole numbers with at most so many values are categories
MISSING = 2**16 - 1  # the code of a missing category
SLOT = "__DATA__"  # of the page's fixed part, where its data go

Floats = NDArray[np.floating]


def write_map(
    path: Path,
    galaxies: pd.DataFrame,
    layout: Floats,
    pixels: Pixels | None = None,
    title: str = "Map of galaxies",
    note: str = "",
    max_mb: float = 25.0,
) -> None:
    """Write the map as one HTML page that needs no network; text of the catalogue is text on it, never markup.

    Args:
        path: The page.
        galaxies: Table with `id` and `cluster` (its name, missing for galaxies in none), `(N,)`; `viewer`, where it is
            there, holds links. Every other column can colour the map, as numbers or as categories.
        layout: Places of the galaxies, `(N, 2)`.
        pixels: Gives images `(R, C, S, S)` uint8 of R rows; None where there are none. At most `MAX_THUMBNAILS` are
            shown, those of clusters first.
        title: Heading.
        note: Said before the heading, "SYNTHETIC" for synthetic data.
        max_mb: Largest size of the page in megabytes (10^6 bytes). To keep it, thumbnails are compressed, then columns
            left out, the last ones first, as the log says.

    Raises:
        DataError: The layout is not one finite place a galaxy, or the page would be too large even so.
    """
    if layout.shape != (len(galaxies), 2) or not np.isfinite(layout).all():
        raise DataError(
            f"a map needs a finite place (N, 2) for each of {len(galaxies)} galaxies, got an array {layout.shape}"
        )
    data: dict[str, Any] = {"title": title, "note": note, "total": len(galaxies), "density": None, "sprites": None}
    member = galaxies["cluster"].notna().to_numpy(bool)
    rows = np.arange(len(galaxies))
    if len(galaxies) >= DENSE:
        data["density"] = _density(layout)
        rows = np.flatnonzero(member)
    table = galaxies.iloc[rows]
    data["ids"] = table["id"].astype(str).tolist()
    data["x"], data["y"] = (_packed(layout[rows, axis], np.float32) for axis in (0, 1))
    data["links"] = _links(table["viewer"]) if "viewer" in table else None
    others = [name for name in table.columns if name not in ("id", "cluster", "viewer")]
    data["columns"] = [
        column for name in ("cluster", *others) if (column := _column(str(name), table[name])) is not None
    ]
    template = Path(__file__).with_name("map.html").read_text(encoding="utf-8")
    room = round(max_mb * 1e6) - len(template.encode()) + len(SLOT)
    if pixels is not None and len(rows):
        for sprites in _sprites(pixels, rows, member[rows]):
            data["sprites"] = sprites
            if len(_json(data)) <= room:
                break
    left_out = _narrowed(data["columns"], len(_json(data)) - room)
    text = _json(data)
    if len(text) > room:
        raise DataError(
            f"{path} would have {max_mb + (len(text) - room) / 1e6:.1f} MB without a column to colour by, more than "
            f"--max_mb {max_mb:g}: allow more"
        )
    if left_out:
        log.warning("%s cannot be coloured by %s, which would make it larger than --max_mb %g",
                    path, listed(left_out), max_mb)  # fmt: skip
    with whole(path) as part:
        part.write_text(template.replace(SLOT, text), encoding="utf-8")


def _json(data: dict[str, Any]) -> str:
    """JSON in ASCII without `<`, so that no text in it can close the script element."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _narrowed(columns: list[dict[str, Any]], excess: int) -> list[str]:
    """Take columns away, the last ones first, never the clusters, until so many bytes are saved; give their names."""
    left_out: list[str] = []
    while excess > 0 and len(columns) > 1:
        column = columns.pop()
        left_out.insert(0, column["name"])
        excess -= len(_json(column)) + len(", ")
    return left_out


def _sprites(pixels: Pixels, rows: NDArray[np.int64], member: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """The thumbnails as the page takes them, from good and large to poor and small."""
    shown = _thumbnailed(member)
    sheets = _sheets(pixels, rows[shown])
    place = np.full(len(rows), -1)
    place[shown] = np.arange(len(shown))
    for quality in QUALITIES:
        urls = [_data_url(sheet, "JPEG", quality=quality) for sheet in sheets]
        yield {"size": THUMBNAIL, "side": SHEET, "sheets": urls, "place": _packed(place, np.int32)}


def _thumbnailed(member: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which rows get a thumbnail: members of clusters first, evenly spread where there are too many."""
    members, others = np.flatnonzero(member), np.flatnonzero(~member)
    kept = _spread(members, MAX_THUMBNAILS)
    return np.sort(np.concatenate([kept, _spread(others, MAX_THUMBNAILS - len(kept))]))


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows), count, endpoint=False).astype(int)]


def _sheets(pixels: Pixels, rows: NDArray[np.int64]) -> list[Image.Image]:
    """Sprite sheets of `SHEET` x `SHEET` thumbnails, line by line."""
    sheets = []
    for start in range(0, len(rows), SHEET**2):
        images = pixels(rows[start : start + SHEET**2])
        sheet = Image.new("RGB", (SHEET * THUMBNAIL, -(-len(images) // SHEET) * THUMBNAIL))
        for place, image in enumerate(images):
            corner = place % SHEET * THUMBNAIL, place // SHEET * THUMBNAIL
            sheet.paste(as_picture(image, THUMBNAIL), corner)
        sheets.append(sheet)
    return sheets


def _data_url(image: Image.Image, kind: str, **settings: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _packed(values: Any, kind: type[np.generic]) -> str:
    """Numbers as base64, little-endian, as browsers have them."""
    array = np.asarray(values, np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode("ascii")


def _density(layout: Floats) -> dict[str, Any]:
    """A picture of how many galaxies are where, darker for more, and its extent."""
    counts, x, y = np.histogram2d(layout[:, 0], layout[:, 1], bins=BINS)
    shade = np.log1p(counts.T[::-1]) / np.log1p(counts.max())  # the first line is the uppermost
    grey = np.array([0x5A, 0x66, 0x75], np.uint8)
    alpha = np.where(shade > 0, 25 + 190 * shade, 0).round().astype(np.uint8)
    picture = np.dstack([np.broadcast_to(grey, (*shade.shape, 3)), alpha])
    image = _data_url(Image.fromarray(picture, "RGBA"), "PNG", optimize=True)
    extent = {"left": float(x[0]), "right": float(x[-1]), "bottom": float(y[0]), "top": float(y[-1])}
    return {"image": image} | extent


def _links(column: "pd.Series[Any]") -> dict[str, Any]:
    """Links as what they have in common and the rest of each; None in place of what is no https link."""
    known = [None if pd.isna(link) or not str(link).startswith("https://") else str(link) for link in column]
    start = commonprefix([link for link in known if link])  # noqa: RUF071 (by letters is what is meant)
    return {"start": start, "rest": [link and link.removeprefix(start) for link in known]}


def _column(name: str, column: "pd.Series[Any]") -> dict[str, Any] | None:
    """A column as the page takes it; None if it has no value, or none that occurs twice."""
    values = tidy(column)
    known = values.dropna()
    if known.empty and name != "cluster":
        return None
    if name != "cluster" and not _is_categorical(known):
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        finite = numbers[np.isfinite(numbers)]
        if not len(finite):
            return None
        low, high = (float(np.quantile(finite, share)) for share in (0.02, 0.98))  # an outlier takes no colours away
        shown = np.where(np.isfinite(numbers), numbers, np.nan)
        return {"name": name, "kind": "number", "values": _packed(shown, np.float32), "low": low, "high": high}
    texts = values.map(category_name, na_action="ignore")
    counts = texts.value_counts()
    if name != "cluster" and counts.max() == 1 and len(counts) > FEW:
        return None  # a name of each, such as a path
    kept = counts.index if name == "cluster" else counts.index[:MAX_CATEGORIES]
    names = natural_order(kept)
    if others := len(counts) - len(names):
        names.append(f"{others} others")
    code = {text: place for place, text in enumerate(names)}
    codes = [MISSING if pd.isna(text) else code.get(text, len(names) - 1) for text in texts]
    return {"name": name, "kind": "category", "values": _packed(codes, np.uint16), "names": names}


def _is_categorical(known: "pd.Series[Any]") -> bool:
    if not pd.api.types.is_numeric_dtype(known) or pd.api.types.is_bool_dtype(known):
        return True
    whole_numbers = pd.api.types.is_integer_dtype(known) or bool((known % 1 == 0).all())
    return whole_numbers and known.nunique() <= FEW
