"""`python -m ecg_text <verb>`: Lightning's subcommands and this package's own verbs."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from ecg_text.data.synthetic.ecgs import write_synthetic
from ecg_text.verbs.augmentations import augmentations
from ecg_text.verbs.classify import classify, embed
from ecg_text.verbs.evaluate import evaluate
from ecg_text.verbs.table import print_table
from shared.cli import QuintetCLI, run_main


class ECGTextCLI(QuintetCLI):
    """The CLI of ecg_text; model and data are chosen by class_path."""

    package = "ecg_text"


def main(args: ArgsType = None) -> Any:
    """Run a verb; tests call `main([...])`."""
    verbs: dict[str, Callable[..., Any]] = {
        "synthetic": write_synthetic,
        "evaluate": evaluate,
        "table": print_table,
        "classify": classify,
        "embed": embed,
        "augmentations": augmentations,
    }
    return run_main(ECGTextCLI, verbs, args)
