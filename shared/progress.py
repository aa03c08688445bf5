"""Progress of long work: a bar on a terminal, or a line every ten seconds in a log file."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS = 10.0  # time between two lines in a log file


class _Lines(tqdm):  # type: ignore[type-arg]  # tqdm is generic only in its stubs
    """Writes a line where tqdm would redraw its bar."""

    @staticmethod
    def status_printer(file: Any) -> Any:
        """A function that writes the current state of the bar."""

        def write(text: str) -> None:
            if text:
                print(text, file=file, flush=True)

        return write


def progress_bar(total: int, title: str, unit: str) -> Any:
    """A tqdm bar to update by hand.

    Args:
        total: How many items there are.
        title: What is being done.
        unit: What an item is called.
    """
    if sys.stderr.isatty():
        return tqdm(total=total, desc=title, unit=unit)
    return _Lines(total=total, desc=title, unit=unit, mininterval=SECONDS, maxinterval=SECONDS, miniters=1)


def progress(items: Iterable[T], title: str, unit: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar that counts them.

    Args:
        items: The items to work on.
        title: What is being done.
        unit: What an item is called.
        total: How many items there are; by default their length.
    """
    with progress_bar(len(items) if total is None else total, title, unit) as bar:  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.update()
