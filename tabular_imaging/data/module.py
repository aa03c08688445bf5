"""Batches, and what every data module here shares: schema, image cache, splits, loaders.

table of samples -> `Schema` fitted on the training rows -> standardised and coded `(N, M)` table, and the uint8 cache
of the images -> `ImageTableBatch`. Images stay uint8 until they are on the model's device.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shared.data.arrays import ArrayCache
from shared.data.images import Fit, ImageSettings, image_cache
from shared.data.problems import DataError, OnError, Problems
from shared.data.samplers import batch_loader
from shared.data.splits import nested_subsets
from tabular_imaging.data.cells import category_name, natural_order, tidy
from tabular_imaging.data.impute import impute
from tabular_imaging.data.schema import ColumnTypes, Schema, encode, fit_schema, infer_kinds

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
Metric = Literal["accuracy", "auroc"]
Purpose = Literal["pretrain", "evaluate"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
RESERVED = ("id", "image", "split")  # columns of a frame that are no features
NO_LABEL = -1
SAMPLES = "samples.csv"  # id and split of the samples that a run was trained on, in its folder


class ImageTableBatch(NamedTuple):
    """One batch of samples.

    Attributes:
        image: `(B, C, S, S)` uint8, as cached.
        table: `(B, M)` float32: standardised values of continuous columns, codes of categorical ones.
        target: `(B,)` int64, index of the class; -1 for a sample without a label.
        row: `(B,)` int64, row of `TabularImagingDataModule.frame`.
    """

    image: Tensor
    table: Tensor
    target: Tensor
    row: Tensor


class PairDataset(Dataset[ImageTableBatch]):
    """Gathers whole batches from the memory map: an item is asked for by a list of positions."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        image_rows: NDArray[np.int64],
        table: NDArray[np.float32],
        target: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self.images, self.image_rows = images, image_rows
        self.table, self.target, self.rows = table, target, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> ImageTableBatch:
        rows = self.rows[positions]
        return ImageTableBatch(
            image=torch.from_numpy(self.images[self.image_rows[rows]]),
            table=torch.from_numpy(self.table[rows]),
            target=torch.from_numpy(self.target[rows]),
            row=torch.from_numpy(rows),
        )


