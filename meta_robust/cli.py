"""`python -m meta_robust <verb>`: the table of this package's own verbs; Lightning's subcommands come on top."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from meta_robust.data.synthetic import write_synthetic
from meta_robust.verbs.classify import classify
from meta_robust.verbs.contrasts import contrasts
from meta_robust.verbs.environments import environments
from meta_robust.verbs.evaluate import evaluate
from meta_robust.verbs.pipelines import reproduce, study, train
from meta_robust.verbs.table import print_table
from shared.main import run_main

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "reproduce": reproduce,
    "study": study,
    "synthetic": write_synthetic,
    "evaluate": evaluate,
    "table": print_table,
    "classify": classify,
    "contrasts": contrasts,
    "environments": environments,
}


def main(args: ArgsType = None) -> Any:
    """Run a verb. Tests call `main([...])`."""
    return run_main("meta_robust", VERBS, args)
