"""The data modules: layouts and dialects, splits, targets, reports, the cache, and what a bad input says."""

import csv
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.signal
import torch
from jsonargparse import ArgumentParser

from ecg_text import CPSC2018DataModule, ECGDataModule, PTBXLDataModule, WFDBFolderDataModule
from ecg_text.data import module as module_file
from ecg_text.data.module import normalize
from ecg_text.data.records import LEADS, load_signal
from shared.data.problems import DataError, Problems
from shared.data.splits import SPLITS, stratified_split

Write = Callable[..., None]
Edit = Callable[[pd.DataFrame], Any]

STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior myocardial infarction,1.0,,,MI,IMI
ISC_,non-specific ischemic,1.0,,,STTC,ISC_
1AVB,first degree AV block,1.0,,,CD,_AVB
LVH,left ventricular hypertrophy,1.0,,,HYP,LVH
SR,sinus rhythm,,,1.0,,
"""
CODES = {"NORM": "NORM", "MI": "IMI", "STTC": "ISC_", "CD": "1AVB", "HYP": "LVH"}
SKIP = "(on_error: skip would leave it out and list it)"


def signal_of(number: int, samples: int = 1000) -> np.ndarray:
    return np.random.default_rng(number).integers(-1500, 1500, (12, samples)).astype(np.int16)


@pytest.fixture
def ptbxl(tmp_path: Path, write_record: Write) -> Path:
    """SYNTHETIC: 15 records of noise, ids 1 to 15, each superclass once in folds 1, 9 and 10."""
    root = tmp_path / "ptbxl"
    rows = []
    for number, (fold, superclass) in enumerate(product((1, 9, 10), CODES), start=1):
        name = f"records100/00000/{number:05d}_lr"
        write_record(root / name, signal_of(number), leads=[lead.upper() for lead in LEADS])
        rows.append(
            {
                "ecg_id": number,
                "patient_id": float(100 + number),
                "age": 40.0 + number,
                "sex": number % 2,
                "report": f"befund {superclass.lower()}",
                "scp_codes": str({CODES[superclass]: 100.0, "SR": 0.0}),
                "strat_fold": fold,
                "filename_lr": name,
                "filename_hr": name.replace("100", "500").replace("_lr", "_hr"),
            }
        )
    pd.DataFrame(rows).to_csv(root / "ptbxl_database.csv", index=False)
    (root / "scp_statements.csv").write_text(STATEMENTS)
    return root


def module(kind: type[ECGDataModule], root: Path, **kwargs: Any) -> Any:
    settings = {"sampling_rate": 100, "label_mode": "multi", "batch_size": 4, "cache_dir": str(root.parent / "cache")}
    return kind(str(root), **(settings | kwargs))


def ready(kind: type[ECGDataModule], root: Path, **kwargs: Any) -> Any:
    data = module(kind, root, **kwargs)
    data.setup()
    return data


def error_of(kind: type[ECGDataModule], root: Path, **kwargs: Any) -> str:
    with pytest.raises(DataError) as caught:
        ready(kind, root, **kwargs)
    return str(caught.value)


def skipped(data: Any) -> list[list[str]]:
    """Rows of the list of skipped records that a data module wrote."""
    (path,) = data.cache_dir.glob("*/*/skipped.csv")
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert header == ["item", "reason"]
    return rows


def edit(path: Path, change: Edit) -> None:
    table = pd.read_csv(path)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, index=False)


def set_cell(row: int, column: str, value: Any) -> Edit:
    def change(table: pd.DataFrame) -> None:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value

    return change


class CountReads:
    """Stands in for `load_signal` and counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        monkeypatch.setattr(module_file, "load_signal", self)

    def __call__(self, source: Any) -> np.ndarray:
        self.paths.append(Path(source.path).name)
        return load_signal(source)


# ---- batches ----


def test_a_batch_holds_the_records_of_its_rows(ptbxl: Path) -> None:
    data = ready(PTBXLDataModule, ptbxl)
    assert list(data.frame["id"]) == [str(number) for number in range(1, 16)]
    assert data.class_names["STTC"] == "ST/T change"
    rows = np.array([14, 0, 7])
    (batch,) = data.loader(rows)
    assert batch.row.tolist() == [14, 0, 7]
    assert np.array_equal(batch.signal, np.stack([signal_of(row + 1) for row in rows]))
    assert [data.reports[index] for index in batch.report] == ["befund hyp", "befund norm", "befund sttc"]
    assert batch.target.tolist() == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert batch.target.dtype == torch.float32
    assert batch.labelled.tolist() == [True] * 3
    assert data.frame[["patient", "age", "sex"]].iloc[1].tolist() == [102.0, 42.0, "male"]


def test_official_folds_and_others_are_the_splits(ptbxl: Path) -> None:
    data = ready(PTBXLDataModule, ptbxl)
    assert [data.rows(split, "evaluate").tolist() for split in ("train", "val", "test")] == [
        list(range(5)), list(range(5, 10)), list(range(10, 15)),
    ]  # fmt: skip
    other = ready(PTBXLDataModule, ptbxl, train_folds=[10], val_folds=[1], test_folds=[2])
    assert list(other.frame["id"][other.rows("train", "evaluate")]) == ["11", "12", "13", "14", "15"]
    assert len(other.frame) == 10
    with pytest.raises(
        ValueError, match=r"^a fold may belong to one split only, got \{'train': \[1, 9\], 'val': \[9\]"
    ):
        module(PTBXLDataModule, ptbxl, train_folds=[1, 9])


def test_the_loaders(ptbxl: Path) -> None:
    data = ready(PTBXLDataModule, ptbxl)
    train = [batch.row.tolist() for batch in data.train_dataloader()]
    assert [len(rows) for rows in train] == [4]  # shuffled, the incomplete batch dropped
    assert [row for batch in data.val_dataloader() for row in batch.row.tolist()] == list(range(5, 10))
    assert [row for batch in data.test_dataloader() for row in batch.row.tolist()] == list(range(10, 15))
    assert [row for batch in data.predict_dataloader() for row in batch.row.tolist()] == list(range(15))
    shuffled = data.train_dataloader()
    orders = []
    for epoch in range(6):
        shuffled.sampler.set_epoch(epoch)
        orders.append(tuple(row for batch in shuffled for row in batch.row.tolist()))
    assert len(set(orders)) > 1


