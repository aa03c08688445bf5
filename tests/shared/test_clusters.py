"""Agreement of clusters with classes: only points that either side assigns count."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, f1_score

from shared.metrics import adjusted_mutual_information, adjusted_rand, assigned, best_matches, macro_f1

RNG = np.random.default_rng(0)
CLASSES = np.where(RNG.random(400) < 0.8, -1, RNG.integers(0, 4, 400))
CLUSTERS = np.where(RNG.random(400) < 0.3, RNG.integers(-1, 5, 400), CLASSES)


def test_the_many_that_neither_side_assigns_change_nothing() -> None:
    more = np.full(5000, -1)
    for score, theirs in (
        (adjusted_rand, adjusted_rand_score),
        (adjusted_mutual_information, adjusted_mutual_info_score),
    ):
        keep = (CLASSES >= 0) | (CLUSTERS >= 0)
        expected = theirs(CLASSES[keep], CLUSTERS[keep])
        assert score(CLASSES, CLUSTERS) == pytest.approx(expected, abs=1e-12)
        assert score(np.append(CLASSES, more), np.append(CLUSTERS, more)) == pytest.approx(expected, abs=1e-12)
        assert abs(expected - theirs(CLASSES, CLUSTERS)) > 0.01  # over all points it is another number
    assert assigned([-1, 0, -1], [-1, -1, 3]).tolist() == [False, True, True]


def test_a_class_is_matched_by_jaccard_with_purity_and_recall() -> None:
    for match in best_matches(CLASSES, CLUSTERS):
        mine = match.label == CLASSES
        jaccard = {int(c): (mine & (c == CLUSTERS)).sum() / (mine | (c == CLUSTERS)).sum() for c in range(5)}
        assert match.cluster == max(jaccard, key=jaccard.get)
        assert match.jaccard == pytest.approx(jaccard[match.cluster])
        assert match.f1 == pytest.approx(f1_score(mine, match.cluster == CLUSTERS))
    assert macro_f1(CLASSES, CLUSTERS) == pytest.approx(np.mean([m.f1 for m in best_matches(CLASSES, CLUSTERS)]))


def test_nothing_assigned_is_said_and_a_class_without_a_cluster_scores_0() -> None:
    none = np.full(3, -1)
    assert np.isnan([adjusted_rand(none, none), macro_f1(none, none)]).all()
    (match,) = best_matches([0, 0, -1], none)
    assert (match.cluster, match.jaccard, match.f1) == (-1, 0, 0)
