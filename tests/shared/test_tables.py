"""CSV files: what is read, what each kind of bad file says, which column holds the groups, and which is not read."""

import logging
from pathlib import Path

import pytest

from shared.data.groups import find_group_column, is_group
from shared.data.problems import DataError
from shared.data.tables import read_csv, warn_of_unread


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


# --- columns that say what belongs together, and columns that nothing reads ---


@pytest.mark.parametrize(
    "name",
    ["patient", "PATIENT_ID", " Subject ", "Subject-No", "participant nr", "personid", "individual_number", "group"],
)
def test_usual_names_of_groups_are_known_in_any_spelling(name: str) -> None:
    assert is_group(name)


@pytest.mark.parametrize(
    "name", ["id", "patients", "planting", "inpatient", "group_size", "plant__id", "subject_age", 7]
)
def test_names_that_only_look_like_groups_are_none(name: object) -> None:
    assert not is_group(name)


TABLE = Path("set/table.csv")


def found(columns: list[str], given: str | None = None, taken: tuple[str | None, ...] = ()) -> str | None:
    return find_group_column(columns, given, TABLE, taken)


def test_a_group_column_is_inferred_and_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shared.data.groups"):
        assert found(["id", "Subject_ID", "size"]) == "Subject_ID"
    assert caplog.messages == [
        "set/table.csv: rows with the same Subject_ID belong together and stay in one part of the split "
        "(--data.init_args.group_column names another column, or the one of the ids to keep no rows together)"
    ]


@pytest.mark.parametrize(
    ("columns", "given", "taken", "expected"),
    [
        (["id", "size"], None, (), None),
        (["id", "patient"], None, ("patient",), None),  # the target, say
        (["id", "patient", "group"], None, (None, "group"), "patient"),
        (["id", "patient", "size"], "size", (), "size"),
        (["id", "patient", "group"], "group", (), "group"),
        (["id", "patient"], "id", ("id",), "id"),
    ],
)
def test_a_given_group_column_goes_before_a_usual_name_and_a_taken_one_is_none(
    columns: list[str], given: str | None, taken: tuple[str | None, ...], expected: str | None
) -> None:
    assert found(columns, given, taken) == expected


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [
        (
            ["id", "patient", "Group", "plant_id"],
            None,
            "set/table.csv: patient and Group and plant_id could each say which rows belong together; say which with "
            "--data.init_args.group_column NAME",
        ),
        (["id", "house"], "hous", "set/table.csv has no column hous (group_column); did you mean house?"),
        (["id", "house"], "ward", "set/table.csv has no column ward (group_column); it has id, house"),
    ],
)
def test_a_group_column_that_is_not_there_or_not_the_only_one_is_refused(
    columns: list[str], given: str | None, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        found(columns, given)
    assert str(caught.value) == said


def test_columns_that_nothing_reads_are_named_with_what_they_could_be(caplog: pytest.LogCaptureFixture) -> None:
    known = ["id", "labels", "report"]
    warn_of_unread(TABLE, ["id", "lables", "ward", "reports"], known)
    assert caplog.messages == [
        "set/table.csv has columns that are not read: lables; did you mean labels?, ward, reports; did you mean report?"
    ]
    caplog.clear()
    warn_of_unread(TABLE, ["report", "id"], known)
    assert caplog.messages == []
