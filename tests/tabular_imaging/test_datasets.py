"""The data sets: roles, splits and groups of a CSV, messages for bad ones, DVM-car and the cardiac form end to end."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonargparse import ArgumentParser
from PIL import Image

from shared.data.problems import DataError
from shared.data.splits import SPLITS, stratified_split
from tabular_imaging import CardiacDataModule, DVMCarDataModule, ImageTableDataModule
from tabular_imaging.data.dvm import dvm_frame
from tabular_imaging.data.dvm_tables import FEATURES, MORPHOMETRIC
from tabular_imaging.data.schema import ColumnTypes, Schema

HINT = "(on_error: skip would leave it out and list it)"
SPECIES = ("2", "10", "30", "31")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """40 SYNTHETIC leaves in `set`: 4 species with 10 each, and a table of them."""
    root = tmp_path / "set"
    (root / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for row in range(40):
        Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(root / "pictures" / f"{row}.png")
    leaves = pd.DataFrame(
        {
            "leaf": [f"s{row}" for row in range(40)],
            "photo": [f"pictures/{row}.png" for row in range(40)],
            "length": rng.normal(40, 9, 40),
            "colour": rng.choice(["red", "green"], 40),
            "Species": [int(SPECIES[row % 4]) for row in range(40)],
        }
    )
    leaves.to_csv(root / "leaves.csv", index=False)
    return root


def module(root: Path, /, **arguments: Any) -> ImageTableDataModule:
    given = {"csv": str(root / "leaves.csv"), "cache_px": 6, "channels": 1, "batch_size": 4}
    return ImageTableDataModule(**given | {"cache_dir": str(root.parent / "cache")} | arguments)


def ready(folder: Path, /, **arguments: Any) -> ImageTableDataModule:
    data = module(folder, **arguments)
    data.prepare_data()
    data.setup()
    return data


def edit(root: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    table = pd.read_csv(root / "leaves.csv")
    changed = change(table)
    (table if changed is None else changed).to_csv(root / "leaves.csv", index=False)


def put(column: str, values: dict[int, Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Sets cells, whatever the column's type."""
    return lambda table: table.assign(
        **{column: [values.get(row, value) for row, value in enumerate(table[column].astype(object))]}
    )


