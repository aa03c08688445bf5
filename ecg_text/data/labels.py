"""Names of the labels of PTB-XL and CPSC2018, and how each release writes them."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from shared.data.problems import DataError
from shared.data.tables import read_csv

LabelSet = Literal["superclass", "subclass", "all"]

PTBXL_SUPERCLASSES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}

# In the order of the original release's labels 1..9, with the names of the paper's section 3.1.
CPSC2018_CLASSES = {
    "Normal": "normal ECG",
    "AF": "atrial fibrillation",
    "I-AVB": "first-degree atrioventricular block",
    "LBBB": "left bundle branch block",
    "RBBB": "right bundle branch block",
    "PAC": "premature atrial contraction",
    "PVC": "premature ventricular contraction",
    "STD": "ST-segment depression",
    "STE": "ST-segment elevation",
}

# SNOMED CT codes of the PhysioNet 2020 and 2021 releases, in which several codes count as one diagnosis.
SNOMED_TO_CPSC2018 = {
    "426783006": "Normal",
    "164889003": "AF",
    "270492004": "I-AVB",
    "164909002": "LBBB",
    "733534002": "LBBB",
    "59118001": "RBBB",
    "713427006": "RBBB",
    "284470004": "PAC",
    "63593006": "PAC",
    "164884008": "PVC",
    "427172004": "PVC",
    "17338001": "PVC",
    "429622005": "STD",
    "164931005": "STE",
}


def read_scp_statements(path: Path) -> pd.DataFrame:
    """PTB-XL's `scp_statements.csv`, indexed by statement.

    Raises:
        DataError: The file is not a CSV file, or a column is missing.
    """
    return read_csv(path, ("description", "diagnostic", "diagnostic_class", "diagnostic_subclass"), index_col=0)


def ptbxl_classes(statements: pd.DataFrame, label_set: LabelSet) -> dict[str, str]:
    """Names by class code: five superclasses, the diagnostic subclasses, or every statement."""
    diagnostic = statements[statements["diagnostic"] == 1]
    if label_set == "superclass":
        return dict(PTBXL_SUPERCLASSES)
    if label_set == "subclass":
        # A subclass is named by the statement with its code, if there is one, or by its first member's description.
        names = {}
        for subclass, members in diagnostic.groupby("diagnostic_subclass", sort=True):
            own = statements["description"].get(subclass)
            names[str(subclass)] = str(own if own is not None else members["description"].iloc[0])
        return names
    return {str(code): str(description) for code, description in statements["description"].sort_index().items()}


def ptbxl_labels(scp_codes: str, statements: pd.DataFrame, label_set: LabelSet) -> list[str]:
    """Class codes of one record from its `scp_codes` cell, e.g. `"{'NORM': 100.0, 'SR': 0.0}"`.

    As in PTB-XL's own example code, the likelihood is not thresholded: 0 means "unknown" there, not "absent".

    Raises:
        DataError: The cell is not a dictionary.
    """
    try:
        codes = ast.literal_eval(scp_codes)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"scp_codes is {scp_codes!r}; expected a dictionary of statement to likelihood") from error
    if not isinstance(codes, dict):
        raise DataError(f"scp_codes is {scp_codes!r}; expected a dictionary of statement to likelihood")
    known = [code for code in codes if code in statements.index]
    if label_set == "all":
        return sorted(known)
    column = "diagnostic_class" if label_set == "superclass" else "diagnostic_subclass"
    return sorted({str(statements.at[code, column]) for code in known if statements.at[code, "diagnostic"] == 1})


def cpsc2018_labels(codes: Iterable[str]) -> list[str]:
    """Class codes from abbreviations, SNOMED codes, or the original release's numbers 1..9; others are left out."""
    classes = list(CPSC2018_CLASSES)
    by_spelling = {name.lower(): name for name in classes} | SNOMED_TO_CPSC2018 | {"iavb": "I-AVB", "snr": "Normal"}
    by_spelling |= {str(number): name for number, name in enumerate(classes, start=1)}
    found = {by_spelling[key] for code in codes if (key := code.strip().lower()) in by_spelling}
    return [name for name in classes if name in found]
