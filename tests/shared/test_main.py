"""Dispatch of `python -m <package> <verb>`; whole runs are in the packages' own tests."""

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from shared.checkpoint import CheckpointError
from shared.data.problems import DataError
from shared.main import call, run_main

PACKAGE = "a_package"


def rank(
    prompts: list[str], weights: list[float] | None = None, tags: list[str] | None = None, folder: Path = Path("out")
) -> dict[str, object]:
    """Rank what is given.

    Args:
        prompts: What to rank.
        weights: Of the prompts.
        tags: More words.
        folder: Where to write.
    """
    warnings.filterwarnings("ignore", message="a verb's own filter")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.CRITICAL)
    torch.set_num_threads(torch.get_num_threads() + 1)
    return {"prompts": prompts, "weights": weights, "tags": tags, "folder": folder}


def fail(kind: str) -> None:
    """Fail.

    Args:
        kind: How.
    """
    raise {"data": DataError, "checkpoint": CheckpointError, "other": KeyError}[kind]("what to do")


def run(*args: str) -> object:
    return run_main(PACKAGE, {"rank": rank, "fail": fail}, list(args))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--prompts", "atrial fibrillation", "normal ECG"], ["atrial fibrillation", "normal ECG"]),
        (["--prompts", "one alone"], ["one alone"]),
        (["--prompts", '["a, b", "c"]'], ["a, b", "c"]),
        (["--prompts", 'with "quotes"', "null", "1.5"], ['with "quotes"', "null", "1.5"]),
        (["--folder", "f", "--prompts", "a", "b", "--tags", "x"], ["a", "b"]),
    ],
)
def test_lists_of_strings_take_several_words(args: list[str], expected: list[str]) -> None:
    result = run("rank", *args)
    assert isinstance(result, dict)
    assert result["prompts"] == expected
    if "--tags" in args:
        assert (result["tags"], result["folder"]) == (["x"], Path("f"))


def test_other_lists_are_left_to_jsonargparse() -> None:
    result = run("rank", "--prompts", "a", "--weights", "[0.5, 1]")
    assert isinstance(result, dict)
    assert result["weights"] == [0.5, 1.0]


@pytest.mark.parametrize("args", [["--prompts"], ["--prompts", "a", "--nothing", "b"], []])
def test_wrong_options_are_a_usage_error(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("rank", *args)
    assert stop.value.code == 2
    assert "python -m a_package rank" in capsys.readouterr().err


def test_a_verbs_help_is_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("rank", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "Rank what is given." in text
    assert "What to rank. (required" in text


def test_an_unknown_verb_lists_the_known() -> None:
    usage = "usage: python -m a_package {fit,validate,test,predict,rank,fail} [--help] ..."
    with pytest.raises(SystemExit) as stop:
        run("frob")
    assert stop.value.code == f"{usage}\nerror: no verb 'frob'"
    with pytest.raises(SystemExit, match=r"error: no verb 'fti'; did you mean fit\?$"):
        run("fti")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_without_a_verb_the_verbs_are_shown(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) is None
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("usage: python -m a_package {fit,validate,test,predict,rank,fail}")
    assert said[1:] == ["  rank          Rank what is given.", "  fail          Fail."]


def test_what_the_packages_log_is_told_once_and_only_meanwhile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell() -> None:
        """Tell."""
        logging.getLogger("a_package.data").info("an image column was found")
        logging.getLogger("another").info("nobody's business")

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    run_main(PACKAGE, {"tell": tell}, ["tell"])
    assert capsys.readouterr().err == "an image column was found\n"
    tell()
    assert capsys.readouterr().err == ""


def test_what_is_wrong_with_a_command_is_told_without_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("fit", "--trainer.max_epochs", "3")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "tip: For details of accepted options run: python -m a_package --help\n"
        "error: the following arguments are required: fit.model\n"
    )


def test_what_a_user_can_fix_is_a_sentence_and_the_rest_a_traceback() -> None:
    for kind in ("data", "checkpoint"):
        with pytest.raises(SystemExit) as stop:
            run("fail", "--kind", kind)
        assert stop.value.code == "error: what to do"
    with pytest.raises(KeyError):
        run("fail", "--kind", "other")


def test_a_verb_leaves_the_process_as_it_found_it() -> None:
    def state() -> tuple[object, ...]:
        logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
        return torch.get_num_threads(), logger.level, list(warnings.filters)

    before = state()
    run("rank", "--prompts", "a")
    assert state() == before


@dataclass(frozen=True)
class Options:
    """Options of a pipeline.

    Attributes:
        seeds: Of the runs.
        names: Of the methods.
        suffix: Of the names.
        fit_args: For fit.
    """

    seeds: list[int] = field(default_factory=lambda: [0])
    names: list[str] = field(default_factory=list)
    suffix: str = ""
    fit_args: list[str] = field(default_factory=list)


def pipeline(options: Options) -> Options:
    """Run a pipeline."""
    return options


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], Options()),
        (["--seeds", "0", "1", "2"], Options(seeds=[0, 1, 2])),
        (["--names", "a", "b", "--suffix=_x"], Options(names=["a", "b"], suffix="_x")),
        (
            ["--seeds", "3", "--", "--lr", "0.1", "--seeds", "7"],
            Options(seeds=[3], fit_args=["--lr", "0.1", "--seeds", "7"]),
        ),
        (["--", "--a b", "--"], Options(fit_args=["--a b", "--"])),
    ],
)
def test_a_dataclass_is_a_pipelines_options_and_what_follows_a_bare_dash_is_handed_on(
    args: list[str], expected: Options
) -> None:
    assert call(pipeline, args) == expected
    assert run_main(PACKAGE, {"go": pipeline}, ["go", *args]) == expected


def test_a_pipelines_help_is_its_docstring_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_main(PACKAGE, {"go": pipeline}, ["go", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "usage: python -m a_package go" in said
    assert "Run a pipeline." in said
    assert "--suffix SUFFIX" in said
    assert "fit_args" not in said