@pytest.mark.parametrize("mode", ["none", "minmax", "lead", "record"])
def test_normalisation_against_numpy(ptbxl: Path, mode: str) -> None:
    raw = np.stack([signal_of(row + 1) for row in range(3)]).astype(np.float64) / 1000
    raw[1] *= np.arange(1, 13)[:, None]  # leads of different size
    centred = raw - raw.mean(2, keepdims=True)
    low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
    expected = {
        "none": raw,
        "minmax": (raw - low) / (high - low),
        "lead": centred / raw.std(2, keepdims=True),
        "record": centred / np.sqrt(raw.var(2).mean(1))[:, None, None],
    }[mode]
    stored = torch.from_numpy(np.rint(raw * 1000).astype(np.int16))
    got = normalize(stored, mode)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)
    data = ready(PTBXLDataModule, ptbxl, normalize=mode)
    (batch,) = data.batches(np.array([0]))
    np.testing.assert_allclose(batch.signal.numpy()[0], expected[0], atol=2e-5)


def test_normalising_a_flat_signal_is_finite_and_another_mode_refused() -> None:
    flat = torch.zeros(1, 12, 10, dtype=torch.int16)
    assert all(torch.isfinite(normalize(flat, mode)).all() for mode in ("none", "minmax", "lead", "record"))
    with pytest.raises(ValueError, match=r"^normalize must be lead, record, minmax or none, got 'zscore'$"):
        normalize(flat, "zscore")


# ---- the cache ----


def test_the_cache_is_built_once_and_kept_when_only_normalisation_changes(
    ptbxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = CountReads(monkeypatch)
    first = module(PTBXLDataModule, ptbxl)
    first.prepare_data()
    first.setup("fit")
    first.setup("test")
    assert len(reads.paths) == 15
    for kwargs in ({"normalize": "minmax"}, {"batch_size": 2}, {"label_mode": "single"}):
        ready(PTBXLDataModule, ptbxl, **kwargs)
    assert len(reads.paths) == 15


@pytest.mark.parametrize("kwargs", [{"sampling_rate": 50}, {"duration": 5.0}, {"leads": ["II", "V2"]}])
def test_a_setting_of_the_signal_is_another_cache(
    ptbxl: Path, monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, Any]
) -> None:
    ready(PTBXLDataModule, ptbxl)
    reads = CountReads(monkeypatch)
    data = ready(PTBXLDataModule, ptbxl, **kwargs)
    assert len(reads.paths) == 15
    assert data.array.shape == (15, len(kwargs.get("leads", LEADS)), data.signal_settings.samples)


@pytest.mark.parametrize("suffix", [".dat", ".hea"])
def test_a_changed_file_is_read_again(ptbxl: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    ready(PTBXLDataModule, ptbxl)
    reads = CountReads(monkeypatch)
    path = ptbxl / f"records100/00000/00003_lr{suffix}"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    ready(PTBXLDataModule, ptbxl)
    assert len(reads.paths) == 15


def test_a_changed_file_is_seen_through_a_path_with_its_extension(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record, path=lambda name: f"{name}.hea")
    before = ready(WFDBFolderDataModule, root, missing_classes="drop").array[0].copy()
    write_record(root / "r0", signal_of(77, 1100))
    after = ready(WFDBFolderDataModule, root, missing_classes="drop").array[0]
    assert np.array_equal(before, signal_of(0))
    assert np.array_equal(after, signal_of(77, 1100)[:, :1000])


def test_which_record_is_missing_is_part_of_the_cache(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record)
    for present, absent in (("r1", "r0"), ("r0", "r1")):
        for suffix in (".hea", ".dat"):
            (root / f"{absent}{suffix}").unlink(missing_ok=True)
        write_record(root / present, signal_of(5))
        for name in ("r0", "r1"):
            for suffix in (".hea", ".dat"):
                if (root / f"{name}{suffix}").exists():
                    os.utime(root / f"{name}{suffix}", (1, 1))
        data = ready(WFDBFolderDataModule, root, on_error="skip", missing_classes="drop")
        assert data.frame["id"].iloc[0] == ("000" if present == "r0" else "001")
        assert len(data.frame) == 5


def test_the_rate_asked_for_is_read_where_it_is_stored(ptbxl: Path, write_record: Write) -> None:
    for number in range(1, 16):
        write_record(ptbxl / f"records500/00000/{number:05d}_hr", signal_of(100 + number, 5000), rate="500")
    assert np.array_equal(ready(PTBXLDataModule, ptbxl, sampling_rate=500).array[0], signal_of(101, 5000))
    assert np.array_equal(ready(PTBXLDataModule, ptbxl, sampling_rate=100).array[0], signal_of(1))
    shutil.rmtree(ptbxl / "records100")
    assert ready(PTBXLDataModule, ptbxl, sampling_rate=100).array.shape == (15, 12, 1000)  # resampled from 500 Hz


# ---- settings, and what a run keeps ----

DEFAULTS: dict[str, Any] = {
    "root": None, "sampling_rate": 500, "duration": 10.0, "leads": None, "normalize": "record", "batch_size": 128,
    "label_mode": "single", "missing_classes": "raise", "on_error": "raise", "cache_dir": "data/cache",
    "num_workers": 0, "seed": 0, "allow_shared_groups": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        (PTBXLDataModule, {"label_set": "superclass", "report_source": "raw"} | dict.fromkeys(
            ("train_folds", "val_folds", "test_folds"))),
        (CPSC2018DataModule, {"split_fractions": (0.72, 0.08, 0.2), "split_seed": 42, "split_version": 2}),
        (WFDBFolderDataModule, {"csv": "records.csv", "label_names": None, "label_separator": ";",
                                "split_fractions": (0.8, 0.1, 0.1), "split_seed": 42, "split_version": 2,
                                "group_column": None}),
    ],
)  # fmt: skip
def test_the_parser_finds_every_argument_with_its_default(kind: type[ECGDataModule], defaults: dict[str, Any]) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "data")
    assert parser.get_defaults().as_dict()["data"] == DEFAULTS | defaults
    assert "Global batch size" in parser.format_help()


def test_a_run_keeps_the_records_and_a_fingerprint(ptbxl: Path, tmp_path: Path) -> None:
    data = ready(PTBXLDataModule, ptbxl)
    data.save(tmp_path / "run")
    kept = pd.read_csv(tmp_path / "run" / "samples.csv", dtype=str)
    patients = [str(int(patient)) for patient in data.frame["patient"]]
    assert kept.to_dict("list") == {"id": list(data.frame["id"]), "split": data.split.tolist(), "group": patients}
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(data.run_files)


