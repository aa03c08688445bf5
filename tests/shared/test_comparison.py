"""Methods compared on the same test samples, from scores made by hand: all numbers here are SYNTHETIC."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shared.data.problems import DataError
from shared.evaluation import MethodTable, compare, print_comparison, read_method_table
from shared.evaluation.alike import alike
from shared.evaluation.comparison import Column
from shared.evaluation.differences import beyond_noise, how_tested
from shared.evaluation.evaluate import State
from shared.evaluation.statistics import auroc_of_one_label, statistic
from shared.metrics import auroc, auroc_values, difference, holm, interval, mean_values
from shared.runs.configs import Configs
from shared.runs.scores import Outcome, Scores
from shared.runs.variant import Variant
from tests.hand_made import write_evaluation, write_variant

RNG = np.random.default_rng(0)
TARGET = (RNG.random((200, 3)) < 0.4).astype(np.float32)
NOISE = RNG.normal(size=(2, 200, 3))
PATIENTS = np.random.default_rng(1).integers(60, size=200)
PROTOCOLS = {"linear": {"title": "Linear evaluation", "metric": "auroc", "labels": 7}}
TABLE: dict[str, Any] = {
    "title": "Table 1",
    "reference": "Barlow Twins",
    "columns": {"AUC": {"protocol": "linear"}},
    "data_sets": {"Flowers": ["flowers", "flowers_small"]},
    "values": {"Flowers": {"SimSiam": {"AUC": 70.5}, "Barlow Twins": {"AUC": 83.5}, "BYOL": {}, "SimCLR": {}}},
    "setting": "The paper's numbers are of all flowers.",
}


def scores_of(strength: float, models: int = 2) -> NDArray[np.float64]:
    """Scores `(M, N, C)` that know the target the better, the greater `strength` is."""
    return np.asarray(strength * TARGET + NOISE[:models])


def evaluated(
    root: Path,
    method: str,
    rows: Mapping[str, NDArray[np.float64]],
    settings: Mapping[str, Any] | None = None,
    dataset: str = "flowers",
    name: str = "",
    samples: list[str] | None = None,
    target: NDArray[np.float32] = TARGET,
    groups: NDArray[np.int64] | None = None,
) -> Path:
    """A variant of a method of shared.methods, with the scores of its rows under the protocol `linear`."""
    folder = root / dataset / (name or method.lower())
    seeds = range(max(map(len, rows.values())))
    write_variant(folder, f"shared.methods.{method}", settings, seeds=seeds)
    write_evaluation(folder / "evaluation" / dataset, target, {"linear": rows}, PROTOCOLS, samples, groups)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """SimCLR a little worse than random init, BYOL exactly as random init, Barlow Twins far better."""
    random = scores_of(1.0)
    return [
        evaluated(tmp_path, "SimCLR", {"SimCLR": scores_of(0.2), "Random init": random}),
        evaluated(tmp_path, "BYOL", {"BYOL": random.copy(), "Random init": scores_of(9.0)}),
        evaluated(tmp_path, "BarlowTwins", {"Barlow Twins": scores_of(4.0)}),
    ]


@pytest.fixture
def table(tmp_path: Path) -> MethodTable:
    path = tmp_path / "table1.yaml"
    path.write_text(yaml.safe_dump(TABLE, sort_keys=False))
    return read_method_table(path)


def compared(folders: list[Path], table: MethodTable) -> pd.DataFrame:
    return compare([Variant(folder) for folder in folders], "flowers", table).set_index("method")


# ---- values, differences, intervals


def test_a_method_is_a_row_and_random_init_is_the_first_variants(folders: list[Path], table: MethodTable) -> None:
    rows = compared(folders, table)
    assert rows.index.tolist() == ["SimCLR", "Random init", "BYOL", "Barlow Twins"]
    expected = np.mean([auroc(each, TARGET).mean() for each in scores_of(1.0)])
    assert rows.loc["Random init", "AUC"] == pytest.approx(expected)
    best, worst = rows.loc["Barlow Twins"], rows.loc["SimCLR"]
    assert rows.loc["BYOL", "AUC_over_random"] == 0
    assert best["AUC_over_random"] == pytest.approx(best["AUC"] - expected)
    assert worst["AUC_reference_over"] == pytest.approx(best["AUC"] - worst["AUC"])
    assert np.isnan(best["AUC_reference_over"])
    assert np.isnan(rows.loc["Random init", "AUC_over_random"])
    assert rows["seeds"].tolist() == ["0 1", "", "0 1", "0 1"]
    assert rows["epochs"].tolist() == [15, 0, 15, 15]
    assert rows["steps"].tolist() == [150, 0, 150, 150]
    assert rows["hours"].tolist() == [0.5, 0, 0.5, 0.5]
    assert rows["models"].tolist() == [2] * 4
    assert rows["samples"].tolist() == [200] * 4
    assert rows["AUC_labels"].tolist() == [7] * 4  # what the evaluation says of its protocol
    of_models = [f"{auroc(each, TARGET).mean():.4f}" for each in scores_of(0.2)]
    assert rows.loc["SimCLR", "AUC_models"].split(" ") == of_models
    assert rows["AUC_metric"].unique().tolist() == ["auroc"]


SCORES = {"SimCLR": 0.2, "Random init": 1.0, "BYOL": 1.0, "Barlow Twins": 4.0}


def keys_of(kind: str, column: str = "AUC") -> list[str]:
    return [f"{column}_{kind}{end}" for end in ("", "_low", "_high", "_p")]


def test_intervals_and_differences_are_those_of_the_samples_and_models(folders: list[Path], table: MethodTable) -> None:
    rows = compared(folders, table)
    values = {method: auroc_values(scores_of(strength), TARGET) for method, strength in SCORES.items()}
    for method in SCORES:
        found = interval(values[method])
        assert rows.loc[method, ["AUC", "AUC_low", "AUC_high"]].tolist() == pytest.approx(found[:3])
        if method != "Random init":
            gain = difference(values[method], values["Random init"])
            assert rows.loc[method, keys_of("over_random")].tolist() == pytest.approx(gain)
        if method != "Barlow Twins":
            over = difference(values["Barlow Twins"], values[method])
            assert rows.loc[method, keys_of("reference_over")].tolist() == pytest.approx(over)
    assert rows.loc["Random init", keys_of("over_random")].isna().all()
    assert rows.loc["Barlow Twins", keys_of("reference_over")].isna().all()


def test_the_records_of_a_patient_count_as_one_group(tmp_path: Path, table: MethodTable) -> None:
    rng = np.random.default_rng(2)
    target = (rng.random((60, 3)) < 0.4).astype(np.float32)[PATIENTS]

    def scores() -> NDArray[np.float64]:
        return np.asarray(target + rng.normal(size=(60, 3))[PATIENTS] + 0.1 * rng.normal(size=(2, 200, 3)))

    rows = {"Barlow Twins": scores(), "Random init": scores()}
    folder = evaluated(tmp_path, "BarlowTwins", rows, target=target, groups=PATIENTS)
    row = compared([folder], table).loc["Barlow Twins"]
    plus, minus = (auroc_values(each, target, PATIENTS) for each in rows.values())
    assert row[["AUC", "AUC_low", "AUC_high"]].tolist() == pytest.approx(interval(plus)[:3])
    assert row[keys_of("over_random")].tolist() == pytest.approx(difference(plus, minus))
    alone, other = (auroc_values(each, target) for each in rows.values())
    found, gain = interval(alone), difference(alone, other)
    assert row["AUC"] == pytest.approx(found.value)
    assert row["AUC_high"] - row["AUC_low"] > 1.4 * (found.high - found.low)
    assert row["AUC_over_random_high"] - row["AUC_over_random_low"] > 1.4 * (gain.high - gain.low)


def test_with_equal_models_the_interval_is_that_of_one_alone(tmp_path: Path, table: MethodTable) -> None:
    one = scores_of(1.0, models=1)
    row = compared([evaluated(tmp_path, "SimCLR", {"SimCLR": np.concatenate([one, one])})], table).iloc[0]
    _, low, high, _ = interval(auroc_values(one, TARGET))
    assert (row["AUC_low"], row["AUC_high"]) == (pytest.approx(low), pytest.approx(high))


def test_models_that_disagree_widen_the_interval(tmp_path: Path, table: MethodTable) -> None:
    apart = np.concatenate([scores_of(0.1, models=1), scores_of(3.0, models=1)])
    row = compared([evaluated(tmp_path, "SimCLR", {"SimCLR": apart})], table).iloc[0]
    widths = [high - low for _, low, high, _ in (interval(auroc_values(each, TARGET)) for each in apart)]
    assert row["AUC_high"] - row["AUC_low"] > 4 * max(widths)


@pytest.mark.parametrize("groups", [None, PATIENTS])
def test_plain_values_of_the_samples_are_averaged_by_their_name(
    tmp_path: Path, table: MethodTable, groups: NDArray[np.int64] | None
) -> None:
    folder = evaluated(tmp_path, "SimCLR", {"SimCLR": scores_of(1.0)}) / "evaluation" / "flowers"
    psnr = {"SimCLR": RNG.normal(30, 2, (1, 200)), "Random init": RNG.normal(20, 2, (1, 200))}
    found = {row: Outcome([0], values={"psnr": values}) for row, values in psnr.items()}
    of_samples = np.arange(200) if groups is None else groups
    Scores(list(map(str, range(200))), of_samples, [], np.empty((200, 0), np.float32), {"20 dB": found}).write(folder)
    State({}, {}, "", {"20 dB": {"title": "20 dB", "metric": "psnr"}}).write(folder)
    columns = {"columns": {"PSNR": {"protocol": "20 dB"}}, "reference": "SimCLR"}
    path = tmp_path / "psnr.yaml"
    path.write_text(yaml.safe_dump(TABLE | columns))
    row = compared([folder.parents[1]], read_method_table(path)).loc["SimCLR"]
    plus, minus = (mean_values(values, groups, bounded=False) for values in psnr.values())
    assert row["PSNR"] == pytest.approx(psnr["SimCLR"].mean())
    assert row[["PSNR_low", "PSNR_high"]].tolist() == pytest.approx(interval(plus)[1:3])
    assert row[keys_of("over_random", "PSNR")].tolist() == pytest.approx(difference(plus, minus))
    path.write_text(yaml.safe_dump(TABLE | {"columns": {"SSIM": {"protocol": "20 dB", "metric": "ssim"}}}))
    with pytest.raises(DataError, match=r"^these scores hold no ssim; evaluate again$"):
        compared([folder.parents[1]], read_method_table(path))


def test_p_values_are_adjusted_over_all_columns_and_the_reference_over_random_init_counts_once(
    folders: list[Path], table: MethodTable
) -> None:
    two = MethodTable("Two", "Barlow Twins", {"AUC": Column("linear"), "Top-1": Column("linear", "accuracy")})
    hits = {name: scores_of(strength).argmax(2) == TARGET.argmax(1) for name, strength in SCORES.items()}
    values = {("AUC", name): auroc_values(scores_of(strength), TARGET) for name, strength in SCORES.items()}
    values |= {("Top-1", name): mean_values(each) for name, each in hits.items()}
    pairs = [(name, "Random init") for name in ("SimCLR", "BYOL", "Barlow Twins")]
    pairs += [("Barlow Twins", name) for name in ("SimCLR", "BYOL")]
    for columns, shown in ((["AUC", "Top-1"], two), (["AUC"], table)):
        p = {(column, *pair): difference(*(values[column, name] for name in pair)).p for column in columns
             for pair in pairs}  # fmt: skip
        adjusted = dict(zip(p, holm(list(p.values())), strict=True))
        rows = compared(folders, shown)
        for (column, plus, minus), expected in adjusted.items():
            cells = [(plus, "over_random")] if minus == "Random init" else []
            cells += [(minus, "reference_over")] if plus == "Barlow Twins" else []
            for row, key in cells:
                assert rows.loc[row, f"{column}_{key}_holm"] == pytest.approx(expected, rel=1e-9)
        assert how_tested(rows.reset_index(), columns) == (
            f"Tested: {5 * len(columns)} differences, each by a t-test over test samples and models; one is called "
            "better or worse if its p-value, adjusted for their number (Holm), is below 0.05. Intervals are not "
            "adjusted."
        )
        assert len(set(adjusted.values())) > len(columns)


def test_without_random_init_or_the_reference_only_the_other_differences_are_tested(
    folders: list[Path], table: MethodTable, tmp_path: Path
) -> None:
    other = evaluated(tmp_path, "SimSiam", {"SimSiam": scores_of(2.0)})
    rows = compared([folders[2], other], table)
    assert rows.loc["SimSiam", "AUC_reference_over_holm"] == rows.loc["SimSiam", "AUC_reference_over_p"]
    assert not any("over_random" in column for column in rows)
    assert how_tested(rows.reset_index(), ["AUC"]).startswith("Tested: 1 difference, ")
    rows = compared(folders[:2], table)
    p = rows.loc[["SimCLR", "BYOL"], "AUC_over_random_p"]
    assert rows.loc[["SimCLR", "BYOL"], "AUC_over_random_holm"].tolist() == holm(p).tolist()
    assert not any("reference_over" in column for column in rows)
    assert how_tested(rows.reset_index(), ["AUC"]).startswith("Tested: 2 differences, ")


def test_the_sentences_say_which_differences_are_beyond_noise(folders: list[Path], table: MethodTable) -> None:
    rows = compared(folders, table)
    gain, loss = 100 * rows.loc["Barlow Twins", "AUC_over_random"], 100 * rows.loc["SimCLR", "AUC_over_random"]
    over = 100 * rows["AUC_reference_over"]
    better = [f"{name} ({over[name]:+.1f})" for name in ("SimCLR", "Random init", "BYOL")]
    assert beyond_noise(rows.reset_index(), "Barlow Twins", "AUC") == (
        f"AUC: better than random init are Barlow Twins ({gain:+.1f}); worse none; not told apart from it "
        f"SimCLR ({loss:+.1f}), BYOL (+0.0). Barlow Twins is better than {', '.join(better)}; worse than none; not "
        "told apart from none."
    )
    assert rows.loc["SimCLR", "AUC_over_random_holm"] > 0.05  # though both models are worse than random init
    worse = rows.assign(AUC_over_random_holm=0.049)
    assert f"worse SimCLR ({loss:+.1f}), BYOL (+0.0); not told apart from it none. " in beyond_noise(
        worse.reset_index(), "Barlow Twins", "AUC"
    )


def test_a_class_that_one_sample_has_is_left_out_for_all_and_named(tmp_path: Path, table: MethodTable) -> None:
    target = TARGET.copy()
    target[:, 1] = np.arange(200) == 17
    rows = {"Barlow Twins": scores_of(2.0), "Random init": scores_of(1.0)}
    folder = evaluated(tmp_path, "BarlowTwins", rows, target=target)
    found = compare([Variant(folder)], "flowers", table)
    assert found.attrs["left_out"] == ["class 1"]
    for name, scores in rows.items():
        areas = [auroc(each, target)[[0, 2]].mean() for each in scores]
        assert found.set_index("method").loc[name, "AUC"] == pytest.approx(np.mean(areas))
    whole = evaluated(tmp_path, "BarlowTwins", rows)
    assert compare([Variant(whole)], "flowers", table).attrs["left_out"] == []


# ---- statistics


def test_accuracy_is_the_share_of_samples_whose_highest_score_is_that_of_their_class() -> None:
    scores = np.array([[[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [1, 0]]])
    target = np.eye(2, dtype=np.float32)[[1, 0, 0, 0]]
    found = statistic("accuracy")(Outcome([0, 1], scores), target, np.array([5, 5, 8, 9]))
    assert found.point.tolist() == pytest.approx([0.75, 0.75])
    assert found.bounded
    # A group's pseudo-value: 0.75 + 3 / 4 of what its samples are above or below 0.75.
    expected = [[0.75 + 3 / 4 * 0.5, 0.75 - 3 / 4 * 0.75, 0.75 + 3 / 4 * 0.25]]
    expected.append([0.75 - 3 / 4 * 0.5, *[0.75 + 3 / 4 * 0.25] * 2])
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_of_two_classes_the_area_is_the_seconds_alone_and_of_three_the_mean() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        target = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=40)]
        scores = rng.normal(size=(2, 40, classes))
        found = auroc_of_one_label(Outcome([0, 1], scores), target, PATIENTS[:40])
        areas = [auroc(each, target) for each in scores]
        assert found.point.tolist() == pytest.approx([each[1] if classes == 2 else each.mean() for each in areas])
        assert found.values.shape == (2, len(set(PATIENTS[:40])))


def test_plain_values_are_bounded_if_all_of_them_lie_between_0_and_1() -> None:
    values = np.random.default_rng(0).random((2, 8))
    for bounded, changed in ((True, values), (False, values - 0.5), (False, 2 * values)):
        found = statistic("psnr")(Outcome([0, 1], values={"psnr": changed}), np.empty((8, 0)), np.arange(8) // 2)
        assert found.bounded == bounded
        assert found.values.shape == (2, 4)
        assert found.point.tolist() == pytest.approx(changed.mean(1).tolist())


def test_the_best_f1_has_values_but_no_interval_and_no_difference_of_it_is_tested(
    folders: list[Path], table: MethodTable
) -> None:
    rows = compared(folders, MethodTable("F", "Barlow Twins", {"F1": Column("linear", "best_f1")}))
    assert rows["F1_models"].str.split(" ").map(len).tolist() == [2] * 4
    assert rows[["F1_low", "F1_high"]].isna().all(axis=None)
    assert not any("_over" in column for column in rows)
    both = MethodTable("F", "Barlow Twins", {"AUC": Column("linear"), "F1": Column("linear", "best_f1")})
    alone, beside = compared(folders, table), compared(folders, both)
    pd.testing.assert_series_equal(beside["AUC_over_random_holm"], alone["AUC_over_random_holm"])


def test_scores_without_classes_have_no_accuracy() -> None:
    with pytest.raises(DataError, match=r"^these scores hold no class scores; evaluate again$"):
        statistic("accuracy")(Outcome([0], values={"psnr": np.zeros((1, 4))}), TARGET, np.arange(200))


# ---- what cannot be compared


def test_other_samples_or_classes_are_not_compared(folders: list[Path], table: MethodTable, tmp_path: Path) -> None:
    moved = [str(sample) for sample in range(1, 201)]
    rows = {"SimSiam": scores_of(1.0)}
    for other in (
        evaluated(tmp_path, "SimSiam", rows, name="moved", samples=moved),
        evaluated(tmp_path, "SimSiam", rows, name="changed", target=1 - TARGET),
    ):
        with pytest.raises(DataError) as error:
            compared([*folders, other], table)
        assert str(error.value) == (
            f"{other}/evaluation/flowers and {folders[0]}/evaluation/flowers were evaluated on different samples or "
            "classes, so they cannot be compared; train and evaluate both with the same data settings"
        )


def test_one_row_twice_or_no_scores_of_the_protocol_are_errors(
    folders: list[Path], table: MethodTable, tmp_path: Path
) -> None:
    again = evaluated(tmp_path, "SimCLR", {"SimCLR": scores_of(1.0)}, name="simclr_warm")
    with pytest.raises(DataError, match=r"simclr_warm and another of the variants are both SimCLR; compare one at a"):
        compared([*folders, again], table)
    other = MethodTable("Other", "SimCLR", {"F": Column("fine_tune")})
    with pytest.raises(DataError, match=r"simclr/evaluation/flowers has no scores of fine_tune; evaluate again$"):
        compared(folders, other)


def test_an_evaluation_that_was_stopped_is_named(folders: list[Path], table: MethodTable) -> None:
    state = folders[1] / "evaluation" / "flowers" / "evaluation.json"
    for spoil in (lambda: state.write_text("{"), state.unlink):
        spoil()
        with pytest.raises(DataError, match=rf"^{state} is missing or damaged; evaluate again$"):
            compared(folders, table)


# ---- trained alike


@pytest.fixture
def configs(tmp_path: Path) -> Configs:
    """SimCLR and BYOL for 30 epochs (15 in the demo profile); on `flowers` SimSiam has 200 of its own (100)."""
    files: dict[str, Any] = {
        "base": {"trainer": {"max_epochs": 30, "precision": "bf16-mixed"}},
        "demo": {"trainer": {"max_epochs": 15, "precision": "32-true"}},
        **{
            f"methods/{name.lower()}": {"model": {"class_path": f"shared.methods.{name}"}}
            for name in ("SimCLR", "BYOL", "SimSiam", "BarlowTwins")
        },
        "sets/flowers/set": {"run": {"dataset": "flowers"}, "data": {"init_args": {"batch_size": 64}}},
        "sets/flowers/simsiam": {"trainer": {"max_epochs": 200}},
    }
    for name, content in files.items():
        path = tmp_path / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    return Configs(tmp_path / "configs")


def trained(root: Path, method: str, dataset: str = "flowers", **settings: Any) -> Variant:
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    return Variant(write_variant(root / dataset / method.lower(), f"shared.methods.{method}", changes, seeds=[0]))


OWN = "which is not what the methods' own YAMLs give them"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"trainer__precision": "bf16-mixed"}, "precision (32-true and bf16-mixed)"),
        ({"model__init_args__encoder": {"init_args": {"width": 64}}}, "encoder (init_args: width: 32 and 64)"),
        ({"model__init_args__encoder": None}, "encoder ({'init_args': {'width': 32}} and None)"),
        ({"data__init_args__normalize": "none"}, "data settings (normalize: None and none)"),
        ({"data__class_path": "toy.Other"}, "data settings (class_path: toy.Data and toy.Other)"),
        ({"trainer__max_epochs": 1}, f"trainer.max_epochs (15 and 1), {OWN}"),
        ({"trainer__max_epochs": 200}, f"trainer.max_epochs (15 and 200), {OWN}"),  # of another method, and profile
        ({"trainer__max_steps": 9}, f"trainer.max_steps (-1 and 9), {OWN}"),
        ({"trainer__limit_train_batches": 0.1}, f"trainer.limit_train_batches (1.0 and 0.1), {OWN}"),
        ({"data__init_args__batch_size": 32}, f"data.init_args.batch_size (64 and 32), {OWN}"),
    ],
)
def test_variants_that_were_trained_otherwise_are_not_compared(
    tmp_path: Path, configs: Configs, changes: dict[str, Any], difference: str
) -> None:
    first, other = trained(tmp_path, "SimCLR"), trained(tmp_path, "BYOL", **changes)
    with pytest.raises(DataError) as error:
        alike([first, other], configs)
    assert str(error.value) == (
        f"the trainings of {first.folder} and {other.folder} differ in {difference}, so comparing the methods says "
        "nothing: train them alike, or show them in separate tables (--apart true)"
    )
    again = trained(tmp_path, "BarlowTwins", **changes)
    assert alike([first, other, again], configs, apart=True) == [[first], [other, again]]


def test_places_machines_and_seeds_are_no_difference(tmp_path: Path, configs: Configs) -> None:
    first = trained(tmp_path, "SimCLR", data__init_args__root="here", trainer__devices=1, trainer__max_steps=None)
    second = trained(
        tmp_path, "BYOL", data__init_args__root="there", data__init_args__seed=3, data__init_args__num_workers=8
    )
    assert alike([first, second], configs) == [[first, second]]


@pytest.mark.parametrize("epochs", [(15, 200), (30, 200)])
def test_a_budget_that_the_yamls_give_a_method_stands(
    tmp_path: Path, configs: Configs, epochs: tuple[int, int]
) -> None:
    first = trained(tmp_path, "SimCLR", trainer__max_epochs=epochs[0])
    second = trained(tmp_path, "SimSiam", trainer__max_epochs=epochs[1])
    assert alike([first, second], configs) == [[first, second]]
    small, shorter = (
        trained(tmp_path / "small", method, trainer__max_epochs=count, data__init_args__batch_size=8)
        for method, count in zip(("SimCLR", "SimSiam"), epochs, strict=True)
    )
    assert alike([small, shorter], configs) == [[small, shorter]]  # what was changed for both is no difference
    mine, other = (
        trained(tmp_path, method, "mine", trainer__max_epochs=count)
        for method, count in zip(("SimCLR", "SimSiam"), epochs, strict=True)
    )
    with pytest.raises(DataError, match=rf"differ in trainer\.max_epochs \({epochs[0]} and 200\), {OWN}"):
        alike([mine, other], configs)  # on a set of one's own no method has epochs of its own


def test_budgets_of_two_profiles_are_not_alike(tmp_path: Path, configs: Configs) -> None:
    demo, gpu = trained(tmp_path, "SimCLR"), trained(tmp_path, "BYOL", trainer__max_epochs=30)
    with pytest.raises(DataError, match=rf"differ in trainer\.max_epochs \(15 and 30\), {OWN}"):
        alike([demo, gpu], configs)


# ---- the printed table


class Printed:
    """Prints a table, and keeps what was said, drawn and returned."""

    def __init__(self, table: MethodTable, configs: Configs, capsys: pytest.CaptureFixture[str]) -> None:
        self.table, self.configs, self.capsys = table, configs, capsys
        self.drawn: list[tuple[list[str], str, str]] = []

    def draw(self, rows: pd.DataFrame, table: MethodTable, title: str, note: str) -> Figure:
        self.drawn.append((rows["method"].tolist(), title, note))
        return Figure()

    def __call__(self, folders: list[Path], **options: Any) -> tuple[pd.DataFrame, str, list[list[str]]]:
        """The rows, the words printed, and the cells of the printed rows."""
        rows = print_comparison(
            self.table, "table1", [Variant(folder) for folder in folders], self.configs, self.draw, **options
        )
        said = self.capsys.readouterr().out
        cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line[:1] == "│"]
        return rows, " ".join(said.split()), cells


@pytest.fixture
def printed(table: MethodTable, configs: Configs, capsys: pytest.CaptureFixture[str]) -> Printed:
    return Printed(table, configs, capsys)


def test_the_table_stands_beside_the_papers_and_its_rows_go_to_results(
    folders: list[Path], printed: Printed, tmp_path: Path
) -> None:
    results = tmp_path / "results" / "table1.csv"
    rows, said, cells = printed(folders, results=results, note="A note.")
    order = ["Random init", "Barlow Twins", "BYOL", "SimCLR"]  # the paper's
    assert rows["method"].tolist() == order
    assert [line[1] for line in cells] == ["Random init", "SimSiam", "Barlow Twins", "BYOL", "SimCLR"]
    best = rows.set_index("method").loc["Barlow Twins"]
    ends = f"{100 * best['AUC_low']:.1f}, {100 * best['AUC_high']:.1f}"
    gain = f"{100 * best['AUC_over_random_low']:.1f}, {100 * best['AUC_over_random_high']:.1f}"
    assert cells[2][2:] == [
        "83.5",
        f"{100 * best['AUC']:.1f} ± {100 * best['AUC_std']:.1f} [{ends}]",
        f"{100 * best['AUC_over_random']:+.1f} [{gain}]",
        "-",
        "15 (150)",
        "0.50",
    ]
    assert cells[1][2:] == ["70.5", "-", "-", "-", "-", "-"]  # not among ours
    assert "Table 1; ours trained on flowers, evaluated on flowers, percent" in said
    assert (
        "[...]: 95% interval over 200 test samples and the models, paired by sample for differences. The paper's "
        "numbers are of all flowers. A note. Tested: 5 differences, each by a t-test"
    ) in said
    assert "Left out" not in said
    assert "trained for 1.50 hours in all" in said
    assert beyond_noise(rows, "Barlow Twins", "AUC") in said
    assert "SYNTHETIC" not in said
    assert "One pre-trained model" not in said
    assert printed.drawn == [(order, "Table 1, flowers", "")]
    assert (tmp_path / "flowers" / "comparison" / "figures" / "flowers_table1.png").is_file()
    written = pd.read_csv(results).set_index("method")
    assert written.index.tolist() == order
    assert written.loc["Barlow Twins", "AUC_low"] == pytest.approx(best["AUC_low"], abs=1e-4)
    assert written["AUC_paper_percent"].fillna(0).tolist() == [0, 83.5, 0, 0]
    shared = {"table": "table1", "paper_data_set": "Flowers", "data_kind": "real", "batch_size": 64}
    shared |= {"dataset": "flowers", "trained_on": "flowers", "precision": "32-true"}
    assert written.loc["Barlow Twins", list(shared)].tolist() == list(shared.values())
    assert written[["date", "revision", "hardware", "python", "torch"]].notna().all().all()


def test_classes_that_are_left_out_and_the_column_of_the_differences_are_named_below_the_table(
    printed: Printed, tmp_path: Path
) -> None:
    target = TARGET.copy()
    target[:, :2] = np.arange(200)[:, None] == (17, 18)
    rows = {"Barlow Twins": scores_of(2.0), "Random init": scores_of(1.0)}
    columns = {"AUC": Column("linear"), "Top-1": Column("linear", "accuracy")}
    printed.table = MethodTable("Two", "Barlow Twins", columns)
    found, said, _ = printed([evaluated(tmp_path, "BarlowTwins", rows, target=target)])
    assert (
        "[...]: 95% interval over 200 test samples and the models, paired by sample for differences. The differences "
        "are those of AUC. Left out, as fewer than 2 groups have or lack them: class 0, class 1. Tested: 2 "
        "differences, "
    ) in said
    for column in columns:
        assert beyond_noise(found, "Barlow Twins", column) in said


def test_synthetic_data_is_said_loudly(printed: Printed, tmp_path: Path) -> None:
    rows = {"SimCLR": scores_of(2.0), "Random init": scores_of(1.0)}
    folder = evaluated(tmp_path, "SimCLR", rows, {"run.tags": ["synthetic"]})
    found, said, _ = printed([folder])
    assert said.startswith("SYNTHETIC DATA: ours says nothing about the world, and is no result.")
    assert "(SYNTHETIC data)" in said
    assert printed.drawn[0][2] == "SYNTHETIC"
    assert found["data_kind"].unique().tolist() == ["synthetic"]


def test_one_model_a_method_is_said_to_hold_the_noise_of_the_samples_alone(
    folders: list[Path], printed: Printed
) -> None:
    for folder in folders:
        shutil.rmtree(folder / "seed_1")
    said = printed(folders)[1]
    assert "One pre-trained model per method: the intervals cover the noise of the samples, but not that" in said


def test_a_data_set_and_a_method_that_the_paper_lacks_stand_without_its_values(
    printed: Printed, tmp_path: Path
) -> None:
    rows = {"Barlow Twins": scores_of(2.0), "Random init": scores_of(1.0)}
    found, _, cells = printed([evaluated(tmp_path, "BarlowTwins", rows, dataset="own")])
    assert [line[:3] for line in cells] == [["own", "Random init", "-"], ["", "Barlow Twins", "-"]]
    assert "AUC_paper_percent" not in found
    assert found["paper_data_set"].unique().tolist() == [""]


def test_variants_that_were_trained_otherwise_have_tables_of_their_own_when_asked(
    folders: list[Path], printed: Printed, tmp_path: Path
) -> None:
    half = evaluated(tmp_path, "SimSiam", {"SimSiam": scores_of(1.0)}, {"trainer.precision": "bf16-mixed"})
    with pytest.raises(DataError, match=r"differ in precision \(32-true and bf16-mixed\), .* \(--apart true\)$"):
        printed([*folders, half])
    rows, said, _ = printed([*folders, half], apart=True)
    assert rows["precision"].tolist() == ["32-true"] * 4 + ["bf16-mixed"]
    assert said.count("Table 1; ours trained on flowers") == 2


def test_without_any_evaluation_the_command_that_makes_it_is_named(folders: list[Path], printed: Printed) -> None:
    for folder in folders:
        shutil.rmtree(folder / "evaluation")
    package = folders[0].parts[-3]
    with pytest.raises(DataError) as error:
        printed(folders)
    assert str(error.value) == (
        f"no data set of Table 1 has all variants evaluated: run python -m {package} evaluate --run "
        f"{' '.join(map(str, folders))}"
    )


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(DataError) as error:
        read_method_table(path)
    assert str(error.value) == f"no file {path}; the paper's tables are in <package>/configs/tables/"
    wrong = [TABLE | {"rows": 3}, TABLE | {"columns": {"A": {"row": 1}}}, TABLE | {"columns": 1}]
    for content in ("title: Table 1\n", "- 1\n", "", "a: [\n", *map(yaml.safe_dump, wrong)):
        path.write_text(content)
        with pytest.raises(DataError) as error:
            read_method_table(path)
        said = " ".join(str(error.value).split())
        assert said.startswith(f"{path} is not a table of methods (")
        assert said.endswith("); see the files of configs/tables/")


def test_the_number_of_tests_is_right_where_random_init_lacks_a_column() -> None:
    rows = pd.DataFrame(
        {
            "method": ["Random init", "SimCLR", "MMCL"],
            "Frozen_over_random_p": [np.nan, 0.1, 0.1],
            "Frozen_reference_over_p": [0.1, 0.1, np.nan],
            "Trainable_reference_over_p": [np.nan, 0.1, np.nan],
        }
    )
    assert how_tested(rows, ["Frozen", "Trainable"]).startswith("Tested: 4 differences, ")
    assert how_tested(rows, ["Trainable"]).startswith("Tested: 1 difference, ")


@pytest.mark.parametrize("other", [np.arange(200) // 2, np.arange(200) % 2], ids=["pairs", "two groups"])
def test_variants_with_other_groups_are_not_compared(
    tmp_path: Path, table: MethodTable, other: NDArray[np.int64]
) -> None:
    one = evaluated(tmp_path, "SimCLR", {"SimCLR": scores_of(1.0)})
    two = evaluated(tmp_path, "BYOL", {"BYOL": scores_of(1.0)}, groups=other)
    with pytest.raises(DataError, match=r" were evaluated on different samples or classes, so they cannot be compared"):
        compare([Variant(one), Variant(two)], "flowers", table)


def test_groups_that_are_only_numbered_otherwise_are_the_same(tmp_path: Path, table: MethodTable) -> None:
    one = evaluated(tmp_path, "SimCLR", {"SimCLR": scores_of(1.0)})
    two = evaluated(tmp_path, "BYOL", {"BYOL": scores_of(2.0)}, groups=np.arange(200)[::-1].copy())
    three = evaluated(tmp_path, "BYOL", {"BYOL": scores_of(2.0)}, name="as_they_are")
    found, expected = (
        compare([Variant(one), Variant(other)], "flowers", table).set_index("method").loc["BYOL"]
        for other in (two, three)
    )
    assert (found["AUC"], found["AUC_low"]) == (expected["AUC"], expected["AUC_low"])
