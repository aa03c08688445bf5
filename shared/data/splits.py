"""Names of the usual splits, random splits by group, and seeded subsets."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "val", "test")
# Which rule draws a random split. 1: a generator goes through the rows, so the split depends on their order. 2: see
# `group_split`. A run that does not record the rule was trained on a split of rule 1.
SplitVersion = Literal[1, 2]
SPLIT_VERSION: SplitVersion = 2


def random_split(
    groups: Sequence[str],
    strata: Sequence[str | None],
    fractions: Sequence[float],
    seed: int,
    version: SplitVersion = SPLIT_VERSION,
) -> NDArray[np.int64]:
    """The part of every row in a random split by group, `(N,)`, by one of the rules of `SplitVersion`.

    Args:
        groups: Name of the group of every row, such as its patient; all rows of a group are in the same part.
        strata: What is to be in the same proportion in all parts, such as the class of every row. Rule 1 takes the
            stratum of a group's first row.
        fractions: Size of each part; they sum to 1.
        seed: The same seed gives the same split on every machine.
        version: The rule.

    Raises:
        ValueError: If the fractions are not positive or do not sum to 1.
    """
    if version == SPLIT_VERSION:
        return group_split(groups, strata, fractions, seed)
    first = {group: row for row, group in reversed(list(enumerate(groups)))}
    of_group = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    parts = stratified_split([strata[first[group]] for group in of_group], fractions, seed)
    return parts[[of_group[group] for group in groups]]


def _uniform(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone."""
    text = "\0".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Groups in an order that depends on their names and the seed alone."""
    return sorted(names, key=lambda name: (_uniform(seed, "group", name), name))


def group_split(
    groups: Sequence[str], strata: Sequence[str | None], fractions: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Split groups at random into parts of given fractions, each stratum by itself, whatever the order of the rows.

    Within a stratum the groups are sorted by a hash of their name and the seed, and cut at the cumulative fractions of
    their number. A row that is added or removed therefore moves at most its neighbours at a cut, and only if it makes
    or unmakes a group or changes its group's strata; every other group stays where it is. Every cut is rounded with an
    offset that depends on stratum and seed, so that many tiny strata still add up to the fractions over the whole set.

    Args:
        groups: Name of the group of every row.
        strata: What is to be in the same proportion in all parts. The stratum of a group is the set of those of its
            rows.
        fractions: Size of each part; they sum to 1.
        seed: The same seed gives the same split on every machine.

    Returns:
        The part of every row, `(N,)`, values `0 .. len(fractions) - 1`.

    Raises:
        ValueError: If the fractions are not positive or do not sum to 1.

    Example:
        >>> rows = [f"patient {row // 2}" for row in range(20)]
        >>> parts = group_split(rows, ["sick"] * 20, [0.8, 0.2], seed=0)
        >>> parts.tolist() == np.repeat(parts[::2], 2).tolist(), int((parts == 1).sum())
        (True, 4)
    """
    cuts = _cuts(fractions)
    strata_of: dict[str, set[str]] = {}
    for group, stratum in zip(groups, strata, strict=True):
        strata_of.setdefault(group, set()).add(str(stratum))
    members: dict[str, list[str]] = {}
    for group, found in strata_of.items():
        members.setdefault("\0".join(sorted(found)), []).append(group)
    part_of: dict[str, int] = {}
    for stratum, found_in in members.items():
        names = _shuffled(found_in, seed)
        bounds = np.floor(len(names) * cuts + max(1e-9, _uniform(seed, "stratum", stratum))).astype(int)
        part_of |= dict(zip(names, np.searchsorted(bounds, np.arange(len(names)), side="right").tolist(), strict=True))
    return np.array([part_of[group] for group in groups], dtype=np.int64)


