"""Seeded splits by group, what leaks from part to part, and subsets: shares, nestedness, and splits written out."""

import logging
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from shared.data.groups import check_groups, group_codes, identical_across_parts
from shared.data.problems import DataError
from shared.data.splits import (
    SplitVersion,
    fold_split,
    group_split,
    labels_per_class,
    nested_subsets,
    random_split,
    stratified_split,
)

EXPECTED: dict[SplitVersion, list[int]] = {
    1: [2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0],
    2: [0, 1, 1, 0, 0, 2, 0, 0, 2, 1, 0],
}
BOTH_RULES = pytest.mark.parametrize("version", EXPECTED)


def numbered(count: int) -> list[str]:
    """Names of so many groups."""
    return [f"group {number}" for number in range(count)]


@BOTH_RULES
def test_one_small_split_stays_what_it_is(version: SplitVersion) -> None:
    groups, strata = list("ABCDEFGHIJK"), ["a"] * 6 + ["b"] * 4 + ["c"]
    assert random_split(groups, strata, (0.6, 0.2, 0.2), 42, version).tolist() == EXPECTED[version]
    assert random_split(groups, strata, (0.6, 0.2, 0.2), 43, version).tolist() != EXPECTED[version]


@BOTH_RULES
@pytest.mark.parametrize("seed", range(20))
def test_whole_shares_are_exact_in_every_stratum(seed: int, version: SplitVersion) -> None:
    strata = np.repeat(["x", "y", "z"], [100, 50, 25])
    rows = np.repeat(np.arange(175), 1 + np.arange(175) % 3)  # groups are counted, whatever the number of their rows
    groups = np.array(numbered(175))[rows]
    parts = random_split(groups.tolist(), strata[rows].tolist(), (0.72, 0.08, 0.2), seed, version)
    parts = parts[np.unique(rows, return_index=True)[1]]
    assert np.bincount(parts[strata == "x"]).tolist() == [72, 8, 20]
    assert np.bincount(parts[strata == "y"]).tolist() == [36, 4, 10]
    assert np.bincount(parts[strata == "z"]).tolist() == [18, 2, 5]


@BOTH_RULES
def test_a_share_is_never_off_by_more_than_the_rounding(version: SplitVersion) -> None:
    for size in range(1, 60):
        parts = random_split(numbered(size), ["x"] * size, (0.7, 0.1, 0.2), size, version)
        counts = np.bincount(parts, minlength=3)
        assert counts.sum() == size
        assert np.all(np.abs(counts - size * np.array([0.7, 0.1, 0.2])) < 1)


@BOTH_RULES
def test_tiny_strata_add_up_to_the_fractions(version: SplitVersion) -> None:
    names = numbered(6000)
    parts = random_split(names, names, (0.72, 0.08, 0.2), 0, version)  # every group its own stratum
    # Standard deviations of the three shares of 6000 draws: below 0.006.
    assert np.abs(np.bincount(parts) / 6000 - [0.72, 0.08, 0.2]).max() < 0.024


def test_a_stratum_does_not_depend_on_how_the_others_interleave() -> None:
    apart = stratified_split(["a"] * 10 + ["b"] * 10, (0.5, 0.5), seed=1)
    mixed = stratified_split(["a", "b"] * 10, (0.5, 0.5), seed=1)
    assert mixed[0::2].sum() == apart[:10].sum() == 5


@BOTH_RULES
@pytest.mark.parametrize(
    ("fractions", "shown"),
    [((0.5, 0.4), r"\[0\.5, 0\.4\]"), ((1.2, -0.2), r"\[1\.2, -0\.2\]"), ((0.5, 0.6), r"\[0\.5, 0\.6\]")],
)
def test_fractions_that_are_none_are_refused(fractions: tuple[float, ...], shown: str, version: SplitVersion) -> None:
    with pytest.raises(ValueError, match=rf"^split fractions must be at least 0 and sum to 1, got {shown}$"):
        random_split(["g"], ["a"], fractions, 0, version)


# --- by group ---

FRACTIONS = (0.6, 0.15, 0.25)


@pytest.fixture
def rows() -> tuple[list[str], list[str]]:
    """Groups and strata of 400 rows in random order: 150 groups, of which every tenth has rows of two strata."""
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.concatenate([np.arange(150), rng.integers(0, 150, 250)]))
    return [f"group {number}" for number in numbers], [
        "ab"[rng.integers(2)] if number % 10 == 0 else "aab"[number % 3] for number in numbers
    ]


