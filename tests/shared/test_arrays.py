"""The memory-mapped cache: built once, resumed after an interruption, checked, clear about a full disk; its hashes."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import arrays
from shared.data.arrays import ArrayCache, build_cache
from shared.data.problems import DataError, Problems

CHUNK = arrays.CHUNK
ROWS = 5 * CHUNK + 7  # six chunks, the last of them short


def row_of(source: int) -> np.ndarray:
    """Three by four numbers that no other source has."""
    return np.arange(12, dtype=np.int16).reshape(3, 4) + 12 * source


class CountingReader:
    """Reads `row_of`, notes what it was asked for, and fails where it is told to."""

    def __init__(self, fail: Callable[[int], None] = lambda source: None) -> None:
        self.asked: list[int] = []
        self.fail = fail

    def __call__(self, source: int) -> np.ndarray:
        self.asked.append(source)
        self.fail(source)
        return row_of(source)


def build(
    folder: Path, read: Callable[[Any], np.ndarray], problems: Problems | None = None, **kwargs: Any
) -> ArrayCache:
    sources = kwargs.pop("sources", list(range(ROWS)))
    settings = kwargs.pop("settings", {"rate": 100})
    names = [f"record {source}" for source in sources]
    return build_cache(folder, sources, names, read, (3, 4), "int16", settings, problems or Problems("raise"), **kwargs)


def expected() -> np.ndarray:
    return np.stack([row_of(source) for source in range(ROWS)])


def refuse_bad_rows(source: int) -> None:
    if source in (1, 70, 200):
        raise DataError(f"source {source} is bad")


def test_the_array_is_what_the_reader_gave_and_is_read_only(tmp_path: Path) -> None:
    cache = build(tmp_path, CountingReader())
    assert cache.array.dtype == np.int16
    assert np.array_equal(cache.array, expected())
    assert cache.unreadable == {}
    assert np.array_equal(np.load(cache.folder / "array.npy"), expected())  # a plain NumPy file
    with pytest.raises(ValueError, match="read-only"):
        cache.array[0] = 0


def test_a_finished_cache_is_opened_without_reading_again(tmp_path: Path) -> None:
    first = build(tmp_path, CountingReader())
    reader = CountingReader()
    second = build(tmp_path, reader)
    assert reader.asked == []
    assert second.folder == first.folder
    assert np.array_equal(second.array, expected())


@pytest.mark.parametrize("change", [{"settings": {"rate": 500}}, {"sources": list(range(ROWS - 1))}])
def test_another_setting_or_number_of_rows_is_another_cache(tmp_path: Path, change: dict[str, Any]) -> None:
    first = build(tmp_path, CountingReader())
    reader = CountingReader()
    second = build(tmp_path, reader, **change)
    assert len(reader.asked) == len(second.array)
    assert second.folder != first.folder
    assert np.array_equal(first.array, expected())


def test_an_exception_in_the_middle_costs_only_the_unfinished_chunks(tmp_path: Path) -> None:
    def break_off(source: int) -> None:
        if source == 3 * CHUNK + 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, CountingReader(break_off))
    reader = CountingReader()
    cache = build(tmp_path, reader)
    assert reader.asked == list(range(3 * CHUNK, ROWS))
    assert np.array_equal(cache.array, expected())


SLOW_BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from shared.data.arrays import build_cache
from shared.data.problems import Problems

folder, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
def read(source):
    with log.open("a") as file:
        file.write(f"{source}\\n")
    time.sleep(pause)
    return np.arange(12, dtype=np.int16).reshape(3, 4) + 12 * source

rows = int(sys.argv[4])
names = [f"record {row}" for row in range(rows)]
build_cache(folder, list(range(rows)), names, read, (3, 4), "int16", {"rate": 100}, Problems("raise"))
"""


