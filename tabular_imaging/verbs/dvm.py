"""`python -m tabular_imaging dvm`: which parts of DVM-car are in a folder."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tabular_imaging.data.dvm_inventory import describe


def dvm(root: Path, min_per_class: int = 100) -> None:
    """Print which parts of DVM-car are in a folder, which are missing, and how many adverts are left after each step.

    Args:
        root: Folder that holds the data set, or some of its tables.
        min_per_class: Smallest number of adverts per car model; models with fewer are dropped.
    """
    pieces, findings = describe(root, min_per_class)
    table = Table(title=f"DVM-car in {root}", title_justify="left")
    for name in ("file", "there", "rows", "models", "years", "what for"):
        table.add_column(name, justify="right" if name in ("rows", "models") else "left")
    for piece in pieces:
        table.add_row(
            piece.name,
            "yes" if piece.found else "missing" if piece.needed else "no",
            "" if piece.rows is None else f"{piece.rows:,}",
            "" if piece.models is None else f"{piece.models:,}",
            "" if piece.years is None else f"{piece.years[0]} to {piece.years[1]}",
            piece.provides,
        )
    console = Console()
    console.print(table)
    for finding in findings:
        console.print(finding, markup=False, highlight=False)
