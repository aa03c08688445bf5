"""The map: what is in the file and how large it is, that text stays text, and (with Chromium) that it works."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from galaxy_clusters.data.source import Pixels
from galaxy_clusters.report import map as map_module
from galaxy_clusters.report.map import MISSING, SHEET, THUMBNAIL, write_map
from shared.data.problems import DataError

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]


def galaxies(count: int) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """A table with clusters C01 (20 galaxies) and C02 (10), hostile text, and places in a square; C01 in a corner."""
    rng = np.random.default_rng(0)
    cluster = np.array([*["C01"] * 20, *["C02"] * 10, *[None] * (count - 30)], dtype=object)
    frame = pd.DataFrame(
        {
            "id": [f"galaxy {number}" for number in range(count)],
            "cluster": pd.Series(cluster, dtype="str"),
            "strength": rng.uniform(0, 1, count),
            "viewer": [None, "javascript:alert(1)", *[f"https://sky.example/?ra={n}" for n in range(2, count)]],
            "kind": np.where(np.arange(count) % 2, ATTACK, "spiral"),
            "camcol": np.arange(count) % 6 + 1.0,
            "psf": np.where(np.arange(count) % 10 == 3, np.nan, np.arange(count) / 7),
            "path": [f"images/{number}.jpg" for number in range(count)],
            "empty": [None] * count,
        }
    )
    frame.loc[4, "id"] = ATTACK
    layout = rng.uniform(0, 10, (count, 2))
    layout[:20] = rng.uniform(20, 21, (20, 2))
    return frame, layout


def flat(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """An image a row, all of one grey that says which row it is (three a step, of the first 80)."""
    grey = (3 * (rows % 80) + 5).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (len(rows), 3, 32, 32))


class Scripts(HTMLParser):
    """The tags of a page, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.texts.append(data)


def data_of(path: Path) -> dict[str, Any]:
    """What a map draws; the page has its two scripts and no markup of the catalogue."""
    found = Scripts(path.read_text(encoding="utf-8"))
    assert found.tags.count("script") == 2
    assert "img" not in found.tags
    return dict(json.loads(found.texts[0]))


def unpacked(text: str, kind: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind)


def test_places_colours_and_links_are_in_the_file_and_markup_is_text(tmp_path: Path) -> None:
    frame, layout = galaxies(200)
    write_map(tmp_path / "map.html", frame, layout, title=ATTACK, note="SYNTHETIC")
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]
    data = data_of(tmp_path / "map.html")
    assert (data["title"], data["note"], data["total"]) == (ATTACK, "SYNTHETIC", 200)
    assert data["ids"] == frame["id"].tolist()
    np.testing.assert_array_equal(unpacked(data["x"], "<f4"), layout[:, 0].astype(np.float32))
    np.testing.assert_array_equal(unpacked(data["y"], "<f4"), layout[:, 1].astype(np.float32))
    assert data["sprites"] is data["density"] is None

    links = [None if rest is None else data["links"]["start"] + rest for rest in data["links"]["rest"]]
    assert links == [None, None, *frame["viewer"][2:]]

    columns = {column["name"]: column for column in data["columns"]}
    assert list(columns) == ["cluster", "strength", "kind", "camcol", "psf"]  # neither paths nor an empty column
    assert {name: column["kind"] for name, column in columns.items() if column["kind"] == "category"}.keys() == {
        "cluster", "kind", "camcol",
    }  # fmt: skip
    assert columns["cluster"]["names"] == ["C01", "C02"]
    assert unpacked(columns["cluster"]["values"], "<u2").tolist() == [0] * 20 + [1] * 10 + [MISSING] * 170
    assert columns["camcol"]["names"] == ["1", "2", "3", "4", "5", "6"]
    assert unpacked(columns["camcol"]["values"], "<u2").tolist() == (np.arange(200) % 6).tolist()
    assert [columns["kind"]["names"][code] for code in unpacked(columns["kind"]["values"], "<u2")] == list(
        frame["kind"]
    )
    np.testing.assert_array_equal(unpacked(columns["psf"]["values"], "<f4"), frame["psf"].astype(np.float32))
    ends = [columns["psf"]["low"], columns["psf"]["high"]]
    assert ends == pytest.approx(frame["psf"].quantile([0.02, 0.98]).tolist())


def test_the_page_asks_the_network_for_nothing_and_knows_no_path(tmp_path: Path) -> None:
    frame, layout = galaxies(40)
    write_map(tmp_path / "map.html", frame.drop(columns="viewer"), layout, flat)
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:" in text
    assert not re.search(r"https?://", text)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text)
    assert str(tmp_path) not in text
    assert "/home/" not in text


