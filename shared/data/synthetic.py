"""What the writers of SYNTHETIC sets share: folders that know what is in them."""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shared.data.files import write_whole

SETTINGS = "synthetic.json"


def start_set(root: Path, settings: dict[str, Any], readme: str) -> None:
    """Make the folder of a set, and write into it with what settings it is made and that it is synthetic."""
    write_whole(root / SETTINGS, json.dumps(settings, indent=2) + "\n")
    write_whole(root / "README.txt", readme)


def settings_of(root: Path) -> dict[str, Any]:
    """What the set in a folder was made with, as arguments of its writer; empty where there is none."""
    return {name: value for name, value in (_written(root) or {}).items() if name != "version"}


def _written(root: Path) -> dict[str, Any] | None:
    """What `start_set` wrote into a folder; None where that cannot be read."""
    try:
        found: dict[str, Any] = json.loads((root / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def is_complete(root: Path, settings: dict[str, Any], last: str) -> bool:
    """Whether a folder holds the finished set of these settings, which is said.

    Args:
        root: Folder of the set.
        settings: As given to `start_set`.
        last: Path within the folder of the file that is written last: without it the set was interrupted.

    Raises:
        FileExistsError: It holds something else, or a set with other settings.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    found = _written(root)
    if found is None:
        raise FileExistsError(
            f"{root} holds something that `synthetic` did not write (no readable {SETTINGS} in it) and is"
            " left alone; give a new or empty folder"
        )
    if found != settings:
        raise FileExistsError(
            f"{root} holds a synthetic set with other settings: found {found}, asked for {settings};"
            " give another folder, or remove this one first"
        )
    if complete := (root / last).exists():
        tqdm.write(f"{root}: the synthetic set with these settings is already there, reused")
    return complete
