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
from shared.evaluation.comparison import Column, beyond_noise
from shared.evaluation.evaluate import State
from shared.metrics import auroc, bootstrap_auroc, bootstrap_mean, interval
from shared.runs.configs import Configs
from shared.runs.scores import Outcome, Scores
from shared.runs.variant import Variant
from tests.hand_made import write_evaluation, write_variant

RNG = np.random.default_rng(0)
TARGET = (RNG.random((200, 3)) < 0.4).astype(np.float32)
NOISE = RNG.normal(size=(2, 200, 3))
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
) -> Path:
    """A variant of a method of shared.methods, with the scores of its rows under the protocol `linear`."""
    folder = root / dataset / (name or method.lower())
    seeds = range(max(map(len, rows.values())))
    write_variant(folder, f"shared.methods.{method}", settings, seeds=seeds)
    write_evaluation(folder / "evaluation" / dataset, target, {"linear": rows}, PROTOCOLS, samples)
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


def test_with_equal_models_the_interval_is_that_of_resampled_samples(tmp_path: Path, table: MethodTable) -> None:
    one = scores_of(1.0, models=1)
    row = compared([evaluated(tmp_path, "SimCLR", {"SimCLR": np.concatenate([one, one])})], table).iloc[0]
    low, high = interval(bootstrap_auroc(one, TARGET).samples[:, 0])
    assert (row["AUC_low"], row["AUC_high"]) == (pytest.approx(low), pytest.approx(high))


def test_models_that_disagree_widen_the_interval(tmp_path: Path, table: MethodTable) -> None:
    apart = np.concatenate([scores_of(0.1, models=1), scores_of(3.0, models=1)])
    row = compared([evaluated(tmp_path, "SimCLR", {"SimCLR": apart})], table).iloc[0]
    low, high = interval(bootstrap_auroc(apart, TARGET).samples.mean(1))  # samples alone
    # Of two models drawn from two, a quarter of the draws is either one twice: half their distance from the mean, and
    # sqrt(2 / 1) times that.
    values = [auroc(each, TARGET).mean() for each in apart]
    expected = (values[1] - values[0]) / 2 * 2**0.5
    assert row["AUC_high"] - np.mean(values) == pytest.approx(expected, abs=high - low)
    assert row["AUC_high"] - row["AUC_low"] > 4 * (high - low)


def test_plain_values_of_the_samples_are_averaged_by_their_name(tmp_path: Path, table: MethodTable) -> None:
    folder = evaluated(tmp_path, "SimCLR", {"SimCLR": scores_of(1.0)}) / "evaluation" / "flowers"
    psnr = {"SimCLR": RNG.normal(30, 2, (1, 200)), "Random init": RNG.normal(20, 2, (1, 200))}
    found = {row: Outcome([0], values={"psnr": values}) for row, values in psnr.items()}
    Scores(list(map(str, range(200))), np.arange(200), [], np.empty((200, 0), np.float32), {"20 dB": found}).write(
        folder
    )
    State({}, {}, "", {"20 dB": {"title": "20 dB", "metric": "psnr"}}).write(folder)
    columns = {"columns": {"PSNR": {"protocol": "20 dB"}}, "reference": "SimCLR"}
    path = tmp_path / "psnr.yaml"
    path.write_text(yaml.safe_dump(TABLE | columns))
    row = compared([folder.parents[1]], read_method_table(path)).loc["SimCLR"]
    drawn = [bootstrap_mean(values, 1000).samples[:, 0] for values in psnr.values()]
    assert row["PSNR"] == pytest.approx(psnr["SimCLR"].mean())
    assert (row["PSNR_low"], row["PSNR_high"]) == pytest.approx(interval(drawn[0]))
    ends = row["PSNR_over_random_low"], row["PSNR_over_random_high"]
    assert ends == pytest.approx(interval(drawn[0] - drawn[1]))
    path.write_text(yaml.safe_dump(TABLE | {"columns": {"SSIM": {"protocol": "20 dB", "metric": "ssim"}}}))
    with pytest.raises(DataError, match=r"^these scores hold no ssim; evaluate again$"):
        compared([folder.parents[1]], read_method_table(path))


def test_the_sentences_say_which_differences_are_beyond_noise(folders: list[Path], table: MethodTable) -> None:
    rows = compared(folders, table)
    gain, loss = 100 * rows.loc["Barlow Twins", "AUC_over_random"], 100 * rows.loc["SimCLR", "AUC_over_random"]
    over = 100 * rows["AUC_reference_over"]
    assert beyond_noise(rows.reset_index(), "Barlow Twins", "AUC") == (
        "AUC: against random init, the 95% interval of the difference excludes 0 for (better) "
        f"Barlow Twins ({gain:+.1f}); (worse) SimCLR ({loss:+.1f}); it includes 0 for BYOL (+0.0). Barlow Twins "
        f"against each method: better than SimCLR ({over['SimCLR']:+.1f}), Random init ({over['Random init']:+.1f}), "
        f"BYOL ({over['BYOL']:+.1f}); worse than none; the interval includes 0 for none."
    )


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
    assert "200 test samples and the models are resampled, in pairs for differences." in said
    assert "The paper's numbers are of all flowers. A note." in said
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
