"""`study` and `contrasts`: what is trained, and the lines that say what each part gives, over SYNTHETIC scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from meta_robust.cli import main
from meta_robust.data.module import GROUPS
from meta_robust.evaluation.contrasts import read_contrasts
from meta_robust.evaluation.tables import CONFIGS
from meta_robust.verbs import pipelines
from shared.data.problems import DataError
from tests.hand_made import write_evaluation, write_variant
from tests.recorded import Called, record

TASKS, QUERIES, WAYS, MODELS = 40, 10, 5, 4
LABELS = np.tile(np.arange(QUERIES) % WAYS, TASKS)
TARGET = np.eye(WAYS, dtype=np.float32)[LABELS]
GROUPS_OF = np.repeat(np.arange(TASKS), QUERIES)


def variant(root: Path, name: str, accuracy: float, class_path: str = "meta_robust.MAML") -> str:
    """A variant whose models classify that share of the queries rightly."""
    folder = write_variant(root / "cifar_fs" / name, class_path, {"model.init_args": {}}, range(MODELS))
    rng = np.random.default_rng(list(name.encode()))
    right = rng.random((MODELS, len(LABELS))) < accuracy
    scores = np.eye(WAYS)[np.where(right, LABELS, (LABELS + 1) % WAYS)]
    found = {"1shot": {{"RML": "RML", "MAML": "MAML"}[class_path.partition(".")[2]]: scores}}
    about = {"1shot": {"title": "5-way 1-shot", "metric": "accuracy"}}
    write_evaluation(folder / "evaluation" / "cifar_fs", TARGET, found, about, groups=GROUPS_OF)
    return str(folder)


def test_lines_are_paired_differences_adjusted_for_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [variant(tmp_path, "maml", 0.5), variant(tmp_path, "maml_equal_compute", 0.51),
               variant(tmp_path, "rml", 0.8, "meta_robust.RML")]  # fmt: skip
    rows = main(["contrasts", "--run", *folders, "--results", str(tmp_path / "results.csv")]).set_index("line")
    assert set(rows.index) == {"all of RML", "all of RML, at equal compute", "more tasks an update"}
    hits = {}
    for name in ("maml", "rml"):
        scores = np.load(tmp_path / "cifar_fs" / name / "evaluation" / "cifar_fs" / "scores.npz")
        (key,) = (key for key in scores.files if key.endswith("/scores"))
        hits[name] = (scores[key].argmax(2) == LABELS).mean()
    line = rows.loc["all of RML"]
    assert line["value"] == pytest.approx(hits["rml"] - hits["maml"])
    assert line["low"] < line["value"] < line["high"]
    assert (rows["holm"] >= rows["p"]).all()
    said = capsys.readouterr().out
    assert f"- all of RML: rml - maml = {100 * line['value']:+.1f} points" in said
    assert ", beyond noise (4 models each)" in said
    assert "more tasks an update" in said.split("not told apart")[0]
    kept = pd.read_csv(tmp_path / "results.csv")
    assert kept["data_kind"].unique().tolist() == ["real"]
    assert all((tmp_path / "configs" / f"{name}.yaml").is_file() for name in " ".join(kept["config"]).split())


def test_other_tasks_and_missing_partners_are_errors(tmp_path: Path) -> None:
    folders = [variant(tmp_path, "maml", 0.5), variant(tmp_path, "rml", 0.8, "meta_robust.RML")]
    with pytest.raises(SystemExit, match="no line has both variants evaluated"):
        main(["contrasts", "--run", folders[0]])
    about = {"1shot": {"title": "5-way 1-shot", "metric": "accuracy"}}
    few = {"1shot": {"RML": np.eye(WAYS)[LABELS[None, :10]]}}
    write_evaluation(Path(folders[1]) / "evaluation" / "cifar_fs", TARGET[:10], few, about, groups=GROUPS_OF[:10])
    with pytest.raises(SystemExit, match="evaluated on different tasks of cifar_fs"):
        main(["contrasts", "--run", *folders])


def test_every_line_names_variants_that_the_study_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    called: Called = record(monkeypatch, pipelines)
    main(["study", "--profile", "demo", "--dataset", "cifar_fs", "--root", "r", "--seeds", "0", "1"])
    trained = [words[0].split("/") for verb, words in called if verb == "fit"]
    seeds = {name: [path[-1] for path in trained if path[-2] == name] for *_, name, _ in trained}
    assert {len(found) for name, found in seeds.items() if "+" not in name} == {2}
    assert {len(found) for name, found in seeds.items() if "+" in name} == {1}
    lines = read_contrasts(CONFIGS.folder / "contrasts.yaml")
    assert {name for pair in lines.values() for name in pair} == set(seeds)
    (few,) = (words for verb, words in called if verb == "fit" and "rml+share=0.1/seed_0" in words[0])
    saved = yaml.safe_load(Path(few[0], "config.yaml").read_text())
    assert saved["data"]["init_args"]["share"] == 0.1
    (tasks,) = (words for verb, words in called if verb == "fit" and "rml_tasks/seed_0" in words[0])
    saved = yaml.safe_load(Path(tasks[0], "config.yaml").read_text())
    assert saved["data"]["init_args"]["groups"] == "cifar_fs"
    assert [saved["model"]["init_args"][key] for key in ("environments", "penalty")] == [[], "irmv1_split"]


def test_a_line_that_is_no_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("pairing: [rml]\n")
    with pytest.raises(DataError, match="expected two variants in each line"):
        read_contrasts(tmp_path / "x.yaml")


def test_groups_of_classes_are_large_enough_for_tasks_that_differ() -> None:
    groups = yaml.safe_load((GROUPS / "cifar_fs.yaml").read_text())
    classes = [name for names in groups.values() for name in names]
    assert len(classes) == len(set(classes)) == 64
    assert min(map(len, groups.values())) >= 10
