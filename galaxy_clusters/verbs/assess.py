"""`python -m galaxy_clusters assess`: evidence that the clusters exist, and what else may explain them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.clustering.graph import scaler
from galaxy_clusters.data.catalogue import read_catalogue, sdss_fields
from galaxy_clusters.data.schema import VoteSchema, read_schema
from galaxy_clusters.data.sky import systems
from galaxy_clusters.evaluation.assessment import Assessment, Effort
from galaxy_clusters.evaluation.classes import recovery
from galaxy_clusters.evaluation.enrichment import enrichment
from galaxy_clusters.evaluation.found import ENRICHMENT, EVIDENCE, RECOVERY, REMARKS, Found
from galaxy_clusters.evaluation.independence import within_answer
from galaxy_clusters.evaluation.stability import kept_when_changed
from galaxy_clusters.evaluation.systematics import ALPHA, distinct_systems, flags, systematics
from shared.data.embeddings import read_embeddings
from shared.data.files import write_whole
from shared.data.problems import DataError
from shared.data.tables import check_columns

# Columns that a cluster should not depend on, by the names that surveys give them, in any capitals.
CATEGORIES = ("brickid", "brickname", "run", "camcol")
NUMBERS = ("psf_fwhm", "psfsize_r", "psfdepth_r", "est_petro_th50", "mag_r", "position_angle")
PERIODS = {"position_angle": 180.0}


def assess(
    clusters: Path,
    effort: Effort | None = None,
    truth: Path | None = None,
    truth_column: str | None = None,
    merged: dict[str, str] | None = None,
    categories: list[str] | None = None,
    numbers: list[str] | None = None,
    attributes: list[str] | None = None,
    turned: Path | None = None,
    schema: str = "desi",
    answer: str = "smooth-or-featured_artifact",
    link_arcsec: float = 30.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Ask of each cluster whether smooth data alone would show it, whether it comes back, and what else explains it.

    The chain is run again with the settings of the clustering, which must have been chosen without looking at these
    results. Every run is kept, so that a killed call goes on.

    Args:
        clusters: Folder of a clustering.
        effort: How often, e.g. `--effort.replicates 99`.
        truth: Table with identifiers, as a catalogue has, and known classes; by default the catalogue's own columns.
        truth_column: Column of the classes; without it, recovery is not looked at.
        merged: Classes that are renamed, as in training.
        categories: Columns of names that a cluster should not depend on; by default those with usual names, and for
            SDSS identifiers the run and camera column within them.
        numbers: Columns of numbers likewise.
        attributes: Columns held out from everything before, true or false, numbers or names of classes: which clusters
            are enriched in them, beside random patches, goes into `enrichment.csv`.
        turned: Embeddings of the same galaxies from images turned by a quarter (`embed --control turned`): do galaxies
            keep their cluster?
        schema: Vote schema, whose columns hold numbers of volunteers' votes where the catalogue has them.
        answer: One of its answers, within which clusters are predicted from those votes: the leaf of the vote tree that
            the labels say nothing more about (section 4).
        link_arcsec: Distance within which galaxies are one system.
        seed: Of everything random.

    Returns:
        The content of `evidence.csv`, one row a cluster.

    Raises:
        DataError: There is no clustering, its embeddings have changed, a column is missing, no galaxy has a class, or
            the turned embeddings are not of the same galaxies.
    """
    assessment = Assessment(Found.read(clusters), clusters, effort or Effort(), seed)
    check_columns(Path("the catalogue"), attributes or [], assessment.members.columns)
    classes = _classes(assessment.members, truth, truth_column, merged or {}) if truth_column else None
    table = pd.DataFrame({"cluster": assessment.found.names}).rename_axis("label")
    parts = [
        _systems(assessment, link_arcsec),
        assessment.null(),
        assessment.stability(),
        _turned(assessment, turned),
        _systematics(assessment, categories, numbers),
    ]
    assessment.injection()
    assessment.validity()
    independent = _independence(assessment, read_schema(schema), answer)
    if attributes:
        _enrichment(assessment, attributes)
    if classes is not None:
        recovered = recovery(assessment.x, assessment.labels, classes, assessment.effort.patches, seed)
        names = assessment.found.names
        for column in ("cluster", "enriched"):
            recovered[column] = [names[label] if label >= 0 else None for label in recovered[column]]
        write_whole(clusters / RECOVERY, recovered.to_csv(index=False))
        parts.append(_commonest(assessment.labels, classes))
        print(recovered.round(3).to_string(index=False))
    for part in parts:
        table = table.join(part)
    table = table.reset_index(drop=True)
    write_whole(clusters / EVIDENCE, table.to_csv(index=False))
    whole = {"remarks": assessment.remarks, "independence": independent}
    write_whole(clusters / REMARKS, json.dumps(whole, indent=1) + "\n")
    print(table.round(3).to_string(index=False))
    print("\n".join(assessment.remarks))
    return table


