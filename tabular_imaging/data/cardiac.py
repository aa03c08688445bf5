"""UK Biobank's cardiac task as a frame: field table, hospital diagnoses and images of a user who has access.

Nothing of UK Biobank is shipped. A root folder holds `fields.csv` or `fields.parquet`, a row a subject, and
`images/<eid>.npy`, `(2, H, W)`: end-systole and end-diastole of the middle short-axis slice (paper, section 4.1).
Which fields become which column is in `configs/fields/cardiac.yaml`, which diagnoses make a target in `icd10.yaml`.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from shared.data.problems import DataError, OnError, Problems
from shared.data.splits import stratified_split
from tabular_imaging.data.module import Metric, Purpose, Split, TabularImagingDataModule
from tabular_imaging.data.schema import ColumnTypes
from tabular_imaging.data.ukbiobank import FieldTable

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[1] / "configs" / "fields"
FIELDS, ICD10 = CONFIGS / "cardiac.yaml", CONFIGS / "icd10.yaml"
SPLITS = ("train", "val", "test")
FRACTIONS = (0.72, 0.18, 0.1)  # 29,428 / 7,358 / 4,088 of 40,874 (section 4.1)
DIAGNOSES = 41270  # hospital in-patient diagnoses, ICD-10
IMAGING_VISIT = 2


@dataclass(frozen=True)
class Feature:
    """One column of the frame; `cardiac.yaml` says what each key means.

    Attributes:
        name: Readable name.
        kind: Continuous, or categorical with the labels of `values`.
        fields: Ids of the fields it is made of; with `take` any or count, each with the codes that are looked for.
        take: How the recorded values become one.
        instance: Visits that count.
        recorded: With any: yes as well where one of these fields has a value.
        missing: Codes that are no answer.
        replace: Codes that stand for a number.
        values: Code -> label, in the order of the categories.
        absent: Value where nothing was recorded.
        low: Smallest believable value.
        high: Largest believable value.
        zero_if_zero: Field whose answer 0 makes this one 0.
        morphometric: Size and shape, with a direct correlate in the image (section 4.5).
    """

    name: str
    kind: Literal["continuous", "categorical"]
    fields: Mapping[int, Sequence[int]]
    take: Literal["first", "mean", "any", "count"] = "first"
    instance: tuple[int, ...] = (IMAGING_VISIT,)
    recorded: tuple[int, ...] = ()
    missing: tuple[float, ...] = ()
    replace: Mapping[float, float] = field(default_factory=dict)
    values: Mapping[int, str] = field(default_factory=dict)
    absent: float | None = None
    low: float = -np.inf
    high: float = np.inf
    zero_if_zero: int | None = None
    morphometric: bool = False

    @property
    def needs(self) -> set[int]:
        """Ids of all fields it looks at."""
        asked_before = () if self.zero_if_zero is None else (self.zero_if_zero,)
        return {*self.fields, *self.recorded, *asked_before}


@dataclass(frozen=True)
class FieldList:
    """What `cardiac.yaml` holds.

    Attributes:
        features: Columns of the table that the model sees.
        groups: Further columns, for metrics by group only.
        include: Field, visit and codes of the subjects to keep.
    """

    features: tuple[Feature, ...]
    groups: tuple[Feature, ...]
    include: tuple[tuple[int, int, tuple[int, ...]], ...]


def _feature(entry: Any, kind: str, codings: Mapping[int, Mapping[str, Any]]) -> Feature:
    """One entry of the YAML; one of another form raises an AttributeError, TypeError or ValueError."""
    keys = dict(entry)
    sources = [key for key in ("field", "any", "count") if key in keys]
    if len(sources) != 1:
        raise ValueError(f"expected exactly one of field, any and count, found {' and '.join(sources) or 'none'}")
    source = keys.pop(sources[0])
    fields: dict[int, tuple[int, ...]]
    if sources[0] == "field":
        fields = {int(number): () for number in _listed(source)}
        if keys.get("take", "first") not in ("first", "mean"):
            raise ValueError(f"take is first or mean, not {keys['take']!r}")
    else:
        fields = {int(number): tuple(map(int, codes)) for number, codes in source.items()}
        keys["take"] = sources[0]
    coding = keys.pop("coding", None)
    if coding is not None and coding not in codings:
        raise ValueError(f"coding {coding} is not among the codings")
    low, high = keys.pop("range", (None, None))
    for key in ("instance", "recorded"):
        if key in keys:
            keys[key] = tuple(map(int, _listed(keys[key])))
    rules = dict(codings[coding]) if coding is not None else {}
    feature = Feature(kind=kind, fields=fields, **keys, **rules)  # type: ignore[arg-type]
    if kind == "categorical" and not feature.values:
        raise ValueError("a categorical feature needs a coding with values")
    return replace(feature, low=-np.inf if low is None else low, high=np.inf if high is None else high)


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping at the top, found {type(content).__name__}")
    return content


def read_fields(path: Path = CONFIGS / "cardiac.yaml") -> FieldList:
    """Read a field list.

    Raises:
        DataError: If the file cannot be read, or an entry is not of the form that `cardiac.yaml` explains.

    Example:
        >>> features = read_fields().features
        >>> len(features), sum(feature.morphometric for feature in features)
        (118, 25)
    """
    content = _yaml(path)
    codings = content.get("codings") or {}
    sections = content.get("features")
    if not isinstance(sections, dict) or not {"continuous", "categorical"}.issuperset(sections):
        raise DataError(f"{path}: expected `features:` with the lists `continuous:` and `categorical:`")

    def read(entries: object, kind: str) -> tuple[Feature, ...]:
        parsed = []
        for entry in entries if isinstance(entries, list) else [entries]:
            try:
                parsed.append(_feature(entry, kind, codings))
            except (AttributeError, TypeError, ValueError) as error:
                name = entry.get("name", entry) if isinstance(entry, dict) else entry
                raise DataError(f"{path}: feature {name!r}: {str(error).replace('Feature.__init__() ', '')}") from error
        return tuple(parsed)

    features = tuple(one for kind, entries in sections.items() for one in read(entries or [], kind))
    groups = read(content.get("groups") or [], "continuous")
    names = ["id", "image", "split", *(feature.name for feature in (*features, *groups))]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: named twice, or as a column that is always there: {', '.join(twice)}")
    try:
        rules = content.get("include") or ()
        include = tuple((int(rule["field"]), int(rule["instance"]), tuple(rule["values"])) for rule in rules)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected `include:` with entries of field, instance and values") from error
    return FieldList(features, groups, include)


def read_icd10(path: Path = CONFIGS / "icd10.yaml") -> dict[str, tuple[str, ...]]:
    """Read the targets: name -> ICD-10 codes, without dots. A code covers all codes that begin with it.

    Raises:
        DataError: If a list is empty or holds something that is no ICD-10 code.

    Example:
        >>> {"I249", "I250"} <= set(read_icd10()["cad"])
        True
    """
    lists: dict[str, tuple[str, ...]] = {}
    for name, codes in _yaml(path).items():
        cleaned = tuple(str(code).replace(".", "").upper() for code in codes or ())
        bad = [code for code in cleaned if not re.fullmatch(r"[A-Z]\d[0-9A-Z]{1,5}", code)]
        if bad or not cleaned:
            raise DataError(f"{path}: {name}: expected a list of ICD-10 codes such as I214, found {bad or 'none'}")
        lists[name] = cleaned
    return lists


def _value(feature: Feature, table: FieldTable) -> "pd.Series[Any] | None":
    """The column of a feature; None where the table has none of its fields."""
    parts = {one: table.numbers(one, feature.instance) for one in feature.fields}
    cells = {one: part for one, part in parts.items() if part is not None}
    if not cells:
        return None
    if feature.take == "any":
        hits = [cells[one].isin(list(feature.fields[one])).any(axis=1) for one in cells]
        ages = [table.numbers(one, feature.instance) for one in feature.recorded]
        hits += [age.mask(age.isin(list(feature.missing))).notna().any(axis=1) for age in ages if age is not None]
        value = pd.concat(hits, axis=1).any(axis=1).astype(float)
    elif feature.take == "count":
        counts = [cells[one].isin(list(feature.fields[one])).sum(axis=1) for one in cells]
        value = pd.concat(counts, axis=1).sum(axis=1).astype(float)
    else:
        recorded = pd.concat(cells.values(), axis=1)
        answers = recorded.mask(recorded.isin(list(feature.missing))).replace(dict(feature.replace))
        answers = answers.where(answers.ge(feature.low) & answers.le(feature.high))
        value = answers.mean(axis=1) if feature.take == "mean" else answers.bfill(axis=1).iloc[:, 0]
        if feature.absent is not None:
            value = value.mask(recorded.isna().all(axis=1), feature.absent)
    if feature.zero_if_zero is not None:
        other = table.numbers(feature.zero_if_zero, feature.instance)
        if other is not None:
            value = value.mask(other.eq(0).any(axis=1), 0.0)
    return _labelled(feature, value) if feature.kind == "categorical" else value


def _labelled(feature: Feature, value: "pd.Series[Any]") -> "pd.Series[Any]":
    unknown = value.notna() & ~value.isin(list(feature.values))
    if unknown.any():
        codes = ", ".join(f"{code:g}" for code in sorted(value[unknown].unique()))
        log.warning("%s: %d values are codes without a meaning (%s); missing", feature.name, unknown.sum(), codes)
    labels = list(feature.values.values())
    return value.map(dict(feature.values)).astype(pd.CategoricalDtype(labels, ordered=True))


def diagnosed(texts: pd.DataFrame, codes: Iterable[str]) -> NDArray[np.bool_]:
    """Whether any diagnosis of a subject, a row of `(N, K)`, begins with one of the ICD-10 codes; dots are ignored.

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
    eids: Sequence[str], strata: Sequence[object], seed: int, splits: Path | None, report: Problems
) -> list[str]:
    """The split of every subject, drawn or read from a CSV `id,split`; empty for a subject that the file lacks."""
    if splits is None:
        return [SPLITS[part] for part in stratified_split(strata, FRACTIONS, seed)]
    try:
        table = pd.read_csv(splits, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{splits}: not a readable CSV ({error})") from error
    if not {"id", "split"}.issubset(table.columns):
        raise DataError(f"{splits}: expected the columns id and split, found {', '.join(table.columns)}")
    if wrong := sorted(set(table["split"].fillna("")) - set(SPLITS)):
        raise DataError(f"{splits}: a split is one of {', '.join(SPLITS)}, found {wrong[0]!r}")
    if table["id"].duplicated().any():
        raise DataError(f"{splits}: subject {table['id'][table['id'].duplicated()].iloc[0]} is there twice")
    given = dict(zip(table["id"], table["split"], strict=True))
    for eid in eids:
        if eid not in given:
            report.problem(eid, f"not in {splits}")
    return [given.get(eid, "") for eid in eids]


def _field_table(root: Path) -> Path:
    for name in ("fields.parquet", "fields.csv"):
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: no fields.csv or fields.parquet; it is UK Biobank's table, a row a subject")


def cardiac_frame(
    root: Path,
    fields: Path = CONFIGS / "cardiac.yaml",
    icd10: Path = CONFIGS / "icd10.yaml",
    target: str = "infarction",
    seed: int = 2022,
    splits: Path | None = None,
    report: Problems | None = None,
) -> pd.DataFrame:
    """The subjects of the cardiac task, one a row, sorted by eid (paper, section 4.1).

    One pre-training serves both targets, so the split depends on neither alone: it is stratified over all targets of
    the ICD-10 file together (72% / 18% / 10%). The authors' is not stratified.

    Args:
        root: Folder with `fields.csv` or `fields.parquet`, and `images/<eid>.npy`.
        fields: Which fields become which column.
        icd10: Which diagnoses make which target.
        target: A target of the ICD-10 file.
        seed: Of the split.
        splits: CSV `id,split` with a given split instead.
        report: Takes subjects without an image, or without a split in `splits`; default: skip and log them.

    Returns:
        Columns `id` (eid as text), `image` (relative to `root`), `split`, the features and group columns by name
        (float64, or ordered categories of text), and `target` under its name: text, "negative" or "positive".
        Features that the table lacks are left out, counted and listed in a warning.

    Raises:
        DataError: If a file is missing or malformed, the target is unknown, the table has no diagnoses, or no subject
            or no feature is left.
    """
    root = Path(root)
    report = report or Problems("skip", noun="subject")
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
            report.problem(eid, f"no image images/{eid}.npy")
    table.keep(images)
    if table.rows.empty:
        raise DataError(f"{root}: no subject of {table.path.name} is included and has an image images/<eid>.npy")

    diagnoses = table.texts(DIAGNOSES, (0,))
    if diagnoses is None:
        raise DataError(f"{table.path}: no field {DIAGNOSES} (hospital diagnoses, ICD-10), which makes the target")
    positive = {name: diagnosed(diagnoses, codes) for name, codes in targets.items()}
    values = {column.name: _value(column, table) for column in columns}
    found = {name: value for name, value in values.items() if value is not None}
    lacking = [name for name in values if name not in found]
    if lacking:
        log.warning("%s lacks %d of %d columns: %s", table.path, len(lacking), len(values), ", ".join(lacking))
    if not any(feature.name in found for feature in field_list.features):
        raise DataError(f"{table.path}: none of the {len(field_list.features)} features of {fields} is there")

    eids = list(table.rows.index)
    split = _split(eids, list(zip(*positive.values(), strict=True)), seed, splits, report)
    keys = pd.DataFrame({"id": eids, "image": [f"images/{eid}.npy" for eid in eids], "split": split})
    labels = pd.Series(np.where(positive[target], "positive", "negative"), name=target, dtype=str)
    frame = pd.concat([keys, pd.DataFrame(found).reset_index(drop=True), labels], axis=1)
    log.info("%d subjects, %d with %s; %s", len(frame), positive[target].sum(), target, report.summary())
    return frame[frame["split"] != ""].reset_index(drop=True)


def balanced_subset(target: NDArray[np.int64], rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All positive rows and a static random set of as many negative ones, for fine-tuning (paper, section 4.1).

    Args:
        target: 0 or 1 a row of the table, `(N,)`.
        rows: The rows to choose from, `(R,)`: the training split. Validation and test stay as they are.
        seed: The same seed gives the same negatives.

    Returns:
        The chosen rows, sorted; all of `rows` with a label where positives are not the rarer class.

    Raises:
        DataError: If one of the classes has no row.

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
    """UK Biobank's cardiac MR images with its fields (paper, section 4.1). See `tabular_imaging.data.cardiac`.

    Args:
        root: Folder with the field table and `<eid>.npy` images.
        disease: Target: `infarction`, `cad`, or another name of `icd10`. The pre-training does not depend on it.
        fields: Which fields become which column; by default configs/fields/cardiac.yaml.
        icd10: Diagnoses by disease; by default configs/fields/icd10.yaml.
        splits: CSV `id,split` of a given split, in place of a drawn one.
        balanced: Fine-tune on all positive subjects and as many negative ones (section 4.1).
        split_seed: Of the split and the balanced subset.
        cache_px: See `TabularImagingDataModule`; as are the others. Images are zero-padded to it.
        channels: End-systole and end-diastole.
        batch_size: See there.
        metric: See there.
        min_coverage: Fields recorded for a smaller share of the subjects are left out (section 4.1: 80%).
        label_fraction: See there.
        on_error: See there; far more subjects have a table than images.
        cache_dir: See there.
        num_workers: See there.
        seed: See there.
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
        cache_px: int = 210,
        channels: int = 2,
        batch_size: int = 512,
        metric: Metric = "auroc",
        min_coverage: float = 0.8,
        label_fraction: float = 1.0,
        on_error: OnError = "skip",
        cache_dir: str = "data/cache",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root,
            cache_px,
            channels,
            "pad",
            batch_size,
            metric,
            None,
            label_fraction,
            on_error,
            cache_dir,
            num_workers,
            seed,
        )
        self.disease = disease
        self.fields = Path(fields) if fields else FIELDS
        self.icd10 = Path(icd10) if icd10 else ICD10
        self.splits = Path(splits) if splits else None
        self.min_coverage = min_coverage
        self.balanced = balanced
        self.split_seed = split_seed

    @property
    def target_column(self) -> str:
        """The disease."""
        return self.disease

    def read_frame(self, report: Problems) -> pd.DataFrame:
        """A row a subject, and the types of its columns from the list of fields."""
        frame = cardiac_frame(self.root, self.fields, self.icd10, self.disease, self.split_seed, self.splits, report)
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

    def rows(self, split: Split, purpose: Purpose) -> NDArray[np.int64]:
        """As for the others; the training subjects with a label are a balanced, fixed subset."""
        rows = super().rows(split, purpose)
        if self.balanced and split == "train" and purpose == "evaluate":
            return balanced_subset(self.target, rows, self.split_seed)
        return rows