def fold_split(groups: Sequence[str], fold: int, folds: int, validation: float, seed: int) -> NDArray[np.int64]:
    """One split of a cross-validation by group, whatever the order of the rows.

    The groups are sorted by a hash of their name and the seed, and cut into folds whose numbers of groups differ by at
    most one. Those of one fold are tested on, the ones that follow (after the last come the first) validated on.

    Args:
        groups: Name of the group of every row.
        fold: Which fold is tested on, from 0.
        folds: Number of folds; over all of them each group is tested on once.
        validation: Share of all groups to validate on, rounded, but at least one group.
        seed: The same seed gives the same folds on every machine.

    Returns:
        The part of every row, `(N,)`: 0 is trained, 1 validated and 2 tested on.

    Raises:
        ValueError: There is no such fold, or there are too few groups for one in each part.

    Example:
        >>> fold_split(list("abcabc"), fold=0, folds=3, validation=0.1, seed=0).tolist()
        [1, 0, 2, 1, 0, 2]
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be at least 0 and below the number of folds, got {fold} of {folds}")
    names = _shuffled(set(groups), seed)
    first, end = (number * len(names) // folds for number in (fold, fold + 1))
    validated = end + max(1, round(validation * len(names)))
    if first == end or validated - first >= len(names):
        raise ValueError(f"{len(names)} groups are too few for {folds} folds with some to validate and to train on")
    place = {name: (number - first) % len(names) for number, name in enumerate(names)}  # the tested ones come first
    places = np.array([place[group] for group in groups], dtype=np.int64)
    parts: NDArray[np.int64] = 2 - np.searchsorted([end - first, validated - first], places, side="right")
    return parts


def _cuts(fractions: Sequence[float]) -> NDArray[np.float64]:
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"split fractions must be at least 0 and sum to 1, got {list(fractions)}")
    return np.asarray(np.cumsum(fractions)[:-1], dtype=np.float64)


def stratified_split(strata: Sequence[object], fractions: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Rule 1 of `SplitVersion`: split items at random into parts of given fractions, each stratum by itself.

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
    cuts = _cuts(fractions)
    rng = np.random.default_rng(seed)
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


def _shuffled_classes(target: NDArray[np.int64], rows: NDArray[np.int64], seed: int) -> dict[int, NDArray[np.int64]]:
    """Each class's rows in a fixed random order, of which nested subsets are prefixes; label -1 is no class."""
    if len(np.unique(rows)) != len(rows) or (len(rows) and not 0 <= rows.min() <= rows.max() < len(target)):
        raise ValueError(f"rows must be distinct indices into the {len(target)} targets")
    rng = np.random.default_rng(seed)
    labels = target[rows]
    if not (labels >= 0).any():
        raise ValueError("no row has a label")
    return {int(label): rng.permutation(np.sort(rows[labels == label])) for label in np.unique(labels[labels >= 0])}


def nested_subsets(
    target: NDArray[np.int64],
    rows: NDArray[np.int64],
    fractions: Sequence[float] = (0.1, 0.01),
    seed: int = 0,
    min_per_class: int = 1,
) -> dict[float, NDArray[np.int64]]:
    """Stratified random subsets for low-data experiments, each wholly contained in every larger one.

    Args:
        target: Class of every sample, `(N,)`; -1 has no label and is never drawn.
        rows: Samples to draw from, `(R,)` indices into `target`, e.g. the training split.
        fractions: Share of each class's rows; 0.01 is a tenth of 0.1.
        seed: The same seed gives the same subsets on every machine.
        min_per_class: At least so many samples a class, or all it has.

    Returns:
        The chosen rows of every fraction, sorted.

    Raises:
        ValueError: If a fraction is not in (0, 1], `rows` are not distinct indices into `target`, or none is labelled.

    Example:
        >>> subsets = nested_subsets(np.repeat([0, 1], 100), np.arange(200))
        >>> {fraction: len(rows) for fraction, rows in subsets.items()}
        {0.1: 20, 0.01: 2}
        >>> set(subsets[0.01]) < set(subsets[0.1])
        True
    """
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must be above 0 and at most 1, got {list(fractions)}")
    classes = _shuffled_classes(target, rows, seed)
    # One offset a class for all fractions: the sizes then grow with the fraction, and many small classes still add up.
    offsets = np.random.default_rng((seed, 1)).uniform(1e-9, 1 - 1e-9, len(classes))
    return {
        fraction: np.sort(
            np.concatenate(
                [
                    members[: max(min_per_class, int(len(members) * fraction + offset))]
                    for members, offset in zip(classes.values(), offsets, strict=True)
                ]
            )
        )
        for fraction in fractions
    }


def labels_per_class(
    target: NDArray[np.int64], rows: NDArray[np.int64], counts: Sequence[int], seed: int = 0
) -> dict[int, NDArray[np.int64]]:
    """As `nested_subsets`, with exactly `count` samples of every class.

    Raises:
        ValueError: If a count is not positive or a class has fewer rows, or for `rows` as there.

    Example:
        >>> subsets = labels_per_class(np.array([0, 0, 0, 1, 1]), np.arange(5), counts=(1, 2))
        >>> [len(rows) for rows in subsets.values()], set(subsets[1]) < set(subsets[2])
        ([2, 4], True)
    """
    classes = _shuffled_classes(target, rows, seed)
    if min(counts) < 1:
        raise ValueError(f"counts must be positive, got {list(counts)}")
    for label, members in classes.items():
        if len(members) < max(counts):
            raise ValueError(f"class {label} has {len(members)} rows, fewer than the {max(counts)} labels asked for")
    return {count: np.sort(np.concatenate([members[:count] for members in classes.values()])) for count in counts}