def parts_of_groups(groups: list[str], strata: list[str], version: SplitVersion = 2, seed: int = 0) -> dict[str, int]:
    """The part of every group, which must be one."""
    found: dict[str, set[int]] = {}
    for group, part in zip(groups, random_split(groups, strata, FRACTIONS, seed, version).tolist(), strict=True):
        found.setdefault(group, set()).add(part)
    assert {len(parts) for parts in found.values()} == {1}
    return {group: part for group, (part,) in found.items()}


@BOTH_RULES
def test_a_group_is_never_divided_and_every_seed_gives_another_split(
    rows: tuple[list[str], list[str]], version: SplitVersion
) -> None:
    drawn = [parts_of_groups(*rows, version, seed) for seed in range(10)]
    assert len({tuple(parts.values()) for parts in drawn}) == 10
    assert all(set(parts.values()) == {0, 1, 2} for parts in drawn)


def test_the_order_of_the_rows_changes_nothing(rows: tuple[list[str], list[str]]) -> None:
    groups, strata = rows
    parts = group_split(groups, strata, FRACTIONS, seed=3)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(groups))
        shuffled = group_split([groups[row] for row in order], [strata[row] for row in order], FRACTIONS, seed=3)
        assert shuffled.tolist() == parts[order].tolist()


def test_a_group_that_is_removed_moves_at_most_one_neighbour_at_each_cut_of_its_stratum() -> None:
    groups, strata = numbered(150), ["x", "x", "y"] * 50
    before = parts_of_groups(groups, strata)
    counts: Counter[int] = Counter()
    for gone in range(150):
        kept = [row for row in range(150) if row != gone]
        after = parts_of_groups([groups[row] for row in kept], [strata[row] for row in kept])
        moved = [row for row in kept if after[groups[row]] != before[groups[row]]]
        assert {strata[row] for row in moved} <= {strata[gone]}
        counts[len(moved)] += 1
    assert set(counts) == {0, 1, 2}  # there are two cuts


def test_a_row_whose_group_has_others_of_its_stratum_can_be_removed_without_any_move(
    rows: tuple[list[str], list[str]],
) -> None:
    groups, strata = rows
    before = parts_of_groups(groups, strata)
    alike = Counter(zip(groups, strata, strict=True))
    spare = [row for row, pair in enumerate(zip(groups, strata, strict=True)) if alike[pair] > 1]
    assert len(spare) > 200
    for gone in spare[::10]:
        kept = [row for row in range(len(groups)) if row != gone]
        assert parts_of_groups([groups[row] for row in kept], [strata[row] for row in kept]) == before


def test_rule_1_splits_the_first_rows_of_the_groups(rows: tuple[list[str], list[str]]) -> None:
    groups, strata = rows
    first = {group: groups.index(group) for group in groups}
    parts = stratified_split([strata[row] for row in first.values()], FRACTIONS, seed=7)
    assert parts_of_groups(groups, strata, 1, 7) == dict(zip(first, parts.tolist(), strict=True))


# --- what leaks from part to part ---


def test_rows_of_an_unknown_group_are_groups_of_their_own() -> None:
    codes = group_codes(pd.Series([7, None, 7.0, "", " 7 ", float("nan"), "8", "  ", "7.0", "7.00", 7.5], dtype=object))
    assert codes.tolist() == [0, 5, 0, 7, 0, 9, 1, 11, 0, 2, 3]


