"""`python -m ecg_text evaluate` through the real `main`, on a tiny trained model."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

from ecg_text import ETP, PTBXLDataModule, WFDBFolderDataModule
from ecg_text.cli import main
from ecg_text.evaluation.models import ECGEvaluation, Settings, check_test
from ecg_text.evaluation.tables import print_classes
from shared.checkpoint import load_module
from shared.data.problems import DataError, Problems
from shared.data.splits import group_split
from shared.metrics import auroc, auroc_values, difference, interval
from shared.runs.scores import Outcome, Scores
from shared.runs.variant import load_data

PROTOCOLS = ("zero_shot", "zero_shot_probability", "linear")


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pd.DataFrame]:
    """The variant's folder (a copy, because evaluating adds files), the results CSV, and the table returned."""
    folder = tmp_path_factory.mktemp("evaluated")
    run = folder / "etp"
    shutil.copytree(trained.folder, run / "seed_0", ignore=shutil.ignore_patterns("wandb"))
    results = folder / "results" / "etp.csv"
    small = ["--random_inits", "2", "--wandb", "offline", "--threads", "1"]
    table = main(["evaluate", "--run", str(run), *small, "--results", str(results)])
    return run, results, table


def test_evaluate_writes_exactly_its_files(evaluated, trained) -> None:
    run, _, _ = evaluated
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    files = {name for name in files if not name.startswith("seed_0/wandb/")}
    figures = {f"seed_0/figures/ptbxl_synthetic_{name}.png" for name in (*PROTOCOLS, "similarity", "example")}
    names = ("results.csv", "groups.csv", "scores.npz", "evaluation.json")
    tables = {f"evaluation/ptbxl_synthetic/{name}" for name in names}
    before = {f"seed_0/{name}" for name in trained.files - {"wandb"}} | {
        f"seed_0/{path.name}" for path in trained.folder.glob("predictions.parquet")
    }
    assert files == before | figures | tables


def test_the_table_has_every_protocol_method_and_class(evaluated, trained) -> None:
    run, _, table = evaluated
    classes = [*load_module(trained.checkpoint, ETP).class_names, "Average"]
    expected = {(p, m, c) for p in PROTOCOLS for m in ("Random init", "ETP (n-grams)") for c in classes}
    assert set(zip(table["protocol"], table["method"], table["class"], strict=True)) == expected
    assert len(table) == len(expected)
    written = pd.read_csv(run / "evaluation" / "ptbxl_synthetic" / "results.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False)


def test_the_zero_shot_value_is_that_of_test(evaluated, trained) -> None:
    run, _, table = evaluated
    cli = main(["test", *trained.arguments[1:]])
    row = table.query("protocol == 'zero_shot' and method == 'ETP (n-grams)' and `class` == 'Average'")
    assert row["auroc"].item() == pytest.approx(cli.trainer.callback_metrics["test/auroc"].item(), abs=1e-5)
    results = json.loads((run / "seed_0" / "results.json").read_text())
    assert results["zero_shot/auroc"] == pytest.approx(row["auroc"].item())
    assert {"linear/auroc", "fit/epochs"} <= results.keys()


def test_a_probability_among_the_classes_is_that_of_their_cosines_at_the_trained_temperature(
    evaluated, trained
) -> None:
    found = Scores.read(evaluated[0] / "evaluation" / "ptbxl_synthetic").found
    (cosines,), (scores,) = (found[name]["ETP (n-grams)"].test for name in PROTOCOLS[:2])
    temperature = float(load_module(trained.checkpoint, ETP).temperature)
    for row, expected in zip(scores, cosines, strict=True):
        total = sum(np.exp(cosine / temperature) for cosine in expected)
        assert np.exp(row).tolist() == pytest.approx([np.exp(cosine / temperature) / total for cosine in expected])
    ranks = np.argsort(np.argsort(scores, 0), 0), np.argsort(np.argsort(cosines, 0), 0)
    assert (ranks[0] != ranks[1]).any()  # of the records, by class


def test_averages_and_figures_go_to_an_offline_run_of_the_same_group(evaluated, read_offline_run) -> None:
    run, _, table = evaluated
    content, records = read_offline_run(run / "seed_0")
    (started,) = [record["run"] for record in records if record["type"] == "run"]
    assert (started["project"], started["job_type"]) == ("quintet", "test")
    assert started["tags"] == ["ecg_text", "ptbxl_synthetic", "synthetic"]
    average = table[(table["class"] == "Average") & (table["method"] == "ETP (n-grams)")].set_index("protocol")
    assert content["summary"]["linear/auroc"] == pytest.approx(average.loc["linear", "auroc"])
    figures = [key for key in content["summary"] if key.startswith("figures/")]
    names = (*PROTOCOLS, "similarity", "example")
    assert set(figures) == {f"figures/ptbxl_synthetic_{name}" for name in names}
    assert all(content["summary"][key]["_type"] == "images/separated" for key in figures)


def test_the_results_file_says_what_made_it(evaluated) -> None:
    _, path, table = evaluated
    results = pd.read_csv(path)
    assert len(results) == len(table)
    assert results["data_kind"].unique().tolist() == ["synthetic"]
    assert set(results["seeds"].astype(str)) == {"0"}
    assert results[["date", "revision", "hardware", "python", "torch"]].notna().all().all()


def test_a_missing_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--run", str(tmp_path)])
    assert stop.value.code == f"error: no {tmp_path}/seed_*/config.yaml: train first, or pass another --run"


def test_a_wrong_data_file_says_what_to_do(evaluated, tmp_path: Path) -> None:
    arguments = ["evaluate", "--run", str(evaluated[0]), "--wandb", "disabled", "--data"]
    with pytest.raises(SystemExit, match=r"error: no file .*none\.yaml$"):
        main([*arguments, str(tmp_path / "none.yaml")])
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"model": {}}))
    with pytest.raises(SystemExit, match=r"error: .*other\.yaml lacks run\.dataset or data:; by name, there are: cps"):
        main([*arguments, str(tmp_path / "other.yaml")])


