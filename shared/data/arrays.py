"""Memory-mapped caches: many files are read once, in parallel, into one array on disk.

A cache is a folder: `array.npy` (a plain NumPy file, memory-mapped), `meta.json` (what it was made from),
`journal.jsonl` (a line a finished chunk with its checksum, and the rows that could not be read) and `content.npz` (a
hash of each row). The journal makes an interrupted build go on where it stopped; the fingerprint of sources and
settings makes a changed source a new cache.
"""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from shared.data.problems import DataError, Problems

FORMAT_VERSION = 1
CHUNK = 64  # rows a task: large enough to hide the cost of a task, small enough to resume from
# Starting a worker costs seconds (it imports the package anew), so a small build stays in this process.
ROWS_WORTH_A_POOL = 4096

Reader = Callable[[Any], NDArray[Any]]
# First row of a chunk, its rows, and the reason by row index for those that could not be read.
Task = tuple[int, Sequence[Any]]  # first row, sources
Chunk = tuple[int, NDArray[Any], list[tuple[int, str]]]


@dataclass(frozen=True)
class ArrayCache:
    """An opened cache.

    Attributes:
        folder: Where it lies.
        array: `(N, *row_shape)`, read-only memory map; rows that could not be read are zero.
        unreadable: Reason by row index, for the rows that could not be read.
        checksums: Of the chunks of the array, in order: what it holds, without reading it.
        content: `(N,)`, a hash of each row's content.
    """

    folder: Path
    array: NDArray[Any]
    unreadable: dict[int, str]
    checksums: tuple[int, ...]
    content: NDArray[np.uint64]


def build_cache(
    folder: Path,
    sources: Sequence[Any],
    names: Sequence[str],
    read: Reader,
    row_shape: tuple[int, ...],
    dtype: str,
    settings: dict[str, Any],
    problems: Problems,
    workers: int | None = None,
) -> ArrayCache:
    """Open the cache of `sources` under `folder`, building or finishing it first where that is needed.

    Args:
        folder: Parent of the caches; this one gets a subfolder named by its fingerprint.
        sources: What `read` is called with, one a row; picklable.
        names: How messages name each row.
        read: Returns one row of `row_shape`; raises `DataError` for one that cannot be used. Module-level,
            because worker processes import it.
        row_shape: Shape of a row.
        dtype: NumPy name of the type on disk, e.g. `"int16"`.
        settings: JSON values which the content depends on (sources included: paths, sizes, times). A change of
            any gives another cache.
        problems: Gets every row that cannot be read, in order.
        workers: Processes that read; by default one a core for large builds and none for small ones.

    Raises:
        DataError: A row cannot be read and `problems` raises; the cache is from another version or damaged; the
            disk is full.
    """
    content = json.dumps([settings, list(row_shape), dtype, len(sources)], sort_keys=True)
    folder = folder / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        _check_version(folder)
        shape = (len(sources), *row_shape)
        done = _read_journal(folder)
        missing = [start for start in range(0, len(sources), CHUNK) if start not in done]
        if missing:
            tasks = ((start, sources[start : start + CHUNK]) for start in missing)
            count = sum(len(sources[start : start + CHUNK]) for start in missing)
            try:
                _write_meta(folder, settings)
                _fill(folder, shape, dtype, tasks, count, read, names, problems, workers)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise DataError(
                    f"the disk of {folder} is full: make room and run again (it goes on where it stopped), or set "
                    "data.init_args.cache_dir to another disk"
                ) from error
            done = _read_journal(folder)
        unreadable = {row: reason for entry in done.values() for row, reason in entry["problems"]}
        for row in sorted(unreadable):
            problems.add(names[row], unreadable[row])
        array = _open(folder, shape, dtype)
        _verify(folder, array, done)
        checksums = tuple(done[start]["crc"] for start in sorted(done))
        hashes = _content(folder, array, checksums)
    return ArrayCache(folder, array, unreadable, checksums, hashes)


