"""Folders of SYNTHETIC sets: finished, interrupted, of other settings, of somebody else."""

import json
from pathlib import Path

import pytest

from shared.data.files import write_whole
from shared.data.synthetic import is_complete, settings_of, start_set

SETTINGS = {"version": 1, "records": 3}


def test_a_set_is_complete_when_its_last_file_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "new" / "set"
    assert not is_complete(root, SETTINGS, "tables/last.csv")
    root.mkdir(parents=True)
    assert not is_complete(root, SETTINGS, "tables/last.csv")
    start_set(root, SETTINGS, "SYNTHETIC\n")
    assert {path.name: path.read_text() for path in root.iterdir()} == {
        "README.txt": "SYNTHETIC\n",
        "synthetic.json": '{\n  "version": 1,\n  "records": 3\n}\n',
    }
    assert not is_complete(root, SETTINGS, "tables/last.csv")
    (root / "tables").mkdir()
    assert capsys.readouterr().out == ""
    write_whole(root / "tables/last.csv", "a\n")
    assert is_complete(root, SETTINGS, "tables/last.csv")
    assert capsys.readouterr().out == f"{root}: the synthetic set with these settings is already there, reused\n"


def test_a_set_says_what_it_was_made_with(tmp_path: Path) -> None:
    assert settings_of(tmp_path) == {}
    start_set(tmp_path, SETTINGS, "")
    assert settings_of(tmp_path) == {"records": 3}
    (tmp_path / "synthetic.json").write_text("{")
    assert settings_of(tmp_path) == {}


def test_a_set_with_other_settings_is_refused(tmp_path: Path) -> None:
    start_set(tmp_path, SETTINGS, "")
    other = SETTINGS | {"records": 4}
    with pytest.raises(FileExistsError) as caught:
        is_complete(tmp_path, other, "last.csv")
    assert str(caught.value) == (
        f"{tmp_path} holds a synthetic set with other settings: found {SETTINGS}, asked for {other}; give another "
        "folder, or remove this one first"
    )


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_what_somebody_else_wrote_is_refused(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "holiday.jpg").touch()
    if content is not None:
        (tmp_path / "synthetic.json").write_bytes(content)
    for root in (tmp_path, tmp_path / "holiday.jpg"):
        with pytest.raises(FileExistsError) as caught:
            is_complete(root, SETTINGS, "holiday.jpg")
        assert str(caught.value) == (
            f"{root} holds something that `synthetic` did not write (no readable synthetic.json in it) and is left "
            "alone; give a new or empty folder"
        )


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_whole(path, json.dumps("é"))
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "long enough to begin with, \ud800")
    assert json.loads(path.read_text(encoding="utf-8")) == "é"
