"""galaxy_clusters' spanning tree and its sweep over settings: `python -m benchmarks.galaxies_engine`.

Every figure is a ratio of two ways of doing the same, timed in turn in one run, on one thread. Points are planted
groups on a smooth bulk (SYNTHETIC).
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import fast_hdbscan
import fast_plscan
import hdbscan
import numpy as np
import pandas as pd
import torch
import umap
from jsonargparse import auto_cli
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from benchmarks.timing import Rows, ratio, write_rows
from galaxy_clusters.clustering.chain import ChainSettings, cluster, sweep
from galaxy_clusters.clustering.graph import one_thread
from galaxy_clusters.clustering.leaves import Clusters, condense, select
from galaxy_clusters.clustering.tree import Engine, spanning_tree

PAIRS = 5
GROUPS, SHARE = 25, 0.3  # groups, and the share of points in them
LARGE, SMALLER = 632_000, (100_000, 200_000)  # the paper's sample, and what hdbscan's time there is extrapolated from

Points = NDArray[np.float32]


def planted(rows: int, columns: int = 5, seed: int = 0) -> Points:
    """Dense groups on a smooth bulk."""
    rng = np.random.default_rng(seed)
    members = int(rows * SHARE) // GROUPS
    centres = 1.5 * rng.normal(size=(GROUPS, columns))
    groups = [rng.normal(centre, 0.08, (members, columns)) for centre in centres]
    return np.concatenate([rng.normal(size=(rows - GROUPS * members, columns)), *groups]).astype(np.float32)


def ours(x: Points, min_samples: int) -> Clusters:
    """From points to leaves."""
    return select(condense(spanning_tree(x, min_samples), 10))


def theirs(x: Points, min_samples: int) -> Any:
    """The reference with its exact tree."""
    model = hdbscan.HDBSCAN(min_samples=min_samples, min_cluster_size=10, cluster_selection_method="leaf",
                            approx_min_span_tree=False, gen_min_span_tree=True, core_dist_n_jobs=1)  # fmt: skip
    return model.fit(x)


def faster(x: Points, min_samples: int) -> Any:
    """The same by fast_hdbscan."""
    model = fast_hdbscan.HDBSCAN(min_samples=min_samples, min_cluster_size=10, cluster_selection_method="leaf")
    return model.fit(x)


def _grown(way: Callable[[Points, int], object], rows: int, min_samples: int, found: Any) -> None:
    with one_thread():
        way(planted(max(2000, 4 * min_samples)), min_samples)  # libraries are loaded, and compilers have come and gone
        x = planted(rows)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
        before = _memory("VmRSS")
        way(x, min_samples)
        found.value = _memory("VmHWM") - before


def _memory(name: str) -> int:
    """A figure of this process, in kilobytes, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def peak_memory(way: Callable[[Points, int], object], rows: int, min_samples: int) -> float:
    """Megabytes that a call adds at its peak, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found = context.Value("q", 0)
    process = context.Process(target=_grown, args=(way, rows, min_samples, found))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{way.__name__} of {rows} points failed in its process")
    return float(found.value) / 1024


def first_call(way: Callable[[Points, int], object], min_samples: int) -> float:
    """Seconds that the first call of a process takes beyond the second."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        way(planted(2000), min(min_samples, 300))
        taken.append(time.perf_counter() - start)
    return taken[0] - taken[1]


def bench_engines(rows: int, min_samples: int, pairs: int) -> Rows:
    """Points to leaves against hdbscan and fast_hdbscan; the tree alone against that of every engine."""
    x, amount = planted(rows), rows
    tag = f"{rows} x 5, min_samples {min_samples}"
    found, exact = ours(x, min_samples), theirs(x, min_samples)
    either = (found.labels >= 0) | (exact.labels_ >= 0)
    total, expected = spanning_tree(x, min_samples).weight.sum(), exact.minimum_spanning_tree_.to_numpy()[:, 2].sum()
    agreement = {
        "leaves": len(found.table),
        "leaves_hdbscan": int(exact.labels_.max()) + 1,
        "ari": round(float(adjusted_rand_score(exact.labels_[either], found.labels[either])), 5),
        "weight_difference": float(abs(total / expected - 1)),
    }
    print(f"{tag}: {agreement}")
    timed: list[tuple[str, Callable[..., object], Callable[..., object]]] = [
        ("leaves, against hdbscan", ours, theirs),
        ("leaves, against fast_hdbscan", ours, faster),
        ("tree, against fast_plscan's function alone", spanning_tree, _bare),
        ("tree, against fast_hdbscan's", spanning_tree, partial(_engine, engine="fast_hdbscan")),
    ]
    table: Rows = [
        {**ratio(f"{tag}: {name}", "points/s", partial(way, x, min_samples), partial(other, x, min_samples), amount,
                 pairs), **(agreement if other is theirs else {})}
        for name, way, other in timed
    ]  # fmt: skip
    for name, other in (("hdbscan", theirs), ("fast_hdbscan", faster)):
        taken = [peak_memory(way, rows, min_samples) for way in (ours, other)]
        table.append({"benchmark": f"{tag}: peak memory, against {name}", "unit": "MB", "ours": round(taken[0], 1),
                      "other": round(taken[1], 1), "ratio": round(taken[0] / taken[1], 3)})  # fmt: skip
        print(f"{table[-1]['benchmark']:<82} {table[-1]['ratio']:>7} x")
    return table