class TabularImagingDataModule(pl.LightningDataModule, ABC):
    """What the data modules share. A subclass says what its samples are, in `read_frame`.

    Args:
        root: Folder of the data set.
        cache_px: Side of the cached images: what augmentation crops from (paper, section 4.1: 300, cardiac 210).
        channels: Of the images: 1, 2 (arrays) or 3.
        fit: How an image that is not square gets its side; see `shared.data.images.ImageSettings`.
        batch_size: Global batch size (the authors' code: 512).
        metric: What runs are compared by: top-1 accuracy, or the area under the ROC curve for two unbalanced classes
            (section 4.2).
        columns: Types of the table's columns where inference shall not decide.
        label_fraction: Share of the labels of training samples that are used, each class's alike; the other samples are
            there to pre-train on (section 4.4). Validation and test keep theirs.
        on_error: What happens to a sample that cannot be used; skipped ones are listed in `skipped.csv` beside the
            cache.
        cache_dir: Where caches are written.
        num_workers: Loader processes. Batches are gathered from a memory map, so 0 is the fastest on most machines.
        seed: Order of the training batches; the CLI sets it to `seed_everything`.

    Raises:
        DataError: `label_fraction` is no share.

    Attributes:
        purpose: Which samples the loaders for training and validation give, see `rows`; a supervised model asks for
            those to evaluate on.
    """

    name = "pairs"
    label_mode: Literal["single"] = "single"

    def __init__(
        self,
        root: str,
        cache_px: int = 300,
        channels: int = 3,
        fit: Fit = "stretch",
        batch_size: int = 512,
        metric: Metric = "accuracy",
        columns: ColumnTypes | None = None,
        label_fraction: float = 1.0,
        on_error: OnError = "raise",
        cache_dir: str = "data/cache",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < label_fraction <= 1:
            raise DataError(f"label_fraction must be above 0 and at most 1, got {label_fraction}")
        self.root = Path(root)
        self.image_settings = ImageSettings(cache_px, channels, fit)
        self.batch_size = batch_size
        self.metric = metric
        self.columns = columns or ColumnTypes()
        self.label_fraction = label_fraction
        self.on_error = on_error
        self.cache_dir = Path(cache_dir)
        self.num_workers = num_workers
        self.seed = seed
        self.purpose: Purpose = "pretrain"
        self.frame = pd.DataFrame()
        self._loaded: tuple[pd.DataFrame, ArrayCache, Problems] | None = None

    @property
    @abstractmethod
    def target_column(self) -> str | None:
        """Column of the class; None for samples without classes."""

    @abstractmethod
    def read_frame(self, report: Problems) -> pd.DataFrame:
        """One row a sample: `id`, `image` (path), `split` (train, val, test), the features, and the target."""

    @property
    def classes(self) -> list[str]:
        """Names of the target's values."""
        return list(self.schema.classes)

    def prepare_data(self) -> None:
        """Build the image cache (one process only)."""
        self._loaded = self._load()

    def setup(self, stage: str | None = None) -> None:
        """Read the table, open the cache, fit the schema on the training rows and encode."""
        if len(self.frame):
            return
        # The process that prepared the data has verified the cache already; the others have not.
        frame, cache, report = self._loaded or self._load()
        self._loaded = None
        usable = np.ones(len(frame), dtype=bool)
        usable[list(cache.problems)] = False
        frame, self.images = frame[usable].reset_index(drop=True), cache.array
        self.image_rows = np.flatnonzero(usable)  # rows of the cache
        self.split = frame["split"].to_numpy()
        train = self.split == "train"
        if not train.any():
            raise DataError(f"no training sample is left under {self.root} ({report.summary()})")
        target = self.target_column
        labels = tidy(frame[target]).map(category_name, na_action="ignore") if target else pd.Series(index=frame.index)
        classes = natural_order(labels[train].dropna().unique())
        for row in np.flatnonzero(labels.notna() & ~labels.isin(classes)):
            report.problem(
                str(frame["id"][row]), f"{target} {labels[row]} has no training sample; the sample counts as unlabelled"
            )
        reserved = [*RESERVED, *([target] if target else [])]
        kinds = infer_kinds(frame, self.columns, reserved)
        self.schema: Schema = fit_schema(frame[train], kinds, self.columns, target, classes)
        # A rare category may have no training row: its value is imputed, which is no reason to lose the sample.
        unseen = Problems("skip", noun="value")
        values = encode(frame, self.schema, unseen, str(self.root))
        unseen.write(cache.folder / "unseen_values.csv")
        self.table = impute(values, np.flatnonzero(train), self.schema)
        self.target = pd.Index(classes, dtype=object).get_indexer(pd.Index(labels)).astype(np.int64)  # -1: no label
        labelled = np.flatnonzero(train & (self.target != NO_LABEL))
        if self.label_fraction < 1 and len(labelled):
            (kept,) = nested_subsets(self.target, labelled, [self.label_fraction]).values()
            self.target[np.setdiff1d(labelled, kept)] = NO_LABEL
        report.write(cache.folder / "skipped.csv")
        self.frame = frame
        self._describe()

    def _describe(self) -> None:
        """Log what was understood of the data: a wrong guess is better seen before the training than after it."""
        kinds = [column.kind for column in self.schema.columns]
        sizes = ", ".join(f"{split} {(self.split == split).sum():,}" for split in SPLITS)
        log.info(
            "%s: %s samples (%s; %s labels to train on), %d classes; %d continuous and %d categorical columns, %d of "
            "them morphometric",
            self.name,
            f"{len(self.frame):,}",
            sizes,
            f"{len(self.rows('train', 'evaluate')):,}",
            len(self.classes),
            kinds.count("continuous"),
            kinds.count("categorical"),
            sum(self.schema.morphometric),
        )

    def _load(self) -> tuple[pd.DataFrame, ArrayCache, Problems]:
        if not self.root.is_dir():
            raise DataError(
                f"no folder {self.root}: pass the data set's root as --data.init_args.root (make: DATA=...)"
            )
        report = Problems(self.on_error, noun="sample")
        frame = self.read_frame(report)
        if frame.empty:
            raise DataError(f"no sample found for {type(self).__name__} under {self.root} ({report.summary()})")
        paths = [Path(path) for path in frame["image"]]
        folder = self.cache_dir / self.name
        cache = image_cache(folder, paths, frame["id"].astype(str).tolist(), self.image_settings, report)
        return frame.reset_index(drop=True), cache, report

    def rows(self, split: Split, purpose: Purpose) -> NDArray[np.int64]:
        """Rows of a split: all of them to pre-train on, those with a label to evaluate on."""
        wanted = self.target != NO_LABEL if purpose == "evaluate" else np.ones(len(self.target), dtype=bool)
        return np.flatnonzero((self.split == split) & wanted)

    def loader(
        self, rows: NDArray[np.int64], train: bool = False, batch_size: int | None = None
    ) -> DataLoader[ImageTableBatch]:
        """Batches of the given rows, in their order, or shuffled by (seed, epoch) for training."""
        dataset = PairDataset(self.images, self.image_rows, self.table, self.target, rows)
        size = batch_size or self.batch_size
        if train and len(rows) < size:
            log.warning("%d training samples do not fill a batch of %d: each step takes all of them", len(rows), size)
            size = len(rows)
        return batch_loader(dataset, size, train, self.seed, self.num_workers)

    def train_dataloader(self) -> DataLoader[ImageTableBatch]:
        """Shuffled training samples."""
        return self.loader(self.rows("train", self.purpose), train=True)

    def val_dataloader(self) -> DataLoader[ImageTableBatch]:
        """Validation samples."""
        rows = self.rows("val", self.purpose)
        if len(rows) < 2:
            raise DataError("the validation split needs at least 2 samples, whatever the method; change the split")
        return self.loader(rows)

    def test_dataloader(self) -> DataLoader[ImageTableBatch]:
        """Labelled test samples."""
        return self.loader(self.rows("test", "evaluate"))

    def predict_dataloader(self) -> DataLoader[ImageTableBatch]:
        """Every usable sample, in the table's order."""
        return self.loader(np.arange(len(self.frame)))

    def batches(self, rows: NDArray[np.int64], batch_size: int | None = None) -> Iterator[ImageTableBatch]:
        """Batches of the given rows, in their order, for use without a Trainer."""
        yield from self.loader(rows, batch_size=batch_size)
