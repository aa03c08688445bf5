"""`python -m galaxy_clusters embed`: the representation of every galaxy of a catalogue, straight from its images."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from galaxy_clusters.data.fits import Stretch, SurveyImage, faults_of, load_survey_image
from galaxy_clusters.data.module import Look
from galaxy_clusters.data.source import FAULT, Source
from galaxy_clusters.evaluation.representation import VIEWS, Control, Representation, trained, untrained
from shared.data.embeddings import missing_shards, shard_path, skipped_samples, write_embeddings
from shared.data.images import MODES, ImageSettings
from shared.data.problems import DataError, OnError, Problems
from shared.progress import progress
from shared.runs.settings import saved_settings

LEAST_PX = 16  # of an image that is described without training


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
    stretch: Stretch | None = None,
    hdu: str | None = None,
    bands: list[int | str] | None = None,
    views: int = 1,
    control: Control | None = None,
    half: bool = False,
    shard_rows: int = 4096,
    job: int = 0,
    jobs: int = 1,
    batch_size: int = 256,
    num_workers: int = 0,
    on_error: OnError = "skip",
) -> Path:
    """Write the representation of every galaxy as shards of parquet.

    Their columns are `id`, `embedding`, predicted vote fractions if the encoder learned from votes, and `fault`: what
    is wrong with an image that hardly shows a galaxy, or empty text.

    Shards that are there are left alone, so the same command goes on after a kill, and the tasks of a job array can
    share the folder. No cache of the images is made. A GPU is used where there is one.

    Args:
        catalogue: Table of the galaxies: CSV, Parquet, FITS or VOTable.
        checkpoint: Of a trained encoder, for which images are prepared as in its training; by default numbers that
            need no training.
        output: Folder of the shards.
        root: Folder that the images' paths start from; by default that of the catalogue.
        id_column: Column of identifiers; by default one with a usual name.
        image_column: Column of the images' paths.
        strip_prefix: A folder of another machine that the paths start with.
        image_px: Pixels of the images without a checkpoint, at least 16.
        stretch: Without a checkpoint, how brightness becomes grey; needed for FITS, e.g. `--stretch.kind asinh
            --stretch.low 0 --stretch.high 1`.
        hdu: Without a checkpoint, name of the FITS extension with the image; by default the first that holds one.
        bands: Without a checkpoint, what the channels of FITS images are: planes of a cube, or names of extensions.
        views: 1, or 8: the mean over quarter turns and mirror images, with a checkpoint.
        control: Something to compare the encoder with: `turned` (by images turned by a quarter, for `assess`),
            `untrained` (by random weights) or `wide` (its features below the bottleneck).
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
        DataError: An option is out of its range or does not go with a checkpoint, the catalogue is none, an image
            cannot be read and `on_error` is `raise`, no image can be read, or the folder holds embeddings of another
            model or of other galaxies, or another number of shards.
    """
    for option, value in (("shard_rows", shard_rows), ("batch_size", batch_size), ("jobs", jobs)):
        if value < 1:
            raise DataError(f"{option} must be at least 1, got {value}")
    if not 0 <= job < jobs:
        raise DataError(f"job must be from 0 to {jobs - 1}, got {job}")
    if views not in (1, VIEWS):
        raise DataError(f"views must be 1 or {VIEWS}, all quarter turns and mirror images, got {views}")
    if checkpoint:
        if stretch or hdu or bands:
            raise DataError(
                "with a checkpoint, images are prepared as in its training: leave out stretch, hdu and bands"
            )
        representation, look = trained(checkpoint, views, control), Look.of(checkpoint)
    else:
        if control:
            raise DataError(f"without a checkpoint there is no encoder to compare: leave out --control {control}")
        look = _look(image_px, stretch, hdu, bands, views)
        representation = untrained(look.settings.channels)
    source = Source(str(catalogue), str(root or catalogue.parent), id_column, image_column, strip_prefix)
    frame = source.frame()
    sources, ids = source.images(frame, look), frame["id"].tolist()
    parts = [slice(start, start + shard_rows) for start in range(0, len(ids), shard_rows)]
    paths = [shard_path(output, shard, len(parts)) for shard in range(len(parts))]
    name = f"{representation.name} {look.settings.size}px {_digest(look)}"
    missing = set(missing_shards(output, [ids[rows] for rows in parts], name, half))
    mine = range(job, len(parts), jobs)
    problems = Problems(on_error, noun="image")
    if job == 0:
        source.write(output, look)
    for shard in progress(mine, "embed", "shard"):
        if shard in missing:
            rows, found = parts[shard], Problems(on_error, noun="image")
            kept, values, table = _encoded(representation, sources[rows], ids[rows], batch_size, num_workers, found)
            write_embeddings(paths[shard], kept, values, name, table, half, found.found)
        for item, reason in skipped_samples(paths[shard]):  # also those of an earlier call
            problems.add(item, reason)
    problems.write(output / (f"skipped_{job:05d}.csv" if jobs > 1 else "skipped.csv"))
    count = sum(len(ids[parts[shard]]) for shard in mine)
    if count and len(problems.found) == count:
        item, reason = problems.found[0]
        raise DataError(
            f"none of the {count} images of {catalogue} could be read, the first is that of {item}: {reason}"
        )
    print(f"embeddings of {count - len(problems.found)} galaxies are in {output}, {problems.summary()}")
    return output


def embed_run(run: Path, control: Control | None = None) -> Path:
    """Embed the survey that a run was trained on, into the run's folder; what is there and newer than it stays.

    Args:
        run: Folder of a run.
        control: As for `embed`.
    """
    checkpoint, output = run / "checkpoints" / "best.ckpt", run / f"embeddings{f'_{control}' if control else ''}"
    if output.is_dir() and output.stat().st_mtime < checkpoint.stat().st_mtime:
        shutil.rmtree(output)  # those of an earlier training
    return embed(checkpoint=checkpoint, output=output, control=control, **_survey(saved_settings(run)))


def embed_features(run: Path, output: Path) -> Path:
    """Describe the survey that a run was trained on without training, by images as the run's are prepared.

    Args:
        run: Folder of a run.
        output: Folder of the shards.
    """
    settings = saved_settings(run)
    data = settings["data"]["init_args"]
    stretch = Stretch(**data["stretch"]) if data["stretch"] else None
    more = {name: data[name] for name in ("image_px", "hdu", "bands")}
    return embed(output=output, stretch=stretch, **more, **_survey(settings))


def _survey(settings: dict[str, Any]) -> dict[str, Any]:
    """The catalogue of a run's settings, as arguments of `embed`."""
    data = settings["data"]["init_args"]
    root = Path(data["root"])
    names = ("id_column", "image_column", "strip_prefix")
    return {"catalogue": root / data["catalogue"], "root": root, **{name: data[name] for name in names}}


