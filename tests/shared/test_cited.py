"""The figures of a document are those of the rows that it cites, or the check says which is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.runs.cited import main, wrong

ROWS = "method,table,value,low,hours,models\nA,1,0.7954,0.7433,0.25,0.79 0.80\nB,1,0.6612,-0.0121,0.5,\nA,2,3.2,1.5,,\n"
Check = Callable[[str], list[str]]
MARK = "<!-- results/t.csv: table=1; method=A -->"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "t.csv").write_text(ROWS)
    monkeypatch.chdir(tmp_path)

    def check(text: str) -> list[str]:
        document = tmp_path / "README.md"
        document.write_text(text, encoding="utf-8")
        return [message.removeprefix(f"{document}:") for message in wrong(document, tmp_path)]

    return check


@pytest.mark.parametrize(
    "line",
    [
        f"| A | 79.5 [74.3, 81] | {MARK}",
        f"| A | **79.54** in 15.0 minutes | {MARK}",
        f"| A | 0.80 | {MARK}",
        f"| A and B | 79.5 and 66.1, down by -1.2 | {MARK} <!-- results/t.csv: table=1; method=B -->",
        "| all | 3.2 and 66.1 | <!-- results/t.csv: table=1|2 -->",
        "| any | 3.2 | <!-- results/t.csv -->",
        f"| A | 79.5 ([page](https://a.b/3.9)) with `--rate 3.7`, version 2.14.1 | {MARK}",
    ],
)
def test_figures_of_the_cited_rows_are_right(said: Check, line: str) -> None:
    assert said(f"# Title\n\n## Results\n\n{line}\n") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"A: 79.6 {MARK}", "3: 79.6 is in no row of results/t.csv: table=1; method=A"),
        (f"A: +66.1 {MARK}", "3: +66.1 is in no row of results/t.csv: table=1; method=A"),
        ("B: 1.2 <!-- results/t.csv: method=B -->", "3: 1.2 is in no row of results/t.csv: method=B"),
        ("A: 79.5", "3: 79.5 is of no row; name it in <!-- results/FILE.csv: column=value -->"),
        ("A: 79.5 <!-- results/t.csv: method=C -->", "3: results/t.csv has no row with method=C"),
        ("A: 79.5 <!-- results/t.csv: name=A -->", "3: results/t.csv has no column name"),
        ("A: 79.5 <!-- results/u.csv -->", "3: no file results/u.csv"),
    ],
)
def test_a_figure_that_is_not_in_its_rows_is_named(said: Check, tmp_path: Path, line: str, message: str) -> None:
    found = said(f"## Speed\n\n{line}\n")
    assert found[0].replace(f"{tmp_path}/", "") == message


def test_a_paragraph_and_an_item_have_their_rows_at_the_end(said: Check) -> None:
    text = f"## Results\n\nA has 79.5,\nwith 74.3 below.\n{MARK}\n\n- A: 79.5\n  and 74.3\n  {MARK}\n- B: 66.1\n"
    assert said(text) == ["10: 66.1 is of no row; name it in <!-- results/FILE.csv: column=value -->"]
    assert said(f"## Results\n\nB has\n66.2.\n{MARK}\n") == ["3: 66.2 is in no row of results/t.csv: table=1; method=A"]


def test_only_sections_of_results_need_to_cite_and_code_does_not(said: Check) -> None:
    text = "## Use\n\nabout 3.9 s\n\n## Results\n\n```\nfit --rate 3.9\n```\n\n## Scale\n\n1.5 times\n"
    assert said(text) == []


def test_the_command_lists_what_is_wrong_in_all_documents(
    said: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(f"## Results\n\nA: 79.5 {MARK}\n")
    main(["README.md"])
    assert capsys.readouterr().out == "the figures of 1 documents are those of results/\n"
    (tmp_path / "other.md").write_text("## Results\n\n1.5\n\n2.5\n")
    with pytest.raises(SystemExit) as stop:
        main(["README.md", "other.md"])
    assert str(stop.value).count("is of no row") == 2
