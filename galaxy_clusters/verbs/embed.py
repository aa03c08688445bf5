"""`python -m galaxy_clusters embed`: the representation of every galaxy of a catalogue, straight from its images."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from galaxy_clusters.data.fits import SurveyImage, load_survey_image
from galaxy_clusters.data.module import Look
from galaxy_clusters.data.source import Source
from galaxy_clusters.evaluation.representation import Representation, trained, untrained
from shared.data.embeddings import is_whole, shard_path, write_embeddings
from shared.data.images import ImageSettings
from shared.data.problems import DataError, OnError, Problems
from shared.progress import progress

log = logging.getLogger(__name__)


class _Files(Dataset[tuple[int, NDArray[np.uint8] | str]]):
    """The image of each source, or why it cannot be read."""

    def __init__(self, sources: list[SurveyImage]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, place: int) -> tuple[int, NDArray[np.uint8] | str]:
        try:
            return place, load_survey_image(self.sources[place])
        except DataError as error:
            return place, str(error)


def embed(
    catalogue: Path,
    checkpoint: Path | None = None,
    output: Path = Path("runs/embeddings"),
    root: Path | None = None,
    id_column: str | None = None,
    image_column: str = "file_loc",
    strip_prefix: str | None = None,
    image_px: int = 64,
    views: int = 1,
    half: bool = False,
    shard_rows: int = 4096,
    job: int = 0,
    jobs: int = 1,
    batch_size: int = 256,
    num_workers: int = 0,
    on_error: OnError = "skip",
) -> Path:
    """Write the representation of every galaxy as shards of parquet (`id`, `embedding`), and predicted vote fractions.

    Shards that are there are left alone, so the same command goes on after a kill, and the tasks of a job array can
    share the folder. No cache of the images is made.

    Args:
        catalogue: Table of the galaxies: CSV, Parquet, FITS or VOTable.
        checkpoint: Of a trained encoder; by default numbers that need no training.
        output: Folder of the shards.
        root: Folder that the images' paths start from; by default that of the catalogue.
        id_column: Column of identifiers; by default one with a usual name.
        image_column: Column of the images' paths.
        strip_prefix: A folder of another machine that the paths start with.
        image_px: Pixels of the images without a checkpoint; with one, they are prepared as in its training.
        views: 1, or 8: the mean over quarter turns and mirror images.
        half: Whether vectors are kept in half the bytes, as float16.
        shard_rows: Galaxies of a shard.
        job: Number of this task of a job array, from 0: it makes every `jobs`-th shard.
        jobs: Number of tasks.
        batch_size: Images encoded together.
        num_workers: Processes that read images.
        on_error: What to do with an image that cannot be read: `skip` it (and list it), or `raise` an error.

    Returns:
        The folder.

    Raises:
        DataError: The catalogue is none, an image cannot be read and `on_error` is `raise`, no image can be read, or
            the folder holds embeddings of another model.
    """
    if not 0 <= job < jobs:
        raise DataError(f"job must be from 0 to {jobs - 1}, got {job}")
    representation = trained(checkpoint, views) if checkpoint else untrained()
    look = Look.of(checkpoint) if checkpoint else Look(ImageSettings(image_px, fit="crop"))
    source = Source(str(catalogue), str(root or catalogue.parent), id_column, image_column, strip_prefix)
    frame = source.frame()
    sources = source.images(frame, look)
    shards = -(-len(frame) // shard_rows)
    name = f"{representation.name} {look.settings.size}px"
    mine = [shard for shard in range(job, shards, jobs) if not is_whole(shard_path(output, shard, shards), name)]
    source.write(output, look)
    problems = Problems(on_error, noun="image")
    ids = frame["id"].tolist()
    for shard in progress(mine, "embed", "shard"):
        rows = slice(shard * shard_rows, min((shard + 1) * shard_rows, len(frame)))
        found = list(_encoded(representation, sources[rows], ids[rows], batch_size, num_workers, problems))
        kept = [ids[rows][place] for part, _, _ in found for place in part]
        values = np.concatenate([part for _, part, _ in found]) if found else np.empty((0, 1), np.float32)
        fractions = np.concatenate([part for _, _, part in found]) if found else np.empty((0, 0), np.float32)
        table = pd.DataFrame(fractions, columns=list(representation.columns)) if representation.columns else None
        write_embeddings(shard_path(output, shard, shards), kept, values, name, table, half)
    problems.write(output / (f"skipped_{job:05d}.csv" if jobs > 1 else "skipped.csv"))
    print(f"embeddings of {len(frame)} galaxies are in {output}, {problems.summary()}")
    return output


def _encoded(
    representation: Representation,
    sources: list[SurveyImage],
    ids: list[str],
    batch_size: int,
    num_workers: int,
    problems: Problems,
) -> Iterator[tuple[list[int], NDArray[np.float32], NDArray[np.float32]]]:
    """Places in the shard, vectors, and vote fractions, batch by batch."""
    for batch in DataLoader(_Files(sources), batch_size, num_workers=num_workers, collate_fn=list):
        for place, image in batch:
            if isinstance(image, str):
                problems.add(ids[place], image)
        read = [(place, image) for place, image in batch if not isinstance(image, str)]
        if not read:
            continue
        vectors = representation.embed(torch.from_numpy(np.stack([image for _, image in read])))
        shares = representation.fractions(vectors) if representation.fractions else torch.empty(len(vectors), 0)
        yield [place for place, _ in read], vectors.numpy(), shares.numpy()
