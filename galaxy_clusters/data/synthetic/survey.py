"""Writes the SYNTHETIC survey: a catalogue with volunteers' votes, images, and what was drawn.

Shapes: A answers of the questions of the vote schema.
"""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from galaxy_clusters.data.schema import VoteSchema, read_schema
from galaxy_clusters.data.synthetic.morphology import (
    PLANTED,
    POPULATIONS,
    SHREDS,
    Shape,
    clump_places,
    draw_appearance,
    draw_shape,
    light,
)
from galaxy_clusters.data.synthetic.render import (
    ARTEFACTS,
    FIELD,
    FINER,
    Array,
    Exposure,
    expose,
    offsets,
    picture,
    spots,
)
from shared.data.files import write_whole
from shared.data.synthetic import is_complete, start_set
from shared.progress import progress

VOLUNTEERS = 40
SPREAD = 5.0  # concentration of a galaxy's own chances of an answer about those that its form suggests
CARELESS = 0.05  # added to that for every answer: a few volunteers say anything
BRICKS = (8, 5)  # of the footprint, along ra and dec
BRICK_SIZE, CORNER = 0.25, (150.0, 0.5)  # degrees
GLOWING = 2  # bricks with a badly subtracted background
README = """SYNTHETIC galaxies, made by `python -m galaxy_clusters synthetic`. No telescope saw any of them.
catalogue.csv  position, brick, seeing, size, brightness, and votes of 40 volunteers on the questions of Galaxy Zoo DESI
images/        one JPEG a row of the catalogue, 32 arcsec wide, north up and east to the left
truth.csv      what was drawn for each row: its kind, the galaxy it shows, and the numbers of its form
"""


def write_synthetic(
    root: Path,
    galaxies: int = 2400,
    planted: int = 60,
    artefacts: bool = True,
    continuum: bool = False,
    image_px: int = 64,
    seed: int = 0,
) -> None:
    """Write the SYNTHETIC survey; a folder that holds it already is left alone.

    A galaxy depends on the seed and on its number among its kind alone: not on how many there are, nor on what else is
    in the survey.

    Args:
        root: Folder to write into.
        galaxies: Rows of the catalogue, the planted ones among them.
        planted: Rows of each planted class; of shredded galaxies, each gives twelve.
        artefacts: Whether there are artefacts.
        continuum: A survey without classes instead: the numbers of every form from the same broad densities, without
            planted classes, artefacts and the bricks with a bad background.
        image_px: Pixels of an image's side, 32 arcsec at any number.
        seed: Of everything.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: More galaxies are to be planted than there are.
    """
    if not continuum and not 0 <= planted * len(PLANTED) <= galaxies:
        raise ValueError(
            f"planted must be in 0 to {galaxies // len(PLANTED)}, a quarter of the galaxies, got {planted}"
        )
    settings: dict[str, Any] = {
        "galaxies": galaxies, "planted": planted, "artefacts": artefacts, "continuum": continuum,
        "image_px": image_px, "seed": seed, "version": 1,
    }  # fmt: skip
    if is_complete(root, settings, "truth.csv"):
        return
    start_set(root, settings, README)
    (root / "images").mkdir(exist_ok=True)
    survey = Survey(seed, image_px, artefacts, continuum)
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
    numbers = [(stream, number) for stream in range(1, 1 + len(PLANTED)) for number in range(planted)]
    numbers = [] if continuum else numbers
    numbers += [(0, number) for number in range(galaxies - len(numbers))]
    for stream, number in progress(numbers, f"write {root}", "galaxy"):
        row, truth, pixels = survey.galaxy(stream, number)
        Image.fromarray(pixels).save(root / row["file_loc"], quality=92)
        rows.append((row, truth))
    rows.sort(key=lambda both: both[0]["id_str"])  # ids are random, so that the order says nothing of the kind
    for name, table in zip(("catalogue.csv", "truth.csv"), zip(*rows, strict=True), strict=True):
        write_whole(root / name, pd.DataFrame(table).to_csv(index=False))


