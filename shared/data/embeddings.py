"""Embeddings on disk: parquet files, in shards where there are many, each with what it says about itself.

A shard is either whole or not there, so that a killed job makes it again and a cluster's jobs can share a folder.

Shapes: N samples, D numbers each.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.data.cells import listed
from shared.data.files import whole
from shared.data.problems import DataError
from shared.data.tables import check_columns

log = logging.getLogger(__name__)

COLUMN, KEY = "embedding", b"embeddings"  # of the vectors; of the entry in a file's metadata
SHARD = re.compile(r"part_(\d{5,})_of_(\d{5,})\.parquet")
EXACT = 2**53  # from here on, features would have to be rounded


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


class _Part(NamedTuple):
    """What a file holds, `ids` being None where it has none, and `notes` what was guessed about it."""

    ids: NDArray[np.object_] | None
    values: NDArray[np.float32]
    table: pd.DataFrame
    model: str
    notes: tuple[str, ...] = ()


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """File of a shard."""
    return folder / f"part_{shard:05d}_of_{shards:05d}.parquet"


def missing_shards(folder: Path, samples: Sequence[Sequence[str]], model: str, half: bool = False) -> list[int]:
    """Which shards of a folder are still to be made.

    A shard is made again if it is cut short, holds other samples than it should (the list of samples has changed in
    part), is kept in another number of bytes, or if none of its samples could be read.

    Args:
        folder: Need not exist.
        samples: The ids that belong to each shard.
        model: What makes the embeddings.
        half: As for `write_embeddings`.

    Raises:
        DataError: The folder holds another number of shards, or embeddings of another model or of other samples only.
    """
    there: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.parquet")):
        if not (match := SHARD.fullmatch(path.name)):
            continue
        if (count := int(match[2])) != len(samples):
            raise DataError(f"{folder} holds embeddings in {count} shards, not in {len(samples)}: give a new folder")
        try:
            about = _about(path)
        except DataError:
            continue  # cut short by other means than a kill
        if about["model"] != model:
            other = about["model"] or "one without a name"
            raise DataError(f"{path} holds embeddings of another model ({other}, not {model}): give a new folder")
        there[int(match[1])] = about
    wanted = [_digest(ids) for ids in samples]
    own = {shard for shard, about in there.items() if about.get("samples") == wanted[shard]}
    if there and not own:
        raise DataError(f"{folder} holds embeddings of other samples: give a new folder")
    done = {shard for shard in own if there[shard]["half"] == half and there[shard]["rows"]}
    return [shard for shard in range(len(samples)) if shard not in done]


def skipped_samples(path: Path) -> list[tuple[str, str]]:
    """The samples that belong to a shard but could not be read, each with the reason.

    Raises:
        DataError: The file cannot be read.
    """
    return [(sample, reason) for sample, reason in _about(path).get("skipped", [])]


def write_embeddings(
    path: Path,
    ids: list[str],
    values: NDArray[np.floating],
    model: str = "",
    table: pd.DataFrame | None = None,
    half: bool = False,
    skipped: Sequence[tuple[str, str]] = (),
) -> None:
    """Write one file, which is whole or not there.

    Args:
        path: A parquet file; its folder is made.
        ids: N different texts; N may be 0.
        values: `(N, D)`.
        model: What made them, a digest of its weights, say.
        table: N rows of what else is to stand beside them.
        half: Whether they are kept in half the bytes, as float16.
        skipped: Samples that belong here but could not be read, with the reason, for `skipped_samples`.
    """
    kind = np.float16 if half else np.float32
    flat = pa.array(np.ascontiguousarray(values, dtype=kind).ravel())
    columns = {"id": pa.array(ids, pa.string()), COLUMN: pa.FixedSizeListArray.from_arrays(flat, values.shape[1])}
    if table is not None:
        columns |= {str(name): pa.array(table[name]) for name in table}
    samples = _digest([*ids, *(sample for sample, _ in skipped)])
    about = {"model": model, "samples": samples, "half": half, "skipped": list(skipped)}
    written = pa.table(columns).replace_schema_metadata({KEY: json.dumps(about).encode()})
    with whole(path) as part:
        pq.write_table(written, part)


def read_embeddings(path: Path, id_column: str | None = None) -> Embeddings:
    """Read a file, a folder of shards, or an array: ours, or anybody's.

    What was guessed (which column identifies the rows, which are features, what is left out) is said in the log.

    Args:
        path: A parquet file with a column of vectors (`embedding`, or the only one of lists of numbers), or with
            columns of numbers, which are then all features; a folder with all shards of such files; or a `.npy` array
            `(N, D)`.
        id_column: Column of identifiers, text or whole numbers; by default `id` in any capitals, or the only column of
            text. Without one, rows are numbered from 0, over all shards.

    Returns:
        Columns beside the vectors that hold several values a row or bytes, and pandas' index, are left out.

    Raises:
        DataError: A file cannot be read or holds something else, shards are missing or of different models, an id
            is missing or occurs twice, a value is not finite, or a feature looks like an identifier.
    """
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(f"{path} holds no parquet file with embeddings")
        _check_shards(path, files)
        parts = [_read_file(file, id_column) for file in files]
    elif path.suffix == ".npy":
        if id_column is not None:
            raise DataError(f"{path} is an array, which has no column {id_column}: leave id_column out")
        parts = [_read_array(path)]
    else:
        parts = [_read_file(path, id_column)]
    for note in dict.fromkeys(note for part in parts for note in part.notes):
        log.info("%s: %s", path, note)
    found = _joined(path, parts)
    _check(path, found)
    return found


def _joined(path: Path, parts: list[_Part]) -> Embeddings:
    if len(models := {part.model for part in parts}) > 1:
        raise DataError(f"{path} holds shards of different models ({', '.join(sorted(models))}): keep them apart")
    parts = [part for part in parts if len(part.values)] or parts[:1]  # without rows, a shard may not know its width
    if len(widths := {part.values.shape[1] for part in parts}) > 1:
        raise DataError(f"{path} holds shards of different widths ({', '.join(map(str, sorted(widths)))})")
    known = [part.ids for part in parts if part.ids is not None]
    if known and len(known) < len(parts):
        raise DataError(f"{path} holds shards with and without ids: give all of them a column id")
    rows = sum(len(part.values) for part in parts)
    return Embeddings(
        np.concatenate(known) if known else np.array([str(row) for row in range(rows)], dtype=object),
        np.concatenate([part.values for part in parts]),
        pd.concat([part.table for part in parts], ignore_index=True),
        parts[0].model,
    )


def _check_shards(folder: Path, files: list[Path]) -> None:
    asked = {int(match[2]) for file in files if (match := SHARD.fullmatch(file.name))}
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


def _digest(ids: Sequence[str]) -> str:
    """Of a set of samples."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()[:16]


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise DataError(f"no file or folder {path}")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path} cannot be read as parquet ({error})") from error


