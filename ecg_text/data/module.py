"""Batches, and what all ECG data modules share: the cache of the signals, targets, and reports.

raw records -> `ecg_text.data.records.load_signal` -> int16 memory map -> `ECGBatch` -> `normalize` on the model's
device.
"""

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ecg_text.data.records import LEADS, SignalSettings, Source, load_signal, record_stem
from shared.checkpoint import saved_data_settings
from shared.data.arrays import ArrayCache, build_cache, fingerprint
from shared.data.module import DataModule, Purpose
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLITS, Split

log = logging.getLogger(__name__)

RECORD_SUFFIXES = (".hea", ".dat", ".mat")  # suffixes of a record's files
SMALLEST_SCALE = 1e-3  # microvolts; keeps a silent lead at zero
SIGNAL_ARGUMENTS = ("sampling_rate", "duration", "leads", "normalize")  # saved in every checkpoint


class ECGBatch(NamedTuple):
    """One batch of records.

    Attributes:
        signal: `(B, L, T)` signals; int16 microvolts from the loader, float32 after `normalize`.
        report: `(B,)` int64 index into `ECGDataModule.reports`; -1 for a record without a report.
        target: `(B, C)` float32 in {0, 1}.
        labelled: `(B,)` bool, whether the record is evaluated on (see `label_mode`).
        row: `(B,)` int64 row of `ECGDataModule.frame`.
        patient: `(B,)` int64 number of the patient, shared by all records of that patient.
    """

    signal: Tensor
    report: Tensor
    target: Tensor
    labelled: Tensor
    row: Tensor
    patient: Tensor


def normalize(signal: Tensor, mode: str) -> Tensor:
    """Turn microvolts `(B, L, T)` into the encoder's float32 input; the modes are those of `SignalSettings`."""
    # In place on a single copy: the page faults of every further array of this size cost ten times the arithmetic.
    x = signal.to(torch.float32, copy=True)
    if mode == "none":
        return x.div_(1000)  # millivolts
    if mode == "minmax":
        low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
        return x.sub_(low).div_((high - low).clamp_min_(SMALLEST_SCALE))
    if mode not in ("lead", "record"):
        raise ValueError(f"normalize must be lead, record, minmax or none, got {mode!r}")
    over = (2,) if mode == "lead" else (1, 2)
    x.sub_(x.mean(2, keepdim=True))
    count = math.prod(x.shape[axis] for axis in over)
    std = torch.linalg.vector_norm(x, dim=over, keepdim=True).mul_(count**-0.5)
    return x.div_(std.clamp_min_(SMALLEST_SCALE))


class RecordDataset(Dataset[ECGBatch]):
    """Gathers whole batches from the memory map: its index is a list of positions."""

    def __init__(
        self,
        array: NDArray[np.int16],
        array_rows: NDArray[np.int64],
        rows: NDArray[np.int64],
        report: NDArray[np.int64],
        target: NDArray[np.float32],
        labelled: NDArray[np.bool_],
        patient: NDArray[np.int64],
    ) -> None:
        self.array, self.array_rows, self.rows = array, array_rows, rows
        self.report, self.target, self.labelled, self.patient = report, target, labelled, patient

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> ECGBatch:
        rows = self.rows[positions]
        return ECGBatch(
            signal=torch.from_numpy(self.array[self.array_rows[rows]]),
            report=torch.from_numpy(self.report[rows]),
            target=torch.from_numpy(self.target[rows]),
            labelled=torch.from_numpy(self.labelled[rows]),
            row=torch.from_numpy(rows),
            patient=torch.from_numpy(self.patient[rows]),
        )


