"""`python -m ecg_text <verb>`: Lightning's subcommands and this package's own verbs."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from ecg_text.predict import classify, embed
from ecg_text.synthetic import write_synthetic
from ecg_text.table import print_table
from ecg_text.verbs import evaluate
from ecg_text.views import augmentations
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
