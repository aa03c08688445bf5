"""`python -m galaxy_clusters <verb>`: the table of this package's own verbs; Lightning's subcommands come on top."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from galaxy_clusters.data.synthetic import write_synthetic
from galaxy_clusters.verbs.assess import assess
from galaxy_clusters.verbs.assign import assign
from galaxy_clusters.verbs.cluster import cluster
from galaxy_clusters.verbs.embed import embed
from galaxy_clusters.verbs.pipelines import train
from galaxy_clusters.verbs.report import report
from galaxy_clusters.verbs.search import outliers, search
from shared.main import run_main

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "synthetic": write_synthetic,
    "embed": embed,
    "cluster": cluster,
    "assess": assess,
    "report": report,
    "search": search,
    "outliers": outliers,
    "assign": assign,
}


def main(args: ArgsType = None) -> Any:
    """Run a verb. Tests call `main([...])`."""
    return run_main("galaxy_clusters", VERBS, args)