class ECGDataModule(DataModule[ECGBatch]):
    """What the ECG data modules share. A subclass reads its records and classes in `read_frame` and `read_classes`.

    Args:
        root: Folder that holds the data set.
        sampling_rate: Rate in Hz that every record is resampled to.
        duration: Seconds that are kept of each record.
        leads: Names of the leads, in the order of the channels; by default the usual twelve.
        normalize: How signals are normalised, see `SignalSettings`.
        label_mode: `"single"` evaluates on records with exactly one label, as the paper does (section 3.1);
            `"multi"` evaluates on all records with a label.
        missing_classes: What to do with a class that has no record in one of the splits: `raise` an error, or `drop`
            the class and log it.
        **kwargs: Further arguments of `DataModule`; the paper's `batch_size` is 128 (section 3.2).

    Attributes:
        class_names: Names by class code, in the order of the target's columns.
        target: `(N, C)` float32 in {0, 1}.
        labelled: `(N,)` bool, whether a record is evaluated on.
        reports: The distinct reports.
        report: `(N,)` int64 index of each record's report in `reports`; -1 for a record without one.
    """

    name = "ecg"
    noun = "record"
    file_columns = ("path",)
    group_name = "patient"

    def __init__(
        self,
        root: str,
        sampling_rate: int = 500,
        duration: float = 10.0,
        leads: list[str] | None = None,
        normalize: Literal["lead", "record", "minmax", "none"] = "record",
        label_mode: Literal["single", "multi"] = "single",
        missing_classes: Literal["raise", "drop"] = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.save_hyperparameters(*SIGNAL_ARGUMENTS, logger=False)  # Lightning puts them into the checkpoint
        self.signal_settings = SignalSettings(sampling_rate, duration, tuple(leads or LEADS), normalize)
        self.label_mode = label_mode
        self.missing_classes = missing_classes
        self.class_names: dict[str, str] = {}
        self.reports: list[str] = []

    @abstractmethod
    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row per record: `id, path, report, labels (list of codes), split, age, sex, patient`."""

    @abstractmethod
    def read_classes(self) -> dict[str, str]:
        """Names by class code, in the order of the target's columns."""

    @property
    def classes(self) -> list[str]:
        """Codes of the target's columns."""
        return list(self.class_names)

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        """The signals, `(n, L, T)` int16 microvolts."""
        # Signals are normalised after they are read from the cache, so the mode is not part of the cache's identity.
        settings = replace(self.signal_settings, normalize="none")
        return build_cache(
            self.cache_dir / self.name,
            [Source(path, settings) for path in frame["path"]],
            names=[str(path) for path in frame["path"]],
            read=load_signal,
            row_shape=(len(settings.leads), settings.samples),
            dtype="int16",
            settings={"signal": str(settings), "files": fingerprint(frame["path"], RECORD_SUFFIXES, record_stem)},
            problems=problems,
        )

    def make_arrays(self, frame: pd.DataFrame, problems: Problems) -> None:
        """Make the targets and reports."""
        self.class_names = self.read_classes()
        self._make_targets(frame)
        self._index_reports(frame, problems)

    @property
    def patient(self) -> NDArray[np.int64]:
        """`(N,)` number of each record's patient."""
        return self.groups

    def content(self) -> Sequence[Any]:
        """The classes with their names, the targets, and which records are evaluated on."""
        return [self.class_names, self.target, self.labelled]

    def suits(self, purpose: Purpose) -> NDArray[np.bool_]:
        """Which records suit a purpose: those with labels to evaluate on, or those to pre-train on.

        Every method pre-trains only on the records with a report, so that methods can be compared, or on all of them if
        the data set has no reports.
        """
        return self.labelled if purpose == "evaluate" else (self.report >= 0) | (not self.reports)

    def dataset(self, rows: NDArray[np.int64]) -> RecordDataset:
        """The records of the given rows."""
        return RecordDataset(self.array, self.array_rows, rows, self.report, self.target, self.labelled, self.patient)

    def on_after_batch_transfer(self, batch: ECGBatch, dataloader_idx: int = 0) -> ECGBatch:
        """Normalise on the model's device: int16 is transferred, and float32 is only made where it is used."""
        return batch._replace(signal=normalize(batch.signal, self.signal_settings.normalize))

    def _make_targets(self, frame: pd.DataFrame) -> None:
        labels = frame["labels"]
        self.target, self.labelled = self._targets(labels)
        absent = {
            code: [split for split in SPLITS if self._lacks(code, split)]
            for code in self.classes
            if any(self._lacks(code, split) for split in SPLITS)
        }
        if absent:
            listed = "; ".join(f"{code} in {', '.join(splits)}" for code, splits in absent.items())
            if self.missing_classes == "raise":
                raise DataError(
                    f"classes without a {self.label_mode}-label record: {listed}. Use another split or label_mode, or "
                    "leave these classes out with --data.init_args.missing_classes drop"
                )
            log.warning("classes dropped, because they have no %s-label record: %s", self.label_mode, listed)
            self.class_names = {code: name for code, name in self.class_names.items() if code not in absent}
            if not self.class_names:
                raise DataError("no class has a record in every split: use more records or another split")
            self.target, self.labelled = self._targets(labels)

    def _targets(self, labels: "pd.Series[Any]") -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Targets of the remaining classes; the label mode counts a record's labels before classes are dropped."""
        target = np.array([[code in codes for code in self.classes] for codes in labels], dtype=np.float32)
        counts = np.array([len(codes) for codes in labels])
        labelled = target.any(1).astype(bool)
        if self.label_mode == "single":
            labelled &= counts == 1
        return target, labelled

    def _lacks(self, code: str, split: Split) -> bool:
        inside = (self.split == split) & self.labelled
        return bool((self.split == split).any()) and not self.target[inside, self.classes.index(code)].any()

    def _index_reports(self, frame: pd.DataFrame, problems: Problems) -> None:
        texts = frame["report"].astype(object).fillna("").astype(str).str.strip()
        self.report = np.full(len(frame), -1, dtype=np.int64)
        if not texts.any():  # a data set without reports can be evaluated on, but ETP cannot be pre-trained on it
            return
        needed = np.isin(self.split, ("train", "val"))
        for row in np.flatnonzero((texts == "").to_numpy() & needed):
            problems.add(str(frame["path"].iloc[row]), "empty report")
        codes, distinct = pd.factorize(texts.where(texts != ""))
        self.report = codes.astype(np.int64)
        self.reports = [str(text) for text in distinct]


def saved_signal_settings(checkpoint: str | Path) -> SignalSettings:
    """How the signals that a model was trained on were prepared, read from its checkpoint.

    Raises:
        CheckpointError: The file is not a checkpoint of ours, or the training did not use one of these data modules.
    """
    saved = saved_data_settings(checkpoint, SIGNAL_ARGUMENTS)
    return SignalSettings(saved["sampling_rate"], saved["duration"], tuple(saved["leads"] or LEADS), saved["normalize"])


def usable_rows(frame: pd.DataFrame, kind: str, root: Path, problems: Problems) -> pd.DataFrame:
    """The rows with a unique id, a path under `root` and a known split; the others are reported."""
    inside = os.path.join(os.path.abspath(root), "")
    splits = frame["split"] if "split" in frame.columns else [SPLITS[0]] * len(frame)
    seen: set[str] = set()
    keep = []
    for row_id, path, split in zip(frame["id"], frame["path"], splits, strict=True):
        reason = None
        if row_id in seen:
            reason = "occurs twice"
        elif not os.path.abspath(path).startswith(inside):
            reason = f"the path {path} leads out of {root}"
        elif split not in SPLITS:
            reason = f"has the split {split!r}; expected train, val or test"
        if reason:
            problems.add(f"{kind} {row_id}", reason)
        seen.add(row_id)
        keep.append(reason is None)
    return frame[np.array(keep, dtype=bool)].reset_index(drop=True)
