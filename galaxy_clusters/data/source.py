"""Where embedded galaxies come from, kept beside their embeddings for what needs the catalogue or the images."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.data.catalogue import image_paths, read_catalogue
from galaxy_clusters.data.fits import SurveyImage, load_survey_image
from galaxy_clusters.data.module import Look
from shared.data.files import write_whole
from shared.data.problems import DataError
from shared.data.synthetic import SETTINGS

FILE = "source.json"
FAULT = "fault"  # column beside the embeddings: what is wrong with an image
Pixels = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Source:
    """A catalogue and its images.

    Attributes:
        catalogue: The table.
        root: Folder that the images' paths start from.
        id_column: As for `read_catalogue`.
        image_column: Column of the images' paths.
        strip_prefix: A folder of another machine that the paths start with.
    """

    catalogue: str
    root: str
    id_column: str | None = None
    image_column: str = "file_loc"
    strip_prefix: str | None = None

    @property
    def is_synthetic(self) -> bool:
        """Whether `synthetic` wrote the catalogue."""
        return (Path(self.catalogue).parent / SETTINGS).is_file()

    def frame(self) -> pd.DataFrame:
        """The catalogue."""
        return read_catalogue(Path(self.catalogue), self.id_column)

    def images(self, frame: pd.DataFrame, look: Look) -> list[SurveyImage]:
        """The image of each row of the catalogue."""
        paths = image_paths(frame, self.image_column, Path(self.root), self.strip_prefix)
        return look.sources(frame, [str(path) for path in paths])

    def write(self, folder: Path, look: Look) -> None:
        """Keep it beside embeddings."""
        write_whole(folder / FILE, json.dumps({**asdict(self), "look": look.plain()}, indent=1) + "\n")


def read_source(embeddings: Path) -> tuple[Source, Look] | None:
    """Where embeddings come from, and how their images were prepared; None for anybody's embeddings."""
    path = (embeddings if embeddings.is_dir() else embeddings.parent) / FILE
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Source(**{key: value for key, value in found.items() if key != "look"}), Look.from_plain(found["look"])


def joined(ids: list[str], frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The catalogue's rows of galaxies, in their order.

    Raises:
        DataError: A galaxy is not in the catalogue.
    """
    place = pd.Series(np.arange(len(frame)), index=frame["id"]).reindex(ids)
    if place.isna().any():
        raise DataError(
            f"{int(place.isna().sum())} of {len(ids)} galaxies with an embedding are not in {source}, the first is "
            f"{place.index[place.isna()][0]}: give the catalogue that they come from"
        )
    return frame.iloc[place.astype(int)].reset_index(drop=True)


def pixels_of(images: list[SurveyImage]) -> Pixels:
    """Reads the images of rows; one that cannot be read is black."""

    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([_read(images[row]) for row in rows])

    return read


def _read(image: SurveyImage) -> NDArray[np.uint8]:
    try:
        return load_survey_image(image)
    except DataError:  # it was there when it was embedded
        return np.zeros((image.settings.channels, image.settings.size, image.settings.size), np.uint8)
