"""Batches, and the data module of a survey: a catalogue with images, votes and classes.

catalogue -> `frame`, one row a galaxy -> uint8 cache of the images -> `GalaxyBatch`. Images stay uint8 until they are
on the model's device.

Shapes: B galaxies, C bands, S x S pixels, A answers.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from galaxy_clusters.data.catalogue import filled_numbers, image_paths, read_catalogue
from galaxy_clusters.data.fits import Stretch, SurveyImage, crop_px, faults_of, load_survey_image
from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.data.sky import systems
from shared.checkpoint import saved_data_settings
from shared.data.arrays import ArrayCache, build_cache, fingerprint
from shared.data.cells import category_name, tidy
from shared.data.images import Fit, ImageSettings
from shared.data.module import DataModule, Purpose
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLIT_VERSION, SPLITS, SplitVersion, random_split
from shared.data.tables import check_columns

log = logging.getLogger(__name__)

NO_CLASS = -1
FAULTS_AT_ONCE = 2048  # images looked at together


@dataclass(frozen=True)
class Look:
    """How the images of a survey are prepared; a checkpoint keeps it.

    Attributes:
        settings: Size, channels and fit.
        stretch: As for `SurveyDataModule`, as all below.
        hdu: Of FITS files.
        bands: Of FITS files.
        size_column: Column of a size in arcseconds.
        crop_factor: Side of the cut, in sizes.
        pixel_scale: Arcseconds of a pixel.
    """

    settings: ImageSettings
    stretch: Stretch | None = None
    hdu: str | None = None
    bands: list[int | str] | None = None
    size_column: str | None = None
    crop_factor: float = 8.0
    pixel_scale: float = 0.262

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, checkpoint: Path) -> "Look":
        """That of a checkpoint's training.

        Raises:
            CheckpointError: It was not trained on a survey.
        """
        return cls.from_plain(saved_data_settings(checkpoint, ["look"])["look"])

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> "Look":
        """What `plain` gave."""
        others = {name: value for name, value in saved.items() if name not in ("settings", "stretch")}
        stretch = Stretch(**saved["stretch"]) if saved["stretch"] else None
        return cls(ImageSettings(**saved["settings"]), stretch, **others)

    def sources(self, frame: pd.DataFrame, paths: Sequence[str]) -> list[SurveyImage]:
        """The images to read.

        Args:
            frame: The catalogue.
            paths: The image file of each row.
        """
        bands = None if self.bands is None else tuple(self.bands)
        crops: Sequence[int | None] = [None] * len(frame)
        if self.size_column:
            crops = crop_px(filled_numbers(frame, self.size_column), self.pixel_scale, self.crop_factor).tolist()
        return [
            SurveyImage(path, self.settings, self.stretch, self.hdu, bands, crop)
            for path, crop in zip(paths, crops, strict=True)
        ]


class GalaxyBatch(NamedTuple):
    """Galaxies.

    Attributes:
        image: `(B, C, S, S)` uint8.
        votes: `(B, A)` float32 numbers of votes; A is 0 without a schema.
        target: `(B,)` int64 index of the class; -1 for a galaxy without one, or of a hidden one.
        row: `(B,)` int64 row of the data module's frame.
    """

    image: Tensor
    votes: Tensor
    target: Tensor
    row: Tensor


class Galaxies(Dataset[GalaxyBatch]):
    """Gathers whole batches: its index is a list of positions in the given rows."""

    def __init__(self, data: "SurveyDataModule", rows: NDArray[np.int64]) -> None:
        self.data, self.rows = data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> GalaxyBatch:
        rows = self.rows[positions]
        return GalaxyBatch(
            torch.from_numpy(self.data.cached(rows)),
            torch.from_numpy(self.data.votes[rows]),
            torch.from_numpy(self.data.target[rows]),
            torch.from_numpy(rows),
        )


class SurveyDataModule(DataModule[GalaxyBatch]):
    """A catalogue with an image for each galaxy, and votes or classes where there are any.

    Random parts go by system: galaxies within a few arcseconds are one object, or overlap (friends of friends), where
    the catalogue has positions.

    Args:
        root: Folder that the catalogue and the images' paths start from.
        catalogue: The table: CSV, Parquet, FITS or VOTable.
        id_column: Column of identifiers; by default one with a usual name, see `read_catalogue`.
        image_column: Column of the images' paths.
        strip_prefix: A folder of another machine that the paths start with.
        schema: Vote schema, whose columns hold numbers of votes; None for a catalogue without votes.
        target: Column of a class; None for a catalogue without.
        merged: Classes that are renamed, such as the two windings of spirals, which mirroring exchanges.
        hidden_classes: Classes that a supervised model must not see, by their new names: their galaxies are not
            trained or validated on as labelled ones.
        image_px: S, pixels of the cached images.
        channels: C.
        fit: How an image that is not square becomes so.
        stretch: How brightness becomes grey, the same for all images; needed for FITS.
        hdu: Name of the FITS extension with the image; by default the first that holds one.
        bands: For FITS, what the channels are: planes of a cube, or names of extensions.
        size_column: Column of a size in arcseconds: images are cut to `crop_factor` times it, or clusters would be of
            apparent size. None keeps the images whole.
        crop_factor: Side of the cut, in sizes.
        pixel_scale: Arcseconds of a pixel of the image files.
        drop_faulty: Whether blank, near-constant and masked images are left out (and listed), or only counted.
        link_arcsec: Distance within which galaxies are one system.
        fractions: Shares of the parts to train on, to select on and to test on.
        split_seed: Of the random split.
        split_version: Rule of the random split, see `shared.data.splits.SplitVersion`.
        batch_size: Global batch size.
        **kwargs: Further arguments of `DataModule`.

    Attributes:
        votes: `(N, A)` float32.
        target: `(N,)` int64, see `GalaxyBatch`.
        labels: `(N,)` names of all classes, hidden ones too; empty text without one.
        classes: Names of the classes that are not hidden.
        metric: What supervised runs are compared by.
    """

    name = "survey"
    noun = "image"
    file_columns = ("image",)
    group_name = "system"
    metric = "accuracy"

    def __init__(
        self,
        root: str,
        catalogue: str = "catalogue.csv",
        id_column: str | None = None,
        image_column: str = "file_loc",
        strip_prefix: str | None = None,
        schema: str | None = "desi",
        target: str | None = None,
        merged: dict[str, str] | None = None,
        hidden_classes: list[str] | None = None,
        image_px: int = 224,
        channels: int = 3,
        fit: Fit = "crop",
        stretch: Stretch | None = None,
        hdu: str | None = None,
        bands: list[int | str] | None = None,
        size_column: str | None = None,
        crop_factor: float = 8.0,
        pixel_scale: float = 0.262,
        drop_faulty: bool = True,
        link_arcsec: float = 30.0,
        fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        split_version: SplitVersion = SPLIT_VERSION,
        batch_size: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, batch_size=batch_size, **kwargs)
        self.catalogue = self.root / catalogue
        self.id_column, self.image_column, self.strip_prefix = id_column, image_column, strip_prefix
        self.schema = read_schema(schema) if schema else None
        self.target_column, self.merged = target, merged or {}
        self.hidden_classes = list(hidden_classes or [])
        self.image_settings = ImageSettings(image_px, channels, fit)
        look = Look(self.image_settings, stretch, hdu, bands, size_column, crop_factor, pixel_scale)
        self.look = look
        self.save_hyperparameters({"look": look.plain()})
        self.drop_faulty = drop_faulty
        self.link_arcsec = link_arcsec
        self.fractions, self.split_seed = fractions, split_seed
        self.split_version: SplitVersion = split_version

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """The catalogue's rows, with `image`, `system` and `split`."""
        frame = read_catalogue(self.catalogue, self.id_column)
        if self.schema:
            check_columns(self.catalogue, self.schema.columns, frame.columns)
        if self.target_column:
            check_columns(self.catalogue, [self.target_column], frame.columns)
        frame["image"] = [str(path) for path in image_paths(frame, self.image_column, self.root, self.strip_prefix)]
        frame["system"] = self._systems(frame)
        strata = self._labels(frame).tolist()
        parts = random_split(frame["system"].tolist(), strata, self.fractions, self.split_seed, self.split_version)
        frame["split"] = np.array(SPLITS, dtype=object)[parts]
        return frame

    def _systems(self, frame: pd.DataFrame) -> NDArray[np.object_]:
        """The name of each galaxy's system: the first of its galaxies."""
        ids = frame["id"].to_numpy(dtype=object)
        if "ra" not in frame:
            return ids
        label = systems(frame["ra"].to_numpy(float), frame["dec"].to_numpy(float), self.link_arcsec)
        _, first, place = np.unique(label, return_index=True, return_inverse=True)
        return np.where(label >= 0, ids[first[place]], ids)

    def _labels(self, frame: pd.DataFrame) -> "pd.Series[str]":
        if not self.target_column:
            return pd.Series("", frame.index)
        names = tidy(frame[self.target_column]).map(category_name, na_action="ignore").fillna("")
        return names.map(lambda name: self.merged.get(name, name))

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        """The images as uint8, cut, stretched and fitted."""
        sources = self.look.sources(frame, frame["image"].tolist())
        about = {"images": [str(source) for source in sources], "files": fingerprint(frame["image"].tolist())}
        settings = self.image_settings
        return build_cache(
            self.cache_dir / self.name,
            sources,
            frame["id"].tolist(),
            load_survey_image,
            row_shape=(settings.channels, settings.size, settings.size),
            dtype="uint8",
            settings=about,
            problems=problems,
        )

    def make_arrays(self, frame: pd.DataFrame, problems: Problems) -> None:
        """Votes, classes, and a list of the faulty images."""
        columns = self.schema.columns if self.schema else []
        votes = [np.nan_to_num(filled_numbers(frame, name)) for name in columns]
        self.votes = np.stack(votes, axis=1).astype(np.float32) if votes else np.empty((len(frame), 0), np.float32)
        if columns and (unseen := int((self.votes.sum(1) == 0).sum())):
            log.info("%s: %d galaxies have no votes", self.catalogue, unseen)
        self.labels = self._labels(frame).to_numpy(dtype=object)
        found = sorted(set(self.labels) - {""})
        if missing := sorted(set(self.hidden_classes) - set(found)):
            raise DataError(f"{self.catalogue} has no class {missing[0]} to hide; it has {', '.join(found)}")
        self.classes = [name for name in found if name not in self.hidden_classes]
        place = {name: number for number, name in enumerate(self.classes)}
        self.target = np.array([place.get(name, NO_CLASS) for name in self.labels], dtype=np.int64)
        self._look_for_faults(frame)

    def _look_for_faults(self, frame: pd.DataFrame) -> None:
        """Find images that show nothing, before anything is trained on them."""
        parts = np.array_split(np.arange(len(frame)), -(-len(frame) // FAULTS_AT_ONCE))
        faults = np.array([fault for part in parts for fault in faults_of(self.cached(part))], dtype=object)
        self.faulty = faults != ""
        for name, fault in zip(frame["id"][self.faulty], faults[self.faulty], strict=True):
            log.warning("%s: the image looks %s", name, fault)

    def suits(self, purpose: Purpose) -> NDArray[np.bool_]:
        """Images that show something; to evaluate on, those with a class that is not hidden."""
        usable = ~self.faulty if self.drop_faulty else np.ones(len(self.split), dtype=bool)
        return usable if purpose == "pretrain" else usable & (self.target != NO_CLASS)

    def content(self) -> list[Any]:
        """The votes and classes."""
        return [self.votes, self.target, self.classes]

    def dataset(self, rows: NDArray[np.int64]) -> Galaxies:
        """The galaxies of the given rows."""
        return Galaxies(self, rows)
