"""`python -m galaxy_clusters assign`: new galaxies to the clusters that were found, or to none."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.clustering.graph import Scaling, neighbour_graph
from galaxy_clusters.evaluation.found import Found
from galaxy_clusters.report import assign as rules
from galaxy_clusters.report.export import write_csv
from shared.data.embeddings import read_embeddings
from shared.data.problems import DataError


def assign(
    clusters: Path, embeddings: Path, output: Path = Path("runs/assigned.csv"), k: int = 10, kept: float = 0.95
) -> pd.DataFrame:
    """Assign galaxies to frozen clusters by their neighbours in the representation; most belong to none.

    The rule is the strictest that still gives `kept` of the clusters' members their own cluster when each is left out.

    Args:
        clusters: Folder of a clustering.
        embeddings: Of the new galaxies, by the same model.
        output: CSV file to write.
        k: Number of neighbours that vote.
        kept: Share of the members.

    Returns:
        `id`, `cluster` (missing for none), `share` of the votes, and `ratio`, the distance to the cluster's nearest
        member over the cluster's limit.

    Raises:
        DataError: Another model made the embeddings, or there is no cluster.
    """
    found, new = Found.read(clusters), read_embeddings(embeddings)
    frozen = read_embeddings(Path(found.about["embeddings"]))
    if new.model != frozen.model:
        raise DataError(f"{embeddings} was made by {new.model or 'something unknown'}, the clusters by {frozen.model}")
    own = frozen.values[found.members["row"].to_numpy()]
    scaled, others = (_scaled(part, own, found.settings.scaling) for part in (own, new.values))
    labels = found.members["label"].to_numpy(np.int64)
    rule = rules.calibrate(neighbour_graph(scaled, k + 2), labels, k, kept)
    given = rules.assign(others, scaled, labels, rule)
    names = pd.Series([found.names[label] if label >= 0 else None for label in given.labels], dtype="str")
    table = pd.DataFrame(
        {"id": new.ids, "cluster": names, "share": given.share.round(4), "ratio": given.ratio.round(4)}
    )
    write_csv(output, table)
    print(
        f"{int((given.labels >= 0).sum())} of {len(table)} galaxies belong to a cluster; left out in turn, "
        f"{100 * rule.kept:.0f}% of the members get their own, and {100 * rule.right:.0f}% of those that get one are "
        f"members; wrote {output}"
    )
    return table


def _scaled(x: NDArray[np.float32], frozen: NDArray[np.float32], scaling: Scaling) -> NDArray[np.float32]:
    """A representation scaled as the frozen galaxies were for their clustering."""
    if scaling == "none":
        return x
    if scaling == "l2":
        scaled: NDArray[np.float32] = x / np.linalg.norm(x, axis=1, keepdims=True)
    else:
        spread = frozen.std(0)
        scaled = (x - frozen.mean(0)) / np.where(spread > 0, spread, 1)
    return scaled
