"""The runs behind `assess`: a clustering's chain on smooth resamples, subsamples, other seeds, injected classes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from galaxy_clusters.clustering.chain import cluster
from galaxy_clusters.clustering.graph import prepared
from galaxy_clusters.clustering.leaves import Clusters
from galaxy_clusters.evaluation import Points, replicated, runs_file
from galaxy_clusters.evaluation.found import STAGES, Found
from galaxy_clusters.evaluation.injection import CROWDED, LOCAL, detectability, smallest_findable
from galaxy_clusters.evaluation.null import FAR, NEIGHBOURS, against_null, permuted
from galaxy_clusters.evaluation.stability import SHARE, density_validity, seeds, stability, subsamples
from shared.data.files import write_whole

FEWEST = FAR + 1  # neighbours of a smooth resample


@dataclasses.dataclass(frozen=True)
class Effort:
    """How often the chain is run again; 0 leaves that part out.

    Attributes:
        replicates: Smooth resamples; p-values are at least 1 / (1 + this).
        subsamples: Runs on 80% of the galaxies.
        seeds: Runs with other seeds of the layout.
        counts: Sizes of injected classes; together at most a fifth of the galaxies, larger ones are left out.
        scatters: Their scatter, in distances to the tenth neighbour.
        injections: Runs for each scatter.
        patches: Draws of random patches for each class of the truth and each attribute.
    """

    replicates: int = 39
    subsamples: int = 8
    seeds: int = 3
    counts: tuple[int, ...] = (10, 20, 40, 80)
    scatters: tuple[float, ...] = (0.5, 1.0)
    injections: int = 4
    patches: int = 100


class Assessment:
    """A clustering, and runs of its chain on other data.

    Args:
        found: The clustering.
        folder: Where it is kept; the runs go into `runs` in it.
        effort: How often the chain is run again.
        seed: Of everything random.

    Attributes:
        x: The representation as the chain takes it `(N, D)`.
        labels: `(N,)`.
        remarks: Sentences on the whole.
    """

    def __init__(self, found: Found, folder: Path, effort: Effort, seed: int) -> None:
        self.found, self.folder, self.effort, self.seed = found, folder, effort, seed
        self.members = found.members
        self.labels = found.members["label"].to_numpy(np.int64)
        self.values = found.values()
        self.x = prepared(self.values, found.settings.scaling)
        self.remarks: list[str] = []
        self._known = {"settings": found.about["settings"]}

    def chain(self, x: Points, seed: int | None = None) -> Clusters:
        """Clusters of a representation that is scaled already."""
        own = self.found.settings
        x = prepared(x, "l2") if own.scaling == "l2" else x  # injected galaxies are off the sphere
        return cluster(x, dataclasses.replace(own, scaling="none", seed=own.seed if seed is None else seed)).clusters

    def _file(self, stage: str, *what: Any) -> Path:
        """Where runs are kept."""
        return runs_file(self.folder, stage, self._known, self.found.about["data"], self.seed, *what)

    def null(self) -> pd.DataFrame:
        """Family-wise p of each cluster."""
        effort, x = self.effort, self.x
        if why := self._no_null():
            self.remarks.append(f"No smooth resamples, so no p-value: {why}.")
            return pd.DataFrame()
        own = Clusters(self.labels, self.members["strength"].to_numpy(float), self.found.clusters)
        neighbours = min(NEIGHBOURS, max(FEWEST, len(x) // 10))
        path = self._file("null", effort.replicates, neighbours)
        null = against_null(x, own, self.chain, neighbours, effort.replicates, self.seed, path, self._known)
        self.remarks.append(f"Smooth resamples: {null.check.reason}.")
        if null.clusters:
            real = int((null.table["p_family"] < 0.05).sum())
            path = self._file("permuted")
            (islands,) = replicated(
                lambda _: len(self.chain(permuted(x, self.seed)).table), 1, "permuted columns", path, self._known
            )
            self.remarks.append(
                f"{real} of {len(null.table)} clusters have p < 0.05, family-wise. The resamples show "
                f"{float(np.mean(null.clusters)):.1f} clusters each, so their number is no evidence; independently "
                f"permuted columns show {islands}, which is no fair null."
            )
        return null.table

    def _no_null(self) -> str:
        """Why there are no smooth resamples; empty if there are."""
        if len(self.x) <= 2 * FEWEST:
            return f"{len(self.x)} galaxies are too few"
        if not self.effort.replicates:
            return "none were asked for"
        return "they would leave the sphere that l2 scales to" if self.found.settings.scaling == "l2" else ""

    def stability(self) -> pd.DataFrame:
        """How well clusters come back from most of the galaxies, and with other seeds."""
        effort, settings, parts = self.effort, self.found.settings, []
        if effort.subsamples and SHARE * len(self.x) > max(settings.neighbours, settings.min_samples) + 1:
            path = self._file("subsamples")
            runs = subsamples(self.x, lambda x: self.chain(x).labels, effort.subsamples, self.seed, path, self._known)
            parts.append(stability(self.labels, runs).drop(columns="runs"))
        if effort.seeds:
            others = [settings.seed + 1 + number for number in range(effort.seeds)]
            path = self._file("seeds", others)
            again = seeds(self.x, lambda x, seed: self.chain(x, seed).labels, others, path, self._known)
            parts.append(stability(self.labels, again)[["stability"]].rename(columns={"stability": "other_seeds"}))
        return pd.concat(parts, axis=1) if parts else pd.DataFrame()

    def injection(self) -> None:
        """The smallest class that could have been found."""
        effort = self.effort
        room = CROWDED * len(self.x)
        counts = [count for place, count in enumerate(effort.counts) if sum(effort.counts[: place + 1]) <= room]
        if not effort.injections or not counts or len(self.x) <= LOCAL:
            return
        draws = [self.seed + number for number in range(effort.injections)]
        path = self._file("injection", counts, effort.scatters, draws)
        table = detectability(self.x, lambda x: self.chain(x).labels, counts, effort.scatters, draws, path, self._known)
        write_whole(self.folder / "injection.csv", table.to_csv(index=False))
        for scatter in effort.scatters:
            count, low, high = smallest_findable(table, scatter)
            if not np.isfinite(count):
                size = f"not even with {max(counts)} members, the most tested"
            else:
                about = "at most" if count == min(counts) else "about"
                size = f"from {about} {count:.0f} members on [{low:.0f}, {high:.0f}]"
            self.remarks.append(
                f"Injected classes with a scatter of {scatter:g} distances to the tenth neighbour are found as often "
                f"as not {size}."
            )

    def validity(self) -> None:
        """Density-based validity."""
        layout = cluster(self.values, self.found.settings, self.folder / STAGES).layout
        found = density_validity(layout, self.labels)
        said = f"undefined, since {found.undefined}" if found.undefined else f"{found.value:.2f}"
        self.remarks.append(f"Density-based validity in the layout (DBCV; comparable within one data set): {said}.")
