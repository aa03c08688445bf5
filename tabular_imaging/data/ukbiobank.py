"""UK Biobank's field table: a row per subject, a column per field, visit and array place, in any of its three styles.

Shapes: N subjects, K columns of a field.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from shared.data.problems import DataError

ID_COLUMNS = ("eid", "f.eid", "participant.eid")
# 21003-2.0 | f.21003.2.0 | p21003_i2_a0; the research platform omits the visit or place if a field has only one
COLUMN = re.compile(r"(?:f\.)?(\d+)[-.](\d+)\.(\d+)|(?:participant\.)?p(\d+)(?:_i(\d+))?(?:_a(\d+))?")


class FieldColumn(NamedTuple):
    """A column of a field table: the field's id, the visit (None if there is only one), and the place in its array."""

    field: int
    instance: int | None
    array: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read any of UK Biobank's three styles of column name; None for a column that is not a field.

        Example:
            >>> FieldColumn.parse("4080-2.1") == FieldColumn.parse("f.4080.2.1") == FieldColumn.parse("p4080_i2_a1")
            True
            >>> FieldColumn.parse("participant.p31")
            FieldColumn(field=31, instance=None, array=0)
        """
        match = COLUMN.fullmatch(name)
        if match is None:
            return None
        showcase_field, showcase_instance, showcase_array, platform_field, instance, array = match.groups()
        if showcase_field is not None:
            return cls(int(showcase_field), int(showcase_instance), int(showcase_array))
        return cls(int(platform_field), None if instance is None else int(instance), int(array or 0))


class FieldTable:
    """The subjects' recorded values, in whatever style the file is.

    Args:
        path: CSV or parquet file with one row per subject.
        fields: Ids of the fields to read; UK Biobank's tables have thousands of columns, and few of them are needed.

    Raises:
        DataError: There is no eid column, an eid is missing or occurs twice, or the file cannot be read.
    """

    def __init__(self, path: Path, fields: Iterable[int]) -> None:
        self.path = path
        wanted = set(fields)
        try:
            parquet = path.suffix == ".parquet"
            names = pq.read_schema(path).names if parquet else list(pd.read_csv(path, nrows=0).columns)
            ids = [name for name in names if name in ID_COLUMNS]
            if not ids:
                raise DataError(f"{path}: no column eid (nor {' nor '.join(ID_COLUMNS[1:])}); it names the subject")
            columns = {name: FieldColumn.parse(name) for name in names}
            kept = {name: column for name, column in columns.items() if column is not None and column.field in wanted}
            used = [ids[0], *kept]
            table = pd.read_parquet(path, columns=used) if parquet else pd.read_csv(path, usecols=used, dtype=str)
        except DataError:
            raise
        except (OSError, ValueError) as error:  # pandas' and pyarrow's parsers derive from these
            raise DataError(f"{path}: not a readable field table ({error})") from error
        eids = table.pop(ids[0])
        if eids.isna().any():
            raise DataError(f"{path}: row {int(np.argmax(eids.isna())) + 1} has no eid")
        eids = eids.astype("int64" if pd.api.types.is_numeric_dtype(eids) else str).astype(str).str.strip()
        if eids.duplicated().any():
            raise DataError(f"{path}: eid {eids[eids.duplicated()].iloc[0]} occurs twice; every row must be a subject")
        self.rows = table.set_axis(pd.Index(eids, name="eid"), axis=0).sort_index()
        self.columns = dict(
            sorted(kept.items(), key=lambda item: (item[1].field, item[1].instance or 0, item[1].array))
        )

    def keep(self, eids: Iterable[str]) -> None:
        """Leave only these subjects."""
        self.rows = self.rows.loc[self.rows.index.isin(set(eids))]

    def texts(self, number: int, instances: Sequence[int]) -> pd.DataFrame | None:
        """Recorded values of a field as text, `(N, K)`, in the given order of visits; None if the table lacks it.

        A cell that is itself a list, `['I251', 'I214']` or `I251|I214`, becomes several columns.
        """
        found = [
            name
            for instance in instances
            for name, column in self.columns.items()
            if column.field == number and column.instance in (instance, None)
        ]
        if not found:
            return None
        cells: pd.DataFrame = pd.concat([_cells(self.rows[name]) for name in dict.fromkeys(found)], axis=1)
        return cells

    def numbers(self, number: int, instances: Sequence[int]) -> pd.DataFrame | None:
        """As `texts`, but as numbers.

        Raises:
            DataError: A value is not a number: the table was exported with meanings in place of codes.
        """
        texts = self.texts(number, instances)
        if texts is None:
            return None
        numbers: pd.DataFrame = texts.apply(pd.to_numeric, errors="coerce").astype(np.float64)
        bad = (numbers.isna() & texts.notna()).to_numpy()
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"{self.path}: column {texts.columns[column]}, subject {texts.index[row]}: expected a number or code, "
                f"found {texts.iloc[row, column]!r}; export codes, not their meanings"
            )
        return numbers


def _cells(column: "pd.Series[Any]") -> pd.DataFrame:
    """One text per cell, or several if cells are lists."""
    texts = column.map(
        lambda cell: "|".join(map(str, cell)) if isinstance(cell, list | np.ndarray) else str(cell), na_action="ignore"
    ).astype("string")
    cells: pd.DataFrame = texts.str.strip("[] ").str.split(r"\s*[|,]\s*", regex=True, expand=True)
    cells = cells.apply(lambda one: one.str.strip("'\" ")).replace("", pd.NA)
    return cells.set_axis([column.name] * cells.shape[1], axis=1)
