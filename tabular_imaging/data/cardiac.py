"""UK Biobank's cardiac task, for users who have access: field table, hospital diagnoses, images, and the data module.

Nothing of UK Biobank is shipped. A root folder holds `fields.csv` or `fields.parquet` with one row per subject, and
`images/<eid>.npy`, `(2, H, W)`: end-systole and end-diastole of the middle short-axis slice (paper, section 4.1).
`configs/fields/cardiac.yaml` says which fields become which column, and `icd10.yaml` which diagnoses make a target.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.module import Purpose
from shared.data.problems import DataError, OnError, Problems
from shared.data.splits import SPLIT_VERSION, SPLITS, SplitVersion, random_split
from shared.data.tables import read_csv
from tabular_imaging.data.cardiac_fields import FIELDS, ICD10, feature_column, read_fields, read_icd10
from tabular_imaging.data.module import Metric, TabularImagingDataModule
from tabular_imaging.data.schema import ColumnTypes
from tabular_imaging.data.ukbiobank import FieldTable

log = logging.getLogger(__name__)

FRACTIONS = (0.72, 0.18, 0.1)  # 29,428 / 7,358 / 4,088 of 40,874 (section 4.1)
DIAGNOSES = 41270  # hospital in-patient diagnoses, ICD-10


def diagnosed(texts: pd.DataFrame, codes: Iterable[str]) -> NDArray[np.bool_]:
    """Whether any diagnosis of a subject (a row of `(N, K)`) begins with one of the ICD-10 codes; dots are ignored.

    Example:
        >>> diagnosed(pd.DataFrame([["I10", "I25.0"], ["I12", None]]), ["I249", "I250"]).tolist()
        [True, False]
    """
    prefixes = tuple(codes)
    hits = [
        texts.iloc[:, k].str.replace(".", "").str.upper().str.startswith(prefixes, na=False)
        for k in range(texts.shape[1])
    ]
    return np.asarray(np.any([hit.to_numpy(bool) for hit in hits], axis=0))


def _split(
    eids: Sequence[str],
    strata: Sequence[str],
    seed: int,
    splits: Path | None,
    problems: Problems,
    version: SplitVersion,
) -> list[str]:
    """The split of every subject, drawn or read from a CSV `id,split`; empty for a subject that the file lacks."""
    if splits is None:
        return [SPLITS[part] for part in random_split(eids, strata, FRACTIONS, seed, version)]
    table = read_csv(splits, ("id", "split"), dtype=str)
    if wrong := sorted(set(table["split"].fillna("")) - set(SPLITS)):
        raise DataError(f"{splits}: a split is one of {', '.join(SPLITS)}, found {wrong[0]!r}")
    if table["id"].duplicated().any():
        raise DataError(f"{splits}: subject {table['id'][table['id'].duplicated()].iloc[0]} occurs twice")
    given = dict(zip(table["id"], table["split"], strict=True))
    for eid in eids:
        if eid not in given:
            problems.add(eid, f"not in {splits}")
    return [given.get(eid, "") for eid in eids]


def _field_table(root: Path) -> Path:
    for name in ("fields.parquet", "fields.csv"):
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: no fields.csv or fields.parquet, which is UK Biobank's table with one row per subject")


def cardiac_frame(
    root: Path,
    fields: Path = FIELDS,
    icd10: Path = ICD10,
    target: str = "infarction",
    seed: int = 2022,
    splits: Path | None = None,
    problems: Problems | None = None,
    split_version: SplitVersion = SPLIT_VERSION,
) -> pd.DataFrame:
    """The subjects of the cardiac task, one per row, sorted by eid (paper, section 4.1).

    One pre-training serves both targets, so the split must not depend on only one of them: it is stratified by all
    targets of the ICD-10 file together (72% / 18% / 10%). The authors' split is not stratified.

    Args:
        root: Folder with `fields.csv` or `fields.parquet`, and `images/<eid>.npy`.
        fields: YAML that says which fields become which column.
        icd10: YAML that says which diagnoses make which target.
        target: Name of a target in the ICD-10 file.
        seed: Seed of the split.
        splits: CSV `id,split` with a given split, in place of a random one.
        problems: Receives the subjects without an image, or without a split in `splits`; by default they are skipped
            and logged.
        split_version: Rule of the random split, see `shared.data.splits.SplitVersion`.

    Returns:
        Columns `id` (eid as text), `image` (relative to `root`), `split`, the features and group columns by name
        (float64, or ordered categories of text), and the target under its own name, with the values "negative" and
        "positive". Features that the table lacks are left out, counted and listed in a warning.

    Raises:
        DataError: A file is missing or malformed, the target is unknown, the table has no diagnoses, or no subject or
            no feature is left.
    """
    root = Path(root)
    problems = problems or Problems("skip", noun="subject")
    field_list, targets = read_fields(fields), read_icd10(icd10)
    if target not in targets:
        raise DataError(f"unknown target {target!r}; {icd10} defines {', '.join(targets)}")
    columns = (*field_list.features, *field_list.groups)
    needed = {DIAGNOSES, *(rule[0] for rule in field_list.include)}.union(*(column.needs for column in columns))
    table = FieldTable(_field_table(root), needed)

    for number, instance, codes in field_list.include:
        answers = table.numbers(number, (instance,))
        if answers is None:
            log.warning("%s: no field %d, so everybody is included", table.path, number)
        else:
            kept = answers.index[answers.isin(list(codes)).any(axis=1)]
            log.info("field %d includes %d of %d subjects", number, len(kept), len(answers))
            table.keep(kept)
    images = {path.stem for path in (root / "images").glob("*.npy")}
    for eid in table.rows.index:
        if eid not in images:
            problems.add(eid, f"no image images/{eid}.npy")
    table.keep(images)
    if table.rows.empty:
        raise DataError(f"{root}: no subject of {table.path.name} is included and has an image images/<eid>.npy")

    diagnoses = table.texts(DIAGNOSES, (0,))
    if diagnoses is None:
        raise DataError(f"{table.path}: no field {DIAGNOSES} (hospital diagnoses, ICD-10), which makes the target")
    positive = {name: diagnosed(diagnoses, codes) for name, codes in targets.items()}
    values = {column.name: feature_column(column, table) for column in columns}
    found = {name: value for name, value in values.items() if value is not None}
    lacking = [name for name in values if name not in found]
    if lacking:
        log.warning("%s lacks %d of %d columns: %s", table.path, len(lacking), len(values), ", ".join(lacking))
    if not any(feature.name in found for feature in field_list.features):
        raise DataError(f"{table.path} has none of the {len(field_list.features)} features of {fields}")

    eids = list(table.rows.index)
    strata = [str(tuple(map(bool, row))) for row in zip(*positive.values(), strict=True)]
    split = _split(eids, strata, seed, splits, problems, split_version)
    keys = pd.DataFrame({"id": eids, "image": [f"images/{eid}.npy" for eid in eids], "split": split})
    labels = pd.Series(np.where(positive[target], "positive", "negative"), name=target, dtype=str)
    frame = pd.concat([keys, pd.DataFrame(found).reset_index(drop=True), labels], axis=1)
    log.info("%d subjects, %d with %s; %s", len(frame), positive[target].sum(), target, problems.summary())
    return frame[frame["split"] != ""].reset_index(drop=True)


def balanced_subset(target: NDArray[np.int64], rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All positive rows and a fixed random set of as many negative ones, for fine-tuning (paper, section 4.1).

    Args:
        target: `(N,)` labels 0 or 1 of the table's rows.
        rows: `(R,)` rows to choose from: those of the training split. Validation and test are not balanced.
        seed: Seed of the random choice; the same seed gives the same negatives.

    Returns:
        The chosen rows, sorted; all labelled rows if the positives are not the rarer class.

    Raises:
        DataError: One of the classes has no row.

    Example:
        >>> target = np.array([1, 0, 0, 0, 1, 0])
        >>> rows = balanced_subset(target, np.arange(6), seed=0)
        >>> target[rows].sum(), len(rows)
        (np.int64(2), 4)
    """
    positive, negative = (np.sort(rows[target[rows] == label]) for label in (1, 0))
    if not len(positive) or not len(negative):
        raise DataError(
            f"a balanced subset needs both classes, found {len(positive)} positive, {len(negative)} negative"
        )
    count = min(len(positive), len(negative))
    chosen = np.random.default_rng(seed).choice(negative, count, replace=False)
    return np.sort(np.concatenate([positive, chosen]))


