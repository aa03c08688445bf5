"""Table 1 from scores made by hand: all numbers here are SYNTHETIC."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

import ecg_text
from ecg_text.cli import main
from ecg_text.evaluation.comparison import beyond_noise, compare
from shared.data.problems import DataError
from shared.metrics import auroc, bootstrap_auroc, interval
from shared.runs.scores import Scores, read_scores, write_scores

TABLE_1 = str(Path(ecg_text.__file__).parent / "configs" / "tables" / "table1.yaml")
RNG = np.random.default_rng(0)
TARGET = (RNG.random((200, 3)) < 0.4).astype(np.float32)
NOISE = RNG.normal(size=(2, 200, 3))
CLASSES = {"SimCLR": "shared.methods.SimCLR", "TSTCC": "ecg_text.methods.TSTCC", "ETP": "ecg_text.ETP"}


def scores_of(strength: float, models: int = 2) -> NDArray[np.float64]:
    """Scores `(M, N, C)` that know the target the better, the greater `strength` is."""
    return np.asarray(strength * TARGET + NOISE[:models])


def write_variant(
    root: Path,
    variant: str,
    class_path: str,
    scores: dict[str, NDArray[np.float64]],
    dataset: str = "ptbxl_100hz",
    tags: tuple[str, ...] = ("real",),
    records: list[str] | None = None,
) -> Path:
    """A variant as training and `evaluate` leave it, as far as the table reads it."""
    run = root / "ptbxl_100hz" / variant
    for seed in range(2):
        folder = run / f"seed_{seed}"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "best.ckpt").touch()
        (folder / "results.json").write_text('{"fit/epochs": 15, "fit/seconds": 900.0}')
        config = {
            "run": {"dataset": "ptbxl_100hz", "tags": list(tags)},
            "trainer": {"max_epochs": 15, "precision": "32-true"},
            "model": {"class_path": class_path, "init_args": {"encoder": {"init_args": {"width": 32}}}},
            "data": {"class_path": "ecg_text.PTBXLDataModule", "init_args": {"batch_size": 64, "label_mode": "multi"}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    folder = run / "evaluation" / dataset
    folder.mkdir(parents=True)
    kept = {name: Scores(list(array), list(array)) for name, array in scores.items()}
    write_scores(folder, records or [str(i) for i in range(200)], ["A", "B", "C"], TARGET, {"linear": kept})
    rows = []
    for name, array in scores.items():
        values = [auroc(each, TARGET).mean() for each in array]
        row = {"protocol": "linear", "method": name, "class": "Average", "models": len(array), "records": 200}
        row |= {"auroc": np.mean(values), "auroc_std": np.std(values, ddof=1), "best_f1": 0.6, "best_f1_std": 0.02}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "classes.csv", index=False)
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """SimCLR a little worse than random init, TS-TCC exactly as random init, ETP far better."""
    random = scores_of(1.0)
    return [
        write_variant(tmp_path, "simclr", CLASSES["SimCLR"], {"SimCLR": scores_of(0.2), "Random init": random}),
        write_variant(tmp_path, "ts_tcc", CLASSES["TSTCC"], {"TS-TCC": random.copy(), "Random init": scores_of(9.0)}),
        write_variant(tmp_path, "etp_minilm", CLASSES["ETP"], {"ETP (MiniLM)": scores_of(4.0)}),
    ]


def test_scores_are_read_as_they_were_written(runs: list[Path]) -> None:
    kept = read_scores(runs[0] / "evaluation" / "ptbxl_100hz")
    np.testing.assert_array_equal(kept.scores["linear"]["SimCLR"], scores_of(0.2))
    np.testing.assert_array_equal(kept.target, TARGET)
    assert kept.classes == ["A", "B", "C"]
    assert kept.records == [str(i) for i in range(200)]
    path = runs[0] / "evaluation" / "ptbxl_100hz" / "scores.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"scores\.npz cannot be read \(.*\); evaluate again"):
        read_scores(path.parent)


def test_rows_go_by_the_papers_names_and_random_init_is_the_first_variants(runs: list[Path]) -> None:
    rows = compare(runs, "ptbxl_100hz").set_index("method")
    assert rows.index.tolist() == ["SimCLR", "Random init", "TS-TCC", "ETP"]
    expected = np.mean([auroc(each, TARGET).mean() for each in scores_of(1.0)])
    assert rows.loc["Random init", "auroc"] == pytest.approx(expected)
    assert rows.loc["ETP", "hours"] == pytest.approx(0.5)
    assert rows.loc["Random init", "hours"] == 0
    assert rows.loc["TS-TCC", "over_random"] == 0
    assert rows.loc["ETP", "over_random"] == pytest.approx(rows.loc["ETP", "auroc"] - expected)
    assert rows.loc["SimCLR", "etp_over"] == pytest.approx(rows.loc["ETP", "auroc"] - rows.loc["SimCLR", "auroc"])
    assert np.isnan(rows.loc["ETP", "etp_over"])
    assert np.isnan(rows.loc["Random init", "over_random"])


def test_with_equal_models_the_interval_is_that_of_resampled_records(tmp_path: Path) -> None:
    one = scores_of(1.0, models=1)
    run = write_variant(tmp_path, "etp", CLASSES["ETP"], {"ETP": np.concatenate([one, one])})
    row = compare([run], "ptbxl_100hz").iloc[0]
    low, high = interval(bootstrap_auroc(one, TARGET).samples[:, 0])
    assert (row["auroc_low"], row["auroc_high"]) == (pytest.approx(low), pytest.approx(high))


def test_models_that_disagree_widen_the_interval(tmp_path: Path) -> None:
    apart = np.concatenate([scores_of(0.1, models=1), scores_of(3.0, models=1)])
    run = write_variant(tmp_path, "etp", CLASSES["ETP"], {"ETP": apart})
    row = compare([run], "ptbxl_100hz").iloc[0]
    low, high = interval(bootstrap_auroc(apart, TARGET).samples.mean(1))  # records alone
    # Of two models drawn from two, a quarter of the draws is either one twice: half their distance from the mean, and
    # sqrt(2 / 1) times that.
    values = [auroc(each, TARGET).mean() for each in apart]
    expected = (values[1] - values[0]) / 2 * 2**0.5
    assert row["auroc_high"] - np.mean(values) == pytest.approx(expected, abs=high - low)
    assert row["auroc_high"] - row["auroc_low"] > 4 * (high - low)


def test_the_sentences_say_which_differences_are_beyond_noise(runs: list[Path]) -> None:
    said = beyond_noise(compare(runs, "ptbxl_100hz"))
    rows = compare(runs, "ptbxl_100hz").set_index("method")
    gain, loss = 100 * rows.loc["ETP", "over_random"], 100 * rows.loc["SimCLR", "over_random"]
    assert f"better than random init: ETP ({gain:+.1f}). Beyond noise worse: SimCLR ({loss:+.1f}). " in said
    assert "Not told apart from it: TS-TCC (+0.0). ETP is beyond noise better than: SimCLR (" in said
    assert said.endswith("; worse than: none; not told apart from: none.")


def test_one_model_a_method_is_said_to_hold_the_noise_of_the_records_alone(tmp_path: Path) -> None:
    scores = {"ETP": scores_of(2.0, models=1), "Random init": scores_of(1.0, models=1)}
    run = write_variant(tmp_path, "etp", CLASSES["ETP"], scores)
    said = beyond_noise(compare([run], "ptbxl_100hz"))
    assert said.endswith("Of one model a method, the intervals hold the noise of the records alone.")


def test_the_table_stands_beside_the_papers_and_its_rows_go_to_results(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / "table1.csv"
    main(["table", "--table", TABLE_1, "--runs", *map(str, runs), "--results", str(results)])
    printed = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line[:1] == "│"]
    assert [line[1] for line in lines] == [
        *("Random init", "CPC", "SimCLR", "BYOL", "SimSiam", "TS-TCC", "CLOCS", "ASTCL", "ETP")
    ]
    rows = compare(runs, "ptbxl_100hz").set_index("method")
    etp = rows.loc["ETP"]
    assert lines[8][2] == "83.5"
    ends = f"{100 * etp['auroc_low']:.1f}, {100 * etp['auroc_high']:.1f}"
    assert lines[8][3] == f"{100 * etp['auroc']:.1f} ± {100 * etp['auroc_std']:.1f} [{ends}]"
    assert lines[8][4:6] == ["61.3", "60.0 ± 2.0"]
    assert lines[8][-1] == "0.50"
    assert lines[1][2:] == ["70.3", "-", "54.2", "-", "-", "-", "-"]  # CPC: not among ours
    assert "CPSC2018: not all of simclr, ts_tcc, etp_minilm are evaluated on it; left out" in " ".join(printed.split())
    assert "SYNTHETIC" not in printed
    assert (runs[0].parent / "comparison" / "figures" / "ptbxl_100hz_linear.png").is_file()
    written = pd.read_csv(results).set_index("method")
    assert written.index.tolist() == rows.index.tolist()
    assert written.loc["ETP", "auroc_low"] == pytest.approx(etp["auroc_low"], abs=1e-4)
    assert written.loc["ETP", "paper_auc_percent"] == 83.5
    shared = ["data_kind", "seeds", "epochs", "batch_size", "precision", "width", "dataset", "trained_on"]
    assert written.loc["ETP", shared].tolist() == ["real", "0 1", 15, 64, "32-true", 32, "ptbxl_100hz", "ptbxl_100hz"]
    assert written[["date", "revision", "hardware", "python", "torch"]].notna().all().all()


def test_synthetic_data_is_said_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"ETP (n-grams)": scores_of(2.0), "Random init": scores_of(1.0)}
    run = write_variant(tmp_path, "etp_ngrams", CLASSES["ETP"], scores, tags=("synthetic",))
    main(["table", "--table", TABLE_1, "--runs", str(run), "--results", str(tmp_path / "results.csv")])
    printed = " ".join(capsys.readouterr().out.split())
    assert "ours on ptbxl_100hz, 200 test records, label mode multi; the paper's label mode single." in printed
    assert "SYNTHETIC DATA: ours says nothing about patients, and is no result." in printed
    assert "(SYNTHETIC data)" in printed
    assert pd.read_csv(tmp_path / "results.csv")["data_kind"].unique().tolist() == ["synthetic"]


def test_other_records_or_one_method_twice_are_errors(runs: list[Path], tmp_path: Path) -> None:
    other = [str(i) for i in range(1, 201)]
    scores = {"CLOCS": scores_of(1.0)}
    run = write_variant(tmp_path, "clocs", "ecg_text.methods.CLOCS", scores, records=other)
    with pytest.raises(
        DataError, match=r"clocs/evaluation/ptbxl_100hz and .* were evaluated on other records or class"
    ):
        compare([*runs, run], "ptbxl_100hz")
    again = write_variant(tmp_path, "simclr_warm", CLASSES["SimCLR"], {"simclr_warm": scores_of(1.0)})
    with pytest.raises(DataError, match=r"simclr_warm and another of the variants are both SimCLR; compare one at a"):
        compare([*runs, again], "ptbxl_100hz")
    with pytest.raises(DataError, match=r"has no scores of protocol fine_tune; evaluate again"):
        compare(runs, "ptbxl_100hz", "fine_tune")


@pytest.mark.parametrize(
    ("block", "key", "message"),
    [
        ("trainer", "max_epochs", "max_epochs (15 and 30)"),
        ("model", "encoder", "encoder ({'init_args': {'width': 32}} and 30)"),
        ("data", "batch_size", "batch_size (64 and 30)"),
    ],
)
def test_variants_that_were_trained_otherwise_are_not_compared(
    runs: list[Path], block: str, key: str, message: str
) -> None:
    path = runs[1] / "seed_0" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    (config[block] if block == "trainer" else config[block]["init_args"])[key] = 30
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(DataError) as error:
        compare(runs, "ptbxl_100hz")
    assert str(error.value) == (
        f"{runs[0]} and {runs[1]} were trained with another {message}, so comparing the methods says nothing: train "
        "them alike"
    )


def test_a_data_set_and_a_method_that_the_paper_lacks_stand_without_its_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"Barlow Twins": scores_of(2.0), "Random init": scores_of(1.0)}
    run = write_variant(tmp_path, "mine", "shared.methods.BarlowTwins", scores, dataset="own")
    for seed in (0, 1):
        path = run / f"seed_{seed}" / "config.yaml"
        path.write_text(path.read_text().replace("ptbxl_100hz", "own"))
    main(["table", "--table", TABLE_1, "--runs", str(run)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert [line[:3] for line in cells] == [["own", "Barlow Twins", "-"], ["", "Random init", "-"]]
    assert cells[0][5] == "60.0 ± 2.0"


def test_without_any_evaluation_the_command_that_makes_it_is_named(runs: list[Path]) -> None:
    for run in runs:
        (run / "evaluation" / "ptbxl_100hz" / "scores.npz").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["table", "--table", TABLE_1, "--runs", *map(str, runs)])
    assert stop.value.code == (
        "error: no data set of Table 1: linear evaluation has all variants evaluated: python -m ecg_text evaluate "
        f"--run {' '.join(map(str, runs))} does it"
    )
