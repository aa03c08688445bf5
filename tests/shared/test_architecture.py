"""The house rules that a machine can check."""

import ast
from pathlib import Path

import pytest

import shared

ROOT = Path(shared.__file__).parents[1]
PACKAGES = {"ecg_text", "meta_robust", "galaxy_clusters", "tabular_imaging", "commin"}
FILES = sorted(path for name in ("shared", *PACKAGES) for path in (ROOT / name).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module).split(".")[0])
    return found


def test_there_are_files_to_check() -> None:
    assert ROOT / "shared" / "cli.py" in FILES
    assert ROOT / "ecg_text" / "module.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shared_imports_no_package_and_packages_no_sibling(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    assert imported(path) & (PACKAGES - {own}) == set()
