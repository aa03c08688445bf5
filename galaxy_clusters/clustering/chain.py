"""The whole way from a representation to clusters, each stage a file, for one setting or for many (paper, section 3).

A stage's file is named by what determines it: the representation, and the settings of this stage and of those before
it. So another cluster size starts from the finished tree, a killed call goes on where it stopped, and what two settings
have in common is made once.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from galaxy_clusters.clustering.graph import (
    EXACT_ROWS,
    Floats,
    NeighbourGraph,
    Scaling,
    check_enough,
    narrowed,
    neighbour_graph,
    one_thread,
    prepared,
    recall,
)
from galaxy_clusters.clustering.layout import fuzzy_set, layout, spectral_start
from galaxy_clusters.clustering.leaves import Clusters, Selection, condense, select
from galaxy_clusters.clustering.tree import SpanningTree, spanning_tree
from shared.data.files import whole
from shared.data.problems import DataError

log = logging.getLogger(__name__)

FORMAT = 1  # raised when a stage computes something else
LIBRARIES = ("umap-learn", "pynndescent", "fast-plscan")  # another version may lay out and cluster differently
# Of every start, so that a layout is the same whatever else is laid out beside it; the most that the paper tries.
START_DIMS = 15

# In their order, and the settings that each adds to those of the stages before it.
STAGES = {
    "graph": ("scaling", "reproducible"),
    "fuzzy": ("neighbours",),
    "start": ("seed",),
    "layout": ("dims", "densmap"),
    "tree": ("min_samples",),
    "clusters": ("min_cluster_size", "selection", "epsilon", "min_lambda"),
}

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ChainSettings:
    """What the chain does; the defaults are the paper's (section 3) where it gives a value.

    Attributes:
        neighbours: UMAP's `n_neighbors`, the row itself included.
        dims: UMAP's `n_components`.
        min_samples: HDBSCAN's, the point itself not counted.
        min_cluster_size: The fewest members of a cluster.
        selection: Which clusters of the condensed tree are taken: `"leaf"`, `"eom"` or `"persistence"`.
        epsilon: Splits at distances of the layout below it are undone.
        min_lambda: Clusters that end below this density are left out.
        densmap: Whether the layout keeps local densities (paper, section 5).
        scaling: What is done to the representation before distances: `"none"`, `"standardise"` or `"l2"`. The paper
            names none.
        seed: Of everything random.
        reproducible: One thread and the same bytes again; without it, all threads, and no two layouts are the same.

    Raises:
        DataError: A setting is out of its range.
    """

    neighbours: int = 50
    dims: int = 5
    min_samples: int = 300
    min_cluster_size: int = 10
    selection: Selection = "leaf"
    epsilon: float = 0.0
    min_lambda: float | None = None
    densmap: bool = False
    scaling: Scaling = "none"
    seed: int = 0
    reproducible: bool = True

    def __post_init__(self) -> None:
        for name, least in (("neighbours", 2), ("dims", 1), ("min_samples", 1), ("min_cluster_size", 2)):
            if (value := getattr(self, name)) < least:
                raise DataError(f"{name} must be at least {least}, got {value}")
        for name, known in (("selection", get_args(Selection)), ("scaling", get_args(Scaling))):
            if (value := getattr(self, name)) not in known:
                raise DataError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.epsilon < 0:
            raise DataError(f"epsilon must be at least 0, got {self.epsilon}")


@dataclass(frozen=True)
class Clustering:
    """What the chain found for one setting.

    Attributes:
        settings: The setting.
        clusters: Labels, membership and table of clusters.
        layout: UMAP coordinates `(N, dims)`.
        recall: Share of true neighbours in the graph, 1 where it is exact.
        seconds: Of each stage that was computed in the call, those of all its settings together.
    """

    settings: ChainSettings
    clusters: Clusters
    layout: Floats
    recall: float
    seconds: dict[str, float]


def cluster(
    x: NDArray[Any],
    settings: ChainSettings = ChainSettings(),
    folder: Path | None = None,
    max_memory_gb: float | None = None,
) -> Clustering:
    """Clusters of a representation.

    Args:
        x: One row a galaxy `(N, D)`.
        settings: What to do.
        folder: Where the stages are kept; None keeps none.
        max_memory_gb: What the work may take; None does not ask.

    Raises:
        DataError: The representation is no table of finite numbers, it has too few rows, the work needs more memory
            than it may take, or a kept stage is damaged.
    """
    return sweep(x, [settings], folder, max_memory_gb)[0]


def sweep(
    x: NDArray[Any],
    settings: Sequence[ChainSettings],
    folder: Path | None = None,
    max_memory_gb: float | None = None,
) -> list[Clustering]:
    """Clusters of a representation for many settings, what they have in common computed once.

    One graph serves all numbers of neighbours, one fuzzy set and one start all layouts of a number of neighbours, one
    layout all `min_samples`, one tree all cluster sizes and selections. Each result is that of `cluster` with the same
    setting; only above `EXACT_ROWS` rows, where the graph is approximate, a wider graph finds some other neighbours.

    Args:
        x: One row a galaxy `(N, D)`.
        settings: What to do.
        folder: Where the stages are kept; None keeps none.
        max_memory_gb: What the work may take; None does not ask.

    Raises:
        DataError: As `cluster`.
    """
    chain = Chain(x, max(each.neighbours for each in settings), folder)
    for each in settings:
        chain.check(each, max_memory_gb)
    found = [(chain.clusters(each), chain.layout(each), chain.recall(each)) for each in settings]
    return [Clustering(each, *one, chain.seconds) for each, one in zip(settings, found, strict=True)]


def fingerprint(x: NDArray[Any]) -> str:
    """What tells one array from another in the name of a file, or in it."""
    digest = hashlib.blake2b(np.ascontiguousarray(x).data, digest_size=16)
    return f"{x.dtype.str} {x.shape} {digest.hexdigest()}"


def memory_needed(rows: int, columns: int, settings: ChainSettings) -> float:
    """An estimate of the peak memory of the chain, in GB; see `Chain` for the stages.

    Args:
        rows: N.
        columns: D.
        settings: What is to be done.
    """
    pairs = rows * settings.neighbours
    kept = 12 * rows * columns + 8 * pairs  # the representation, as it is and wide while it is scaled; the graph
    # Lanczos vectors; from two million rows on, umap-learn takes a solver that keeps a few.
    start = 8 * rows * (max(int(rows**0.5), 2 * START_DIMS + 3) if rows < 2_000_000 else 4 * START_DIMS)
    edges = 130 * pairs * (2 if settings.densmap else 1)  # the fuzzy set, and what is kept of each of its edges
    tree = 8 * rows * (settings.min_samples + 1) + 100 * rows * settings.dims
    return (kept + max(start + edges / 4, edges, tree)) / 1e9


class Chain:
    """The stages, each made or read when it is first asked for.

    Args:
        x: One row a galaxy `(N, D)`.
        widest: The largest number of neighbours that will be asked for.
        folder: Where the stages are kept; None keeps none.

    Attributes:
        seconds: Of each stage that was computed.
    """

    def __init__(self, x: NDArray[Any], widest: int, folder: Path | None = None) -> None:
        self.x, self.widest, self.folder = x, widest, folder
        self.seconds: dict[str, float] = {}
        self._made: dict[str, Arrays] = {}
        self._prepared: dict[Scaling, Floats] = {}
        self._content = [FORMAT, [version(name) for name in LIBRARIES], fingerprint(x)]

    def check(self, settings: ChainSettings, max_memory_gb: float | None = None) -> None:
        """Whether a setting can be computed, before hours are spent.

        Raises:
            DataError: The representation or the number of its rows is unfit, or the memory too small.
        """
        rows, columns = self._representation(settings.scaling).shape
        check_enough(rows, settings.neighbours, "neighbours")
        check_enough(rows, settings.min_samples, "min_samples")
        needed = memory_needed(rows, columns, settings)
        if max_memory_gb is not None and needed > max_memory_gb:
            raise DataError(
                f"{rows} rows of {columns} columns need about {needed:.2g} GB, more than the {max_memory_gb:g} GB "
                f"allowed: lower neighbours ({settings.neighbours}) or min_samples ({settings.min_samples}), or give "
                "fewer rows"
            )

    def recall(self, settings: ChainSettings) -> float:
        """The share of true neighbours in the graph, measured on 1,000 rows where it is approximate."""
        return float(self._graph(settings)["recall"])

    def layout(self, settings: ChainSettings) -> Floats:
        """UMAP coordinates `(N, dims)`; with 2 dimensions, a map of the same neighbours."""

        def make() -> Arrays:
            graph = self._graph(settings)
            dense = narrowed(NeighbourGraph(graph["index"], graph["distance"]), settings.neighbours)
            found = layout(
                self._fuzzy(settings),
                self._start(settings),
                settings.dims,
                settings.seed,
                settings.reproducible,
                densmap=dense if settings.densmap else None,
            )
            return {"layout": found}

        return self._stage("layout", settings, make)["layout"]

    def tree(self, settings: ChainSettings) -> SpanningTree:
        """The spanning tree of the layout."""

        def make() -> Arrays:
            return vars(spanning_tree(self.layout(settings), settings.min_samples))

        return SpanningTree(**self._stage("tree", settings, make))

    def clusters(self, settings: ChainSettings) -> Clusters:
        """Clusters of the tree."""

        def make() -> Arrays:
            condensed = condense(self.tree(settings), settings.min_cluster_size)
            found = select(condensed, settings.selection, settings.epsilon, settings.min_lambda)
            columns = {str(name): column.to_numpy() for name, column in found.table.items()}
            return {"labels": found.labels, "strength": found.strength, **columns}

        kept = dict(self._stage("clusters", settings, make))
        labels, strength = kept.pop("labels"), kept.pop("strength")
        return Clusters(labels, strength, pd.DataFrame(kept).rename_axis("cluster"))

    def _representation(self, scaling: Scaling) -> Floats:
        if scaling not in self._prepared:
            self._prepared[scaling] = prepared(self.x, scaling)
            log.info("Euclidean distances between %d rows of %d columns, scaling: %s",
                     *self._prepared[scaling].shape, scaling)  # fmt: skip
        return self._prepared[scaling]

    def _graph(self, settings: ChainSettings) -> Arrays:
        def make() -> Arrays:
            x = self._representation(settings.scaling)
            graph = neighbour_graph(x, self.widest, settings.seed, settings.reproducible)
            share = 1.0 if self._exact else recall(graph, x, seed=settings.seed)
            log.info("graph of %d neighbours, %s, recall %.3f", self.widest,
                     "exact" if self._exact else "by NN-descent", share)  # fmt: skip
            return {**vars(graph), "recall": np.array(share)}

        return self._stage("graph", settings, make)

    def _fuzzy(self, settings: ChainSettings) -> csr_matrix:
        def make() -> Arrays:
            graph = self._graph(settings)
            found = fuzzy_set(NeighbourGraph(graph["index"], graph["distance"]), settings.neighbours)
            return {"data": found.data, "indices": found.indices, "indptr": found.indptr}

        kept = self._stage("fuzzy", settings, make)
        return csr_matrix((kept["data"], kept["indices"], kept["indptr"]), shape=(len(self.x),) * 2)

    def _start(self, settings: ChainSettings) -> Floats:
        def make() -> Arrays:
            x, dims = self._representation(settings.scaling), max(settings.dims, START_DIMS)
            return {"start": spectral_start(self._fuzzy(settings), x, dims, settings.seed)}

        return self._stage("start", settings, make)["start"]

    @property
    def _exact(self) -> bool:
        return len(self.x) <= EXACT_ROWS

    def _name(self, stage: str, settings: ChainSettings) -> str:
        """The file's name, from all that determines it."""
        what: list[Any] = list(self._content)
        if stage == "graph" or not self._exact:  # narrowed, an exact graph is the same however wide it was
            what += [self.widest]
        if stage == "start":
            what += [max(settings.dims, START_DIMS)]
        if not self._exact:
            what += [settings.seed]
        for name, fields in STAGES.items():
            what += [getattr(settings, field) for field in fields]
            if name == stage:
                break
        return f"{stage}-{hashlib.blake2b(json.dumps(what).encode(), digest_size=8).hexdigest()}.npz"

    def _stage(self, stage: str, settings: ChainSettings, make: Callable[[], Arrays]) -> Arrays:
        """A stage's arrays: from memory, from its file, or made now; those before it are made first."""
        name = self._name(stage, settings)
        path = None if self.folder is None else self.folder / name
        if name not in self._made:
            if path is not None and path.exists():
                self._made[name] = _read(path)
                log.info("%s: read from %s", stage, path)
            else:
                before, start = sum(self.seconds.values()), time.perf_counter()
                with one_thread() if settings.reproducible else nullcontext():
                    self._made[name] = make()
                # What the stages before it took, where they were made on the way, is counted there.
                taken = time.perf_counter() - start - (sum(self.seconds.values()) - before)
                self.seconds[stage] = self.seconds.get(stage, 0.0) + taken
                log.info("%s: %.1f s%s", stage, taken, ", one thread" if settings.reproducible else "")
                if path is not None:
                    with whole(path) as part, part.open("wb") as file:
                        np.savez(file, allow_pickle=False, **self._made[name])
        return self._made[name]


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run again") from error
