"""PTB-XL, and any data set in its layout."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ecg_text.data.labels import LabelSet, ptbxl_classes, ptbxl_labels, read_scp_statements
from ecg_text.data.module import ECGDataModule, usable_rows
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLITS
from shared.data.tables import read_csv


class PTBXLDataModule(ECGDataModule):
    """PTB-XL 1.0.1 to 1.0.3 (paper, section 3.1), or a data set in its layout.

    Layout: `<root>/ptbxl_database.csv`, `<root>/scp_statements.csv`, `<root>/records500/...` (and/or `records100`).
    The files with the requested sampling rate are used if they exist; otherwise those with 500 Hz (or 100 Hz) are
    resampled.

    Args:
        root: Folder that holds the data set (PhysioNet: "PTB-XL, a large publicly available electrocardiography
            dataset").
        label_set: The classes: five superclasses (paper), the diagnostic subclasses, or all statements.
        report_source: `"raw"` for the original reports (71% German), or `"translated"` for English ones from
            `<root>/ptbxl_database_translated.csv` with columns `ecg_id, report`.
        train_folds: Values of `strat_fold` to train on (official: 1-8).
        val_folds: Values of `strat_fold` to choose settings on (official: 9).
        test_folds: Values of `strat_fold` to report results on (official: 10).
        **kwargs: Further arguments of `ECGDataModule`.

    Raises:
        DataError: A file or column is missing, or a record cannot be used (see `on_error`); raised in `setup`.
    """

    name = "ptbxl"

    def __init__(
        self,
        root: str,
        label_set: LabelSet = "superclass",
        report_source: Literal["raw", "translated"] = "raw",
        train_folds: list[int] | None = None,
        val_folds: list[int] | None = None,
        test_folds: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.label_set: LabelSet = label_set
        self.report_source = report_source
        self.folds = dict(
            zip(SPLITS, (train_folds or list(range(1, 9)), val_folds or [9], test_folds or [10]), strict=True)
        )
        taken = [fold for folds in self.folds.values() for fold in folds]
        if len(taken) != len(set(taken)):
            raise ValueError(f"a fold may belong to one split only, got {self.folds}")

    def read_classes(self) -> dict[str, str]:
        """Names by class code, for the chosen label set."""
        return ptbxl_classes(read_scp_statements(self._file("scp_statements.csv")), self.label_set)

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """Rows of `ptbxl_database.csv` in the chosen folds."""
        path = self._file("ptbxl_database.csv")
        database = read_csv(path, ["ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold"])
        statements = read_scp_statements(self._file("scp_statements.csv"))
        split_of_fold = {fold: split for split, folds in self.folds.items() for fold in folds}
        database = database[database["strat_fold"].isin(list(split_of_fold))]
        if self.report_source == "translated":
            english = self._file("ptbxl_database_translated.csv")
            translated = read_csv(english, ["ecg_id", "report"])
            repeated = translated["ecg_id"][translated["ecg_id"].duplicated()]
            if len(repeated):
                raise DataError(f"{english} has the ecg_id {repeated.iloc[0]} twice")
            database = database.drop(columns="report").merge(translated[["ecg_id", "report"]], how="left")
        files = database[self._file_column(database, path)]
        labels: list[list[str] | None] = []
        for ecg_id, codes in zip(database["ecg_id"], database["scp_codes"], strict=True):
            try:
                labels.append(ptbxl_labels(str(codes), statements, self.label_set))
            except DataError as error:
                problems.add(f"{path}, ecg_id {ecg_id}", str(error))
                labels.append(None)
        frame = pd.DataFrame(
            {
                "id": database["ecg_id"].astype(str).to_numpy(),
                "path": [str(self.root / str(file)) for file in files],
                "report": database["report"].to_numpy(),
                "labels": labels,
                "split": database["strat_fold"].map(split_of_fold).to_numpy(),
                "age": database["age"].to_numpy(),
                "sex": database["sex"].map({0: "male", 1: "female"}).to_numpy(),
                "patient": database["patient_id"].to_numpy(),
            }
        )
        return usable_rows(frame[frame["labels"].notna()], f"{path}, ecg_id", self.root, problems)

    def _file_column(self, database: pd.DataFrame, path: Path) -> str:
        """The column with the file names to read: that of the requested rate, if the folder for it exists."""
        low_first = self.signal_settings.sampling_rate <= 100
        order = ("filename_lr", "filename_hr") if low_first else ("filename_hr", "filename_lr")
        for column in order:
            folder = "records100" if column == "filename_lr" else "records500"
            if column in database.columns and (self.root / folder).is_dir():
                return column
        raise DataError(
            f"{self.root} has neither records500/ with the column filename_hr in {path.name} nor records100/ with "
            "filename_lr: unpack the records beside the CSV files"
        )

    def _file(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise DataError(
                f"no file {path}; expected PTB-XL's layout: ptbxl_database.csv, scp_statements.csv and records500/ or "
                "records100/ under the root (ptbxl_database_translated.csv for report_source: translated)"
            )
        return path
