"""How known classes lie in a representation and in its clusters: planted ones, or those that volunteers gave."""

import numpy as np
import pandas as pd

from galaxy_clusters.evaluation import Labels, Points
from galaxy_clusters.evaluation.enrichment import against_patches, neighbour_purity
from shared.data.problems import DataError
from shared.metrics import best_matches

FEWEST = 5  # members of a class that is looked at


def recovery(x: Points, labels: Labels, classes: "pd.Series[str]", draws: int = 100, seed: int = 0) -> pd.DataFrame:
    """Of each class, the cluster that is most like it, and whether random patches would have done as well.

    Args:
        x: Representation `(N, D)`.
        labels: Clusters `(N,)`.
        classes: Class of each galaxy `(N,)`, missing where it is not known; such galaxies do not count.
        draws: Of random patches.
        seed: Of the draws.

    Returns:
        A row a class of at least 5 galaxies: `class`, `galaxies`, `base_rate`; `neighbour_purity` with `purity_low` and
        `purity_high`, the share of the class among the ten nearest neighbours of its members; of the best match
        `cluster` (-1 for none), `jaccard`, `purity` and `recall`; `enriched`, the most enriched cluster (-1 for none),
        its `enriched_purity`, and `patches_as_good`, the share of draws of random patches of the same sizes that hold
        one at least as enriched.

    Raises:
        DataError: No class has 5 galaxies.
    """
    known = classes.notna().to_numpy()
    x, labels, classes = x[known], labels[known], classes[known]
    counts = classes.value_counts()
    names = sorted(counts[counts >= FEWEST].index)
    if not names:
        raise DataError(f"no class has {FEWEST} of the {len(x)} galaxies whose class is known")
    codes = classes.map({name: place for place, name in enumerate(names)}).fillna(-1).to_numpy(np.int64)
    rows = []
    for match in best_matches(codes, labels):
        positive = codes == match.label
        near, patches = neighbour_purity(x, positive), against_patches(x, labels, positive, draws, seed)
        rows.append(
            {
                "class": names[match.label],
                "galaxies": int(positive.sum()),
                "base_rate": float(positive.mean()),
                "neighbour_purity": near.value,
                "purity_low": near.low,
                "purity_high": near.high,
                "cluster": match.cluster,
                "jaccard": match.jaccard,
                "purity": match.purity,
                "recall": match.recall,
                "enriched": patches.cluster,
                "enriched_purity": patches.hits / patches.size if patches.size else np.nan,
                "patches_as_good": patches.share,
            }
        )
    return pd.DataFrame(rows)
