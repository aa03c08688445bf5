"""Contact sheets, the page to start from, tables that can be read back, groups by hand, names that survive."""

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from galaxy_clusters.data.catalogue import read_catalogue
from galaxy_clusters.data.sky import viewer_url
from galaxy_clusters.report.export import apply_merges, read_merges, with_links, write_csv, write_votable
from galaxy_clusters.report.gallery import CAPTION, GAP, MARGIN, TILE, Members, choose, draw_sheet, write_gallery
from galaxy_clusters.report.names import match_names
from galaxy_clusters.report.page import write_page
from shared.data.cells import tidy
from shared.data.problems import DataError

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]


def galaxies() -> pd.DataFrame:
    """Six galaxies; an id of 19 digits, one without a position, one with a hostile name."""
    return pd.DataFrame(
        {
            "id": ["1237648720693755918", "0002", "3", "4", ATTACK, "J090000+010000"],
            "cluster": pd.Series(["C01", "C01", None, "C02", "C02", None], dtype="str"),
            "strength": [1.0, 0.25, 0.0, 0.75, 1.0, 0.0],
            "ra": [10.5, 359.999999, 0.0, np.nan, 120.25, 135.0],
            "dec": [-1.25, 89.5, 0.0, np.nan, -0.0, 1.0],
            "nothing": [None] * 6,
            "count": pd.array([3, None, 5, 6, 7, 2**62], dtype="Int64"),
            "remark": ["a, b", 'quoted "x"', None, "", "\u00e9t\u00e9", "z"],
            "masked": pd.array([True, False, None, False, True, False], dtype="boolean"),
        }
    )


def test_core_edge_and_nearest_outsiders() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [3.5], [10.0], [-0.75]], np.float32)
    member = np.array([True, True, True, True, False, False, False])
    strength = np.array([0.5, 1.0, 0.25, 0.75, 0, 0, 0])
    chosen = choose(x, member, strength, count=3)
    assert [rows.tolist() for rows in chosen] == [[1, 3, 0], [2], [4, 6, 5]]
    chosen = choose(x, member, strength, count=2)
    assert [rows.tolist() for rows in chosen] == [[1, 3], [0, 2], [4, 6]]
    everyone = choose(x, np.ones(7, bool), np.ones(7), count=2)
    assert [rows.tolist() for rows in everyone] == [[0, 1], [5, 6], []]


