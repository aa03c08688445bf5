"""Which parts of DVM-car are in a folder: the published files, what is missing, and what the existing files contain."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shared.data.problems import DataError
from tabular_imaging.data.dvm import dvm_frame, fix_sizes
from tabular_imaging.data.dvm_tables import (
    ADVERTS,
    FEATURES,
    GET_IT,
    IMAGE_FOLDERS,
    IMAGES,
    PRICES,
    TABLE_FOLDERS,
    TARGET,
    PublishedTable,
    find_table,
    read_prices,
    read_table,
)

UNUSED = (
    PublishedTable(("Ad_table.csv",), (), "adverts without sizes (not used: Ad_table (extra) has them all)"),
    PublishedTable(("Basic_table.csv",), (), "names of makers and models (not used)"),
    PublishedTable(("Sales_table.csv",), (), "sales by year (not used)"),
    PublishedTable(("Trim_table.csv",), (), "trim levels (not used)"),
)


@dataclass(frozen=True)
class Piece:
    """A file or folder of the data set, with `rows`, `models` and `years` (first, last) if it exists and has them."""

    name: str
    provides: str
    found: bool
    needed: bool
    rows: int | None = None
    models: int | None = None
    years: tuple[int, int] | None = None


def _piece(root: Path, table: PublishedTable, needed: bool) -> Piece:
    path = find_table(root, table)
    if path is None:
        return Piece(table.names[0], table.provides, False, needed)
    content = read_table(path)
    column = next((name for name in ("Adv_year", "Year") if name in content), None)
    if column:
        years = pd.to_numeric(content[column], errors="coerce").dropna().astype(int).tolist()
    else:  # the sales table has one column per year
        years = [int(name) for name in content.columns if re.fullmatch(r"\d{4}", name)]
    return Piece(
        path.name,
        table.provides,
        True,
        needed,
        len(content),
        content[TARGET].nunique() if TARGET in content else None,
        (min(years), max(years)) if years else None,
    )


def _derived(path: Path, min_per_class: int, priced: set[str]) -> tuple[Piece, list[str]]:
    """A derived table of adverts, which has features of the models but no advert id, picture or registration year."""
    table = pd.read_parquet(path)
    if not {TARGET, "Wheelbase"} <= set(table):
        raise DataError(f"{path} lacks the column {TARGET} or Wheelbase; it has {', '.join(map(str, table))}")
    counts = table[TARGET].value_counts()
    large = counts[counts >= min_per_class]
    both = large[large.index.isin(list(priced))]
    fixed = int((fix_sizes(table)["Wheelbase"] != table["Wheelbase"]).sum())
    provides = "derived adverts: some features of the models, but no advert id, picture, price or registration year"
    return Piece(path.name, provides, True, False, len(table), len(counts)), [
        f"{path.name}: {len(large)} models have at least {min_per_class} adverts ({large.sum():,} adverts),"
        f" and {len(both)} of them also have an entry price ({both.sum():,} adverts); the paper has 286 models.",
        f"{path.name}: {fixed} wheelbases are corrected manually.",
    ]


def describe(root: Path | str, min_per_class: int = 100) -> tuple[list[Piece], list[str]]:
    """Which parts of DVM-car are in a folder, which are missing and what they are for, and how many adverts remain.

    It also reads `ad_trim_features_*.parquet`, a derived table of adverts. If no file is missing, the steps are run.

    Args:
        root: Folder that holds the data set, or some of its tables.
        min_per_class: Smallest number of adverts per model, see `dvm_frame`.

    Returns:
        The pieces (published files, picture folder, derived tables), and findings as sentences.

    Raises:
        DataError: The folder does not exist, or a file in it cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. {GET_IT.format(root=root)}")
    needed = (ADVERTS, PRICES, IMAGES)
    pieces = [_piece(root, table, table in needed) for table in (*needed, *UNUSED)]
    folder = next((name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    pieces.append(Piece(f"{folder or IMAGE_FOLDERS[0]}/", "the pictures, 300 x 300", folder is not None, True))

    findings = []
    priced: set[str] = set()
    if find_table(root, PRICES):
        years = read_prices(root).groupby(TARGET).size()
        priced = set(years.index)
        findings.append(
            f"Entry prices of {len(years)} models, each for {years.min()} to {years.max()} years"
            f" (median {years.median():.0f})."
        )
    for place in TABLE_FOLDERS:
        for path in sorted((root / place).glob("ad_trim_features_*.parquet")):
            piece, said = _derived(path, min_per_class, priced)
            pieces.append(piece)
            findings += said

    missing = [piece for piece in pieces if piece.needed and not piece.found]
    if missing:
        findings += [f"Missing: {piece.name} ({piece.provides})." for piece in missing]
        findings.append(f"So the data set cannot be built. {GET_IT.format(root=root)}.")
    else:
        frame = dvm_frame(root, min_per_class=min_per_class)
        findings += [f"{name}: {count:,}" for name, count in frame.attrs["steps"]]
        findings.append(f"{frame[TARGET].nunique()} models, {len(FEATURES)} features.")
    return pieces, findings
