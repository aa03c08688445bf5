"""Which fields of UK Biobank become which column: the field list, the ICD-10 list, and how a feature is computed."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from shared.data.problems import DataError
from tabular_imaging.data.ukbiobank import FieldTable

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[1] / "configs" / "fields"
FIELDS, ICD10 = CONFIGS / "cardiac.yaml", CONFIGS / "icd10.yaml"
IMAGING_VISIT = 2


@dataclass(frozen=True)
class Feature:
    """One column of the frame; `cardiac.yaml` says what each key means.

    Attributes:
        name: Readable name.
        kind: Continuous, or categorical with the labels of `values`.
        fields: Ids of the fields that it is made of; if `take` is any or count, each with the codes to look for.
        take: How several recorded values become one.
        instance: Visits that count.
        recorded: With any, the answer is also yes if one of these fields has a value.
        missing: Codes that mean "no answer".
        replace: Codes that stand for a number.
        values: Labels by code, in the order of the categories.
        absent: Value to use if nothing was recorded.
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
        """Ids of all fields that it uses."""
        asked_before = () if self.zero_if_zero is None else (self.zero_if_zero,)
        return {*self.fields, *self.recorded, *asked_before}


@dataclass(frozen=True)
class FieldList:
    """The content of `cardiac.yaml`.

    Attributes:
        features: Columns of the table that the model sees.
        groups: Further columns, which only serve for metrics by group.
        include: Rules (field, visit and codes) that say which subjects to keep.
    """

    features: tuple[Feature, ...]
    groups: tuple[Feature, ...]
    include: tuple[tuple[int, int, tuple[int, ...]], ...]


def _feature(entry: Any, kind: str, codings: Mapping[int, Mapping[str, Any]]) -> Feature:
    """One entry of the YAML; a malformed one raises an AttributeError, TypeError or ValueError."""
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


def read_fields(path: Path = FIELDS) -> FieldList:
    """Read a field list.

    Raises:
        DataError: The file cannot be read, or an entry does not have the form that `cardiac.yaml` explains.

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


def read_icd10(path: Path = ICD10) -> dict[str, tuple[str, ...]]:
    """Read the targets: ICD-10 codes by name, without dots. A code covers all codes that begin with it.

    Raises:
        DataError: A list is empty or holds something that is not an ICD-10 code.

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


def feature_column(feature: Feature, table: FieldTable) -> "pd.Series[Any] | None":
    """The column of a feature; None if the table has none of its fields."""
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
        log.warning("%s: %d values are unknown codes (%s) and count as missing", feature.name, unknown.sum(), codes)
    labels = list(feature.values.values())
    return value.map(dict(feature.values)).astype(pd.CategoricalDtype(labels, ordered=True))
