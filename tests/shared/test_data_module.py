"""The base of the data modules: read once, other splits, no cache, episodes, leaks, what a run keeps, lazy readers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from shared.data.arrays import ArrayCache, build_cache
from shared.data.module import DataModule, check_unseen
from shared.data.problems import DataError, Problems

SKIP = "(on_error: skip would leave it out and list it)"


def read_number(path: str) -> NDArray[Any]:
    """A file that holds a number, as an array of two; a reader as the data sets have them."""
    text = Path(path).read_text()
    if not text.isdecimal():
        raise DataError(f"holds {text!r}")
    return np.array([int(text), -int(text)])


class Rows(Dataset[Tensor]):
    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, positions: list[int]) -> Tensor:
        return torch.from_numpy(self.values[positions])


class Numbers(DataModule[Tensor]):
    """The smallest data module with a cache: files with a number each, split by `splits.csv`."""

    name = "numbers"
    noun = "number"
    file_columns = ("path",)
    reads = 0

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        self.reads += 1
        frame = pd.read_csv(self.root / "splits.csv", dtype=str)
        return frame.assign(path=[str(self.root / f"{name}.txt") for name in frame["id"]])

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        paths = frame["path"].tolist()
        settings = {"files": [Path(path).read_text() for path in paths]}
        names = frame["id"].tolist()
        return build_cache(self.cache_dir / self.name, paths, names, read_number, (2,), "int32", settings, problems)

    def dataset(self, rows: NDArray[np.int64]) -> Rows:
        return Rows(self.cached(rows))


class Files(DataModule[Tensor]):
    """Without labels and without a cache: each batch is read from the files. Novel classes in place of a test split."""

    noun = "image"
    splits = ("base", "validation", "novel")

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        frame = pd.read_csv(self.root / "splits.csv", dtype=str)
        for name in frame["id"][frame["id"] == "3"]:
            problems.add(name, "too dark")
        kept = frame[frame["id"] != "3"]
        return kept.assign(split=kept["split"].map(dict(zip(("train", "val", "test"), self.splits, strict=True))))

    def dataset(self, rows: NDArray[np.int64]) -> Rows:
        return Rows(np.array([int((self.root / f"{name}.txt").read_text()) for name in self.frame["id"].iloc[rows]]))

    def content(self) -> Sequence[Any]:
        return [(self.root / f"{name}.txt").read_text() for name in self.frame["id"]]


class Plants(Numbers):
    """Numbers of which several may belong to one plant, by the column `plant` of `splits.csv`."""

    noun = "shoot"
    group_name = "plant"


class Episodes(Sampler[list[int]]):
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1], [0, 1], [1, 0]])


class Episodic(Files):
    """A batch is an episode."""

    def loader(self, rows: NDArray[np.int64], train: bool = False, batch_size: int | None = None) -> DataLoader[Tensor]:
        return DataLoader(self.dataset(rows), sampler=Episodes(), batch_size=None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten files of a number each: 0, 10, 20, ..."""
    root = tmp_path / "set"
    root.mkdir()
    for row in range(10):
        (root / f"{row}.txt").write_text(str(10 * row))
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    pd.DataFrame({"id": range(10), "split": splits}).to_csv(root / "splits.csv", index=False)
    return root


def ready(kind: type[DataModule[Tensor]], root: Path, **arguments: Any) -> Any:
    given: dict[str, Any] = {"batch_size": 3, "cache_dir": str(root.parent / "cache")}
    data = kind(str(root), **given | arguments)
    data.prepare_data()
    data.setup("fit")
    return data


