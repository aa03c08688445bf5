"""The comparison page: what it lists, what it computes, and (with Chromium) that it works in a browser."""

import base64
import csv
import html
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from shared.runs.compare import Run, compare, differing_settings, main, read_run, summarise_validation, thin

ATTACK = "</script><script>alert(1)</script>"


def write_run(
    root: Path,
    name: str,
    *,
    tags: list[str],
    settings: Mapping[str, object],
    metrics: str = "epoch,step,train/loss,val/auroc\n0,1,2.5,\n0,1,,0.6\n1,2,1.5,\n1,2,,0.7\n",
    results: Mapping[str, object] | None = None,
) -> Path:
    """A made-up run folder; `settings` go under `model.init_args`."""
    folder = root / name
    folder.mkdir(parents=True)
    package, dataset, variant, seed = name.split("/")
    config = {
        "seed_everything": int(seed.removeprefix("seed_")),
        "run": {"dataset": dataset, "variant": variant, "tags": tags, "overwrite": len(tags) > 1},
        "trainer": {"max_epochs": 2, "logger": [{"init_args": {"save_dir": str(folder)}}]},
        "model": {"class_path": f"{package}.Model", "init_args": dict(settings)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text(metrics)
    if results is not None:
        (folder / "results.json").write_text(json.dumps(dict(results)))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two packages, eight made-up runs: three seeds, one without results, two that broke off, one hostile."""
    root = tmp_path / "runs"
    for seed, auroc in enumerate([0.81, 0.9, 0.84]):
        results = {"fit/seconds": 9.5 + seed, "zero_shot/auroc": auroc}
        results |= {"zero_shot/auroc_low": auroc - 0.05, "zero_shot/auroc_high": auroc + 0.05}
        settings = {"lr": 0.001, "temperature": 0.07}
        name = f"ecg_text/ptbxl/etp/seed_{seed}"
        write_run(root, name, tags=["etp", "synthetic"], settings=settings, results=results)
    write_run(root, "ecg_text/ptbxl/simclr/seed_0", tags=["baseline"], settings={"lr": 0.01, "temperature": 0.07})
    plain: dict[str, object] = {"lr": 0.1, "widths": [8, 16]}
    write_run(root, "galaxies/decals/simclr/seed_10", tags=["galaxies"], settings=plain, results={"purity": 1})
    # A folder's name cannot hold a slash, so the closing tag is planted where it can stand.
    hostile = plain | {"note": ATTACK}
    name = "galaxies/decals/<script>alert(1)<img src=x onerror=alert(1)>/seed_2"
    metrics = f"epoch,step,{ATTACK}\n0,1,0.5\n"
    write_run(root, name, tags=[ATTACK], settings=hostile, metrics=metrics, results={ATTACK: 0.5})
    (root / "galaxies/decals/empty/seed_0").mkdir(parents=True)
    corrupt = root / "galaxies/decals/corrupt/seed_0"
    corrupt.mkdir(parents=True)
    for file, text in {
        "config.yaml": "run: [",
        "metrics.csv": "epoch,step,a\n0,1,x\n",
        "results.json": "{",
    }.items():
        (corrupt / file).write_text(text)
    return root


def page_data(page: Path) -> dict[str, Any]:
    """The data embedded in the page."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def run_called(data: dict[str, Any], path: str) -> dict[str, Any]:
    (run,) = [run for run in data["runs"] if run["path"] == path]
    found: dict[str, Any] = run
    return found


def test_no_runs_ends_with_what_to_do_next(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path / 'runs'}: no run found (expected folders <package>/<dataset>/<variant>/seed_<s>). "
        "Run `make train-etp` first, or name another folder with --runs."
    )
    with pytest.raises(SystemExit, match=f"^{re.escape(expected)}$"):
        main(["--runs", str(tmp_path / "runs")])


def test_main_writes_the_page_and_the_table_and_says_where(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", str(runs)])
    written = f"wrote {runs / 'compare.html'} (open it in a browser) and {runs / 'compare.csv'}\n"
    assert capsys.readouterr().out == written
    assert {path.name for path in runs.iterdir() if path.is_file()} == {"compare.html", "compare.csv"}


def test_csv_has_a_row_a_run_with_differing_settings_and_all_results(runs: Path) -> None:
    compare(runs)
    with (runs / "compare.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [
        *("package", "dataset", "variant", "seed", "tags"),
        *("model.class_path", "model.init_args.lr", "model.init_args.note"),
        *("fit/seconds", "zero_shot/auroc", "zero_shot/auroc_high", "zero_shot/auroc_low"),  # what most runs have
        *(ATTACK, "purity", "val/auroc (last)", "val/auroc (max)", "notes", "path"),
    ]
    assert [row[-1] for row in rows] == sorted(row[-1] for row in rows)
    assert len(rows) == 8
    first = dict(zip(header, rows[0], strict=True))
    assert (first["tags"], first["model.init_args.lr"], first["model.init_args.note"]) == (
        "etp synthetic",
        "0.001",
        "",
    )
    assert [float(first[f"zero_shot/auroc{end}"]) for end in ("_low", "", "_high")] == [
        0.81 - 0.05,
        0.81,
        0.81 + 0.05,
    ]


def test_a_setting_counts_as_differing_only_among_packages_that_know_it() -> None:
    def run(package: str, **settings: str | int | float) -> Run:
        return Run(package, "data", "variant", 0, "path", settings=settings)

    runs = [run("a", lr=1, depth=3), run("a", lr=2, depth=3, extra="x"), run("b", lr=2, width=4), run("c")]
    assert differing_settings(runs) == ["extra", "lr"]
    assert differing_settings([*runs, run("b", lr=2, width=5)]) == ["extra", "lr", "width"]


def test_group_rows_are_mean_and_sample_standard_deviation_over_seeds(runs: Path) -> None:
    groups = page_data(compare(runs))["groups"]
    etp = next(group for group in groups if group["variant"] == "etp")
    values = np.array([0.81, 0.9, 0.84])
    cell = etp["results"]["zero_shot/auroc"]
    assert (etp["seeds"], cell["n"], etp["tags"]) == (3, 3, ["etp", "synthetic"])
    assert cell["mean"] == pytest.approx(values.mean(), abs=1e-15)
    assert cell["deviation"] == pytest.approx(values.std(ddof=1), abs=1e-15)
    purity = next(group for group in groups if "purity" in group["results"])["results"]["purity"]
    assert purity == {"mean": 1.0, "deviation": None, "n": 1}


def test_values_that_are_not_finite_stay_visible_but_out_of_the_mean(tmp_path: Path) -> None:
    metrics = "epoch,step,val/loss\n0,1,0.5\n0,2,nan\n"
    for seed, value in enumerate([0.5, math.nan]):
        name = f"a/b/c/seed_{seed}"
        write_run(tmp_path, name, tags=[], settings={}, metrics=metrics, results={"f1": value, "bad": None})
    data = page_data(compare(tmp_path))
    assert [run["results"]["f1"][0] for run in data["runs"]] == [0.5, "nan"]
    assert data["groups"][0]["results"] == {"f1": {"mean": 0.5, "deviation": None, "n": 1}}
    assert data["runs"][0]["curves"] == {"val/loss": [[1.0, 0.5]]}
    assert data["runs"][0]["notes"] == [
        "val/loss: 1 of 2 logged values are not finite",
        "results.json: bad is not a number (null)",
    ]


def test_a_pair_of_bounds_is_an_interval_and_a_lone_bound_a_result(tmp_path: Path) -> None:
    results = {"auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "snr_low": 3.0, "f1": 0.5, "f1_low": 0.4}
    write_run(tmp_path, "a/b/c/seed_0", tags=[], settings={}, results=results)
    data = page_data(compare(tmp_path))
    assert data["results"] == ["auroc", "f1", "f1_low", "snr_low"]
    assert data["runs"][0]["results"]["auroc"] == [0.8, 0.7, 0.9]


def test_a_run_without_results_shows_best_and_last_validation_values(runs: Path) -> None:
    run = run_called(page_data(compare(runs)), "ecg_text/ptbxl/simclr/seed_0")
    assert run["results"] == {"val/auroc (last)": [0.7, None, None], "val/auroc (max)": [0.7, None, None]}
    assert run["notes"] == ["results.json is missing: validation metrics are shown instead"]
    assert run["curves"] == {"train/loss": [[1, 2.5], [2, 1.5]], "val/auroc": [[1, 0.6], [2, 0.7]]}
    diverged = summarise_validation({"val/loss": [(1, 0.5), (2, math.nan)]})
    assert diverged["val/loss (min)"] == 0.5
    assert math.isnan(diverged["val/loss (last)"])


def test_half_written_runs_are_listed_with_what_is_missing(runs: Path) -> None:
    data = page_data(compare(runs))
    assert run_called(data, "galaxies/decals/empty/seed_0")["notes"] == [
        "config.yaml is missing: settings and tags are unknown",
        "metrics.csv is missing",
        "results.json is missing",
    ]
    config, metrics, results = run_called(data, "galaxies/decals/corrupt/seed_0")["notes"]
    assert re.fullmatch(r"config\.yaml cannot be read \(.+\): settings and tags are unknown", config)
    assert metrics == "metrics.csv cannot be read (line 2: expected numbers or empty cells)"
    assert re.fullmatch(r"results\.json cannot be read \(.+\)", results)


@pytest.mark.parametrize(
    ("file", "text", "note"),
    [
        ("metrics.csv", "", "metrics.csv cannot be read (empty, or a header without a column `step`)"),
        ("metrics.csv", "epoch,step,a\n", "metrics.csv cannot be read (no metric has been logged yet)"),
        ("results.json", "[1]", "results.json cannot be read (expected an object of name: number)"),
        ("figures/a.png", "no image", "a.png cannot be read (cannot identify image file"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, text: str, note: str) -> None:
    folder = write_run(tmp_path, "a/b/c/seed_0", tags=[], settings={}, results={"f1": 0.5})
    (folder / "figures").mkdir()
    (folder / file).write_text(text)
    (found,) = read_run(folder, tmp_path).notes
    assert found.startswith(note)


def test_wide_figures_are_scaled_down_and_embedded(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a/b/c/seed_0", tags=[], settings={}, results={})
    (folder / "figures").mkdir()
    Image.new("RGB", (2800, 1000), "navy").save(folder / "figures" / "wide.png")
    Image.new("L", (300, 200)).save(folder / "figures" / "small.png")
    small, wide = read_run(folder, tmp_path).figures
    assert (small["name"], wide["name"]) == ("small", "wide")
    for figure, size in ((small, (300, 200)), (wide, (1400, 500))):
        kind, _, encoded = figure["source"].partition(",")
        assert kind == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == size


def test_thinned_curves_keep_spikes_and_both_ends() -> None:
    points = [(float(step), math.sin(step / 900)) for step in range(10_000)]
    points[4321] = (4321.0, 50.0)
    points[7654] = (7654.0, -50.0)
    kept = thin(points, limit=100)
    assert len(kept) <= 102
    assert {points[0], points[4321], points[7654], points[-1]} <= set(kept)
    assert kept == sorted(kept)
    assert thin(points[:100], limit=100) == points[:100]


def test_text_of_a_run_cannot_leave_the_data_element(runs: Path) -> None:
    page = compare(runs)
    text = page.read_text()
    assert text.count("</script>") == 2  # the data and the page's own script
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    run = run_called(page_data(page), "galaxies/decals/<script>alert(1)<img src=x onerror=alert(1)>/seed_2")
    assert run["tags"] == [ATTACK]
    assert run["settings"]["model.init_args.note"] == ATTACK


def test_the_page_asks_the_network_for_nothing(runs: Path) -> None:
    text = compare(runs).read_text()
    assert "default-src 'none'; img-src data:;" in text
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`]*", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name space of SVG, which is never fetched


# Acts as a reader would and writes what it saw into the page, for --dump-dom.
DRIVER = """
<script>
addEventListener("load", () => {
  const seen = {};
  const all = (selector) => [...document.querySelectorAll(selector)];
  const heading = (key) => all("#runs thead button").find((button) => button.dataset.key === key);
  const column = (key) => {
    const index = all("#runs thead button").indexOf(heading(key));
    return all("#runs tbody tr").map((row) => row.children[index].textContent);
  };
  const change = (id, value, event) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event(event));
  };
  const keys = () => all("#runs thead button").map((button) => button.dataset.key);
  const count = () => document.getElementById("count").textContent;
  try {
    seen.planted = all("table script, table img, #charts script, #details script, #tag script").length;
    seen.all = [count(), all("#runs tbody tr").length, all("#charts .chart").length];
    seen.badges = all("#runs .badge, #groups .badge").length;
    seen.etp = all("#groups tbody tr")[0].textContent;
    heading("seed").click();
    seen.ascending = column("seed");
    heading("seed").click();
    seen.descending = column("seed");
    seen.sorted = heading("seed").parentElement.getAttribute("aria-sort");
    heading("result zero_shot/auroc").click();
    seen.auroc = column("result zero_shot/auroc");
    heading("result purity").click();
    seen.purity = [column("result purity").slice(0, 2)];
    heading("result purity").click();
    seen.purity.push(column("result purity").slice(0, 2));
    change("search", "seed_2", "input");
    seen.twoPackages = [count(), keys().filter((key) => key.startsWith("setting"))];
    change("search", "", "input");
    all("#packages button").find((button) => button.textContent === "ecg_text").click();
    seen.package = [count(), new Set(column("package")).size, keys()];
    change("tag", "synthetic", "change");
    seen.tag = [count(), keys().filter((key) => key.startsWith("setting"))];
    change("search", "seed_1", "input");
    seen.search = [count(), column("seed")];
    change("metric", "val/auroc", "change");
    const drawing = document.querySelector("#charts svg"), box = drawing.getBoundingClientRect();
    const corner = { clientX: box.right - 5, clientY: box.top + 5 };
    drawing.dispatchEvent(new PointerEvent("pointermove", corner));
    const tip = document.querySelector(".tip"), place = tip.getBoundingClientRect();
    seen.hover = [all("#charts .chart").length, tip.textContent];
    seen.besidePoint = place.right < box.right && place.left > box.left + box.width / 2;
    seen.besidePoint &&= place.top < box.top + 60;
    document.querySelector("figure button").click();
    const viewer = document.getElementById("viewer");
    seen.figure = [viewer.open, viewer.querySelector("#viewer-title").textContent];
    change("search", "no such run", "input");
    seen.none = [count(), all("#charts .chart").length];
  } catch (error) { seen.error = String(error); }
  const report = document.createElement("pre");
  report.id = "seen";
  report.textContent = JSON.stringify({ ...seen, errors: window.errors });
  document.body.append(report);
});
</script>
</body>
"""
ERRORS = """<head><script>
window.errors = [];
addEventListener("error", (event) => errors.push(event.message));
window.alert = () => errors.push("alert");
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs `chromium` on the PATH to try the page in")
def test_page_sorts_filters_and_draws_in_a_browser(runs: Path, tmp_path: Path) -> None:
    figures = runs / "ecg_text/ptbxl/etp/seed_1/figures"
    figures.mkdir()
    Image.new("RGB", (60, 40), "navy").save(figures / "roc.png")
    page = compare(runs)
    page.write_text(page.read_text().replace("<head>", ERRORS).replace("</body>\n", DRIVER))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))

    assert seen["errors"] == []
    assert "error" not in seen, seen
    assert seen["planted"] == 0
    assert seen["all"] == ["8 of 8 runs shown", 8, 3]
    assert seen["badges"] == 4  # three runs and their group
    assert "0.850 \u00b1 0.046n = 3" in seen["etp"]
    assert seen["ascending"] == ["0", "0", "0", "0", "1", "2", "2", "10"]
    assert seen["descending"] == seen["ascending"][::-1]
    assert seen["sorted"] == "descending"
    assert seen["auroc"] == ["0.81[0.76, 0.86]", "0.84[0.79, 0.89]", "0.9[0.85, 0.95]", *[""] * 5]
    assert seen["package"] == [
        "4 of 8 runs shown",
        1,
        [
            *("package", "dataset", "variant", "seed", "tags", "notes", "setting model.init_args.lr"),
            *(
                "result fit/seconds",
                "result zero_shot/auroc",
                "result val/auroc (last)",
                "result val/auroc (max)",
            ),
        ],
    ]
    assert seen["tag"] == ["3 of 8 runs shown", []]
    assert seen["search"] == ["1 of 8 runs shown", ["1"]]
    assert seen["purity"] == [["1", ""], ["1", ""]]  # blanks last, upwards and downwards
    # `note` is known to one package only, and one of its runs is left: nothing to compare.
    assert seen["twoPackages"] == [
        "2 of 8 runs shown",
        ["setting model.class_path", "setting model.init_args.lr"],
    ]
    assert seen["besidePoint"]
    assert seen["hover"] == [1, "0.7 at step 2ecg_text / ptbxl / etp, seed 1 synthetic data"]
    assert seen["figure"] == [True, "roc \u2013 ecg_text / ptbxl / etp, seed 1 synthetic data"]
    assert seen["none"] == ["0 of 8 runs shown", 0]
