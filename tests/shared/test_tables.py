"""CSV files: what is read, and what each kind of bad file says."""

from pathlib import Path

import pytest

from shared.data.problems import DataError
from shared.data.tables import read_csv


def message(path: Path, columns: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as caught:
        read_csv(path, columns)
    return str(caught.value)


def test_the_columns_asked_for_are_there_and_arguments_reach_pandas(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,size\n007,1.5\n")
    assert read_csv(path, ["id"], dtype={"id": str}).to_dict("records") == [{"id": "007", "size": 1.5}]
    assert message(path, ("id", "colour", "split")) == f"{path} lacks the column colour, split; it has id, size"


def test_a_file_that_is_no_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert message(path) == f"no file {path}"
    path.write_bytes(b"")
    assert message(path) == f"{path} cannot be read as CSV (No columns to parse from file)"
    path.write_bytes(b"a,b\n1,2\n1,2,3,4\n")
    assert message(path).startswith(f"{path} cannot be read as CSV (Error tokenizing data.")
    path.write_bytes(b"\xff\xfe\x00\x01,\x80")
    assert message(path).startswith(f"{path} is not in UTF-8 ('utf-8' codec can't decode byte 0xff in position 0")
    assert message(path).endswith("; in a spreadsheet, save it as CSV UTF-8")
    assert message(tmp_path).startswith(f"{tmp_path} cannot be read as CSV ([Errno 21] Is a directory")
