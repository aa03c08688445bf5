"""The house rules that a machine can check."""

import ast
import re
from pathlib import Path

import pytest

import shared

ROOT = Path(shared.__file__).parents[1]
PACKAGES = {"ecg_text", "meta_robust", "galaxy_clusters", "tabular_imaging", "commin"}
FILES = sorted(path for name in ("shared", *PACKAGES) for path in (ROOT / name).rglob("*.py"))
# The rooms of a package, from the front door down: a file imports from its own floor or from below.
FLOORS = (
    ("cli",),
    ("verbs",),
    ("evaluation", "report", "inversion", "receivers"),
    ("module", "methods"),
    (
        *("data", "model", "adapt", "analogue", "callbacks", "channel", "clustering", "environments", "familiarity"),
        *("losses", "noise", "prompts", "sampling"),
    ),
)


def modules(path: Path) -> set[str]:
    """What a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


def floor(room: str) -> int | None:
    """Number of a room's floor, the front door first; None for a package's `__init__` and `__main__`."""
    return next((level for level, rooms in enumerate(FLOORS) if room in rooms), None)


def test_there_are_files_to_check() -> None:
    assert ROOT / "shared" / "cli.py" in FILES
    assert ROOT / "ecg_text" / "module.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shared_imports_no_package_and_packages_no_sibling(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    assert {name.split(".")[0] for name in modules(path)} & (PACKAGES - {own}) == set()


@pytest.mark.parametrize("path", [path for path in FILES if "shared" in path.relative_to(ROOT).parts[:1]], ids=str)
def test_shared_names_no_package(path: Path) -> None:
    """Neither in code nor in words: what is there serves any package."""
    named = set(re.findall(r"\w+", path.read_text(encoding="utf-8"))) & PACKAGES
    assert named == set()


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(ROOT).parts[0] in PACKAGES and not path.name.startswith("__")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_inside_a_package_nothing_imports_from_above(path: Path) -> None:
    package, *rooms = path.relative_to(ROOT).with_suffix("").parts
    own = floor(rooms[0])
    assert own is not None, f"{path}: on which floor is it? Add it to FLOORS"
    for name in modules(path):
        if name.startswith(f"{package}."):
            other = floor(name.split(".")[1])
            assert other is not None
            assert other >= own, f"{path} imports {name}, which is above it"
            if name.split(".")[1] == "verbs":
                assert rooms == ["cli"] or rooms[-1] == "pipelines", f"{path} borrows from a verb"
