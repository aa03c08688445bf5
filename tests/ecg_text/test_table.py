"""`python -m ecg_text table` with a results.csv made by hand: its numbers are SYNTHETIC."""

import re
from pathlib import Path

import pandas as pd
import pytest

import ecg_text
from ecg_text.cli import main
from ecg_text.data.labels import CPSC2018_CLASSES, PTBXL_SUPERCLASSES
from tests.hand_made import write_variant

CONFIGS = Path(ecg_text.__file__).parent / "configs"
TABLE_2, TABLE_3 = (str(CONFIGS / "tables" / f"table{number}.yaml") for number in (2, 3))


def write_run(root: Path, dataset: str, tags: list[str]) -> Path:
    """A variant with two seeds, as far as the table reads it."""
    results = {"fit/epochs": 1, "fit/seconds": 900.0}
    return write_variant(root / dataset / "etp_minilm", "ecg_text.ETP", {"run.tags": tags}, results=results)


def write_results(
    run: Path,
    dataset: str,
    classes: list[str],
    protocol: str = "zero_shot",
    label_mode: str = "multi",
    data_kind: str = "real",
) -> Path:
    """Rows as `evaluate` writes them: the AUROC of class i is 0.5 + 0.01 i, and 0.1 more when trained."""
    rows = []
    for method, gain, models in (("Random init", 0.0, 20), ("ETP (MiniLM)", 0.1, 2)):
        for index, code in enumerate([*classes, "Average"]):
            row = {"protocol": protocol, "method": method, "class": code, "models": models, "samples": 321}
            row |= {"label_mode": label_mode, "data_kind": data_kind}
            for key, shift in (("auroc", 0.0), ("best_f1_accuracy", 0.2), ("best_f1", -0.3)):
                row |= {key: 0.5 + 0.01 * index + gain + shift, f"{key}_std": 0.015}
            rows.append(row)
    rows += [row | {"protocol": "linear", "auroc": 0.999} for row in rows]
    path = run / "evaluation" / dataset / "results.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def cells(printed: str) -> list[list[str]]:
    """Cells of the printed table's rows."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if line[:1] == "│"]


def test_table_2_stands_beside_ours_and_says_how_ours_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, "ptbxl_100hz", ["real"])
    write_results(run, "ptbxl_100hz", list(PTBXL_SUPERCLASSES))
    main(["table", "--table", TABLE_2, "--run", str(run)])
    printed = capsys.readouterr().out
    rows = cells(printed)
    assert len(rows) == 2 * 6
    assert rows[0] == ["NORM", "Random init", "52.7", "50.0 ± 1.5", "58.8", "70.0 ± 1.5", "72.8", "20.0 ± 1.5"]
    assert rows[3] == ["", "ETP", "46.4", "61.0 ± 1.5", "15.5", "81.0 ± 1.5", "26.6", "31.0 ± 1.5"]
    assert rows[11] == ["", "ETP", "54.6", "65.0 ± 1.5", "60.8", "85.0 ± 1.5", "33.1", "35.0 ± 1.5"]
    assert "trained for 0.50 hours in all" in printed
    assert "synthetic" not in printed.lower()
    assert (
        "Ours: etp_minilm trained on ptbxl_100hz, evaluated on 321 test records of ptbxl_100hz, label mode multi, "
        "20 x Random init, 2 x ETP (MiniLM). The paper's setting: etp trained on ptbxl, "
        "evaluated on ptbxl, label mode single."
    ) in " ".join(printed.split())


def test_table_3_is_the_transfer_and_names_classes_that_ours_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, "ptbxl_100hz", ["real"])
    write_results(run, "ptbxl_100hz", list(PTBXL_SUPERCLASSES))
    without = [code for code in CPSC2018_CLASSES if code not in ("LBBB", "STE")]
    write_results(run, "cpsc2018_100hz", without, label_mode="single")
    main(["table", "--table", TABLE_3, "--run", str(run)])
    printed = capsys.readouterr().out
    rows = cells(printed)
    assert len(rows) == 2 * 10
    assert rows[6] == ["LBBB", "Random init", "33.3", "-", "4.9", "-", "6.0", "-"]
    assert rows[9] == ["", "ETP", "55.3", "63.0 ± 1.5", "24.3", "83.0 ± 1.5", "39.3", "33.0 ± 1.5"]
    text = " ".join(printed.split())
    assert "321 test records of cpsc2018_100hz, label mode single" in text
    assert "2 x ETP (MiniLM), without LBBB, STE (so the averages are over other classes). The paper's" in text
    assert "evaluated on cpsc2018, label mode single." in text


@pytest.mark.parametrize(
    ("trained_on", "dataset", "data_kind"),
    [
        ("ptbxl_synthetic", "ptbxl_synthetic", "synthetic"),
        ("ptbxl_synthetic", "cpsc2018", "real"),
        ("ptbxl", "cpsc2018", "synthetic"),
    ],
)
def test_what_synthetic_data_has_touched_is_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained_on: str, dataset: str, data_kind: str
) -> None:
    run = write_run(tmp_path, trained_on, ["synthetic" if trained_on == "ptbxl_synthetic" else "real"])
    on_itself = dataset == trained_on
    write_results(run, dataset, list(PTBXL_SUPERCLASSES if on_itself else CPSC2018_CLASSES), data_kind=data_kind)
    main(["table", "--table", TABLE_2 if on_itself else TABLE_3, "--run", str(run)])
    printed = capsys.readouterr().out
    assert printed.startswith("SYNTHETIC DATA: ours says nothing about the world, and is no result.\n")
    assert "ours: etp_minilm (SYNTHETIC data)" in " ".join(printed.split())


def test_each_run_and_its_own_evaluation_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name, "ptbxl_100hz", ["real"]) for name in ("a", "b")]
    for run, mode in zip(runs, ("multi", "single"), strict=True):
        write_results(run, "ptbxl_100hz", list(PTBXL_SUPERCLASSES), label_mode=mode)
    main(["table", "--table", TABLE_2, "--run", *map(str, runs)])
    printed = " ".join(capsys.readouterr().out.split())
    assert re.findall(r"ptbxl_100hz, label mode (\w+)", printed) == ["multi", "single"]


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        main(["table", "--table", TABLE_2, "--run", f"{tmp_path}/none"])
    assert str(error.value) == f"error: no {tmp_path}/none/seed_*/config.yaml: train first, or pass another --run"
    run = write_run(tmp_path, "ptbxl", ["real"])
    with pytest.raises(SystemExit) as error:
        main(["table", "--table", TABLE_2, "--run", str(run)])
    assert str(error.value) == (
        f"error: {run}/evaluation has no results.csv of ptbxl or ptbxl_100hz or ptbxl_synthetic, which Table 2 needs: "
        f"python -m ecg_text evaluate --run {run} writes it"
    )
    with pytest.raises(SystemExit) as error:
        main(["table", "--table", TABLE_3, "--run", str(run)])
    assert str(error.value).endswith(f"python -m ecg_text evaluate --run {run} --data cpsc2018 writes it")


def test_a_table_or_csv_that_is_none_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ptbxl", ["real"])
    with pytest.raises(SystemExit) as error:
        main(["table", "--table", "absent.yaml", "--run", str(run)])
    assert str(error.value) == "error: no file absent.yaml; the paper's tables are in ecg_text/configs/tables/"
    with pytest.raises(SystemExit, match=r"base\.yaml is not a table of the paper \(.*unexpected keyword"):
        main(["table", "--table", str(CONFIGS / "base.yaml"), "--run", str(run)])
    path = write_results(run, "ptbxl", list(PTBXL_SUPERCLASSES), protocol="zero_shot_german")
    with pytest.raises(SystemExit) as error:
        main(["table", "--table", TABLE_2, "--run", str(run)])
    assert str(error.value) == (
        f"error: {path} has no row of protocol zero_shot; run python -m ecg_text evaluate again"
    )
    path.write_text("protocol,method\nzero_shot,ETP\n")
    with pytest.raises(SystemExit, match=r"results\.csv lacks the column class, models"):
        main(["table", "--table", TABLE_2, "--run", str(run)])
