"""`python -m galaxy_clusters <verb>`: the table of this package's own verbs; Lightning's subcommands come on top."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import ArgsType

from galaxy_clusters.data.synthetic import write_synthetic
from galaxy_clusters.verbs.agree import agree
from galaxy_clusters.verbs.assess import assess
from galaxy_clusters.verbs.assign import assign
from galaxy_clusters.verbs.cluster import cluster
from galaxy_clusters.verbs.embed import embed
from galaxy_clusters.verbs.pipelines import reproduce, train
from galaxy_clusters.verbs.report import report
from galaxy_clusters.verbs.search import outliers, search
from galaxy_clusters.verbs.table import bottleneck, statements, table
from shared.main import run_main

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "reproduce": reproduce,
    "synthetic": write_synthetic,
    "embed": embed,
    "cluster": cluster,
    "assess": assess,
    "report": report,
    "agree": agree,
    "search": search,
    "outliers": outliers,
    "assign": assign,
    "table": table,
    "statements": statements,
    "bottleneck": bottleneck,
}


def main(args: ArgsType = None) -> Any:
    """Run a verb. Tests call `main([...])`."""
    return run_main("galaxy_clusters", VERBS, args)