def test_prompts_from_a_file_go_by_its_name_and_unknown_ages_are_no_group(evaluated, trained, tmp_path: Path) -> None:
    run = tmp_path / "etp"
    shutil.copytree(evaluated[0] / "seed_0", run / "seed_0", ignore=shutil.ignore_patterns("wandb", "figures"))
    config = yaml.safe_load((run / "seed_0" / "config.yaml").read_text())
    root = tmp_path / "root"
    shutil.copytree(config["data"]["init_args"]["root"], root)
    database = pd.read_csv(root / "ptbxl_database.csv")
    test = database["strat_fold"] >= 9
    assert test.sum() > 12
    database.loc[database.index[test][:6], "age"] = None
    database.to_csv(root / "ptbxl_database.csv", index=False)
    own = tmp_path / "own words.yaml"
    own.write_text(yaml.safe_dump({"templates": ["it shows {}"]}))
    small = ["--random_inits", "0", "--wandb", "disabled", "--threads", "1"]
    table = main(["evaluate", "--run", str(run), "--root", str(root), *small, "--prompts", str(own)])
    assert table["protocol"].unique().tolist() == [*PROTOCOLS[:2], "zero_shot_own_words", "linear"]
    assert (run / "seed_0" / "figures" / "ptbxl_synthetic_zero_shot_own_words.png").is_file()
    assert "zero_shot_own_words/auroc" in json.loads((run / "seed_0" / "results.json").read_text())
    groups = pd.read_csv(run / "evaluation" / "ptbxl_synthetic" / "groups.csv", keep_default_na=False)
    ages = groups[(groups["group"] == "age") & (groups["protocol"] == "linear")]
    assert set(ages["value"]) <= {"[0, 40)", "[40, 60)", "[60, 75)", "[75, 400)"}
    assert 0 < ages["samples"].sum() <= table["samples"].iloc[0] - 1