class Survey:
    """What all galaxies of a survey have in common: the seed, the bricks of the sky, and the questions.

    Arguments are as for `write_synthetic`.
    """

    def __init__(self, seed: int, image_px: int, artefacts: bool, continuum: bool) -> None:
        self.seed, self.image_px, self.continuum = seed, image_px, continuum
        self.populations = {kind: share for kind, share in POPULATIONS.items() if artefacts or kind != "artefact"}
        self.schema = read_schema("desi")
        rng = np.random.default_rng(seed)
        self.corner = rng.random(2)
        seeing = rng.uniform(0.9, 1.7, math.prod(BRICKS))
        self.bricks = [Exposure(round(float(fwhm), 3)) for fwhm in seeing]
        for number in () if continuum else rng.choice(len(self.bricks), GLOWING, replace=False):
            self.bricks[number] = replace(self.bricks[number], glow=(0.12, 0.03, -0.04))

    def galaxy(self, stream: int, number: int) -> tuple[dict[str, Any], dict[str, Any], NDArray[np.uint8]]:
        """A row of the catalogue, of the truth, and the image.

        Args:
            stream: 0 for what is not planted, or the number of the planted class, from 1.
            number: Of the row within it.
        """
        own = np.random.default_rng([self.seed, stream, number, 0])
        kind = self._kind(stream, own)
        artefact = str(own.choice(list(ARTEFACTS))) if kind == "artefact" else ""
        system = number // SHREDS if kind == "shredded" else number
        rng = np.random.default_rng([self.seed, stream, system, 1])  # the same for all entries of a shredded galaxy
        form = str(rng.choice(["elliptical", "spiral"])) if artefact else kind  # what is behind it
        shape, appearance = draw_shape(form, rng), draw_appearance(form == "elliptical", rng)
        right, up = 0.0, 0.0
        if kind == "shredded":  # an entry is centred on a clump
            right, up = clump_places(shape, appearance.half_light_radius)[number % SHREDS].tolist()
        ra, dec = self._position(stream, system, right, up)
        brick = self._brick(ra, dec)
        exposure = self.bricks[brick]
        line = offsets(FINER * self.image_px, FIELD)
        x, y = line[None] + right, up - line[:, None]
        recorded = expose(light(shape, appearance, x, y) + _neighbours(x, y, rng), exposure, own)
        if artefact:
            recorded = ARTEFACTS[artefact](recorded, exposure, own)
        name = str(own.integers(10**17, 10**18))
        votes = draw_votes(answer_chances(shape, bool(artefact)), self.schema, own)
        row = {
            "id_str": name, "file_loc": f"images/{name}.jpg", "ra": round(ra, 7), "dec": round(dec, 7),
            "brickid": 330000 + brick, "psf_fwhm": exposure.psf_fwhm,
            "est_petro_th50": round(appearance.half_light_radius * math.exp(own.normal(0, 0.05)), 3),
            "mag_r": round(appearance.mag_r + own.normal(0, 0.03), 3),
            **dict(zip(self.schema.columns, votes.tolist(), strict=True)),
        }  # fmt: skip
        drawn = {key: round(value, 5) for key, value in {**asdict(shape), **asdict(appearance)}.items()}
        truth = {"id_str": name, "kind": kind, "artefact_kind": artefact, "system": f"{kind}_{system}", **drawn}
        return row, truth, picture(recorded)

    def _kind(self, stream: int, rng: np.random.Generator) -> str:
        if stream:
            return PLANTED[stream - 1]
        if self.continuum:
            return "continuum"
        shares = np.array(list(self.populations.values()))
        return str(rng.choice(list(self.populations), p=shares / shares.sum()))

    def _position(self, stream: int, system: int, right: float, up: float) -> tuple[float, float]:
        """Sky position, degrees: points that keep apart, so that only entries of one galaxy are neighbours."""
        number = system * (1 + len(PLANTED)) + stream
        golden = 1.32471795724474602596  # Roberts' sequence: its multiples fill a square evenly, however many there are
        place = (self.corner + number * np.array([1 / golden, 1 / golden**2])) % 1
        ra, dec = np.array(CORNER) + place * np.array(BRICKS) * BRICK_SIZE
        return float(ra - right / 3600 / math.cos(math.radians(dec))), float(dec + up / 3600)

    @staticmethod
    def _brick(ra: float, dec: float) -> int:
        column, row = (
            min(max(int((value - start) / BRICK_SIZE), 0), count - 1)
            for value, start, count in zip((ra, dec), CORNER, BRICKS, strict=True)
        )
        return row * BRICKS[0] + column