def message(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(DataError) as caught:
        function(*arguments, **named)
    return str(caught.value)


def skipped(root: Path) -> list[list[str]]:
    """What the newest cache lists."""
    listed = max(root.parent.glob("cache/*/*/skipped.csv"), key=lambda path: path.stat().st_mtime_ns)
    return pd.read_csv(listed).values.tolist()


# --- a CSV: which column is what ---


def test_roles_are_inferred_and_said_in_the_log(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tabular_imaging.data.image_table"):
        data = ready(root)
    columns = "columns of image: photo, id: none, target: Species, split: none, group: none"
    assert caplog.messages[0] == f"{root / 'leaves.csv'}: 40 rows; {columns}"
    assert data.target_column == data.schema.target == "Species"
    assert data.schema.names == ("length", "colour")  # the leaves' names are taken for identifiers
    assert data.classes == list(SPECIES)
    assert data.target.tolist() == [row % 4 for row in range(40)]
    assert data.frame["id"].tolist() == [f"pictures/{row}.png" for row in range(40)]
    assert data.frame["image"].tolist() == [str(root / "pictures" / f"{row}.png") for row in range(40)]


def test_without_a_target_the_log_says_what_could_be_one(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(root, lambda table: table.rename(columns={"Species": " fruit "}))
    assert ready(root).schema.names == ("length", "colour", "fruit")
    assert "there is no target and nothing to evaluate; if one of leaf, length, colour, fruit is the" in caplog.text
    caplog.clear()
    assert ready(root, target="fruit").classes == list(SPECIES)
    assert not caplog.messages or "no target" not in caplog.text


def test_a_target_that_is_measured_or_always_the_same_is_none(root: Path) -> None:
    assert message(ready, root, target="length") == (
        f"{root / 'leaves.csv'}: the target length has 40 different numbers in 40 rows, so it looks like a "
        "measurement, but the target must be a class: name another target, or group its values into classes first"
    )
    edit(root, lambda table: table.assign(Species="oak"))
    assert (
        message(ready, root) == f"{root / 'leaves.csv'}: the target Species is oak in every row; it needs two classes"
    )


def test_identifiers_stay_as_they_are_written(root: Path) -> None:
    edit(root, lambda table: table.assign(leaf=[f"{row:04d}" for row in range(40)]))
    assert ready(root, id_column="leaf").frame["id"].tolist() == [f"{row:04d}" for row in range(40)]


@pytest.mark.parametrize("name", ["id", "ID", " Id"])
def test_identifiers_keep_their_zeros_however_the_column_is_called(root: Path, name: str) -> None:
    edit(root, lambda table: table.assign(leaf=[f"{row:03d}" for row in range(40)]).rename(columns={"leaf": name}))
    assert ready(root).frame["id"].tolist() == [f"{row:03d}" for row in range(40)]


def test_classes_that_are_numbers_may_have_a_gap(root: Path) -> None:
    """Pandas reads whole numbers with a gap as floats: 13 numbers in 39 rows are classes all the same."""
    edit(root, lambda table: table.assign(Species=[*(row // 3 for row in range(39)), None]))
    assert ready(root).classes == [str(number) for number in range(13)]


def test_a_share_of_labels_needs_no_label(root: Path) -> None:
    edit(root, lambda table: table.drop(columns="Species"))
    assert ready(root, label_fraction=0.5).classes == []


def test_a_table_smaller_than_a_batch_is_trained_on_whole(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ready(root, batch_size=128)
    (batch,) = data.train_dataloader()
    assert sorted(batch.row.tolist()) == data.rows("train", "pretrain").tolist()
    count = len(batch.row)
    assert f"{count} training samples do not fill a batch of 128: each step takes all of them" in caplog.messages


def test_common_names_are_recognised_in_any_case(root: Path) -> None:
    names = {"leaf": "ID", "Species": "Label"}
    edit(root, lambda table: table.rename(columns=names).assign(Split=["train"] * 24 + ["val"] * 8 + ["test"] * 8))
    data = ready(root)
    assert data.frame["id"].tolist() == [f"s{row}" for row in range(40)]
    assert data.target_column == "Label"
    assert data.split.tolist() == ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    assert list(data.frame.columns) == ["id", "image", "split", "length", "colour", "Label"]


def test_given_roles_come_before_inference(root: Path) -> None:
    edit(root, lambda table: table.assign(id=range(40), second=table["photo"][::-1].to_numpy(), fold="train"))
    data = ready(root, image_column="second", id_column="id", target="colour", split_column="fold", on_error="skip")
    assert data.classes == ["green", "red"]
    assert data.frame["id"].tolist() == [str(row) for row in range(40)]
    assert data.frame["image"].tolist() == [str(root / "pictures" / f"{39 - row}.png") for row in range(40)]
    assert set(data.split) == {"train"}
    assert data.schema.names == ("length", "Species")


def test_the_csv_is_under_a_given_root_and_pictures_are_too(root: Path, tmp_path: Path) -> None:
    (root / "tables").mkdir()
    (root / "leaves.csv").rename(root / "tables" / "leaves.csv")
    data = ready(root, csv="tables/leaves.csv", root=str(root))
    assert data.frame["image"][3] == str(root / "pictures" / "3.png")
    assert message(ready, root, csv=str(root / "tables" / "leaves.csv")).startswith(
        f"pictures/0.png: no image file {root / 'tables' / 'pictures' / '0.png'} "
    )


def test_several_or_no_columns_of_pictures_ask_which(root: Path) -> None:
    suffixes = ".jpg, .jpeg, .png, .webp, .tif, .tiff, .bmp, .npy"
    ask = f"image paths ({suffixes}); say which with --data.init_args.image_column NAME"
    edit(root, lambda table: table.assign(second=table["photo"].str.upper()))
    assert message(ready, root) == f"{root / 'leaves.csv'}: the columns photo, second hold {ask}"
    edit(root, lambda table: table.drop(columns=["photo", "second"]))
    assert message(ready, root) == f"{root / 'leaves.csv'}: no column holds {ask}"


def test_two_columns_that_could_be_the_target_ask_which(root: Path) -> None:
    edit(root, lambda table: table.assign(label=table["Species"]))  # as a feature it would give the class away
    assert message(ready, root) == (
        f"{root / 'leaves.csv'}: Species and label could each be the target; say which with --data.init_args.target "
        "NAME, and list the other under columns.ignored"
    )


def test_a_named_column_that_is_absent_gets_a_hint(root: Path) -> None:
    assert message(ready, root, target="species") == (
        f"{root / 'leaves.csv'} has no column species (target); did you mean Species?"
    )
    assert message(ready, root, group_column="lenght") == (
        f"{root / 'leaves.csv'} has no column lenght (group); did you mean length?"
    )
    assert message(ready, root, id_column="number") == (
        f"{root / 'leaves.csv'} has no column number (id); it has leaf, photo, length, colour, Species"
    )


@pytest.mark.parametrize("name", ["id", "image", "split"])
def test_a_column_called_as_one_of_ours_beside_the_one_in_use_is_refused(root: Path, name: str) -> None:
    edit(root, lambda table: table.assign(**{name: range(40), "fold": "train"}))
    assert message(ready, root, id_column="leaf", split_column="fold", image_column="photo") == (
        f"{root / 'leaves.csv'} has a column {name} beside the one used for that; rename it"
    )


# --- a CSV: splits ---


def test_the_random_split_is_stratified_and_hangs_on_its_seed_alone(root: Path) -> None:
    first, again = ready(root, fractions=(0.7, 0.1, 0.2)), ready(root, fractions=(0.7, 0.1, 0.2), seed=8)
    assert first.split.tolist() == again.split.tolist()
    for label in range(4):
        assert Counter(first.split[first.target == label]) == {"train": 7, "val": 1, "test": 2}
    other = ready(root, fractions=(0.7, 0.1, 0.2), split_seed=1)
    assert other.split.tolist() != first.split.tolist()
    edit(root, lambda table: table.drop(columns="colour"))
    assert ready(root, fractions=(0.7, 0.1, 0.2)).split.tolist() == first.split.tolist()
    assert message(module, root, fractions=(0.8, 0.2)) == (
        "fractions: expected a share of train, val and test, got [0.8, 0.2]"
    )


def test_a_split_column_holds_train_val_or_test_and_samples_without_label_train(root: Path) -> None:
    splits = ["train", "train", "val", "test"] * 10
    edit(root, lambda table: table.assign(split=splits, Species=[row // 10 for row in range(40)]))
    edit(root, put("split", {2: None, 39: "test "}))
    assert message(ready, root) == (
        f"{root / 'leaves.csv'}: column split, row 4: '' is not train, val or test (rows of that kind: 1)"
    )
    edit(root, put("Species", {2: None, 3: None}))
    data = ready(root)
    assert data.split[:4].tolist() == ["train", "train", "train", "test"]
    assert data.split[39] == "test"
    assert data.rows("train", "evaluate")[:3].tolist() == [0, 1, 4]
    assert data.rows("test", "evaluate")[0] == 7
    edit(root, put("split", {7: "validation"}))
    assert message(ready, root) == (
        f"{root / 'leaves.csv'}: column split, row 9: 'validation' is not train, val or test (rows of that kind: 1)"
    )


def test_samples_without_label_train_in_a_random_split(root: Path) -> None:
    unlabelled = list(range(0, 40, 3))
    edit(root, put("Species", dict.fromkeys(unlabelled)))
    data = ready(root, fractions=(0.4, 0.3, 0.3))
    assert set(data.split[unlabelled]) == {"train"}
    assert set(data.target[unlabelled]) == {-1}
    assert set(data.rows("train", "pretrain")) > set(unlabelled)
    assert not set(data.rows("train", "evaluate")) & set(unlabelled)
    assert data.classes == list(SPECIES)


def write_more(root: Path, **columns: Any) -> None:
    more = {"leaf": [f"u{row}" for row in range(5)], "photo": [f"pictures/{row}.png" for row in range(5)]}
    numbers = {"length": np.arange(5.0), "colour": "red"}
    pd.DataFrame(more | numbers | columns).to_csv(root / "more.csv", index=False)


@pytest.mark.parametrize("target", ["Species", None])
def test_an_unlabelled_table_joins_the_training_and_no_evaluation(root: Path, target: str | None) -> None:
    write_more(root)
    if target is None:
        edit(root, lambda table: table.drop(columns="Species"))
    alone = ready(root, id_column="leaf")
    data = ready(root, id_column="leaf", unlabelled_csv="more.csv")
    assert data.frame["id"].tolist() == [*(f"s{row}" for row in range(40)), *(f"u{row}" for row in range(5))]
    assert data.split.tolist() == alone.split.tolist() + ["train"] * 5
    assert data.target.tolist() == alone.target.tolist() + [-1] * 5
    assert set(data.rows("train", "pretrain")) > set(range(40, 45))
    evaluated = [row for split in ("train", "val", "test") for row in data.rows(split, "evaluate")]
    assert sorted(evaluated) == (list(range(40)) if target else [])
    assert data.classes == (list(SPECIES) if target else [])


def test_an_unlabelled_table_joins_a_table_with_a_split_column(root: Path) -> None:
    write_more(root)
    edit(root, lambda table: table.drop(columns="Species").assign(split=["train", "val"] * 20))
    data = ready(root, id_column="leaf", unlabelled_csv="more.csv")
    assert data.split.tolist() == ["train", "val"] * 20 + ["train"] * 5


def test_an_unlabelled_table_that_does_not_fit_is_refused(root: Path) -> None:
    write_more(root, Species=2)
    more = root / "more.csv"
    assert message(ready, root, unlabelled_csv="more.csv") == (
        f"{more} has the target column Species; join the two files instead"
    )
    pd.DataFrame({"picture": ["pictures/1.png"]}).to_csv(more, index=False)
    assert message(ready, root, unlabelled_csv="more.csv") == (
        f"{more} has no column photo (image), which {root / 'leaves.csv'} has"
    )
    pd.DataFrame({"photo": ["pictures/1.png"]}).to_csv(more, index=False)
    assert message(ready, root, unlabelled_csv="more.csv", id_column="leaf") == (
        f"{more} has no column leaf (id), which {root / 'leaves.csv'} has"
    )
    more.unlink()
    assert message(ready, root, unlabelled_csv="more.csv") == f"no file {more}"
    write_more(root, leaf=["u0", "u1", "s1", "u3", "u4"])
    assert message(ready, root, unlabelled_csv="more.csv", id_column="leaf") == (
        f"s1: row 4 of {more}: this id occurs a second time {HINT}"
    )


# --- a CSV: groups ---

IN_FIFTHS = {"id_column": "leaf", "fractions": (0.6, 0.2, 0.2)}


def add_plants(root: Path, name: str = "plant") -> None:
    """Two leaves each of 20 plants, `p<species><number>`: rows 0 and 4 are of the first plant."""
    edit(root, lambda table: table.assign(**{name: [f"p{row % 4}{row // 8}" for row in range(40)]}))


def parts_by_leaf(data: ImageTableDataModule) -> dict[str, str]:
    return dict(zip(data.frame["id"], data.split, strict=True))


@pytest.mark.parametrize(("name", "given"), [("plant", None), ("Specimen-ID", None), ("house", "house")])
def test_no_group_is_divided_by_the_random_split_and_none_is_a_feature(
    root: Path, name: str, given: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    add_plants(root, name)
    with caplog.at_level(logging.INFO):
        data = ready(root, group_column=given, **IN_FIFTHS)
    inferred = (
        f"{root / 'leaves.csv'}: rows with the same {name} belong together and stay in one part of the split "
        "(--data.init_args.group_column names another column, or the one of the ids to keep no rows together)"
    )
    assert (inferred in caplog.messages) == (given is None)
    columns = f"image: photo, id: leaf, target: Species, split: none, group: {name}"
    assert f"{root / 'leaves.csv'}: 40 rows; columns of {columns}" in caplog.messages
    assert data.group_name == name
    assert data.schema.names == ("length", "colour")
    assert data.groups.tolist() == [4 * (row // 8) + row % 4 for row in range(40)]
    for row in range(0, 40, 8):
        assert data.split[row : row + 4].tolist() == data.split[row + 4 : row + 8].tolist()
    for label in range(4):
        assert Counter(data.split[data.target == label]) == {"train": 6, "val": 2, "test": 2}


def test_the_random_split_is_the_same_in_any_order_of_the_rows(root: Path) -> None:
    add_plants(root)
    parts = parts_by_leaf(ready(root, **IN_FIFTHS))
    edit(root, lambda table: table.sample(frac=1, random_state=0))
    shuffled = ready(root, **IN_FIFTHS)
    assert shuffled.frame["id"].tolist() != list(parts)
    assert parts_by_leaf(shuffled) == parts


@pytest.mark.parametrize("roles", [{"id_column": "leaf", "group_column": "leaf"}, {"group_column": "photo"}])
def test_the_column_of_the_ids_makes_every_sample_its_own_group(root: Path, roles: dict[str, str]) -> None:
    alone = ready(root, **roles | {"group_column": None}).split.tolist()
    add_plants(root)
    data = ready(root, **roles)
    assert data.group_name is None
    assert data.groups.tolist() == list(range(40))
    assert data.split.tolist() == alone


def test_a_sample_whose_group_is_not_recorded_is_its_own(root: Path) -> None:
    add_plants(root)
    edit(root, put("plant", {0: None, 4: None, 1: "  ", 13: " "}))
    data = ready(root, **IN_FIFTHS)
    assert data.frame["plant"].iloc[[0, 1, 4, 5, 13]].fillna("").str.strip().tolist() == ["", "", "", "p10", ""]
    assert Counter(Counter(data.groups.tolist()).values()) == {1: 6, 2: 17}


def test_groups_that_differ_in_blanks_are_one_and_an_id_is_not_the_name_of_a_group(root: Path) -> None:
    """A split that the rule drew was refused by the check, which reads `p00 ` as p00."""
    add_plants(root)
    edit(root, lambda table: table.assign(leaf=[f"p{row}" for row in range(40)]))
    edit(root, put("plant", {4: "p00 ", 7: None, 8: "p7"}))
    data = ready(root, **IN_FIFTHS)
    assert data.split[0] == data.split[4]
    assert data.groups[0] == data.groups[4]
    assert data.groups[7] != data.groups[8]  # the leaf p7 is not one of the plant p7


def test_samples_without_label_go_where_the_labelled_ones_of_their_group_are(root: Path) -> None:
    add_plants(root)
    followers, alone = [4, 5, 6, 7, 12, 13, 14, 15], list(range(32, 40))
    edit(root, put("Species", dict.fromkeys(followers + alone)))
    data = ready(root, **IN_FIFTHS)
    assert data.split[followers].tolist() == data.split[[row - 4 for row in followers]].tolist()
    assert set(data.split[followers]) == {"train", "val", "test"}
    assert set(data.split[alone]) == {"train"}
    parts = parts_by_leaf(data)
    of_part = {part: data.frame["plant"][data.split == part].iloc[0] for part in SPLITS}
    write_more(root, plant=[*of_part.values(), "p99", None])
    more = parts_by_leaf(ready(root, unlabelled_csv="more.csv", **IN_FIFTHS))
    assert more == parts | dict(zip([f"u{row}" for row in range(5)], [*SPLITS, "train", "train"], strict=True))
    edit(root, lambda table: table.drop(index=followers + alone))  # the others are split as if these were not there
    without = parts_by_leaf(ready(root, **IN_FIFTHS))
    assert without == {leaf: part for leaf, part in parts.items() if leaf in without}
    assert len(without) == 24


def test_a_group_in_several_parts_of_a_given_split_is_refused_or_on_request_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_plants(root)
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    edit(root, lambda table: table.assign(split=splits))
    assert ready(root, id_column="leaf").split.tolist() == splits
    edit(root, put("split", {4: "test", 30: "train"}))
    said = (
        "2 plants with 4 samples are in several parts of the split (p00: s0 in train, s4 in test; p23: s26 in val, s30 "
        "in train), so what is tested on was partly trained on"
    )
    assert message(ready, root, id_column="leaf") == (
        f"{said}. Give all samples of a plant the same part (without a given split, the random one does), name another "
        "group_column, or accept it with --data.init_args.allow_shared_groups true"
    )
    assert f"{said} (allow_shared_groups)" not in caplog.messages
    data = ready(root, id_column="leaf", allow_shared_groups=True)
    assert f"{said} (allow_shared_groups)" in caplog.messages
    assert data.split[[0, 4, 26, 30]].tolist() == ["train", "test", "val", "train"]


def test_samples_with_neither_label_nor_entry_take_the_part_of_their_group_in_a_given_split(root: Path) -> None:
    add_plants(root)
    edit(root, lambda table: table.assign(split=["train"] * 24 + ["val"] * 8 + ["test"] * 8))
    edit(root, put("Species", dict.fromkeys([0, 28, 35, 36, 33, 37])))
    edit(root, put("split", dict.fromkeys([0, 28, 36, 33, 37])))
    edit(root, put("plant", {0: None}))
    data = ready(root, id_column="leaf")
    # Row 35 has an entry and no label; 33 and 37 are a plant without any entry.
    assert data.split[[0, 28, 35, 36, 33, 37]].tolist() == ["train", "val", "test", "test", "train", "train"]
    assert data.split[39] == "test"


def test_the_same_picture_in_several_parts_is_warned_of(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(root, lambda table: table.assign(split=["train"] * 24 + ["val"] * 8 + ["test"] * 8))
    for copy in (1, 39):
        shutil.copy(root / "pictures" / "0.png", root / "pictures" / f"{copy}.png")
    shutil.copy(root / "pictures" / "5.png", root / "pictures" / "6.png")
    ready(root, id_column="leaf")
    assert (
        f"samples of {root}: 3 have the same content as one in another part of the split: s0 (train) = s39 (test)"
        in caplog.messages
    )


def test_rule_1_gives_the_split_of_earlier_runs_which_knew_no_groups(root: Path) -> None:
    add_plants(root)
    unlabelled = [3, 4, 20, 33]
    edit(root, put("Species", dict.fromkeys(unlabelled)))
    data = ready(root, split_version=1)
    assert data.group_name is None
    assert data.schema.names == ("length", "colour", "plant")
    strata = [None if row in unlabelled else SPECIES[row % 4] for row in range(40)]
    expected = np.array(SPLITS)[stratified_split(strata, (0.7, 0.15, 0.15), 0)]
    expected[unlabelled] = "train"
    assert data.split.tolist() == expected.tolist()
    given = ready(root, split_version=1, group_column="plant")
    assert given.group_name == "plant"
    assert given.split[[0, 1, 2]].tolist() == given.split[[4, 5, 6]].tolist()


# --- a CSV: bad rows ---


def outside(root: Path) -> str:
    (root.parent / "secret.png").write_bytes((root / "pictures" / "0.png").read_bytes())
    return f"leads out of the data's root {root}: give a path within it, or another root"


BAD_ROWS: dict[str, tuple[str, Any, str, str]] = {
    "twice": ("leaf", "s4", "s4", "this id occurs a second time"),
    "no id": ("leaf", None, "no id", "it has no id"),
    "no path": ("photo", None, "s6", "it has no image path"),
    "up": ("photo", "../secret.png", "s6", "'../secret.png' OUT"),
    "rare": ("Species", 77, "s6", "class 77 has 1 of the 3 samples that it needs"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_refused_or_skipped_and_listed(root: Path, case: str) -> None:
    column, value, name, reason = BAD_ROWS[case]
    reason = reason.replace("OUT", outside(root))
    edit(root, put(column, {6: value}))
    said = f"row 8 of {root / 'leaves.csv'}: {reason}"
    assert message(ready, root, id_column="leaf") == f"{name}: {said} {HINT}"
    data = ready(root, id_column="leaf", on_error="skip")
    assert data.frame["id"].tolist() == [f"s{row}" for row in range(40) if row != 6]
    assert data.target.tolist() == [row % 4 for row in range(40) if row != 6]
    assert data.array.shape == (39, 1, 6, 6)
    assert skipped(root) == [[name, said]]


def test_a_link_out_of_the_root_is_refused(root: Path) -> None:
    reason = outside(root)
    (root / "pictures" / "6.png").unlink()
    (root / "pictures" / "6.png").symlink_to(root.parent / "secret.png")
    assert message(ready, root, id_column="leaf").startswith(
        f"s6: row 8 of {root / 'leaves.csv'}: 'pictures/6.png' {reason}"
    )


def test_the_rows_of_the_table_and_the_pictures_share_one_list(root: Path) -> None:
    edit(root, put("leaf", {6: "s4"}))
    (root / "pictures" / "9.png").unlink()
    data = ready(root, id_column="leaf", on_error="skip")
    assert skipped(root) == [
        ["s4", f"row 8 of {root / 'leaves.csv'}: this id occurs a second time"],
        ["s9", f"no image file {root / 'pictures' / '9.png'}"],
    ]
    kept = [row for row in range(40) if row not in (6, 9)]
    for batch in data.predict_dataloader():
        for place, row in enumerate(batch.row.tolist()):
            picture = np.asarray(Image.open(root / "pictures" / f"{kept[row]}.png"))
            np.testing.assert_array_equal(batch.image[place, 0], picture)


def test_a_small_class_is_enough_where_the_splits_are_given(root: Path) -> None:
    edit(root, put("Species", {4: 77, 7: 77}))
    edit(root, lambda table: table.assign(split=["train"] * 24 + ["val"] * 8 + ["test"] * 8))
    data = ready(root)
    assert data.classes == [*SPECIES, "77"]
    assert data.target[[4, 7]].tolist() == [4, 4]


def test_a_class_that_bad_rows_leave_too_small_is_skipped_too(root: Path) -> None:
    edit(root, put("Species", {0: 77, 1: 77, 2: 77}))
    edit(root, put("photo", {1: None}))
    ready(root, id_column="leaf", on_error="skip")
    small = "class 77 has 2 of the 3 samples that it needs"
    place = f"of {root / 'leaves.csv'}:"
    assert skipped(root) == [
        ["s0", f"row 2 {place} {small}"],
        ["s1", f"row 3 {place} it has no image path"],
        ["s2", f"row 4 {place} {small}"],
    ]


def test_a_file_that_is_no_table_is_named(root: Path) -> None:
    path = root / "leaves.csv"
    for content, said in (
        (b"", f"{path} cannot be read as CSV (No columns to parse from file)"),
        (b"leaf,photo\n", f"{path} has no row"),
        (b"\xff\xfe\x00", f"{path} is not in UTF-8 ('utf-8' codec can't decode byte 0xff in position 0"),
        (b"leaf;photo\n1;a.png\n", f"{path} is separated by ';': save it with commas between the columns"),
        (b"leaf\tphoto\n1\ta.png\n", f"{path} is separated by '\\t': save it with commas between the columns"),
        (b"size,photo, size\n1,a.png,2\n", f"{path} has two columns called size; rename one"),
        (b'a,b\n1,2\n1,2,3,4\n"', f"{path} cannot be read as CSV (Error tokenizing data."),
    ):
        path.write_bytes(content)
        assert message(ready, root).startswith(said)
    path.unlink()
    assert message(ready, root) == f"no file {path}"
    path.mkdir()
    assert message(ready, root).startswith(f"{path} cannot be read as CSV ([Errno 21] Is a directory")


def test_no_row_left_says_why(root: Path) -> None:
    edit(root, lambda table: table.assign(photo="pictures/x.png"))
    said = message(ready, root, image_column="photo", on_error="skip")
    assert said.startswith(
        f"no sample found for ImageTableDataModule under {root} (40 samples skipped: pictures/x.png "
    )
    edit(root, lambda table: table.assign(photo=[f"pictures/x{row}.png" for row in range(40)]))
    said = message(ready, root, on_error="skip")
    assert said.startswith(f"no sample is left under {root} (40 samples skipped: pictures/x0.png ")
    edit(root, lambda table: table.assign(photo="../x.png"))
    said = message(ready, root, id_column="leaf", on_error="skip")
    assert said.startswith(f"no sample found for ImageTableDataModule under {root} (40 samples skipped: s0 (row 2 of")


# --- settings, and what a run keeps ---

DEFAULTS: dict[str, Any] = {
    "root": None, "cache_px": 300, "channels": 3, "fit": "stretch", "batch_size": 512, "metric": "accuracy",
    "label_fraction": 1.0, "on_error": "raise", "cache_dir": "data/cache", "num_workers": 0, "seed": 0,
    "allow_shared_groups": False,
}  # fmt: skip
OF_A_CSV = ("csv", "unlabelled_csv", "image_column", "id_column", "target", "split_column", "group_column", "columns")


@pytest.mark.parametrize(
    ("kind", "defaults", "fixed"),
    [
        (ImageTableDataModule, dict.fromkeys(OF_A_CSV) | {"fractions": (0.7, 0.15, 0.15), "split_seed": 0,
                                "split_version": 2, "cache_px": 160, "fit": "pad", "batch_size": 128}, ()),
        (DVMCarDataModule, {"image": "first", "min_per_class": 100, "splits": None, "split_seed": 2022,
                              "split_version": 1}, ()),
        (CardiacDataModule, {"disease": "infarction", "fields": None, "icd10": None, "splits": None, "balanced": True,
                             "split_seed": 2022, "split_version": 2, "cache_px": 210, "channels": 2, "metric": "auroc",
                             "min_coverage": 0.8, "on_error": "skip"}, ("fit",)),
    ],
)  # fmt: skip
def test_the_parser_finds_every_argument_with_its_default(
    kind: type[Any], defaults: dict[str, Any], fixed: tuple[str, ...]
) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "data")
    expected = {key: value for key, value in (DEFAULTS | defaults).items() if key not in fixed}
    assert parser.get_defaults().as_dict()["data"] == expected
    assert "Number of loader processes." in parser.format_help()


def test_a_run_keeps_the_samples_the_schema_and_a_fingerprint(root: Path, tmp_path: Path) -> None:
    data = ready(root, id_column="leaf")
    data.save(tmp_path / "run")
    kept = pd.read_csv(tmp_path / "run" / "samples.csv", dtype=str)
    assert kept.to_dict("list") == {"id": data.frame["id"].tolist(), "split": data.split.tolist()}
    assert Schema.load(tmp_path / "run" / "schema.json") == data.schema
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(data.run_files)


def test_a_copy_of_the_data_has_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    edit(root, put("length", {3: None}))  # imputed by a fit whose last digits are the machine's
    first = ready(root).fingerprint()
    copy = tmp_path / "elsewhere" / "set"
    shutil.copytree(root, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    other = {"batch_size": 2, "seed": 8, "num_workers": 1, "cache_dir": str(tmp_path / "other")}
    assert ready(copy, **other).fingerprint() == first
    assert ready(root, cache_px=5).fingerprint() != first


def change_a_pixel(root: Path) -> None:
    path = root / "pictures" / "39.png"
    pixels = np.array(Image.open(path))
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(path)
    os.utime(path, (1, 1))


CHANGES: dict[str, Callable[[Path], None]] = {
    "pixel": change_a_pixel,
    "value": lambda root: edit(root, put("length", {7: 1.5})),
    "category": lambda root: edit(root, put("colour", {7: "blue"})),
    "label": lambda root: edit(root, put("Species", {7: 2})),
    "id": lambda root: edit(root, put("leaf", {7: "s77"})),
    "split": lambda root: edit(root, put("split", {5: "test"})),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changed_data_have_another_fingerprint(root: Path, case: str) -> None:
    edit(root, lambda table: table.assign(split=["train", "train", "val", "test"] * 10))
    edit(root, put("Species", {row: row // 10 for row in range(40)}))
    before = ready(root, id_column="leaf").fingerprint()
    CHANGES[case](root)
    assert ready(root, id_column="leaf").fingerprint() != before


def test_what_is_learned_from_the_same_table_is_part_of_the_fingerprint(root: Path) -> None:
    settings: list[dict[str, Any]] = [
        {}, {"target": "colour"}, {"label_fraction": 0.5}, {"split_seed": 1},
        {"columns": ColumnTypes(ignored=["colour"])}, {"columns": ColumnTypes(morphometric=["length"])},
    ]  # fmt: skip
    assert len({ready(root, **changed).fingerprint() for changed in settings}) == len(settings)


def test_a_sample_is_its_own_group(root: Path) -> None:
    assert ready(root).groups.tolist() == list(range(40))


# --- DVM-car ---


def vehicles(root: Path, cache: Path, **arguments: Any) -> DVMCarDataModule:
    data = DVMCarDataModule(
        str(root), **{"min_per_class": 5, "cache_px": 16, "batch_size": 16, "cache_dir": str(cache)} | arguments
    )
    data.prepare_data()
    data.setup()
    return data


def test_vehicles_have_their_models_splits_and_columns(vehicles_root: Path, tmp_path: Path) -> None:
    data = vehicles(vehicles_root, tmp_path)
    frame = dvm_frame(vehicles_root, min_per_class=5)
    assert data.frame["id"].tolist() == frame["id"].tolist()
    assert data.classes == sorted(frame["Genmodel_ID"].unique())
    assert [data.classes[label] for label in data.target] == frame["Genmodel_ID"].tolist()
    assert len(data.classes) == 4
    count = len(frame)
    shares = {split: len(data.rows(split, "evaluate")) / count for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.4, "val": 0.1, "test": 0.5}, abs=1 / count)
    assert set(data.schema.names) == set(FEATURES)
    assert {column.name for column in data.schema.columns if column.morphometric} == set(MORPHOMETRIC)
    categorical = {column.name: column.kind for column in data.schema.columns if column.kind == "categorical"}
    assert categorical.keys() == {"Color", "Bodytype", "Gearbox", "Fuel_type"}
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (16, 3, 16, 16)
    assert batch.table.shape == (16, 17)
    assert batch.image.flatten(1).float().std(1).min() > 0
    few = DVMCarDataModule(str(vehicles_root), min_per_class=10**6, cache_dir=str(tmp_path))
    assert "no advert is left" in message(few.prepare_data)


def test_a_vehicle_without_its_picture_is_refused_or_skipped_and_listed(vehicles_root: Path, tmp_path: Path) -> None:
    shutil.copytree(vehicles_root, tmp_path / "set")
    frame = dvm_frame(tmp_path / "set", min_per_class=5)
    lost = int(np.flatnonzero(frame["split"] == "test")[3])
    picture = tmp_path / "set" / frame["image"][lost]
    picture.unlink()
    reason = f"no image file {picture}"
    said = message(vehicles, tmp_path / "set", tmp_path / "cache")
    assert said == f"{frame['id'][lost]}: {reason} {HINT}"
    data = vehicles(tmp_path / "set", tmp_path / "cache", on_error="skip")
    assert data.frame["id"].tolist() == frame["id"].drop(lost).tolist()
    [listed] = (tmp_path / "cache").glob("dvm/*/skipped.csv")
    assert pd.read_csv(listed).values.tolist() == [[frame["id"][lost], reason]]


# --- the cardiac form ---

FIELD_LIST = """
groups:
  - {name: age, field: 21003}
features:
  continuous:
    - {name: Weight, field: 21002, morphometric: true}
    - {name: Pulse, field: 102}
  categorical:
    - {name: Pace, field: 924, coding: 100313}
codings:
  100313: {values: {1: slow, 2: steady, 3: brisk}, missing: [-3]}
"""
DIAGNOSES = {0: "I214", 1: "I250", 2: "I214"}  # infarction, which cad covers too, and cad


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    """100 SYNTHETIC subjects in UK Biobank's column style, with two phases of 12 x 10 pixels each."""
    root = tmp_path / "cardiac"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    eids = range(1000, 1100)
    pd.DataFrame(
        {
            "eid": eids,
            "21003-2.0": rng.integers(45, 80, 100),
            "21002-2.0": rng.normal(80, 12, 100),
            "102-2.0": np.where(np.arange(100) % 2, 70.0, np.nan),
            "924-2.0": rng.choice([1, 2, 3], 100),
            "41270-0.0": [DIAGNOSES.get(row % 8) for row in range(100)],
        }
    ).to_csv(root / "fields.csv", index=False)
    for eid in eids:
        np.save(root / "images" / f"{eid}.npy", rng.random((2, 12, 10)))
    (root / "list.yaml").write_text(FIELD_LIST)
    (root / "icd10.yaml").write_text("infarction: [I21]\ncad: [I21, I25]\n")
    return root


def cardiac(root: Path, **arguments: Any) -> CardiacDataModule:
    given = {"fields": str(root / "list.yaml"), "icd10": str(root / "icd10.yaml"), "cache_px": 14, "batch_size": 8}
    data = CardiacDataModule(str(root), **given | {"cache_dir": str(root.parent / "cache")} | arguments)
    data.prepare_data()
    data.setup()
    return data


def test_a_subject_is_two_phases_padded_with_zeros_and_its_fields(
    subjects: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = cardiac(subjects)
    assert data.array.shape == (100, 2, 14, 14)
    phases = np.load(subjects / "images" / "1007.npy")
    padded = np.zeros((2, 14, 14))
    padded[:, 1:13, 2:12] = phases
    np.testing.assert_array_equal(data.array[7], np.rint(padded / phases.max() * 255))
    assert data.schema.names == ("Weight", "Pace")
    assert data.schema.morphometric == (True, False)
    assert next(text for text in caplog.messages if "dropped" in text).startswith("column Pulse dropped: ")
    assert data.frame["age"].between(45, 79).all()  # for metrics by group
    assert data.classes == ["negative", "positive"]


def test_answers_in_an_order_get_codes_in_that_order(subjects: Path) -> None:
    data = cardiac(subjects)
    assert data.schema.columns[1].categories == ("slow", "steady", "brisk")
    answers = pd.read_csv(subjects / "fields.csv")["924-2.0"]
    assert (data.table[:, 1] + 1).tolist() == answers.tolist()


def test_fine_tuning_is_balanced_and_all_else_is_whole(subjects: Path) -> None:
    data, unbalanced = cardiac(subjects), cardiac(subjects, balanced=False)
    train = np.flatnonzero(data.split == "train")
    assert data.rows("train", "pretrain").tolist() == unbalanced.rows("train", "evaluate").tolist() == train.tolist()
    chosen = data.rows("train", "evaluate")
    positive = int((data.target[train] == 1).sum())
    assert Counter(data.target[chosen].tolist()) == {0: positive, 1: positive}
    assert 0 < 2 * positive < len(train)
    assert set(chosen) < set(train)
    assert cardiac(subjects, seed=7).rows("train", "evaluate").tolist() == chosen.tolist()
    assert cardiac(subjects, split_seed=7).rows("train", "evaluate").tolist() != chosen.tolist()
    for split in ("val", "test"):
        assert data.rows(split, "evaluate").tolist() == np.flatnonzero(data.split == split).tolist()


def test_both_targets_share_the_split_the_schema_and_the_images(subjects: Path) -> None:
    infarction, cad = cardiac(subjects), cardiac(subjects, disease="cad")
    assert infarction.split.tolist() == cad.split.tolist()
    assert infarction.schema.columns == cad.schema.columns
    np.testing.assert_array_equal(infarction.table, cad.table)
    assert len(list((subjects.parent / "cache" / "cardiac").iterdir())) == 1
    assert [row for row in range(100) if infarction.target[row]] == [row for row in range(100) if row % 8 in (0, 2)]
    assert [row for row in range(100) if cad.target[row]] == [row for row in range(100) if row % 8 in (0, 1, 2)]
    assert Counter(infarction.split) == pytest.approx({"train": 72, "val": 18, "test": 10}, abs=3)  # rounded by stratum


def test_subjects_without_a_usable_image_are_skipped_and_listed(subjects: Path) -> None:
    images = subjects / "images"
    (images / "1003.npy").unlink()
    np.save(images / "1005.npy", np.zeros((1, 12, 10)))
    np.save(images / "1009.npy", np.full((2, 12, 10), np.nan))
    data = cardiac(subjects)
    assert len(data.frame) == 97
    assert not {"1003", "1005", "1009"} & set(data.frame["id"])
    [listed] = (subjects.parent / "cache").glob("cardiac/*/skipped.csv")
    assert pd.read_csv(listed, dtype=str).values.tolist() == [
        ["1003", "no image images/1003.npy"],
        [
            "1005",
            f"{images / '1005.npy'} holds an array of shape (1, 12, 10), expected (2, at most 14, at most 14)",
        ],
        ["1009", f"{images / '1009.npy'} holds 240 values that are NaN or infinite"],
    ]
    assert message(cardiac, subjects, on_error="raise") == f"1003: no image images/1003.npy {HINT}"
