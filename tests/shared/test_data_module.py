"""The base of the data modules: read once, other splits, no cache, episodes, what a run keeps, lazy readers."""

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
from shared.data.module import DataModule
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


# --- what a run keeps ---


def test_a_run_keeps_samples_and_fingerprint(root: Path, tmp_path: Path) -> None:
    data = ready(Numbers, root)
    data.save(tmp_path / "run")
    assert (
        {path.name for path in (tmp_path / "run").iterdir()} == set(Numbers.run_files) == {"samples.csv", "data.json"}
    )
    assert (tmp_path / "run" / "samples.csv").read_text() == (root / "splits.csv").read_text()
    assert json.loads((tmp_path / "run" / "data.json").read_text()) == {"fingerprint": data.fingerprint()}


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
