"""Whether two encoders find the same clusters, beside what two unrelated clusterings of the same sizes share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from galaxy_clusters.evaluation import Labels
from shared.data.problems import DataError
from shared.metrics.clusters import adjusted_mutual_information, best_matches

DRAWS = 200


@dataclass(frozen=True)
class Agreement:
    """Two clusterings of the same galaxies.

    Attributes:
        information: Adjusted mutual information over the galaxies that either assigns; 1 for the same clusters. It
            is far above 0 by chance where few are assigned, since a galaxy that one side assigns is mostly one that
            the other does not, see `information_chance`.
        information_chance: Its mean between one clustering and the other with its galaxies exchanged at random.
        information_chance_95: The 95th percentile of that.
        jaccard: Mean over the first's clusters of the best Jaccard index, in [0, 1].
        jaccard_chance: Its mean under exchange.
        jaccard_chance_95: The 95th percentile of that.
        matches: A row a cluster of the first: `cluster`, `other` (the most similar of the second, -1 for none),
            `jaccard`, `purity` and `recall`, and `chance_95`, the 95th percentile of its Jaccard index under exchange.
    """

    information: float
    information_chance: float
    information_chance_95: float
    jaccard: float
    jaccard_chance: float
    jaccard_chance_95: float
    matches: pd.DataFrame


def agreement(one: Labels, other: Labels, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """Compare two clusterings with what chance would give.

    Args:
        one: Clusters `(N,)`.
        other: Clusters of the same galaxies from another encoder `(N,)`.
        draws: How often the galaxies of the second are exchanged, at least 1.
        seed: Of the exchanges.

    Raises:
        DataError: The two have other numbers of galaxies, or one of them has no cluster.
    """
    if len(one) != len(other):
        raise DataError(f"two clusterings of {len(one)} and {len(other)} galaxies: both must be of the same galaxies")
    if (one < 0).all() or (other < 0).all():
        raise DataError("a clustering without a cluster agrees with nothing: compare two that have some")
    rng = np.random.default_rng(seed)
    matches = best_matches(one, other)
    information, jaccards = np.empty(draws), np.empty((draws, len(matches)))
    for draw in range(draws):
        exchanged = rng.permutation(other)
        information[draw] = adjusted_mutual_information(one, exchanged)
        jaccards[draw] = [match.jaccard for match in best_matches(one, exchanged)]
    found = [match.jaccard for match in matches]
    table = pd.DataFrame(
        {
            "cluster": [match.label for match in matches],
            "other": [match.cluster for match in matches],
            "jaccard": found,
            "purity": [match.purity for match in matches],
            "recall": [match.recall for match in matches],
            "chance_95": np.quantile(jaccards, 0.95, axis=0),
        }
    )
    return Agreement(
        adjusted_mutual_information(one, other),
        float(information.mean()),
        float(np.quantile(information, 0.95)),
        float(np.mean(found)),
        float(jaccards.mean()),
        float(np.quantile(jaccards.mean(1), 0.95)),
        table,
    )
