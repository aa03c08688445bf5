"""Compare finished and unfinished runs: `runs/` -> one HTML page and one CSV, offline.

A run is a folder `<package>/<dataset>/<variant>/seed_<s>/` with `config.yaml`, `metrics.csv` (Lightning's
CSVLogger) and, if the run got that far, `results.json`, `figures/*.png` and `environment.txt`. What is missing
or broken is listed beside the run; the page is written all the same. The page's fixed part (style, tables, charts)
is `compare.html`.
"""

import base64
import csv
import io
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import yaml
from jsonargparse import auto_cli
from PIL import Image

T = TypeVar("T")

MAX_FIGURE_WIDTH = 1400  # pixels; wider figures are scaled down so that the page stays light enough to mail
MAX_CURVE_POINTS = 600  # per curve, drawn on about as many pixels

# What the table shows in columns of its own, and where files go: these are not settings of the experiment.
_NOISE = re.compile(
    r"^(seed_everything|ckpt_path|run|trainer\.logger|trainer\.default_root_dir)(\.|$)|\.(dirpath|save_dir)$"
)
_LOWER_IS_BETTER = {"loss", "error", "mse", "rmse", "mae", "nll", "lpips", "fid", "ece"}
# For a truncated PNG, Pillow raises SyntaxError.
_UNREADABLE = (OSError, ValueError, SyntaxError, yaml.YAMLError, csv.Error, Image.DecompressionBombError)


@dataclass
class Run:
    """One run as read from its folder; `notes` says what could not be read."""

    package: str
    dataset: str
    variant: str
    seed: int
    path: str
    tags: list[str] = field(default_factory=list)
    settings: dict[str, str | int | float] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    figures: list[dict[str, str]] = field(default_factory=list)
    environment: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def group(self) -> tuple[str, str, str]:
        """What the seeds of one experiment have in common."""
        return self.package, self.dataset, self.variant


def flatten(config: Any, prefix: str = "") -> dict[str, str | int | float]:
    """A nested configuration with dotted keys; numbers stay numbers, everything else becomes text.

    >>> flatten({"model": {"lr": 0.1, "norm": True, "widths": [8, 16]}, "hooks": [{"class_path": "Timer"}]})
    {'model.lr': 0.1, 'model.norm': 'true', 'model.widths': '[8, 16]', 'hooks.0.class_path': 'Timer'}
    """
    if isinstance(config, list) and any(isinstance(item, dict) for item in config):
        config = dict(enumerate(config))
    if isinstance(config, dict) and config:
        flat: dict[str, str | int | float] = {}
        for key, value in config.items():
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if isinstance(config, str) or (isinstance(config, int | float) and not isinstance(config, bool)):
        return {prefix: config if isinstance(config, str) or math.isfinite(config) else str(config)}
    return {prefix: json.dumps(config, default=str)}


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Keys, sorted, whose values differ between runs.

    A key that only some packages know is compared only among those packages' runs, because it means nothing that the
    other packages lack it. Within a package a missing key is a difference. Runs without a readable configuration do
    not count.
    """
    known = [run for run in runs if run.settings]
    differing = []
    for key in sorted({key for run in known for key in run.settings}):
        packages = {run.package for run in known if key in run.settings}
        if len({str(run.settings.get(key, "")) for run in known if run.package in packages}) > 1:
            differing.append(key)
    return differing


def summarise_validation(curves: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Best and last value of each `val/` metric, named with `(min)`, `(max)` or `(last)`.

    >>> summarise_validation({"val/loss": [(1, 0.5), (2, 0.25), (3, 0.75)], "train/loss": [(1, 2.0)]})
    {'val/loss (min)': 0.25, 'val/loss (last)': 0.75}
    """
    summary = {}
    for name, points in curves.items():
        if not name.startswith("val/"):
            continue
        best = min if _LOWER_IS_BETTER & set(re.split(r"[/_\-]", name.lower())) else max
        finite = [value for _, value in points if math.isfinite(value)]
        summary[f"{name} ({best.__name__})"] = best(finite, default=math.nan)
        summary[f"{name} (last)"] = points[-1][1]
    return summary


