"""The data sets: PTB-XL, CPSC2018, and any folder of WFDB records with a CSV."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ecg_text.data import SPLITS, ECGDataModule
from ecg_text.labels import (
    CPSC2018_CLASSES,
    LabelSet,
    cpsc2018_labels,
    ptbxl_classes,
    ptbxl_labels,
    read_csv,
    read_scp_statements,
)
from shared.data.report import DataError, Report
from shared.data.splits import stratified_split

SEXES = {"m": "male", "f": "female"}


class PTBXLDataModule(ECGDataModule):
    """PTB-XL 1.0.1 to 1.0.3 (paper, section 3.1), or a data set in its layout.

    Layout: `<root>/ptbxl_database.csv`, `<root>/scp_statements.csv`, `<root>/records500/...` (and/or `records100`).
    The stored files of the sampling rate asked for are used where they exist, else 500 Hz (or 100 Hz) is resampled.

    Args:
        root: Folder of the data set (PhysioNet: "PTB-XL, a large publicly available electrocardiography dataset").
        label_set: Five superclasses (paper), the diagnostic subclasses, or all statements.
        report_source: `"raw"` reports (71% German), or `"translated"`: English ones from
            `<root>/ptbxl_database_translated.csv` with columns `ecg_id, report`.
        train_folds: Values of `strat_fold` to train on (official: 1-8).
        val_folds: To select on (official: 9).
        test_folds: To report on (official: 10).
        **kwargs: See `ECGDataModule`.

    Raises:
        DataError: In `setup`, for a missing file or column, or a record that cannot be used (see `on_error`).
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
        """Names by class code of the chosen label set."""
        return ptbxl_classes(read_scp_statements(self._file("scp_statements.csv")), self.label_set)

    def read_table(self, report: Report) -> pd.DataFrame:
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
                report.problem(f"{path}, ecg_id {ecg_id}", str(error))
                labels.append(None)
        table = pd.DataFrame(
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
        return _usable_rows(table[table["labels"].notna()], f"{path}, ecg_id", self.root, report)

    def _file_column(self, database: pd.DataFrame, path: Path) -> str:
        """The column of file names to read: that of the rate asked for, where its folder exists."""
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


class CPSC2018DataModule(ECGDataModule):
    """CPSC2018 (paper, section 3.1), in its original release or PhysioNet's of 2020 and 2021.

    Layout: records anywhere under `<root>`. Labels come from `<root>/REFERENCE.csv` (original: `Recording,
    First_label, Second_label, Third_label` with 1..9) where it exists, else from the headers' `#Dx` lines
    (abbreviations or SNOMED codes). The set has no reports and no public test set: the split is random, stratified by
    the labels and seeded (72/8/20 and 42, as MERL's).

    Args:
        root: Folder of the data set.
        split_fractions: Train, validation, test.
        split_seed: Seed of the split.
        **kwargs: See `ECGDataModule`.

    Raises:
        DataError: In `setup`, for a folder without records, or a record that cannot be used (see `on_error`).
    """

    name = "cpsc2018"

    def __init__(
        self,
        root: str,
        split_fractions: tuple[float, float, float] = (0.72, 0.08, 0.2),
        split_seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.split_fractions = split_fractions
        self.split_seed = split_seed

    def read_classes(self) -> dict[str, str]:
        """The nine diagnoses."""
        return dict(CPSC2018_CLASSES)

    def read_table(self, report: Report) -> pd.DataFrame:
        """One row a record, in the order of the record names."""
        reference = self.root / "REFERENCE.csv"
        rows = self._from_reference(reference, report) if reference.is_file() else self._from_headers(report)
        table = pd.DataFrame(rows, columns=["id", "path", "labels", "age", "sex"])
        table = _usable_rows(table, f"{self.root}, record", self.root, report)
        table["report"], table["patient"] = "", table["id"]
        strata = [",".join(labels) for labels in table["labels"]]
        parts = stratified_split(strata, self.split_fractions, self.split_seed)
        table["split"] = np.array(SPLITS)[parts]
        return table

    def _from_reference(self, path: Path, report: Report) -> list[dict[str, Any]]:
        reference = read_csv(path, ["Recording", "First_label"], dtype={"Recording": str})
        columns = [column for column in reference.columns if column.endswith("_label")]
        files = {file.stem: file.with_suffix("") for file in self.root.rglob("*") if file.suffix in (".mat", ".hea")}
        rows = []
        for record in reference.sort_values("Recording").to_dict("records"):
            name = str(record["Recording"])
            given = [record[column] for column in columns if pd.notna(record[column])]
            numbers = [pd.to_numeric(value, errors="coerce") for value in given]
            if not numbers or not set(numbers) <= set(range(1, len(CPSC2018_CLASSES) + 1)):
                report.problem(f"{path}, Recording {name}", f"has the labels {given}; expected numbers from 1 to 9")
                continue
            rows.append(
                {
                    "id": name,
                    "path": str(files.get(name, self.root / name)),  # without a file: reading names what is missing
                    "labels": cpsc2018_labels(str(int(number)) for number in numbers),
                    "age": record.get("age", np.nan),
                    "sex": SEXES.get(str(record.get("sex", "")).lower()[:1], ""),
                }
            )
        return rows

    def _from_headers(self, report: Report) -> list[dict[str, Any]]:
        rows = []
        for header in sorted(self.root.rglob("*.hea")):
            stem = header.with_suffix("")
            # Reading the comments oneself takes a tenth of wfdb.rdheader's time, and this is done at every start.
            lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
            fields = dict(line[1:].split(":", 1) for line in lines if line.startswith("#") and ":" in line)
            fields = {key.strip().lower(): value.strip() for key, value in fields.items()}
            if "dx" not in fields:
                report.problem(str(header), "has no #Dx line, and there is no REFERENCE.csv")
                continue
            rows.append(
                {
                    "id": stem.name,
                    "path": str(stem),
                    "labels": cpsc2018_labels(fields["dx"].split(",")),
                    "age": pd.to_numeric(fields.get("age", "nan"), errors="coerce"),
                    "sex": SEXES.get(fields.get("sex", "").lower()[:1], ""),
                }
            )
        return rows


class WFDBFolderDataModule(ECGDataModule):
    """Any folder of WFDB records with a CSV: the way to bring your own ECGs.

    Args:
        root: Folder that the CSV's paths are relative to.
        csv: The table, relative to `root`. Columns: `id`, `path` (record without extension), and, as far as you have
            them, `report` (pre-training), `labels` (codes separated by `label_separator`; evaluation), `split`
            (train, val or test; otherwise a random split), `age`, `sex`, `patient`.
        label_names: Name by code for the prompts; by default each code is its own name.
        label_separator: Between the codes of a cell.
        split_fractions: Train, validation, test, where there is no column `split`; patients are not divided.
        split_seed: Seed of that split.
        **kwargs: See `ECGDataModule`.

    Raises:
        DataError: In `setup`, for a missing file or column; for an id that occurs twice, an unknown split, a path
            outside `root`, or a record that cannot be used (see `on_error`).
    """

    name = "wfdb_folder"

    def __init__(
        self,
        root: str,
        csv: str = "records.csv",
        label_names: dict[str, str] | None = None,
        label_separator: str = ";",
        split_fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        split_seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.csv = csv
        self.label_names = label_names
        self.label_separator = label_separator
        self.split_fractions = split_fractions
        self.split_seed = split_seed

    def read_table(self, report: Report) -> pd.DataFrame:
        """Rows of the CSV."""
        path = self.root / self.csv
        if not path.is_file():
            raise DataError(f"no file {path}: name the table of your records as --data.init_args.csv")
        text = dict.fromkeys(("id", "path", "labels", "report", "patient", "split"), str)  # 007 stays 007
        given = read_csv(path, ["id", "path"], dtype=text)
        given["path"] = given["path"].fillna("").map(lambda record: str(self.root / record))
        given = _usable_rows(given, f"{path}, id", self.root, report)
        cells = given["labels"].fillna("") if "labels" in given.columns else [""] * len(given)
        codes = [[code.strip() for code in cell.split(self.label_separator)] for cell in cells]
        table = given[["id", "path"]].copy()
        table["labels"] = [sorted({code for code in row if code}) for row in codes]
        self._codes = sorted({code for row in table["labels"] for code in row})
        for column, default in (("report", ""), ("age", np.nan), ("sex", "")):
            table[column] = given[column] if column in given.columns else default
        table["patient"] = given["patient"].fillna(given["id"]) if "patient" in given.columns else given["id"]
        table["split"] = given["split"] if "split" in given.columns else self._split(table)
        return table

    def _split(self, table: pd.DataFrame) -> "pd.Series[str]":
        # Patients are divided, not records, so that nobody is both trained and tested on.
        first_of_patient = table.drop_duplicates("patient")
        strata = [",".join(codes) for codes in first_of_patient["labels"]]
        parts = stratified_split(strata, self.split_fractions, self.split_seed)
        split_of_patient = dict(zip(first_of_patient["patient"], np.array(SPLITS)[parts], strict=True))
        return table["patient"].map(split_of_patient)

    def read_classes(self) -> dict[str, str]:
        """Every code of the CSV, with its name."""
        names = self.label_names or {code: code for code in self._codes}
        unnamed = [code for code in self._codes if code not in names]
        if unnamed:
            raise DataError(f"data.init_args.label_names lacks {', '.join(unnamed)}, which occur in {self.csv}")
        return names


def _usable_rows(table: pd.DataFrame, kind: str, root: Path, report: Report) -> pd.DataFrame:
    """The rows with an id of their own, a path under `root` and a known split; the others are reported."""
    inside = os.path.join(os.path.abspath(root), "")
    splits = table["split"] if "split" in table.columns else [SPLITS[0]] * len(table)
    seen: set[str] = set()
    keep = []
    for row_id, path, split in zip(table["id"], table["path"], splits, strict=True):
        reason = None
        if row_id in seen:
            reason = "occurs twice"
        elif not os.path.abspath(path).startswith(inside):
            reason = f"the path {path} leads out of {root}"
        elif split not in SPLITS:
            reason = f"has the split {split!r}; expected train, val or test"
        if reason:
            report.problem(f"{kind} {row_id}", reason)
        seen.add(row_id)
        keep.append(reason is None)
    return table[np.array(keep, dtype=bool)].reset_index(drop=True)
