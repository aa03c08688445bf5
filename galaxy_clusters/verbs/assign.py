"""`python -m galaxy_clusters assign`: new galaxies to the clusters that were found, or to none."""

from pathlib import Path

import numpy as np
import pandas as pd

from galaxy_clusters.clustering.graph import neighbour_graph, scaler
from galaxy_clusters.data.source import FAULT
from galaxy_clusters.evaluation.found import Found
from galaxy_clusters.report import assign as rules
from galaxy_clusters.report.export import write_csv
from shared.data.embeddings import read_embeddings
from shared.data.problems import DataError


def assign(
    clusters: Path, embeddings: Path, output: Path | None = None, k: int = 10, kept: float = 0.95
) -> pd.DataFrame:
    """Assign galaxies to frozen clusters by their neighbours in the representation; most belong to none.

    The rule is the strictest that still gives `kept` of the clusters' members their own cluster when each is left out.
    Images that show nothing, as `embed` found, belong to none.

    Args:
        clusters: Folder of a clustering.
        embeddings: Of the new galaxies, by the same model.
        output: CSV file to write; by default `assigned.csv` in the clustering's folder.
        k: Number of neighbours that vote.
        kept: Share of the members.

    Returns:
        `id`, `cluster` (missing for none), `share` of the votes, and `ratio`, the distance to the cluster's nearest
        member over the cluster's limit.

    Raises:
        DataError: Another model made the embeddings, one of them cannot be scaled as the frozen ones were, there is no
            cluster, or the frozen embeddings are gone or others.
    """
    found, new = Found.read(clusters), read_embeddings(embeddings)
    frozen, model = found.values(), found.about["model"]
    if new.model != model:
        raise DataError(
            f"{embeddings} was made by {new.model or 'something unknown'}, the clusters by "
            f"{model or 'something unknown'}: take both from the same model"
        )
    if new.values.shape[1] != frozen.shape[1]:
        raise DataError(
            f"{embeddings} holds {new.values.shape[1]} numbers a galaxy, the clusters were found in {frozen.shape[1]}: "
            "take both from the same model"
        )
    scale = scaler(frozen, found.settings.scaling)
    scaled = scale(frozen)
    try:
        others = scale(new.values)
    except DataError as error:
        raise DataError(f"{embeddings}: {error}") from None
    labels = found.members["label"].to_numpy(np.int64)
    rule = rules.calibrate(neighbour_graph(scaled, k + 2), labels, k, kept)
    given = rules.assign(others, scaled, labels, rule)
    shows = new.table[FAULT].fillna("").to_numpy() == "" if FAULT in new.table else np.ones(len(new.ids), bool)
    own = np.where(shows, given.labels, -1)
    names = pd.Series([found.names[label] if label >= 0 else None for label in own], dtype="str")
    table = pd.DataFrame(
        {"id": new.ids, "cluster": names, "share": given.share.round(4), "ratio": given.ratio.round(4)}
    )
    output = output or clusters / "assigned.csv"
    write_csv(output, table)
    print(
        f"{int((own >= 0).sum())} of {len(table)} galaxies belong to a cluster; left out in turn, "
        f"{100 * rule.kept:.0f}% of the members get their own, and {100 * rule.right:.0f}% of those that get one are "
        f"members; wrote {output}"
    )
    return table
