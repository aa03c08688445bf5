"""Table 1 from scores made by hand: all numbers here are SYNTHETIC. What is compared with what: tests/shared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import ecg_text
from ecg_text.cli import main
from shared.metrics import auroc, auroc_values, interval
from tests.hand_made import write_evaluation, write_variant

TABLE_1 = str(Path(ecg_text.__file__).parent / "configs" / "tables" / "table1.yaml")
RNG = np.random.default_rng(0)
TARGET = (RNG.random((200, 3)) < 0.4).astype(np.float32)
NOISE = RNG.normal(size=(2, 200, 3))
MINILM = {"class_path": "shared.backbones.HuggingFaceText", "init_args": {"model": "packaged:minilm"}}


def scores_of(strength: float) -> NDArray[np.float64]:
    """Scores `(M, N, C)` that know the target the better, the greater `strength` is."""
    return np.asarray(strength * TARGET + NOISE)


def evaluated(
    root: Path,
    variant: str,
    class_path: str,
    rows: Mapping[str, NDArray[np.float64]],
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A variant on `ptbxl_100hz` with the scores of its rows under linear evaluation."""
    folder = write_variant(root / "ptbxl_100hz" / variant, class_path, settings)
    protocols = {"linear": {"title": "Linear evaluation", "metric": "auroc", "label_mode": "multi"}}
    write_evaluation(folder / "evaluation" / "ptbxl_100hz", TARGET, {"linear": rows}, protocols)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """SimCLR a little worse than random init, TS-TCC exactly as random init, ETP far better."""
    random = scores_of(1.0)
    etp = {"model.init_args.text_encoder": MINILM}
    return [
        evaluated(tmp_path, "simclr", "shared.methods.SimCLR", {"SimCLR": scores_of(0.2), "Random init": random}),
        evaluated(tmp_path, "ts_tcc", "ecg_text.methods.TSTCC", {"TS-TCC": random, "Random init": scores_of(9.0)}),
        evaluated(tmp_path, "etp_minilm", "ecg_text.ETP", {"ETP (MiniLM)": scores_of(4.0)}, etp),
    ]


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line[:1] == "│"]


