"""The verbs of `python -m <package> <verb>`: which there are, how options are read, and how errors are reported."""

import dataclasses
import difflib
import inspect
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast, get_type_hints

import torch
from jsonargparse import ArgumentParser, auto_cli
from pytorch_lightning.cli import ArgsType
from pytorch_lightning.utilities import rank_zero_only

from shared.checkpoint import CheckpointError
from shared.cli import run_lightning
from shared.data.problems import DataError

LIGHTNING_VERBS = ("fit", "validate", "test", "predict")
LISTS = (list[str], list[str] | None, list[int], list[int] | None)

# Warnings that a user can do nothing about, each with the reason.
SILENCED = (
    "Experiment logs directory",  # a run's folder is fixed, and goes on
    ".*does not have many workers",  # batches come from a memory map
    "The number of training batches .* is smaller than the logging interval",  # logged once an epoch
    "LightningCLI's args parameter",  # main() of another program, or a test
    "Couldn't infer the batch indices",  # the predictions have the samples' ids
    "The `srun` command is available",  # on a cluster, where a cell is one task
    ".*LeafSpec.*is deprecated",  # Lightning's use of torch
    r"(?s).*deprecated in v4\.49",  # Lightning's use of jsonargparse
)


@contextmanager
def _telling(package: str) -> Iterator[None]:
    """Show the messages of the project's own loggers, unless the calling program has its own way of showing logs."""
    loggers = [] if logging.getLogger().handlers else [logging.getLogger(name) for name in ("shared", package)]
    levels, handler = [logger.level for logger in loggers], logging.StreamHandler()
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING if getattr(rank_zero_only, "rank", 0) else logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings that a user can do nothing about; afterwards restore the process (for tests and notebooks)."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level, threads, silent = logger.level, torch.get_num_threads(), os.environ.get("WANDB_SILENT")
    try:
        os.environ.setdefault("WANDB_SILENT", "true")  # its banner says where files are: in the run's folder
        with warnings.catch_warnings():
            logger.setLevel(logging.WARNING)  # Lightning's tips
            for message in SILENCED:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        if silent is None:
            del os.environ["WANDB_SILENT"]
        logger.setLevel(level)
        torch.set_num_threads(threads)


def _join_lists(hints: Mapping[str, Any], args: Sequence[str]) -> list[str]:
    """Turn `--prompts "one thing" another` into `--prompts '["one thing", "another"]'`, jsonargparse's form.

    This is done for options that are lists of strings or of integers.
    """
    lists = {f"--{name}": hint for name, hint in hints.items() if hint in LISTS}
    joined: list[str] = []
    values: list[str] | None = None
    for arg in [*args, "--"]:
        if values is not None and not arg.startswith("--"):
            values.append(arg)
            continue
        if values:
            is_json = len(values) == 1 and values[0].startswith("[")
            numbers = lists[joined[-1]] in LISTS[2:]
            joined.append(values[0] if is_json else f"[{', '.join(values)}]" if numbers else json.dumps(values))
        values = [] if arg in lists else None
        joined.append(arg)
    return joined[:-1]


def call(function: Callable[..., Any], args: Sequence[str], prog: str | None = None) -> Any:
    """Call a verb with the words of a command line.

    A verb's options are its parameters. If its first parameter is a dataclass, the options are the fields of that
    class, and what follows a bare `--` goes to the field `fit_args`.

    Args:
        function: The verb; its docstring is its help text.
        args: What was typed after the verb.
        prog: Name of the command in its help text.

    Returns:
        What the verb returned.
    """
    prog = prog or function.__name__
    hints = get_type_hints(function)
    options: Any = next((hints[name] for name in inspect.signature(function).parameters), None)
    if not dataclasses.is_dataclass(options):
        return auto_cli(function, args=_join_lists(hints, args), prog=prog, as_positional=False)
    words = list(args)
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = ArgumentParser(prog=prog, description=inspect.getdoc(function))
    parser.add_class_arguments(options, as_group=False, skip={"fit_args"})
    given = parser.instantiate(parser.parse_args(_join_lists(get_type_hints(options), own)))
    make = cast(Callable[..., Any], options)
    return function(make(**{**given.as_dict(), "fit_args": rest}))


def run_main(package: str, verbs: Mapping[str, Callable[..., Any]], args: ArgsType = None) -> Any:
    """What `python -m <package>` does: Lightning's subcommands, or one of the package's own verbs.

    Args:
        package: Name of the package.
        verbs: Functions by verb; their signatures give the options and their docstrings the help texts.
        args: Arguments without the program's name; `sys.argv[1:]` by default.

    Returns:
        The CLI object, or what the verb returned.
    """
    given = list(sys.argv[1:] if args is None else args)
    verb = given[0] if given else "--help"
    try:
        if verb in verbs:
            with _quiet(), _telling(package):
                return call(verbs[verb], given[1:], f"python -m {package} {verb}")
        if verb in LIGHTNING_VERBS:
            with _quiet(), _telling(package):
                return run_lightning(package, None if args is None else given)
    except (DataError, CheckpointError) as error:
        # An error that a user can fix is shown as a sentence; every other error keeps its traceback.
        raise SystemExit(f"error: {error}") from error
    names = list(dict.fromkeys([*LIGHTNING_VERBS, *verbs]))  # a package's own predict takes the place of Lightning's
    usage = f"python -m {package} {{{','.join(names)}}} [--help] ..."
    if verb in ("-h", "--help"):
        print(f"usage: {usage}")
        for name in verbs:
            print(f"  {name:<13} {(verbs[name].__doc__ or '').splitlines()[0]}")
        return None
    close = difflib.get_close_matches(verb, names, 1)
    raise SystemExit(f"usage: {usage}\nerror: no verb {verb!r}{f'; did you mean {close[0]}?' if close else ''}")
