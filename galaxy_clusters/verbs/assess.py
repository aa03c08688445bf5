"""`python -m galaxy_clusters assess`: evidence that the clusters exist, and what else may explain them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.clustering.chain import ChainSettings, cluster
from galaxy_clusters.clustering.graph import prepared
from galaxy_clusters.clustering.leaves import Clusters
from galaxy_clusters.data.catalogue import sdss_fields
from galaxy_clusters.data.sky import systems
from galaxy_clusters.evaluation import Points
from galaxy_clusters.evaluation.classes import recovery
from galaxy_clusters.evaluation.found import EVIDENCE, REMARKS, STAGES, Found
from galaxy_clusters.evaluation.injection import detectability, smallest_findable
from galaxy_clusters.evaluation.null import against_null, permuted
from galaxy_clusters.evaluation.stability import density_validity, seeds, stability, subsamples
from galaxy_clusters.evaluation.systematics import distinct_systems, flags, systematics
from shared.data.embeddings import read_embeddings
from shared.data.files import write_whole
from shared.data.problems import DataError
from shared.data.tables import read_csv

# Columns that a cluster should not depend on, by the names that surveys give them.
CATEGORIES = ("brickid", "brickname", "run", "camcol")
NUMBERS = ("psf_fwhm", "psfsize_r", "psfdepth_r", "est_petro_th50", "mag_r", "position_angle")
PERIODS = {"position_angle": 180.0}
RECOVERY = "recovery.csv"


@dataclasses.dataclass(frozen=True)
class Effort:
    """How often the chain is run again.

    Attributes:
        replicates: Smooth resamples; p-values are at least 1 / (1 + this).
        subsamples: Runs on 80% of the galaxies.
        seeds: Runs with other seeds of the layout.
        counts: Sizes of injected classes.
        scatters: Their scatter, in distances to the tenth neighbour.
        injections: Runs for each scatter.
        patches: Draws of random patches for each class of the truth.
    """

    replicates: int = 39
    subsamples: int = 8
    seeds: int = 3
    counts: tuple[int, ...] = (10, 20, 40, 80)
    scatters: tuple[float, ...] = (0.5, 1.0)
    injections: int = 4
    patches: int = 100


def assess(
    clusters: Path,
    effort: Effort | None = None,
    truth: Path | None = None,
    truth_column: str | None = None,
    categories: list[str] | None = None,
    numbers: list[str] | None = None,
    link_arcsec: float = 30.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Ask of each cluster whether smooth data alone would show it, whether it comes back, and what else explains it.

    The chain is run again with the settings of the clustering, which must have been chosen without looking at these
    results. Every run is kept, so that a killed call goes on.

    Args:
        clusters: Folder of a clustering.
        effort: How often, e.g. `--effort.replicates 99`.
        truth: CSV with an id (the first column) and known classes; by default the catalogue's own columns.
        truth_column: Column of the classes; without it, recovery is not looked at.
        categories: Columns of names that a cluster should not depend on; by default those with usual names, and for
            SDSS identifiers the run and camera column within them.
        numbers: Columns of numbers likewise.
        link_arcsec: Distance within which galaxies are one system.
        seed: Of everything random.

    Returns:
        The content of `evidence.csv`, one row a cluster.

    Raises:
        DataError: There is no clustering, or a column is missing.
    """
    effort = effort or Effort()
    found = Found.read(clusters)
    members, names, settings = found.members, found.names, found.settings
    labels = members["label"].to_numpy(np.int64)
    values = read_embeddings(Path(found.about["embeddings"])).values[members["row"].to_numpy()]
    x = prepared(values, settings.scaling)
    folder = clusters / "runs"
    known = {"settings": dataclasses.asdict(settings)}
    chain = _chain(settings)
    remarks: list[str] = []
    table = pd.DataFrame(index=pd.RangeIndex(len(names), name="cluster"))

    sky = None
    if "ra" in members:
        sky = systems(members["ra"].to_numpy(float), members["dec"].to_numpy(float), link_arcsec)
    table = table.join(distinct_systems(labels, sky))
    table = table.join(_null(x, found, chain, effort, seed, folder, known, remarks))
    if effort.subsamples:
        reruns = subsamples(x, _labels(chain), effort.subsamples, seed, folder / "subsamples.jsonl", known)
        table = table.join(stability(labels, reruns).drop(columns="runs"))
    if effort.seeds:
        others = [settings.seed + 1 + number for number in range(effort.seeds)]
        again = seeds(x, lambda part, own: _chain(settings, own)(part).labels, others, folder / "seeds.jsonl", known)
        table = table.join(stability(labels, again)[["stability"]].rename(columns={"stability": "other_seeds"}))
    table = table.join(_systematics(members, labels, categories, numbers))
    if effort.injections:
        remarks += _findable(x, chain, effort, seed, folder, known, clusters)
    validity = density_validity(cluster(values, settings, clusters / STAGES).layout, labels)
    said = f"undefined, since {validity.undefined}" if validity.undefined else f"{validity.value:.2f}"
    remarks.append(f"Density-based validity in the layout (DBCV; comparable within one data set): {said}.")
    if truth_column:
        classes = _classes(members, truth, truth_column)
        recovered = recovery(x, labels, classes, effort.patches, seed)
        recovered["cluster"] = [names[label] if label >= 0 else None for label in recovered["cluster"]]
        write_whole(clusters / RECOVERY, recovered.to_csv(index=False))
        table = table.join(_commonest(labels, classes))
        print(recovered.round(3).to_string(index=False))
    table.insert(0, "name", names)
    table = table.rename(columns={"name": "cluster"}).reset_index(drop=True)
    write_whole(clusters / EVIDENCE, table.to_csv(index=False))
    write_whole(clusters / REMARKS, json.dumps({"remarks": remarks}, indent=1) + "\n")
    print(table.round(3).to_string(index=False))
    print("\n".join(remarks))
    return table


