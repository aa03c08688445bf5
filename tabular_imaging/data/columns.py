"""One column of a table: whether it is continuous or categorical, its statistics, and its values as numbers."""

import logging
import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.data.cells import category_name, listed, natural_order, numbers_in, row_names, tidy
from shared.data.problems import DataError, Problems

Kind = Literal["continuous", "categorical"]

IDENTIFIER = 0.95  # text with at least this share of distinct values identifies rows instead of grouping them
MOSTLY = 0.5  # a column with more than this share of numbers was meant to hold numbers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A column of the encoded table.

    Args:
        name: Name of the column in the table.
        kind: `"continuous"` or `"categorical"`.
        mean: Mean of the recorded values in the training rows, which continuous columns are standardised with.
        std: Population standard deviation of these values.
        categories: Categories of a categorical column, in the order of their codes 0, 1, ...
        morphometric: Whether it is a size or shape.

    Raises:
        DataError: These values are impossible for a fitted column.
    """

    name: str
    kind: Kind
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()
    morphometric: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(f"column {self.name}: kind must be continuous or categorical, got {self.kind!r}")
        largest = sys.float_info.max
        if not (abs(self.mean) <= largest and 0 < self.std <= largest):
            raise DataError(
                f"column {self.name}: mean and std must be finite and std positive, got {self.mean} and {self.std}"
            )
        if self.kind == "continuous" and self.categories:
            raise DataError(f"column {self.name} is continuous and must have no categories")
        if self.kind == "categorical" and len(self.categories) < 2:
            raise DataError(f"column {self.name} needs at least 2 categories, got {list(self.categories)}")
        if len(set(self.categories)) < len(self.categories):
            raise DataError(f"column {self.name} has a category twice")

    @property
    def cardinality(self) -> int:
        """Number of inputs that it makes: 1 if continuous, else the number of categories."""
        return 1 if self.kind == "continuous" else len(self.categories)

    @property
    def expected(self) -> str:
        """A description of the values that it has."""
        if self.kind == "continuous":
            return f"numbers (mean {self.mean:.4g}, standard deviation {self.std:.4g})"
        return f"the categories {listed(self.categories)}"


def infer_kind(frame: pd.DataFrame, name: str) -> Kind | None:
    """The kind of a column of a table; None for a column that identifies rows, which is logged.

    Raises:
        DataError: Most of its values are numbers but some are not, or they are numbers with a decimal comma.
    """
    column = tidy(frame[name])
    recorded, numbers = column.notna().to_numpy(), numbers_in(column)
    is_number = ~np.isnan(numbers)
    junk = np.flatnonzero(recorded & ~is_number)
    if len(junk) == 0:
        return "categorical" if set(numbers[is_number]) <= {0, 1} else "continuous"  # a boolean is 0 or 1 too
    if is_number.sum() > MOSTLY * recorded.sum():
        raise DataError(
            f"column {name}: row {row_names(frame)[junk[0]]} holds {str(column.iloc[junk[0]])!r}, while "
            f"{is_number.sum()} of {recorded.sum()} values are numbers; correct it, or declare the column continuous "
            "(such a value then counts as missing), categorical or ignored"
        )
    if column[recorded].astype(str).str.fullmatch(r"-?\d+,\d+").mean() > MOSTLY:
        raise DataError(
            f"column {name} holds numbers with a decimal comma, such as {column[recorded].iloc[0]!r}: write a point "
            "instead"
        )
    distinct = column.nunique()
    if distinct >= IDENTIFIER * recorded.sum():
        log.warning(
            "column %s ignored: %d of %d texts are distinct, so it is taken for an identifier; declare it categorical "
            "to use it",
            name,
            distinct,
            recorded.sum(),
        )
        return None
    return "categorical"


def fit_column(
    name: str, kind: Kind, values: "pd.Series[Any]", morphometric: bool, min_coverage: float
) -> Column | str:
    """The column with its statistics, or the reason why it cannot be used.

    Args:
        name: Name of the column.
        kind: Its kind, as found by `infer_kind`.
        values: Its values in the training rows.
        morphometric: Whether it is a size or shape.
        min_coverage: Smallest share of the rows that must have a value.
    """
    declared = values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) and values.cat.ordered else ()
    values = tidy(values)
    numbers = numbers_in(values)
    recorded = ~np.isnan(numbers) if kind == "continuous" else values.notna().to_numpy()
    if not recorded.any():
        return "no training row has a value"
    if recorded.mean() < min_coverage:
        return f"{recorded.mean():.1%} of the training rows have a value, min_coverage is {min_coverage:.1%}"
    if kind == "categorical":
        categories = {category_name(value) for value in values[recorded].unique()}
        if len(categories) == 1:
            return f"it is {categories.pop()} in every training row"
        # An order that the table itself declares (slow < steady < brisk) is better than the alphabetical one.
        order = [category_name(value) for value in tidy(pd.Series(declared))] or natural_order(categories)
        return Column(name, kind, categories=tuple(c for c in order if c in categories), morphometric=morphometric)
    known = numbers[recorded]
    std = float(known.std())
    if known.min() == known.max() or std == 0:  # the rounded mean of equal values may leave a tiny deviation
        return f"it is {known[0]:g} in every training row"
    return Column(name, kind, float(known.mean()), std, morphometric=morphometric)


def encode_column(
    values: "pd.Series[Any]", column: Column, rows: list[str], problems: Problems, source: str
) -> NDArray[np.float64]:
    """`(N,)` standardised values or codes; NaN if there is no value.

    Args:
        values: The column's values in any rows.
        column: The column as fitted on the training rows.
        rows: Names of the rows in messages.
        problems: Receives the rows with a value that the fitted column does not have.
        source: Name of the table in messages.

    Raises:
        DataError: The values are of another type than in the training rows.
    """
    values = tidy(values)
    recorded, numbers = values.notna().to_numpy(), numbers_in(values)
    numeric = int((~np.isnan(numbers)).sum())
    if column.kind == "continuous":
        encoded = (numbers - column.mean) / column.std
        other_type = recorded.any() and numeric <= MOSTLY * recorded.sum()
        problem = "is not a finite number"
    else:
        codes, uniques = pd.factorize(values)
        code_of = {category: float(code) for code, category in enumerate(column.categories)}
        # The code of a missing value is -1, so it takes the last entry.
        encoded = np.array([*(code_of.get(category_name(value), np.nan) for value in uniques), np.nan])[codes]
        of_numbers = ~np.isnan(numbers_in(pd.Series(column.categories, dtype=object)))
        other_type = recorded.any() and (
            (not of_numbers.any() and numeric == recorded.sum()) or (of_numbers.all() and numeric == 0)
        )
        problem = f"is none of the training rows' categories ({listed(column.categories)})"
    unknown = np.flatnonzero(recorded & np.isnan(encoded))
    if other_type and len(unknown):
        raise DataError(
            f"{source}: column {column.name} holds values such as {str(values.iloc[unknown[0]])!r} (row "
            f"{rows[unknown[0]]}), but the schema of the training rows has {column.expected}"
        )
    for row in unknown:
        problems.add(rows[row], f"column {column.name}: {str(values.iloc[row])!r} {problem}")
    return encoded
