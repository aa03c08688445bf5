"""`train` and `reproduce`: from a survey to clusters with evidence, and to the paper's claims beside ours."""

import dataclasses
import json
import shlex
from pathlib import Path

from galaxy_clusters.data.module import SurveyDataModule
from galaxy_clusters.data.synthetic import write_synthetic
from galaxy_clusters.evaluation.encoders import FEATURES, HIDDEN, TRUTH, compared
from galaxy_clusters.evaluation.found import CONFIGS
from galaxy_clusters.verbs.assess import assess
from galaxy_clusters.verbs.cluster import cluster
from galaxy_clusters.verbs.embed import embed_features, embed_run
from galaxy_clusters.verbs.report import report
from galaxy_clusters.verbs.table import bottleneck, statements, table
from shared.data.files import write_whole
from shared.main import call
from shared.runs.pipeline import Options, Plan
from shared.runs.settings import read_yaml, saved_settings
from shared.runs.variant import Variant, load_data

# What `train` trains, with votes and without: votes alone leave planted classes further apart.
VOTES, LABEL_FREE = ("hybrid",), ("simclr",)
COMPARED = ("hybrid", "votes", "simclr")  # with votes, by `reproduce`; the first is the one that settings are tried on
NULL_ONLY = ("--effort.subsamples", "0", "--effort.seeds", "0", "--effort.injections", "0")


def train(options: Options) -> None:
    """Train an encoder, embed the survey, cluster it, ask whether the clusters exist, and write a gallery and a map.

    `--methods` chooses other encoders. Each gets `embeddings/` and `clusters/` in the folder of its first seed.
    """
    plan = Plan("galaxy_clusters", CONFIGS, options, write_synthetic)
    names = [*options.methods, *options.variants] or list(VOTES if _has_votes(plan) else LABEL_FREE)
    for folder in plan.train(plan.variants(names)):
        follow(Variant(Path(folder)).first, options.dataset)
    plan.compare()


def reproduce(options: Options) -> None:
    """Print the paper's claims beside ours; first train and embed what is missing.

    Encoders and their floors on the same galaxies, the artefact experiment, the paper's settings, and what the
    bottleneck loses (with the first two seeds). `--methods` and `--variants` choose other encoders, without the last.
    `--evaluate_args` go to `assess`, such as `--effort.replicates 99`.
    """
    plan = Plan("galaxy_clusters", CONFIGS, options, write_synthetic)
    votes, known = _has_votes(plan), CONFIGS.variants(options.dataset)
    asked = [*options.methods, *options.variants]
    names = asked or (COMPARED if votes else [name for name in (*LABEL_FREE, HIDDEN) if name in known])
    folders = plan.train(plan.variants(names))
    root = Path(saved_settings(Variant(Path(folders[0])).first)["data"]["init_args"]["root"])
    for what in ("compared", *(["artefacts"] if votes and (root / TRUTH).is_file() else [])):
        _compare(folders, options, what)
        call(table, ["--run", *folders, "--what", what, *plan.results])
    call(statements, ["--run", *folders, *plan.results])
    if not asked:
        two = Plan("galaxy_clusters", CONFIGS, dataclasses.replace(options, seeds=options.seeds[:2]), write_synthetic)
        base = "votes" if votes else "simclr"
        narrow, wide = two.train(two.variants([f"{base}_wide", f"{base}_wide_full"]))
        for folder in (narrow, wide):
            _embed_all(folder)
        call(bottleneck, ["--run", narrow, "--without", wide, *plan.results])
    plan.compare()


def _embed_all(folder: str) -> list[Path]:
    """The embeddings of all runs of a variant."""
    return [embed_run(run) for run in Variant(Path(folder)).runs.values()]


def _compare(folders: list[str], options: Options, what: str) -> None:
    """Cluster and assess every encoder and two floors on the same galaxies, in `<what>` beside the embeddings."""
    first = Variant(Path(folders[0]))
    hidden = CONFIGS.variants(options.dataset).get(HIDDEN)
    changes = read_yaml(hidden.files[0])["data"]["init_args"] if hidden else {}
    survey = load_data(SurveyDataModule, saved_settings(first.first)["data"], changes)
    only = first.folder.parent / f"{what}.csv"
    write_whole(only, compared(survey, what == "artefacts").to_csv(index=False))
    settings = CONFIGS.evaluation(options.dataset)
    chosen = ["--only", str(only), *(["--settings", str(settings)] if settings else [])]
    features = embed_features(first.first, first.folder.parent / FEATURES / "embeddings")
    known = ["--truth", str(only), "--truth_column", "class", *NULL_ONLY, *shlex.split(options.evaluate_args)]
    for embeddings in (
        features,
        embed_run(first.first, "untrained"),
        *(each for f in folders for each in _embed_all(f)),
    ):
        clusters = embeddings.with_name(embeddings.name.replace("embeddings", what))
        scaling = (
            ["--settings.scaling", "standardise"] if embeddings == features else []
        )  # its numbers are of all kinds
        call(cluster, ["--embeddings", str(embeddings), "--output", str(clusters), *chosen, *scaling])
        call(assess, ["--clusters", str(clusters), *known])


def _has_votes(plan: Plan) -> bool:
    block = CONFIGS.data_block(plan.options.dataset, plan.profile).block["init_args"]
    return bool(block["schema"])


def follow(run: Path, dataset: str) -> None:
    """Embed, cluster, assess and report with the encoder of a run, on the survey that it was trained on."""
    data = saved_settings(run)["data"]["init_args"]
    embeddings, clusters = embed_run(run), run / "clusters"
    settings = CONFIGS.evaluation(dataset)
    chosen = ["--settings", str(settings)] if settings else []
    chosen += ["--cuts", "paper"] if data["schema"] == "desi" else []  # the paper's cuts are on its questions
    call(cluster, ["--embeddings", str(embeddings), "--output", str(clusters), *chosen])
    truth = Path(data["root"]) / TRUTH
    known = ["--truth", str(truth), "--truth_column", "kind"] if truth.is_file() else []
    if data["target"]:
        known = ["--truth_column", data["target"], "--merged", json.dumps(data["merged"])]
    call(assess, ["--clusters", str(clusters), "--turned", str(embed_run(run, "turned")), *known])
    call(report, ["--clusters", str(clusters)])
