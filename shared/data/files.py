"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name of the file when the block ends without an error; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    os.replace(part, path)


def write_whole(path: Path, text: str) -> None:
    """Write a file of text, in UTF-8."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
