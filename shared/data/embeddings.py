"""Embeddings on disk: parquet files, in shards where there are many, with the model that made them in each.

A shard is either whole or not there, so that a killed job makes it again and a cluster's jobs can share a folder.

Shapes: N samples, D numbers each.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.data.files import whole
from shared.data.problems import DataError

COLUMN, KEY = "embedding", b"embeddings"  # of the vectors; of the entry in a file's metadata


class Embeddings(NamedTuple):
    """Embeddings, in the order of the shards.

    Attributes:
        ids: `(N,)` text.
        values: `(N, D)` float32.
        table: N rows of what stands beside them, without ids and vectors.
        model: What made them; empty if the file does not say.
    """

    ids: NDArray[np.object_]
    values: NDArray[np.float32]
    table: pd.DataFrame
    model: str


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """File of a shard."""
    return folder / f"part_{shard:05d}_of_{shards:05d}.parquet"


def is_whole(path: Path, model: str) -> bool:
    """Whether a shard is there, made by this model.

    Raises:
        DataError: Another model made it.
    """
    if not path.is_file():
        return False
    try:
        about = _about(path)
    except DataError:
        return False  # not ours, or cut short by other means than a kill: it is made again
    if about["model"] != model:
        raise DataError(f"{path} holds embeddings of another model ({about['model']}, not {model}): give a new folder")
    return True


def write_embeddings(
    path: Path,
    ids: list[str],
    values: NDArray[np.floating],
    model: str = "",
    table: pd.DataFrame | None = None,
    half: bool = False,
) -> None:
    """Write one file, which is whole or not there.

    Args:
        path: A parquet file; its folder is made.
        ids: N different texts.
        values: `(N, D)`.
        model: What made them, a digest of its weights, say.
        table: N rows of what else is to stand beside them.
        half: Whether they are kept in half the bytes, as float16.
    """
    kind = np.float16 if half else np.float32
    flat = pa.array(np.ascontiguousarray(values, dtype=kind).ravel())
    columns = {"id": pa.array(ids, pa.string()), COLUMN: pa.FixedSizeListArray.from_arrays(flat, values.shape[1])}
    if table is not None:
        columns |= {str(name): pa.array(table[name]) for name in table}
    written = pa.table(columns).replace_schema_metadata({KEY: json.dumps({"model": model}).encode()})
    with whole(path) as part:
        pq.write_table(written, part)


def read_embeddings(path: Path) -> Embeddings:
    """Read a file, a folder of shards, or an array: ours, or anybody's.

    Args:
        path: A parquet file with a column of vectors (`embedding`, or the only one of lists of numbers), or with
            columns of numbers, and with ids in `id` or the only column of text, otherwise numbered; a folder with all
            shards of such files; or a `.npy` array `(N, D)`.

    Raises:
        DataError: A file cannot be read or holds something else, shards are missing or of different models, an id
            occurs twice, or a value is not finite.
    """
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(f"{path} holds no parquet file with embeddings")
        _check_shards(path, files)
        parts = [_read_file(file) for file in files]
        if len(models := {part.model for part in parts}) > 1:
            raise DataError(f"{path} holds shards of different models ({', '.join(sorted(models))}): keep them apart")
        if len(widths := {part.values.shape[1] for part in parts}) > 1:
            raise DataError(f"{path} holds shards of different widths ({', '.join(map(str, sorted(widths)))})")
        found = Embeddings(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.values for part in parts]),
            pd.concat([part.table for part in parts], ignore_index=True),
            parts[0].model,
        )
    elif path.suffix == ".npy":
        found = _read_array(path)
    else:
        found = _read_file(path)
    _check(path, found)
    return found


def _check_shards(folder: Path, files: list[Path]) -> None:
    asked = {int(file.stem.rpartition("_")[2]) for file in files if file.stem.startswith("part_")}
    if len(asked) > 1:
        raise DataError(f"{folder} holds shards of several runs, of {' and of '.join(map(str, sorted(asked)))}")
    for shards in asked:
        missing = [shard for shard in range(shards) if not shard_path(folder, shard, shards).is_file()]
        if missing:
            raise DataError(f"{folder} lacks {len(missing)} of {shards} shards, the first is {missing[0]}: embed again")


def _check(path: Path, found: Embeddings) -> None:
    again = pd.Series(found.ids).duplicated()
    if again.any():
        raise DataError(f"{path} holds the id {found.ids[again][0]} twice")
    bad = ~np.isfinite(found.values)
    if bad.any():
        row, column = (int(each[0]) for each in np.nonzero(bad))
        raise DataError(
            f"{path} holds {int(bad.sum())} values that are NaN or infinite, the first in row {row + 1}, number "
            f"{column + 1} of the vector"
        )


def _about(path: Path) -> dict[str, str]:
    """What a file of ours says about itself; a model without a name for others'."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path} cannot be read as parquet ({error})") from error
    return dict(json.loads(metadata[KEY])) if KEY in metadata else {"model": ""}


def _read_file(path: Path) -> Embeddings:
    if not path.is_file():
        raise DataError(f"no file or folder {path}")
    about, table = _about(path), pq.read_table(path)
    kinds = {field.name: field.type for field in table.schema}
    lists = [name for name, kind in kinds.items() if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)]
    texts = [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    named = [name for name in kinds if name.lower() == "id"] or (texts if len(texts) == 1 else [])
    ids = table[named[0]].to_pandas().astype(str).to_numpy(object) if named else _numbered(len(table))
    if COLUMN in lists or len(lists) == 1:
        (vector,) = [COLUMN] if COLUMN in lists else lists
        values, used = _vectors(path, table[vector]), {vector, *named[:1]}
    else:
        numbers = [name for name, kind in kinds.items() if _is_number(kind) and name not in named]
        if not numbers:
            raise DataError(f"{path} holds neither a column of vectors nor columns of numbers: {', '.join(kinds)}")
        values = np.stack([table[name].to_numpy().astype(np.float32) for name in numbers], axis=1)
        used = {*numbers, *named[:1]}
    beside = table.select([name for name in kinds if name not in used]).to_pandas()
    return Embeddings(ids, values, beside, about["model"])


def _vectors(path: Path, column: pa.ChunkedArray) -> NDArray[np.float32]:
    array = column.combine_chunks()
    flat = array.flatten()
    if len(array) == 0 or array.null_count or len(flat) % len(array) or not _is_number(flat.type):
        raise DataError(f"{path}: the vectors must be numbers, as many in every row, and none may be missing")
    values: NDArray[np.float32] = np.asarray(flat.to_numpy(zero_copy_only=False)).astype(np.float32)
    return values.reshape(len(array), -1)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _numbered(count: int) -> NDArray[np.object_]:
    return np.array([str(row) for row in range(count)], dtype=object)


def _read_array(path: Path) -> Embeddings:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array that NumPy can read without running code ({error})") from error
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {values.shape} of {values.dtype}, expected numbers (N, D)")
    return Embeddings(_numbered(len(values)), values.astype(np.float32), pd.DataFrame(index=range(len(values))), "")
