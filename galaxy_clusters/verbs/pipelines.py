"""`train`: from a survey to clusters with evidence, in one command."""

import json
import shutil
from pathlib import Path

from galaxy_clusters.data.synthetic import write_synthetic
from galaxy_clusters.evaluation.found import CONFIGS
from galaxy_clusters.verbs.assess import assess
from galaxy_clusters.verbs.cluster import cluster
from galaxy_clusters.verbs.embed import embed
from galaxy_clusters.verbs.report import report
from shared.main import call
from shared.runs.pipeline import Options, Plan
from shared.runs.settings import saved_settings
from shared.runs.variant import Variant

# What `train` trains, with votes and without: votes alone leave planted classes further apart.
VOTES, LABEL_FREE = ("hybrid",), ("simclr",)


def train(options: Options) -> None:
    """Train an encoder, embed the survey, cluster it, ask whether the clusters exist, and write a gallery and a map.

    `--methods` chooses other encoders. Each gets `embeddings/` and `clusters/` in the folder of its first seed.
    """
    plan = Plan("galaxy_clusters", CONFIGS, options, write_synthetic)
    block = CONFIGS.data_block(options.dataset, plan.profile).block["init_args"]
    names = [*options.methods, *options.variants] or list(VOTES if block["schema"] else LABEL_FREE)
    for folder in plan.train(plan.variants(names)):
        follow(Variant(Path(folder)).first, options.dataset)
    plan.compare()


def follow(run: Path, dataset: str) -> None:
    """Embed, cluster, assess and report with the encoder of a run, on the survey that it was trained on."""
    data = saved_settings(run)["data"]["init_args"]
    root = Path(data["root"])
    embeddings, clusters = run / "embeddings", run / "clusters"
    words = ["--catalogue", str(root / data["catalogue"]), "--root", str(root), "--image_column", data["image_column"]]
    for name in ("id_column", "strip_prefix"):
        words += [f"--{name}", data[name]] if data[name] else []
    checkpoint = run / "checkpoints" / "best.ckpt"
    if embeddings.is_dir() and embeddings.stat().st_mtime < checkpoint.stat().st_mtime:
        shutil.rmtree(embeddings)  # those of an earlier training
    call(embed, [*words, "--checkpoint", str(checkpoint), "--output", str(embeddings)])
    settings = CONFIGS.evaluation(dataset)
    chosen = ["--settings", str(settings)] if settings else []
    chosen += ["--cuts", "paper"] if data["schema"] == "desi" else []  # the paper's cuts are on its questions
    call(cluster, ["--embeddings", str(embeddings), "--output", str(clusters), *chosen])
    truth = root / "truth.csv"
    known = ["--truth", str(truth), "--truth_column", "kind"] if truth.is_file() else []
    if data["target"]:
        known = ["--truth_column", data["target"], "--merged", json.dumps(data["merged"])]
    call(assess, ["--clusters", str(clusters), *known])
    call(report, ["--clusters", str(clusters)])