def _bare(x: Points, min_samples: int) -> object:
    return fast_plscan.compute_mutual_spanning_tree(x, min_samples=min_samples)


def _engine(x: Points, min_samples: int, engine: Engine) -> object:
    return spanning_tree(x, min_samples, engine)


def one_by_one(x: Points, settings: list[ChainSettings]) -> None:
    """A UMAP and a HDBSCAN, as they come, for each setting."""
    for each in settings:
        model = umap.UMAP(n_neighbors=each.neighbours, n_components=each.dims, min_dist=0.0, random_state=0, n_jobs=1)
        hdbscan.HDBSCAN(min_samples=each.min_samples, min_cluster_size=each.min_cluster_size,
                        cluster_selection_method="leaf", core_dist_n_jobs=1).fit(model.fit_transform(x))  # fmt: skip


def bench_settings(rows: int, min_samples: int, pairs: int) -> Rows:
    """Twelve settings by one sweep, against a UMAP and a HDBSCAN for each; two of those are timed for all twelve."""
    x = planted(rows, columns=128)
    settings = [
        replace(ChainSettings(), dims=dims, min_samples=samples, min_cluster_size=size)
        for dims, samples, size in product((2, 5), (min_samples // 3, min_samples), (10, 20, 40))
    ]
    timed = [settings[0], settings[-1]]
    found = sweep(x, settings)
    print(f"  seconds of each stage: { {name: round(taken, 2) for name, taken in found[0].seconds.items()} }")
    same = [
        np.array_equal(cluster(x, each).clusters.labels, found[settings.index(each)].clusters.labels) for each in timed
    ]
    label = f"{rows} x 128: {len(settings)} settings, against UMAP + HDBSCAN for each"
    row = ratio(label, "settings/s", partial(sweep, x, settings), partial(one_by_one, x, timed), len(settings), pairs,
                other_amount=len(timed))  # fmt: skip
    return [{**row, **{f"seconds_{name}": round(taken, 2) for name, taken in found[0].seconds.items()},
             "same_as_single_calls": all(same)}]  # fmt: skip


def bench_large(min_samples: int) -> Rows:
    """All leaves of the paper's 632k points, against hdbscan's time extrapolated as a power of the number of points."""

    def seconds(way: Callable[[Points, int], object], rows: int) -> float:
        x, start = planted(rows), time.perf_counter()
        way(x, min_samples)
        return time.perf_counter() - start

    few, more = (seconds(theirs, rows) for rows in SMALLER)
    power = float(np.log(more / few) / np.log(SMALLER[1] / SMALLER[0]))
    other, taken = more * (LARGE / SMALLER[1]) ** power, seconds(ours, LARGE)
    label = f"{LARGE} x 5, min_samples {min_samples}: leaves, against hdbscan extrapolated from {SMALLER}"
    rows: Rows = [{"benchmark": label, "unit": "points/s", "ours": round(LARGE / taken, 1),
                   "other": round(LARGE / other, 1), "ratio": round(other / taken, 2), "power": round(power, 2)},
                  {"benchmark": f"{LARGE} x 5, min_samples {min_samples}: peak memory", "unit": "MB",
                   "ours": round(peak_memory(ours, LARGE, min_samples), 1)}]  # fmt: skip
    for row in rows:
        print(row)
    return rows


def run(
    output: Path = Path("results/bench_galaxies.csv"),
    sizes: tuple[int, ...] = (50_000, 100_000),
    settings_rows: int = 20_000,
    min_samples: int = 300,
    pairs: int = PAIRS,
    large: bool = False,
) -> pd.DataFrame:
    """Measure, print ratios and write them.

    Args:
        output: CSV, replaced.
        sizes: Numbers of points of the engines' rows.
        settings_rows: Number of points of the twelve settings.
        min_samples: Of all trees.
        pairs: Measurements of each ratio.
        large: Whether the tree of 632,000 points is made too, which takes many minutes.
    """
    torch.set_num_threads(1)
    with one_thread():
        compiles = {"hdbscan": theirs, "fast_hdbscan": faster, "ours": ours}
        rows: Rows = [{"benchmark": f"first call in a process, {name}", "unit": "s",
                       "ours": round(first_call(way, min_samples), 2)} for name, way in compiles.items()]  # fmt: skip
        for size in sizes:
            rows += bench_engines(size, min_samples, pairs)
        rows += bench_settings(settings_rows, min_samples, min(pairs, 3))
        rows += bench_large(min_samples) if large else []
    peers = {name: version(name) for name in ("hdbscan", "fast-hdbscan", "fast-plscan", "umap-learn")}
    return write_rows(rows, output, data_kind="synthetic", **peers)


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
