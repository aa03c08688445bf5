"""A CSV of your own with images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.cells import category_name, listed, tidy
from shared.data.groups import find_group_column, units
from shared.data.images import Fit, inside
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLIT_VERSION, SPLITS, SplitVersion, random_split
from shared.data.spreadsheet import find_image_column, read_spreadsheet
from shared.data.tables import nearest
from tabular_imaging.data.module import TabularImagingDataModule

log = logging.getLogger(__name__)

INIT_ARGS = {
    "image": "image_column",
    "id": "id_column",
    "target": "target",
    "split": "split_column",
    "group": "group_column",
}
TARGET_NAMES = ("target", "label", "class", "species", "category")
SMALLEST_CLASS = 3  # fewer samples cannot be in all three splits; even this many need not be
MEASURED = 0.3  # fractional numbers with more than this share of distinct values are not classes


class ImageTableDataModule(TabularImagingDataModule):
    """A CSV with one row per sample: the path of an image, and columns of any kind.

    Which columns hold the images, the identifiers, the target, the splits and the groups is inferred, unless it is
    given, and logged; see `tabular_imaging.data.schema.infer_kinds` for the types of the other columns.

    Args:
        csv: Path of the table; a relative path is under `root` if that is given.
        root: Folder that the image paths are relative to; by default the folder of the CSV. Paths that lead out of it
            are refused.
        unlabelled_csv: Path of a second table, relative to the folder of `csv`; its samples are added to the
            pre-training.
        image_column: Column of image paths; by default the one whose values have the endings of image files.
        id_column: Column of identifiers; by default `id` if there is such a column, otherwise the image paths.
        target: Column of the class; by default one called target, label, class, species or category.
        split_column: Column with the values train, val or test; by default `split` if there is such a column, otherwise
            the samples are split at random. A sample with neither an entry nor a label is trained on, unless others of
            its group are elsewhere.
        group_column: Column that says which samples belong together, such as the photographs of one house; they stay in
            one part of the split. By default the one with a usual name (`patient`, `plant_id`, ...), if there is one;
            the column of identifiers, or of images, makes every sample its own group (then list a column such as
            `plant` under `columns.ignored`, or it is learned). The column of the groups is no feature.
        fractions: Shares of train, validation and test in the random split by group, which is stratified by class.
        split_seed: Seed of the random split.
        split_version: Rule of the random split, see `shared.data.splits.SplitVersion`.
        cache_px: Side of the cached images in pixels.
        fit: How an image that is not square becomes square; see `shared.data.images.ImageSettings`.
        batch_size: Global batch size.
        **kwargs: Further arguments of `TabularImagingDataModule`.
    """

    name = "image_table"

    def __init__(
        self,
        csv: str,
        root: str | None = None,
        unlabelled_csv: str | None = None,
        image_column: str | None = None,
        id_column: str | None = None,
        target: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        split_version: SplitVersion = SPLIT_VERSION,
        cache_px: int = 160,
        fit: Fit = "pad",
        batch_size: int = 128,
        **kwargs: Any,
    ) -> None:
        folder = str(Path(csv).parent) if root is None else root
        super().__init__(folder, cache_px=cache_px, fit=fit, batch_size=batch_size, **kwargs)
        self.csv = Path(csv) if root is None else Path(root, csv)
        self.unlabelled_csv = None if unlabelled_csv is None else self.csv.parent / unlabelled_csv
        self.given = {
            "image": image_column,
            "id": id_column,
            "target": target,
            "split": split_column,
            "group": group_column,
        }
        self.fractions = tuple(fractions)
        if len(self.fractions) != len(SPLITS):
            raise DataError(f"fractions: expected a share of train, val and test, got {list(fractions)}")
        self.split_seed = split_seed
        self.split_version: SplitVersion = split_version
        self._target: str | None = target

    @property
    def target_column(self) -> str | None:
        """Column of the class."""
        return self._target

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """The CSV's rows with `id`, `image` and `split`; `problems` receives the rows that cannot be used."""
        frame = read_spreadsheet(self.csv, self.given["id"])
        roles = self._roles(frame)
        places = [f"row {row + 2} of {self.csv}" for row in range(len(frame))]
        self._target = target = roles["target"]
        rows = len(frame)
        if self.unlabelled_csv is not None:
            more = self._read_unlabelled(self.unlabelled_csv, roles)
            places += [f"row {row + 2} of {self.unlabelled_csv}" for row in range(len(more))]
            frame = pd.concat([frame, more], ignore_index=True)
        if target:
            self._check_classes(frame[target], target)
            frame[target] = tidy(frame[target]).map(category_name, na_action="ignore")
        ids = frame[roles["id"] or roles["image"]].map(category_name, na_action="ignore")
        images = tidy(frame[roles["image"]]).map(str, na_action="ignore")
        reasons = self._reasons(ids, images, frame[target] if target and roles["split"] is None else None)
        for name, place, reason in zip(ids.fillna("no id"), places, reasons, strict=True):
            if reason:
                problems.add(name, f"{place}: {reason}")
        keep = np.array([not reason for reason in reasons])
        unlabelled = frame[target].isna().to_numpy() if target else np.arange(len(frame)) >= rows
        groups = (frame[roles["group"]].map(category_name, na_action="ignore") if roles["group"] else ids)[keep]
        apart = pd.Series(units(groups, ids[keep]), groups.index)
        split = self._splits(frame[keep], roles["split"], unlabelled[keep], apart)
        used = [name for key, name in roles.items() if name and key not in ("target", "group")]
        read = frame.drop(columns=used)[keep]
        clash = [name for name in ("id", "image", "split") if name in read]
        if clash:
            raise DataError(f"{self.csv} has a column {clash[0]} beside the one used for that; rename it")
        paths = [str(inside(self.root, path)) for path in images[keep]]
        keys = pd.DataFrame({"id": ids[keep], "image": paths, "split": split}, index=read.index)
        return pd.concat([keys, read], axis=1)

    def _check_classes(self, column: "pd.Series[Any]", target: str) -> None:
        recorded = tidy(column).dropna()
        distinct = recorded.nunique()
        # Whole numbers are read as floats where one is missing.
        fractional = pd.api.types.is_float_dtype(column) and (recorded % 1 != 0).any()
        if fractional and distinct > MEASURED * len(recorded):
            raise DataError(
                f"{self.csv}: the target {target} has {distinct} different numbers in {len(recorded)} rows, so it "
                "looks like a measurement, but the target must be a class: name another target, or group its values "
                "into classes first"
            )
        if distinct == 1:
            raise DataError(f"{self.csv}: the target {target} is {recorded.iloc[0]} in every row; it needs two classes")

    def _read_unlabelled(self, path: Path, roles: dict[str, str | None]) -> pd.DataFrame:
        frame = read_spreadsheet(path, self.given["id"])
        if roles["target"] in frame:
            raise DataError(f"{path} has the target column {roles['target']}; join the two files instead")
        for option in ("image", "id"):
            if roles[option] is not None and roles[option] not in frame:
                raise DataError(f"{path} has no column {roles[option]} ({option}), which {self.csv} has")
        return frame

    def _roles(self, frame: pd.DataFrame) -> dict[str, str | None]:
        for option, name in self.given.items():
            if name is not None and name not in frame:
                hint = nearest(name, frame.columns) or f"; it has {listed(frame.columns)}"
                raise DataError(f"{self.csv} has no column {name} ({option}){hint}")
        roles = dict(self.given)
        if roles["image"] is None:
            roles["image"] = find_image_column(frame, self.csv, "--data.init_args.image_column")
        for option, names in (("id", ("id",)), ("split", ("split",)), ("target", TARGET_NAMES)):
            if roles[option] is None:
                found = [name for name in frame.columns if name.lower() in names and name not in roles.values()]
                if len(found) > 1:  # also because a second copy of the label must not be a feature
                    raise DataError(
                        f"{self.csv}: {' and '.join(found)} could each be the {option}; say which with "
                        f"--data.init_args.{INIT_ARGS[option]} NAME, and list the other under columns.ignored"
                    )
                roles[option] = found[0] if found else None
        if self.given["group"] or self.split_version > 1:  # runs of rule 1 knew no groups
            group = find_group_column(frame.columns, self.given["group"], self.csv, list(roles.values()))
            self.group_name = roles["group"] = None if group in (roles["id"], roles["image"]) else group
        described = ", ".join(f"{option}: {name or 'none'}" for option, name in roles.items())
        log.info("%s: %d rows; columns of %s", self.csv, len(frame), described)
        if roles["target"] is None:
            log.warning(
                "no column is called %s, so there is no target and nothing to evaluate; if one of %s is the class, "
                "say so with --data.init_args.target NAME, otherwise it is learned as a feature",
                ", ".join(TARGET_NAMES),
                listed([name for name in frame.columns if name not in roles.values()]),
            )
        return roles

    def _reasons(self, ids: "pd.Series[str]", images: "pd.Series[str]", strata: "pd.Series[str] | None") -> list[str]:
        """Why each row cannot be used; empty if it can. `strata` are the classes if the split is drawn at random."""
        reasons = []
        for name, again, image in zip(ids, ids.duplicated(), images, strict=True):
            reason = ""
            if pd.isna(image):
                reason = "it has no image path"
            elif pd.isna(name):
                reason = "it has no id"
            elif again:
                reason = "this id occurs a second time"
            else:
                try:
                    inside(self.root, image)
                except DataError as error:
                    reason = str(error)
            reasons.append(reason)
        if strata is not None:
            counts = strata[[not reason for reason in reasons]].value_counts()
            for row, label in enumerate(strata):
                if not reasons[row] and not pd.isna(label) and counts[label] < SMALLEST_CLASS:
                    reasons[row] = f"class {label} has {counts[label]} of the {SMALLEST_CLASS} samples that it needs"
        return reasons

    def _splits(
        self, frame: pd.DataFrame, column: str | None, unlabelled: NDArray[np.bool_], groups: "pd.Series[str]"
    ) -> NDArray[np.object_]:
        if column is not None:
            values = tidy(frame[column]).astype(object)
            known = values.isin(SPLITS)
            wrong = values[~known & (values.notna() | ~unlabelled)].fillna("")
            if len(wrong):
                raise DataError(
                    f"{self.csv}: column {column}, row {wrong.index[0] + 2}: {str(wrong.iloc[0])!r} is not train, val "
                    f"or test (rows of that kind: {len(wrong)})"
                )
        else:
            known = pd.Series(~unlabelled, frame.index)
            labels = frame[self._target].astype(str) if self._target else pd.Series("", frame.index)
            # The split of the others must not depend on unlabelled samples: by rule 1 these are a stratum of their own.
            strata = labels.where(known, None)
            takes_part = known | (self.split_version == 1)
            values = pd.Series(None, frame.index, dtype=object)
            parts = random_split(
                groups[takes_part].tolist(),
                strata[takes_part].tolist(),
                self.fractions,
                self.split_seed,
                self.split_version,
            )
            values[takes_part] = np.array(SPLITS, dtype=object)[parts]
        # An unlabelled sample is trained on, unless labelled ones of its group are to be validated or tested on.
        split_of_group = dict(zip(groups[known], values[known], strict=True))
        return values.where(known, groups.map(split_of_group).fillna("train")).to_numpy(dtype=object)
