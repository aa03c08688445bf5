"""`python -m galaxy_clusters cluster`: clusters of a representation, and a map of it."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from galaxy_clusters.clustering.chain import ChainSettings, Clustering, sweep
from galaxy_clusters.data.catalogue import read_catalogue
from galaxy_clusters.data.cuts import apply_cuts, read_cuts
from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.data.source import joined, read_source
from galaxy_clusters.evaluation.found import CUTS, STAGES, Found
from galaxy_clusters.report.names import Names, match_names
from shared.data.embeddings import read_embeddings


def cluster(
    embeddings: Path,
    output: Path | None = None,
    catalogue: Path | None = None,
    id_column: str | None = None,
    cuts: str | None = None,
    schema: str = "desi",
    settings: ChainSettings | None = None,
    max_memory_gb: float | None = None,
) -> Found:
    """Cluster a representation as the paper does (section 3): UMAP, then the leaves of HDBSCAN's tree.

    Every stage is a file, so that another setting starts from what it shares with the ones before, and a killed call
    goes on. Clusters keep their names from one call to the next where they have the same members.

    Args:
        embeddings: Ours (`embed`) or anybody's: a parquet file or a folder of its shards, or a `.npy` array.
        output: Folder to write into; by default `clusters` beside the embeddings.
        catalogue: Table of the galaxies, whose columns the cuts, the report and `assess` may use; by default the one
            that was embedded.
        id_column: Column of identifiers of that catalogue.
        cuts: Which galaxies take part: `paper` (section 2), or a YAML file. They look at the vote fractions beside the
            embeddings and at the catalogue's columns.
        schema: Vote schema of the fractions.
        settings: What the chain does, e.g. `--settings.min_samples 20`, or a YAML file.
        max_memory_gb: Memory that the work may take.

    Returns:
        What is kept in `members.parquet`, `clusters.csv` and `clustering.json`.

    Raises:
        DataError: See `read_embeddings`, `read_catalogue`, `read_cuts`, `apply_cuts` and `clustering.chain.sweep`; or a
            galaxy with an embedding is not in the catalogue.
    """
    settings = settings or ChainSettings()
    output = output or embeddings.parent / "clusters"
    found, source = read_embeddings(embeddings), read_source(embeddings)
    table = pd.DataFrame({"id": found.ids, "row": np.arange(len(found.ids))})
    parts = [table, found.table]
    if catalogue or source:
        frame = read_catalogue(catalogue, id_column) if catalogue else source[0].frame() if source else pd.DataFrame()
        own = joined(table["id"].tolist(), frame, str(catalogue or "the catalogue that was embedded"))
        parts.append(own.drop(columns=[name for name in own if name in ("id", *found.table)]))
    table = pd.concat(parts, axis=1)
    counts = None
    if cuts:
        table, counts = apply_cuts(table, read_cuts(CUTS / f"{cuts}.yaml" if cuts == "paper" else Path(cuts)),
                                   read_schema(schema))  # fmt: skip
    rows = table["row"].to_numpy()
    print(f"{len(rows)} of {len(found.ids)} galaxies; distances are Euclidean, scaling: {settings.scaling}")
    flat = dataclasses.replace(settings, dims=2)
    clustering, mapped = sweep(found.values[rows], [settings, flat], output / STAGES, max_memory_gb)
    names = _names(table, clustering, output)
    kept = Found(
        table.assign(
            cluster=pd.Series([names.of.get(int(label)) for label in clustering.clusters.labels], dtype="str"),
            label=clustering.clusters.labels,
            strength=clustering.clusters.strength,
            x=mapped.layout[:, 0],
            y=mapped.layout[:, 1],
        ),
        _clusters(table, clustering, names),
        {
            "settings": dataclasses.asdict(settings),
            "embeddings": str(embeddings),
            "model": found.model,
            "cuts": cuts,
            "synthetic": bool(source and source[0].is_synthetic),
            "recall": clustering.recall,
            "seconds": clustering.seconds,
        },
    )
    kept.write(output)
    if counts is not None:
        counts.to_csv(output / "cuts.csv", index=False)
    if names.vanished:
        print(f"clusters of the last call that are gone: {', '.join(names.vanished)}")
    share = float((clustering.clusters.labels >= 0).mean())
    print(f"{len(kept.clusters)} clusters hold {100 * share:.1f}% of the galaxies (in the paper under 2%)")
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in clustering.seconds.items())
    print(f"seconds of each stage: {seconds or 'all were there'}; wrote {output}")
    return kept


def _names(table: pd.DataFrame, clustering: Clustering, output: Path) -> Names:
    """Names of the clusters, those of the last call where the members are the same."""
    previous = pd.Series(dtype=object)
    if Found.exists(output):
        before = Found.read(output).members
        previous = pd.Series(before["cluster"].to_numpy(object), index=before["id"])
    return match_names(previous, pd.Series(clustering.clusters.labels, index=table["id"]))


def _clusters(table: pd.DataFrame, clustering: Clustering, names: Names) -> pd.DataFrame:
    """The table of the clusters, with names, and identifiers of the exemplars."""
    found = clustering.clusters.table
    own = [names.of[int(label)] for label in found.index]
    ids = table["id"].to_numpy(object)[found["exemplar"].to_numpy(int)] if len(found) else []
    return found.assign(exemplar=ids).reset_index(drop=True).assign(cluster=own).set_index("cluster").reset_index()
