"""`python -m commin <verb>`: the table of this package's own verbs; Lightning's subcommands come on top."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from commin.data.synthetic import write_synthetic
from commin.verbs.evaluate import evaluate
from commin.verbs.pipelines import reproduce, train
from commin.verbs.table import print_table
from commin.verbs.transmit import transmit
from shared.main import run_main

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "reproduce": reproduce,
    "synthetic": write_synthetic,
    "evaluate": evaluate,
    "table": print_table,
    "transmit": transmit,
}


def main(args: ArgsType = None) -> Any:
    """Run a verb. Tests call `main([...])`."""
    return run_main("commin", VERBS, args)