def test_a_copy_of_the_data_has_the_same_fingerprint(ptbxl: Path, tmp_path: Path) -> None:
    first = ready(PTBXLDataModule, ptbxl).fingerprint()
    copy = tmp_path / "elsewhere" / "set"
    shutil.copytree(ptbxl, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    other = {"batch_size": 2, "seed": 8, "num_workers": 1, "cache_dir": str(tmp_path / "other")}
    assert ready(PTBXLDataModule, copy, **other).fingerprint() == first
    assert ready(PTBXLDataModule, ptbxl, duration=9.0).fingerprint() != first


def change_a_sample(root: Path) -> None:
    path = root / "records100/00000/00015_lr.dat"
    samples = np.fromfile(path, "<i2")
    samples[6000] += 1
    samples.tofile(path)


@pytest.mark.parametrize(
    "change",
    [
        change_a_sample,
        lambda root: edit(root / "ptbxl_database.csv", set_cell(2, "report", "befund")),
        lambda root: edit(root / "ptbxl_database.csv", set_cell(2, "scp_codes", "{'IMI': 100.0, 'ISC_': 100.0}")),
        lambda root: edit(root / "ptbxl_database.csv", set_cell(2, "strat_fold", 2)),
        lambda root: edit(root / "ptbxl_database.csv", set_cell(2, "strat_fold", 10)),
        lambda root: edit(root / "ptbxl_database.csv", set_cell(2, "patient_id", 101.0)),
    ],
    ids=["sample", "report", "label", "fold of the same split", "split", "patient"],
)
def test_changed_data_have_another_fingerprint(
    ptbxl: Path, request: pytest.FixtureRequest, change: Callable[[Path], None]
) -> None:
    before = ready(PTBXLDataModule, ptbxl, missing_classes="drop")
    change(ptbxl)
    after = ready(PTBXLDataModule, ptbxl, missing_classes="drop")
    same = "same split" in request.node.name
    assert (after.fingerprint() == before.fingerprint()) == same


def test_the_label_mode_is_part_of_the_fingerprint_and_names_are_too(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record)
    names = {"AF": "atrial fibrillation", "SR": "sinus rhythm", "PVC": "premature beat"}
    settings: list[dict[str, Any]] = [{}, {"label_mode": "single"}, {"label_names": names}]
    data = [ready(WFDBFolderDataModule, root, missing_classes="drop", **changed) for changed in settings]
    assert len({one.fingerprint() for one in data}) == 3


def test_the_groups_are_the_patients(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record, columns={"patient": ["x", "y", "x", "y", None, None]})
    groups = ready(WFDBFolderDataModule, root, missing_classes="drop", allow_shared_groups=True).groups
    assert groups.dtype == np.int64
    assert (groups[0], groups[1]) == (groups[2], groups[3])
    assert len(set(groups.tolist())) == 4


SHARED = (
    "so what is tested on was partly trained on. Give all records of a patient the same part (without a given split, "
    "the random one does), name another group_column, or accept it with --data.init_args.allow_shared_groups true"
)


def test_a_patient_with_records_in_folds_of_two_splits_is_refused(ptbxl: Path) -> None:
    edit(ptbxl / "ptbxl_database.csv", lambda table: table.assign(patient_id=[*range(10), 0, 11, 4, 13, None]))
    assert error_of(PTBXLDataModule, ptbxl) == (
        "2 patients with 4 records are in several parts of the split (0: 1 in train, 11 in test; 4: 5 in train, 13 in "
        f"test), {SHARED}"
    )
    allowed = ready(PTBXLDataModule, ptbxl, allow_shared_groups=True)
    assert (allowed.patient[0], allowed.patient[4]) == (allowed.patient[10], allowed.patient[12])
    assert len(set(allowed.patient)) == 13  # that of the last record is not known
    assert len(ready(PTBXLDataModule, ptbxl, test_folds=[11]).frame) == 10  # without the fold that shared them


# ---- layout ----


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for kind in (PTBXLDataModule, CPSC2018DataModule, WFDBFolderDataModule):
        root = tmp_path / "nowhere"
        assert error_of(kind, root) == (
            f"no folder {root}: pass the data set's root as --data.init_args.root (make: DATA=...)"
        )


@pytest.mark.parametrize("name", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_missing_table_is_named(ptbxl: Path, name: str) -> None:
    (ptbxl / name).unlink()
    assert error_of(PTBXLDataModule, ptbxl) == (
        f"no file {ptbxl / name}; expected PTB-XL's layout: ptbxl_database.csv, scp_statements.csv and records500/ or "
        "records100/ under the root (ptbxl_database_translated.csv for report_source: translated)"
    )


def test_no_folder_of_records_is_said(ptbxl: Path) -> None:
    shutil.rmtree(ptbxl / "records100")
    assert error_of(PTBXLDataModule, ptbxl) == (
        f"{ptbxl} has neither records500/ with the column filename_hr in ptbxl_database.csv nor records100/ with "
        "filename_lr: unpack the records beside the CSV files"
    )


@pytest.mark.parametrize("column", ["ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold"])
def test_a_missing_column_is_named(ptbxl: Path, column: str) -> None:
    edit(ptbxl / "ptbxl_database.csv", lambda table: table.drop(columns=column))
    message = error_of(PTBXLDataModule, ptbxl)
    assert message.startswith(f"{ptbxl / 'ptbxl_database.csv'} lacks the column {column}; it has ")
    assert message.endswith("filename_lr, filename_hr")


def test_a_table_that_is_no_csv_is_said(ptbxl: Path) -> None:
    (ptbxl / "ptbxl_database.csv").write_bytes(b"")
    assert error_of(PTBXLDataModule, ptbxl) == (
        f"{ptbxl / 'ptbxl_database.csv'} cannot be read as CSV (No columns to parse from file)"
    )


@pytest.mark.parametrize("kind", [PTBXLDataModule, CPSC2018DataModule])
def test_a_set_without_records_is_said(ptbxl: Path, tmp_path: Path, kind: type[ECGDataModule]) -> None:
    if kind is PTBXLDataModule:
        root = ptbxl
        edit(root / "ptbxl_database.csv", lambda table: table[table["strat_fold"] > 10])
    else:
        root = tmp_path / "empty"
        root.mkdir()
    assert error_of(kind, root) == f"no record found for {kind.__name__} under {root} (no record skipped)"


# ---- records and rows that cannot be used: raised, or skipped, counted and listed ----


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2400])


def nan_samples(path: Path) -> None:
    values = np.fromfile(path, "<i2").reshape(1000, 12)
    values[10:14, 2] = -32768
    values.tofile(path)


def constant_lead(path: Path) -> None:
    values = np.fromfile(path, "<i2").reshape(1000, 12)
    values[:, 7] = 12
    values.tofile(path)