def message(kind: type[DataModule[Tensor]], root: Path, **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        ready(kind, root, **arguments)
    return str(caught.value)


def drawn(loader: DataLoader[Tensor]) -> list[list[int]]:
    return [batch.reshape(len(batch), -1)[:, 0].tolist() for batch in loader]


# --- frame, cache and loaders ---


def test_the_data_are_read_once_and_every_split_has_its_loader(root: Path) -> None:
    data = ready(Numbers, root)
    data.setup("test")
    assert data.reads == 1
    assert data.split.tolist() == ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    shuffled = drawn(data.train_dataloader())
    assert [len(batch) for batch in shuffled] == [3, 3]
    assert sorted(value for batch in shuffled for value in batch) == [0, 10, 20, 30, 40, 50]
    assert drawn(data.train_dataloader()) == shuffled
    assert drawn(ready(Numbers, root, seed=1).train_dataloader()) != shuffled
    assert drawn(data.val_dataloader()) == [[60, 70]]
    assert drawn(data.test_dataloader()) == [[80, 90]]
    assert drawn(data.predict_dataloader()) == [[0, 10, 20], [30, 40, 50], [60, 70, 80], [90]]
    assert [batch.tolist() for batch in data.batches(np.array([9, 2]), batch_size=1)] == [[[90, -90]], [[20, -20]]]
    assert data.groups.tolist() == list(range(10))


def test_a_process_that_did_not_prepare_reads_for_itself(root: Path) -> None:
    data = Numbers(str(root), cache_dir=str(root.parent / "cache"))
    data.setup()
    assert data.reads == 1
    assert data.cached(np.array([4, 1])).tolist() == [[40, -40], [10, -10]]


def test_a_sample_that_cannot_be_read_is_refused_or_left_out_and_the_others_stay_in_step(root: Path) -> None:
    (root / "2.txt").write_text("two")
    assert message(Numbers, root) == f"2: holds 'two' {SKIP}"
    data = ready(Numbers, root, on_error="skip")
    assert data.frame["id"].tolist() == [str(row) for row in range(10) if row != 2]
    assert data.array.shape == (10, 2)
    assert data.cached(np.arange(9))[:, 0].tolist() == [0, 10, 30, 40, 50, 60, 70, 80, 90]
    assert drawn(data.val_dataloader()) == [[60, 70]]
    assert (data.folder / "skipped.csv").read_text() == "item,reason\n2,holds 'two'\n"


def test_nothing_to_read_says_why(root: Path) -> None:
    assert message(Numbers, root / "nowhere") == (
        f"no folder {root / 'nowhere'}: pass the data set's root as --data.init_args.root (make: DATA=...)"
    )
    for row in range(10):
        (root / f"{row}.txt").write_text("?")
    said = message(Numbers, root, on_error="skip")
    assert said.startswith(f"no number is left under {root} (10 numbers skipped: 0 (holds '?'), ")
    (root / "splits.csv").write_text("id,split\n")
    assert message(Numbers, root) == f"no number found for Numbers under {root} (no number skipped)"


def test_a_validation_split_of_one_sample_and_an_unknown_split_are_refused(root: Path) -> None:
    data = ready(Numbers, root)
    data.split[6] = "train"
    with pytest.raises(DataError, match=r"^the split val needs at least 2 numbers, whatever the method; change the "):
        data.val_dataloader()
    with pytest.raises(ValueError, match=r"^split must be one of train, val, test, got 'novel'$"):
        data.rows("novel", "pretrain")


# --- other kinds of data ---


def test_other_splits_without_a_cache(root: Path) -> None:
    assert message(Files, root) == f"3: too dark {SKIP}"
    data = ready(Files, root, on_error="skip", batch_size=5)
    assert len(data.frame) == 9
    assert [len(data.rows(split, "pretrain")) for split in ("base", "validation", "novel")] == [5, 2, 2]
    assert sorted(drawn(data.train_dataloader())[0]) == [0, 10, 20, 40, 50]
    assert drawn(data.val_dataloader()) == [[60, 70]]
    assert drawn(data.test_dataloader()) == [[80, 90]]
    assert (root.parent / "cache" / "data" / "skipped.csv").read_text() == "item,reason\n3,too dark\n"


def test_a_batch_may_be_an_episode(root: Path) -> None:
    data = ready(Episodic, root, on_error="skip")
    assert drawn(data.test_dataloader()) == [[80, 90], [80, 90], [90, 80]]
    assert [batch.tolist() for batch in data.batches(data.rows("novel", "evaluate"))] == [[80, 90], [80, 90], [90, 80]]


# --- what leaks from one part to another ---


def put_plants(root: Path, plants: dict[int, str]) -> None:
    """Write the plants of shoots into the table; the other shoots have none."""
    table = pd.read_csv(root / "splits.csv", dtype=str)
    table["plant"] = [plants.get(int(name)) for name in table["id"]]
    table.to_csv(root / "splits.csv", index=False)


def test_a_group_in_several_parts_is_refused_or_on_request_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_plants(root, {0: "oak", 1: "oak", 6: "elm", 8: "oak", 9: "ash"})
    said = (
        "1 plant with 3 shoots are in several parts of the split (oak: 0 in train, 8 in test), so what is tested on "
        "was partly trained on"
    )
    assert message(Plants, root) == (
        f"{said}. Give all shoots of a plant the same part (without a given split, the random one does), name another "
        "group_column, or accept it with --data.init_args.allow_shared_groups true"
    )
    assert caplog.messages == []
    data = ready(Plants, root, allow_shared_groups=True)
    assert caplog.messages == [f"{said} (allow_shared_groups)"]
    assert data.groups.tolist() == [0, 0, 5, 6, 7, 8, 1, 10, 0, 2]


def test_a_group_that_only_a_sample_left_out_shares_is_not_shared(root: Path) -> None:
    put_plants(root, {0: "oak", 8: "oak"})
    (root / "8.txt").write_text("?")
    data = ready(Plants, root, on_error="skip")
    assert data.frame.loc[data.frame["plant"] == "oak", "id"].tolist() == ["0"]


def test_the_same_content_in_several_parts_is_warned_of(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "1.txt").write_text("20")  # as the second, which is trained on too
    ready(Numbers, root)
    assert caplog.messages == []
    (root / "9.txt").write_text("20")
    ready(Numbers, root)
    assert caplog.messages == [
        f"numbers of {root}: 3 have the same content as one in another part of the split: 1 (train) = 9 (test)"
    ]


def test_samples_that_cannot_be_read_are_not_the_same_content(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for bad in (1, 6, 8):  # they are zero in the cache, as is the sample 0
        (root / f"{bad}.txt").write_text("?")
    ready(Numbers, root, on_error="skip")
    assert not [text for text in caplog.messages if "the same content" in text]


CHANGED = "its table or split has changed since. Train it again (--run.overwrite true)"
OR_OTHERS = ", or others with the same plant,"
SEEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "trained on": ("9,train,\n1,test,\n", {}, f"1 of the 2 test shoots (the first is 9){OR_OTHERS}"),
    "selected on": ("8,val,\n9,val,\n", {}, f"2 of the 2 test shoots (the first is 8){OR_OTHERS}"),
    "another of its plant trained on": ("5,train,ash\n", {}, f"1 of the 2 test shoots (the first is 9){OR_OTHERS}"),
    "another of its plant selected on": ("5,val,oak\n", {}, f"1 of the 2 test shoots (the first is 8){OR_OTHERS}"),
    "both": ("5,val,oak\n9,train,\n", {}, f"2 of the 2 test shoots (the first is 8){OR_OTHERS}"),
    "shared plants allowed": (
        "5,train,oak\n9,train,ash\n", {"allow_shared_groups": True}, "1 of the 2 test shoots (the first is 9)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("samples", "arguments", "said"), SEEN.values(), ids=list(SEEN))
def test_test_samples_that_a_run_has_seen_are_refused(
    root: Path, tmp_path: Path, samples: str, arguments: dict[str, Any], said: str
) -> None:
    put_plants(root, {8: "oak", 9: "ash"})
    data = ready(Plants, root, **arguments)
    (tmp_path / "samples.csv").write_text(f"id,split,group\n0,train,\n{samples}")
    with pytest.raises(DataError) as caught:
        check_unseen(tmp_path, data)
    assert str(caught.value) == f"{said} were trained or selected on in {tmp_path}: {CHANGED}"


def test_a_run_that_recorded_no_groups_is_checked_by_the_samples_alone(root: Path, tmp_path: Path) -> None:
    put_plants(root, {8: "oak", 9: "ash"})
    data = ready(Plants, root)
    (tmp_path / "samples.csv").write_text("id,split\n8,train\n")
    with pytest.raises(DataError) as caught:
        check_unseen(tmp_path, data)
    assert str(caught.value) == (
        f"1 of the 2 test shoots (the first is 8) were trained or selected on in {tmp_path}: {CHANGED}"
    )


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        (Plants, None),
        (Plants, "id,split,group\n0,train,\n8,test,oak\n9,test,\n"),
        (Plants, "id,split,group\n5,test,oak\n6,,oak\n"),  # in no part that is learned from
        (Plants, "id,split,group\n08,train,\n8.0,val,Oak\n"),  # other names
        (Plants, "id,split\n0,train\n1,val\n"),
        (Numbers, "id,split,group\n5,train,oak\n"),  # data without groups
    ],
    ids=["nothing recorded", "the same", "only tested on", "other names", "no groups recorded", "data without groups"],
)
def test_test_samples_that_a_run_has_not_seen_pass(
    root: Path, tmp_path: Path, kind: type[DataModule[Tensor]], samples: str | None
) -> None:
    put_plants(root, {8: "oak"})
    data = ready(kind, root)
    if samples is not None:
        (tmp_path / "samples.csv").write_text(samples)
    check_unseen(tmp_path, data)


def test_only_test_samples_that_are_evaluated_on_count_as_seen(root: Path, tmp_path: Path) -> None:
    class Labelled(Numbers):
        def suits(self, purpose: str) -> NDArray[np.bool_]:
            return super().suits("pretrain") & ((purpose == "pretrain") | (self.split != "test"))

    (tmp_path / "samples.csv").write_text("id,split\n8,train\n")
    check_unseen(tmp_path, ready(Labelled, root))
    with pytest.raises(DataError, match=r"^1 of the 2 test numbers \(the first is 8\) were trained or selected on in "):
        check_unseen(tmp_path, ready(Numbers, root))


# --- what a run keeps ---


def test_a_run_keeps_samples_and_fingerprint(root: Path, tmp_path: Path) -> None:
    data = ready(Numbers, root)
    data.save(tmp_path / "run")
    assert (
        {path.name for path in (tmp_path / "run").iterdir()} == set(Numbers.run_files) == {"samples.csv", "data.json"}
    )
    assert (tmp_path / "run" / "samples.csv").read_text() == (root / "splits.csv").read_text()
    assert json.loads((tmp_path / "run" / "data.json").read_text()) == {"fingerprint": data.fingerprint()}


def test_a_run_keeps_the_groups_where_there_are_any(root: Path, tmp_path: Path) -> None:
    put_plants(root, {0: " oak", 1: "oak ", 9: "7"})
    ready(Plants, root).save(tmp_path / "run")
    rows = [*("0,train,oak", "1,train,oak"), *(f"{row},train," for row in range(2, 6)), "6,val,", "7,val,", "8,test,"]
    assert (tmp_path / "run" / "samples.csv").read_text() == "\n".join(["id,split,group", *rows, "9,test,7", ""])


@pytest.mark.parametrize("kind", [Numbers, Files])
def test_a_fingerprint_is_of_the_content_alone(kind: type[DataModule[Tensor]], root: Path, tmp_path: Path) -> None:
    first = ready(kind, root, on_error="skip").fingerprint()
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, copy)
    same = {"on_error": "skip", "batch_size": 2, "seed": 8, "num_workers": 1, "cache_dir": str(tmp_path / "other")}
    assert ready(kind, copy, **same).fingerprint() == first
    found = {first}
    for name, old, new in (("1.txt", "10", "11"), ("splits.csv", "7,val", "7,test"), ("splits.csv", "0,tr", "00,tr")):
        path = copy / name
        shutil.copy(copy / "0.txt", copy / "00.txt")
        kept = path.read_text()
        assert old in kept
        path.write_text(kept.replace(old, new, 1))
        found.add(ready(kind, copy, **same).fingerprint())
        path.write_text(kept)
    assert len(found) == 4
    assert ready(kind, copy, **same).fingerprint() == first


def test_the_fingerprint_knows_which_sample_could_not_be_read(root: Path) -> None:
    found = set()
    for bad in ("2", "3"):
        kept = (root / f"{bad}.txt").read_text()
        (root / f"{bad}.txt").write_text("?")
        found.add(ready(Numbers, root, on_error="skip").fingerprint())
        (root / f"{bad}.txt").write_text(kept)
    assert len(found) == 2


# --- readers ---


@pytest.mark.parametrize(
    "module",
    [
        "shared.data.images",
        "shared.data.tables",
        "ecg_text.data.records",
        "ecg_text.data.synthetic.ecgs",
        "tabular_imaging.data.schema",
        "tabular_imaging.data.synthetic.adverts",
    ],
)
def test_what_worker_processes_import_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
