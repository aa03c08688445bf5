"""Files that are whole or not there, whoever else writes them, and whatever goes wrong."""

import os
from pathlib import Path

import pytest

from shared.data.files import whole


def test_a_block_that_ends_with_an_error_leaves_the_file_as_it_was_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole(path) as part:
        part.write_text("first")
        assert not path.exists()

    def interrupted(error: type[BaseException]) -> None:
        with whole(path) as part:
            part.write_text("half")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(error)
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "first"


def test_processes_that_write_the_same_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    with whole(path) as mine:
        mine.write_text("mine, which takes longer")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with whole(path) as other:
            other.write_text("other")
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        with whole(path) as far:
            far.write_text("far")
        assert len({mine, other, far}) == 3
        assert path.read_text() == "far"
    assert path.read_text() == "mine, which takes longer"
    assert list(tmp_path.iterdir()) == [path]