def test_table_1_stands_beside_the_papers_by_its_names_and_its_rows_go_to_results(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / "table1.csv"
    main(["table", "--table", TABLE_1, "--run", *map(str, runs), "--results", str(results)])
    printed = capsys.readouterr().out
    lines = cells(printed)
    assert [line[1] for line in lines] == [
        *("Random init", "CPC", "SimCLR", "BYOL", "SimSiam", "TS-TCC", "CLOCS", "ASTCL", "ETP")
    ]
    written = pd.read_csv(results).set_index("method")
    assert written.index.tolist() == ["Random init", "SimCLR", "TS-TCC", "ETP"]
    etp, random = written.loc["ETP"], written.loc["Random init"]
    areas = {name: [auroc(each, TARGET).mean() for each in scores_of(1.0)] for name in ("Random init", "TS-TCC")}
    areas |= {"ETP": [auroc(each, TARGET).mean() for each in scores_of(4.0)]}
    for name, values in areas.items():
        assert written.loc[name, "AUC"] == pytest.approx(np.mean(values), abs=1e-4)
        assert written.loc[name, "AUC_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-4)
        values = auroc_values(scores_of(4.0 if name == "ETP" else 1.0), TARGET)
        assert written.loc[name, ["AUC_low", "AUC_high"]].tolist() == pytest.approx(interval(values)[1:3], abs=1e-4)
    assert written.loc["TS-TCC", "AUC_over_random"] == 0
    assert etp["AUC_over_random"] == pytest.approx(etp["AUC"] - random["AUC"], abs=2e-4)
    assert random["AUC_reference_over"] == etp["AUC_over_random"]
    assert np.isnan(etp["AUC_reference_over"])
    assert lines[8][2] == "83.5"
    ends = f"{100 * etp['AUC_low']:.1f}, {100 * etp['AUC_high']:.1f}"
    assert lines[8][3] == f"{100 * etp['AUC']:.1f} ± {100 * etp['AUC_std']:.1f} [{ends}]"
    assert lines[8][4:6] == ["61.3", f"{100 * etp['F1']:.1f} ± {100 * etp['F1_std']:.1f}"]
    assert lines[8][-2:] == ["15 (150)", "0.50"]
    assert lines[1][2:] == ["70.3", "-", "54.2", "-", "-", "-", "-", "-"]  # CPC: not among ours
    said = " ".join(printed.split())
    assert "for all of PTB-XL and CPSC2018 at 500 Hz, records with one label, 50 epochs. F1: macro, at the best" in said
    assert "SYNTHETIC" not in said
    assert "Tested: 5 differences, each by a t-test over test samples and models; " in said  # of AUC: F1 has no noise
    assert "AUC: better than random init are ETP (" in said
    assert "F1: better" not in said
    assert written[["F1_low", "F1_high"]].isna().all(axis=None)
    assert (tmp_path / "ptbxl_100hz" / "comparison" / "figures" / "ptbxl_100hz_table1.png").is_file()
    assert (etp["AUC_paper_percent"], etp["F1_paper_percent"]) == (83.5, 61.3)
    assert etp[["variant", "width", "AUC_label_mode", "data_kind"]].tolist() == ["etp_minilm", 32, "multi", "real"]


def test_f1_is_the_mean_of_every_models_best_over_the_classes(runs: list[Path], tmp_path: Path) -> None:
    results = tmp_path / "table1.csv"
    main(["table", "--table", TABLE_1, "--run", *map(str, runs), "--results", str(results)])
    expected = []
    for scores in scores_of(4.0):
        thresholds = np.sort(scores, axis=0)
        f1 = [
            max(
                2 * (found & truth).sum() / (found.sum() + truth.sum())
                for found in (scores[:, index] >= threshold for threshold in thresholds[:, index])
            )
            for index, truth in enumerate(TARGET.T > 0)
        ]
        expected.append(np.mean(f1))
    assert pd.read_csv(results).set_index("method").loc["ETP", "F1"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_etp_is_one_row_whatever_its_language_model(runs: list[Path], tmp_path: Path) -> None:
    settings = {"model.init_args.text_encoder": {"class_path": "HashedNgrams"}}
    other = evaluated(tmp_path, "etp_ngrams", "ecg_text.ETP", {"ETP (n-grams)": scores_of(2.0)}, settings)
    with pytest.raises(SystemExit) as stop:
        main(["table", "--table", TABLE_1, "--run", *map(str, [*runs, other])])
    assert stop.value.code == f"error: {other} and another of the variants are both ETP; compare one at a time"


def test_what_synthetic_data_has_touched_is_said_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"run.tags": ["synthetic"], "model.init_args.text_encoder": {"class_path": "HashedNgrams"}}
    rows = {"ETP (n-grams)": scores_of(2.0), "Random init": scores_of(1.0)}
    run = evaluated(tmp_path, "etp_ngrams", "ecg_text.ETP", rows, settings)
    main(["table", "--table", TABLE_1, "--run", str(run)])
    printed = capsys.readouterr().out
    assert "SYNTHETIC DATA: ours says nothing about the world, and is no result." in printed
    assert "(SYNTHETIC data)" in " ".join(printed.split())


def test_methods_that_were_trained_otherwise_are_compared_only_apart(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = {"trainer.max_epochs": 30}
    clocs = evaluated(tmp_path, "clocs", "ecg_text.methods.CLOCS", {"CLOCS": scores_of(1.0)}, longer)
    arguments = ["table", "--table", TABLE_1, "--run", *map(str, [*runs, clocs])]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == (
        f"error: the trainings of {runs[0]} and {clocs} differ in trainer.max_epochs (15 and 30), which is not what "
        "the methods' own YAMLs give them, so comparing the methods says nothing: train them alike, or show them in "
        "separate tables (--apart true)"
    )
    main([*arguments, "--apart", "true"])
    assert [line[-2:] for line in cells(capsys.readouterr().out) if line[-1] == "0.50"] == [
        *[["15 (150)", "0.50"]] * 3,
        ["30 (150)", "0.50"],
    ]
