"""Files that are whole or not there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name of the file when the block ends without an error; folders are made.

    Processes, also of several machines, may write the same file at once: the last one's stays. After an error nothing
    of the new file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file of text, in UTF-8."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
