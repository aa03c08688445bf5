"""Embeddings on disk: written whole, read back exactly, in shards, and from other people's files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.data.embeddings import missing_shards, read_embeddings, shard_path, skipped_samples, write_embeddings
from shared.data.problems import DataError

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
IDS = ["900000000000000001", "b", "c", "d", "e"]


def parquet(path: Path, **columns: pa.Array | list[object] | np.ndarray) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def said(path: Path, id_column: str | None = None) -> str:
    """What a refused file is told."""
    with pytest.raises(DataError) as caught:
        read_embeddings(path, id_column)
    return str(caught.value)


def notes(caplog: pytest.LogCaptureFixture, path: Path) -> list[str]:
    return [text.removeprefix(f"{path}: ") for text in caplog.messages]


def test_shards_are_read_in_order_with_what_stands_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "embeddings"
    samples = [IDS[:2], IDS[2:]]
    assert missing_shards(folder, samples, "m1") == [0, 1]
    for shard, rows in enumerate((slice(0, 2), slice(2, 5))):
        beside = pd.DataFrame({"bar": np.arange(5)[rows]})
        write_embeddings(shard_path(folder, shard, 2), IDS[rows], VALUES[rows], "m1", beside)
        assert missing_shards(folder, samples, "m1") == [1][shard:]
    assert {path.name for path in folder.iterdir()} == {f"part_0000{n}_of_00002.parquet" for n in (0, 1)}
    found = read_embeddings(folder)
    assert (found.ids.tolist(), found.model, found.table["bar"].tolist()) == (IDS, "m1", [0, 1, 2, 3, 4])
    assert np.array_equal(found.values, VALUES)
    shard_path(folder, 1, 2).write_bytes(b"cut short")
    assert missing_shards(folder, samples, "m1") == [1]
    shard_path(folder, 1, 2).unlink()
    assert said(folder) == f"{folder} lacks 1 of 2 shards, the first is 1: embed again"


def test_shards_of_other_samples_or_another_precision_are_made_again(tmp_path: Path) -> None:
    for shard, rows in enumerate((slice(0, 2), slice(2, 5))):
        write_embeddings(shard_path(tmp_path, shard, 2), IDS[rows], VALUES[rows], "m1")
    assert missing_shards(tmp_path, [IDS[:2], IDS[2:]], "m1") == []
    assert missing_shards(tmp_path, [IDS[:2], IDS[2:4]], "m1") == [1]
    assert missing_shards(tmp_path, [IDS[:2], IDS[2:]], "m1", half=True) == [0, 1]
    for samples, message in [
        ([IDS[1:3], IDS[3:]], f"{tmp_path} holds embeddings of other samples: give a new folder"),
        ([IDS], f"{tmp_path} holds embeddings in 2 shards, not in 1: give a new folder"),
    ]:
        with pytest.raises(DataError) as caught:
            missing_shards(tmp_path, samples, "m1")
        assert str(caught.value) == message


def test_a_shard_none_of_whose_samples_could_be_read_has_no_rows_and_the_right_width(tmp_path: Path) -> None:
    skipped = [(name, "cut, short") for name in IDS[:2]]
    path = shard_path(tmp_path, 0, 2)
    beside = pd.DataFrame({"fault": pd.Series([], dtype="str"), "bar": pd.Series([], dtype=float)})
    write_embeddings(path, [], VALUES[:0], "m1", beside, skipped=skipped)
    assert skipped_samples(path) == skipped
    empty = read_embeddings(path)
    assert (empty.values.shape, empty.ids.tolist(), list(empty.table)) == ((0, 3), [], ["fault", "bar"])
    beside = pd.DataFrame({"fault": ["", "blank"], "bar": [1.5, 2]})
    write_embeddings(shard_path(tmp_path, 1, 2), IDS[3:], VALUES[3:], "m1", beside, skipped=[("c", "why")])
    found = read_embeddings(tmp_path)
    assert found.ids.tolist() == IDS[3:]
    assert np.array_equal(found.values, VALUES[3:])
    assert found.table["bar"].tolist() == [1.5, 2]
    # The samples of a shard are all that belong to it; where none could be read, it is tried again.
    assert missing_shards(tmp_path, [IDS[:2], IDS[2:]], "m1") == [0]


def test_half_the_bytes_are_float16(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.parquet", IDS, VALUES, half=True)
    found = read_embeddings(tmp_path / "a.parquet").values
    assert found.dtype == np.float32
    assert np.array_equal(found, VALUES.astype(np.float16).astype(np.float32))
    assert pd.read_parquet(tmp_path / "a.parquet")["embedding"].iloc[1].dtype == np.float16


def test_shards_of_two_models_or_runs_are_refused(tmp_path: Path) -> None:
    first = shard_path(tmp_path, 0, 2)
    write_embeddings(first, IDS[:2], VALUES[:2], "m1")
    with pytest.raises(DataError) as caught:
        missing_shards(tmp_path, [IDS[:2], IDS[2:]], "m2")
    assert str(caught.value) == f"{first} holds embeddings of another model (m1, not m2): give a new folder"
    write_embeddings(shard_path(tmp_path, 1, 2), IDS[2:], VALUES[2:], "m2")
    assert said(tmp_path) == f"{tmp_path} holds shards of different models (m1, m2): keep them apart"
    write_embeddings(shard_path(tmp_path, 1, 3), IDS[2:], VALUES[2:], "m1")
    assert said(tmp_path) == f"{tmp_path} holds shards of several runs, of 2 and of 3"


@pytest.mark.parametrize("change", ["shuffled", "cut", "indexed"])
def test_what_stands_beside_the_vectors_keeps_their_order_whatever_pandas_index_says(
    tmp_path: Path, change: str
) -> None:
    frame = pd.DataFrame({"id": IDS, "embedding": list(VALUES), "bar": VALUES[:, 0]})
    frame = frame.iloc[2:] if change == "cut" else frame.sample(frac=1, random_state=0)
    (frame.set_index("bar") if change == "indexed" else frame).to_parquet(tmp_path / "x.parquet")
    found = read_embeddings(tmp_path / "x.parquet")
    assert found.ids.tolist() == frame["id"].tolist()
    assert list(found.table) == ["bar"]
    assert found.table.index.tolist() == list(range(len(frame)))
    assert np.array_equal(found.table["bar"], found.values[:, 0])


def test_columns_of_numbers_are_features_unless_they_identify(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    big = [2**53 + number for number in range(5)]
    frame = pd.DataFrame({"objid": big, "a": VALUES[:, 0], "b": VALUES[:, 1]}).sample(frac=1, random_state=0)
    path = tmp_path / "x.parquet"
    frame.to_parquet(path)
    assert said(path) == (
        f"{path}: objid holds whole numbers of 2**53 and more, which are identifiers rather than a feature: say so "
        "with id_column objid, or leave it out of the file"
    )
    found = read_embeddings(path, "objid")
    assert found.ids.tolist() == [str(number) for number in frame["objid"]]
    assert np.array_equal(found.values, frame[["a", "b"]].to_numpy())
    assert notes(caplog, path) == ["objid identifies the rows", "2 columns are the features: a, b"]
    assert said(path, "dr8_id") == f"{path} lacks the column dr8_id; it has objid, a, b"
    caplog.clear()
    frame.assign(ID=range(5), objid=range(5)).to_parquet(path)
    assert read_embeddings(path).values.shape == (5, 3)
    assert notes(caplog, path) == ["ID identifies the rows", "3 columns are the features: objid, a, b"]
    assert read_embeddings(path, "objid").values.shape == (5, 2)  # what is called id is never a feature
    np.save(tmp_path / "x.npy", VALUES)
    array = tmp_path / "x.npy"
    assert said(array, "id") == f"{array} is an array, which has no column id: leave id_column out"


def test_identifiers_are_kept_digit_for_digit_or_refused(tmp_path: Path) -> None:
    path, vectors = tmp_path / "x.parquet", pa.array(VALUES[:3].tolist())
    big = 2**60 + 1
    parquet(path, id=[big, 1, 2], embedding=vectors, other=pa.array([big, None, 3]))
    found = read_embeddings(path)
    assert found.ids.tolist() == [str(big), "1", "2"]
    assert found.table["other"].tolist() == [big, None, 3]  # not rounded for the gap either
    parquet(path, id=[big, None, 2], embedding=vectors)
    assert said(path) == f"{path}: row 2 of 3 has no id: fill it or leave the row out"
    parquet(path, id=["a", "b", ""], embedding=vectors)
    assert said(path) == f"{path}: row 3 of 3 has no id: fill it or leave the row out"
    parquet(path, id=[1.0, 2.0, 3.0], embedding=vectors)
    assert said(path) == f"{path}: id holds double, but identifiers must be text or whole numbers"
    parquet(path, id=pa.array(["a", "b", "c"]).dictionary_encode(), embedding=vectors)
    assert read_embeddings(path).ids.tolist() == ["a", "b", "c"]


def test_columns_with_several_values_a_row_or_bytes_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = parquet(
        tmp_path / "x.parquet",
        name=["a", "b"],
        embedding=pa.array(VALUES[:2].tolist(), pa.large_list(pa.float32())),
        box=[[1, 2], [3]],
        image=[{"bytes": b"x", "path": "x.png"}, None],
        raw=[b"x", b"y"],
        tags=[["x"], []],
        bar=[1, 2],
    )
    found = read_embeddings(path)
    assert (found.ids.tolist(), list(found.table)) == (["a", "b"], ["bar"])
    assert np.array_equal(found.values, VALUES[:2])
    assert notes(caplog, path) == [
        "name identifies the rows",
        "the vectors are in embedding",
        "4 columns beside the vectors are left out: box, image, raw, tags",
    ]
    parquet(path, box=[[1, 2], [3, 4]], feature=VALUES[:2].tolist(), tags=[["x"], []])
    assert said(path) == f"{path} holds several columns of vectors (box, feature): call one of them embedding"
    parquet(path, feature=VALUES[:2].tolist(), tags=[["x"], []])
    assert np.array_equal(read_embeddings(path).values, VALUES[:2])


@pytest.mark.parametrize("names", [("part_1", "part_2"), ("part_x", "part_y"), ("part_0_of_2", "part_00001_of_2")])
def test_other_peoples_folders_are_numbered_over_all_files(
    tmp_path: Path, names: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name, rows in zip(names, (slice(0, 2), slice(2, 5)), strict=True):
        parquet(tmp_path / f"{name}.parquet", feature=VALUES[rows].tolist())
    found = read_embeddings(tmp_path)
    order = [0, 1, 2, 3, 4] if sorted(names) == list(names) else [2, 3, 4, 0, 1]
    assert np.array_equal(found.values, VALUES[order])
    assert found.ids.tolist() == ["0", "1", "2", "3", "4"]
    assert notes(caplog, tmp_path) == [
        "no column identifies the rows, which are numbered",
        "the vectors are in feature",
    ]  # once, not for each file
    parquet(tmp_path / "z.parquet", id=["a"], feature=VALUES[:1].tolist())
    assert said(tmp_path) == f"{tmp_path} holds shards with and without ids: give all of them a column id"
    parquet(tmp_path / "z.parquet", id=pa.array([], pa.string()), feature=pa.array([], pa.list_(pa.float32())))
    assert len(read_embeddings(tmp_path).ids) == 5  # a file without rows says nothing


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
        ("uneven.parquet", "the vectors must be numbers, as many in every row, and none may be missing"),
        ("gap.parquet", "the vectors must be numbers, as many in every row, and none may be missing"),
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
    parquet(tmp_path / "uneven.parquet", embedding=[[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]])  # two a row on average
    parquet(tmp_path / "gap.parquet", embedding=[[1.0, 2.0], None])
    pd.DataFrame({"a": ["x", "y"]}).to_parquet(tmp_path / "words.parquet")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "object.npy", np.array([{}, []], object), allow_pickle=True)
    with pytest.raises(DataError, match=said):
        read_embeddings(tmp_path / name)
