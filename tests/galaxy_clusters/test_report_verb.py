"""`report` of a clustering written by hand: groups, vanished clusters, what is near, a map that is too large."""

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galaxy_clusters.clustering.chain import fingerprint
from galaxy_clusters.clustering.graph import Scaling
from galaxy_clusters.evaluation.found import EVIDENCE, Found
from galaxy_clusters.report import map as map_module
from galaxy_clusters.verbs.report import report
from shared.data.embeddings import write_embeddings
from shared.data.problems import DataError

LEAVES = ["C01", "C02", "C03"]


def clustering(folder: Path, scaling: Scaling = "none", extra: int = 0, names: list[str] | None = None) -> Path:
    """Three clusters of two galaxies and three galaxies in none; evidence of each, and `extra` columns of a catalogue.

    g6 is the nearest to C01 as the numbers are, g7 if the second column, which spreads far, is scaled.
    """
    x = np.array([[0, 0], [0.1, 0], [8, 900], [8.1, 900], [-8, -900], [-8.1, -900], [3, 0], [0, 90], [0, -400]])
    values, ids = x.astype(np.float32), [f"g{number}" for number in range(9)]
    write_embeddings(folder / "embeddings.parquet", ids, values, "a model")
    labels = np.array([0, 0, 1, 1, 2, 2, -1, -1, -1])
    members = pd.DataFrame({"id": ids, "row": range(9)}).assign(
        **{f"n{number:02d}": np.linspace(0, number + 0.5, 9) for number in range(extra)}
    )
    members = members.assign(
        cluster=pd.Series([LEAVES[label] if label >= 0 else None for label in labels], dtype="str"),
        label=labels,
        strength=np.linspace(1, 0.5, 9),
        x=x[:, 0],
        y=x[:, 1],
    )
    clusters = pd.DataFrame({"cluster": LEAVES, "size": 2, "persistence": [0.5, 0.25, 0.125], "exemplar": "g0"})
    about = {"settings": {"scaling": scaling}, "embeddings": str(folder / "embeddings.parquet"), "model": "a model",
             "data": fingerprint(values), "cuts": None, "synthetic": False}  # fmt: skip
    Found(members, clusters, about if names is None else about | {"names": names}).write(folder / "clusters")
    evidence = pd.DataFrame({"cluster": LEAVES, "systems": "2", "p_family": [0.025, 0.05, 0.75], "flags": None})
    evidence.to_csv(folder / "clusters" / EVIDENCE, index=False)
    return folder / "clusters"


