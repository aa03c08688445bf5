"""Class names and how each release writes its labels."""

from pathlib import Path

import pandas as pd
import pytest

from ecg_text.data.labels import (
    CPSC2018_CLASSES,
    SNOMED_TO_CPSC2018,
    cpsc2018_labels,
    ptbxl_classes,
    ptbxl_labels,
    read_scp_statements,
)
from shared.data.problems import DataError

STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
NDT,non-diagnostic T abnormalities,1.0,1.0,,STTC,STTC
NST_,non-specific ST changes,1.0,1.0,,STTC,NST_
IMI,inferior myocardial infarction,1.0,,,MI,IMI
ASMI,anteroseptal myocardial infarction,1.0,,,MI,AMI
AMI,anterior myocardial infarction,1.0,,,MI,AMI
1AVB,first degree AV block,1.0,,,CD,_AVB
SR,sinus rhythm,,,1.0,,
"""


@pytest.fixture
def statements(tmp_path: Path) -> pd.DataFrame:
    path = tmp_path / "scp_statements.csv"
    path.write_text(STATEMENTS)
    return read_scp_statements(path)


def test_five_superclasses_in_the_papers_order(statements: pd.DataFrame) -> None:
    assert ptbxl_classes(statements, "superclass") == {
        "NORM": "normal ECG",
        "MI": "myocardial infarction",
        "STTC": "ST/T change",
        "CD": "conduction disturbance",
        "HYP": "hypertrophy",
    }


def test_subclasses_and_statements_are_named_by_their_descriptions(statements: pd.DataFrame) -> None:
    assert ptbxl_classes(statements, "subclass") == {
        "AMI": "anterior myocardial infarction",
        "IMI": "inferior myocardial infarction",
        "NORM": "normal ECG",
        "NST_": "non-specific ST changes",
        "STTC": "non-diagnostic T abnormalities",
        "_AVB": "first degree AV block",
    }
    every = ptbxl_classes(statements, "all")
    assert list(every) == sorted(statements.index)
    assert every["SR"] == "sinus rhythm"


@pytest.mark.parametrize(
    ("label_set", "expected"),
    [("superclass", ["MI", "STTC"]), ("subclass", ["AMI", "STTC"]), ("all", ["AMI", "ASMI", "NDT", "SR"])],
)
def test_a_records_labels_once_each_whatever_the_likelihood(
    statements: pd.DataFrame, label_set: str, expected: list[str]
) -> None:
    codes = "{'SR': 0.0, 'AMI': 0.0, 'NDT': 100.0, 'ASMI': 50.0, 'UNHEARD_OF': 100.0}"
    assert ptbxl_labels(codes, statements, label_set) == expected  # type: ignore[arg-type]


def test_a_rhythm_alone_is_no_superclass(statements: pd.DataFrame) -> None:
    assert ptbxl_labels("{'SR': 0.0}", statements, "superclass") == []


@pytest.mark.parametrize("cell", ["nan", "", "['NORM']", "{'NORM': 100", "{[]: 1}", "__import__('os')", "(" * 500])
def test_a_cell_that_is_no_dictionary_is_refused(statements: pd.DataFrame, cell: str) -> None:
    with pytest.raises(DataError) as caught:
        ptbxl_labels(cell, statements, "superclass")
    assert str(caught.value) == f"scp_codes is {cell!r}; expected a dictionary of statement to likelihood"


@pytest.mark.parametrize("column", ["description", "diagnostic", "diagnostic_class", "diagnostic_subclass"])
def test_a_missing_column_of_the_statements_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "scp_statements.csv"
    path.write_text(STATEMENTS.replace(f",{column},", ",other,").replace(f",{column}\n", ",other\n"))
    with pytest.raises(DataError) as caught:
        read_scp_statements(path)
    assert str(caught.value).startswith(f"{path} lacks the column {column}; it has ")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["AF"], ["AF"]),
        ([" rbbb", "AF "], ["AF", "RBBB"]),
        (["I-AVB"], ["I-AVB"]),
        (["IAVB", "SNR"], ["Normal", "I-AVB"]),
        (["164889003", "59118001"], ["AF", "RBBB"]),
        (["59118001", "713427006"], ["RBBB"]),  # two codes that PhysioNet scores as one
        (["284470004", "63593006", "17338001", "427172004"], ["PAC", "PVC"]),
        (["5"], ["RBBB"]),
        (["999999", "Unknown", "", "0", "10"], []),
    ],
)
def test_cpsc2018_labels_in_every_dialect(codes: list[str], expected: list[str]) -> None:
    assert cpsc2018_labels(codes) == expected


def test_the_original_numbers_are_the_nine_classes_in_order() -> None:
    # The challenge's own table: 1 normal, 2 AF, 3 I-AVB, 4 LBBB, 5 RBBB, 6 PAC, 7 PVC, 8 STD, 9 STE.
    expected = ["Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"]
    assert [cpsc2018_labels([str(number)]) for number in range(1, 10)] == [[name] for name in expected]
    assert list(CPSC2018_CLASSES) == expected
    assert set(SNOMED_TO_CPSC2018.values()) == set(expected)
