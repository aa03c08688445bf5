"""The raise-or-skip record of bad items: exact messages, order, and the list on disk."""

import logging
from pathlib import Path

import pytest

from shared.data.problems import DataError, Problems


def test_raise_names_the_item_and_the_way_out() -> None:
    with pytest.raises(DataError) as caught:
        Problems("raise").add("00012_lr", "lead V3 is constant")
    assert str(caught.value) == "00012_lr: lead V3 is constant (on_error: skip would leave it out and list it)"
    assert isinstance(caught.value, ValueError)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^on_error must be 'raise' or 'skip', got 'ignore'$"):
        Problems("ignore")  # type: ignore[arg-type]


def test_the_summary_counts_all_and_shows_the_first_in_order() -> None:
    problems = Problems("skip", noun="record")
    assert problems.summary() == "no record skipped"
    problems.add("b", "empty report")
    assert problems.summary() == "1 record skipped: b (empty report)"
    for name in "acde":
        problems.add(name, "no file")
    assert problems.summary() == "5 records skipped: b (empty report), a (no file), c (no file) and 2 more"
    assert problems.summary(shown=5).endswith("d (no file), e (no file)")


def test_the_list_is_csv_in_order_with_quoting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems("skip", noun="record")
    problems.add("b,1", 'says "no"')
    problems.add("ä", "empty report")
    path = tmp_path / "new" / "skipped.csv"
    with caplog.at_level(logging.WARNING):
        problems.write(path)
    assert path.read_text(encoding="utf-8") == 'item,reason\n"b,1","says ""no"""\nä,empty report\n'
    assert caplog.messages == [f'2 records skipped: b,1 (says "no"), ä (empty report); listed in {path}']


def test_without_a_problem_there_is_no_list_and_an_earlier_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "skipped.csv"
    Problems("skip").write(path)
    assert not path.exists()
    path.write_text("item,reason\nold,gone\n")
    Problems("skip").write(path)
    assert not path.exists()
