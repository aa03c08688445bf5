"""Embeddings on disk: written whole, read back exactly, in shards, and from other people's files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shared.data.embeddings import is_whole, read_embeddings, shard_path, write_embeddings
from shared.data.problems import DataError

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
IDS = ["900000000000000001", "b", "c", "d", "e"]


def test_shards_are_read_in_order_with_what_stands_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "embeddings"
    for shard, rows in enumerate((slice(0, 2), slice(2, 5))):
        path = shard_path(folder, shard, 2)
        assert not is_whole(path, "m1")
        beside = pd.DataFrame({"bar": np.arange(5)[rows]})
        write_embeddings(path, IDS[rows], VALUES[rows], "m1", beside)
        assert is_whole(path, "m1")
    assert {path.name for path in folder.iterdir()} == {f"part_0000{n}_of_00002.parquet" for n in (0, 1)}
    found = read_embeddings(folder)
    assert (found.ids.tolist(), found.model, found.table["bar"].tolist()) == (IDS, "m1", [0, 1, 2, 3, 4])
    assert np.array_equal(found.values, VALUES)
    shard_path(folder, 1, 2).write_bytes(b"cut short")
    assert not is_whole(shard_path(folder, 1, 2), "m1")
    shard_path(folder, 1, 2).unlink()
    with pytest.raises(DataError, match="lacks 1 of 2 shards, the first is 1: embed again"):
        read_embeddings(folder)


def test_half_the_bytes_are_float16(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.parquet", IDS, VALUES, half=True)
    found = read_embeddings(tmp_path / "a.parquet").values
    assert found.dtype == np.float32
    assert np.array_equal(found, VALUES.astype(np.float16).astype(np.float32))
    assert pd.read_parquet(tmp_path / "a.parquet")["embedding"].iloc[1].dtype == np.float16


def test_shards_of_two_models_or_runs_are_refused(tmp_path: Path) -> None:
    write_embeddings(shard_path(tmp_path, 0, 2), IDS[:2], VALUES[:2], "m1")
    with pytest.raises(DataError, match=r"holds embeddings of another model \(m1, not m2\): give a new folder"):
        is_whole(shard_path(tmp_path, 0, 2), "m2")
    write_embeddings(shard_path(tmp_path, 1, 2), IDS[2:], VALUES[2:], "m2")
    with pytest.raises(DataError, match=r"holds shards of different models \(m1, m2\): keep them apart"):
        read_embeddings(tmp_path)
    write_embeddings(shard_path(tmp_path, 1, 3), IDS[2:], VALUES[2:], "m1")
    with pytest.raises(DataError, match="holds shards of several runs, of 2 and of 3"):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("form", ["lists", "columns", "array"])
def test_anybodys_files_are_read(tmp_path: Path, form: str) -> None:
    if form == "array":
        np.save(tmp_path / "x.npy", VALUES.astype(np.float64))
        found = read_embeddings(tmp_path / "x.npy")
        assert found.ids.tolist() == ["0", "1", "2", "3", "4"]
    else:
        columns = {"feature": list(VALUES)} if form == "lists" else {f"f{n}": VALUES[:, n] for n in range(3)}
        pd.DataFrame({"galaxy": IDS, **columns}).to_parquet(tmp_path / "x.parquet")
        found = read_embeddings(tmp_path / "x.parquet")
        assert found.ids.tolist() == IDS
    assert np.array_equal(found.values, VALUES)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.parquet", "no file or folder"),
        ("text.parquet", "cannot be read as parquet"),
        ("folder", "holds no parquet file with embeddings"),
        ("twice.parquet", "holds the id b twice"),
        ("nan.parquet", "holds 1 values that are NaN or infinite, the first in row 3, number 2 of the vector"),
        ("ragged.parquet", "the vectors must be numbers, as many in every row, and none may be missing"),
        ("words.parquet", "holds neither a column of vectors nor columns of numbers: a"),
        ("flat.npy", r"holds an array of shape \(5,\) of float64, expected numbers \(N, D\)"),
        ("object.npy", "is not an array that NumPy can read without running code"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.parquet").write_text("not parquet")
    write_embeddings(tmp_path / "twice.parquet", ["a", "b", "b"], VALUES[:3])
    bad = VALUES.copy()
    bad[2, 1] = np.nan
    write_embeddings(tmp_path / "nan.parquet", IDS, bad)
    pd.DataFrame({"embedding": [[1.0, 2.0], [3.0]]}).to_parquet(tmp_path / "ragged.parquet")
    pd.DataFrame({"a": ["x", "y"]}).to_parquet(tmp_path / "words.parquet")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "object.npy", np.array([{}, []], object), allow_pickle=True)
    with pytest.raises(DataError, match=said):
        read_embeddings(tmp_path / name)
