"""The columns of a table, fitted on the training rows, and the table as numbers.

`infer_kinds` finds out which columns are continuous or categorical, `fit_schema` takes the statistics from the training
rows, and `encode` turns any rows into numbers; this checks a new table against the schema that was saved with a model.
"""

import json
import logging
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.cells import listed, row_names
from shared.data.problems import DataError, Problems
from tabular_imaging.data.columns import Column, Kind, encode_column, fit_column, infer_kind

Fields = Literal["all", "morphometric", "non_morphometric"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ColumnTypes:
    """The types of a table's columns that are not to be inferred.

    Entries are names or shell patterns: `shape*` stands for `shape1`, `shape2` and so on.

    Args:
        continuous: Columns of numbers.
        categorical: Columns of categories.
        ignored: Columns to leave out.
        morphometric: Columns of size and shape (paper, section 4.5), of either kind.
        min_coverage: Smallest share of the training rows in which a column must have a value; other columns are dropped
            (paper, section 4.1: 80%).
    """

    continuous: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    morphometric: list[str] = field(default_factory=list)
    min_coverage: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.min_coverage <= 1:
            raise DataError(f"min_coverage must be in [0, 1], got {self.min_coverage}")


@dataclass(frozen=True)
class Schema:
    """The columns of an encoded table, in order, and the target that goes with it.

    Args:
        columns: The columns, at least one.
        target: Name of the target's column, if there is a target.
        classes: Values of the target.
        label_as_feature: Whether the last column is the label (LaaF, section 3.3). It is then categorical, has the name
            of the target, and its categories are the classes.

    Raises:
        DataError: The parts of the schema contradict each other.

    Example:
        >>> schema = Schema((Column("length", "continuous", 4300.0, 400.0), Column("fuel", "categorical",
        ...     categories=("diesel", "petrol"))), target="model", classes=("Golf", "Polo", "Up"))
        >>> schema.cardinalities, schema.select("all", label_as_feature=True).cardinalities
        ((1, 2), (1, 2, 3))
        >>> schema.select("all", label_as_feature=True).field_of_input
        array([0, 1, 1, 2, 2, 2])
    """

    columns: tuple[Column, ...]
    target: str | None = None
    classes: tuple[str, ...] = ()
    label_as_feature: bool = False

    def __post_init__(self) -> None:
        if not self.features:
            raise DataError("a schema needs at least one column besides the label")
        if len(set(self.names)) < len(self.names):
            raise DataError("a schema has a column twice")
        if self.label_as_feature:
            label = self.columns[-1]
            if (label.name, label.kind, label.categories) != (self.target, "categorical", self.classes):
                raise DataError(f"with label_as_feature the last column must be the target {self.target}")

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns without that of the label."""
        return self.columns[:-1] if self.label_as_feature else self.columns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, `(M,)`."""
        return tuple(column.name for column in self.columns)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of inputs that each column makes, `(M,)`; see `tabular_imaging.model.tabular.OneHot`."""
        return tuple(column.cardinality for column in self.columns)

    @property
    def morphometric(self) -> tuple[bool, ...]:
        """Which columns are sizes and shapes, `(M,)`; the label is not."""
        return tuple(column.morphometric for column in self.columns)

    @property
    def field_of_input(self) -> NDArray[np.int64]:
        """The column that each input comes from, `(sum of cardinalities,)`."""
        return np.repeat(np.arange(len(self.columns)), self.cardinalities)

    def select(self, which: Fields, label_as_feature: bool | None = None) -> "Schema":
        """The schema of some of the columns (Table 2).

        Args:
            which: All columns, those of size and shape, or the others. The label column belongs to none of these.
            label_as_feature: Whether the result has the label column; by default as in this schema.

        Raises:
            DataError: No column is left, or there is no label to append.
        """
        if which not in get_args(Fields):
            raise DataError(f"columns to select must be one of {', '.join(get_args(Fields))}; got {which!r}")
        chosen = tuple(c for c in self.features if which == "all" or c.morphometric == (which == "morphometric"))
        if not chosen:
            raise DataError(
                f"no column of {listed(self.names)} is {which}; name the columns of size and shape under morphometric"
            )
        if label_as_feature is None:
            label_as_feature = self.label_as_feature
        if label_as_feature:
            if self.target is None:
                raise DataError("label_as_feature needs a target column")
            chosen += (Column(self.target, "categorical", categories=self.classes),)
        return Schema(chosen, self.target, self.classes, label_as_feature)

    def difference(self, found: "Schema") -> str:
        """A description of how another schema differs from this one; empty if it does not."""
        here, there = ({column.name: column for column in schema.columns} for schema in (self, found))
        parts = [f"{name} is missing" for name in here if name not in there]
        parts += [f"{name} is new" for name in there if name not in here]
        if not parts and self.names != found.names:
            parts.append("the columns are in another order")
        for name in here.keys() & there.keys():
            parts += [f"{name} differs in {item}" for item in _differing(here[name], there[name])]
        parts += [f"{item} differs" for item in _differing(self, found) if item != "columns"]
        return listed(sorted(parts))

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain values, for JSON or for a checkpoint that is loaded with `weights_only=True`."""
        columns = [{**asdict(column), "categories": list(column.categories)} for column in self.columns]
        return {**asdict(self), "columns": columns, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, content: object) -> "Schema":
        """The schema that `to_dict` turned into plain values.

        Raises:
            DataError: The content, which may come from an untrusted file, is not a schema.
        """
        text = "a list of text"
        top = _checked(
            content, "schema", {"columns": list, "target": str | None, "classes": text, "label_as_feature": bool}
        )
        kinds = {"name": str, "kind": str, "mean": int | float, "std": int | float, "categories": text}
        columns = [
            _checked(column, f"schema, column {index}", {**kinds, "morphometric": bool})
            for index, column in enumerate(top["columns"])
        ]
        return cls(
            tuple(Column(**{**column, "categories": tuple(column["categories"])}) for column in columns),
            top["target"],
            tuple(top["classes"]),
            top["label_as_feature"],
        )

    def save(self, path: Path) -> None:
        """Write the schema as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Schema":
        """Read what `save` wrote.

        Raises:
            DataError: There is no such file, or it does not hold a schema.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise DataError(f"no schema {path}; training writes it beside the model") from error
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or a DataError from above
            raise DataError(f"{path} is not a schema that Quintet wrote: {error}") from error


def infer_kinds(frame: pd.DataFrame, types: ColumnTypes, reserved: Collection[str]) -> dict[str, Kind]:
    """Which columns are continuous and which are categorical, in the table's order.

    Numbers are continuous; booleans, columns of only 0 and 1, and text are categorical. Text that is different in
    (nearly) every row is an identifier and is left out. Declarations in `types` take precedence.

    Args:
        frame: Table with one row per sample.
        types: Declarations of the user.
        reserved: Columns that are not features: id, image, split, target.

    Raises:
        DataError: A declaration matches no column or contradicts another, or a column of numbers holds something else.

    Example:
        >>> cars = pd.DataFrame({"id": ["a", "b", "c", "d"], "miles": [9.5, 120.0, 33.1, 7.0], "new": [0, 1, 1, 0],
        ...     "fuel": ["petrol", "diesel", "petrol", "petrol"], "seats": [5, 5, 7, 2]})
        >>> infer_kinds(cars, ColumnTypes(categorical=["seat*"]), reserved=["id"])
        {'miles': 'continuous', 'new': 'categorical', 'fuel': 'categorical', 'seats': 'categorical'}
    """
    declared: dict[str, str] = {}
    for kind in ("continuous", "categorical", "ignored"):
        for name in _matched(getattr(types, kind), kind, frame.columns):
            if name in reserved:
                if kind != "ignored" and name in getattr(types, kind):  # named, not only matched by a pattern
                    raise DataError(f"column {name} is declared {kind}, but is the id, image, split or target column")
            elif name in declared:
                raise DataError(f"column {name} is declared both {declared[name]} and {kind}; keep one of them")
            else:
                declared[name] = kind
    _matched(types.morphometric, "morphometric", frame.columns)
    kinds: dict[str, Kind] = {}
    for name in frame.columns:
        if name in reserved or declared.get(name) == "ignored":
            continue
        if name in declared:
            kinds[name] = "continuous" if declared[name] == "continuous" else "categorical"
        elif (kind_found := infer_kind(frame, name)) is not None:
            kinds[name] = kind_found
    return kinds


def fit_schema(
    frame: pd.DataFrame,
    kinds: Mapping[str, Kind],
    types: ColumnTypes,
    target: str | None = None,
    classes: Sequence[str] = (),
    label_as_feature: bool = False,
) -> Schema:
    """The schema of a table, from its training rows.

    A column without any value, with only one value, or with values in too few rows is dropped, which is logged.
    Categories keep the order of an ordered categorical column; others are put in natural order.

    Args:
        frame: The training rows, and no others.
        kinds: Kinds of the columns, as found by `infer_kinds`.
        types: Declarations of the user.
        target: Name of the target's column.
        classes: Values of the target.
        label_as_feature: Whether to append the label as the last column (LaaF, section 3.3).

    Raises:
        DataError: No column is left.
    """
    morphometric = _matched(types.morphometric, "morphometric", frame.columns)
    columns: list[Column] = []
    dropped: list[str] = []
    for name, kind in kinds.items():
        fitted = fit_column(name, kind, frame[name], name in morphometric, types.min_coverage)
        if isinstance(fitted, Column):
            columns.append(fitted)
        else:
            log.warning("column %s dropped: %s", name, fitted)
            dropped.append(f"{name} ({fitted})")
    if not columns:
        raise DataError(f"no column of the table is left to learn from; dropped: {listed(dropped) or 'none'}")
    return Schema(tuple(columns), target, tuple(classes)).select("all", label_as_feature)


def encode(frame: pd.DataFrame, schema: Schema, problems: Problems, source: str = "the table") -> NDArray[np.float32]:
    """The rows as numbers: standardised values and category codes 0, 1, ...; NaN if no value is recorded.

    The label column of LaaF has the class's code, or -1 if there is no label.

    Args:
        frame: Any rows.
        schema: Schema that was fitted on the training rows.
        problems: Receives the rows with a value that the schema does not have; if it skips them, the value counts as
            missing.
        source: Name of the table in messages.

    Returns:
        `(N, M)` numbers for the M columns of the schema.

    Raises:
        DataError: A column is missing, or is of another type than in the training rows.
    """
    missing = [column for column in schema.features if column.name not in frame.columns]
    if missing:
        hint = get_close_matches(missing[0].name, [str(name) for name in frame.columns], 1)
        raise DataError(
            f"{source} lacks {listed([column.name for column in missing])} of the {len(schema.features)} columns that "
            f"the schema of the training rows has ({missing[0].name}: {missing[0].expected}); it has "
            f"{listed(frame.columns)}{f'. Is {hint[0]} the same?' if hint else ''}"
        )
    rows = row_names(frame)
    table = np.empty((len(frame), len(schema.columns)), dtype=np.float32)
    for index, column in enumerate(schema.features):
        table[:, index] = encode_column(frame[column.name], column, rows, problems, source)
    if schema.label_as_feature:
        label = schema.columns[-1]
        codes = encode_column(frame[label.name], label, rows, problems, source) if label.name in frame else np.nan
        table[:, -1] = np.nan_to_num(codes, nan=-1)
    return table


def _matched(entries: Sequence[str], kind: str, columns: Iterable[str]) -> list[str]:
    """The columns that the entries name or, as patterns, match; in the table's order."""
    names = [str(name) for name in columns]
    found: set[str] = set()
    for entry in entries:
        # A name takes precedence: brackets, as in `length [mm]`, would be part of a pattern.
        matches = [entry] if entry in names else [name for name in names if fnmatchcase(name, entry)]
        if not matches:
            nearest = get_close_matches(entry, names, 1, cutoff=0)
            raise DataError(f"{kind}: no column matches {entry!r}; the nearest is {listed(nearest)}")
        found.update(matches)
    return [name for name in names if name in found]


def _differing(one: Column | Schema, other: Column | Schema) -> list[str]:
    return [item.name for item in fields(one) if getattr(one, item.name) != getattr(other, item.name)]


def _checked(content: object, where: str, types: Mapping[str, type | UnionType | str]) -> dict[str, Any]:
    """The content as a dictionary that has these keys, with values of these types."""
    if not isinstance(content, dict) or set(content) != set(types):
        raise DataError(f"{where}: expected the keys {', '.join(types)}; got {reprlib.repr(content)}")
    for key, kind in types.items():
        value = content[key]
        if isinstance(kind, str):
            valid = isinstance(value, list) and all(isinstance(item, str) for item in value)
        else:
            valid = isinstance(value, kind)
        if not valid:
            raise DataError(f"{where}: {key} must be {getattr(kind, '__name__', kind)}, got {reprlib.repr(value)}")
    return content
