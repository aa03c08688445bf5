"""The chain: stages that are reused, a sweep that equals single calls, resuming, threads, errors before the work."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from galaxy_clusters.clustering import chain
from galaxy_clusters.clustering.chain import ChainSettings, Clustering, cluster, memory_needed, sweep
from shared.data.problems import DataError


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts of 50 rounds, in place of 500."""
    monkeypatch.setattr(chain, "layout", partial(chain.layout, epochs=50))


SMALL = ChainSettings(neighbours=10, dims=2, min_samples=10, min_cluster_size=8)


def representation() -> NDArray[np.float32]:
    """200 rows of a bulk and three groups of 30, in 12 columns."""
    rng = np.random.default_rng(0)
    groups = [rng.normal(centre, 0.1, (30, 12)) for centre in 1.5 * rng.normal(size=(3, 12))]
    return np.concatenate([rng.normal(size=(200, 12)), *groups]).astype(np.float32)


def same(one: Clustering, other: Clustering) -> bool:
    return (
        np.array_equal(one.layout, other.layout)
        and np.array_equal(one.clusters.labels, other.clusters.labels)
        and np.array_equal(one.clusters.strength, other.clusters.strength)
        and one.clusters.table.equals(other.clusters.table)
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stages(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


def test_the_defaults_are_the_papers() -> None:
    paper = ChainSettings()  # section 3
    assert (paper.neighbours, paper.dims, paper.min_samples, paper.min_cluster_size, paper.selection) == (
        50, 5, 300, 10, "leaf"
    )  # fmt: skip


def test_planted_groups_are_found_and_stages_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        found = cluster(representation(), SMALL, tmp_path / "deep" / "stages")
    truth = np.repeat(np.arange(3), 30)
    assert adjusted_rand_score(truth, found.clusters.labels[200:]) > 0.95
    assert (found.layout.shape, found.layout.dtype, found.recall) == ((290, 2), np.float32, 1.0)
    assert list(found.seconds) == ["graph", "fuzzy", "start", "layout", "tree", "clusters"]
    assert "Euclidean distances between 290 rows of 12 columns, scaling: none" in caplog.text
    assert "graph of 10 neighbours, exact, recall 1.000" in caplog.text
    assert ", one thread" in caplog.text
    with caplog.at_level("INFO"):
        again = cluster(representation(), SMALL, tmp_path / "deep" / "stages")
    assert again.seconds == {}
    assert "clusters: read from" in caplog.text
    assert same(found, again)
    assert again.clusters.table.equals(found.clusters.table)


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"epsilon": 0.1}, ["clusters"]),
        ({"min_lambda": 1.0}, ["clusters"]),
        ({"min_cluster_size": 12}, ["clusters"]),
        ({"min_samples": 5}, ["clusters", "tree"]),
        ({"dims": 3}, ["clusters", "layout", "tree"]),
        ({"seed": 1}, ["clusters", "layout", "start", "tree"]),
        ({"neighbours": 8}, ["clusters", "fuzzy", "graph", "layout", "start", "tree"]),
        ({"scaling": "standardise"}, ["clusters", "fuzzy", "graph", "layout", "start", "tree"]),
    ],
)
def test_a_change_makes_what_comes_after_it_alone(change: dict[str, Any], made: list[str], tmp_path: Path) -> None:
    before, after = cluster(representation(), SMALL, tmp_path), replace(SMALL, **change)
    kept = content(tmp_path)
    changed = cluster(representation(), after, tmp_path)
    assert sorted(changed.seconds) == made
    assert stages(tmp_path) == sorted([*made, "clusters", "fuzzy", "graph", "layout", "start", "tree"])
    assert kept.items() <= content(tmp_path).items()
    assert same(before, cluster(representation(), SMALL, tmp_path))
    moved = representation()
    moved[0, 0] += 1e-6
    assert len(cluster(moved, SMALL, tmp_path).seconds) == 6


def test_a_sweep_equals_single_calls_and_makes_common_stages_once(tmp_path: Path) -> None:
    settings = [
        replace(SMALL, neighbours=k, dims=dims, min_samples=samples, min_cluster_size=size)
        for k in (8, 20)
        for dims in (2, 4)
        for samples in (5, 15)
        for size in (8, 12)
    ]
    found = sweep(representation(), settings, tmp_path)
    names = stages(tmp_path)
    assert {name: names.count(name) for name in names} == {
        "graph": 1, "fuzzy": 2, "start": 2, "layout": 4, "tree": 8, "clusters": 16
    }  # fmt: skip
    for each in (settings[0], settings[7], settings[-1]):
        assert same(found[settings.index(each)], cluster(representation(), each))
    assert len({one.clusters.labels.tobytes() for one in found}) > 4


