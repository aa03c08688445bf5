"""The base of every data module: one row a sample, a cache that is built once, splits, loaders, what a run keeps.

A subclass says what its samples are (`read_frame`), where their arrays are kept (`open_cache`, where there is a cache),
what is made of the frame (`make_arrays`) and how a batch is gathered (`dataset`).
"""

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from numpy.typing import NDArray
from pandas.api.types import is_object_dtype
from torch.utils.data import DataLoader, Dataset

from shared.data.arrays import ArrayCache
from shared.data.groups import check_groups, group_codes, group_names, identical_across_parts
from shared.data.problems import DataError, OnError, Problems
from shared.data.samplers import batch_loader
from shared.data.splits import SPLITS

log = logging.getLogger(__name__)

Purpose = Literal["pretrain", "evaluate"]
SAMPLES = "samples.csv"  # in a run's folder: id, split and, if known, group of every sample
DATA = "data.json"  # in a run's folder: the fingerprint of the data

BatchT = TypeVar("BatchT")


class DataModule(pl.LightningDataModule, ABC, Generic[BatchT]):
    """What the data modules share.

    Args:
        root: Folder of the data set.
        batch_size: Global batch size, divided among the processes.
        on_error: What happens to a sample that cannot be used; skipped ones are listed in `skipped.csv` beside the
            cache.
        cache_dir: Folder that caches are written to.
        num_workers: Number of loader processes. Batches are gathered from a memory map, so 0 is the fastest on most
            machines.
        seed: Seed of the order of the training batches; the CLI sets it to `seed_everything`.
        allow_shared_groups: Whether samples of one group, such as a patient, may be in several parts of the split; that
            is then only a warning.

    Attributes:
        name: Of the data set; the folder of its caches.
        noun: What a sample is called in messages, in the singular.
        splits: Names of the parts to train on, to select on and to report on, in this order.
        file_columns: Columns of the frame that say where a sample's files are; they are no part of its content.
        group_name: Column of the frame that says which samples belong together, such as all of a patient; None without.
        run_files: What `save` writes into a run's folder.
        frame: One row a sample, without those that could not be read; empty before `setup`.
        split: `(N,)`, the part that each sample belongs to.
        array: `(n, ...)` memory map of the cache, `array_rows` `(N,)` the row in it of each sample; see `cached`.
        purpose: Which samples the loaders for training and validation give, see `rows`; a supervised model asks for
            those to evaluate on.
    """

    name: str = "data"
    noun: ClassVar[str] = "sample"
    splits: ClassVar[tuple[str, str, str]] = SPLITS
    file_columns: ClassVar[tuple[str, ...]] = ()
    group_name: str | None = None
    run_files: ClassVar[tuple[str, ...]] = (SAMPLES, DATA)

    def __init__(
        self,
        root: str,
        batch_size: int = 128,
        on_error: OnError = "raise",
        cache_dir: str = "data/cache",
        num_workers: int = 0,
        seed: int = 0,
        allow_shared_groups: bool = False,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = batch_size
        self.on_error = on_error
        self.cache_dir = Path(cache_dir)
        self.num_workers = num_workers
        self.seed = seed
        self.allow_shared_groups = allow_shared_groups
        self.purpose: Purpose = "pretrain"
        self.frame = pd.DataFrame()
        self._cache: ArrayCache | None = None
        self._loaded: tuple[pd.DataFrame, ArrayCache | None, Problems] | None = None

    @abstractmethod
    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row a sample: `id`, `split`, and what else the subclass knows; `problems` gets those left out."""

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache | None:
        """The cache, a row for each of the frame, built first where needed; None where batches are read from files."""
        return None

    def make_arrays(self, frame: pd.DataFrame, problems: Problems) -> None:
        """Make what batches are gathered from and the frame does not hold, such as targets; `self.split` is there."""
        return

    @abstractmethod
    def dataset(self, rows: NDArray[np.int64]) -> Dataset[BatchT]:
        """The samples of the given rows: `dataset[positions]` is a batch, `positions` a list of indices into `rows`."""

    def prepare_data(self) -> None:
        """Build the cache (one process only)."""
        self._loaded = self._load()

    def setup(self, stage: str | None = None) -> None:
        """Read the frame, open the cache, leave out what could not be read, and make the arrays; once.

        Raises:
            DataError: The root does not exist, no sample is left, one cannot be used (see `on_error`), or a group is in
                several parts of the split.
        """
        if len(self.frame):
            return
        # The process that prepared the data has verified the cache already; the others have not.
        frame, cache, problems = self._loaded or self._load()
        self._loaded = None
        if cache is not None:
            self._cache, self.array = cache, cache.array
            self.array_rows = np.setdiff1d(np.arange(len(frame)), list(cache.unreadable))
            frame = frame.iloc[self.array_rows].reset_index(drop=True)
        if frame.empty:
            raise DataError(f"no {self.noun} is left under {self.root} ({problems.summary()})")
        self.split: NDArray[np.object_] = frame["split"].to_numpy(dtype=object)
        self._check_parts(frame)
        self.make_arrays(frame, problems)
        problems.write(self.folder / "skipped.csv")
        self.frame = frame

    def _check_parts(self, frame: pd.DataFrame) -> None:
        """Look for what leaks from one part to another: groups that are shared, and identical contents."""
        names = frame["id"].astype(str).tolist()
        if self.group_name:
            check_groups(self.split, frame[self.group_name], names, self.noun, self.allow_shared_groups)
        if self._cache is not None:
            content = self._cache.content[self.array_rows]
            if said := identical_across_parts(self.split, content, names):
                log.warning("%ss of %s: %s", self.noun, self.root, said)

    def _load(self) -> tuple[pd.DataFrame, ArrayCache | None, Problems]:
        if not self.root.is_dir():
            raise DataError(
                f"no folder {self.root}: pass the data set's root as --data.init_args.root (make: DATA=...)"
            )
        problems = Problems(self.on_error, self.noun)
        frame = self.read_frame(problems).reset_index(drop=True)
        if frame.empty:
            raise DataError(f"no {self.noun} found for {type(self).__name__} under {self.root} ({problems.summary()})")
        return frame, self.open_cache(frame, problems), problems

    @property
    def folder(self) -> Path:
        """Where lists of samples left out go: beside the cache."""
        return self.cache_dir / self.name if self._cache is None else self._cache.folder

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """`(N,)`: number of the group, such as the patient, that each sample belongs to; by default each is its own."""
        if self.group_name is None:
            return np.arange(len(self.frame))
        return group_codes(self.frame[self.group_name])

    def cached(self, rows: NDArray[np.int64] | int) -> NDArray[Any]:
        """The cache's content of the given rows of the frame, a copy `(R, ...)`."""
        content: NDArray[Any] = self.array[self.array_rows[rows]]
        return content

    def suits(self, purpose: Purpose) -> NDArray[np.bool_]:
        """`(N,)`: which samples can be pre-trained or evaluated on, whatever their split."""
        return np.ones(len(self.split), dtype=bool)

    def rows(self, split: str, purpose: Purpose) -> NDArray[np.int64]:
        """Rows of the frame in a split: those to pre-train on, or those with labels to evaluate on.

        Raises:
            ValueError: There is no such split.
        """
        if split not in self.splits:
            raise ValueError(f"split must be one of {', '.join(self.splits)}, got {split!r}")
        return np.flatnonzero((self.split == split) & self.suits(purpose))

    def loader(self, rows: NDArray[np.int64], train: bool = False, batch_size: int | None = None) -> DataLoader[BatchT]:
        """Batches of the given rows, in their order, or shuffled by (seed, epoch) for training."""
        return batch_loader(self.dataset(rows), batch_size or self.batch_size, train, self.seed, self.num_workers)

    def train_dataloader(self) -> DataLoader[BatchT]:
        """Shuffled training samples."""
        return self.loader(self.rows(self.splits[0], self.purpose), train=True)

    def val_dataloader(self) -> DataLoader[BatchT]:
        """Validation samples."""
        rows = self.rows(self.splits[1], self.purpose)
        if len(rows) < 2:
            raise DataError(
                f"the split {self.splits[1]} needs at least 2 {self.noun}s, whatever the method; change the split"
            )
        return self.loader(rows)

    def test_dataloader(self) -> DataLoader[BatchT]:
        """Labelled test samples."""
        return self.loader(self.rows(self.splits[2], "evaluate"))

    def predict_dataloader(self) -> DataLoader[BatchT]:
        """Every usable sample, in the frame's order."""
        return self.loader(np.arange(len(self.frame)))

    def batches(self, rows: NDArray[np.int64], batch_size: int | None = None) -> Iterator[BatchT]:
        """Batches of the given rows, in their order, as the model gets them, for use without a Trainer."""
        for batch in self.loader(rows, batch_size=batch_size):
            yield self.on_after_batch_transfer(batch, dataloader_idx=0)

    def content(self) -> Sequence[Any]:
        """What `fingerprint` covers beside the frame and the cache: arrays and JSON values, in a fixed order.

        Targets, names of classes and the like; without a cache, also what is in the files.
        """
        return ()

    def fingerprint(self) -> str:
        """Digest of what the data hold after `setup`: 16 hexadecimal digits.

        It covers the frame, the cached arrays and `content`, and nothing of where the data are or how batches are
        drawn: a copy in another folder has the same fingerprint, one changed pixel, label or split another.
        """
        digest = hashlib.sha256()
        frame = self.frame.drop(columns=list(self.file_columns))
        frame = frame.astype({name: str for name, kind in frame.dtypes.items() if is_object_dtype(kind)})  # lists, say
        rows = pd.util.hash_pandas_object(frame, index=False, categorize=False).to_numpy()
        parts: list[Any] = [list(map(str, frame.columns)), rows, *self.content()]
        if self._cache is not None:
            parts += [self._cache.checksums, self.array.dtype.str, self.array.shape, self.array_rows]
        for part in parts:
            if isinstance(part, np.ndarray):
                digest.update(f"{part.dtype.str} {part.shape}\n".encode())
                digest.update(np.ascontiguousarray(part).data)
            else:
                digest.update(json.dumps(part).encode() + b"\n")
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write what a run keeps of its data, `run_files`, into its folder: samples and splits, and the fingerprint."""
        folder.mkdir(parents=True, exist_ok=True)
        samples = self.frame[["id", "split"]]
        if self.group_name:
            samples = samples.assign(group=group_names(self.frame[self.group_name]))
        samples.to_csv(folder / SAMPLES, index=False)
        (folder / DATA).write_text(json.dumps({"fingerprint": self.fingerprint()}) + "\n")


def saved_fingerprint(run: Path) -> str:
    """Fingerprint of the data that a run was trained on, as `DataModule.save` wrote it; empty if it is not there."""
    file = run / DATA
    return str(json.loads(file.read_text(encoding="utf-8"))["fingerprint"]) if file.is_file() else ""


def check_unseen(run: Path, data: DataModule[Any]) -> None:
    """Check that the test samples, or others of their groups, were neither trained nor selected on.

    Splits move when rows are added to a table or removed from it, which no fingerprint of settings shows.

    Args:
        run: Folder of a run, with the `samples.csv` of its training; nothing is checked without it.
        data: The data that the run is to be evaluated on, set up.

    Raises:
        DataError: Some were.
    """
    if not (run / SAMPLES).is_file():
        return
    samples = pd.read_csv(run / SAMPLES, dtype=str, keep_default_na=False)
    used = samples[samples["split"].isin(data.splits[:2])]
    tested = data.frame.iloc[data.rows(data.splits[2], "evaluate")]
    ids = tested["id"].astype(str)
    seen = ids.isin(set(used["id"])).to_numpy(copy=True)
    whose = ""
    if "group" in used and data.group_name and not data.allow_shared_groups:
        seen |= group_names(tested[data.group_name]).isin(set(used["group"]) - {""}).to_numpy()
        whose = f", or others with the same {data.group_name},"
    if seen.any():
        raise DataError(
            f"{seen.sum()} of the {len(tested)} test {data.noun}s (the first is {ids[seen].iloc[0]}){whose} were "
            f"trained or selected on in {run}: its table or split has changed since. Train it again (--run.overwrite "
            "true)"
        )
