"""`assess` through the command line: what is written and said, resuming, and known classes."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galaxy_clusters.cli import main
from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.evaluation import independence
from galaxy_clusters.evaluation.classes import recovery
from shared.data.embeddings import read_embeddings, write_embeddings
from shared.data.files import write_whole

CHAIN = ["--settings.neighbours", "10", "--settings.min_samples", "5", "--settings.min_cluster_size", "10",
         "--settings.dims", "2"]  # fmt: skip
EFFORT = ["--effort.replicates", "4", "--effort.subsamples", "2", "--effort.seeds", "1", "--effort.counts", "[20]",
          "--effort.scatters", "[0.5]", "--effort.injections", "1", "--effort.patches", "20"]  # fmt: skip


NONE = ["--effort.replicates", "0", "--effort.subsamples", "0", "--effort.seeds", "0", "--effort.injections", "0"]


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth bulk of 400 with a dense clump of 40 in one brick, three entries of which are one system."""
    root = tmp_path_factory.mktemp("assess")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(400, 6)), rng.normal(3, 0.05, (40, 6))]).astype(np.float32)
    ids = [f"g{number:03d}" for number in range(440)]
    write_embeddings(root / "x.parquet", ids, x)
    kind = ["bulk"] * 400 + ["clump"] * 40
    brick = [*rng.integers(0, 20, 400), *[7] * 40]
    ra = np.linspace(10, 20, 440)
    ra[-3:] = 15.0
    table = pd.DataFrame(
        {"id": ids, "ra": ra, "dec": 0.0, "brickid": brick, "mag_r": rng.normal(size=440), "kind": kind}
    )
    table.to_csv(root / "catalogue.csv", index=False)
    words = ["cluster", "--embeddings", str(root / "x.parquet"), "--catalogue", str(root / "catalogue.csv"), *CHAIN]
    main([*words, "--output", str(root / "clusters")])
    return root / "clusters"