def test_a_killed_call_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    expected = cluster(representation(), SMALL, whole)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # killed while it writes
        with pytest.raises(KeyboardInterrupt):
            cluster(representation(), SMALL, resumed)
    assert list(resumed.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(chain, "spanning_tree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cluster(representation(), SMALL, resumed)
    assert stages(resumed) == ["fuzzy", "graph", "layout", "start"]
    found = cluster(representation(), SMALL, resumed)
    assert sorted(found.seconds) == ["clusters", "tree"]
    assert same(found, expected)
    assert content(resumed) == content(whole)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="Numba was started with one thread")
def test_reproducible_layouts_are_the_same_with_one_and_two_threads() -> None:
    before, found = numba.get_num_threads(), []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        found.append(cluster(representation(), SMALL))
        assert numba.get_num_threads() == threads
    numba.set_num_threads(before)
    assert same(*found)


def test_fast_layouts_find_the_same_groups(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        found = cluster(representation(), replace(SMALL, reproducible=False))
    assert "one thread" not in caplog.text
    assert adjusted_rand_score(np.repeat(np.arange(3), 30), found.clusters.labels[200:]) > 0.95


def test_a_start_of_more_dimensions_than_usual_and_densmap(tmp_path: Path) -> None:
    high = replace(SMALL, dims=chain.START_DIMS + 2)
    usual, found, dense = sweep(representation(), [SMALL, high, replace(SMALL, densmap=True)], tmp_path)
    assert found.layout.shape == (290, chain.START_DIMS + 2)
    assert stages(tmp_path).count("start") == 2
    assert np.isfinite(dense.layout).all()
    assert not np.array_equal(dense.layout, usual.layout)


def test_no_cluster_is_a_result(tmp_path: Path) -> None:
    for _ in range(2):  # made, then read
        found = cluster(representation(), replace(SMALL, min_lambda=1e9), tmp_path)
        assert found.clusters.table.empty
        assert list(found.clusters.table) == ["size", "birth", "death", "persistence", "exemplar"]
        assert (found.clusters.labels == -1).all()


@pytest.mark.parametrize(
    ("change", "limit", "said"),
    [
        ({"neighbours": 290}, None,
         "290 rows are too few for neighbours = 290: give at least 291 rows, or lower it to at most 289"),
        ({"min_samples": 300}, None,
         "290 rows are too few for min_samples = 300: give at least 301 rows, or lower it to at most 289"),
        ({}, 1e-5, "290 rows of 12 columns need about 0.00044 GB, more than the 1e-05 GB allowed: lower neighbours "
         "(10) or min_samples (10), or give fewer rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_the_work(
    change: dict[str, Any], limit: float | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        sweep(representation(), [SMALL, replace(SMALL, **change)], tmp_path, limit)
    assert str(error.value) == said
    assert not list(tmp_path.iterdir())


def test_a_damaged_stage_is_named(tmp_path: Path) -> None:
    cluster(representation(), SMALL, tmp_path)
    (path,) = tmp_path.glob("layout-*")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"^{path} is damaged \(.+\): delete it and run again$"):
        cluster(representation(), SMALL, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"neighbours": 1}, "neighbours must be at least 2, got 1"),
        ({"min_cluster_size": 1}, "min_cluster_size must be at least 2, got 1"),
        ({"selection": "best"}, "selection must be one of leaf, eom, persistence, got 'best'"),
        ({"scaling": "log"}, "scaling must be one of none, standardise, l2, got 'log'"),
        ({"epsilon": -1.0}, "epsilon must be at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        ChainSettings(**change)


def test_memory_grows_with_what_is_asked_for() -> None:
    paper = memory_needed(632_000, 128, ChainSettings())
    assert 4 < paper < 16  # GB
    assert memory_needed(632_000, 128, ChainSettings(neighbours=150)) > 2 * paper
    assert memory_needed(100_000, 128, ChainSettings()) < paper / 6