def _neighbours(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Faint stars and small galaxies around a galaxy, `(3, H, W)`; x and y as for `light`."""
    count = rng.poisson(4)
    distance, angle = np.sqrt(rng.uniform(6**2, 28**2, count)), rng.uniform(0, 2 * math.pi, count)
    places = np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1)
    sizes = np.where(rng.random(count) < 0.4, 0.2, rng.uniform(0.4, 0.9, count))
    fluxes = 10 ** (-0.4 * (22 - 3 * rng.random(count) ** 2 - 22.5))
    tints = np.array([[1.45], [1.0], [0.57]]) ** rng.normal(1.1, 0.4, count)
    return np.stack([spots(x, y, places, sizes, fluxes * tint) for tint in tints])


def answer_chances(shape: Shape, artefact: bool) -> list[Array]:
    """How likely a volunteer gives each answer of the DESI schema about a form: one array a question, sum 1 each.

    Nothing depends on the kind of an artefact. A single arm is taken for arms that cannot be counted, some take a ring
    for arms, a core looks smaller in a ring, and there is no answer for clumps: planted classes are votes among votes.
    """
    edge_on = _rising(0.3 - shape.axis_ratio, 0.05) * shape.disc / (shape.disc + shape.bulge)
    structure = shape.arms + shape.bar + shape.clumps + shape.ring + shape.tail + 0.3 * shape.companion
    featured = _rising(structure + 0.2 * shape.disc + 0.3 * edge_on - 0.2, 0.05)
    spiral = _rising(shape.arms + 0.25 * shape.ring + 0.4 * shape.clumps - 0.14, 0.05)
    strong, any_bar = _rising(shape.bar - 0.15, 0.03), 0.9 * _rising(shape.bar - 0.08, 0.03)
    seen_ratio = shape.bulge * shape.roundness + (1 - shape.bulge) * shape.axis_ratio
    no_bulge = _rising(0.08 - shape.bulge, 0.03)
    counted = 0.6 * _rising(shape.arms - 0.25, 0.06) * _rising(shape.axis_ratio - 0.75, 0.05) * (shape.arm_count > 1)
    merging, disturbed = _rising(shape.companion - 0.12, 0.03), _rising(shape.tail - 0.07, 0.02)
    good = np.array([1 - featured, featured])
    return [
        np.array([0.1, 0.1, 0.8]) if artefact else np.append(0.97 * good, 0.03),
        np.array([edge_on, 1 - edge_on]),
        np.array([spiral, 1 - spiral]),
        any_bar * np.array([0.7 * strong, 1 - 0.7 * strong, 0]) + np.array([0, 0, 1 - any_bar]),
        _nearest(shape.bulge * (1 - shape.ring), [0.8, 0.55, 0.35, 0.15, 0], 0.1),
        _nearest(seen_ratio, [0.95, 0.65, 0.3], 0.12),
        np.array([0.1, 0.9 * no_bulge, 0.9 * (1 - no_bulge)]),
        _nearest(abs(shape.winding), [4.5, 3, 1.8], 0.6),
        counted * _nearest(shape.arm_count, [1, 2, 3, 4, 5, 99], 0.3)
        + (1 - counted) * np.array([0.08, 0.37, 0.15, 0.08, 0.05, 0.27]),
        np.array([(1 - merging) * part for part in (1 - disturbed, 0.7 * disturbed, 0.3 * disturbed)] + [merging]),
    ]


def draw_votes(chances: list[Array], schema: VoteSchema, rng: np.random.Generator) -> NDArray[np.int64]:
    """Votes of volunteers who each go down the tree, `(A,)`; 0 where nobody was asked.

    Args:
        chances: One array a question; a galaxy's own are drawn from a Dirichlet distribution about them.
        schema: The questions.
        rng: Of the chances and votes.
    """
    votes = np.zeros(len(schema.columns), np.int64)
    for start, size, lead, expected in zip(schema.starts, schema.sizes, schema.leads, chances, strict=True):
        asked = VOLUNTEERS if lead is None else votes[lead]
        votes[start : start + size] = rng.multinomial(asked, rng.dirichlet(SPREAD * expected + CARELESS))
    return votes


def _rising(value: float, width: float) -> float:
    return float(expit(value / width))


def _nearest(value: float, centres: list[float], width: float) -> Array:
    """Chances that fall off with the distance of each answer's centre from a value."""
    distance = (value - np.array(centres)) / width
    weight = np.exp(-0.5 * (distance**2 - (distance**2).min()))
    chances: Array = weight / weight.sum()
    return chances