def fingerprint(names: Iterable[str], suffixes: Sequence[str] = ("",), stem: Callable[[str], str | Path] = str) -> str:
    """Digest of every item's files, their sizes and times, for the `settings` of `build_cache`.

    Args:
        names: An item each, in order.
        suffixes: An item's files are `stem(name)` with each of them; one that is missing counts as absent (reading
            reports it).
        stem: An item's path, by its name.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode())
        path = stem(name)
        for suffix in suffixes:
            try:
                status = os.stat(f"{path}{suffix}")
            except (OSError, ValueError):  # ValueError: no file can have that name
                continue
            digest.update(f"{suffix}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write_meta(folder: Path, settings: dict[str, Any]) -> None:
    partial = folder / "meta.partial"  # so that a kill leaves no half of it
    partial.write_text(json.dumps({"version": FORMAT_VERSION, "settings": settings}, indent=1))
    os.replace(partial, folder / "meta.json")


def _check_version(folder: Path) -> None:
    meta = folder / "meta.json"
    if not meta.exists():
        return
    try:
        version = json.loads(meta.read_text())["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{meta} is damaged ({error}): delete the folder {folder} and run again") from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{folder} is a cache of format {version}, this version of Quintet reads format {FORMAT_VERSION}: "
            "delete the folder (it is built again) or choose another cache_dir"
        )


def _open(folder: Path, shape: tuple[int, ...], dtype: str) -> np.memmap[Any, Any]:
    """The array, created at its full size on first use."""
    path = folder / "array.npy"
    if not path.exists():
        _create(path, shape, dtype)
    try:
        array: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): delete the folder {folder} and run again") from error
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            f"{path} is damaged (it holds {array.dtype} {array.shape}, expected {dtype} {shape}): delete the folder "
            f"{folder} and run again"
        )
    return array


def _create(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise DataError(
            f"the cache needs {size / 1e9:.2f} GB and {path.parent} has {free / 1e9:.2f} GB free: make room, or set "
            "data.init_args.cache_dir to another disk"
        )
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + size)
    os.replace(partial, path)


def _fill(
    folder: Path,
    shape: tuple[int, ...],
    dtype: str,
    tasks: Iterator[Task],
    count: int,
    read: Reader,
    names: Sequence[str],
    problems: Problems,
    workers: int | None,
) -> None:
    array = _open(folder, shape, dtype)
    if workers is None:
        workers = (os.cpu_count() or 1) if count >= ROWS_WORTH_A_POOL else 0
    read_chunk = partial(_read_chunk, read=read, row_shape=shape[1:], dtype=dtype)
    in_turn = _in_processes(tasks, read_chunk, workers) if workers > 1 else (read_chunk(*task) for task in tasks)
    # Plain writes rather than a writable map: a full disk is then an OSError, not a killed process.
    with (
        (folder / "array.npy").open("r+b") as file,
        (folder / "journal.jsonl").open("a") as journal,
        tqdm(total=count, desc=f"cache {folder.name}", unit="row", unit_scale=True) as bar,
        closing(in_turn) as results,
    ):
        if journal.tell():
            journal.write("\n")  # ends the line that a kill may have cut short
        for start, rows, unreadable in results:
            if unreadable and problems.on_error == "raise":
                row, reason = unreadable[0]
                problems.add(names[row], reason)
            file.seek(array.offset + start * rows[0].nbytes)
            file.write(rows.data)
            file.flush()
            entry = {"start": start, "crc": zlib.crc32(rows.data), "problems": unreadable}
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            bar.update(len(rows))


def _read_chunk(start: int, chunk: Sequence[Any], read: Reader, row_shape: tuple[int, ...], dtype: str) -> Chunk:
    rows = np.zeros((len(chunk), *row_shape), dtype=dtype)
    unreadable = []
    for index, source in enumerate(chunk):
        try:
            rows[index] = read(source)
        except DataError as error:
            unreadable.append((start + index, str(error)))
    return start, rows, unreadable


def _in_processes(
    tasks: Iterator[Task], read_chunk: Callable[..., Chunk], workers: int
) -> Generator[Chunk, None, None]:
    # spawn: forking a process in which torch has started threads can hang. The window bounds the memory in flight.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[Chunk]] = deque()
        for task in islice(tasks, 2 * workers):
            waiting.append(pool.submit(read_chunk, *task))
        while waiting:
            yield waiting.popleft().result()
            for task in islice(tasks, 1):
                waiting.append(pool.submit(read_chunk, *task))


def _read_journal(folder: Path) -> dict[int, dict[str, Any]]:
    path = folder / "journal.jsonl"
    if not path.exists() or not (folder / "array.npy").exists():
        path.unlink(missing_ok=True)
        return {}
    done = {}
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the line that a kill cut short; its chunk is read again
            continue
        done[entry["start"]] = entry
    return done


def _verify(folder: Path, array: NDArray[Any], done: dict[int, dict[str, Any]]) -> None:
    """Compare every chunk with its checksum (about a second a gigabyte, and it warms the page cache)."""
    for start in sorted(done):
        rows = array[start : start + CHUNK]
        if zlib.crc32(rows.data) != done[start]["crc"]:
            raise DataError(
                f"{folder / 'array.npy'} is damaged (rows {start} to {start + len(rows) - 1} do not match their "
                f"checksum): delete the folder {folder} and run again"
            )


def _content(folder: Path, array: NDArray[Any], checksums: tuple[int, ...]) -> NDArray[np.uint64]:
    """A hash of each row, computed once (about a second a gigabyte) and kept in `content.npz`."""
    path = folder / "content.npz"
    damaged = (OSError, ValueError, KeyError, EOFError, NotImplementedError, BadZipFile)
    with suppress(*damaged), np.load(path, allow_pickle=False) as kept:
        if kept["checksums"].tolist() == list(checksums) and len(kept["content"]) == len(array):
            return np.asarray(kept["content"])
    digests = [hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=8).digest() for row in array]
    content = np.frombuffer(b"".join(digests), dtype=np.uint64)
    partial = path.with_suffix(".partial.npz")
    with suppress(OSError):  # where there is no room for it, it is computed again
        np.savez(partial, content=content, checksums=np.array(checksums, dtype=np.int64))
        os.replace(partial, path)
    return content