REFUSED = (
    "Give all records of a {name} the same part (without a given split, the random one does), name another "
    "group_column, or accept it with --data.init_args.allow_shared_groups true"
)
SHARED: dict[str, tuple[str, list[Any], list[str], str]] = {
    "one": (
        "patient", ["x", "y", "x"], ["train", "train", "test"],
        "1 patient with 2 records are in several parts of the split (x: r0 in train, r2 in test)",
    ),
    "each part once": (
        "plant", ["x", "x", "x", "x", "y"], ["val", "train", "val", "test", "test"],
        "1 plant with 4 records are in several parts of the split (x: r0 in val, r1 in train, r3 in test)",
    ),
    "more than are shown": (
        "house", list("abcdabcde"), ["train"] * 4 + ["test"] * 5,
        "4 houses with 8 records are in several parts of the split (a: r0 in train, r4 in test; b: r1 in train, "
        "r5 in test; c: r2 in train, r6 in test; ...)",
    ),
    "as many as are shown": (
        "house", list("abcabcd"), ["train"] * 3 + ["val"] * 4,
        "3 houses with 6 records are in several parts of the split (a: r0 in train, r3 in val; b: r1 in train, "
        "r4 in val; c: r2 in train, r5 in val)",
    ),
    "a whole number": (
        "subject", [7, 8.5, 7.0, "7.0 "], ["train", "train", "test", "val"],
        "1 subject with 3 records are in several parts of the split (7: r0 in train, r2 in test, r3 in val)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "groups", "split", "said"), SHARED.values(), ids=list(SHARED))
def test_a_group_in_several_parts_is_refused_or_warned_of(
    name: str, groups: list[Any], split: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    column = pd.Series(groups, range(40, 40 + len(groups)), dtype=object, name=name)
    arguments = (np.array(split, dtype=object), column, [f"r{row}" for row in range(len(groups))], "record")
    said = f"{said}, so what is tested on was partly trained on"
    with pytest.raises(DataError) as caught:
        check_groups(*arguments)
    assert str(caught.value) == f"{said}. {REFUSED.format(name=name)}"
    assert caplog.record_tuples == []
    check_groups(*arguments, allow=True)
    assert caplog.record_tuples == [("shared.data.groups", logging.WARNING, f"{said} (allow_shared_groups)")]


@pytest.mark.parametrize("groups", [["a", "a", "b"], [None, "", ""], ["", "", None], [float("nan"), "b", float("nan")]])
def test_groups_in_one_part_and_unknown_ones_are_not_shared(
    groups: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    split = np.array(["train", "train", "test"], dtype=object)
    check_groups(split, pd.Series(groups, dtype=object, name="patient"), ["r0", "r1", "r2"], "record")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("content", "split", "said"),
    [
        ([1, 2, 3], ["train", "val", "test"], ""),
        ([1, 1, 2, 2], ["train", "train", "test", "test"], ""),
        ([5, 1, 5], ["train", "train", "test"], "2 have the same content as one in another part of the split: "
         "r0 (train) = r2 (test)"),
        ([5, 5, 1, 1, 5, 5], ["val", "val", "train", "train", "train", "test"],
         "4 have the same content as one in another part of the split: r0 (val) = r4 (train) = r5 (test)"),
        ([1, 2, 3, 1, 2, 3], ["train"] * 3 + ["test"] * 3, "6 have the same content as one in another part of the "
         "split: r0 (train) = r3 (test); r1 (train) = r4 (test); r2 (train) = r5 (test)"),
        ([9, 2, 3, 1, 9, 2, 3, 1], ["train"] * 4 + ["test"] * 4, "8 have the same content as one in another part of "
         "the split: r0 (train) = r4 (test); r1 (train) = r5 (test); r2 (train) = r6 (test); ..."),
    ],
)  # fmt: skip
def test_samples_with_the_content_of_one_in_another_part_are_named(
    content: list[int], split: list[str], said: str
) -> None:
    hashes: NDArray[np.uint64] = np.array(content, dtype=np.uint64) + np.uint64(2**63)
    names = [f"r{row}" for row in range(len(content))]
    assert identical_across_parts(np.array(split, dtype=object), hashes, names) == said


# --- subsets ---


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    """Labels of 600 samples, some without; 500 rows of them in random order; classes of very unequal size."""
    rng = np.random.default_rng(0)
    target = rng.choice([-1, 0, 1, 2, 7], size=600, p=[0.1, 0.5, 0.3, 0.08, 0.02])
    return target, rng.permutation(600)[:500]


@pytest.mark.parametrize("seed", range(5))
def test_subsets_are_nested_stratified_and_cover_every_class(seed: int, classes: tuple) -> None:
    target, rows = classes
    subsets = nested_subsets(target, rows, (0.01, 1.0, 0.3, 0.1), seed)
    assert list(subsets) == [0.01, 1.0, 0.3, 0.1]
    assert set(subsets[0.01]) < set(subsets[0.1]) < set(subsets[0.3]) < set(subsets[1.0])
    assert np.array_equal(subsets[1.0], np.sort(rows[target[rows] >= 0]))
    for fraction, subset in subsets.items():
        assert len(np.unique(subset)) == len(subset)
        for label in (0, 1, 2, 7):
            whole, drawn = (target[rows] == label).sum(), (target[subset] == label).sum()
            assert drawn >= 1
            assert drawn == 1 or abs(drawn - whole * fraction) < 1


def test_the_papers_balanced_low_data_sizes_come_out() -> None:
    for positives, sizes in ((1000, {0.1: 200, 0.01: 20}), (2000, {0.1: 400, 0.01: 40})):
        target = np.repeat([0, 1], positives)
        subsets = nested_subsets(target, np.arange(2 * positives), seed=5)
        assert {fraction: len(subset) for fraction, subset in subsets.items()} == sizes
        assert all(target[subset].mean() == 0.5 for subset in subsets.values())


def test_many_small_classes_add_up_to_the_fraction() -> None:
    target = np.repeat(np.arange(1000), 25)  # a tenth of 25 rounds to 2 or 3
    assert len(nested_subsets(target, np.arange(25000), (0.1,))[0.1]) == pytest.approx(2500, abs=80)  # 5 deviations


def test_a_smallest_number_a_class_is_kept_or_all_it_has() -> None:
    target = np.repeat([0, 1], [100, 2])
    subset = nested_subsets(target, np.arange(102), (0.01,), min_per_class=3)[0.01]
    assert np.bincount(target[subset]).tolist() == [3, 2]


def test_subsets_depend_on_the_seed_and_not_on_the_order_of_the_rows(classes: tuple) -> None:
    target, rows = classes
    once = nested_subsets(target, rows, (0.1,), seed=1)[0.1]
    assert np.array_equal(once, nested_subsets(target, rows[::-1], (0.1,), seed=1)[0.1])
    assert not np.array_equal(once, nested_subsets(target, rows, (0.1,), seed=2)[0.1])


def test_labels_per_class_are_exact_and_nested(classes: tuple) -> None:
    target, rows = classes
    subsets = labels_per_class(target, rows, (1, 3, 2), seed=1)
    for count, subset in subsets.items():
        assert np.unique(target[subset], return_counts=True)[1].tolist() == [count] * 4
        assert set(subset) <= set(rows)
    assert set(subsets[1]) < set(subsets[2]) < set(subsets[3])
    assert not np.array_equal(subsets[1], labels_per_class(target, rows, (1,), seed=2)[1])


def test_subsets_that_cannot_be_drawn_are_refused() -> None:
    target, rows = np.array([0, 0, 1, -1]), np.arange(4)
    with pytest.raises(ValueError, match=r"^fractions must be above 0 and at most 1, got \[0\.1, 0\]$"):
        nested_subsets(target, rows, (0.1, 0))
    with pytest.raises(ValueError, match=r"^counts must be positive, got \[0, 1\]$"):
        labels_per_class(target, rows, (0, 1))
    with pytest.raises(ValueError, match=r"^class 1 has 1 rows, fewer than the 2 labels asked for$"):
        labels_per_class(target, rows, (1, 2))
    with pytest.raises(ValueError, match=r"^no row has a label$"):
        nested_subsets(target, rows[3:])
    for wrong in (np.array([1, 1]), np.array([-1]), np.array([4])):
        with pytest.raises(ValueError, match=r"^rows must be distinct indices into the 4 targets$"):
            nested_subsets(target, wrong)


def test_over_the_folds_each_group_is_tested_once_and_the_order_of_rows_does_not_matter() -> None:
    rows = np.arange(66) % 33
    groups = np.array(numbered(33))[rows].tolist()
    tested = np.zeros(66, dtype=int)
    for fold in range(4):
        parts = fold_split(groups, fold, 4, 0.1, seed=2)
        assert parts[:33].tolist() == parts[33:].tolist()  # both rows of a group
        assert np.bincount(parts[:33])[1:].tolist() in ([3, 8], [3, 9])
        order = np.random.default_rng(fold).permutation(66)
        assert fold_split([groups[row] for row in order], fold, 4, 0.1, seed=2).tolist() == parts[order].tolist()
        tested += parts == 2
    assert tested.tolist() == [1] * 66
    assert fold_split(groups, 0, 4, 0.1, seed=3).tolist() != fold_split(groups, 0, 4, 0.1, seed=2).tolist()


def test_a_fold_validates_on_one_group_at_least_and_trains_on_one() -> None:
    for fold in range(3):
        assert sorted(fold_split(list("abc"), fold, 3, 0.0, seed=0).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "fold", "folds", "said"),
    [
        (9, 3, 3, "fold must be at least 0 and below the number of folds, got 3 of 3"),
        (9, -1, 3, "fold must be at least 0 and below the number of folds, got -1 of 3"),
        (2, 0, 3, "2 groups are too few for 3 folds with some to validate and to train on"),
        (2, 0, 2, "2 groups are too few for 2 folds with some to validate and to train on"),
    ],
)
def test_folds_that_cannot_be_are_refused(count: int, fold: int, folds: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        fold_split(numbered(count), fold, folds, 0.1, seed=0)
