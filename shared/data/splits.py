"""Seeded splits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified_split(strata: Sequence[object], fractions: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Split items at random into parts of given fractions, each stratum by itself.

    Within a stratum the items are shuffled and cut at the cumulative fractions. Every cut is rounded with an
    offset drawn once per stratum, so that many tiny strata still add up to the fractions over the whole set.

    Args:
        strata: One hashable value an item, e.g. its class, or its set of labels.
        fractions: Size of each part; they sum to 1.
        seed: The same seed gives the same split on every machine.

    Returns:
        The part of every item, `(N,)`, values `0 .. len(fractions) - 1`.

    Raises:
        ValueError: If the fractions are not positive or do not sum to 1.

    Example:
        >>> parts = stratified_split(["a"] * 50 + ["b"] * 10, [0.8, 0.2], seed=0)
        >>> [int((parts[:50] == 1).sum()), int((parts[50:] == 1).sum())]
        [10, 2]
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"split fractions must be at least 0 and sum to 1, got {list(fractions)}")
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(fractions)[:-1]
    parts = np.empty(len(strata), dtype=np.int64)
    members: dict[object, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    for indices in members.values():
        order = rng.permutation(indices)
        # Stochastic rounding: floor(n * cut + u) has the expectation n * cut, and is exact where n * cut is whole.
        bounds = np.floor(len(order) * cuts + rng.uniform(1e-9, 1 - 1e-9)).astype(int)
        parts[order] = np.searchsorted(bounds, np.arange(len(order)), side="right")
    return parts
