"""The paper's table beside ours, differences by sign and p-value, and the CSVs of results/."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from shared.runs.results import append_results
from shared.runs.table import beside_paper, by_sign, difference_text


def test_ours_stand_beside_the_paper_with_deviation_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    paper = {"NORM": {"Random init": {"AUC": 52.7, "F1": 72.8}, "ETP": {"AUC": 71.8}}, "MI": {"ETP": {"AUC": 46.4}}}
    ours = pd.DataFrame(
        {"AUC": [50.04, 81.26, float("nan")], "AUC_std": [1.25, float("nan"), float("nan")]},
        index=pd.MultiIndex.from_tuples([("NORM", "Random init"), ("NORM", "ETP"), ("MI", "ETP")]),
    )
    table = beside_paper(ours, paper, 0.75, "Table 2")
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    assert [column.header for column in table.columns] == ["", "", "AUC\npaper", "\nours", "F1\npaper", "\nours"]
    assert cells == [
        ("NORM", "Random init", "52.7", "50.0 ± 1.2", "72.8", "-"),
        ("", "ETP", "71.8", "81.3", "-", "-"),
        ("MI", "ETP", "46.4", "-", "-", "-"),
    ]
    assert table.caption == "ours: mean ± standard deviation over the models; trained for 0.75 hours in all"
    Console(file=sys.stdout, width=80).print(table)
    assert "Table 2" in capsys.readouterr().out


def test_results_are_appended_with_what_made_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results" / "toy.csv"
    append_results(pd.DataFrame({"method": ["a", "b"], "auroc": [0.5, 0.75]}), path)
    append_results(pd.DataFrame({"method": ["c"], "f1": [0.25]}), path)
    rows = pd.read_csv(path)
    assert rows["method"].tolist() == ["a", "b", "c"]
    assert rows["f1"].isna().tolist() == [True, True, False]
    assert rows[["date", "revision", "hardware", "python", "torch"]].notna().all().all()
    assert capsys.readouterr().out == f"appended 2 rows to {path}\nappended 1 rows to {path}\n"


def test_intervals_and_texts_are_printed_where_there_are_any() -> None:
    ours = pd.DataFrame(
        {"AUC": [80.0, 81.0], "AUC_std": [1.0, 2.0], "AUC_low": [78.0, float("nan")], "AUC_high": [82.0, float("nan")]},
        index=pd.MultiIndex.from_tuples([("set", "a"), ("set", "b")]),
    ).assign(note=["+1", "-2"])
    console = Console(width=100, record=True)
    console.print(beside_paper(ours, {"set": {"a": {"AUC": 70.0}, "b": {"AUC": 71.0}, "c": {}}}, 0, texts=["note"]))
    lines = [line.split("│")[2:-1] for line in console.export_text().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["a", "70.0", "80.0 ± 1.0 [78.0, 82.0]", "+1"],
        ["b", "71.0", "81.0 ± 2.0", "-2"],
        ["c", "-", "-", "-"],
    ]


def test_differences_are_sorted_by_their_adjusted_p_value_and_printed_in_points() -> None:
    nan = float("nan")
    rows = pd.DataFrame(
        {
            "method": ["up", "down", "around", "many", "at", "none"],
            "d": [0.05, -0.02, 0.01, 0.04, -0.03, nan],
            "d_low": [0.01, -0.03, -0.01, 0.01, -0.06, nan],
            "d_high": [0.09, -0.01, 0.03, 0.07, 0.0, nan],
            "d_p": [0.001, 0.002, 0.4, 0.02, 0.01, nan],
            "d_holm": [0.005, 0.008, 0.4, 0.06, 0.05, nan],
        }
    )
    # The interval of `many` is above 0, but it is one of many.
    assert by_sign(rows, "d", 0.05) == ("up (+5.0)", "down (-2.0)", "around (+1.0), many (+4.0), at (-3.0)")
    assert by_sign(rows, "d", 0.001) == (
        "none",
        "none",
        "up (+5.0), down (-2.0), around (+1.0), many (+4.0), at (-3.0)",
    )
    assert by_sign(rows, "d", 0.1) == ("up (+5.0), many (+4.0)", "down (-2.0), at (-3.0)", "around (+1.0)")
    assert by_sign(rows, "absent", 0.05) == ("none", "none", "none")
    texts = [difference_text(row, "d") for row in rows.to_dict("records")]
    assert texts == [
        "+5.0 \\[1.0, 9.0]",
        "-2.0 \\[-3.0, -1.0]",
        "+1.0 \\[-1.0, 3.0]",
        "+4.0 \\[1.0, 7.0]",
        "-3.0 \\[-6.0, 0.0]",
        "-",
    ]
