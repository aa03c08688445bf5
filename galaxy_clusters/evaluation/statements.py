"""The paper's sentences on its settings, each tried on a representation: what the clusters become with others.

Shapes: N galaxies, D columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from galaxy_clusters.clustering.chain import ChainSettings, cluster, fingerprint
from galaxy_clusters.clustering.leaves import condense, select
from galaxy_clusters.clustering.tree import spanning_tree
from galaxy_clusters.evaluation import Labels, Points, ToLabels, runs_file
from galaxy_clusters.evaluation.found import STAGES
from galaxy_clusters.evaluation.injection import CROWDED, LOCAL, RECOVERED, detectability
from shared.data.problems import DataError
from shared.metrics import best_matches, macro_f1
from shared.runs.settings import load_yaml

PAPER = ChainSettings()
SCALED = ("neighbours", "min_samples")  # with the survey's own
OTHERS = ("dims", "selection", "densmap")
NAIVE = ("hdbscan", "k-means")
KEYS = (*SCALED, *OTHERS, "naive", "components")
SCATTER = 0.5  # of the injected classes, in distances to the tenth neighbour
TOGETHER, RUNS = 4, 2  # injected classes of a run, fewer where these would be too many; and runs

Change = dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """A sentence of the paper.

    Attributes:
        section: Where it stands.
        says: In our words.
        tries: What is changed of the survey's own settings, see configs/tables/statements.yaml.
    """

    section: str
    says: str
    tries: tuple[Change, ...]


def read_statements(path: Path) -> list[Statement]:
    """Read a YAML list with entries of `section`, `says` and `tries`.

    Raises:
        DataError: An entry is something else; the message names it.
    """
    entries, found = load_yaml(path), []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
        tries = entry.get("tries") if isinstance(entry, dict) and entry.keys() == {"section", "says", "tries"} else None
        if not isinstance(tries, list) or not all(isinstance(change, dict) for change in tries):
            raise DataError(f"{path}: statement {number} needs section, says, and tries, a list of settings")
        for change in tries:
            if unknown := change.keys() - set(KEYS):
                raise DataError(f"{path}: statement {number} tries {min(unknown)}, expected {', '.join(KEYS)}")
            if change.get("naive", NAIVE[0]) not in NAIVE:
                raise DataError(
                    f"{path}: statement {number}: naive is {change['naive']!r}, expected {', '.join(NAIVE)}"
                )
        found.append(Statement(str(entry["section"]), entry["says"], tuple(tries)))
    return found


def scaled(change: Change, own: ChainSettings) -> ChainSettings:
    """A survey's own settings with what a sentence changes, in proportion where that is a number of galaxies."""
    ratios = {name: getattr(own, name) / getattr(PAPER, name) for name in SCALED}
    counts = {name: max(2, round(change[name] * ratio)) for name, ratio in ratios.items() if name in change}
    return replace(own, **counts, **{name: change[name] for name in OTHERS if name in change})


def described(change: Change, own: ChainSettings) -> str:
    """The changed settings in words, with the paper's numbers where they are scaled."""
    if "naive" in change:
        return f"{change['naive']} of {change.get('components', 'all')} columns"
    made = scaled(change, own)
    said = [
        f"{name} {getattr(made, name)}" + (f" (the paper's {change[name]})" if name in change else "")
        for name in SCALED
    ]
    return ", ".join([*said, f"dims {made.dims}", made.selection, *(["densmap"] if made.densmap else [])])


def clusterer(change: Change, own: ChainSettings, count: int, folder: Path | None = None) -> ToLabels:
    """From a representation to labels.

    Args:
        change: What is changed of the settings.
        own: The survey's own settings.
        count: Clusters that k-means makes.
        folder: Where the stages of the chain are kept.
    """
    if "naive" not in change:
        return lambda x: cluster(x, scaled(change, own), folder).clusters.labels

    def naive(x: Points) -> Labels:
        kept = change.get("components")
        x = PCA(kept, random_state=own.seed).fit_transform(x) if kept else x
        if change["naive"] == "k-means":
            return np.asarray(KMeans(count, n_init=4, random_state=own.seed).fit_predict(x), np.int64)
        # The exact tree at any number of dimensions.
        return select(condense(spanning_tree(x, own.min_samples), own.min_cluster_size)).labels

    return naive


def try_statements(
    x: Points, classes: Labels, own: ChainSettings, statements: Sequence[Statement], folder: Path
) -> pd.DataFrame:
    """Cluster a representation with every setting that the statements try.

    Args:
        x: As the chain takes it, scaled `(N, D)`.
        classes: Known classes `(N,)`, -1 where unknown.
        own: The survey's own settings, without scaling.
        statements: See `read_statements`.
        folder: Where stages and runs are kept.

    Returns:
        A row a statement and setting: `section`, `says`, `setting`, `clusters`, `assigned` (share of galaxies),
        `macro_f1` of the known classes' best matches, `found` (classes with a Jaccard index above 0.5), and of
        `injected` classes, twice as large as `min_samples`, how many came back `whole` (likewise) and how many were
        `torn` (into two clusters or more of at least a fifth of them).
    """
    leaves = cluster(x, own, folder / STAGES).clusters.table
    done: dict[str, dict[str, Any]] = {}
    for change in [change for statement in statements for change in statement.tries]:
        if (name := described(change, own)) not in done:
            chain = clusterer(change, own, max(len(leaves), 2), folder / STAGES)
            plain = clusterer(change, own, max(len(leaves), 2))  # one that keeps no files of injected data
            done[name] = {**_outcome(chain(x), classes), **_injected(x, plain, own, name, folder)}
    return pd.DataFrame(
        {"section": each.section, "says": each.says, "setting": described(change, own), **done[described(change, own)]}
        for each in statements
        for change in each.tries
    )


def _outcome(labels: Labels, classes: Labels) -> dict[str, Any]:
    return {
        "clusters": len(np.unique(labels[labels >= 0])),
        "assigned": float((labels >= 0).mean()),
        "macro_f1": macro_f1(classes, labels),
        "found": sum(match.jaccard > RECOVERED for match in best_matches(classes, labels)),
    }


def _injected(
    x: Points, chain: Callable[[Points], Labels], own: ChainSettings, name: str, folder: Path
) -> dict[str, Any]:
    members = 2 * own.min_samples
    together = min(TOGETHER, int(CROWDED * len(x) / members))
    if not together or len(x) <= LOCAL:
        return {"injected": 0, "members": members, "whole": 0, "torn": 0}
    settings = {"own": asdict(own), "setting": name}
    path = runs_file(folder, "statements", fingerprint(x), settings)
    table = detectability(x, chain, [members] * together, [SCATTER], range(RUNS), path, settings)
    whole = table["recovered"]
    torn = ~whole & (table["pieces"] > 1)
    return {"injected": len(table), "members": members, "whole": int(whole.sum()), "torn": int(torn.sum())}
