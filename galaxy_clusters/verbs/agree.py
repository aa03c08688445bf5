"""`python -m galaxy_clusters agree`: whether two encoders find the same clusters."""

from pathlib import Path

import pandas as pd

from galaxy_clusters.evaluation.agreement import DRAWS, agreement
from galaxy_clusters.evaluation.found import Found
from shared.data.files import write_whole
from shared.data.problems import DataError

AGREEMENT = "agreement.csv"


def agree(clusters: Path, other: Path, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Match the clusters of two encoders, beside what two unrelated clusterings of the same sizes would share.

    Args:
        clusters: Folder of a clustering.
        other: Folder of another one, of the same galaxies or of some of them; those that only one holds do not count.
        draws: How often galaxies are exchanged at random.
        seed: Of the exchanges.

    Returns:
        The content of `agreement.csv` in the first folder: a row a cluster, see `Agreement.matches`.

    Raises:
        DataError: There is no clustering, they have no galaxy in common, or one has no cluster among these.
    """
    one, two = Found.read(clusters), Found.read(other)
    both = one.members[["id", "label"]].merge(two.members[["id", "label"]], on="id", suffixes=("", "_other"))
    if both.empty:
        raise DataError(f"{clusters} and {other} have no galaxy in common: cluster the same survey twice")
    found = agreement(both["label"].to_numpy(), both["label_other"].to_numpy(), draws, seed)
    table = found.matches.assign(
        cluster=[one.names[label] for label in found.matches["cluster"]],
        other=pd.Series([two.names[label] if label >= 0 else None for label in found.matches["other"]], dtype="str"),
    )
    write_whole(clusters / AGREEMENT, table.to_csv(index=False))
    print(table.round(3).to_string(index=False))
    print(
        f"{len(both)} galaxies in both; adjusted mutual information over those that either assigns "
        f"{found.information:.3f} (by chance {found.information_chance:.3f}, 95th percentile "
        f"{found.information_chance_95:.3f}); mean best Jaccard index {found.jaccard:.3f} (by chance "
        f"{found.jaccard_chance:.3f}, {found.jaccard_chance_95:.3f})"
    )
    return table
