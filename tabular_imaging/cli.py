"""`python -m tabular_imaging <verb>`: the table of this package's own verbs; Lightning's subcommands come on top."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from shared.main import run_main
from tabular_imaging.data.synthetic.adverts import write_synthetic
from tabular_imaging.verbs.dvm import dvm
from tabular_imaging.verbs.evaluate import evaluate
from tabular_imaging.verbs.explain import explain
from tabular_imaging.verbs.pipelines import reproduce, study, train, tune
from tabular_imaging.verbs.predict import predict
from tabular_imaging.verbs.rank import rank
from tabular_imaging.verbs.table import print_table

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "reproduce": reproduce,
    "tune": tune,
    "study": study,
    "synthetic": write_synthetic,
    "evaluate": evaluate,
    "rank": rank,
    "explain": explain,
    "table": print_table,
    "predict": predict,
    "dvm": dvm,
}


def main(args: ArgsType = None) -> Any:
    """Run a verb. Tests call `main([...])`."""
    return run_main("tabular_imaging", VERBS, args)
