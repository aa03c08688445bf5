"""The data module of images to send: any folder or table of them, split by person where it says who they show.

frame, one row an image -> uint8 cache -> `ImageBatch`. Images stay uint8 until they are on the model's device.

Shapes: B images, S x S pixels.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from commin.data.pictures import GIVEN, in_folders, in_table, load_picture
from commin.noise import image_keys
from shared.data.arrays import ArrayCache
from shared.data.groups import units
from shared.data.images import Fit, ImageSettings, image_cache
from shared.data.module import DataModule
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLIT_VERSION, SPLITS, SplitVersion, fold_split, random_split

log = logging.getLogger(__name__)

VALIDATION = 0.1  # share of the persons, where a fold is tested on
LOOKED_AT = 1024  # images at once


class ImageBatch(NamedTuple):
    """Images.

    Attributes:
        image: `(B, 3, S, S)` uint8.
        key: `(B,)` int64, the number that the image's random draws belong to, see `commin.noise.image_keys`.
        row: `(B,)` int64 row of the data module's frame.
    """

    image: Tensor
    key: Tensor
    row: Tensor


class Images(Dataset[ImageBatch]):
    """Gathers whole batches: its index is a list of positions in the given rows."""

    def __init__(self, data: "ImageFoldersDataModule", rows: NDArray[np.int64]) -> None:
        self.data, self.rows = data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> ImageBatch:
        rows = self.rows[positions]
        return ImageBatch(torch.from_numpy(self.data.cached(rows)), self.data.key[rows], torch.from_numpy(rows))


class ImageFoldersDataModule(DataModule[ImageBatch]):
    """Images in a folder, at any depth: faces, CIFAR-10, Kodak, CelebA-HQ, FFHQ, or a person's own.

    The parts of the split are, in this order: the column `split` of the table; the folders `train/`, `val/` and `test/`
    if all images lie in such; a fold; random ones. All go by person where there are persons. Where parts are given
    without one to validate on, that is drawn from the training persons.

    Args:
        root: Folder of the images.
        table: CSV below the root that lists the images, instead of all that are found; see `pictures.in_table`.
        image_column: Column of the table with their paths; None finds it.
        group_column: Who an image shows: `folder`, the folder that it lies in, or a column of the table. None takes a
            column with a usual name, such as `person`, where a table has one, and otherwise each image by itself.
        fractions: Shares of the persons to train, validate and test on in a random split.
        split_seed: Of the random split, and of the folds.
        split_version: Rule of the random split, see `shared.data.splits.SplitVersion`.
        fold: Which of the `folds` is tested on; a tenth of the persons is validated on. None draws by `fractions`.
        folds: Number of parts of equal size, each of which is one fold's test.
        image_px: S. An image that would have to be enlarged cannot be used.
        fit: How an image that is not square becomes so, see `shared.data.images.ImageSettings`.
        batch_size: Global batch size.
        **kwargs: Further arguments of `DataModule`.

    Attributes:
        key: `(N,)` int64, see `ImageBatch`.
        source_channels: 1 if every image is grey, which then has S x S numbers to send, not three times as many;
            otherwise 3. The images have three channels in any case.

    Raises:
        DataError: `fold` is not one of the folds.
    """

    name = "images"
    noun = "image"
    file_columns = ("path",)

    def __init__(
        self,
        root: str,
        table: str | None = None,
        image_column: str | None = None,
        group_column: str | None = None,
        fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        split_version: SplitVersion = SPLIT_VERSION,
        fold: int | None = None,
        folds: int = 5,
        image_px: int = 64,
        fit: Fit = "crop",
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, batch_size=batch_size, **kwargs)
        if fold is not None and not 0 <= fold < folds:
            raise DataError(f"fold must be one of 0 to {folds - 1} (folds: {folds}), got {fold}")
        self.image_settings = ImageSettings(image_px, 3, fit)
        self.save_hyperparameters("image_px", "fit", logger=False)  # Lightning puts them into the checkpoint
        self.table, self.image_column, self.group_column = table, image_column, group_column
        self.fractions, self.split_seed, self.fold, self.folds = fractions, split_seed, fold, folds
        self.split_version: SplitVersion = split_version
        self.source_channels = 3

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row an image, sorted by its path below the root: `id`, `path`, `split`, and its person."""
        if self.table is None:
            frame, self.group_name = in_folders(self.root, self.group_column), self.group_column
        else:
            table = self.root / self.table
            frame, self.group_name = in_table(self.root, table, self.image_column, self.group_column, problems)
        if frame.empty:
            return frame
        frame = frame.sort_values("id", ignore_index=True)
        persons = frame["id"].tolist() if self.group_name is None else units(frame[self.group_name], frame["id"])
        frame[GIVEN], how = self._parts(frame[GIVEN].to_numpy(dtype=object), np.array(persons, dtype=object))
        counts = frame[GIVEN].value_counts()
        log.info(
            "%s: %d images, %s; parts %s: %s",
            self.root,
            len(frame),
            f"{len(set(persons))} by {self.group_name}" if self.group_name else "each by itself (no group_column)",
            how,
            ", ".join(f"{part} {counts.get(part, 0)}" for part in SPLITS),
        )
        return frame

    def _parts(self, given: NDArray[np.object_], persons: NDArray[np.object_]) -> tuple[NDArray[np.object_], str]:
        """The part of each image, and how it was found."""
        if given[0]:
            return self._given_parts(given, persons)
        names = np.array(SPLITS, dtype=object)
        try:
            if self.fold is not None:
                parts = fold_split(persons.tolist(), self.fold, self.folds, VALIDATION, self.split_seed)
                return names[parts], f"of fold {self.fold} of {self.folds}"
            parts = random_split(
                persons.tolist(), [""] * len(persons), self.fractions, self.split_seed, self.split_version
            )
        except ValueError as error:
            raise DataError(f"{self.root}: {error}") from error
        wanted = [part for part, share in enumerate(self.fractions) if share > 0]
        if lost := [SPLITS[part] for part in wanted if part not in parts]:
            raise DataError(
                f"{self.root}: its {len(set(persons))} {self.group_name or self.noun}s are too few for shares of "
                f"{list(self.fractions)}, none is left for {lost[0]}: give more, or other data.init_args.fractions"
            )
        return names[parts], "drawn"

    def _given_parts(self, given: NDArray[np.object_], persons: NDArray[np.object_]) -> tuple[NDArray[np.object_], str]:
        """The parts that the set's makers give; what they do not validate on is drawn from the training persons."""
        if self.fold is not None:
            raise DataError(
                f"{self.root} gives the parts of its split, so there are no folds: set data.init_args.fold null"
            )
        train, val = self.fractions[:2]
        if SPLITS[1] in given or not val:
            return given, "as given"
        trained = np.flatnonzero(given == SPLITS[0])
        shares = (train / (train + val), val / (train + val))
        drawn = random_split(
            persons[trained].tolist(), [""] * len(trained), shares, self.split_seed, self.split_version
        )
        parts = given.copy()
        parts[trained[drawn == 1]] = SPLITS[1]
        return parts, f"as given, val drawn from {SPLITS[0]}"

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        """The images as `(N, 3, S, S)` uint8."""
        folder, paths, names = self.cache_dir / self.name, frame["path"].tolist(), frame["id"].tolist()
        return image_cache(folder, paths, names, self.image_settings, problems, read=load_picture)

    def make_arrays(self, frame: pd.DataFrame, problems: Problems) -> None:
        """The images' keys, and whether they are grey."""
        self.key = image_keys(frame["id"].tolist())
        self.source_channels = self._source_channels(len(frame))
        self.hparams["source_channels"] = self.source_channels
        if self.source_channels == 1:
            log.info("%s: its images are grey, so the bandwidth ratio counts one channel", self.root)

    def _source_channels(self, count: int) -> int:
        """1 if no image has a colour; the first that has one ends the search."""
        for first in range(0, count, LOOKED_AT):
            images = self.cached(np.arange(first, min(first + LOOKED_AT, count)))
            if (images != images[:, :1]).any():
                return 3
        return 1

    def dataset(self, rows: NDArray[np.int64]) -> Images:
        """The images of the given rows."""
        return Images(self, rows)

    def some(self, part: str, count: int) -> tuple[Tensor, Tensor]:
        """At most `count` images of a part of the split, `(n, 3, S, S)` uint8, and their keys `(n,)`.

        They are those with the lowest keys, which is a draw that depends on the images' names alone.
        """
        rows = self.rows(part, "pretrain")
        rows = rows[np.argsort(self.key[rows].numpy())[:count]]
        return torch.from_numpy(self.cached(rows)), self.key[rows]
