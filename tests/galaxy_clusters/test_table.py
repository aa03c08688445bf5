"""The table: which galaxies encoders are compared on, their rows, the paper's sentences, the bottleneck, commands."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import HDBSCAN
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from galaxy_clusters.cli import main
from galaxy_clusters.clustering.chain import ChainSettings
from galaxy_clusters.clustering.chain import cluster as chain
from galaxy_clusters.data.module import SurveyDataModule
from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.evaluation import bottleneck as bottleneck_module
from galaxy_clusters.evaluation import independence
from galaxy_clusters.evaluation.bottleneck import pca_curve, probe, votes_beside, votes_likelihood
from galaxy_clusters.evaluation.encoders import Reading, compared, corrected, encoder_rows, known_classes
from galaxy_clusters.evaluation.found import CONFIGS, Found
from galaxy_clusters.evaluation.statements import (
    Statement,
    clusterer,
    described,
    read_statements,
    scaled,
    try_statements,
)
from galaxy_clusters.losses import votes_nll
from galaxy_clusters.module import GalaxyVotes
from galaxy_clusters.verbs import pipelines
from galaxy_clusters.verbs import table as table_module
from galaxy_clusters.verbs.agree import agree
from galaxy_clusters.verbs.embed import embed_run
from shared.backbones import Pixels
from shared.data.problems import DataError
from shared.metrics import best_matches, holm, interval, mean_values
from shared.runs.pipeline import Options, Plan, Wanted

OWN = ChainSettings(neighbours=30, min_samples=15, min_cluster_size=15)
CHAIN = ChainSettings(neighbours=10, min_samples=5, min_cluster_size=10, dims=2)


def stub(root: Path, frame: pd.DataFrame, **more: Any) -> SurveyDataModule:
    """A survey that is set up, as far as the table looks."""
    settings = {"hidden_classes": [], "target_column": None, "schema": None, "splits": ("train", "val", "test"),
                "catalogue": root / "catalogue.csv", "faulty": np.zeros(len(frame), bool)}  # fmt: skip
    return cast(SurveyDataModule, SimpleNamespace(root=root, frame=frame, **settings | more))


def test_hidden_classes_and_the_held_out_part_of_the_others_are_compared(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": list("abcdef"), "split": ["train", "val", "test", "test", "train", "test"]})
    labels = np.array(["merger", "merger", "disc", "disc", "disc", ""], object)
    survey = stub(tmp_path, frame, target_column="kind", labels=labels, hidden_classes=["merger"],
                  faulty=np.arange(6) == 3)  # fmt: skip
    assert compared(survey).fillna("-").to_numpy().tolist() == [
        ["a", "merger"],
        ["b", "merger"],
        ["c", "disc"],
        ["f", "-"],
    ]


def test_without_hidden_classes_those_that_pass_the_cuts_by_votes_are_compared(tmp_path: Path) -> None:
    schema = read_schema("desi")
    frame = pd.DataFrame(0, range(4), schema.columns).assign(id=list("abcd"), split="train")
    frame["smooth-or-featured_smooth"] = [5, 1, 1, 1]
    frame["smooth-or-featured_featured-or-disk"] = [4, 8, 5, 8]
    frame["smooth-or-featured_artifact"] = [1, 1, 4, 1]
    frame["disk-edge-on_yes"], frame["disk-edge-on_no"] = [0, 1, 1, 4], [4, 7, 4, 4]
    survey = stub(tmp_path, frame, schema=schema)
    with pytest.raises(DataError) as error:
        compared(survey)
    assert str(error.value) == (
        f"{tmp_path}/catalogue.csv: nobody knows a class of any galaxy; truth.csv beside it would say, as kind and "
        "artefact_kind"
    )
    truth = pd.DataFrame({"id": list("abcd"), "kind": ["disc", "disc", "artefact", "disc"], "artefact_kind": None})
    truth.loc[2, "artefact_kind"] = "ghost"
    truth.to_csv(tmp_path / "truth.csv", index=False)
    assert compared(survey).to_numpy().tolist() == [["b", "disc"]]
    assert compared(survey, artefacts=True).to_numpy().tolist() == [["b", "no artefact"], ["c", "ghost"]]
    assert set(known_classes(survey)) == {"disc", "artefact"}


def reading(seed: str, shares: list[float], **leaf: float) -> Reading:
    values = {"galaxies": len(shares), "base_rate": 0.1, "jaccard": 0.5, "purity": 0.5, "recall": 0.5,
              "p_family": np.nan, "enriched_purity": 0.5, "patches_as_good": 0.5, "enriched_p": 0.5}  # fmt: skip
    classes = pd.DataFrame({"ring": values | leaf}).T
    return Reading(seed, classes, {"ring": np.array(shares)}, 7, 0.4, {"p": 0.2, "word": "not decided"})


def test_rows_hold_intervals_over_galaxies_and_models_and_paired_differences() -> None:
    rng = np.random.default_rng(0)
    floor, models = rng.random(40) * 0.5, 0.3 + rng.random((3, 40)) * 0.6
    readings = [reading(str(seed), shares, patches_as_good=0.1 * seed) for seed, shares in enumerate(models.tolist())]
    low = reading("-", floor.tolist())
    rows = [*encoder_rows("one", readings, low), *encoder_rows("two", readings[:1], low), *encoder_rows("floor", [low])]
    table = corrected(rows).set_index("encoder")
    expected = interval(mean_values(models))
    assert table.loc["one", ["neighbour_purity", "neighbour_purity_low", "neighbour_purity_high"]].tolist() == (
        pytest.approx(expected[:3])
    )
    assert table["seeds"].to_dict() == {"one": "0 1 2", "two": "0", "floor": "-"}
    assert table.loc["one", "above_floor"] == pytest.approx(models.mean() - floor.mean())
    assert table.loc["one", "patches_as_good"] == pytest.approx(0.1)
    assert table.loc["one", "patches_as_good_low"] < 0.1 < table.loc["one", "patches_as_good_high"]
    assert table["p_family"].isna().all()
    assert np.isnan(table.loc["two", "leaves_low"])
    assert table.loc["two", "votes_word"] == "not decided"
    assert table["above_floor_holm"][:2].tolist() == holm(table["above_floor_p"][:2]).tolist()
    assert np.isnan(table.loc["floor", "above_floor_holm"])


def test_the_papers_numbers_are_scaled_to_the_survey_and_said() -> None:
    made = scaled({"neighbours": 150, "min_samples": 10, "dims": 2}, OWN)
    assert (made.neighbours, made.min_samples, made.dims, made.min_cluster_size) == (90, 2, 2, 15)
    assert scaled({}, OWN) == OWN
    assert described({"neighbours": 15}, OWN) == "neighbours 9 (the paper's 15), min_samples 15, dims 5, leaf"
    assert described({"densmap": True}, OWN) == "neighbours 30, min_samples 15, dims 5, leaf, densmap"
    assert described({"naive": "k-means", "components": 5}, OWN) == "k-means of 5 columns"


def test_every_statement_of_the_package_is_read_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    found = read_statements(table_module.STATEMENTS)
    assert {each.section for each in found} == {"3", "5", "1 and 5"}
    assert {"neighbours": 150} in found[0].tries
    path = tmp_path / "s.yaml"
    for text, said in (
        ("- {section: 3, says: a}", "statement 1 needs section, says, and tries, a list of settings"),
        ("- {section: 3, says: a, tries: [1]}", "statement 1 needs section, says, and tries, a list of settings"),
        (
            "- {section: 3, says: a, tries: [{}, {dim: 2}]}",
            "statement 1 tries dim, expected neighbours, min_samples, dims, selection, densmap, naive, components",
        ),
        ("- {section: 3, says: a, tries: [{naive: x}]}", "statement 1: naive is 'x', expected hdbscan, k-means"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {said}')}$"):
            read_statements(path)


def clumps(columns: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(170, columns)), rng.normal(2, 0.15, (40, columns))])
    return x.astype(np.float32), np.repeat([0, 1], [170, 40])


def test_naive_clustering_has_the_exact_tree_also_above_30_dimensions() -> None:
    x, truth = clumps(40)
    found = clusterer({"naive": "hdbscan"}, CHAIN, 2)(x)
    theirs = HDBSCAN(
        min_samples=6, min_cluster_size=10, cluster_selection_method="leaf", algorithm="brute", copy=True
    ).fit(x)
    assert len(np.unique(found)) > 1
    pairs = pd.crosstab(found, theirs.labels_).to_numpy() > 0
    assert pairs.sum(0).max() == pairs.sum(1).max() == 1
    means = clusterer({"naive": "k-means", "components": 5}, CHAIN, 2)(x)
    assert (means[truth == 1] == means[-1]).mean() > 0.95
    assert set(means) == {0, 1}


def test_a_statement_says_what_becomes_of_clusters_and_of_injected_classes(tmp_path: Path) -> None:
    x, truth = clumps(4)
    statements = [Statement("3", "a", ({}, {"naive": "k-means"})), Statement("5", "b", ({},))]
    table = try_statements(x, truth, CHAIN, statements, tmp_path)
    assert table["section"].tolist() == ["3", "3", "5"]
    own, naive, again = table.drop(columns=["section", "says"]).to_dict("records")
    assert own == again
    labels = chain(x, CHAIN).clusters.labels
    matches = best_matches(truth, labels)
    assert own["clusters"] == labels.max() + 1
    assert own["macro_f1"] == pytest.approx(np.mean([match.f1 for match in matches]))
    assert own["found"] == sum(match.jaccard > 0.5 for match in matches)
    assert 0.3 < own["assigned"] < naive["assigned"] == 1
    assert (own["injected"], own["members"]) == (8, 10)
    assert own["whole"] > naive["whole"]
    assert all(each["whole"] + each["torn"] <= 8 for each in (own, naive))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    assert len(files) == 2
    pd.testing.assert_frame_equal(try_statements(x, truth, CHAIN, statements, tmp_path), table)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")} == files
    assert try_statements(x[:99], truth[:99], CHAIN, statements[1:], tmp_path)["injected"].tolist() == [0]


def test_probes_are_five_fold_and_paired() -> None:
    x, truth = clumps(6)
    x = x + np.random.default_rng(1).normal(0, 2, x.shape).astype(np.float32)
    found = probe([x, x[:, :1]], truth, seed=3)
    score = np.empty(len(x))
    for learn, test in StratifiedKFold(5, shuffle=True, random_state=3).split(x, truth):
        mean, spread = x[learn].mean(0), x[learn].std(0)
        learner = LogisticRegression(C=0.1).fit((x[learn] - mean) / spread, truth[learn])
        score[test] = learner.predict_proba((x[test] - mean) / spread)[:, 1]
    area = roc_auc_score(truth, score)
    assert found.auroc.point[0] == pytest.approx(area, abs=1e-3)
    assert found.accuracy.point[0] == pytest.approx(((score > 0.5) == truth).mean())
    assert found.by_class == pytest.approx([found.auroc.point.mean()] * 2)
    row = bottleneck_module.beside("AUROC", probe([x[:, :1]], truth).auroc, probe([x], truth).auroc)
    assert row["difference"] == pytest.approx(row["with"] - row["without"])
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_the_curve_of_components_is_that_of_the_singular_values() -> None:
    x, truth = clumps(6)
    curve = pca_curve(x, truth)
    share = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    assert curve["components"].tolist() == [2, 4]
    assert curve["variance"].tolist() == pytest.approx([share[:n].sum() / share.sum() for n in (2, 4)], rel=1e-4)
    assert curve["auroc"].min() > 0.95


def test_the_likelihood_of_votes_is_that_of_the_models_head(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = GalaxyVotes(Pixels(3, cells=1), torch.nn.Identity()).eval()
    monkeypatch.setattr(bottleneck_module, "load_module", lambda *_: model)
    votes = np.random.default_rng(0).integers(0, 9, (5, 34)).astype(np.float32)
    features = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    found = votes_likelihood(Path("any"), features, votes)
    alpha = (
        100 / (1 + np.exp(-(features @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()))) + 1
    )
    expected = votes_nll(torch.from_numpy(alpha).double(), torch.from_numpy(votes), model.schema.sizes)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    both = votes_beside(["a", "b"], found[None, :, :2], found[None, :, :2] - [0, 1])
    assert [row["measure"] for row in both] == ["vote NLL, all questions", "vote NLL, a", "vote NLL, b"]
    assert [row["difference"] for row in both] == pytest.approx([1, 0, 1])
    assert both[0]["with"] == pytest.approx(found[:, :2].sum(1).mean())


def found(folder: Path, ids: list[str], labels: list[int]) -> Path:
    """A clustering as far as `agree` looks."""
    members = pd.DataFrame({"id": ids, "label": labels})
    Found(members, pd.DataFrame({"cluster": [f"C{number + 5}" for number in range(2)]}), {}).write(folder)
    return folder


def test_two_encoders_agree_on_the_galaxies_that_both_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"g{number}" for number in range(50)]
    one = found(tmp_path / "one", ids, [0] * 10 + [1] * 10 + [-1] * 30)
    two = found(tmp_path / "two", ids[:1:-1], [-1] * 30 + [0] * 10 + [1] * 8)  # from the last to the third
    table = agree(one, two, draws=20)
    assert table[["cluster", "other", "jaccard"]].to_numpy().tolist() == [["C5", "C6", 1.0], ["C6", "C5", 1.0]]
    assert table["chance_95"].max() < 0.7
    assert "48 galaxies in both; adjusted mutual information over those that either assigns 1.000" in (
        capsys.readouterr().out
    )
    pd.testing.assert_frame_equal(pd.read_csv(one / "agreement.csv"), table)
    other = found(tmp_path / "three", [f"h{number}" for number in range(3)], [0, 1, -1])
    with pytest.raises(DataError) as error:
        agree(one, other)
    assert str(error.value) == f"{one} and {other} have no galaxy in common: cluster the same survey twice"


def draw_survey(root: Path, rows: int = 120) -> None:
    """Discs of three colours that stand for kinds, with votes; every sixth image is an artefact of one of two kinds."""
    rng, schema = np.random.default_rng(0), read_schema("desi")
    (root / "images").mkdir(parents=True)
    frame = pd.DataFrame(
        {"id_str": [f"{10**17 + row}" for row in range(rows)], "ra": np.arange(rows) * 0.5, "dec": 0.0}
    )
    frame["file_loc"] = "images/" + frame["id_str"] + ".png"
    kind = np.array(["spiral", "ring", "barred"])[np.arange(rows) % 3]
    artefact = np.where(np.arange(rows) % 6 == 5, np.where(np.arange(rows) % 4 == 1, "ghost", "trail"), "")
    place = np.indices((32, 32)) - 15.5
    for row, path in enumerate(frame["file_loc"]):
        light = np.exp(-np.hypot(*place) / rng.uniform(3, 5))
        image = 40 + 180 * light[..., None] * np.roll([1, 0.6, 0.3], row % 3) + rng.normal(0, 4, (32, 32, 3))
        if artefact[row]:
            image[:, 14:18] += 90 if artefact[row] == "trail" else -30
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / path)
    votes = pd.DataFrame(rng.integers(0, 5, (rows, 34)), columns=schema.columns)
    votes["smooth-or-featured_smooth"] = 0
    votes["smooth-or-featured_featured-or-disk"] = np.where(artefact == "", 20, 3)
    votes["smooth-or-featured_artifact"] = np.where(artefact == "", 0, 20)
    votes["disk-edge-on_yes"], votes["disk-edge-on_no"] = 0, 20
    pd.concat([frame, votes], axis=1).to_csv(root / "catalogue.csv", index=False)
    truth = pd.DataFrame({"id_str": frame["id_str"], "kind": np.where(artefact == "", kind, "artefact")})
    truth.assign(artefact_kind=artefact).to_csv(root / "truth.csv", index=False)


@pytest.mark.slow
def test_the_commands_of_the_table_compare_what_is_trained_and_say_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_survey(tmp_path / "set")
    for method, dim in (("hybrid", "12"), ("votes", "0")):
        files = [word for file in CONFIGS.stack(method, "synthetic", "demo") for word in ("--config", str(file))]
        encoder = "--model.init_args.encoder.init_args."
        small = ["--run.wandb", "disabled", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
        small += ["--data.init_args.batch_size", "32", f"{encoder}encoder.init_args.channels", "[8, 8, 8, 16]"]
        small += [f"{encoder}dim", dim]
        main(["fit", *files, "--data.init_args.root", str(tmp_path / "set"), *small])
    runs = tmp_path / "runs" / "galaxy_clusters" / "galaxies_synthetic"
    folders = [str(runs / "hybrid"), str(runs / "votes")]
    monkeypatch.setattr(independence, "PERMUTATIONS", 1)
    quick = tmp_path / "quick.yaml"
    quick.write_text("{neighbours: 10, min_samples: 5, min_cluster_size: 10, dims: 2}")
    monkeypatch.setattr(pipelines, "CONFIGS", SimpleNamespace(variants=lambda _: {}, evaluation=lambda _: quick))
    options = Options(evaluate_args="--effort.replicates 0 --effort.patches 3")
    for what in ("compared", "artefacts"):
        pipelines._compare(folders[:1], options, what)
    for folder in folders:
        pipelines._embed_all(folder)
    given = ["--results", str(tmp_path / "r.csv")]
    capsys.readouterr()
    table = main(["table", "--run", str(runs / "simclr"), *folders, *given])
    said = capsys.readouterr().out
    assert f"not trained and prepared yet, and left out: {runs}/simclr, {runs}/votes\n" in said
    assert "SYNTHETIC" in said
    assert "\n100 galaxies, the same for all; the floor is features:" in said
    assert table["encoder"].unique().tolist() == ["features", "untrained", "hybrid"]
    assert set(table["class"]) == {"ring", "barred", "spiral"}
    assert table["galaxies"].sum() == 3 * 100
    assert (table["neighbour_purity"][:3] > 0.9).all()  # colours are among the numbers
    settings = [
        Found.read(each).settings.scaling
        for each in (runs / "features" / "compared", runs / "hybrid" / "seed_0" / "compared")
    ]
    assert settings == ["standardise", "none"]
    kinds = main(["table", "--run", *folders, "--what", "artefacts", *given])
    assert set(kinds["class"]) == {"ghost", "trail", "no artefact"}
    assert kinds["votes_word"].isin(["independent", "dependent", "not decided"]).all()
    assert len(Found.read(runs / "hybrid" / "seed_0" / "artefacts").members) == 120
    (tmp_path / "s.yaml").write_text("- {section: 3, says: a, tries: [{}, {naive: k-means}]}")
    monkeypatch.setattr(table_module, "STATEMENTS", tmp_path / "s.yaml")
    tried = main(["statements", "--run", *folders, *given])
    assert tried["setting"].tolist() == ["neighbours 10, min_samples 5, dims 2, leaf", "k-means of all columns"]
    paired = main(["bottleneck", "--run", folders[0], "--without", folders[1], *given])
    assert paired["measure"].tolist()[:3] == ["accuracy", "macro AUROC", "AUROC of artefact"]
    assert (paired["columns"][0], paired["columns_without"][0]) == (12, 16)
    assert "vote NLL, disk-edge-on" in paired["measure"].tolist()
    embed_run(runs / "hybrid" / "seed_0", "wide")
    own = main(["bottleneck", "--run", folders[0]])
    assert own["columns_without"][0] == 16
    assert not own["measure"].str.startswith("vote", na=False).any()
    kept = pd.read_csv(tmp_path / "r.csv")
    assert kept["table"].value_counts().to_dict() == {
        "compared": 9, "artefacts": 9, "statements": 2, "bottleneck": len(paired)
    }  # fmt: skip
    assert kept[["dataset", "data_kind", "config", "revision", "hardware"]].notna().all(axis=None)
    assert (tmp_path / "configs" / f"{kept['config'][0]}.yaml").is_file()
    with pytest.raises(SystemExit) as error:
        main(["bottleneck", "--run", str(runs / "simclr")])
    assert str(error.value) == (
        f"error: no run of {runs}/simclr holds embeddings: train and prepare it with `make table-galaxies`"
    )


def test_reproduce_trains_what_is_compared_and_what_the_bottleneck_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each data set's encoders, with the first two seeds for the bottleneck; none of it when others are asked for."""
    said: list[tuple[str, list[str], list[int]]] = []

    class Recorded(Plan):
        def train(self, grid: Sequence[Wanted]) -> list[str]:
            said.append(("train", [wanted.name for wanted in grid], self.options.seeds))
            return [wanted.name for wanted in grid]

        def compare(self) -> None:
            pass

    monkeypatch.setattr(pipelines, "Plan", Recorded)
    monkeypatch.setattr(pipelines, "saved_settings", lambda _: {"data": {"init_args": {"root": str(tmp_path)}}})
    monkeypatch.setattr(pipelines, "Variant", lambda folder: SimpleNamespace(first=folder, runs={}))
    monkeypatch.setattr(pipelines, "_compare", lambda folders, options, what: said.append((what, folders, [])))
    monkeypatch.setattr(pipelines, "call", lambda verb, words: said.append((verb.__name__, words, [])))
    pipelines.reproduce(Options("gz1", seeds=[0, 1, 2], profile="demo"))
    encoders = ["simclr", "supervised_hidden"]
    assert said == [
        ("train", encoders, [0, 1, 2]),
        ("compared", encoders, []),
        ("table", ["--run", *encoders, "--what", "compared"], []),
        ("statements", ["--run", *encoders], []),
        ("train", ["simclr_wide", "simclr_wide_full"], [0, 1]),
        ("bottleneck", ["--run", "simclr_wide", "--without", "simclr_wide_full"], []),
    ]
    said.clear()
    (tmp_path / "truth.csv").touch()
    pipelines.reproduce(Options("synthetic", profile="demo", results="r.csv", methods=["votes"]))
    assert [(verb, words) for verb, words, _ in said] == [
        ("train", ["votes"]),
        ("compared", ["votes"]),
        ("table", ["--run", "votes", "--what", "compared", "--results", "r.csv"]),
        ("artefacts", ["votes"]),
        ("table", ["--run", "votes", "--what", "artefacts", "--results", "r.csv"]),
        ("statements", ["--run", "votes", "--results", "r.csv"]),
    ]
    said.clear()
    pipelines.reproduce(Options("decals_rings", profile="demo"))
    assert said[0][1] == ["simclr"]


def test_train_follows_a_run_with_turned_images_and_known_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    data = {"root": str(tmp_path), "schema": "desi", "target": None}
    monkeypatch.setattr(pipelines, "saved_settings", lambda _: {"data": {"init_args": data}})
    monkeypatch.setattr(pipelines, "embed_run", lambda run, control="plain": run / control)
    monkeypatch.setattr(pipelines, "call", lambda verb, words: said.append([verb.__name__, *words]))
    (tmp_path / "truth.csv").touch()
    run, settings = tmp_path / "run", str(CONFIGS.folder / "sets" / "synthetic" / "evaluation.yaml")
    clusters = str(run / "clusters")
    pipelines.follow(run, "synthetic")
    truth = ["--truth", f"{tmp_path}/truth.csv", "--truth_column", "kind"]
    assert said == [
        ["cluster", "--embeddings", f"{run}/plain", "--output", clusters, "--settings", settings, "--cuts", "paper"],
        ["assess", "--clusters", clusters, "--turned", f"{run}/turned", *truth],
        ["report", "--clusters", clusters],
    ]
