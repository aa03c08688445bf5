"""Batches, and what all data modules here share: the image cache, schema, encoded table, and targets.

table of samples -> `Schema` fitted on the training rows -> standardised and coded `(N, M)` table, and the uint8 cache
of the images -> `ImageTableBatch`. Images stay uint8 until they are on the model's device.
"""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shared.data.arrays import ArrayCache
from shared.data.cells import category_name, natural_order, tidy
from shared.data.images import Fit, ImageSettings, image_cache
from shared.data.module import DataModule, Purpose
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLITS, nested_subsets
from tabular_imaging.data.impute import impute
from tabular_imaging.data.schema import ColumnTypes, Schema, encode, fit_schema, infer_kinds

log = logging.getLogger(__name__)

Metric = Literal["accuracy", "auroc"]
RESERVED = ("id", "image", "split")  # columns of a frame that are not features
NO_LABEL = -1
SCHEMA = "schema.json"  # in a run's folder: the columns that its model was trained on


class ImageTableBatch(NamedTuple):
    """One batch of samples.

    Attributes:
        image: `(B, C, S, S)` uint8 images, as cached.
        table: `(B, M)` float32 table: standardised values of continuous columns, codes of categorical ones.
        target: `(B,)` int64 index of the class; -1 for a sample without a label.
        row: `(B,)` int64 row of `TabularImagingDataModule.frame`.
    """

    image: Tensor
    table: Tensor
    target: Tensor
    row: Tensor