def start_slow_build(tmp_path: Path, pause: float) -> tuple["subprocess.Popen[bytes]", Path]:
    log = tmp_path / "read.log"
    root = str(Path(arrays.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(tmp_path / "cache"), str(log), str(pause), str(ROWS)],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    return process, log


def wait_for_rows(process: "subprocess.Popen[bytes]", log: Path, rows: int) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < rows:
        assert process.poll() is None, "the other process ended early"
        assert time.monotonic() < deadline, "the other process did not get to its rows"
        time.sleep(0.01)


def test_after_sigkill_only_the_missing_chunks_are_read(tmp_path: Path) -> None:
    process, log = start_slow_build(tmp_path, pause=0.003)
    try:
        wait_for_rows(process, log, 2 * CHUNK + 10)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    journal = (next((tmp_path / "cache").glob("*/journal.jsonl"))).read_text().splitlines()
    done = {json.loads(line)["start"] for line in journal}
    assert {0, CHUNK} <= done
    assert len(done) < 6
    reader = CountingReader()
    cache = build(tmp_path / "cache", reader)
    assert reader.asked == [row for row in range(ROWS) if row // CHUNK * CHUNK not in done]
    assert np.array_equal(cache.array, expected())


def test_of_two_processes_one_builds_and_the_other_waits_for_it(tmp_path: Path) -> None:
    process, log = start_slow_build(tmp_path, pause=0.002)
    try:
        wait_for_rows(process, log, 1)
        reader = CountingReader()
        cache = build(tmp_path / "cache", reader)
        assert reader.asked == []
        assert np.array_equal(cache.array, expected())
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    assert sorted(map(int, log.read_text().split())) == list(range(ROWS))


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_journal_whose_last_line_is_cut_short_loses_that_chunk_only(tmp_path: Path, cut: int) -> None:
    journal = build(tmp_path, CountingReader()).folder / "journal.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:4]) + "\n" + lines[4][:-cut])
    reader = CountingReader()
    cache = build(tmp_path, reader)
    assert reader.asked == list(range(4 * CHUNK, ROWS))
    assert np.array_equal(cache.array, expected())
    again = CountingReader()
    build(tmp_path, again)
    assert again.asked == []


def test_a_journal_without_its_array_is_no_cache(tmp_path: Path) -> None:
    (build(tmp_path, CountingReader()).folder / "array.npy").unlink()
    reader = CountingReader()
    assert np.array_equal(build(tmp_path, reader).array, expected())
    assert reader.asked == list(range(ROWS))


def test_the_first_bad_row_is_an_error_and_earlier_chunks_stay(tmp_path: Path) -> None:
    def refuse(source: int) -> None:
        if source in (CHUNK + 3, CHUNK + 9):
            raise DataError("lead V3 is constant")

    for start in (0, CHUNK):  # what came before the bad chunk is not read a second time
        reader = CountingReader(refuse)
        with pytest.raises(DataError) as caught:
            build(tmp_path, reader)
        assert str(caught.value) == (
            f"record {CHUNK + 3}: lead V3 is constant (on_error: skip would leave it out and list it)"
        )
        assert reader.asked == list(range(start, 2 * CHUNK))


def test_skipped_rows_are_zero_listed_in_order_and_remembered(tmp_path: Path) -> None:
    for asked in (ROWS, 0):
        problems, reader = Problems("skip"), CountingReader(refuse_bad_rows)
        cache = build(tmp_path, reader, problems)
        assert len(reader.asked) == asked
        assert cache.unreadable == {row: f"source {row} is bad" for row in (1, 70, 200)}
        assert problems.found == [(f"record {row}", f"source {row} is bad") for row in (1, 70, 200)]
        assert not cache.array[[1, 70, 200]].any()
        assert np.array_equal(np.delete(cache.array, [1, 70, 200], 0), np.delete(expected(), [1, 70, 200], 0))
    with pytest.raises(DataError, match=r"^record 1: source 1 is bad \(on_error: skip"):
        build(tmp_path, CountingReader(refuse_bad_rows), Problems("raise"))


def test_worker_processes_give_the_same_cache(tmp_path: Path) -> None:
    sources = []
    for row in range(3 * CHUNK + 1):
        sources.append(str(tmp_path / f"{row}.npy"))
        np.save(sources[-1], row_of(row))
    here = build(tmp_path / "here", np.load, sources=sources, workers=0)
    pool = build(tmp_path / "pool", np.load, sources=sources, workers=2)
    assert (pool.folder / "array.npy").read_bytes() == (here.folder / "array.npy").read_bytes()
    assert (pool.folder / "journal.jsonl").read_text() == (here.folder / "journal.jsonl").read_text()


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    path = build(tmp_path, CountingReader()).folder / "array.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in the last, short chunk
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        build(tmp_path, CountingReader())
    assert str(caught.value) == (
        f"{path} is damaged (rows {5 * CHUNK} to {ROWS - 1} do not match their checksum): delete the folder "
        f"{path.parent} and run again"
    )


@pytest.mark.parametrize(
    ("keep", "reason"), [(-10, "mmap length is greater than file size"), (0, "No data left in file")]
)
def test_a_shortened_array_is_found(tmp_path: Path, keep: int, reason: str) -> None:
    path = build(tmp_path, CountingReader()).folder / "array.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError) as caught:
        build(tmp_path, CountingReader())
    assert str(caught.value) == f"{path} is damaged ({reason}): delete the folder {path.parent} and run again"


def test_an_array_of_another_shape_is_found(tmp_path: Path) -> None:
    path = build(tmp_path, CountingReader()).folder / "array.npy"
    np.save(path, np.zeros((2, 3), np.int16))
    with pytest.raises(DataError) as caught:
        build(tmp_path, CountingReader())
    assert str(caught.value) == (
        f"{path} is damaged (it holds int16 (2, 3), expected int16 ({ROWS}, 3, 4)): delete the folder {path.parent} "
        "and run again"
    )


def test_a_cache_of_another_format_version_is_refused(tmp_path: Path) -> None:
    folder = build(tmp_path, CountingReader()).folder
    (folder / "meta.json").write_text('{"version": 99, "settings": {}}')
    with pytest.raises(DataError) as caught:
        build(tmp_path, CountingReader())
    assert str(caught.value) == (
        f"{folder} is a cache of format 99, this version of Quintet reads format 1: delete the folder (it is built "
        "again) or choose another cache_dir"
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": {}}'])
def test_a_damaged_meta_file_is_refused(tmp_path: Path, content: str) -> None:
    folder = build(tmp_path, CountingReader()).folder
    (folder / "meta.json").write_text(content)
    with pytest.raises(DataError) as caught:
        build(tmp_path, CountingReader())
    assert str(caught.value).startswith(f"{folder / 'meta.json'} is damaged (")
    assert str(caught.value).endswith(f"): delete the folder {folder} and run again")


def test_too_little_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4_000_000}))
    reader = CountingReader()
    with pytest.raises(DataError) as caught:
        build_cache(tmp_path, range(99), "x" * 99, reader, (12, 5000), "int16", {}, Problems())
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert str(caught.value) == (
        f"the cache needs 0.01 GB and {folder} has 0.00 GB free: make room, or set data.init_args.cache_dir to another "
        "disk"
    )
    assert reader.asked == []
    assert not (folder / "array.npy").exists()