def _turned(assessment: Assessment, turned: Path | None) -> pd.DataFrame:
    """How many members of each cluster keep it when their images are turned."""
    if turned is None:
        return pd.DataFrame()
    other = read_embeddings(turned)
    place = pd.Series(np.arange(len(other.ids)), index=other.ids).reindex(assessment.members["id"])
    if place.isna().any():
        raise DataError(f"{turned} lacks {place.index[place.isna()][0]}: embed the same catalogue, turned")
    scale = scaler(assessment.values, assessment.found.settings.scaling)
    return kept_when_changed(assessment.x, scale(other.values[place.to_numpy(int)]), assessment.labels)


def _independence(assessment: Assessment, schema: VoteSchema, answer: str) -> dict[str, Any] | None:
    """Whether clusters within an answer follow from volunteers' votes, where the catalogue has them."""
    members, columns = assessment.members, schema.columns
    if not {answer, *columns} <= set(members.columns):
        return None
    fractions = schema.fractions(members[columns].fillna(0).to_numpy(np.float64))
    found, count = within_answer(fractions, fractions[:, columns.index(answer)], assessment.labels, assessment.seed)
    assessment.remarks.append(
        f"Do clusters follow from the votes of the {count} galaxies with the answer {answer}? {found.word}: "
        f"{found.reason}."
    )
    return asdict(found)


def _enrichment(assessment: Assessment, attributes: list[str]) -> None:
    """Clusters enriched in held-out attributes."""
    members = assessment.members
    table = members[attributes]
    texts = [name for name in attributes if pd.api.types.is_string_dtype(table[name])]
    known = [
        pd.get_dummies(table[[name]], prefix_sep=" ").astype("boolean").where(table[name].notna()) for name in texts
    ]
    table = pd.concat([table.drop(columns=texts), *known], axis=1)
    found = enrichment(assessment.x, assessment.labels, table, assessment.effort.patches, assessment.seed)
    found["cluster"] = [assessment.found.names[label] for label in found["cluster"]]
    write_whole(assessment.folder / ENRICHMENT, found.to_csv(index=False))
    print(found[found["p_holm"] < ALPHA].sort_values("p").round(3).to_string(index=False))


def _systems(assessment: Assessment, link_arcsec: float) -> pd.DataFrame:
    """Distinct objects on the sky in each cluster."""
    members, sky = assessment.members, None
    if {"ra", "dec"} <= set(members.columns):
        sky = systems(members["ra"].to_numpy(float), members["dec"].to_numpy(float), link_arcsec)
    return distinct_systems(assessment.labels, sky)


def _systematics(assessment: Assessment, categories: list[str] | None, numbers: list[str] | None) -> pd.DataFrame:
    """Flags of each cluster."""
    members, labels = assessment.members, assessment.labels
    fields = sdss_fields(members["id"].tolist())
    if fields is not None:
        members = members.assign(run=fields["run"].to_numpy(), camcol=fields["camcol"].to_numpy())
    named = [str(name) for name in members if str(name).lower() in CATEGORIES] if categories is None else categories
    numeric = [str(name) for name in members if str(name).lower() in NUMBERS] if numbers is None else numbers
    if not named and not numeric:
        return pd.DataFrame({"flags": "unknown"}, index=pd.Index(np.unique(labels[labels >= 0]), name="label"))
    return flags(systematics(labels, members, named, numeric, PERIODS)).to_frame()


def _classes(members: pd.DataFrame, truth: Path | None, column: str, merged: Mapping[str, str]) -> "pd.Series[str]":
    """The class of each galaxy, missing where it is not known."""
    if truth is None:
        frame, where = members, "the catalogue"
    else:
        frame, where = read_catalogue(truth), str(truth)
    if column not in frame:
        raise DataError(f"{where} has no column {column}; it has {', '.join(map(str, frame.columns))}")
    known = frame.set_index("id")[column].reindex(members["id"]).reset_index(drop=True)
    if known.isna().all():
        raise DataError(f"{where} has a {column} of none of the {len(members)} galaxies")
    return known.map(lambda value: merged.get(str(value), str(value)), na_action="ignore").astype("str")


def _commonest(labels: NDArray[np.int64], classes: "pd.Series[str]") -> pd.DataFrame:
    """The commonest known class of each cluster's members, and its share."""
    own = labels >= 0
    if not own.any():
        return pd.DataFrame()
    shares = pd.crosstab(labels[own], classes.fillna("unknown").to_numpy()[own], normalize="index")
    return pd.DataFrame({"commonest": shares.idxmax(axis=1), "its_share": shares.max(axis=1)})