def _chain(settings: ChainSettings, seed: int | None = None) -> Callable[[Points], Clusters]:
    """From a prepared representation to clusters."""
    own = dataclasses.replace(settings, scaling="none", seed=settings.seed if seed is None else seed)
    return lambda x: cluster(x, own).clusters


def _labels(chain: Callable[[Points], Clusters]) -> Callable[[Points], NDArray[np.int64]]:
    return lambda x: chain(x).labels


def _null(
    x: Points,
    found: Found,
    chain: Callable[[Points], Clusters],
    effort: Effort,
    seed: int,
    folder: Path,
    known: dict[str, Any],
    remarks: list[str],
) -> pd.DataFrame:
    """Family-wise p of each cluster, and what is said of it."""
    own = Clusters(found.members["label"].to_numpy(np.int64), found.members["strength"].to_numpy(float), found.clusters)
    null = against_null(x, own, chain, replicates=effort.replicates, seed=seed, path=folder / "null.jsonl",
                        settings=known)  # fmt: skip
    remarks.append(f"Smooth resamples: {null.check.reason}.")
    if null.clusters:
        expected, real = float(np.mean(null.clusters)), int((null.table["p_family"] < 0.05).sum())
        islands = len(chain(permuted(x, seed)).table)
        remarks.append(
            f"{real} of {len(null.table)} clusters have p < 0.05, family-wise. The resamples show "
            f"{expected:.1f} clusters each, so their number is no evidence; independently permuted columns show "
            f"{islands}, which is no fair null."
        )
    return null.table


def _findable(
    x: Points,
    chain: Callable[[Points], Clusters],
    effort: Effort,
    seed: int,
    folder: Path,
    known: dict[str, Any],
    clusters: Path,
) -> list[str]:
    """The smallest class that could have been found, as sentences; the table is kept."""
    draws = [seed + number for number in range(effort.injections)]
    table = detectability(x, _labels(chain), effort.counts, effort.scatters, draws, folder / "injection.jsonl", known)
    write_whole(clusters / "injection.csv", table.to_csv(index=False))
    said = []
    for scatter in effort.scatters:
        count, low, high = smallest_findable(table, scatter)
        size = f"about {count:.0f} members" if np.isfinite(count) else "no tested size"
        said.append(
            f"Injected classes with a scatter of {scatter:g} distances to the tenth neighbour are found as often as "
            f"not from {size} on [{low:.0f}, {high:.0f}]."
        )
    return said


def _systematics(
    members: pd.DataFrame, labels: NDArray[np.int64], categories: list[str] | None, numbers: list[str] | None
) -> pd.DataFrame:
    """Flags of each cluster."""
    fields = sdss_fields(members["id"].tolist())
    if fields is not None:
        members = members.assign(run=fields["run"].to_numpy(), camcol=fields["camcol"].to_numpy())
    named = [name for name in CATEGORIES if name in members] if categories is None else categories
    numeric = [name for name in NUMBERS if name in members] if numbers is None else numbers
    if not named and not numeric:
        return pd.DataFrame({"flags": "unknown"}, index=pd.Index(np.unique(labels[labels >= 0]), name="cluster"))
    return flags(systematics(labels, members, named, numeric, PERIODS)).to_frame()


def _classes(members: pd.DataFrame, truth: Path | None, column: str) -> "pd.Series[str]":
    """The class of each galaxy, missing where it is not known."""
    if truth is None:
        if column not in members:
            raise DataError(f"the catalogue has no column {column}; it has {', '.join(map(str, members.columns))}")
        return members[column].astype("str")
    known: pd.Series[str] = read_csv(truth, [column], dtype=str).pipe(lambda frame: frame.set_index(frame.columns[0]))[
        column
    ]
    return members["id"].map(known)


def _commonest(labels: NDArray[np.int64], classes: "pd.Series[str]") -> pd.DataFrame:
    """The commonest known class of each cluster's members, and its share."""
    own = labels >= 0
    shares = pd.crosstab(labels[own], classes.fillna("unknown").to_numpy()[own], normalize="index")
    return pd.DataFrame({"commonest": shares.idxmax(axis=1), "its_share": shares.max(axis=1)}).rename_axis("cluster")