def in_header(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        header = path.with_suffix(".hea")
        assert old in header.read_text()
        header.write_text(header.read_text().replace(old, new))

    return change


DAMAGES = {
    "unreadable": (in_header("00008_lr 12", "00008_lr twelve"), "{stem} cannot be read as a WFDB record, it may be "
                   "truncated (invalid syntax in record line)"),
    "truncated": (truncate, "{stem} cannot be read as a WFDB record, it may be truncated (Samples were not loaded "
                  "correctly)"),
    "missing": (lambda path: [path.unlink(), path.with_suffix(".hea").unlink()],
                "no file {stem}.hea (a WFDB record is a .hea header beside its signal file)"),
    "no lead": (in_header(" 0 AVF", " 0 X"), "{stem} lacks lead aVF; it has I, II, III, AVR, AVL, X, V1, V2, V3, V4, "
                "V5, V6"),
    "lead twice": (in_header(" 0 V6", " 0 V5"), "{stem} has lead V5 twice"),
    "nan": (nan_samples, "lead III has 4 samples that are not numbers"),
    "constant": (constant_lead, "lead V2 is constant"),
    "no rate": (in_header("00008_lr 12 100 1000", "00008_lr 12"), "{stem}.hea states no sampling rate: expected "
                "'<name> <leads> <Hz> <samples>' in its first line, found '00008_lr 12'"),
    "unit": (in_header("/mV", "/au"), "{stem}.hea has the unit 'au'; expected mV, uV or V"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_record_that_cannot_be_used(ptbxl: Path, damage: Callable[[Path], Any], reason: str) -> None:
    stem = ptbxl / "records100/00000/00008_lr"
    damage(stem.with_suffix(".dat"))
    reason = reason.format(stem=stem)
    assert error_of(PTBXLDataModule, ptbxl) == f"{stem}: {reason} {SKIP}"

    for _ in range(2):  # built, and then opened
        data = ready(PTBXLDataModule, ptbxl, on_error="skip", missing_classes="drop")
        assert skipped(data) == [[str(stem), reason]]
        assert data.frame["id"].tolist() == [str(row + 1) for row in range(15) if row != 7]
        assert [row for batch in data.predict_dataloader() for row in batch.row.tolist()] == list(range(14))
        assert data.rows("val", "pretrain").tolist() == [5, 6, 7, 8]
        assert data.classes == ["NORM", "MI", "CD", "HYP"]  # STTC has lost its only validation record
        assert np.array_equal(data.cached(7), signal_of(9))
        (batch,) = data.loader(np.array([7, 13]))
        assert np.array_equal(batch.signal, np.stack([signal_of(9), signal_of(15)]))


def test_skipped_records_are_listed_in_order_and_logged(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ptbxl / "records100/00000"
    for number in (12, 3):
        constant_lead(folder / f"{number:05d}_lr.dat")
    edit(ptbxl / "ptbxl_database.csv", set_cell(0, "report", "  "))
    with caplog.at_level(logging.WARNING):
        data = ready(PTBXLDataModule, ptbxl, on_error="skip", missing_classes="drop")
    names = [str(folder / f"{number:05d}_lr") for number in (3, 12, 1)]
    reasons = ["lead V2 is constant", "lead V2 is constant", "empty report"]
    assert skipped(data) == [list(pair) for pair in zip(names, reasons, strict=True)]
    (path,) = data.cache_dir.glob("*/*/skipped.csv")
    listed = ", ".join(f"{name} ({reason})" for name, reason in zip(names, reasons, strict=True))
    assert f"3 records skipped: {listed}; listed in {path}" in caplog.messages


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_report(ptbxl: Path, text: str) -> None:
    edit(ptbxl / "ptbxl_database.csv", set_cell(6, "report", text))
    edit(ptbxl / "ptbxl_database.csv", set_cell(11, "report", text))  # a test record needs none
    stem = ptbxl / "records100/00000/00007_lr"
    assert error_of(PTBXLDataModule, ptbxl) == f"{stem}: empty report {SKIP}"
    data = ready(PTBXLDataModule, ptbxl, on_error="skip")
    assert skipped(data) == [[str(stem), "empty report"]]
    assert data.rows("val", "pretrain").tolist() == [5, 7, 8, 9]
    assert data.rows("val", "evaluate").tolist() == [5, 6, 7, 8, 9]  # its labels are still good
    assert data.report[[6, 11]].tolist() == [-1, -1]
    assert len(data.reports) == 5
    edit(ptbxl / "ptbxl_database.csv", set_cell(6, "report", "befund"))
    repaired = ready(PTBXLDataModule, ptbxl, on_error="skip")
    assert not list(repaired.cache_dir.glob("*/*/skipped.csv"))  # the list is of this run, not of an earlier one


BAD_ROWS = {
    "id": (set_cell(7, "ecg_id", 2), "2", "occurs twice"),
    "outside": (set_cell(7, "filename_lr", "../../secret"), "8", "the path {root}/../../secret leads out of {root}"),
    "absolute": (set_cell(7, "filename_lr", "/etc/secret"), "8", "the path /etc/secret leads out of {root}"),
    "codes": (set_cell(7, "scp_codes", "NORM"), "8", "scp_codes is 'NORM'; expected a dictionary of statement to "
              "likelihood"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "ecg_id", "reason"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_a_row_that_cannot_be_used(ptbxl: Path, change: Edit, ecg_id: str, reason: str) -> None:
    path = ptbxl / "ptbxl_database.csv"
    edit(path, change)
    item, reason = f"{path}, ecg_id {ecg_id}", reason.format(root=ptbxl)
    assert error_of(PTBXLDataModule, ptbxl) == f"{item}: {reason} {SKIP}"
    data = ready(PTBXLDataModule, ptbxl, on_error="skip", missing_classes="drop")
    assert skipped(data) == [[item, reason]]
    assert list(data.frame["id"]) == [str(number) for number in range(1, 16) if number != 8]


def test_all_records_skipped_is_an_error_that_says_why(ptbxl: Path) -> None:
    edit(ptbxl / "ptbxl_database.csv", lambda table: table.assign(scp_codes="?"))
    message = error_of(PTBXLDataModule, ptbxl, on_error="skip")
    assert message.startswith(f"no record found for PTBXLDataModule under {ptbxl} (15 records skipped: ")


# ---- labels ----


def drop_class_from_val(root: Path) -> None:
    edit(root / "ptbxl_database.csv", set_cell(9, "scp_codes", "{'NORM': 100.0, 'IMI': 50.0}"))  # HYP was its label


def test_a_class_absent_from_a_split_is_named(ptbxl: Path) -> None:
    drop_class_from_val(ptbxl)
    for mode in ("multi", "single"):
        assert error_of(PTBXLDataModule, ptbxl, label_mode=mode) == (
            f"classes without a {mode}-label record: HYP in val. Use another split or label_mode, or leave these "
            "classes out with --data.init_args.missing_classes drop"
        )


def test_an_absent_class_is_dropped_on_request_and_named(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    drop_class_from_val(ptbxl)
    edit(ptbxl / "ptbxl_database.csv", set_cell(0, "scp_codes", "{'NORM': 100.0, 'LVH': 50.0}"))
    edit(ptbxl / "ptbxl_database.csv", set_cell(4, "scp_codes", "{'NORM': 100.0, 'SR': 0.0}"))
    with caplog.at_level(logging.WARNING):
        data = ready(PTBXLDataModule, ptbxl, label_mode="single", missing_classes="drop")
    assert data.classes == ["NORM", "MI", "STTC", "CD"]
    assert "classes dropped, because they have no single-label record: HYP in train, val" in caplog.messages
    # Row 0 has NORM and the dropped HYP: two labels before as after. Row 14 has HYP alone: nothing is left of it.
    assert not data.labelled[[0, 9, 14]].any()
    assert data.rows("train", "evaluate").tolist() == [1, 2, 3, 4]
    assert data.rows("test", "evaluate").tolist() == [10, 11, 12, 13]
    assert data.target.shape == (15, 4)
    both = ready(PTBXLDataModule, ptbxl, label_mode="multi", missing_classes="drop")
    assert both.rows("train", "evaluate").tolist() == [0, 1, 2, 3, 4]
    assert both.target[0].tolist() == [1, 0, 0, 0]


def test_no_class_left_is_an_error(ptbxl: Path) -> None:
    edit(ptbxl / "ptbxl_database.csv", lambda table: table.assign(scp_codes="{'SR': 0.0}"))
    assert error_of(PTBXLDataModule, ptbxl, missing_classes="drop") == (
        "no class has a record in every split: use more records or another split"
    )


@pytest.mark.parametrize(("label_set", "code"), [("subclass", "_AVB"), ("all", "1AVB")])
def test_other_label_sets(ptbxl: Path, label_set: str, code: str) -> None:
    data = ready(PTBXLDataModule, ptbxl, label_set=label_set)
    assert data.class_names[code] == "first degree AV block"
    assert data.target[:, data.classes.index(code)].nonzero()[0].tolist() == [3, 8, 13]
    assert len(data.classes) == (6 if label_set == "all" else 5)


def test_translated_reports_replace_the_raw_ones(ptbxl: Path) -> None:
    path = ptbxl / "ptbxl_database_translated.csv"
    table = pd.DataFrame({"ecg_id": range(15, 0, -1), "report": [f"english {number}" for number in range(15, 0, -1)]})
    table.to_csv(path, index=False)
    data = ready(PTBXLDataModule, ptbxl, report_source="translated")
    assert [data.reports[index] for index in data.report] == [f"english {number}" for number in range(1, 16)]
    table[table["ecg_id"] != 3].to_csv(path, index=False)
    stem = ptbxl / "records100/00000/00003_lr"
    assert error_of(PTBXLDataModule, ptbxl, report_source="translated") == f"{stem}: empty report {SKIP}"
    pd.concat([table, table[:1]]).to_csv(path, index=False)
    assert error_of(PTBXLDataModule, ptbxl, report_source="translated") == f"{path} has the ecg_id 15 twice"
    path.unlink()
    assert error_of(PTBXLDataModule, ptbxl, report_source="translated").startswith(f"no file {path}; expected PTB-XL's")


def test_the_synthetic_set_loads_like_ptbxl(synthetic_root: Path, tmp_path: Path) -> None:
    data = PTBXLDataModule(
        str(synthetic_root), train_folds=[1, 2, 3, 4, 5, 6], val_folds=[7, 8], test_folds=[9, 10], sampling_rate=100,
        label_mode="multi", missing_classes="drop", cache_dir=str(tmp_path),
    )  # fmt: skip
    data.setup()
    assert data.array.shape == (120, 12, 1000)
    assert not list(tmp_path.rglob("skipped.csv"))
    raw = np.fromfile(f"{data.frame['path'][5]}.dat", "<i2").reshape(1000, 12).T
    assert np.array_equal(data.array[5], raw)


# ---- CPSC2018 ----

HEADER_DIALECTS = [
    (("#Age: 74", "#Sex: Male", "#Dx: 164889003,59118001"), ["AF", "RBBB"], 74, "male"),
    (("# Age: 49", "# Sex: Female", "# Dx: AF"), ["AF"], 49, "female"),
    (("#Age: NaN", "#Sex: Unknown", "#Dx: I-AVB, PVC"), ["I-AVB", "PVC"], np.nan, ""),
    (("#Dx: 999", "#Rx: Unknown"), [], np.nan, ""),
]


def test_physionet_headers_in_every_dialect(tmp_path: Path, write_record: Write) -> None:
    root = tmp_path / "cpsc"
    for number, (comments, *_) in enumerate(HEADER_DIALECTS):
        write_record(root / f"g{number}" / f"A000{number}", signal_of(number), comments=comments)
    data = ready(CPSC2018DataModule, root, missing_classes="drop", split_fractions=(1.0, 0.0, 0.0))
    assert list(data.frame["id"]) == ["A0000", "A0001", "A0002", "A0003"]
    assert list(data.frame["labels"]) == [labels for _, labels, *_ in HEADER_DIALECTS]
    np.testing.assert_array_equal(data.frame["age"].to_numpy(float), [74, 49, np.nan, np.nan])
    assert list(data.frame["sex"]) == ["male", "female", "", ""]
    assert data.classes == ["AF", "I-AVB", "RBBB", "PVC"]
    assert data.labelled.tolist() == [True, True, True, False]
    assert data.reports == []
    assert data.rows("train", "pretrain").tolist() == [0, 1, 2, 3]  # for methods without text


def test_a_header_without_labels(tmp_path: Path, write_record: Write) -> None:
    root = tmp_path / "cpsc"
    write_record(root / "A0001", signal_of(1), comments=["#Dx: AF"])
    write_record(root / "A0002", signal_of(2), comments=["#Age: 50"])
    (root / "A0003.hea").write_bytes(b"\xff\xfe\x00")
    settings = {"missing_classes": "drop", "split_fractions": (1.0, 0.0, 0.0)}
    reason = "has no #Dx line, and there is no REFERENCE.csv"
    assert error_of(CPSC2018DataModule, root, **settings) == f"{root / 'A0002.hea'}: {reason} {SKIP}"
    data = ready(CPSC2018DataModule, root, on_error="skip", **settings)
    assert skipped(data) == [[str(root / "A0002.hea"), reason], [str(root / "A0003.hea"), reason]]
    assert list(data.frame["id"]) == ["A0001"]


def test_two_folders_with_the_same_record_name(tmp_path: Path, write_record: Write) -> None:
    root = tmp_path / "cpsc"
    for folder in ("g1", "g2"):
        write_record(root / folder / "A0001", signal_of(1), comments=["#Dx: AF"])
    assert error_of(CPSC2018DataModule, root) == f"{root}, record A0001: occurs twice {SKIP}"


@pytest.fixture
def original_cpsc2018(tmp_path: Path) -> Path:
    """SYNTHETIC: five records of noise in the form of the original release."""
    root = tmp_path / "cpsc"
    (root / "TrainingSet1").mkdir(parents=True)
    for number in range(1, 6):
        content = {"sex": "Male", "age": 74, "data": signal_of(number, 5500) / 1000}
        scipy.io.savemat(root / "TrainingSet1" / f"A000{number}.mat", {"ECG": content})
    labels = ["A0003,2,,", "A0001,5,,", "A0002,1,,", "A0004,2,5,", "A0005,9,8,7"]
    (root / "REFERENCE.csv").write_text("\n".join(["Recording,First_label,Second_label,Third_label", *labels]) + "\n")
    return root


REFERENCE_ONLY = {"sampling_rate": 500, "missing_classes": "drop", "split_fractions": (1.0, 0.0, 0.0)}


def test_the_original_release(original_cpsc2018: Path) -> None:
    data = ready(CPSC2018DataModule, original_cpsc2018, **REFERENCE_ONLY)
    assert list(data.frame["id"]) == [f"A000{number}" for number in range(1, 6)]
    assert list(data.frame["labels"]) == [["RBBB"], ["Normal"], ["AF"], ["AF", "RBBB"], ["PVC", "STD", "STE"]]
    assert np.array_equal(data.array[2], signal_of(3, 5500)[:, :5000])
    single = ready(CPSC2018DataModule, original_cpsc2018, label_mode="single", **REFERENCE_ONLY)
    assert single.labelled.tolist() == [True, True, True, False, False]
    assert single.classes == ["Normal", "AF", "RBBB"]


def test_a_label_without_its_record(original_cpsc2018: Path) -> None:
    (original_cpsc2018 / "TrainingSet1/A0002.mat").unlink()
    stem = original_cpsc2018 / "A0002"
    reason = f"no file {stem}.hea (a WFDB record is a .hea header beside its signal file)"
    assert error_of(CPSC2018DataModule, original_cpsc2018, **REFERENCE_ONLY) == f"{stem}: {reason} {SKIP}"
    data = ready(CPSC2018DataModule, original_cpsc2018, on_error="skip", **REFERENCE_ONLY)
    assert skipped(data) == [[str(stem), reason]]
    assert data.frame["id"].tolist() == ["A0001", "A0003", "A0004", "A0005"]


@pytest.mark.parametrize(
    ("row", "item", "reason"),
    [
        ("A0001,2,,", "record A0001", "occurs twice"),
        ("A0006,10,,", "Recording A0006", "has the labels [10]; expected numbers from 1 to 9"),
        ("A0006,,,", "Recording A0006", "has the labels []; expected numbers from 1 to 9"),
        ("../A0006,2,,", "record ../A0006", "the path {root}/../A0006 leads out of {root}"),
    ],
)
def test_a_bad_row_of_the_reference(original_cpsc2018: Path, row: str, item: str, reason: str) -> None:
    reference = original_cpsc2018 / "REFERENCE.csv"
    reference.write_text(reference.read_text() + row + "\n")
    where = f"{reference if item.startswith('Recording') else original_cpsc2018}, {item}"
    reason = reason.format(root=original_cpsc2018)
    assert error_of(CPSC2018DataModule, original_cpsc2018, **REFERENCE_ONLY) == f"{where}: {reason} {SKIP}"
    data = ready(CPSC2018DataModule, original_cpsc2018, on_error="skip", **REFERENCE_ONLY)
    assert len(skipped(data)) == 1
    assert len(data.frame) == 5


def test_a_missing_column_of_the_reference(original_cpsc2018: Path) -> None:
    edit(original_cpsc2018 / "REFERENCE.csv", lambda table: table.drop(columns="First_label"))
    assert error_of(CPSC2018DataModule, original_cpsc2018) == (
        f"{original_cpsc2018 / 'REFERENCE.csv'} lacks the column First_label; it has Recording, Second_label, "
        "Third_label"
    )


def test_the_random_split_is_stratified_seeded_and_stable(tmp_path: Path, write_record: Write) -> None:
    root = tmp_path / "cpsc"
    for number in range(50):
        write_record(root / f"A{number:04d}", signal_of(number, 20), comments=[f"#Dx: {'AF' if number % 2 else 'PVC'}"])
    settings = {"missing_classes": "drop", "duration": 0.2}
    data = ready(CPSC2018DataModule, root, **settings)
    assert Counter(zip(data.frame["labels"].str[0], data.frame["split"], strict=True)) == {
        (code, split): count for code in ("AF", "PVC") for split, count in (("train", 18), ("val", 2), ("test", 5))
    }
    assert list(data.frame["id"][data.split == "val"]) == ["A0004", "A0011", "A0045", "A0046"]
    old = ready(CPSC2018DataModule, root, split_version=1, **settings)
    assert list(old.frame["id"][old.split == "val"]) == ["A0004", "A0031", "A0041", "A0046"]
    again = ready(CPSC2018DataModule, root, split_seed=7, **settings)
    assert list(again.frame["split"]) != list(data.frame["split"])


# ---- a folder of one's own ----


def own_set(
    tmp_path: Path, write_record: Write, path: Callable[[str], str] = str, columns: dict[str, list[Any]] | None = None
) -> Path:
    """SYNTHETIC: six records of noise with a table."""
    root = tmp_path / "own"
    for number in range(6):
        write_record(root / f"r{number}", signal_of(number))
    table = {
        "id": [f"00{number}" for number in range(6)],
        "path": [path(f"r{number}") for number in range(6)],
        "report": [f"report {number % 2}" for number in range(6)],
        "labels": ["AF", "SR", "AF; PVC", "SR", "AF", "SR"],
        "split": ["train", "train", "val", "val", "test", "test"],
    }
    table = {key: value for key, value in (table | (columns or {})).items() if value}
    pd.DataFrame(table).to_csv(root / "records.csv", index=False)
    return root


def test_a_folder_of_your_own(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record)
    data = ready(WFDBFolderDataModule, root, missing_classes="drop", label_names={"AF": "atrial fibrillation",
                 "SR": "sinus rhythm", "PVC": "premature beat"})  # fmt: skip
    assert data.class_names == {"AF": "atrial fibrillation", "SR": "sinus rhythm"}
    assert list(data.frame["id"]) == [f"00{number}" for number in range(6)]  # not 0 to 5
    assert list(data.frame["patient"]) == list(data.frame["id"])
    assert data.frame["labels"][2] == ["AF", "PVC"]
    assert data.reports == ["report 0", "report 1"]
    assert data.report.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(data.array[3], signal_of(3))
    assert [data.rows(split, "pretrain").tolist() for split in ("train", "val", "test")] == [[0, 1], [2, 3], [4, 5]]


def test_labels_that_look_like_numbers_stay_as_written(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record, columns={"labels": ["01", "2", "01", "2", "01", None]})
    data = ready(WFDBFolderDataModule, root, missing_classes="drop")
    assert data.classes == ["01"]
    assert data.frame["labels"].tolist() == [["01"], ["2"], ["01"], ["2"], ["01"], []]


def test_without_reports_or_labels(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record, columns={"report": [], "labels": []})
    data = ready(WFDBFolderDataModule, root)
    assert data.classes == []
    assert data.report.tolist() == [-1] * 6
    assert len(list(data.predict_dataloader())) == 2
    assert data.rows("train", "pretrain").tolist() == [0, 1]  # for methods without text
    data.split = np.array(["train"] * 5 + ["val"])
    with pytest.raises(
        DataError, match="the split val needs at least 2 records, whatever the method; change the split"
    ):
        data.val_dataloader()
    shutil.rmtree(root)
    empty = own_set(tmp_path, write_record, columns={"report": [None] * 6})
    assert ready(WFDBFolderDataModule, empty, missing_classes="drop").reports == []


def test_patients_are_not_divided_by_the_random_split(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record, columns={"split": [], "patient": ["x", "y", "x", "y", None, None]})
    splits = set()
    for seed in range(12):
        data = ready(WFDBFolderDataModule, root, missing_classes="drop", split_seed=seed, on_error="skip",
                     split_fractions=(0.5, 0.0, 0.5), label_names=None)  # fmt: skip
        split = data.frame["split"].tolist()
        assert split[0] == split[2]
        assert split[1] == split[3]
        splits.add(tuple(split))
    assert any(split[4] != split[5] for split in splits)  # without a number, each record is a patient
    # Each half of two patients with SR; those with AF differ in what else they have, so they are drawn apart.
    assert len(splits) == 7


TWO_RECORDS_EACH = ["007", "007", "7", "7", "9", "9"]


def test_patients_that_differ_in_blanks_are_one_and_an_id_is_not_the_name_of_a_patient(
    tmp_path: Path, write_record: Write
) -> None:
    root = own_set(tmp_path, write_record, columns={"patient": ["x", "x ", "y", "y ", None, "004"], "split": []})
    data = ready(WFDBFolderDataModule, root, missing_classes="drop", split_fractions=(0.5, 0.0, 0.5), on_error="skip")
    groups = data.groups.tolist()
    assert (groups[0], groups[2]) == (groups[1], groups[3])
    assert groups[4] != groups[5]  # the record 004 is not one of the patient 004


def test_runs_of_rule_1_knew_no_patients_but_those_of_the_column_patient(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record, columns={"subject": ["x", "x", "y", "y", "z", "z"]})
    data = ready(WFDBFolderDataModule, root, missing_classes="drop", split_version=1)
    assert list(data.frame["patient"]) == list(data.frame["id"])


@pytest.mark.parametrize(
    ("column", "given", "patients"),
    [
        ("patient_id", None, TWO_RECORDS_EACH),
        ("Subject", None, TWO_RECORDS_EACH),
        ("PARTICIPANT-NO", None, TWO_RECORDS_EACH),
        ("ward", "ward", TWO_RECORDS_EACH),
        ("patient", "id", [f"00{number}" for number in range(6)]),
        ("ward", None, [f"00{number}" for number in range(6)]),
    ],
)
def test_the_column_of_the_patients_is_inferred_or_given(
    tmp_path: Path, write_record: Write, caplog: pytest.LogCaptureFixture, column: str, given: str | None,
    patients: list[str],
) -> None:  # fmt: skip
    root = own_set(tmp_path, write_record, columns={column: TWO_RECORDS_EACH})
    with caplog.at_level(logging.INFO, "shared.data.groups"):
        data = ready(WFDBFolderDataModule, root, missing_classes="drop", group_column=given)
    assert data.frame["patient"].tolist() == patients
    table = root / "records.csv"
    inferred = (
        f"{table}: rows with the same {column} belong together and stay in one part of the split "
        "(--data.init_args.group_column names another column, or the one of the ids to keep no rows together)"
    )
    unread = f"{table} has columns that are not read: {column}"
    told = [text for text in caplog.messages if text.startswith(str(table))]
    assert told == ([inferred] if given is None and column != "ward" else [unread] if column != given else [])


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [
        (["patient", "Subject_ID"], None, ": patient and Subject_ID could each say which rows belong together; say "
         "which with --data.init_args.group_column NAME"),
        (["ward"], "word", " has no column word (group_column); did you mean ward?"),
        ([], "patient", " has no column patient (group_column); it has id, path, report, labels, split"),
    ],
)  # fmt: skip
def test_a_column_of_the_patients_that_is_not_there_or_not_the_only_one_is_refused(
    tmp_path: Path, write_record: Write, columns: list[str], given: str | None, said: str
) -> None:
    root = own_set(tmp_path, write_record, columns=dict.fromkeys(columns, TWO_RECORDS_EACH))
    assert error_of(WFDBFolderDataModule, root, group_column=given) == f"{root / 'records.csv'}{said}"


def test_columns_of_your_own_table_that_nothing_reads_are_named(
    tmp_path: Path, write_record: Write, caplog: pytest.LogCaptureFixture
) -> None:
    root = own_set(tmp_path, write_record)
    names = {"labels": "lables", "report": "Report"}
    edit(root / "records.csv", lambda table: table.rename(columns=names).assign(device=1, patient_age=50, patient="x"))
    edit(root / "records.csv", lambda table: table.assign(split="train"))
    data = ready(WFDBFolderDataModule, root)
    assert data.classes == data.reports == []
    assert (
        f"{root / 'records.csv'} has columns that are not read: Report; did you mean report?, lables; did you mean "
        "labels?, device, patient_age; did you mean patient?"
    ) in caplog.messages


def test_a_patient_in_several_parts_of_a_given_split_is_refused_or_on_request_warned_of(
    tmp_path: Path, write_record: Write, caplog: pytest.LogCaptureFixture
) -> None:
    root = own_set(tmp_path, write_record, columns={"subject": ["a", "b", "a", "c", "b", None]})
    said = (
        "2 patients with 4 records are in several parts of the split (a: 000 in train, 002 in val; b: 001 in train, "
        "004 in test)"
    )
    assert error_of(WFDBFolderDataModule, root, missing_classes="drop") == f"{said}, {SHARED}"
    data = ready(WFDBFolderDataModule, root, missing_classes="drop", allow_shared_groups=True)
    warned = f"{said}, so what is tested on was partly trained on (allow_shared_groups)"
    assert [text for text in caplog.messages if text.startswith("2 patients")] == [warned]
    assert data.split.tolist() == ["train", "train", "val", "val", "test", "test"]
    assert ready(WFDBFolderDataModule, root, missing_classes="drop", group_column="id").patient.tolist() == [*range(6)]


def test_the_same_signals_in_several_parts_are_warned_of(
    tmp_path: Path, write_record: Write, caplog: pytest.LogCaptureFixture
) -> None:
    root = own_set(tmp_path, write_record)
    for copy, original in ((1, 0), (3, 2)):  # within one part each
        write_record(root / f"r{copy}", signal_of(original))
    ready(WFDBFolderDataModule, root, missing_classes="drop")
    assert not [text for text in caplog.messages if "the same content" in text]
    write_record(root / "r5", signal_of(2), gain="500.0(0)/mV")  # other numbers in the file, and another signal
    ready(WFDBFolderDataModule, root, missing_classes="drop")
    assert not [text for text in caplog.messages if "the same content" in text]
    write_record(root / "r5", signal_of(2))
    ready(WFDBFolderDataModule, root, missing_classes="drop")
    assert [text for text in caplog.messages if "the same content" in text] == [
        f"records of {root}: 3 have the same content as one in another part of the split: 002 (val) = 005 (test)"
    ]


def test_rule_1_gives_the_split_of_earlier_runs(tmp_path: Path, write_record: Write) -> None:
    columns: dict[str, list[Any]] = {"split": [], "patient": ["x", "y", "x", None, "y", "z"], "Subject": ["s"] * 6}
    root = own_set(tmp_path, write_record, columns=columns)

    def drawn(seed: int, version: int) -> list[str]:
        given = {"split_fractions": (0.4, 0.2, 0.4), "split_seed": seed, "split_version": version}
        data = module(WFDBFolderDataModule, root, group_column=None if version == 1 else "patient", **given)
        return list(data.read_frame(Problems())["split"])

    for seed in range(5):
        parts = np.array(SPLITS)[stratified_split(["AF", "SR", "SR", "SR"], (0.4, 0.2, 0.4), seed)]  # of x, y, 003, z
        assert drawn(seed, 1) == parts[[0, 1, 0, 2, 1, 3]].tolist()
    assert [drawn(seed, 1) for seed in range(5)] != [drawn(seed, 2) for seed in range(5)]


def test_a_missing_table_of_your_own_and_its_columns(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record)
    assert error_of(WFDBFolderDataModule, root, csv="table.csv") == (
        f"no file {root / 'table.csv'}: name the table of your records as --data.init_args.csv"
    )
    edit(root / "records.csv", lambda table: table.drop(columns=["id", "path"]))
    assert error_of(WFDBFolderDataModule, root) == (
        f"{root / 'records.csv'} lacks the column id, path; it has report, labels, split"
    )


OWN_BAD_ROWS = {
    "id": (set_cell(4, "id", "001"), "001", "occurs twice"),
    "outside": (set_cell(4, "path", "../r4"), "004", "the path {root}/../r4 leads out of {root}"),
    "absolute": (set_cell(4, "path", "/etc/r4"), "004", "the path /etc/r4 leads out of {root}"),
    "no path": (set_cell(4, "path", ""), "004", "the path {root} leads out of {root}"),
    "split": (set_cell(4, "split", "Training"), "004", "has the split 'Training'; expected train, val or test"),
    "no split": (set_cell(4, "split", ""), "004", "has the split nan; expected train, val or test"),
}


@pytest.mark.parametrize(("change", "row_id", "reason"), OWN_BAD_ROWS.values(), ids=list(OWN_BAD_ROWS))
def test_a_bad_row_of_your_own_table(
    tmp_path: Path, write_record: Write, change: Edit, row_id: str, reason: str
) -> None:
    root = own_set(tmp_path, write_record)
    path = root / "records.csv"
    table = pd.read_csv(path, dtype=str)
    change(table)
    table.to_csv(path, index=False)
    item, reason = f"{path}, id {row_id}", reason.format(root=root)
    assert error_of(WFDBFolderDataModule, root) == f"{item}: {reason} {SKIP}"
    data = ready(WFDBFolderDataModule, root, on_error="skip", missing_classes="drop")
    assert skipped(data) == [[item, reason]]
    assert list(data.frame["id"]) == ["000", "001", "002", "003", "005"]


def test_a_code_without_a_name(tmp_path: Path, write_record: Write) -> None:
    root = own_set(tmp_path, write_record)
    assert error_of(WFDBFolderDataModule, root, label_names={"AF": "atrial fibrillation"}) == (
        "data.init_args.label_names lacks PVC, SR, which occur in records.csv"
    )


# ---- real data ----


@pytest.mark.realdata
def test_ptbxl_small(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "ptbxl_small"
    settings = {"sampling_rate": 100, "cache_dir": str(tmp_path), "label_mode": "multi"}
    with pytest.raises(DataError, match=r": empty report \(on_error: skip would leave it out and list it\)$"):
        PTBXLDataModule(str(root), **settings).setup()  # type: ignore[arg-type]
    data = PTBXLDataModule(str(root), on_error="skip", **settings)  # type: ignore[arg-type]
    data.setup()
    assert data.array.shape == (1387, 12, 1000)
    assert len(data.frame) == 1387
    assert [reason for _, reason in skipped(data)] == ["empty report"]
    assert Counter(data.split) == {"train": 1045, "val": 175, "test": 167}
    assert dict(zip(data.classes, data.target.sum(0).astype(int).tolist(), strict=True)) == {
        "NORM": 499, "MI": 298, "STTC": 537, "CD": 420, "HYP": 190,
    }  # fmt: skip
    row = int(np.flatnonzero(data.frame["id"] == "1")[0])
    assert np.array_equal(data.array[row], np.fromfile(root / "records100/00000/00001_lr.dat", "<i2").reshape(-1, 12).T)


@pytest.mark.realdata
@pytest.mark.parametrize("rate", [100, 500])
def test_cpsc2018_small(real_data: Path, tmp_path: Path, rate: int) -> None:
    data = CPSC2018DataModule(
        str(real_data / "cpsc2018_small"), sampling_rate=rate, label_mode="multi", missing_classes="drop",
        cache_dir=str(tmp_path),
    )  # fmt: skip
    data.setup()
    assert data.array.shape == (75, 12, 10 * rate)
    assert Counter(code for labels in data.frame["labels"] for code in labels) == {
        "RBBB": 14, "AF": 13, "Normal": 11, "STD": 9, "STE": 9, "PVC": 8, "LBBB": 5, "PAC": 4, "I-AVB": 3,
    }  # fmt: skip
    assert sum(len(labels) == 1 for labels in data.frame["labels"]) == 74
    raw = np.fromfile(real_data / "cpsc2018_small/A0001.mat", "<i2", offset=24).reshape(-1, 12).T
    if rate == 500:
        assert np.array_equal(data.array[0], raw[:, :5000])
    else:
        by_fourier = scipy.signal.resample(raw, raw.shape[1] // 5, axis=1)[:, :1000]
        assert np.corrcoef(by_fourier[:, 100:].ravel(), data.array[0][:, 100:].ravel())[0, 1] > 0.999
