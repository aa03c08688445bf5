"""CPSC2018, in its original release or PhysioNet's of 2020 and 2021."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecg_text.data.labels import CPSC2018_CLASSES, cpsc2018_labels
from ecg_text.data.module import ECGDataModule, usable_rows
from shared.data.problems import Problems
from shared.data.splits import SPLIT_VERSION, SPLITS, SplitVersion, random_split
from shared.data.tables import read_csv

SEXES = {"m": "male", "f": "female"}


class CPSC2018DataModule(ECGDataModule):
    """CPSC2018 (paper, section 3.1), in its original release or PhysioNet's of 2020 and 2021.

    Layout: the records may be anywhere under `<root>`. Labels come from `<root>/REFERENCE.csv` (in the original release
    with the columns `Recording, First_label, Second_label, Third_label` and values 1..9) if it exists, otherwise from
    the headers' `#Dx` lines (abbreviations or SNOMED codes). The set has no reports, no patients' numbers and no
    public test set, so the split is random by record, stratified by the labels and seeded (72/8/20 and 42, as in MERL).

    Args:
        root: Folder that holds the data set.
        split_fractions: Shares of train, validation and test.
        split_seed: Seed of the split.
        split_version: Rule of the split, see `shared.data.splits.SplitVersion`.
        **kwargs: Further arguments of `ECGDataModule`.

    Raises:
        DataError: There are no records, or a record cannot be used (see `on_error`); raised in `setup`.
    """

    name = "cpsc2018"

    def __init__(
        self,
        root: str,
        split_fractions: tuple[float, float, float] = (0.72, 0.08, 0.2),
        split_seed: int = 42,
        split_version: SplitVersion = SPLIT_VERSION,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.split_fractions = split_fractions
        self.split_seed = split_seed
        self.split_version: SplitVersion = split_version

    def read_classes(self) -> dict[str, str]:
        """The nine diagnoses."""
        return dict(CPSC2018_CLASSES)

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        """One row per record, in the order of the record names."""
        reference = self.root / "REFERENCE.csv"
        rows = self._from_reference(reference, problems) if reference.is_file() else self._from_headers(problems)
        frame = pd.DataFrame(rows, columns=["id", "path", "labels", "age", "sex"])
        frame = usable_rows(frame, f"{self.root}, record", self.root, problems)
        frame["report"], frame["patient"] = "", frame["id"]
        strata = [",".join(labels) for labels in frame["labels"]]
        parts = random_split(frame["id"].tolist(), strata, self.split_fractions, self.split_seed, self.split_version)
        frame["split"] = np.array(SPLITS)[parts]
        return frame

    def _from_reference(self, path: Path, problems: Problems) -> list[dict[str, Any]]:
        reference = read_csv(path, ["Recording", "First_label"], dtype={"Recording": str})
        columns = [column for column in reference.columns if column.endswith("_label")]
        files = {file.stem: file.with_suffix("") for file in self.root.rglob("*") if file.suffix in (".mat", ".hea")}
        rows = []
        for record in reference.sort_values("Recording").to_dict("records"):
            name = str(record["Recording"])
            given = [record[column] for column in columns if pd.notna(record[column])]
            numbers = [pd.to_numeric(value, errors="coerce") for value in given]
            if not numbers or not set(numbers) <= set(range(1, len(CPSC2018_CLASSES) + 1)):
                problems.add(f"{path}, Recording {name}", f"has the labels {given}; expected numbers from 1 to 9")
                continue
            rows.append(
                {
                    "id": name,
                    "path": str(files.get(name, self.root / name)),  # if there is no file, the reader says so
                    "labels": cpsc2018_labels(str(int(number)) for number in numbers),
                    "age": record.get("age", np.nan),
                    "sex": SEXES.get(str(record.get("sex", "")).lower()[:1], ""),
                }
            )
        return rows

    def _from_headers(self, problems: Problems) -> list[dict[str, Any]]:
        rows = []
        for header in sorted(self.root.rglob("*.hea")):
            stem = header.with_suffix("")
            # Parsing the comments here takes a tenth of wfdb.rdheader's time, and it is done at every start.
            lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
            fields = dict(line[1:].split(":", 1) for line in lines if line.startswith("#") and ":" in line)
            fields = {key.strip().lower(): value.strip() for key, value in fields.items()}
            if "dx" not in fields:
                problems.add(str(header), "has no #Dx line, and there is no REFERENCE.csv")
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
