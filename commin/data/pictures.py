"""Which pictures a set has, whose they are, which part of the split its makers gave them, and how one is read.

Read by worker processes, so torch stays out.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from shared.data.cells import tidy
from shared.data.groups import find_group_column
from shared.data.image_folders import folders_below, images_of
from shared.data.images import ImageSettings, ImageSource, inside, load_image
from shared.data.problems import DataError, Problems
from shared.data.spreadsheet import find_image_column, read_spreadsheet

log = logging.getLogger(__name__)

FOLDER = "folder"  # the group of images that lie in one folder
GIVEN = "split"
# What folders and tables call the parts, in any capitals.
PARTS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def in_folders(root: Path, group_column: str | None = None) -> pd.DataFrame:
    """The images in a folder, at any depth.

    Where every image lies in a folder for a part of the split, such as `train/` and `test/`, these are the parts.

    Args:
        root: The folder.
        group_column: `folder` groups the images that lie in one folder, below that of the part; None groups none.

    Returns:
        A row for each image, sorted: `id` is its path below the root; `path`; `split`, empty unless it is given; and
        `folder` if that is the group.

    Raises:
        DataError: Only some images lie in folders of parts; the group is another column, or there is only one.
    """
    files: list[Path] = []
    for folder in (root, *folders_below(root)):
        images, others = images_of(folder)
        files += images
        if others:
            log.info("%s: %d files that are no images are ignored (the first is %s)", folder, len(others), others[0])
    ids = [file.relative_to(root).as_posix() for file in files]
    tops = [name.partition("/")[0] if "/" in name else "" for name in ids]
    given = [PARTS.get(top.lower(), "") for top in tops]
    parts = sorted(set(given) - {""})
    if len(parts) < 2:  # a single folder of such a name may be a person, or a thing
        given, tops = [""] * len(ids), [""] * len(ids)
    elif "" in given:
        outside = [name for name, part in zip(ids, given, strict=True) if not part]
        raise DataError(
            f"{root} has folders for {' and '.join(parts)}, and {len(outside)} images outside of these (the first is "
            f"{outside[0]}): move them, or list all images in a table with a column `split` (data.init_args.table)"
        )
    frame = pd.DataFrame({"id": ids, "path": [str(file) for file in files], GIVEN: given}, dtype=object)
    if group_column is None:
        return frame
    if group_column != FOLDER:
        raise DataError(
            f"group_column is {group_column}, which needs a table (data.init_args.table); without one it is {FOLDER}, "
            "or null"
        )
    pairs = zip(ids, tops, strict=True)
    frame[FOLDER] = [name.rpartition("/")[0].removeprefix(top).strip("/") for name, top in pairs]
    if frame[FOLDER].nunique() == 1:
        raise DataError(
            f"{root} has all its images in one folder, so folders do not tell persons apart: set "
            "--data.init_args.group_column null, or move the images of each person into a folder"
        )
    return frame


def in_table(
    root: Path, table: Path, image_column: str | None, group_column: str | None, problems: Problems
) -> tuple[pd.DataFrame, str | None]:
    """The images that a table lists.

    Args:
        root: Folder that the paths of the images start from.
        table: CSV with a row for each image; a column `split`, if there is one, gives its part.
        image_column: Column of the paths; by default the one whose values have the endings of image files.
        group_column: Column of the persons; by default one with a usual name, if there is one; `folder` is the folder
            that an image lies in; the column of the images makes each its own group.
        problems: Gets the rows that cannot be used.

    Returns:
        The frame, as `in_folders` has it, with the column of the groups; and the name of that, None without groups.

    Raises:
        DataError: The table cannot be read, or a column is not there; a part has another name.
    """
    listed = read_spreadsheet(table)
    column = image_column or find_image_column(listed, table, "--data.init_args.image_column")
    if column not in listed:
        raise DataError(f"{table} has no column {column} (image_column); it has {', '.join(listed.columns)}")
    found: dict[Path, int] = {}
    for row, value in enumerate(tidy(listed[column])):
        try:
            if pd.isna(value):
                raise DataError("it has no path of an image")
            path = inside(root, str(value))
            if path in found:
                raise DataError(f"its image is also in row {found[path] + 2}")
            found[path] = row
        except DataError as error:
            problems.add(f"row {row + 2} of {table}", str(error))
    ids = [path.relative_to(root.resolve()).as_posix() for path in found]
    rows = list(found.values())
    given = np.array(_given_parts(listed, table), dtype=object)
    frame = pd.DataFrame({"id": ids, "path": [str(path) for path in found], GIVEN: given[rows]}, dtype=object)
    if group_column == FOLDER and FOLDER not in listed:
        return frame.assign(folder=[name.rpartition("/")[0] for name in ids]), FOLDER
    group_column = find_group_column(listed.columns, group_column, table, taken=(column,))
    if group_column in (None, column):
        return frame, None
    if group_column in frame:
        raise DataError(
            f"{table}: a column called {group_column} cannot say whose an image is; call it person, or the like"
        )
    return frame.assign(**{group_column: listed[group_column].to_numpy(dtype=object)[rows]}), group_column


def _given_parts(listed: pd.DataFrame, table: Path) -> list[str]:
    """The part of each row, by the usual names; empty if the table has no such column."""
    if GIVEN not in listed:
        return [""] * len(listed)
    words = [str(word).strip() for word in listed[GIVEN].fillna("")]
    for row, word in enumerate(words):
        if word.lower() not in PARTS:
            raise DataError(f"{table}, row {row + 2}: the split is {word!r}, expected one of {', '.join(PARTS)}")
    return [PARTS[word.lower()] for word in words]


def load_picture(source: ImageSource) -> NDArray[np.uint8]:
    """Read one picture `(3, S, S)` uint8, as `shared.data.images.load_image`; it is never enlarged.

    Raises:
        DataError: It is smaller than S, or animated; see also `load_image`.
    """
    try:
        with Image.open(source.path) as opened:
            size, frames, kind = opened.size, getattr(opened, "n_frames", 1), opened.format
    except Exception:  # load_image says what is wrong
        return load_image(source)
    if frames > 1 and kind != "MPO":  # a telephone's photograph with its depth beside it
        raise DataError(f"{source.path} has {frames} frames: save the one that is meant")
    if _is_enlarged(size, source.settings):
        raise DataError(
            f"{source.path} has {size[0]} x {size[1]} pixels, fewer than the {source.settings.size} asked for, and an "
            "enlarged picture has no details: give a larger one, or a smaller data.init_args.image_px"
        )
    return load_image(source)


def _is_enlarged(size: tuple[int, int], settings: ImageSettings) -> bool:
    """Whether a picture of that width and height has to be enlarged."""
    return (max(size) if settings.fit == "pad" else min(size)) < settings.size