class FullDisk:
    """A file whose writes fail with ENOSPC after the first `left` of them, as its close does with a full buffer."""

    def __init__(self, file: Any, left: int, error: int) -> None:
        self.file, self.left, self.error = file, left, error

    def write(self, data: Any) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.error, os.strerror(self.error))
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        if self.left < 0:
            raise OSError(self.error, os.strerror(self.error))


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, name: str, left: int, error: int = errno.ENOSPC) -> None:
    whole_open = Path.open

    def open_on_full_disk(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = whole_open(path, mode, *args, **kwargs)
        return FullDisk(file, left, error) if path.name == name and mode != "rb" else file

    monkeypatch.setattr(Path, "open", open_on_full_disk)


@pytest.mark.parametrize(
    ("name", "left", "kept"), [("array.npy", 2, 2), ("journal.jsonl", 3, 3), ("array.partial", 0, 0)]
)
def test_a_disk_that_fills_up_is_said_and_the_build_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, left: int, kept: int
) -> None:
    with monkeypatch.context() as patch:
        fill_the_disk(patch, name, left)
        with pytest.raises(DataError) as caught:
            build(tmp_path, CountingReader())
    folder = next(tmp_path.iterdir())
    assert str(caught.value) == (
        f"the disk of {folder} is full: make room and run again (it goes on where it stopped), or set "
        "data.init_args.cache_dir to another disk"
    )
    reader = CountingReader()
    assert np.array_equal(build(tmp_path, reader).array, expected())
    assert reader.asked == list(range(kept * CHUNK, ROWS))