class PairDataset(Dataset[ImageTableBatch]):
    """Gathers whole batches from the memory map: its index is a list of positions."""

    def __init__(
        self,
        array: NDArray[np.uint8],
        array_rows: NDArray[np.int64],
        table: NDArray[np.float32],
        target: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self.array, self.array_rows = array, array_rows
        self.table, self.target, self.rows = table, target, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> ImageTableBatch:
        rows = self.rows[positions]
        return ImageTableBatch(
            image=torch.from_numpy(self.array[self.array_rows[rows]]),
            table=torch.from_numpy(self.table[rows]),
            target=torch.from_numpy(self.target[rows]),
            row=torch.from_numpy(rows),
        )


class TabularImagingDataModule(DataModule[ImageTableBatch]):
    """What the data modules share. A subclass reads its samples in `read_frame`.

    Args:
        root: Folder that holds the data set.
        cache_px: Side of the cached images in pixels; augmentation crops from these (paper, section 4.1: 300, cardiac
            210).
        channels: Number of channels of the images: 1 or 3 for image files, any number for arrays.
        fit: How an image that is not square becomes square; see `shared.data.images.ImageSettings`.
        batch_size: Global batch size (the authors' code: 512).
        metric: Metric that runs are compared by: top-1 accuracy, or the area under the ROC curve for two unbalanced
            classes (section 4.2).
        columns: Types of the table's columns that are not to be inferred.
        label_fraction: Share of the training labels that is used, the same in every class; the other training samples
            count as unlabelled (section 4.4). Validation and test samples keep their labels.
        **kwargs: Further arguments of `DataModule`.

    Raises:
        DataError: `label_fraction` is not above 0 and at most 1.

    Attributes:
        schema: The columns of the table, fitted on the training rows.
        table: `(N, M)` float32 table, see `ImageTableBatch`; missing values are imputed.
        target: `(N,)` int64 index of the class; -1 for a sample without a label.
    """

    name = "pairs"
    file_columns = ("image",)
    run_files = (*DataModule.run_files, SCHEMA)
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
        **kwargs: Any,
    ) -> None:
        super().__init__(root, batch_size=batch_size, **kwargs)
        if not 0 < label_fraction <= 1:
            raise DataError(f"label_fraction must be above 0 and at most 1, got {label_fraction}")
        self.image_settings = ImageSettings(cache_px, channels, fit)
        self.metric = metric
        self.columns = columns or ColumnTypes()
        self.label_fraction = label_fraction

    @property
    @abstractmethod
    def target_column(self) -> str | None:
        """Column of the class; None if the samples have no classes."""

    @abstractmethod
    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row per sample: `id`, `image` (path), `split` (train, val, test), the features, and the target."""

    @property
    def classes(self) -> list[str]:
        """Names of the target's values."""
        return list(self.schema.classes)

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        """The images, `(n, C, S, S)` uint8."""
        paths, names = [Path(path) for path in frame["image"]], frame["id"].astype(str).tolist()
        return image_cache(self.cache_dir / self.name, paths, names, self.image_settings, problems)

    def make_arrays(self, frame: pd.DataFrame, problems: Problems) -> None:
        """Fit the schema on the training rows, encode the table, and number the classes."""
        train = self.split == "train"
        if not train.any():
            raise DataError(f"no training sample is left under {self.root} ({problems.summary()})")
        target = self.target_column
        labels = tidy(frame[target]).map(category_name, na_action="ignore") if target else pd.Series(index=frame.index)
        classes = natural_order(labels[train].dropna().unique())
        for row in np.flatnonzero(labels.notna() & ~labels.isin(classes)):
            problems.add(
                str(frame["id"][row]), f"{target} {labels[row]} has no training sample; the sample counts as unlabelled"
            )
        reserved = [*RESERVED, *filter(None, [target, self.group_name])]
        kinds = infer_kinds(frame, self.columns, reserved)
        self.schema: Schema = fit_schema(frame[train], kinds, self.columns, target, classes)
        # A rare category may have no training row: its value is then imputed rather than the sample lost.
        unseen = Problems("skip", noun="value")
        values = encode(frame, self.schema, unseen, str(self.root))
        unseen.write(self.folder / "unseen_values.csv")
        self.table = impute(values, np.flatnonzero(train), self.schema)
        self.target = pd.Index(classes, dtype=object).get_indexer(pd.Index(labels)).astype(np.int64)  # -1: no label
        labelled = np.flatnonzero(train & (self.target != NO_LABEL))
        if self.label_fraction < 1 and len(labelled):
            (kept,) = nested_subsets(self.target, labelled, [self.label_fraction]).values()
            self.target[np.setdiff1d(labelled, kept)] = NO_LABEL
        self._describe()

    def _describe(self) -> None:
        """Log how the data were understood: a wrong guess is better seen before the training than after it."""
        kinds = [column.kind for column in self.schema.columns]
        sizes = ", ".join(f"{split} {(self.split == split).sum():,}" for split in SPLITS)
        log.info(
            "%s: %s samples (%s; %s labels to train on), %d classes; %d continuous and %d categorical columns, %d of "
            "them morphometric",
            self.name,
            f"{len(self.split):,}",
            sizes,
            f"{len(self.rows('train', 'evaluate')):,}",
            len(self.classes),
            kinds.count("continuous"),
            kinds.count("categorical"),
            sum(self.schema.morphometric),
        )

    def content(self) -> Sequence[Any]:
        """The targets and the columns; the values are part of the frame, before they are encoded and imputed."""
        columns = [[c.name, c.kind, list(c.categories), c.morphometric] for c in self.schema.columns]
        return [self.target, self.schema.target, self.classes, columns]

    def save(self, folder: Path) -> None:
        """As `DataModule.save`, and also write the schema."""
        super().save(folder)
        self.schema.save(folder / SCHEMA)

    def suits(self, purpose: Purpose) -> NDArray[np.bool_]:
        """Which samples suit a purpose: all of them to pre-train on, those with a label to evaluate on."""
        return super().suits(purpose) if purpose == "pretrain" else self.target != NO_LABEL

    def dataset(self, rows: NDArray[np.int64]) -> PairDataset:
        """The samples of the given rows."""
        return PairDataset(self.array, self.array_rows, self.table, self.target, rows)

    def loader(
        self, rows: NDArray[np.int64], train: bool = False, batch_size: int | None = None
    ) -> DataLoader[ImageTableBatch]:
        """As `DataModule.loader`, but training samples that do not fill a batch make up a smaller one."""
        size = batch_size or self.batch_size
        if train and len(rows) < size:
            log.warning("%d training samples do not fill a batch of %d: each step takes all of them", len(rows), size)
            size = len(rows)
        return super().loader(rows, train, size)