@pytest.fixture
def of_a_folder(trained, synthetic_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run on a folder of WFDB records that are split at random, and their table; the weights are `trained`'s."""
    root, run = tmp_path / "own", tmp_path / "runs" / "ecg_text" / "own" / "etp"
    shutil.copytree(synthetic_root, root)
    records = PTBXLDataModule(str(root), sampling_rate=100).read_frame(Problems())
    records["path"] = [Path(path).relative_to(root) for path in records["path"]]
    records["labels"] = [";".join(sorted(codes)) for codes in records["labels"]]
    records["patient"] = records["patient"].astype(int)
    records.drop(columns="split").to_csv(root / "records.csv", index=False)
    shutil.copytree(trained.folder, run / "seed_0", ignore=shutil.ignore_patterns("wandb"))
    config = yaml.safe_load((run / "seed_0" / "config.yaml").read_text())
    config["run"] |= {"dataset": "own", "root": str(tmp_path / "runs")}
    given = {"sampling_rate": 100, "label_mode": "multi", "missing_classes": "drop", "batch_size": 16}
    arguments = {"root": str(root), "cache_dir": str(tmp_path / "cache"), "split_seed": 0, "split_version": 2, **given}
    config["data"] = {"class_path": "ecg_text.WFDBFolderDataModule", "init_args": arguments}
    (run / "seed_0" / "config.yaml").write_text(yaml.safe_dump(config))
    load_data(WFDBFolderDataModule, config["data"], {}).save(run / "seed_0")
    return run, root / "records.csv"


def test_a_record_that_was_trained_on_and_is_tested_on_now_that_a_row_is_gone_is_not_evaluated_on(
    of_a_folder: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = of_a_folder
    used = pd.read_csv(run / "seed_0" / "samples.csv", dtype=str)
    trained_on = used["id"][used["split"] == "train"]
    table = pd.read_csv(path, dtype=str, keep_default_na=False)

    def moves(gone: int) -> bool:
        kept = table.drop(index=gone)
        labels = kept["labels"].str.replace(";", ",").tolist()
        tested = kept[group_split(kept["patient"].tolist(), labels, (0.8, 0.1, 0.1), 0) == 2]
        return bool((tested["id"].isin(trained_on) & (tested["labels"] != "")).any())

    table.drop(index=next(filter(moves, table.index))).to_csv(path, index=False)
    block = yaml.safe_load((run / "seed_0" / "config.yaml").read_text())["data"]
    data = load_data(WFDBFolderDataModule, block, {})
    tested = data.frame.iloc[data.rows("test", "evaluate")]
    known = used[used["split"] != "test"]
    seen = tested["id"].isin(known["id"]) | tested["patient"].isin(known["group"])
    assert 0 < tested["id"].isin(trained_on).sum() <= seen.sum() < len(tested)

    evaluate = ["evaluate", "--run", str(run), "--random_inits", "0", "--wandb", "disabled", "--threads", "1"]
    with pytest.raises(SystemExit) as stop:
        main(evaluate)
    assert str(stop.value) == (
        f"error: {seen.sum()} of the {len(tested)} test records (the first is {tested['id'][seen].iloc[0]}), or others "
        f"with the same patient, were trained or selected on in {run}/seed_0: its table or split has changed since. "
        "Train it again (--run.overwrite true)"
    )
    assert not (run / "evaluation").exists()
    other = run.parent / "other.yaml"  # on another data set, the splits of the two have nothing to do with each other
    other.write_text(yaml.safe_dump({"run": {"dataset": "other", "tags": ["real"]}, "data": block}))
    assert len(main([*evaluate, "--data", str(other)]))
    assert f"wrote results.csv, groups.csv and scores.npz to {run}/evaluation/other" in capsys.readouterr().out


# ---- intervals


def test_rows_of_classes_and_averages_have_intervals_over_patients_and_models(evaluated) -> None:
    run, _, table = evaluated
    kept = Scores.read(run / "evaluation" / "ptbxl_synthetic")
    assert len(set(kept.groups)) < len(kept.groups)  # some patients have several records
    rows = table.set_index(["protocol", "method", "class"])
    for protocol in PROTOCOLS:
        values = {}
        for method, outcome in kept.found[protocol].items():
            for index, name in enumerate(kept.classes):
                columns = [index]
                values[method, name] = auroc_values(outcome.test[..., columns], kept.target[:, columns], kept.groups)
            values[method, "Average"] = auroc_values(outcome.test, kept.target, kept.groups)
        for (method, name), of_row in values.items():
            row = rows.loc[protocol, method, name]
            assert row[["auroc", "auroc_low", "auroc_high"]].tolist() == pytest.approx(interval(of_row)[:3])
            gain = row[["gain", "gain_low", "gain_high", "gain_p"]].tolist()
            if method == "Random init":
                assert np.isnan(gain).all()
            else:
                assert gain == pytest.approx(difference(of_row, values["Random init", name]))
    results = json.loads((run / "seed_0" / "results.json").read_text())
    of_seed = [results[f"linear/{key}"] for key in ("auroc", "auroc_low", "auroc_high")]
    average = rows.loc["linear", "ETP (n-grams)", "Average"]  # of one seed
    assert of_seed == pytest.approx(average[["auroc", "auroc_low", "auroc_high"]].tolist())


def test_the_share_of_the_most_frequent_class_is_printed_beside_the_accuracy(
    evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, table = evaluated
    kept = Scores.read(run / "evaluation" / "ptbxl_synthetic")
    majority = max(sum(row[index] for row in kept.target) for index in range(len(kept.classes))) / len(kept.target)
    average = table[table["class"] == "Average"]
    assert average["majority"].tolist() == pytest.approx([majority] * 2 * len(PROTOCOLS))
    assert table.loc[table["class"] != "Average", ["majority", "top1_accuracy"]].isna().all(axis=None)
    print_classes(table, {"linear": "Linear evaluation"}, "ptbxl_synthetic", "synthetic")
    said = " ".join(capsys.readouterr().out.split())
    for row in average[average["protocol"] == "linear"].to_dict("records"):
        hits = [
            np.mean([target[scores.argmax()] for scores, target in zip(model, kept.target, strict=True)])
            for model in kept.found["linear"][row["method"]].test
        ]
        area, low, high = (f"{100 * row[key]:.1f}" for key in ("auroc", "auroc_low", "auroc_high"))
        line = f"{row['method']}: macro AUC {area} [{low}, {high}]; highest score: accuracy {100 * np.mean(hits):.1f} "
        line += f"(always the most frequent: {100 * majority:.1f}), macro F1 {100 * row['top1_f1']:.1f}"
        if row["method"] != "Random init":
            gain, low, high = (100 * row[key] for key in ("gain", "gain_low", "gain_high"))
            line += f"; gain over random init {gain:+.1f} [{low:.1f}, {high:.1f}]"
        assert line in said
    one_model = "One pre-trained model per method: "
    assert (one_model in said) == (set(average.loc[average["method"] != "Random init", "models"]) == {1})
    two = table.assign(models=2)
    print_classes(two, {"linear": "Linear evaluation"}, "ptbxl_synthetic", "synthetic")
    assert one_model not in capsys.readouterr().out
    assert "[...]: 95% interval over patients and models. ±: standard deviation over the models." in said


PATIENTS = np.repeat(np.arange(40), 2)


def tabulated(target: NDArray[np.float32], rows: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """The table of linear evaluation for scores `(M, N, C)` by method, of two records a patient."""
    evaluation: Any = ECGEvaluation.__new__(ECGEvaluation)
    classes = ["A", "B", "C"][: target.shape[1]]
    evaluation.data = SimpleNamespace(classes=classes, groups=PATIENTS, label_mode="multi")
    evaluation.settings, evaluation.with_text = Settings(), False
    evaluation.rows = {split: np.arange(len(target)) for split in ("val", "test")}
    evaluation.targets = {"val": target, "test": target}
    found = {name: Outcome(range(len(scores)), scores, scores) for name, scores in rows.items()}
    table: pd.DataFrame = evaluation.table({"linear": found})
    return table.set_index(["method", "class"])


def of_patients(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Noise that the two records of a patient share."""
    return np.repeat(np.random.default_rng(seed).normal(size=shape), 2, axis=-2)


def test_both_records_of_a_patient_count_as_one() -> None:
    target = (of_patients(40, 2) > 0).astype(np.float32)
    scores = {"Random init": target + of_patients(1, 40, 2, seed=1), "CPC": 2 * target + of_patients(1, 40, 2, seed=2)}
    table = tabulated(target, scores)
    once = {name: auroc_values(each[:, ::2], target[::2]) for name, each in scores.items()}
    found, gain = interval(once["CPC"]), difference(once["CPC"], once["Random init"])
    twice = interval(auroc_values(scores["CPC"], target))
    row = table.loc["CPC", "Average"]
    assert row["auroc"] == pytest.approx(found.value)
    assert row["auroc_high"] - row["auroc_low"] == pytest.approx(found.high - found.low, rel=0.03)
    assert row["gain_high"] - row["gain_low"] == pytest.approx(gain.high - gain.low, rel=0.03)
    assert row["auroc_high"] - row["auroc_low"] > 1.2 * (twice.high - twice.low)
    of_class = auroc_values(scores["CPC"][..., [1]], target[:, [1]], PATIENTS)
    assert table.loc[("CPC", "B"), ["auroc_low", "auroc_high"]].tolist() == pytest.approx(interval(of_class)[1:3])


def test_a_class_of_one_record_has_no_interval_and_no_part_in_the_average() -> None:
    target = (of_patients(40, 3) > 0).astype(np.float32)
    target[:, 1] = np.arange(80) == 7
    scores = {"Random init": of_patients(2, 40, 3, seed=1), "CPC": target + of_patients(2, 40, 3, seed=2)}
    table = tabulated(target, scores)
    for name, each in scores.items():
        areas = np.array([auroc(model, target) for model in each])
        assert table.loc[name, "auroc"].tolist() == pytest.approx([*areas.mean(0), areas[:, [0, 2]].mean()])
        assert table.loc[(name, "Average"), "auroc_std"] == pytest.approx(areas[:, [0, 2]].mean(1).std(ddof=1))
    ends = [f"{key}_{end}" for key in ("auroc", "gain") for end in ("low", "high")]
    assert table.loc[("CPC", "B"), [*ends, "gain", "gain_p"]].isna().all()
    assert table.loc[[("CPC", "A"), ("CPC", "C"), ("CPC", "Average")], [*ends, "gain_p"]].notna().all(axis=None)


def test_a_class_that_is_ranked_below_the_others_beyond_noise_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    target = (of_patients(40, 3) > 0).astype(np.float32)
    shift = np.array([3.0, -1.5, -0.1])  # C is not told apart from 0.5
    scores = {"Random init": -3 * target + of_patients(1, 40, 3, seed=1)}  # of no interest
    scores["CPC"] = shift * target + of_patients(1, 40, 3, seed=2)
    table = tabulated(target, scores)
    row = table.loc[("CPC", "B")]
    assert row["auroc"] == pytest.approx(auroc(scores["CPC"][0], target)[1])
    assert table.loc[("CPC", "C"), "auroc"] < 0.5 < table.loc[("CPC", "C"), "auroc_high"]
    area, low, high = (f"{100 * row[key]:.1f}" for key in ("auroc", "auroc_low", "auroc_high"))
    assert caplog.messages == [
        f"Linear evaluation: CPC ranks the records with B below the others, AUC {area} [{low}, {high}]"
    ]
    caplog.clear()
    tabulated(target, scores | {"CPC": 3 * target + of_patients(1, 40, 3, seed=2)})
    assert not caplog.messages


LEFT_OUT = "classes that fewer than 2 test patients have or lack, and so left out of the average AUC: "


@pytest.mark.parametrize(
    ("counts", "error", "warnings"),
    [
        (
            (4, 8),
            "every test record has the class B, so there is nothing to distinguish it from; change the split, "
            "label_set or label_mode",
            [],
        ),
        ((1, 1), "no class has 2 test patients who have it and 2 who do not; change the split or label_mode", []),
        ((4, 1), None, [LEFT_OUT + "B"]),
        ((0, 6), None, [LEFT_OUT + "A"]),
        ((4, 2), None, []),
    ],
)
def test_a_class_of_all_test_records_is_an_error_and_one_of_hardly_any_a_warning(
    counts: tuple[int, int], error: str | None, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    target = np.zeros((10, 2), dtype=np.float32)
    target[: counts[0], 0], target[: counts[1], 1] = 1, 1
    data: Any = SimpleNamespace(classes=["A", "B"], target=target, groups=np.arange(10))
    if error:
        with pytest.raises(DataError, match=f"^{re.escape(error)}$"):
            check_test(data, np.arange(8))
    else:
        check_test(data, np.arange(8))
    assert caplog.messages == warnings


def test_two_records_of_one_patient_do_not_make_a_class_usable(caplog: pytest.LogCaptureFixture) -> None:
    target = np.zeros((8, 2), dtype=np.float32)
    target[:4, 0], target[:2, 1] = 1, 1
    check_test(SimpleNamespace(classes=["A", "B"], target=target, groups=np.arange(8) // 2), np.arange(8))  # type: ignore[arg-type]
    assert caplog.messages == [LEFT_OUT + "B"]


def test_inverted_classes_are_warned_of_without_random_init(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    evaluation: Any = ECGEvaluation.__new__(ECGEvaluation)
    target = (rng.random((80, 2)) < 0.5).astype(np.float32)
    evaluation.data = SimpleNamespace(classes=["A", "B"], groups=np.arange(80), label_mode="multi")
    evaluation.settings, evaluation.with_text = Settings(random_inits=0), False
    evaluation.rows = {split: np.arange(80) for split in ("val", "test")}
    evaluation.targets = {"val": target, "test": target}
    scores = -3 * target + rng.normal(size=(1, 80, 2))
    evaluation.table({"linear": {"CPC": Outcome([0], scores, scores)}})
    assert [message.partition(", AUC")[0] for message in caplog.messages] == [
        f"Linear evaluation: CPC ranks the records with {code} below the others" for code in "AB"
    ]
    assert "prompts" not in caplog.text
