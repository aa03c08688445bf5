"""A small SYNTHETIC data set in DVM-car's on-disk layout, for demonstrations, tests and benchmarks.

No maker, model, advert or photograph in it is real, so a number obtained on it says something about the code and
nothing about cars. The table states what a picture only hints at: the models of one body type differ by 60 to 150 mm
in length, height, width and wheelbase, which the drawings show to scale. Place, light, colour and viewpoint change from
picture to picture and have nothing to do with the model. Prices, engines, miles and dates are not visible, and say
little about the model.

The layout is that of DVM-CAR (Huang et al., IEEE Big Data 2021), with its untidy headers, words in number columns,
and missing and zero sizes.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from shared.data.files import write_whole
from shared.data.synthetic import is_complete, start_set
from tabular_imaging.data.synthetic.scenes import photograph
from tabular_imaging.data.synthetic.vehicles import Vehicle

# The published headers, spaces included.
ADVERT_HEADER = (
    "Maker", " Genmodel", " Genmodel_ID", "Adv_ID", "Adv_year", "Adv_month", "Color", "Reg_year", "Bodytype",
    "Runned_Miles", "Engin_size", "Gearbox", "Fuel_type", "Price", "Engine_power", "Annual_Tax", "Wheelbase", "Height",
    "Width", "Length", "Average_mpg", "Top_speed", "Seat_num", "Door_num",
)  # fmt: skip
IMAGE_HEADER = ("Genmodel_ID", " Image_ID", " Image_name", " Predicted_viewpoint", " Quality_check")
PRICE_HEADER = ("Maker", " Genmodel", " Genmodel_ID", " Year", " Entry_price")
BASIC_HEADER = ("Automaker", "Automaker_ID", "Genmodel", "Genmodel_ID")

MAKERS = ("Fauxley", "Mockford", "Placebo", "Synthia")
NAMES = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Juniper", "Linden", "Maple", "Poplar", "Rowan")
# Length, height, width and wheelbase in mm of the first model of a body type; others are steps away from it.
SIZES = {
    "Hatchback": (4100, 1480, 1760, 2550),
    "SUV": (4500, 1690, 1870, 2660),
    "Saloon": (4700, 1440, 1830, 2800),
    "Estate": (4650, 1500, 1810, 2720),
    "MPV": (4600, 1700, 1830, 2760),
    "Coupe": (4450, 1350, 1840, 2660),
    "Convertible": (4300, 1370, 1800, 2560),
    "Pickup": (5250, 1800, 1880, 3150),
}
STEPS = ((90, 150), (60, 80), (60, 70), (80, 120))  # in length, height, width and wheelbase, in mm
# Price when new in 2012, engine sizes and shares of automatic gearboxes and diesel of the three price classes.
CLASSES = (
    (13_500, (1.0, 1.2, 1.4, 1.6), 0.20, 0.30),
    (17_000, (1.2, 1.4, 1.6, 2.0), 0.35, 0.45),
    (22_500, (1.4, 1.6, 2.0, 3.0), 0.55, 0.55),
)
YEARS = range(2006, 2019)
COLOUR_SHARES = {
    "Black": 0.20, "Grey": 0.18, "White": 0.18, "Silver": 0.14, "Blue": 0.13, "Red": 0.09, "Green": 0.03,
    "Orange": 0.02, "Brown": 0.02, "Yellow": 0.01,
}  # fmt: skip
SHOTS_WORTH_A_POOL = 1000  # fewer pictures are drawn in less time than the processes take to start
RARE = 2  # models with so few adverts that the class minimum drops them


@dataclass(frozen=True)
class _Model:
    maker: str
    name: str
    model_id: str
    body: str
    sizes: tuple[int, ...]  # length, height, width, wheelbase
    style: tuple[float, ...]
    price_class: int
    unpriced: int | None  # a year without an entry price


def _models(rng: np.random.Generator, count: int) -> list[_Model]:
    """`count` models, with the body types in turn; the price class has nothing to do with the body."""
    price_classes = rng.permutation(np.arange(count) % len(CLASSES))
    signs = {body: rng.choice([-1, 1], 4) for body in SIZES}
    models = []
    for index in range(count):
        body = list(SIZES)[index % len(SIZES)]
        steps = [round(index // len(SIZES) * rng.uniform(low, high)) for low, high in STEPS]
        maker = index % len(MAKERS)
        models.append(
            _Model(
                maker=MAKERS[maker],
                name=f"{NAMES[index % len(NAMES)]}{' ' + str(index // len(NAMES) + 1) if index >= len(NAMES) else ''}",
                model_id=f"{901 + maker}_{index // len(MAKERS) + 1}",
                body=body,
                sizes=tuple(
                    int(base + sign * step) for base, sign, step in zip(SIZES[body], signs[body], steps, strict=True)
                ),
                style=tuple(rng.uniform(-1, 1, 6).round(3).tolist()),
                price_class=int(price_classes[index]),
                unpriced=int(rng.choice(YEARS)) if index % 3 == 0 else None,
            )
        )
    return models


def _entry_price(model: _Model, year: int) -> int:
    """Entry price in pounds; models of one price class cost the same, so that the price does not reveal the model."""
    return int(round(CLASSES[model.price_class][0] * 1.03 ** (year - 2012), -2))


def _advert(model: _Model, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A row of the adverts as in the published table, but before any values are lost."""
    _, engines, automatic, diesel = CLASSES[model.price_class]
    year = int(rng.choice(YEARS))
    sold = int(rng.integers(max(year, 2012), 2021))
    age, engine = sold - year, float(rng.choice(engines))
    fuel = rng.choice(["Diesel", "Petrol", "Hybrid  Petrol/Electric"], p=[diesel, 0.96 - diesel, 0.04])
    length, height, width, wheelbase = model.sizes
    price = _entry_price(model, year) * 0.86**age * rng.lognormal(-0.1, 0.2)
    return {
        "Maker": model.maker,
        " Genmodel": model.name,
        " Genmodel_ID": model.model_id,
        "Adv_ID": f"{model.model_id}$${number}",
        "Adv_year": sold,
        "Adv_month": int(rng.integers(1, 13)),
        "Color": str(rng.choice(list(COLOUR_SHARES), p=list(COLOUR_SHARES.values()))),
        "Reg_year": year,
        "Bodytype": model.body,
        "Runned_Miles": int((age + 0.3) * rng.uniform(3000, 13_000)),
        "Engin_size": f"{engine:.1f}L",
        "Gearbox": "Automatic" if rng.random() < automatic else "Manual",
        "Fuel_type": fuel,
        "Price": int(price),
        "Engine_power": int(70 * engine * rng.uniform(0.8, 1.2)),
        "Annual_Tax": int(rng.choice([0, 30, 125, 145, 200])),
        "Wheelbase": wheelbase,
        "Height": height,
        "Width": width,
        "Length": length,
        "Average_mpg": f"{rng.uniform(30, 70):.1f} mpg",
        "Top_speed": f"{int(rng.uniform(95, 145))} mph",
        # As sellers write them: two to seven seats, and doors with or without the tailgate.
        "Seat_num": int(rng.choice([2, 4, 5, 5, 5, 5, 7])),
        "Door_num": int(rng.choice([2, 3, 4, 5, 5, 5])),
    }