def test_a_sheet_shows_the_right_pictures_in_their_lines() -> None:
    flat = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20 + np.zeros((1, 3, 8, 8), np.uint8)
    asked: list[list[int]] = []

    def pixels(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.append(rows.tolist())
        return flat[rows]

    chosen = Members(np.array([3, 1]), np.array([5]), np.array([11, 10, 9]))
    sheet = draw_sheet("C01", {"size": "3", "p": "0.03"}, chosen, [str(n) for n in range(12)], pixels, columns=2)
    assert asked == [[3, 1], [5], [11, 10, 9]]
    line = TILE + CAPTION + GAP
    starts = [MARGIN + 30 + 18 + 24]
    starts += [starts[0] + line + 24, starts[0] + 2 * (line + 24)]
    middle, right = TILE // 2, MARGIN + TILE + GAP
    shown = [
        sheet.getpixel((MARGIN + middle, starts[0] + middle)),
        sheet.getpixel((right + middle, starts[0] + middle)),
        sheet.getpixel((MARGIN + middle, starts[1] + middle)),
        sheet.getpixel((MARGIN + middle, starts[2] + middle)),
        sheet.getpixel((right + middle, starts[2] + middle)),
        sheet.getpixel((MARGIN + middle, starts[2] + line + middle)),
    ]
    assert shown == [(20 * row,) * 3 for row in (3, 1, 5, 11, 10, 9)]
    assert sheet.height == starts[2] + 2 * line + MARGIN - GAP


def test_a_gallery_has_a_sheet_a_cluster_also_in_grey_and_with_long_ids(tmp_path: Path) -> None:
    frame = galaxies()
    x = np.arange(6, dtype=np.float32)[:, None]
    images = np.random.default_rng(0).integers(0, 255, (6, 1, 16, 16), dtype=np.uint8)
    evidence = {"C01": {"size": "2", "flags": "x " * 200}, "C02": {"size": "2"}}
    shown = write_gallery(tmp_path / "sheets", frame, x, evidence, lambda rows: images[rows], "SYNTHETIC")
    assert shown == {name: tmp_path / "sheets" / f"{name}.png" for name in ("C01", "C02")}
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["C01.png", "C02.png"]
    heights = []
    for path in (tmp_path / "sheets").iterdir():
        with Image.open(path) as sheet:
            sheet.load()
            heights.append((path.name, sheet.height))
    assert dict(heights)["C01.png"] > dict(heights)["C02.png"]  # more lines of evidence


def test_sheets_of_clusters_that_are_gone_go_too(tmp_path: Path) -> None:
    frame, x = galaxies(), np.arange(6, dtype=np.float32)[:, None]
    images = np.zeros((6, 1, 16, 16), np.uint8)
    write_gallery(tmp_path, frame, x, {"C01": {}, "C02": {}}, lambda rows: images[rows])
    (tmp_path / "notes.txt").write_text("somebody's")
    write_gallery(tmp_path, frame, x, {"C02": {}}, lambda rows: images[rows])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["C02.png", "notes.txt"]
    write_gallery(tmp_path, frame, x, {"C02": {}})  # without images
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_images_a_gallery_is_lists_of_ids(tmp_path: Path) -> None:
    shown = write_gallery(
        tmp_path / "sheets", galaxies(), np.arange(6, dtype=np.float32)[:, None], {"C01": {}}, count=1
    )
    assert shown == {
        "C01": {
            "core: strongest members": ["1237648720693755918"],
            "edge: weakest members": ["0002"],
            "nearest outsiders: no members": ["3"],
        }
    }
    assert not (tmp_path / "sheets").exists()


class Page(HTMLParser):
    """The tags and the links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [str(found[name]) for name in ("href", "src") if name in found]
        self.ids += [str(found["id"])] if "id" in found else []


def page(folder: Path, title: str = "Clusters") -> Path:
    """A page of two clusters, one with a sheet, one with ids; and a map and a table beside it."""
    frame = galaxies()
    names = pd.DataFrame({
        "cluster": ["C01", "rings & co"], "size": [21, 3], "p_family": [0.0254321, None], "flags": [ATTACK, ""],
    })  # fmt: skip
    images = np.zeros((6, 3, 16, 16), np.uint8)
    evidence = {"C01": {"size": "21", "flags": ATTACK}}
    shown: dict[str, Path | dict[str, list[str]]] = dict(
        write_gallery(folder / "sheets", frame, np.zeros((6, 1)), evidence, lambda rows: images[rows])
    )
    shown["rings & co"] = {"core": ["3", ATTACK], "edge": []}
    for name in ("map.html", "clusters.csv"):
        (folder / name).write_text("")
    links = {"Map": folder / "map.html", "Table": folder / "clusters.csv"}
    path = folder / "index.html"
    write_page(path, title, names, shown, evidence, {"data set": ATTACK}, links, "SYNTHETIC", ["A remark."])
    return path


def test_the_page_links_only_to_what_lies_beside_it_and_shows_markup_as_text(tmp_path: Path) -> None:
    path = page(tmp_path, f"Clusters {ATTACK}")
    found, text = Page(path), path.read_text(encoding="utf-8")
    inner = [link for link in found.links if not link.startswith("#")]
    assert inner == ["map.html", "clusters.csv", "sheets/C01.png", "sheets/C01.png"]
    assert all((tmp_path / link).is_file() for link in inner)
    assert found.tags.count("script") == 1
    assert found.tags.count("img") == 1
    assert text.count(html.escape(ATTACK)) == 7  # title twice, flags twice and in the alternative text, id, setting
    assert str(tmp_path) not in text
    assert '<p class="banner">SYNTHETIC</p>' in text
    assert '<td class="number" data-value="0.0254321" title="0.0254321">0.0254</td>' in text
    anchors = [html.unescape(link) for link in found.links if link.startswith("#")]
    assert anchors == ["#cluster-C01", "#cluster-rings%2520%2526%2520co"]  # a browser decodes the link once
    assert {"cluster-C01", "cluster-rings%20%26%20co"} < set(found.ids)
    with pytest.raises(ValueError, match="is not in the subpath"):
        write_page(path, "x", pd.DataFrame(), {}, {}, {}, {"Map": tmp_path.parent / "map.html"})


def test_only_what_is_shown_is_linked_to(tmp_path: Path) -> None:
    table = pd.DataFrame({"cluster": ["C01", "C02"], "group": [None, "a&b"], "like": ["C01", "a&b"]})
    write_page(tmp_path / "index.html", "Clusters", table, {"C01": {}, "a&b": {}}, {}, {}, {})
    found = Page(tmp_path / "index.html")
    assert found.links == ["#cluster-C01", "#cluster-a%2526b"]
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<th scope="row">C02</th><td><a href="#cluster-a%2526b">a&amp;b</a></td><td>a&amp;b</td>' in text


def test_a_page_without_a_cluster_says_so(tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", "Clusters", pd.DataFrame({"cluster": []}), {}, {}, {}, {})
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "No cluster was found: nowhere is this sample denser than around it, at these settings." in text
    assert "<table" not in text
    assert 'banner">' not in text


DRIVER = """<script>
addEventListener("load", () => {
  const body = document.querySelector("tbody");
  const cells = (column) => [...body.rows].map((row) => row.cells[column - 1].textContent);
  const seen = [];
  for (const column of [2, 3]) for (const time of [1, 2]) {
    document.querySelectorAll("thead button")[column - 1].click();
    seen.push(cells(column).join("|"));
  }
  for (const link of document.querySelectorAll("tbody a")) {
    seen.push(document.getElementById(decodeURIComponent(link.hash.slice(1))).tagName);
  }
  seen.push(document.images[0].naturalWidth > 0 ? "sheet" : "no sheet");
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: seen.join("; ") }));
});
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs `chromium` on the PATH to try the page in")
def test_the_page_sorts_and_shows_its_sheets_in_a_browser(tmp_path: Path) -> None:
    path = page(tmp_path)
    text = path.read_text(encoding="utf-8").replace('loading="lazy"', "")
    path.write_text(text.replace("</body>", DRIVER), encoding="utf-8")
    command = [*CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert found is not None
    # Sizes up and down as numbers; the p that is not there comes last either way.
    assert found[1] == "3|21; 21|3; 0.0254|; 0.0254|; SECTION; SECTION; sheet"


def test_csv_and_votable_read_back_as_they_were_written(tmp_path: Path) -> None:
    frame = with_links(galaxies())
    assert frame["viewer"].tolist()[0] == viewer_url(10.5, -1.25)
    assert frame["viewer"].isna().tolist() == [False, False, False, True, False, False]
    write_csv(tmp_path / "new" / "clusters.csv", frame)
    write_votable(tmp_path / "new" / "clusters.vot", frame)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["clusters.csv", "clusters.vot"]
    for name in ("clusters.csv", "clusters.vot"):
        found = read_catalogue(tmp_path / "new" / name)
        assert list(found.columns) == list(frame.columns)
        for column in ("id", "cluster", "remark", "viewer"):
            assert found[column].fillna("").tolist() == frame[column].fillna("").tolist(), (name, column)
        for column in ("strength", "ra", "dec"):
            np.testing.assert_array_equal(found[column], frame[column])
        assert found["count"].isna().tolist() == frame["count"].isna().tolist()
        assert [str(value) for value in tidy(found["masked"])] == ["True", "False", "None", "False", "True", "False"]
        assert tidy(found["nothing"]).isna().all()
    assert int(read_catalogue(tmp_path / "new" / "clusters.vot")["count"].iloc[5]) == 2**62


def test_the_votable_says_what_its_columns_are(tmp_path: Path) -> None:
    from astropy.io.votable import parse_single_table

    write_votable(tmp_path / "clusters.vot", with_links(galaxies()))
    fields = {field.name: field for field in parse_single_table(tmp_path / "clusters.vot").fields}
    assert {name: field.ucd for name, field in fields.items() if field.ucd} == {
        "id": "meta.id;meta.main", "ra": "pos.eq.ra;meta.main", "dec": "pos.eq.dec;meta.main",
        "cluster": "meta.code.class", "viewer": "meta.ref.url",
    }  # fmt: skip
    assert [str(fields[name].unit) for name in ("ra", "dec")] == ["deg", "deg"]
    kinds = {name: field.datatype for name, field in fields.items()}
    assert kinds == {
        "id": "char", "cluster": "char", "strength": "double", "ra": "double", "dec": "double", "nothing": "char",
        "count": "long", "remark": "unicodeChar", "masked": "char", "viewer": "char",
    }  # fmt: skip


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "clusters.csv").write_text("old")
    frame = galaxies()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    frame.to_csv = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="disk full"):
        write_csv(tmp_path / "clusters.csv", frame)
    assert (tmp_path / "clusters.csv").read_text() == "old"