def thin(points: list[tuple[float, float]], limit: int = MAX_CURVE_POINTS) -> list[tuple[float, float]]:
    """About `limit` points of a long curve: the lowest and highest of each stretch, so that spikes stay visible.

    The first and last point are kept.
    """
    if len(points) <= limit:
        return points
    size = math.ceil(2 * len(points) / limit)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        kept |= {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def read_run(folder: Path, root: Path) -> Run:
    """Read one run folder; problems become `notes`, never errors."""
    package, dataset, variant, seed = folder.relative_to(root).parts
    run = Run(package, dataset, variant, int(seed.removeprefix("seed_")), folder.relative_to(root).as_posix())

    config = _attempt(_read_config, folder / "config.yaml", run.notes, ": settings and tags are unknown")
    if config is not None:
        tags = (config.get("run") or {}).get("tags") or []
        run.tags = [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]
        run.settings = {key: value for key, value in flatten(config).items() if not _NOISE.search(key)}

    run.curves = _attempt(_read_metrics, folder / "metrics.csv", run.notes) or {}
    for name, points in run.curves.items():
        if broken := sum(not math.isfinite(value) for _, value in points):
            run.notes.append(f"{name}: {broken} of {len(points)} logged values are not finite")

    instead = ": validation metrics are shown instead" if run.curves else ""
    results = _attempt(_read_results, folder / "results.json", run.notes, instead)
    for name, value in (results or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            run.notes.append(f"results.json: {name} is not a number ({json.dumps(value)})")
        else:
            run.results[name] = value
    if results is None:
        run.results = summarise_validation(run.curves)

    for path in sorted(folder.glob("figures/*.png")):
        if (source := _attempt(_embed_figure, path, run.notes)) is not None:
            run.figures.append({"name": path.stem, "source": source})
    if (environment := folder / "environment.txt").exists():
        run.environment = _attempt(_read_text, environment, run.notes) or ""
    return run


def compare(runs: Path = Path("runs")) -> Path:
    """Write `<runs>/compare.html` and `<runs>/compare.csv`: the settings that differ, results and curves.

    Args:
        runs: Folder that holds `<package>/<dataset>/<variant>/seed_<s>/`.

    Returns:
        Path of the page. It needs neither network nor server: open it from disk.

    Raises:
        SystemExit: There is no run below `runs`.
    """
    found = runs.glob("*/*/*/seed_*")
    folders = [path for path in found if re.fullmatch(r"seed_[0-9]+", path.name) and path.is_dir()]
    if not folders:
        raise SystemExit(
            f"{runs}: no run found (expected folders <package>/<dataset>/<variant>/seed_<s>). "
            "Run `make train-etp` first, or name another folder with --runs."
        )
    table = sorted((read_run(folder, runs) for folder in folders), key=lambda run: (run.group, run.seed))
    settings = differing_settings(table)
    coverage = Counter(name for run in table for name in run.results)
    results = sorted(coverage, key=lambda name: (-coverage[name], name))  # what most runs have comes first
    _write_csv(table, settings, results, runs / "compare.csv")

    # The data contain no `<`, so no text of a configuration can close the script element.
    data = json.dumps(_page_data(table, settings, results), allow_nan=False).replace("<", "\\u003c")
    template = _read_text(Path(__file__).with_name("compare.html"))
    page = runs / "compare.html"
    page.write_text(template.replace("__DATA__", data), encoding="utf-8")
    return page


def main(args: list[str] | None = None) -> None:
    """`python -m shared.runs.compare [--runs runs]`."""
    page = auto_cli(compare, args=args)
    print(f"wrote {page} (open it in a browser) and {page.with_suffix('.csv')}")


def _attempt(read: Callable[[Path], T], path: Path, notes: list[str], consequence: str = "") -> T | None:
    try:
        return read(path)
    except FileNotFoundError:
        notes.append(f"{path.name} is missing{consequence}")
    except _UNREADABLE as error:
        notes.append(f"{path.name} cannot be read ({shorten(str(error), 90)}){consequence}")
    return None


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_config(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(_read_text(path))
    if not isinstance(config, dict) or not isinstance(config.get("run") or {}, dict):
        raise ValueError("expected a mapping of settings, with a mapping under `run`")
    return config


def _read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """By column, `[(step, value), ...]` sorted by step; an empty cell is a metric that was not logged there."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or []):
            raise ValueError("empty, or a header without a column `step`")
        for row in reader:
            try:
                for name, cell in row.items():
                    if name not in ("epoch", "step", None) and cell:
                        curves.setdefault(name, []).append((float(row["step"]), float(cell)))
            except (TypeError, ValueError):
                raise ValueError(f"line {reader.line_num}: expected numbers or empty cells") from None
    if not curves:
        raise ValueError("no metric has been logged yet")
    return {name: sorted(points, key=lambda point: point[0]) for name, points in curves.items()}


def _read_results(path: Path) -> dict[str, Any]:
    results = json.loads(_read_text(path))
    if not isinstance(results, dict):
        raise ValueError("expected an object of name: number")
    return results


def _embed_figure(path: Path) -> str:
    with Image.open(path) as image:
        figure = image.convert("RGBA")
    if figure.width > MAX_FIGURE_WIDTH:
        height = round(figure.height * MAX_FIGURE_WIDTH / figure.width)
        figure = figure.resize((MAX_FIGURE_WIDTH, max(1, height)))
    buffer = io.BytesIO()
    figure.save(buffer, "WEBP", quality=85)  # a third of the PNG's size, for plots and photographs alike
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _write_csv(runs: Sequence[Run], settings: list[str], results: list[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        identity = ["package", "dataset", "variant", "seed", "tags"]
        writer.writerow([*identity, *settings, *results, "notes", "path"])
        for run in runs:
            row: list[object] = [*run.group, run.seed, " ".join(run.tags)]
            row += [run.settings.get(key, "") for key in settings]
            row += [run.results.get(name, "") for name in results]
            writer.writerow([*row, "; ".join(run.notes), run.path])


def _page_data(runs: Sequence[Run], settings: list[str], results: list[str]) -> dict[str, Any]:
    """What `compare.html` draws. A result is `[value, low, high]`; a value that is not finite is text, as "nan"."""
    names = set(results)
    bounds = [{f"{name}_low", f"{name}_high"} for name in names]
    paired = set[str]().union(*(pair for pair in bounds if pair <= names))
    shown = [name for name in results if name not in paired]
    groups = sorted({run.group for run in runs})

    def cell(run: Run, name: str) -> list[float | str | None]:
        values = [run.results.get(key) for key in (name, f"{name}_low", f"{name}_high")]
        return [value if value is None or math.isfinite(value) else str(value) for value in values]

    return {
        "settings": settings,
        "results": shown,
        "runs": [
            {
                "group": groups.index(run.group),
                "package": run.package,
                "dataset": run.dataset,
                "variant": run.variant,
                "seed": run.seed,
                "path": run.path,
                "tags": run.tags,
                "configured": bool(run.settings),
                "settings": {key: run.settings[key] for key in settings if key in run.settings},
                "results": {name: cell(run, name) for name in shown if name in run.results},
                "curves": {
                    name: thin([point for point in points if math.isfinite(point[1])])
                    for name, points in run.curves.items()
                },
                "figures": run.figures,
                "environment": run.environment,
                "notes": run.notes,
            }
            for run in runs
        ],
        "groups": [_group_statistics([run for run in runs if run.group == group], shown) for group in groups],
    }


def _group_statistics(runs: Sequence[Run], names: list[str]) -> dict[str, Any]:
    """Mean and sample standard deviation (`ddof=1`, None for a single value) over a group's finite values."""
    results = {}
    for name in names:
        values = [run.results[name] for run in runs if math.isfinite(run.results.get(name, math.nan))]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            results[name] = {"mean": statistics.fmean(values), "deviation": deviation, "n": len(values)}
    return {
        "package": runs[0].package,
        "dataset": runs[0].dataset,
        "variant": runs[0].variant,
        "seeds": len(runs),
        "tags": sorted({tag for run in runs for tag in run.tags}),
        "results": results,
    }


if __name__ == "__main__":
    main()
