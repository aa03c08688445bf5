"""Omniglot (Lake et al. 2015): handwritten characters of 50 alphabets, 20 drawings each."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from meta_robust.data.module import FewShotDataModule
from shared.data.arrays import ArrayCache, build_cache, fingerprint
from shared.data.image_folders import images_of
from shared.data.images import ImageSettings, load_image_of
from shared.data.problems import DataError, Problems
from shared.data.tables import read_csv

SETS = ("images_background", "images_evaluation")
ALPHABETS = "character_alphabet_known.csv"
VALIDATION_ALPHABETS = 5  # of the 20 evaluation alphabets, sorted by name; the other 15 are novel


class OmniglotDataModule(FewShotDataModule):
    """Omniglot, in one of two forms: the published folders or two NumPy files.

    The 964 characters of the background set are the base classes. The alphabets of the evaluation set are sorted by
    name; the first five are validation, the others novel: an alphabet is never divided.

    Under the root are either `images_background/<alphabet>/<character>/*.png` and `images_evaluation/...`, or
    `images_background.npz` and `images_evaluation.npz` with an array `images` of bool `(characters, drawings, H, W)` in
    which True is paper, and `character_alphabet_known.csv` (`set`, `npz_index`, `alphabet`), which must name the
    alphabet of every evaluation character.
    """

    name = "omniglot"

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row a drawing, by alphabet and character."""
        self._npz = (self.root / f"{SETS[0]}.npz").is_file()
        frame = pd.concat([self._of_npz(each) if self._npz else self._of_folders(each) for each in SETS])
        known = sorted(set(frame["alphabet"][frame["set"] == SETS[1]]))
        validation = known[:VALIDATION_ALPHABETS]
        part = np.where(frame["alphabet"].isin(validation), "validation", "novel")
        return frame.assign(split=np.where(frame["set"] == SETS[0], "base", part)).drop(columns="set")

    def _of_folders(self, name: str) -> pd.DataFrame:
        rows = []
        for character in sorted((self.root / name).glob("*/*/")):
            alphabet = character.parent.name
            rows += [
                (f"{alphabet}/{character.name}/{file.name}", f"{alphabet}/{character.name}", alphabet, name, str(file))
                for file in images_of(character)[0]
            ]
        if not rows:
            raise DataError(
                f"{self.root} holds neither {name}.npz nor {name}/<alphabet>/<character>/*.png; Omniglot is at "
                "github.com/brendenlake/omniglot (python/images_background.zip and images_evaluation.zip)"
            )
        return pd.DataFrame(rows, columns=["id", "class", "alphabet", "set", "path"])

    def _of_npz(self, name: str) -> pd.DataFrame:
        images = _drawings(str(self.root / f"{name}.npz"))
        table = read_csv(self.root / ALPHABETS, ["set", "npz_index", "alphabet"])
        table = table[table["set"] == name.removeprefix("images_")]
        alphabets = dict(zip(table["npz_index"].astype(int), table["alphabet"].astype(str), strict=True))
        rows = []
        for character in range(len(images)):
            alphabet = alphabets.get(character, "")
            if name == SETS[1] and not alphabet:
                raise DataError(
                    f"{self.root / ALPHABETS} does not name the alphabet of evaluation character {character}"
                )
            label = f"{alphabet or 'background'}/character{character:04d}"
            rows += [
                (f"{label}/{drawing:02d}", label, alphabet, name, f"{self.root / name}.npz")
                for drawing in range(images.shape[1])
            ]
        return pd.DataFrame(rows, columns=["id", "class", "alphabet", "set", "path"])

    def open_cache(self, frame: pd.DataFrame, problems: Problems) -> ArrayCache:
        """All drawings as `(N, 3, S, S)` uint8: black ink on white paper, in every form of the files."""
        if not self._npz:
            return super().open_cache(frame, problems)
        number = frame["id"].str.extract(r"character(\d+)/(\d+)$").astype(int)
        sources = [
            Drawing(path, character, drawing, self.image_settings)
            for path, character, drawing in zip(frame["path"], number[0], number[1], strict=True)
        ]
        settings = self.image_settings
        return build_cache(
            self.cache_dir / self.name,
            sources,
            frame["id"].tolist(),
            load_drawing,
            row_shape=(settings.channels, settings.size, settings.size),
            dtype="uint8",
            settings={"image": str(settings), "files": fingerprint(sorted(set(frame["path"])))},
            problems=problems,
            workers=0,  # starting a worker takes longer than resizing all drawings
        )


@dataclass(frozen=True)
class Drawing:
    """A drawing in a file of NumPy, with what the reader needs to know."""

    path: str
    character: int
    drawing: int
    settings: ImageSettings


@lru_cache(maxsize=2)
def _drawings(path: str) -> NDArray[Any]:
    """All drawings of a file, read once in a process."""
    try:
        with np.load(path, allow_pickle=False) as content:
            images: NDArray[Any] = content["images"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected an array called images") from error
    if images.ndim != 4 or images.dtype != bool:
        raise DataError(
            f"{path} holds images of {images.dtype} {images.shape}, expected bool (characters, drawings, height, width)"
        )
    return images


def load_drawing(source: Drawing) -> NDArray[np.uint8]:
    """One drawing as the cache keeps it: `(C, S, S)` uint8, ink 0 and paper 255."""
    pixels = _drawings(source.path)[source.character, source.drawing].astype(np.uint8) * 255
    return load_image_of(Image.fromarray(pixels), source.settings)