def test_another_failure_to_write_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch, "array.npy", 1, errno.EIO)
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EIO))):
        build(tmp_path, CountingReader())


# --- the hash of each row ---


def test_every_row_has_the_hash_of_its_content_and_equal_rows_have_equal_ones(tmp_path: Path) -> None:
    sources = [3, 1, 3, *range(4, 2 * CHUNK), 1]
    content = build(tmp_path, CountingReader(), sources=sources).content
    assert content.dtype == np.uint64
    assert content.tolist() == [
        int.from_bytes(hashlib.blake2b(row_of(source).tobytes(), digest_size=8).digest(), sys.byteorder)
        for source in sources
    ]
    assert content[0] == content[2]
    assert content[1] == content[-1]
    assert len(set(content.tolist())) == len(sources) - 2


def test_the_hashes_are_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path, CountingReader())
    assert sorted(path.name for path in first.folder.glob("content*")) == ["content.npz"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a row is hashed again")

    monkeypatch.setattr(hashlib, "blake2b", refuse)
    assert build(tmp_path, CountingReader()).content.tolist() == first.content.tolist()


def shorten(path: Path, cache: ArrayCache) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path: Path, cache: ArrayCache) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(cache.content.tobytes())] ^= 1
    path.write_bytes(content)


def of_another_array(path: Path, cache: ArrayCache) -> None:
    np.savez(path, content=np.zeros(ROWS, np.uint64), checksums=np.array(cache.checksums) + 1)


def of_fewer_rows(path: Path, cache: ArrayCache) -> None:
    np.savez(path, content=np.zeros(ROWS - 1, np.uint64), checksums=np.array(cache.checksums))


def without_checksums(path: Path, cache: ArrayCache) -> None:
    np.savez(path, content=np.zeros(ROWS, np.uint64))


@pytest.mark.parametrize(
    "change",
    [
        lambda path, cache: path.unlink(),
        lambda path, cache: path.write_bytes(b"no archive"),
        lambda path, cache: path.write_bytes(b""),
        shorten,
        flip_a_byte,
        of_another_array,
        of_fewer_rows,
        without_checksums,
    ],
    ids=[
        "missing",
        "no archive",
        "empty",
        "shortened",
        "flipped byte",
        "other checksums",
        "fewer rows",
        "no checksums",
    ],
)
def test_hashes_that_are_damaged_or_of_another_array_are_computed_again(
    tmp_path: Path, change: Callable[[Path, ArrayCache], None]
) -> None:
    first = build(tmp_path, CountingReader())
    path = first.folder / "content.npz"
    kept = path.read_bytes()
    change(path, first)
    assert not path.is_file() or path.read_bytes() != kept
    reader = CountingReader()
    assert build(tmp_path, reader).content.tolist() == first.content.tolist()
    assert reader.asked == []
    with np.load(path) as repaired:
        assert repaired["content"].tolist() == first.content.tolist()
        assert repaired["checksums"].tolist() == list(first.checksums)