class CardiacDataModule(TabularImagingDataModule):
    """UK Biobank's cardiac MR images with its fields (paper, section 4.1). See `cardiac_frame`.

    Args:
        root: Folder with the field table and the images `images/<eid>.npy`.
        disease: The target: `infarction`, `cad`, or another name in `icd10`. Pre-training does not depend on it.
        fields: YAML that says which fields become which column; by default configs/fields/cardiac.yaml.
        icd10: YAML with the diagnoses of each disease; by default configs/fields/icd10.yaml.
        splits: CSV `id,split` with a given split, in place of a random one.
        balanced: Whether to fine-tune on all positive subjects and as many negative ones (section 4.1).
        split_seed: Seed of the split and of the balanced subset.
        split_version: Rule of the split, see `shared.data.splits.SplitVersion`.
        cache_px: Side of the cached images in pixels; images are zero-padded to this size.
        channels: Number of channels of the images: end-systole and end-diastole.
        metric: Metric that runs are compared by (section 4.2: the area under the ROC curve).
        min_coverage: Smallest share of the subjects that a field must be recorded for; other fields are left out
            (section 4.1: 80%).
        on_error: What to do with a subject that cannot be used: `skip` it, or `raise` an error. Far more subjects have
            a row in the table than images.
        **kwargs: Further arguments of `TabularImagingDataModule`.
    """

    name = "cardiac"

    def __init__(
        self,
        root: str,
        disease: str = "infarction",
        fields: str | None = None,
        icd10: str | None = None,
        splits: str | None = None,
        balanced: bool = True,
        split_seed: int = 2022,
        split_version: SplitVersion = SPLIT_VERSION,
        cache_px: int = 210,
        channels: int = 2,
        metric: Metric = "auroc",
        min_coverage: float = 0.8,
        on_error: OnError = "skip",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root,
            cache_px=cache_px,
            channels=channels,
            fit="pad",
            metric=metric,
            columns=None,
            on_error=on_error,
            **kwargs,
        )
        self.disease = disease
        self.fields = Path(fields) if fields else FIELDS
        self.icd10 = Path(icd10) if icd10 else ICD10
        self.split_list = Path(splits) if splits else None
        self.min_coverage = min_coverage
        self.balanced = balanced
        self.split_seed = split_seed
        self.split_version: SplitVersion = split_version

    @property
    def target_column(self) -> str:
        """The disease."""
        return self.disease

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row per subject; the list of fields gives the types of the columns."""
        frame = cardiac_frame(
            self.root,
            self.fields,
            self.icd10,
            self.disease,
            self.split_seed,
            self.split_list,
            problems,
            self.split_version,
        )
        fields = read_fields(self.fields)
        features = [feature for feature in fields.features if feature.name in frame]
        by_kind = {
            kind: [feature.name for feature in features if feature.kind == kind]
            for kind in ("continuous", "categorical")
        }
        self.columns = ColumnTypes(
            continuous=by_kind["continuous"],
            categorical=by_kind["categorical"],
            ignored=[feature.name for feature in fields.groups if feature.name in frame],
            morphometric=[feature.name for feature in features if feature.morphometric],
            min_coverage=self.min_coverage,
        )
        return frame.assign(image=[str(self.root / path) for path in frame["image"]])

    def rows(self, split: str, purpose: Purpose) -> NDArray[np.int64]:
        """As in the base class, but the labelled training subjects are a fixed, balanced subset."""
        rows = super().rows(split, purpose)
        if self.balanced and split == "train" and purpose == "evaluate":
            return balanced_subset(self.target, rows, self.split_seed)
        return rows
