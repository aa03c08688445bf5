"""Any folder of WFDB records that comes with a CSV."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecg_text.data.module import ECGDataModule, usable_rows
from shared.data.groups import find_group_column, is_group, units
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLIT_VERSION, SPLITS, SplitVersion, random_split
from shared.data.tables import read_csv, warn_of_unread

COLUMNS = ("id", "path", "report", "labels", "split", "age", "sex")


class WFDBFolderDataModule(ECGDataModule):
    """Any folder of WFDB records that comes with a CSV: this is the way to use your own ECGs.

    Args:
        root: Folder that the CSV's paths are relative to.
        csv: Path of the table, relative to `root`. Its columns are `id`, `path` (of the record, without extension) and,
            if you have them, `report` (for pre-training), `labels` (for evaluation: codes separated by
            `label_separator`), `split` (train, val or test; otherwise the split is random), `age`, `sex` and `patient`.
        group_column: Column of the patients; by default the one with a usual name (`patient`, `subject_id`, ...), if
            there is one. `id` makes every record its own patient.
        label_names: Names by code, for the prompts; by default each code is its own name.
        label_separator: Text that separates the codes in a cell.
        split_fractions: Shares of train, validation and test if there is no column `split`; all records of a patient
            are in the same split.
        split_seed: Seed of that split.
        split_version: Rule of that split, see `shared.data.splits.SplitVersion`.
        **kwargs: Further arguments of `ECGDataModule`.

    Raises:
        DataError: A file or column is missing, an id occurs twice, a split is unknown, a patient is in several splits
            (see `allow_shared_groups`), a path is outside `root`, or a record cannot be used (see `on_error`); raised
            in `setup`.
    """

    name = "wfdb_folder"

    def __init__(
        self,
        root: str,
        csv: str = "records.csv",
        group_column: str | None = None,
        label_names: dict[str, str] | None = None,
        label_separator: str = ";",
        split_fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        split_seed: int = 42,
        split_version: SplitVersion = SPLIT_VERSION,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.csv = csv
        self.group_column = group_column
        self.label_names = label_names
        self.label_separator = label_separator
        self.split_fractions = split_fractions
        self.split_seed = split_seed
        self.split_version: SplitVersion = split_version

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """Rows of the CSV."""
        path = self.root / self.csv
        if not path.is_file():
            raise DataError(f"no file {path}: name the table of your records as --data.init_args.csv")
        names = read_csv(path, ["id", "path"], nrows=0).columns
        # As text, so that 007 stays 007.
        text = [name for name in names if name in ("id", "path", "labels", "report", "split", self.group_column)]
        text += [name for name in names if is_group(name)]
        given = read_csv(path, ["id", "path"], dtype=dict.fromkeys(text, str))
        asked = self.group_column
        if self.split_version == 1:  # runs of rule 1 knew no other name
            asked = asked or ("patient" if "patient" in names else "id")
        group = find_group_column(names, asked, path)
        warn_of_unread(path, given.columns, [*COLUMNS, group or "patient"])
        given["path"] = given["path"].fillna("").map(lambda record: str(self.root / record))
        given = usable_rows(given, f"{path}, id", self.root, problems)
        cells = given["labels"].fillna("") if "labels" in given.columns else [""] * len(given)
        codes = [[code.strip() for code in cell.split(self.label_separator)] for cell in cells]
        frame = given[["id", "path"]].copy()
        frame["labels"] = [sorted({code for code in row if code}) for row in codes]
        self._codes = sorted({code for row in frame["labels"] for code in row})
        for column, default in (("report", ""), ("age", np.nan), ("sex", "")):
            frame[column] = given[column] if column in given.columns else default
        frame["patient"] = given[group or "id"]
        frame["split"] = given["split"] if "split" in given.columns else self._split(frame)
        return frame

    def _split(self, frame: pd.DataFrame) -> NDArray[np.str_]:
        strata = [",".join(codes) for codes in frame["labels"]]
        if self.split_version == 1:  # which took the cells as they are
            patients = frame["patient"].fillna(frame["id"]).tolist()
        else:
            patients = units(frame["patient"], frame["id"])
        parts = random_split(patients, strata, self.split_fractions, self.split_seed, self.split_version)
        return np.array(SPLITS)[parts]

    def read_classes(self) -> dict[str, str]:
        """All codes of the CSV, with their names."""
        names = self.label_names or {code: code for code in self._codes}
        unnamed = [code for code in self._codes if code not in names]
        if unnamed:
            raise DataError(f"data.init_args.label_names lacks {', '.join(unnamed)}, which occur in {self.csv}")
        return names