def _lose(advert: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The advert with flaws as in the published table: sizes that are zero or missing, and words for numbers."""
    size = str(rng.choice(["Wheelbase", "Height", "Width", "Length"]))
    chances: tuple[tuple[float, str, Any], ...] = (
        (0.03, size, 0), (0.03, size, None), (0.01, "Color", None), (0.01, "Door_num", None),
        (0.005, "Engin_size", None), (0.005, "Price", "Uknown"), (0.005, "Runned_Miles", "1 mile"),
    )  # fmt: skip
    return advert | {column: value for chance, column, value in chances if rng.random() < chance}


def _write_csv(path: Path, rows: list[dict[str, Any]] | list[tuple[Any, ...]], header: tuple[str, ...]) -> None:
    write_whole(path, pd.DataFrame(rows, columns=list(header)).to_csv(index=False))


def _plan(models: list[_Model], adverts: int, seed: int) -> list[tuple[_Model, int]]:
    """The model and number of each advert, model by model as in the published table."""
    rng = np.random.default_rng([seed, 0])
    rare = max(1, adverts // 200)
    shares = rng.uniform(0.75, 1.25, len(models) - RARE)
    ends = np.rint(np.cumsum(shares / shares.sum()) * (adverts - RARE * rare)).astype(int)
    counts = [*np.diff(ends, prepend=0).tolist(), *[rare] * RARE]
    # The published numbers have gaps, from adverts that were taken down.
    return [
        (model, number)
        for model, count in zip(models, counts, strict=True)
        for number in np.sort(rng.choice(np.arange(1, 2 * count + 1), count, replace=False)).tolist()
    ]


class _Shot(NamedTuple):
    """A picture to take; it is sent to worker processes."""

    vehicle: Vehicle
    seed: tuple[int, ...]
    px: int
    path: Path
    about: tuple[str, str, str]  # model, picture and file, as in the table of images


def _take(shots: list[_Shot]) -> list[tuple[float, bool]]:
    """Write the pictures, and return each one's yaw and whether the vehicle faces right."""
    bar = partial(tqdm, total=len(shots), desc="synthetic DVM-car", unit="picture")
    if len(shots) < SHOTS_WORTH_A_POOL:
        return list(bar(map(_photograph, shots)))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # forking can hang if torch has threads
        return list(bar(pool.map(_photograph, shots, chunksize=32)))


def _photograph(shot: _Shot) -> tuple[float, bool]:
    picture, view = photograph(shot.vehicle, np.random.default_rng(shot.seed), shot.px)
    shot.path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(shot.path, quality=88)
    return view.yaw, view.faces_right


def write_synthetic(
    root: Path = Path("data/dvm_synthetic"), models: int = 12, adverts: int = 2400, image_px: int = 128, seed: int = 0
) -> Path:
    """Write a SYNTHETIC set of vehicle adverts with drawn pictures in DVM-car's layout; nothing in it is real.

    Every number obtained on this set is synthetic. The models have eight body types in turn; two more models have only
    a handful of adverts each, which the class minimum is to drop (the published minimum of 100 would drop most models:
    use about a third of `adverts / models`). One advert in twelve has a second picture, one in a hundred has none.
    `Ad_table (extra).csv` is written last: a folder without it is an interrupted run, and the same call finishes
    it. A finished set with the same settings is reused.

    Args:
        root: Folder to write; it must be new, empty, or written earlier by this verb with the same settings.
        models: Number of car models, 2 to 40 (DVM-car: 286).
        adverts: Number of adverts, at least ten per model.
        image_px: Side of the square pictures in pixels (DVM-car: 300).
        seed: Seed of the random generator; the same seed gives the same files.

    Returns:
        Path of the folder.

    Raises:
        ValueError: A number is out of range.
        FileExistsError: `root` holds something else or a set with other settings; it is left as it is.
    """
    if not 2 <= models <= 40:
        raise ValueError(f"models must be from 2 to 40, got {models}")
    if adverts < 10 * models:
        raise ValueError(f"adverts must be at least ten per model, so {10 * models}, got {adverts}")
    if not 32 <= image_px <= 1024:
        raise ValueError(f"image_px must be from 32 to 1024, got {image_px}")
    root = Path(root)
    settings = {"version": 1, "models": models, "adverts": adverts, "image_px": image_px, "seed": seed}
    if is_complete(root, settings, "tables_V2.0/Ad_table (extra).csv"):
        return root
    tables, pictures = root / "tables_V2.0", root / "resized_DVM_v2"
    start_set(
        root,
        settings,
        "SYNTHETIC data, written by `python -m tabular_imaging synthetic`. No maker, model, advert or picture\n"
        "in it is real: all comes from a random generator, in the layout of DVM-CAR. Every number obtained on\n"
        "it is synthetic and says nothing about cars.\n",
    )
    tables.mkdir(exist_ok=True)
    planned = _models(np.random.default_rng([seed, 1]), models + RARE)
    # Each advert and each picture has its own random stream, so none depends on another's draws.
    rows: list[dict[str, Any]] = []
    shots: list[_Shot] = []
    for index, (model, number) in enumerate(_plan(planned, adverts, seed)):
        rng = np.random.default_rng([seed, 2, index])
        advert = _advert(model, number, rng)
        length, height, width, wheelbase = model.sizes
        vehicle = Vehicle(model.body, length, height, width, wheelbase, advert["Color"], model.style)
        count = int(rng.choice([0, 1, 2], p=[0.01, 0.91, 0.08]))
        rows.append(_lose(advert, rng))
        folders = (model.maker, model.name, str(advert["Reg_year"]), advert["Color"])
        for picture in range(count):
            name = "$$".join((*folders, model.model_id, str(number), f"image_{picture}.jpg"))
            about = model.model_id, f"{model.model_id}$${number}$${picture}", name
            shots.append(_Shot(vehicle, (seed, 3, index, picture), image_px, pictures.joinpath(*folders, name), about))
    images = [
        (*shot.about, (90 - 45 * round(yaw / 45)) * (-1 if faces_right else 1) % 360, "P")  # seen at 0: the front
        for shot, (yaw, faces_right) in zip(shots, _take(shots), strict=True)
    ]
    prices = [
        (model.maker, model.name, model.model_id, year, _entry_price(model, year))
        for model in planned
        for year in YEARS
        if year != model.unpriced
    ]
    basics = [(model.maker, int(model.model_id[:3]), model.name, model.model_id) for model in planned]
    _write_csv(tables / "Basic_table.csv", basics, BASIC_HEADER)
    _write_csv(tables / "Price_table.csv", prices, PRICE_HEADER)
    _write_csv(tables / "Image_table.csv", images, IMAGE_HEADER)
    _write_csv(tables / "Ad_table (extra).csv", rows, ADVERT_HEADER)
    return root