def _about(path: Path) -> dict[str, Any]:
    """What a file says about itself, with its number of rows."""
    with _parquet(path) as file:
        return _said(file)


def _said(file: pq.ParquetFile) -> dict[str, Any]:
    metadata = file.metadata.metadata or {}
    said = json.loads(metadata[KEY]) if KEY in metadata else {"model": ""}  # others' have a model without a name
    return {**said, "rows": file.metadata.num_rows}


def _read_file(path: Path, id_column: str | None) -> _Part:
    with _parquet(path) as file:
        about, table = _said(file), file.read()
    # An index of pandas' is no column, and must not put the rows in another order than the vectors' either.
    table = table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])
    kinds = {field.name: field.type for field in table.schema}
    chosen = _id_column(path, kinds, id_column)
    ids = None if chosen is None else _ids(path, chosen, table[chosen])
    others = {name: kind for name, kind in kinds.items() if name != chosen and name.lower() != "id"}
    vectors = [name for name, kind in others.items() if _is_list(kind) and _is_number(kind.value_type)]
    if len(vectors) > 1 and COLUMN not in vectors:
        raise DataError(f"{path} holds several columns of vectors ({listed(vectors)}): call one of them {COLUMN}")
    if vectors:
        used = [COLUMN if COLUMN in vectors else vectors[0]]
        values = _vectors(path, table[used[0]])
    else:
        used = [name for name, kind in others.items() if _is_number(kind)]
        if not used:
            raise DataError(f"{path} holds neither a column of vectors nor columns of numbers: {', '.join(kinds)}")
        values = _features(path, table.select(used))
    beside = [name for name, kind in others.items() if name not in used and not _is_compound(kind)]
    left_out = [name for name in kinds if name not in (chosen, *used, *beside)]
    notes = [
        f"{chosen} identifies the rows" if chosen else "no column identifies the rows, which are numbered",
        f"the vectors are in {used[0]}" if vectors else f"{len(used)} columns are the features: {listed(used)}",
    ]
    if left_out:
        notes.append(f"{len(left_out)} columns beside the vectors are left out: {listed(left_out)}")
    # Whole numbers with gaps stay whole: as floats, they would be rounded.
    frame = table.select(beside).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return _Part(ids, values, frame, about["model"], tuple(notes))


def _id_column(path: Path, kinds: dict[str, pa.DataType], given: str | None) -> str | None:
    if given is not None:
        check_columns(path, [given], kinds)
        return given
    named = [name for name in kinds if name.lower() == "id"]
    texts = [name for name, kind in kinds.items() if _is_text(kind)]
    return named[0] if named else texts[0] if len(texts) == 1 else None


def _ids(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[np.object_]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise DataError(f"{path}: {name} holds {kind}, but identifiers must be text or whole numbers")
    ids: NDArray[np.object_] = column.cast(pa.large_string()).to_numpy()  # here, since pandas would round
    if empty := [row for row, text in enumerate(ids, 1) if not text]:
        raise DataError(f"{path}: row {empty[0]} of {len(ids)} has no {name}: fill it or leave the row out")
    return ids


def _vectors(path: Path, column: pa.ChunkedArray) -> NDArray[np.float32]:
    array = column.combine_chunks()
    widths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(array) == 0:
        widths = [array.type.list_size if pa.types.is_fixed_size_list(array.type) else 0]
    elif len(widths) > 1 or not widths[0]:
        raise DataError(f"{path}: the vectors must be numbers, as many in every row, and none may be missing")
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(array), widths[0])


def _features(path: Path, table: pa.Table) -> NDArray[np.float32]:
    for name in table.column_names:
        if pa.types.is_integer(table[name].type):
            ends = [end for end in pc.min_max(table[name]).as_py().values() if end is not None]
            if any(abs(end) >= EXACT for end in ends):
                raise DataError(
                    f"{path}: {name} holds whole numbers of 2**53 and more, which are identifiers rather than a "
                    f"feature: say so with id_column {name}, or leave it out of the file"
                )
    return np.stack([table[name].to_numpy().astype(np.float32) for name in table.column_names], axis=1)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_compound(kind: pa.DataType) -> bool:
    """Whether a cell holds several values, or bytes such as an image's."""
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return bool(pa.types.is_nested(kind) or any(test(kind) for test in is_bytes))


def _read_array(path: Path) -> _Part:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array that NumPy can read without running code ({error})") from error
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {values.shape} of {values.dtype}, expected numbers (N, D)")
    return _Part(None, values.astype(np.float32), pd.DataFrame(index=range(len(values))), "")
