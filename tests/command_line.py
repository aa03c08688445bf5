"""For tests of the command line: the words of a command, and the files that a run left."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from shared.runs.configs import as_flags


def words(verb: str, files: Iterable[Path], settings: Mapping[str, object]) -> list[str]:
    """A command for `main`: configuration files, and after them settings by dotted name, which override the files."""
    return [verb, *(word for file in files for word in ("--config", str(file))), *as_flags(settings)]


def files_under(folder: Path) -> set[str]:
    """Relative paths of all files; W&B's own files count as `wandb`."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {"wandb" if name.startswith("wandb/") else name for name in names}