class Page(HTMLParser):
    """The links within a page, what they lead to, the lines of its table, and the text of its sections."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.lines: list[list[str]] = []
        self.sections: dict[str, list[str]] = {}
        self.at: list[str] | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: str(value) for name, value in attrs}
        if tag == "a" and found["href"].startswith("#"):
            self.links.append(found["href"][1:])
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        if tag in ("section", "table"):
            self.at = self.sections.setdefault(found["id"], [])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("section", "table"):
            self.at = None

    def handle_data(self, data: str) -> None:
        if self.at is self.sections.get("clusters") and self.at is not None:
            self.lines[-1][-1] += data
        elif self.at is not None:
            self.at.append(data)


def test_clusters_are_shown_with_their_evidence(tmp_path: Path) -> None:
    page = Page(report(clustering(tmp_path)))
    assert page.lines[0] == ["cluster", "size", "persistence", "systems", "p family", "flags"]
    assert page.lines[1] == ["C01", "2", "0.5", "2", "0.025", ""]
    assert page.links == [f"cluster-{name}" for name in LEAVES]
    assert page.sections["cluster-C01"][:2] == ["C01", "size 2 · persistence 0.5 · systems 2 · p family 0.025"]


def test_a_group_called_like_a_leaf_is_both_leaves_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    folder = clustering(tmp_path)
    (folder / "merges.csv").write_text("cluster,group\nC02,C01\nC03,rings\n")
    page = Page(report(folder))
    assert {name: texts[:2] for name, texts in page.sections.items() if name != "clusters"} == {
        "cluster-C01": ["C01", "leaves C01, C02 · size 4"],
        # The same galaxies by another name have the same evidence.
        "cluster-rings": ["rings", "leaves C03 · size 2 · persistence 0.125 · systems 2 · p family 0.75"],
    }
    assert [line[:3] for line in page.lines] == [
        ["cluster", "group", "size"], ["C01", "", "2"], ["C02", "C01", "2"], ["C03", "rings", "2"],
    ]  # fmt: skip
    assert page.links == ["cluster-C01", "cluster-C01", "cluster-rings"]
    galaxies = pd.read_csv(folder / "galaxies.csv")
    assert galaxies["cluster"].fillna("-").tolist() == ["C01"] * 4 + ["rings"] * 2 + ["-"] * 3


def test_a_group_of_several_leaves_has_a_name_of_its_own(tmp_path: Path) -> None:
    folder = clustering(tmp_path)
    (folder / "merges.csv").write_text("cluster,group\nC03,rings\nC01,rings\n")
    page = Page(report(folder))
    assert page.sections["cluster-rings"][:2] == ["rings", "leaves C01, C03 · size 4"]
    assert page.sections["cluster-C02"][1] == "size 2 · persistence 0.25 · systems 2 · p family 0.05"
    assert set(page.links) == {"cluster-rings", "cluster-C02"} == set(page.sections) - {"clusters"}


def test_a_leaf_that_is_gone_may_stay_in_the_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = clustering(tmp_path, names=["C01", "C02", "C03", "C09"])
    path = folder / "merges.csv"
    path.write_text("cluster,group\nC09,old\nC02,rings\n")
    with caplog.at_level(logging.INFO, "galaxy_clusters"):
        page = Page(report(folder))
    assert set(page.sections) == {"clusters", "cluster-C01", "cluster-rings", "cluster-C03"}
    assert caplog.messages == [f"{path}: left out C09, which there is not any more"]
    path.write_text("cluster,group\nring,old\n")
    said = f"{path}: line 2 names the cluster 'ring', which there is not; there are C01, C02, C03"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        report(folder)


@pytest.mark.parametrize(("scaling", "nearest"), [("none", "g6"), ("standardise", "g7")])
def test_outsiders_are_near_as_they_were_for_the_clustering(tmp_path: Path, scaling: Scaling, nearest: str) -> None:
    page = Page(report(clustering(tmp_path, scaling), count=1))
    shown = page.sections["cluster-C01"]
    assert shown[shown.index("nearest outsiders: no members") + 1] == nearest


def test_a_wide_catalogue_costs_colours_and_not_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = clustering(tmp_path, extra=30)
    fixed = Path(map_module.__file__).with_name("map.html").stat().st_size / 1e6
    with pytest.raises(DataError, match=r"map\.html would have [\d.]+ MB without a column to colour by"):
        report(folder, max_mb=fixed)
    assert Page(folder / "index.html").links == [f"cluster-{name}" for name in LEAVES]
    assert not (folder / "map.html").exists()
    caplog.clear()
    report(folder, max_mb=fixed + 0.003)
    assert (folder / "map.html").stat().st_size <= (fixed + 0.003) * 1e6
    (said,) = caplog.messages
    assert re.search(r"map\.html cannot be coloured by n\d\d, .* and \d+ more, which would make it larger", said)
    assert '"name": "strength"' in (folder / "map.html").read_text(encoding="utf-8")  # the catalogue's go first
    assert pd.read_csv(folder / "galaxies.csv").columns.tolist() == [
        "id", "cluster", "strength", *(f"n{number:02d}" for number in range(30)),
    ]  # fmt: skip


def test_no_cluster_is_a_report_too(tmp_path: Path) -> None:
    folder = clustering(tmp_path, names=LEAVES)
    found = Found.read(folder)
    none = found.members.assign(cluster=pd.Series([None] * 9, dtype="str"), label=-1)
    Found(none, found.clusters.head(0), found.about).write(folder)
    (folder / "merges.csv").write_text("cluster,group\nC02,C01\n")
    assert "No cluster was found" in report(folder).read_text(encoding="utf-8")
