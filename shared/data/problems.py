"""What to do with a bad item: raise at once, or skip it, count it and list it in a file."""

import csv
import logging
from pathlib import Path
from typing import Literal

OnError = Literal["raise", "skip"]

log = logging.getLogger(__name__)


class DataError(ValueError):
    """Input data is not what was expected; the message names the file or row and what to do."""


class Problems:
    """Collects problems with items of a data set.

    Args:
        on_error: `"raise"` turns the first problem into a `DataError`; `"skip"` keeps it for the list.
        noun: What an item is called in messages, in the singular.

    Example:
        >>> problems = Problems("skip", noun="record")
        >>> problems.add("00012_lr", "lead V3 is constant")
        >>> problems.summary()
        '1 record skipped: 00012_lr (lead V3 is constant)'
        >>> Problems("raise").add("00012_lr", "lead V3 is constant")
        Traceback (most recent call last):
        shared.data.problems.DataError: 00012_lr: lead V3 is constant (on_error: skip would leave it out and list it)
    """

    def __init__(self, on_error: OnError = "raise", noun: str = "item") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        self.on_error = on_error
        self.noun = noun
        self.found: list[tuple[str, str]] = []

    def add(self, item: str, reason: str) -> None:
        """Record that `item` cannot be used, or raise.

        Raises:
            DataError: If `on_error` is `"raise"`.
        """
        if self.on_error == "raise":
            raise DataError(f"{item}: {reason} (on_error: skip would leave it out and list it)")
        self.found.append((item, reason))

    def summary(self, shown: int = 3) -> str:
        """One line: how many items were skipped, and the first few with their reasons."""
        count = len(self.found)
        if count == 0:
            return f"no {self.noun} skipped"
        listed = ", ".join(f"{item} ({reason})" for item, reason in self.found[:shown])
        more = f" and {count - shown} more" if count > shown else ""
        return f"{count} {self.noun}{'s' if count > 1 else ''} skipped: {listed}{more}"

    def write(self, path: Path) -> None:
        """Write the list as CSV (`item,reason`) and log the summary; without a problem there is no such file."""
        if not self.found:
            path.unlink(missing_ok=True)  # an earlier run's list
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["item", "reason"])
            writer.writerows(self.found)
        log.warning("%s; listed in %s", self.summary(), path)