@pytest.mark.slow
def test_each_cluster_gets_its_evidence(clustered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["assess", "--clusters", str(clustered), *EFFORT, "--truth_column", "kind"]
    table = main(words).set_index("cluster")
    assert list(table.columns) == [
        "systems", "largest_system", "statistic", "p_family", "expected_false", "stability", "stability_low",
        "stability_high", "other_seeds", "flags", "commonest", "its_share",
    ]  # fmt: skip
    (clump,) = table.index[table["commonest"] == "clump"]
    best = table.loc[clump]
    members = pd.read_parquet(clustered / "members.parquet").set_index("id")["cluster"]
    held = int((members == clump).sum())
    assert best["systems"] == held - 2  # three entries are one
    assert best["p_family"] == 0.2  # 1 / (1 + 4), the least there can be
    assert best["expected_false"] == 0
    assert best["stability"] > 0.7
    assert "in one brickid, 7" in best["flags"]
    kept = pd.read_csv(clustered / "evidence.csv", index_col="cluster")
    assert kept["p_family"].tolist() == pytest.approx(table["p_family"].tolist())
    recovered = pd.read_csv(clustered / "recovery.csv", index_col="class")
    assert recovered.loc["clump", "cluster"] == clump
    assert recovered.loc["clump", "purity"] > 0.9
    remarks = json.loads((clustered / "evidence.json").read_text())["remarks"]
    assert [remark.split()[0] for remark in remarks] == ["Smooth", "0", "Injected", "Density-based"]
    main(["report", "--clusters", str(clustered)])
    assert "Smooth resamples: " in (clustered / "index.html").read_text()
    capsys.readouterr()

    times = {path.name: path.stat().st_mtime_ns for path in (clustered / "runs").iterdir()}
    kept_runs = {name.partition("-")[0]: clustered / "runs" / name for name in times}
    assert set(kept_runs) == {"null", "permuted", "subsamples", "seeds", "injection"}
    whole = kept_runs["null"].read_text()
    kept_runs["null"].write_text("".join(line + "\n" for line in whole.splitlines()[:3]))  # a kill
    again = main(words).set_index("cluster")
    pd.testing.assert_frame_equal(again, table)
    assert kept_runs["null"].read_text() == whole
    assert kept_runs["seeds"].stat().st_mtime_ns == times[kept_runs["seeds"].name]
    assert len(list((clustered / "runs").iterdir())) == 5


@pytest.mark.slow
def test_attributes_votes_and_turned_images_are_looked_at(
    clustered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(independence, "PERMUTATIONS", 3)
    root, none = clustered.parent, [*NONE, "--effort.patches", "20"]
    frame = pd.read_csv(root / "catalogue.csv")
    schema, rng = read_schema("desi"), np.random.default_rng(3)
    votes = pd.DataFrame(rng.integers(0, 9, (440, 34)), columns=schema.columns)
    clump = (frame["kind"] == "clump").to_numpy()
    votes["smooth-or-featured_artifact"] = np.where(np.arange(440) < 390, 0, 90)
    catalogue = pd.concat([frame.assign(old=rng.random(440) < 0.5, age=frame["mag_r"] + 9 * clump), votes], axis=1)
    catalogue.loc[[1, 400], "kind"] = None
    catalogue.to_csv(tmp_path / "c.csv", index=False)
    words = ["cluster", "--embeddings", str(root / "x.parquet"), "--catalogue", str(tmp_path / "c.csv"), *CHAIN]
    pd.DataFrame({"id": [f"g{number:03d}" for number in range(1, 440)]}).to_csv(tmp_path / "only.csv", index=False)
    found = main([*words, "--output", str(tmp_path / "clusters"), "--only", str(tmp_path / "only.csv")])
    assert len(found.members) == 439
    x = read_embeddings(root / "x.parquet").values.copy()
    x[clump] -= 3  # clumps are of one orientation
    write_embeddings(tmp_path / "turned.parquet", [f"g{number:03d}" for number in range(440)][::-1], x[::-1])
    asked = ["--attributes", "kind", "old", "age", "--turned", str(tmp_path / "turned.parquet")]
    table = main(["assess", "--clusters", str(tmp_path / "clusters"), *none, *asked]).set_index("cluster")
    name = found.members.loc[found.members["id"] == "g439", "cluster"].iloc[0]
    assert table.loc[name, "kept"] == 0 < table.loc[name, "kept_unchanged"]
    assert (table["kept"] == table["kept_unchanged"]).sum() == len(table) - found.members["cluster"][
        clump[1:]
    ].nunique()
    enriched = pd.read_csv(tmp_path / "clusters" / "enrichment.csv").set_index(["cluster", "attribute"])
    assert set(enriched.index.get_level_values(1)) == {"kind bulk", "kind clump", "old", "age"}
    assert enriched.loc[(name, "kind clump"), ["value", "sample"]].tolist() == pytest.approx([1, 39 / 437], abs=0.06)
    assert enriched.loc[(name, "age"), "p_holm"] < 1e-6 < 0.05 < enriched.loc[(name, "old"), "p_holm"]
    kept = json.loads((tmp_path / "clusters" / "evidence.json").read_text())
    share = schema.fractions(found.members[schema.columns].to_numpy(float))
    said, _ = independence.within_answer(share, share[:, 2], found.members["label"].to_numpy())
    assert kept["independence"]["counts"] == list(said.counts)
    assert kept["independence"]["balanced_accuracy"] == said.balanced_accuracy
    assert kept["remarks"][-1] == (
        "Do clusters follow from the votes of the 50 galaxies with the answer smooth-or-featured_artifact? "
        f"{said.word}: {said.reason}."
    )
    write_embeddings(tmp_path / "turned.parquet", ["g001", "g002"], x[1:3])
    lacks = f"error: {tmp_path}/turned.parquet lacks g003: embed the same catalogue, turned"
    with pytest.raises(SystemExit, match=f"^{re.escape(lacks)}$"):
        main(["assess", "--clusters", str(tmp_path / "clusters"), *none, *asked])
    with pytest.raises(SystemExit, match=r"^error: the catalogue lacks the column agee; it has id, row, "):
        main(["assess", "--clusters", str(tmp_path / "clusters"), *none, "--attributes", "agee"])
    write_whole(tmp_path / "only.csv", "id\nnobody\n")
    with pytest.raises(SystemExit, match=r"only\.csv names none of the galaxies that are left$"):
        main([*words, "--output", str(tmp_path / "clusters"), "--only", str(tmp_path / "only.csv")])


def test_missing_things_are_named(clustered: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no finished clustering: run `cluster` first"):
        main(["assess", "--clusters", str(tmp_path)])
    none = ["--effort.replicates", "1", "--effort.subsamples", "0", "--effort.seeds", "0", "--effort.injections", "0"]
    with pytest.raises(SystemExit, match="the catalogue has no column species; it has id, row, "):
        main(["assess", "--clusters", str(clustered), *none, "--truth_column", "species"])


def test_recovery_says_when_random_patches_do_as_well() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    inside = np.linalg.norm(x - x[0], axis=1).argsort()[:30]
    labels = np.full(300, -1)
    labels[inside] = 0
    classes = pd.Series("other", index=range(300))
    classes[inside] = "found"
    classes[rng.choice(np.setdiff1d(np.arange(300), inside), 30, replace=False)] = "scattered"
    table = recovery(x, labels, classes, draws=40).set_index("class")
    assert table.loc["found", ["purity", "recall", "enriched_purity"]].tolist() == [1, 1, 1]
    assert table.loc["found", "patches_as_good"] < 0.1 < 0.5 < table.loc["scattered", "patches_as_good"]
    assert table.loc["found", "neighbour_purity"] > 0.5 > table.loc["scattered", "neighbour_purity"]
    assert table["base_rate"].to_dict() == {"found": 0.1, "other": 0.8, "scattered": 0.1}


def test_a_clustering_whose_embeddings_have_changed_is_refused(clustered: Path, tmp_path: Path) -> None:
    root = clustered.parent
    copied = tmp_path / "x.parquet"
    copied.write_bytes((root / "x.parquet").read_bytes())
    main(["cluster", "--embeddings", str(copied), "--output", str(tmp_path / "clusters"), *CHAIN])
    write_embeddings(copied, ["a", "b"], np.zeros((2, 3), np.float32))
    with pytest.raises(SystemExit, match=r"x\.parquet holds other embeddings than were clustered: run `cluster` again"):
        main(["assess", "--clusters", str(tmp_path / "clusters")])


def test_columns_called_like_ours_do_not_take_their_place(clustered: Path, tmp_path: Path) -> None:
    root = clustered.parent
    frame = pd.read_csv(root / "catalogue.csv").assign(label="own", row=7, cluster="mine", x="left")
    frame.to_csv(tmp_path / "c.csv", index=False)
    words = ["cluster", "--embeddings", str(root / "x.parquet"), "--catalogue", str(tmp_path / "c.csv"), *CHAIN]
    found = main([*words, "--output", str(tmp_path / "clusters")])
    assert found.members["label_catalogue"].unique().tolist() == ["own"]
    assert found.members["row"].tolist() == list(range(440))
    none = ["--effort.replicates", "0", "--effort.subsamples", "0", "--effort.seeds", "0", "--effort.injections", "0"]
    with pytest.raises(SystemExit, match=r"no class has 5 of the 440 galaxies|the catalogue has no column kinds"):
        main(["assess", "--clusters", str(tmp_path / "clusters"), *none, "--truth_column", "kinds"])
    table = main(["assess", "--clusters", str(tmp_path / "clusters"), *none, "--truth_column", "label_catalogue"])
    assert set(table["commonest"]) == {"own"}
    assert "p_family" not in table


def test_vanished_names_are_not_given_again(clustered: Path, tmp_path: Path) -> None:
    root, output = clustered.parent, tmp_path / "clusters"
    words = ["cluster", "--embeddings", str(root / "x.parquet"), "--output", str(output)]
    first = main([*words, *CHAIN])
    few = main([*words, *CHAIN[:-4], "--settings.min_cluster_size", "35", "--settings.dims", "2"])
    assert len(few.clusters) < len(first.clusters)
    third = main([*words, *CHAIN])
    new = set(third.clusters["cluster"]) - set(few.clusters["cluster"])
    assert new
    assert not new & set(first.clusters["cluster"])
    assert set(third.about["names"]) == set(first.clusters["cluster"]) | set(few.clusters["cluster"]) | new
