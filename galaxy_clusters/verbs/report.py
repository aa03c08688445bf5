"""`python -m galaxy_clusters report`: gallery, map and tables of a clustering, to look at and to send on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from galaxy_clusters.clustering.graph import prepared
from galaxy_clusters.data.source import Pixels, joined, pixels_of, read_source
from galaxy_clusters.evaluation.found import EVIDENCE, Found
from galaxy_clusters.report.export import apply_merges, read_merges, with_links, write_csv, write_votable
from galaxy_clusters.report.gallery import write_gallery
from galaxy_clusters.report.map import write_map
from galaxy_clusters.report.page import write_page

MERGES = "merges.csv"  # made by hand: cluster, group
NOT_SHOWN = ("row", "label", "x", "y", "image")  # columns of the members that are nobody's business


def report(clusters: Path, count: int = 8, max_mb: float = 25.0) -> Path:
    """Write `index.html` with a contact sheet for each cluster, `map.html`, and tables for TOPCAT and Aladin.

    All of it opens from disk, without a network. Evidence is shown where `assess` has been run. Leaves that look alike
    may be grouped by hand in `merges.csv` (`cluster`, `group`), which later calls keep to.

    Args:
        clusters: Folder of a clustering.
        count: Galaxies of each kind on a contact sheet.
        max_mb: Largest size of the map in megabytes. To keep it, thumbnails are compressed, then columns left out.

    Returns:
        Path of `index.html`.

    Raises:
        DataError: There is no clustering, its embeddings are gone or others, `merges.csv` does not fit it, or even the
            plainest map is too large.
    """
    found = Found.read(clusters)
    # What is near on a contact sheet is what was near for the clustering.
    values = prepared(found.values(), found.settings.scaling)
    by_hand = clusters / MERGES
    merges = read_merges(by_hand, found.names, found.about.get("names", [])) if by_hand.is_file() else {}
    members = found.members.assign(cluster=apply_merges(found.members["cluster"], merges))
    table = found.with_evidence(clusters)
    note = "SYNTHETIC" if found.about["synthetic"] else ""
    galaxies = with_links(members.drop(columns=[name for name in NOT_SHOWN if name in members]))
    own = ["id", "cluster", "strength"]  # first, so that a map that is too large does without others
    galaxies = galaxies[[*own, *(name for name in galaxies if name not in own)]]
    write_csv(clusters / "galaxies.csv", galaxies)
    write_votable(clusters / "galaxies.vot", galaxies)
    pixels = _pixels(Path(found.about["embeddings"]), members)
    evidence = _evidence(table, merges)
    shown = write_gallery(clusters / "sheets", members, values, evidence, pixels, note, count)
    if merges:
        table.insert(1, "group", apply_merges(table["cluster"], merges).where(table["cluster"].isin(merges)))
    title = f"Clusters of {len(members):,} galaxies"
    links = {"map of all galaxies": clusters / "map.html", "galaxies as CSV": clusters / "galaxies.csv",
             "galaxies as VOTable": clusters / "galaxies.vot"}  # fmt: skip
    if (clusters / EVIDENCE).is_file():
        links["evidence as CSV"] = clusters / EVIDENCE
    settings = {**found.about["settings"], "cuts": found.about["cuts"] or "none", "embeddings by": found.about["model"]}
    page = clusters / "index.html"
    write_page(page, title, table, shown, evidence, settings, links, note, found.remarks(clusters))
    write_map(clusters / "map.html", galaxies, members[["x", "y"]].to_numpy(), pixels, title, note, max_mb)
    print(f"wrote {page}, {clusters}/map.html and {clusters}/galaxies.vot")
    return page


def _evidence(table: pd.DataFrame, merges: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By cluster or group, what is known of it; of several leaves together, that is their names and size."""
    evidence = {}
    for name, rows in table.groupby(apply_merges(table["cluster"], merges), sort=False):
        leaves = rows["cluster"].tolist()
        grouped = {} if leaves == [name] else {"leaves": ", ".join(leaves)}
        known = _said(rows.to_dict("records")[0]) if len(leaves) == 1 else {"size": str(rows["size"].sum())}
        evidence[str(name)] = grouped | known
    return evidence


def _pixels(embeddings: Path, members: pd.DataFrame) -> Pixels | None:
    """Reads the images of members; None for anybody's embeddings."""
    kept = read_source(embeddings)
    if kept is None:
        return None
    source, look = kept
    frame = joined(members["id"].tolist(), source.frame(), source.catalogue)
    return pixels_of(source.images(frame, look))


def _said(row: Mapping[Any, Any]) -> dict[str, str]:
    """What is known of a cluster, as text; a value that is missing is left out."""
    said = {}
    for key, value in row.items():
        if key == "cluster" or pd.isna(value) or value == "":
            continue
        said[str(key).replace("_", " ")] = f"{value:.3g}" if isinstance(value, float) else str(value)
    return said