def test_leaves_are_grouped_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "merges.csv"
    path.write_text("cluster,group,why\nC01,rings,look\n C03 , rings ,look\nC02,C04,same\nC09,old,gone\n")
    merges = read_merges(path, ["C01", "C02", "C03", "C04"], vanished=["C09"])
    assert merges == {"C01": "rings", "C03": "rings", "C02": "C04"}
    clusters = pd.Series(["C01", None, "C03", "C02", "C04", "C05"], dtype="str")
    assert apply_merges(clusters, merges).fillna("-").tolist() == ["rings", "-", "rings", "C04", "C04", "C05"]
    # A cluster that is gone may still give its name to a group.
    path.write_text("cluster,group\nC02,C09\nC09,old\n")
    assert read_merges(path, ["C01", "C02"], vanished=["C09"]) == {"C02": "C09"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("leaf,group\nC01,x\n", "lacks the column cluster; it has leaf, group"),
        ("cluster,group\nC01,x\nC1,x\n", ": line 3 names the cluster 'C1', which there is not; did you mean C01?"),
        ("cluster,group\nring,x\n", ": line 2 names the cluster 'ring', which there is not; there are C01, C02"),
        ("cluster,group\nC01,x\nC01,y\n", ": line 3 groups C01 again: leave one of the lines out"),
        (
            "cluster,group\nC01,../x\n",
            ": line 2 puts C01 in the group '../x', expected a name of letters, digits, spaces and . + - _",
        ),
        (
            "cluster,group\nC01,\n",
            ": line 2 puts C01 in the group '', expected a name of letters, digits, spaces and . + - _",
        ),
        (
            "cluster,group\nC01,C02\nC02,rings\n",
            ": C01 is put in the group C02, but the cluster C02 itself in the group rings: give C01 that group too, or "
            "call the group otherwise",
        ),
    ],
)
def test_wrong_groups_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "merges.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(said) + "$"):
        read_merges(path, ["C01", "C02"])


