"""`python -m ecg_text <verb>`: the table of this package's own verbs; Lightning's subcommands come on top."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from ecg_text.data.synthetic.ecgs import write_synthetic
from ecg_text.verbs.augmentations import augmentations
from ecg_text.verbs.classify import classify
from ecg_text.verbs.embed import embed
from ecg_text.verbs.evaluate import evaluate
from ecg_text.verbs.pipelines import reproduce, train
from ecg_text.verbs.table import print_table
from shared.main import run_main

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "reproduce": reproduce,
    "synthetic": write_synthetic,
    "evaluate": evaluate,
    "table": print_table,
    "classify": classify,
    "embed": embed,
    "augmentations": augmentations,
}


def main(args: ArgsType = None) -> Any:
    """Run a verb. Tests call `main([...])`."""
    return run_main("ecg_text", VERBS, args)
