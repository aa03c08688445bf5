"""`train`, `reproduce`, `tune`, `study`: what they train and call, in order. The trainings are replaced."""

from pathlib import Path

import pytest
import yaml

from tabular_imaging.cli import main
from tabular_imaging.evaluation.tables import CONFIGS
from tabular_imaging.verbs import pipelines
from tests.recorded import Called, record

RUNS = "runs/tabular_imaging"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Called:
    """What a pipeline does, in order."""
    monkeypatch.chdir(tmp_path)
    return record(monkeypatch, pipelines)


def words(called: Called, verb: str) -> list[list[str]]:
    return [words for name, words in called if name == verb]


def table(name: str) -> str:
    return str(CONFIGS.folder / "tables" / f"{name}.yaml")


def test_train_evaluates_frozen_encoders_explains_mmcl_and_prints_table_1(called: Called) -> None:
    main(["train", "--profile", "demo"])
    folders = [f"{RUNS}/dvm_synthetic/{name}" for name in ("supervised", "simclr", "mmcl")]
    assert [word[0] for word in words(called, "fit")] == [f"{folder}/seed_0" for folder in folders]
    settings = ["--settings", str(CONFIGS.folder / "sets" / "synthetic" / "evaluation.yaml")]
    (evaluated,) = words(called, "evaluate")
    assert evaluated == ["--run", *folders, "--missing_only", "true", *settings, "--settings.trainable_epochs", "0"]
    assert words(called, "explain") == [["--run", folders[2]]]
    assert words(called, "print_table") == [["--table", table("table1"), "--run", *folders]]


def test_scarf_trains_without_images_and_is_evaluated_on_tables(called: Called) -> None:
    main(["train", "--profile", "demo", "--methods", "scarf", "--suffix", "_x"])
    (fit,) = words(called, "fit")
    assert fit[0] == f"{RUNS}/dvm_synthetic/scarf_x/seed_0"
    assert not any("images.yaml" in word for word in fit)
    (evaluated,) = words(called, "evaluate")
    assert evaluated[:2] == ["--run", f"{RUNS}/dvm_synthetic/scarf_x"]
    assert evaluated[-2:] == ["--inputs", "table"]
    assert words(called, "print_table") == []


def test_reproduce_makes_every_table_of_the_leaves(called: Called) -> None:
    main(["reproduce", "--profile", "demo", "--dataset", "leaves", "--root", "r", "--methods", "simclr",
          "--variants", "mmcl", "mmcl_laaf", "mmcl_morphometric", "--seeds", "0", "1"])  # fmt: skip
    leaf = {name: f"{RUNS}/leaves/{name}" for name in ("simclr", "mmcl", "mmcl_laaf", "mmcl_morphometric")}
    fits = [word[0] for word in words(called, "fit")]
    assert fits == [
        *(f"{folder}/seed_{seed}" for seed in (0, 1) for folder in leaf.values()),
        *(
            f"{RUNS}/leaves/{name}/seed_{seed}"
            for name in ("mmcl_equal_views", "simclr_equal_steps")
            for seed in (0, 1)
        ),
    ]
    fine_tuned, frozen, equal, longer = words(called, "evaluate")
    assert fine_tuned[1:3] == [leaf["simclr"], leaf["mmcl"]]
    assert frozen[1:3] == [leaf["mmcl_laaf"], leaf["mmcl_morphometric"]]
    assert frozen[-4:] == ["--settings.trainable_epochs", "0", "--root", "r"]
    assert equal[1] == f"{RUNS}/leaves/mmcl_equal_views"
    assert longer[1] == f"{RUNS}/leaves/simclr_equal_steps"
    epochs = [yaml.safe_load(Path(fit, "config.yaml").read_text())["trainer"]["max_epochs"] for fit in fits]
    assert epochs == [40] * 8 + [80] * 4
    assert words(called, "print_table") == [
        ["--table", table("table1"), "--run", leaf["simclr"], leaf["mmcl"]],
        ["--table", table("table2"), "--run", leaf["mmcl"], leaf["mmcl_morphometric"]],
        ["--table", table("table3"), "--run", leaf["mmcl"], leaf["mmcl_laaf"]],
        ["--table", table("figure2_leaves"), "--run", leaf["simclr"], leaf["mmcl"]],
        ["--table", table("equal_views"), "--run", leaf["simclr"], equal[1]],
        ["--table", table("equal_steps"), "--run", longer[1], equal[1]],
    ]


def test_both_cardiac_targets_share_one_folder_of_settings(called: Called) -> None:
    main(["train", "--profile", "demo", "--dataset", "cardiac_cad", "--root", "r", "--methods", "supervised"])
    (fit,) = words(called, "fit")
    assert fit[0] == f"{RUNS}/cardiac_cad/supervised/seed_0"
    saved = yaml.safe_load(Path(fit[0], "config.yaml").read_text())
    assert saved["data"]["init_args"]["disease"] == "cad"
    assert saved["checkpoint"]["monitor"] == "val/auroc"


@pytest.mark.parametrize(
    ("verb", "options", "mark", "count"),
    [("tune", ["--methods", "simclr", "mmcl"], "@", 16), ("study", ["--variants", "epochs", "batch"], "+", 9)],
)
def test_a_search_trains_its_grid_and_ranks_all_that_was_ever_tried(
    called: Called, verb: str, options: list[str], mark: str, count: int
) -> None:
    earlier = Path(RUNS, "leaves", f"mmcl{mark}lr=9").resolve()
    earlier.mkdir(parents=True)
    main([verb, "--profile", "demo", "--dataset", "leaves", "--root", "r", *options, "--results", "out.csv"])
    names = [Path(word[0]).parent.name for word in words(called, "fit")]
    assert len(names) == len(set(names)) == count
    assert {name.split(mark)[0] for name in names} == ({"simclr", "mmcl"} if verb == "tune" else {"mmcl"})
    (ranked,) = words(called, "rank")
    tried = sorted(f"{RUNS}/leaves/{name}" for name in [*names, earlier.name])
    assert ranked == ["--run", *tried, "--results", "out.csv"]
    if verb == "study":
        epochs = [yaml.safe_load(Path(word[0], "config.yaml").read_text())["trainer"]["max_epochs"]
                  for word in words(called, "fit")[:3]]  # fmt: skip
        assert epochs == [20, 40, 80]