def test_names_survive_another_run_of_other_galaxies() -> None:
    ids = [f"g{number}" for number in range(40)]
    first = pd.Series([0] * 10 + [1] * 10 + [2] * 5 + [-1] * 15, index=ids)
    begun = match_names(pd.Series([], dtype="str"), first)
    assert begun == ({0: "C01", 1: "C02", 2: "C03"}, ["C01", "C02", "C03"], [])
    previous = first.map(begun.of)
    # Now C02 is the largest, C01 has lost a galaxy and gained one, C03 is gone, and a cluster is new; rows in
    # another order, some galaxies gone, others new.
    labels = pd.Series(-1, index=[*ids, "h0", "h1"])
    labels[ids[10:20]] = 0
    labels[[*ids[1:10], ids[30]]] = 1
    labels[ids[31:38]] = 2
    labels[["h0", "h1"]] = 0
    found = match_names(previous, labels.drop(ids[12]).sample(frac=1, random_state=0))
    assert found == ({0: "C02", 1: "C01", 2: "C04"}, ["C04"], ["C03"])
    later = match_names(labels.map(found.of), labels.where(labels == 0, -1), retired=["C17", "rings"])
    assert later == ({0: "C02"}, [], ["C01", "C04"])
    again = match_names(pd.Series([], dtype="str"), labels.where(labels == 0, -1), retired=["C17", "rings"])
    assert again == ({0: "C18"}, ["C18"], [])


def test_of_two_halves_the_larger_keeps_the_name_and_a_faint_likeness_keeps_none() -> None:
    ids = [f"g{number}" for number in range(30)]
    previous = pd.Series(["C01"] * 20 + [None] * 10, index=ids, dtype="str")
    halves = pd.Series([1] * 8 + [0] * 12 + [-1] * 10, index=ids)
    assert match_names(previous, halves).of == {0: "C01", 1: "C02"}
    faint = pd.Series([0] * 5 + [-1] * 15 + [0] * 10, index=ids)  # 5 of 30
    assert match_names(previous, faint) == ({0: "C02"}, ["C02"], ["C01"])
    assert match_names(previous, faint, threshold=0.1).of == {0: "C01"}
