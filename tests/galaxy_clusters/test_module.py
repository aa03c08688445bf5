"""Whole commands on a small SYNTHETIC survey: fit, embed, cluster, report, search, assign; and the data module."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.io.votable import parse_single_table

from galaxy_clusters.cli import main
from galaxy_clusters.data.module import SurveyDataModule
from galaxy_clusters.data.synthetic import write_synthetic
from galaxy_clusters.evaluation.found import CONFIGS, Found
from shared.data.embeddings import read_embeddings
from shared.data.problems import DataError

SMALL = [
    *("--trainer.max_epochs", "2"),
    *("--run.wandb", "disabled"),
    *("--trainer.enable_progress_bar", "false"),
    *("--data.init_args.batch_size", "32"),
    *("--model.init_args.encoder.init_args.encoder.init_args.channels", "[8, 8, 16, 16]"),
]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("survey")
    write_synthetic(root / "set", galaxies=120, planted=12, image_px=48)
    return root / "set"


@pytest.fixture(scope="module")
def embedded(survey: Path) -> Path:
    """Training-free numbers of the survey, in shards."""
    folder = survey.parent / "features" / "embeddings"
    words = ["--catalogue", str(survey / "catalogue.csv"), "--image_px", "48", "--shard_rows", "50"]
    main(["embed", *words, "--output", str(folder)])
    return folder


def data(root: Path, cache: Path, **settings: object) -> SurveyDataModule:
    made = SurveyDataModule(str(root), image_px=32, cache_dir=str(cache), batch_size=16, **settings)  # type: ignore[arg-type]
    made.prepare_data()
    made.setup()
    return made


def test_votes_images_and_systems_come_from_the_catalogue(survey: Path, tmp_path: Path) -> None:
    module = data(survey, tmp_path)
    frame = pd.read_csv(survey / "catalogue.csv", dtype={"id_str": str})
    assert module.frame["id"].tolist() == frame["id_str"].tolist()
    batch = next(iter(module.train_dataloader()))
    rows = batch.row.numpy()
    assert np.array_equal(batch.votes.numpy(), frame[module.schema.columns].to_numpy(np.float32)[rows])
    assert batch.image.shape == (16, 3, 32, 32)
    truth = pd.read_csv(survey / "truth.csv", dtype={"id_str": str}).set_index("id_str").loc[frame["id_str"]]
    system = truth["system"].to_numpy()
    shredded = truth["kind"].to_numpy() == "shredded"
    for name in set(system[shredded]):  # one galaxy under many ids is one system, and in one part
        own = system == name
        assert module.frame["system"][own].nunique() == 1
        assert len(set(module.split[own])) == 1
    assert module.frame["system"].nunique() == pd.Series(system).nunique()


def test_hidden_classes_are_not_shown_to_a_supervised_model(survey: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(survey / "catalogue.csv", dtype=str)
    truth = pd.read_csv(survey / "truth.csv", dtype=str)
    frame["kind"] = frame["id_str"].map(truth.set_index("id_str")["kind"])
    frame.to_csv(survey / "classed.csv", index=False)
    module = data(survey, tmp_path, catalogue="classed.csv", schema=None, target="kind",
                  merged={"barred": "spiral"}, hidden_classes=["merger"])  # fmt: skip
    assert "merger" not in module.classes
    assert "barred" not in module.classes
    module.purpose = "evaluate"
    shown = np.concatenate([batch.row.numpy() for batch in module.train_dataloader()])
    assert {"spiral", "elliptical"} < set(module.labels[shown]) <= set(module.classes)
    assert "merger" in module.labels[module.rows("train", "pretrain")]
    with pytest.raises(DataError, match=r"has no class comet to hide; it has artefact, "):
        data(survey, tmp_path, catalogue="classed.csv", schema=None, target="kind", hidden_classes=["comet"])


@pytest.mark.slow
def test_votes_are_learned_embedded_clustered_and_reported(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [word for file in CONFIGS.stack("votes", "synthetic", "demo") for word in ("--config", str(file))]
    main(["fit", *files, "--data.init_args.root", str(survey), "--data.init_args.image_px", "32", *SMALL])
    run = Path("runs/galaxy_clusters/galaxies_synthetic/votes/seed_0")
    checkpoint = ["--checkpoint", str(run / "checkpoints" / "best.ckpt")]
    catalogue = ["--catalogue", str(survey / "catalogue.csv")]
    main(["embed", *catalogue, *checkpoint, "--output", str(run / "embeddings"), "--views", "8"])
    found = read_embeddings(run / "embeddings")
    assert found.values.shape == (120, 128)
    shares = found.table.filter(like="_fraction")
    assert shares.shape == (120, 34)
    assert shares.iloc[:, :3].sum(axis=1).tolist() == pytest.approx([1] * 120, abs=1e-5)

    chain = ["--settings.neighbours", "10", "--settings.min_samples", "3", "--settings.min_cluster_size", "5"]
    clusters = main(["cluster", "--embeddings", str(run / "embeddings"), *chain])
    folder = run / "clusters"
    assert clusters.about["synthetic"] is True
    kept = Found.read(folder)
    pd.testing.assert_frame_equal(kept.members, clusters.members, check_dtype=False)
    assert (kept.members["label"] >= 0).sum() == kept.clusters["size"].sum() > 0
    assert "brickid" in kept.members
    again = main(["cluster", "--embeddings", str(run / "embeddings"), *chain])
    assert again.clusters["cluster"].tolist() == kept.clusters["cluster"].tolist()
    assert "all were there" in capsys.readouterr().out

    assert main(["report", "--clusters", str(folder)]) == folder / "index.html"
    page = (folder / "index.html").read_text()
    assert "SYNTHETIC" in page
    assert str(tmp_path) not in page + (folder / "map.html").read_text()
    assert {path.stem for path in (folder / "sheets").iterdir()} == set(kept.names)
    votable = parse_single_table(str(folder / "galaxies.vot")).to_table()
    assert [str(name) for name in votable["id"]] == kept.members["id"].tolist()

    ids = kept.members["id"].tolist()
    ranked = main(["search", "--embeddings", str(run / "embeddings"), "--like", ids[0], "--unlike", ids[1]])
    assert not set(ids[:2]) & set(ranked["id"])
    assert pd.read_csv(run / "embeddings" / "marks.csv")["mark"].tolist() == ["like", "unlike"]
    far = main(["outliers", "--embeddings", str(run / "embeddings"), "--count", "5"])
    assert far["distance"].is_monotonic_decreasing
    given = main(["assign", "--clusters", str(folder), "--embeddings", str(run / "embeddings")])
    own = kept.members.set_index("id")["cluster"]
    both = given.set_index("id")["cluster"].dropna()
    assert (own[both.index] == both).mean() > 0.8  # their own, being their own nearest neighbours


def test_anybodys_embeddings_are_clustered_without_images_or_a_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    clumps = [rng.normal(place, 0.1, (30, 8)) for place in (0, 3)]
    np.save(tmp_path / "x.npy", np.concatenate([*clumps, rng.normal(1.5, 2, (60, 8))]))
    words = ["--settings.neighbours", "10", "--settings.min_samples", "5", "--settings.min_cluster_size", "10"]
    found = main(["cluster", "--embeddings", str(tmp_path / "x.npy"), *words])
    assert (tmp_path / "clusters" / "clusters.csv").is_file()
    assert len(found.clusters) >= 2
    main(["report", "--clusters", str(tmp_path / "clusters")])
    page = (tmp_path / "clusters" / "index.html").read_text()
    assert "<img" not in page
    assert "SYNTHETIC" not in page
    assert not (tmp_path / "clusters" / "sheets").exists()


def test_cuts_are_made_on_predicted_fractions_before_clustering(survey: Path, embedded: Path, tmp_path: Path) -> None:
    cuts = tmp_path / "cuts.yaml"
    cuts.write_text(yaml.safe_dump([{"column": "smooth-or-featured_smooth_fraction", "keep": "< 0.5", "null": "drop"}]))
    words = ["--settings.neighbours", "10", "--settings.min_samples", "3", "--settings.min_cluster_size", "5"]
    output = tmp_path / "clusters"
    found = main(["cluster", "--embeddings", str(embedded), "--output", str(output), "--cuts", str(cuts), *words])
    frame = pd.read_csv(survey / "catalogue.csv", dtype={"id_str": str})
    votes = frame.filter(like="smooth-or-featured_")
    kept = frame["id_str"][votes.iloc[:, 0] < 0.5 * votes.sum(axis=1)]
    assert found.members["id"].tolist() == kept.tolist()
    assert pd.read_csv(output / "cuts.csv")["after"].tolist() == [len(kept)]
    assert json.loads((output / "clustering.json").read_text())["cuts"] == str(cuts)
