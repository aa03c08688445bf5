"""The image files in folders, sorted by name whatever the file system's order; hidden ones are left out.

Read by worker processes, so torch stays out.
"""

from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def folders_below(folder: Path, nested: bool = True) -> list[Path]:
    """The visible folders right below, or at any depth, sorted by name."""
    found = [path for path in sorted(folder.rglob("*") if nested else folder.iterdir()) if path.is_dir()]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def images_of(folder: Path) -> tuple[list[Path], list[str]]:
    """The image files of a folder, sorted by name, and the names of other visible files."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    return images, [path.name for path in files if path.suffix.lower() not in SUFFIXES]
