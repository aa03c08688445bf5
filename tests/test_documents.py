"""The documents: what they say to type can be typed, what they point to is there, and their lines can be read."""

import dataclasses
import importlib
import importlib.util
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from shared.cli import compose
from shared.main import LIGHTNING_VERBS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md")])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__main__.py"))
LONGEST = 160  # characters of a line of prose; tables and code are as wide as they are
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=place)


def code(path: Path) -> Iterator[str]:
    """The lines of code blocks, those that end with a backslash joined to the next, and the code within sentences."""
    text = path.read_text(encoding="utf-8")
    for block in FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()[1:-1]
    yield from re.findall(r"`([^`]+)`", FENCED.sub("", text))


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every `make ...`, and of every `python -m ...` or other line that starts a module of ours."""
    for line in code(path):
        if re.match(r"make\s|.*\s-m\s", line, re.DOTALL):
            yield shlex.split(line, comments=True)


def headings(path: Path, level: str) -> list[str]:
    """A document's headings whose number signs match a pattern."""
    return re.findall(rf"^{level} (.*)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(path, "#+")}


def verbs(package: str) -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = importlib.import_module(f"{package}.cli").VERBS
    return found


def options(verb: Callable[..., Any]) -> set[str]:
    """Names of a verb's options, see `shared.main.call`."""
    names = list(inspect.signature(verb).parameters)
    first = get_type_hints(verb)[names[0]]
    return {field.name for field in dataclasses.fields(first)} if dataclasses.is_dataclass(first) else set(names)


@each_document
def test_lines_of_prose_can_be_read(path: Path) -> None:
    prose = FENCED.sub("", path.read_text(encoding="utf-8")).splitlines()
    assert [line for line in prose if len(line) > LONGEST and not line.startswith("|")] == []


def test_the_packages_have_the_same_headings_in_the_same_order() -> None:
    first, *others = [headings(ROOT / package / "README.md", "##") for package in PACKAGES]
    assert all(found == first for found in others)


@each_document
def test_links_lead_to_files_and_headings_that_are_there(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=place)
def test_files_that_are_named_are_there(path: Path) -> None:
    """From the root, from the document's folder, or from the package's configs/. The changelog names what is gone."""
    words = {word for line in code(path) for word in line.split()}
    named = {word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|yaml)", word)}
    places = (ROOT, path.parent, path.parent / "configs")
    assert [name for name in sorted(named) if not any((place / name).is_file() for place in places)] == []


@each_document
def test_make_has_the_targets_and_variables_that_are_named(path: Path) -> None:
    for command in commands(path):
        if command[0] == "make":
            for word in command[1:]:
                name, is_variable, _ = word.partition("=")
                known = f"$({name})" in MAKEFILE if is_variable else re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)
                assert known, f"{word} of {shlex.join(command)}"


@each_document
def test_python_has_the_modules_verbs_and_options_that_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in commands(path):
        if command[0] == "make" or command[command.index("-m") + 1].startswith("<"):
            continue
        module, *rest = command[command.index("-m") + 1 :]
        assert importlib.util.find_spec(module), command
        if module not in PACKAGES or not rest:
            continue
        verb, *words = rest
        if verb in verbs(module):
            own = words[: words.index("--")] if "--" in words else words
            given = {re.split(r"[.=]", word[2:])[0] for word in own if word.startswith("--")}
            assert given <= {"help", *options(verbs(module)[verb])}, command
        else:
            assert verb in LIGHTNING_VERBS, command
            if verb == "fit" and "..." not in words:
                compose(module, words)
