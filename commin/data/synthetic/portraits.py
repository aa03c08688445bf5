"""A SYNTHETIC set of portraits: a folder for each person, whose pictures differ in pose, light, face and background."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from commin.data.synthetic.person import draw_person, draw_view, plain
from commin.data.synthetic.render import CANVAS, draw_portrait
from shared.data.files import write_whole
from shared.data.synthetic import is_complete, start_set

TRUTH = "persons.csv"  # written last
README = """SYNTHETIC portraits, made by `python -m commin synthetic`: drawn heads of persons who do not exist.
person_*/    the pictures of a person: the same head, hair and features in another pose, light, mood and place
persons.csv  what each person was drawn from; `commin/data/synthetic/person.py` explains the columns
"""


def write_synthetic(root: Path, persons: int = 150, per_person: int = 8, side: int = 32, seed: int = 0) -> None:
    """Write the SYNTHETIC set; a folder that holds it already is left alone.

    A person depends on the seed and its number alone, and a picture on these and its own.

    Args:
        root: Folder to write into.
        persons: Number of persons.
        per_person: Pictures of each.
        side: Pixels of either side: 128, or a half, a quarter ... of it.
        seed: Of the persons.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: `side` is not such a number.
    """
    if side < 1 or CANVAS % side:
        raise ValueError(f"side must divide {CANVAS}, as 32 and 64 do, got {side}")
    settings = {"persons": persons, "per_person": per_person, "side": side, "seed": seed, "version": 1}
    if is_complete(root, settings, TRUTH):
        return
    start_set(root, settings, README)
    rows = []
    for number in tqdm(range(persons), desc=f"write {root}", unit="person"):
        person, name = draw_person(np.random.default_rng((seed, number))), f"person_{number:03d}"
        rows.append({"person": name, **plain(person)})
        (root / name).mkdir(exist_ok=True)
        for picture in range(per_person):
            view = draw_view(np.random.default_rng((seed, number, 1 + picture)))
            Image.fromarray(draw_portrait(person, view, side)).save(root / name / f"{picture:02d}.png")
    write_whole(root / TRUTH, pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))