def test_many_categories_end_in_others(tmp_path: Path) -> None:
    frame, layout = galaxies(200)
    frame["brick"] = [f"b{min(number // 2, 80)}" for number in range(200)]
    write_map(tmp_path / "map.html", frame, layout)
    (brick,) = (column for column in data_of(tmp_path / "map.html")["columns"] if column["name"] == "brick")
    assert len(brick["names"]) == 61
    assert brick["names"][-1] == "21 others"
    codes = unpacked(brick["values"], "<u2")
    assert (codes == 60).sum() == 42
    assert brick["names"][codes[-1]] == "b80"  # the commonest


def test_thumbnails_are_where_the_page_looks_for_them(tmp_path: Path) -> None:
    frame, layout = galaxies(SHEET**2 + 40)
    write_map(tmp_path / "map.html", frame, layout, flat)
    sprites = data_of(tmp_path / "map.html")["sprites"]
    place = unpacked(sprites["place"], "<i4")
    assert place.tolist() == list(range(SHEET**2 + 40))
    sheets = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in sprites["sheets"]]
    assert [sheet.size for sheet in sheets] == [
        (SHEET * THUMBNAIL, SHEET * THUMBNAIL),
        (SHEET * THUMBNAIL, 2 * THUMBNAIL),
    ]
    for row in (0, 1, 33, SHEET**2 + 35):
        at = place[row] % SHEET**2
        left, top = at % SHEET * THUMBNAIL, at // SHEET * THUMBNAIL
        tile = np.asarray(sheets[place[row] // SHEET**2])[top : top + THUMBNAIL, left : left + THUMBNAIL]
        assert np.ptp(tile) <= 2  # nothing of its neighbours
        assert abs(int(tile[5, 5, 0]) - (3 * (row % 80) + 5)) <= 2


def test_thumbnails_of_clusters_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_module, "MAX_THUMBNAILS", 50)
    frame, layout = galaxies(300)
    frame = frame.iloc[::-1].reset_index(drop=True)
    write_map(tmp_path / "map.html", frame, layout, flat)
    place = unpacked(data_of(tmp_path / "map.html")["sprites"]["place"], "<i4")
    assert (place[frame["cluster"].notna()] >= 0).all()
    assert sorted(place[place >= 0]) == list(range(50))


def noise(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images that compress worse than any galaxy."""
    return np.random.default_rng(len(rows)).integers(0, 255, (len(rows), 3, 64, 64), dtype=np.uint8)


def test_a_page_is_never_larger_than_asked(tmp_path: Path) -> None:
    frame, layout = galaxies(300)
    sizes = []
    for limit in (25.0, 1.0):
        write_map(tmp_path / "map.html", frame, layout, noise, max_mb=limit)
        sizes.append((tmp_path / "map.html").stat().st_size / 1e6)
    assert 1 < sizes[0] < 25
    assert 0.3 < sizes[1] < 1
    before = (tmp_path / "map.html").read_bytes()
    said = r"/map\.html would have 0\.\d MB without a column to colour by, more than --max_mb 0\.3: allow more$"
    with pytest.raises(DataError, match=f"^{tmp_path}{said}"):
        write_map(tmp_path / "map.html", frame, layout, noise, max_mb=0.3)
    assert (tmp_path / "map.html").read_bytes() == before


@pytest.mark.parametrize("pixels", [None, noise])
def test_the_last_columns_are_left_out_until_a_page_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pixels: Pixels | None
) -> None:
    monkeypatch.setattr(map_module, "QUALITIES", (50, 20))
    frame, layout = galaxies(200)
    frame = frame.assign(**{f"n{number}": np.linspace(0, number + 0.5, 200) for number in range(5)})
    path = tmp_path / "map.html"

    def written(frame: pd.DataFrame, size: int = 25_000_000) -> tuple[list[str], int]:
        write_map(path, frame, layout, pixels, max_mb=size / 1e6)
        return [column["name"] for column in data_of(path)["columns"]], path.stat().st_size

    whole, best = written(frame)
    assert whole[-5:] == [f"n{number}" for number in range(5)]
    with monkeypatch.context() as poorest:
        poorest.setattr(map_module, "QUALITIES", (20,))
        sizes = {count: written(frame.drop(columns=whole[len(whole) - count :]))[1] for count in (0, 1, 2, 9)}
    assert (sizes[0] < best) == (pixels is not None)
    assert written(frame, sizes[0]) == (whole, sizes[0])  # poorer thumbnails are enough
    assert not caplog.messages
    assert written(frame, sizes[0] - 1) == (whole[:-1], sizes[1])  # one byte too many
    assert written(frame, sizes[2]) == (whole[:-2], sizes[2])
    assert written(frame, sizes[9]) == (["cluster"], sizes[9])
    assert caplog.messages == [
        f"{path} cannot be coloured by {names}, which would make it larger than --max_mb {size / 1e6:g}"
        for names, size in [
            ("n4", sizes[0] - 1), ("n3, n4", sizes[2]), (f"{', '.join(whole[1:9])} and 1 more", sizes[9]),
        ]
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"without a column to colour by"):
        written(frame, sizes[9] - 1)


def test_from_many_galaxies_on_a_density_and_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_module, "DENSE", 500)
    frame, layout = galaxies(500)
    write_map(tmp_path / "map.html", frame, layout, flat)
    data = data_of(tmp_path / "map.html")
    assert data["total"] == 500
    assert data["ids"] == frame["id"][:30].tolist()
    assert len(unpacked(data["sprites"]["place"], "<i4")) == 30
    density = data["density"]
    assert [density[name] for name in ("left", "right", "bottom", "top")] == [
        *(layout[:, 0].min(), layout[:, 0].max()), *(layout[:, 1].min(), layout[:, 1].max()),
    ]  # fmt: skip
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(density["image"].partition(",")[2]))))
    assert picture.shape == (512, 512, 4)
    found = np.argwhere(picture[..., 3] > 0)
    # Rows of the picture go down, y goes up; the corner with C01 is at the upper right.
    share = (layout - layout.min(0)) / np.ptp(layout, axis=0)
    expected = {(511 - min(int(y * 512), 511), min(int(x * 512), 511)) for x, y in share}
    assert {tuple(cell) for cell in found.tolist()} == expected


def test_no_cluster_and_one_galaxy_make_a_map_too(tmp_path: Path) -> None:
    for count in (1, 30):
        frame = pd.DataFrame({"id": [str(n) for n in range(count)], "cluster": pd.Series([None] * count, dtype="str")})
        write_map(tmp_path / "map.html", frame, np.zeros((count, 2)))
        (cluster,) = data_of(tmp_path / "map.html")["columns"]
        assert cluster["names"] == []
        assert unpacked(cluster["values"], "<u2").tolist() == [MISSING] * count


def test_a_layout_that_is_none_is_refused(tmp_path: Path) -> None:
    frame, layout = galaxies(40)
    said = r"^a map needs a finite place \(N, 2\) for each of 40 galaxies, got an array \(40, 5\)$"
    with pytest.raises(DataError, match=said):
        write_map(tmp_path / "map.html", frame, np.zeros((40, 5)))
    layout[3, 1] = np.nan
    with pytest.raises(DataError, match=r"got an array \(40, 2\)$"):
        write_map(tmp_path / "map.html", frame, layout)
    assert not (tmp_path / "map.html").exists()


ERRORS = """<head><script>
window.errors = [];
addEventListener("error", (event) => errors.push(event.message));
window.alert = () => errors.push("alert");
</script>"""
DRIVER = """<script>
addEventListener("load", () => setTimeout(() => {
  const seen = {}, map = document.getElementById("map"), pick = (text) => document.querySelector(text);
  const wait = () => draw(); // frames are not drawn while a script runs
  const point = (kind, dx = 0, dy = 0, more = {}) => {
    const frame = map.getBoundingClientRect();
    map.dispatchEvent(new PointerEvent(kind, { pointerId: 1, bubbles: true, clientX: frame.left + frame.width / 2 + dx,
      clientY: frame.top + frame.height / 2 + dy, ...more }));
  };
  const click = (more = {}, dx = 0, dy = 0) => {
    point("pointerdown", dx, dy, more);
    point("pointerup", dx, dy, more);
  };
  const find = (id) => {
    pick("#query").value = id;
    pick("#find").requestSubmit();
    wait();
    return pick("#said").textContent;
  };
  const pen = map.getContext("2d");
  const pixel = () => [...pen.getImageData(Math.round(map.width / 2), Math.round(map.height / 2), 1, 1).data];
  const drawn = () => pen.getImageData(0, 0, map.width, map.height).data.some((value) => value > 0);
  try {
    seen.title = document.title;
    seen.banner = pick("#note").textContent;
    wait();
    seen.all = drawn();
    seen.keys = [...document.querySelectorAll(".keys button")].map((key) => key.textContent);
    seen.found = find("galaxy 7");
    seen.colour = pixel();
    seen.pinned = pick("#pinned .name").textContent;
    seen.facts = [...document.querySelectorAll("#pinned dt")].map((dt) => dt.textContent);
    seen.link = pick("#pinned a").href;
    seen.picture = [...pick("#pinned canvas").getContext("2d").getImageData(5, 5, 1, 1).data];
    point("pointermove");
    seen.tip = [pick("#tip").hidden, pick("#tip .name").textContent, pick("#tip").textContent.includes("C01")];
    click({ shiftKey: true });
    seen.list = [pick("#list").value, pick("#count").textContent];
    pick(".keys button").click(); // C01 is hidden
    wait();
    seen.hidden = pixel();
    point("pointermove");
    seen.noTip = pick("#tip").hidden;
    pick(".keys button").click();
    const before = { ...view };
    point("pointerdown"); point("pointermove", 30, 20); point("pointermove", 60, 40); point("pointerup", 60, 40);
    seen.dragged = [view.dx - before.dx, view.dy - before.dy];
    click({}, 60, 40);
    seen.clicked = pick("#pinned .name").textContent;
    map.dispatchEvent(new WheelEvent("wheel", { deltaY: -200, cancelable: true, clientX: 100, clientY: 300 }));
    seen.zoomed = view.scale > before.scale;
    const frame = map.getBoundingClientRect(), scale = view.scale;
    const under = (x, y) => [(x - view.dx) / view.scale, (view.dy - y) / view.scale];
    const touch = (kind, id, x) => map.dispatchEvent(new PointerEvent(kind, { pointerId: id, pointerType: "touch",
      clientX: frame.left + x, clientY: frame.top + 200 }));
    const start = under(200, 200);
    touch("pointerdown", 5, 150); touch("pointerdown", 6, 250);
    touch("pointermove", 5, 100); touch("pointermove", 6, 300);
    touch("pointerup", 5, 100); touch("pointerup", 6, 300);
    seen.pinched = [view.scale / scale, Math.hypot(...under(200, 200).map((value, i) => (value - start[i]) * scale))];
    seen.hostile = [find("alert(1)"), pick("#pinned .name").textContent];
    find("galaxy 1");
    seen.noLink = pick("#pinned a");
    seen.many = [find("axy 3"), find("axy 3")];
    seen.none = find("no such");
    pick("#column").value = [...pick("#column").options].find((option) => option.textContent === "psf").value;
    pick("#column").dispatchEvent(new Event("change"));
    seen.ends = [...document.querySelectorAll(".ends span")].map((end) => end.textContent);
    seen.planted = [document.images.length, document.scripts.length];
    seen.errors = errors;
  } catch (error) { seen.error = String(error); }
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
}, 100));
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs `chromium` on the PATH to try the page in")
def test_the_map_works_in_a_browser(tmp_path: Path) -> None:
    frame, layout = galaxies(100)
    path = tmp_path / "map.html"
    write_map(path, frame, layout, flat, "A map", "SYNTHETIC")
    text = path.read_text(encoding="utf-8").replace("<head>", ERRORS)
    path.write_text(text.replace("</body>", DRIVER), encoding="utf-8")
    command = [*CHROMIUM, "--window-size=1200,800", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Uncaught" not in done.stderr
    assert "Refused" not in done.stderr  # by the policy that the page sets itself
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))

    assert "error" not in seen, seen
    assert seen["errors"] == []
    assert (seen["title"], seen["banner"], seen["all"]) == ("SYNTHETIC: A map", "SYNTHETIC", True)
    assert seen["keys"] == ["C01 (20)", "C02 (10)", "in no cluster (70)"]
    assert seen["found"] == seen["pinned"] == "galaxy 7"
    assert seen["colour"] == [0x00, 0x72, 0xB2, 255]  # of C01, at the middle
    assert seen["facts"] == ["cluster", "strength", "kind", "camcol", "psf"]
    assert seen["link"] == "https://sky.example/?ra=7"
    assert seen["picture"] == pytest.approx([26, 26, 26, 255], abs=2)
    assert seen["tip"] == [False, "galaxy 7", True]
    assert seen["list"] == ["galaxy 7", "1"]
    assert seen["hidden"] != seen["colour"]
    assert seen["noTip"]
    assert seen["dragged"] == [60, 40]
    assert seen["clicked"] == "galaxy 7"
    assert seen["zoomed"]
    assert seen["pinched"] == [pytest.approx(2), pytest.approx(0, abs=1e-3)]  # about the middle between the fingers
    assert seen["hostile"] == [ATTACK, ATTACK]
    assert seen["noLink"] is None  # a javascript: link is none
    assert seen["many"] == ["1 of 11: galaxy 3", "2 of 11: galaxy 30"]
    assert seen["none"] == "no galaxy no such"
    low, high = frame["psf"].quantile([0.02, 0.98])
    assert seen["ends"] == [f"\u2264 {low:.6g}", f"\u2265 {high:.6g}"]
    assert seen["planted"] == [0, 4]  # the page's two scripts and this test's two
