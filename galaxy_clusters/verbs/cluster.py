"""`python -m galaxy_clusters cluster`: clusters of a representation, and a map of it."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from galaxy_clusters.clustering.chain import Chain, ChainSettings, fingerprint
from galaxy_clusters.clustering.leaves import Clusters
from galaxy_clusters.data.catalogue import read_catalogue, with_position
from galaxy_clusters.data.cuts import apply_cuts, read_cuts
from galaxy_clusters.data.schema import read_schema
from galaxy_clusters.data.source import FAULT, joined, read_source
from galaxy_clusters.evaluation.found import CUTS, OWN, STAGES, Found
from galaxy_clusters.report.names import Names, match_names
from shared.data.embeddings import Embeddings, read_embeddings
from shared.data.problems import DataError

log = logging.getLogger(__name__)


def cluster(
    embeddings: Path,
    output: Path | None = None,
    catalogue: Path | None = None,
    id_column: str | None = None,
    cuts: str | None = None,
    only: Path | None = None,
    schema: str = "desi",
    settings: ChainSettings | None = None,
    max_memory_gb: float | None = None,
) -> Found:
    """Cluster a representation as the paper does (section 3): UMAP, then the leaves of HDBSCAN's tree.

    Every stage is a file, so that another setting starts from what it shares with the ones before, and a killed call
    goes on. Clusters keep their names from one call to the next where they have the same members. Images that show
    nothing, as `embed` found, are left out.

    Args:
        embeddings: Ours (`embed`) or anybody's: a parquet file or a folder of its shards, or a `.npy` array.
        output: Folder to write into; by default `clusters` beside the embeddings.
        catalogue: Table of the galaxies, whose columns the cuts, the report and `assess` may use; by default the one
            that was embedded.
        id_column: Column of identifiers of that catalogue or, without one, of anybody's embeddings.
        cuts: Which galaxies take part: `paper` (section 2), or a YAML file. They look at the vote fractions beside the
            embeddings and at the catalogue's columns.
        only: Table of the galaxies that take part, by their identifiers, such as those that several encoders are
            compared on.
        schema: Vote schema of the fractions.
        settings: What the chain does, e.g. `--settings.min_samples 20`, or a YAML file.
        max_memory_gb: Memory that the work may take.

    Returns:
        What is kept in `members.parquet`, `clusters.csv` and `clustering.json`.

    Raises:
        DataError: See `read_embeddings`, `read_catalogue`, `read_cuts`, `apply_cuts` and `clustering.chain.cluster`; a
            galaxy with an embedding is not in the catalogue; or `only` names none that is left.
    """
    settings = settings or ChainSettings()
    output = output or embeddings.parent / "clusters"
    own_ids = None if catalogue else id_column
    found, source = read_embeddings(embeddings, own_ids), read_source(embeddings)
    frame = read_catalogue(catalogue, id_column) if catalogue else source[0].frame() if source else None
    table = _table(embeddings, found, frame)
    counts = None
    if cuts:
        rules = read_cuts(CUTS / "paper.yaml" if cuts == "paper" else Path(cuts))
        table, counts = apply_cuts(table, rules, read_schema(schema))
    if only:
        table = table[table["id"].isin(read_catalogue(only)["id"])].reset_index(drop=True)
        if table.empty:
            raise DataError(f"{only} names none of the galaxies that are left")
    rows = table["row"].to_numpy()
    print(f"{len(rows)} of {len(found.ids)} galaxies; distances are Euclidean, scaling: {settings.scaling}")
    values = found.values[rows]
    chain = Chain(values, settings.neighbours, output / STAGES)
    chain.check(settings, max_memory_gb)
    clusters = chain.clusters(settings)
    mapped = chain.layout(dataclasses.replace(settings, dims=2))
    names, given = _names(table, clusters, output)
    kept = Found(
        table.assign(
            cluster=pd.Series([names.of.get(int(label)) for label in clusters.labels], dtype="str"),
            label=clusters.labels,
            strength=clusters.strength,
            x=mapped[:, 0],
            y=mapped[:, 1],
        ),
        _clusters(table, clusters, names),
        {
            "settings": dataclasses.asdict(settings),
            "embeddings": str(embeddings.resolve()),
            "id_column": own_ids,
            "data": fingerprint(found.values),
            "model": found.model,
            "cuts": cuts,
            "synthetic": bool(source and source[0].is_synthetic),
            "names": given,
            "recall": chain.recall(settings),
            "seconds": chain.seconds,
        },
    )
    kept.write(output)
    if counts is not None:
        counts.to_csv(output / "cuts.csv", index=False)
    if names.vanished:
        print(f"clusters of the last call that are gone: {', '.join(names.vanished)}")
    share = float((clusters.labels >= 0).mean())
    print(f"{len(kept.clusters)} clusters hold {100 * share:.1f}% of the galaxies (in the paper under 2%)")
    said = ", ".join(f"{stage} {value:.1f}" for stage, value in chain.seconds.items())
    print(f"seconds of each stage: {said or 'all were there'}; wrote {output}")
    return kept


def _table(embeddings: Path, found: Embeddings, frame: pd.DataFrame | None) -> pd.DataFrame:
    """One row a galaxy whose image shows something: id, row, what stands beside the vector, and the catalogue's row."""
    ids = pd.DataFrame({"id": found.ids})
    beside = found.table.reset_index(drop=True)
    own = pd.DataFrame(index=ids.index)
    if frame is not None:
        own = joined(found.ids.tolist(), frame, f"the catalogue of {embeddings}").drop(columns="id")
        own = own.drop(columns=[name for name in own if name in beside])
    others = pd.concat([beside, own], axis=1)
    if taken := [str(name) for name in others if name in OWN]:
        log.warning("columns called like ours get other names: %s", ", ".join(f"{name}_catalogue" for name in taken))
        others = others.rename(columns={name: f"{name}_catalogue" for name in taken})
    table = pd.concat([ids.assign(row=np.arange(len(ids))), others], axis=1)
    if FAULT in table:
        faulty = table[FAULT].fillna("") != ""
        if faulty.any():
            print(f"{int(faulty.sum())} galaxies whose image shows nothing are left out")
        table = table[~faulty].drop(columns=FAULT).reset_index(drop=True)
        if table.empty:
            raise DataError(f"no image of {embeddings} shows anything")
    return with_position(embeddings, table)


def _names(table: pd.DataFrame, clusters: Clusters, output: Path) -> tuple[Names, list[str]]:
    """Names of the clusters, those of the last call where the members are the same; and all that were ever given."""
    previous, given = pd.Series(dtype=object), []
    if Found.exists(output):
        before = Found.read(output)
        previous = pd.Series(before.members["cluster"].to_numpy(object), index=before.members["id"])
        given = list(before.about.get("names", []))
    names = match_names(previous, pd.Series(clusters.labels, index=table["id"]), given)
    return names, sorted({*given, *names.of.values()})


def _clusters(table: pd.DataFrame, clusters: Clusters, names: Names) -> pd.DataFrame:
    """The table of the clusters, with names, and identifiers of the exemplars."""
    found = clusters.table
    own = [names.of[int(label)] for label in found.index]
    ids = table["id"].to_numpy(object)[found["exemplar"].to_numpy(int)] if len(found) else []
    return found.assign(exemplar=ids).reset_index(drop=True).assign(cluster=own).set_index("cluster").reset_index()