def _look(image_px: int, stretch: Stretch | None, hdu: str | None, bands: list[int | str] | None, views: int) -> Look:
    """How images are prepared where no checkpoint says so."""
    if views != 1:
        raise DataError("without training, the numbers are the same in all orientations: leave out views")
    if image_px < LEAST_PX:
        raise DataError(f"image_px must be at least {LEAST_PX}, got {image_px}")
    channels = 3 if bands is None else len(bands)
    if channels not in MODES:
        raise DataError(f"bands must name 1 or 3 planes or extensions, got {channels}")
    return Look(ImageSettings(image_px, channels, "crop"), stretch, hdu, bands)


def _digest(look: Look) -> str:
    return hashlib.sha256(json.dumps(look.plain(), sort_keys=True).encode()).hexdigest()[:8]


def _encoded(
    representation: Representation,
    sources: list[SurveyImage],
    ids: list[str],
    batch_size: int,
    num_workers: int,
    problems: Problems,
) -> tuple[list[str], NDArray[np.float32], pd.DataFrame]:
    """The ids of the images that can be read, their vectors `(N, D)`, and what stands beside these."""
    kept: list[str] = []
    faults: list[str] = []
    values = [np.empty((0, representation.dim), np.float32)]
    fractions = [np.empty((0, len(representation.columns)), np.float32)]
    for batch in DataLoader(_Files(sources), batch_size, num_workers=num_workers, collate_fn=list):
        for place, image in batch:
            if isinstance(image, str):
                problems.add(ids[place], image)
        read = [(place, image) for place, image in batch if not isinstance(image, str)]
        if not read:
            continue
        pixels = np.stack([image for _, image in read])
        vectors = representation.embed(torch.from_numpy(pixels))
        kept += [ids[place] for place, _ in read]
        faults += faults_of(pixels)
        values.append(vectors.numpy())
        if representation.fractions:
            fractions.append(representation.fractions(vectors).numpy())
    table = pd.DataFrame(np.concatenate(fractions), columns=list(representation.columns))
    return kept, np.concatenate(values), table.assign(**{FAULT: pd.Series(faults, dtype="str")})
