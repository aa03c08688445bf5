"""The folder `configs/` of a package: which files a run reads, and what variants, tuning and studies change."""

import difflib
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from shared.data.problems import DataError
from shared.runs.settings import CONFIG, read_yaml, saved_settings

T = TypeVar("T")
Profile = Literal["gpu", "demo"]
SHORT = "short"  # sets/<set>/short.yaml: every method again with few epochs, for a demonstration of a table


class DataBlock(NamedTuple):
    """A data set as a configuration describes it.

    Attributes:
        name: `run.dataset`.
        tags: `run.tags`.
        block: `data:`, its class and arguments.
    """

    name: str
    tags: list[str]
    block: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What a variant changes of a method.

    Attributes:
        method: The method that is changed.
        files: Files to read after the method's stack.
        settings: Values by dotted name, which override all files.
    """

    method: str
    files: list[Path] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Configs:
    """The folder `configs/` of a package; `folder` is its path.

    A run of a method on a data set reads those of these files that exist; a later file overrides an earlier one:

        base.yaml                  the trainer
        methods/<method>.yaml      the whole `model:`
        sets/<set>/set.yaml        the data; in the demo profile set_demo.yaml takes its place
        sets/<set>/target_<t>.yaml one target of a set that has several: the data set is then called <set>_<t>
        sets/<set>/images.yaml     what the set changes for every method whose encoder takes images (`image_px`)
        demo.yaml                  what the demo profile changes
        sets/<set>/<method>.yaml   what the set changes for one method

    Variants are defined in `variants.yaml`, or belong to a set: `sets/<set>/<method>_<change>.yaml` is a variant of
    that name, and `sets/<set>/short.yaml` makes a variant `<method>_short` of every method. `tuning.yaml` and
    `study.yaml` hold grids.
    """

    folder: Path

    def methods(self) -> list[str]:
        """The methods, sorted."""
        return list(self._methods())

    def sets(self) -> list[str]:
        """The data sets, sorted; a set with several targets is listed once for each, as `<set>_<target>`."""
        return sorted(self._places())

    def data(self, dataset: str, profile: Profile) -> list[Path]:
        """The files that describe a data set.

        Raises:
            DataError: There is no such data set.
        """
        folder, target = self._place(dataset)
        demo = folder / "set_demo.yaml"
        return [demo if profile == "demo" and demo.is_file() else folder / "set.yaml", *([target] if target else [])]

    def stack(self, method: str, dataset: str, profile: Profile) -> list[Path]:
        """The files that a run reads, in order.

        Raises:
            DataError: There is no such method or data set.
        """
        own, (folder, _) = _pick("method", method, self._methods()), self._place(dataset)
        images = [folder / "images.yaml"] if _has_image_encoder(own) else []
        demo = [self.folder / "demo.yaml"] if profile == "demo" else []
        files = [self.folder / "base.yaml", own, *self.data(dataset, profile), *images, *demo, folder / own.name]
        return [path for path in files if path.is_file()]

    def evaluation(self, dataset: str) -> Path | None:
        """The file that says how a data set is evaluated, or None if the set has no such settings of its own.

        Raises:
            DataError: There is no such data set.
        """
        path = self._place(dataset)[0] / "evaluation.yaml"
        return path if path.is_file() else None

    def variants(self, dataset: str) -> dict[str, Change]:
        """What can be trained on a data set, by name: the methods as they are, and their variants.

        Raises:
            DataError: There is no such data set, or `variants.yaml` does not have the expected form.
        """
        folder, methods = self._place(dataset)[0], self._methods()
        found = {method: Change(method) for method in methods}
        path = self.folder / "variants.yaml"
        for name, entry in (read_yaml(path) if path.is_file() else {}).items():
            if not (isinstance(entry, dict) and entry.keys() == {"method", "settings"}):
                raise DataError(f"{path}, {name}: expected `method` and `settings`, the latter by dotted names")
            _pick("method", entry["method"], methods)
            found[name] = Change(entry["method"], settings=entry["settings"])
        for path in sorted(folder.glob("*_*.yaml")):
            owners = [method for method in methods if path.stem.startswith(f"{method}_")]
            if owners and path.stem not in methods:
                found[path.stem] = Change(max(owners, key=len), [path])
        short = folder / f"{SHORT}.yaml"
        if short.is_file():
            found |= {f"{method}_short": Change(method, [short]) for method in methods}
        return found

    def variant(self, name: str, dataset: str) -> Change:
        """A variant of a data set by its name; a method's own name stands for the unchanged method.

        Raises:
            DataError: There is no such variant or data set.
        """
        return _pick("variant", name, self.variants(dataset))

    def tuning(self, method: str) -> dict[str, dict[str, Any]]:
        """The settings that `tuning.yaml` tries for a method, by the name of each combination.

        Raises:
            DataError: There is no grid for this method.
        """
        return self._grid("tuning", method)

    def study(self, name: str) -> dict[str, dict[str, Any]]:
        """The settings that a study of `study.yaml` compares, by the name of each combination.

        Raises:
            DataError: There is no such study.
        """
        return self._grid("study", name)

    def data_block(self, data: str | Path, profile: Profile) -> DataBlock:
        """Name, tags and `data:` block of a data set.

        Args:
            data: A data set, or a YAML file that holds `run.dataset` and `data:`, such as a run's `config.yaml`.
            profile: The profile whose form of the data set is wanted.

        Raises:
            DataError: There is no such data set or file, or the file does not hold both.
        """
        files = [Path(data)] if Path(data).suffix in (".yaml", ".yml") else self.data(str(data), profile)
        of_run = files[0].name == CONFIG
        merged = saved_settings(files[0].parent) if of_run else functools.reduce(_merge, map(read_yaml, files))
        run, block = merged.get("run"), merged.get("data")
        if not (isinstance(run, dict) and "dataset" in run and isinstance(block, dict)):
            raise DataError(f"{files[-1]} lacks run.dataset or data:; by name, there are: {', '.join(self.sets())}")
        return DataBlock(run["dataset"], list(run.get("tags") or []), block)

    def composed(self, config: Mapping[str, Any], profile: Profile) -> Iterator[dict[str, Any]]:
        """What the files give the method of a run on its data set, merged: for each method of the run's class.

        If the run's name starts with a variant's, that variant is merged; the short trainings of a demonstration are
        not variants here. If no set has the name of the run's data set, all sets with its data module's class count;
        if none has, only the files that do not belong to a set are merged.

        Args:
            config: The configuration of the run.
            profile: The profile whose form of the data set is wanted.
        """
        class_path, name = config["model"]["class_path"], config["run"]["dataset"]
        methods = [key for key, path in self._methods().items() if read_yaml(path)["model"]["class_path"] == class_path]
        blocks = {dataset: self.data_block(dataset, profile) for dataset in self.sets()}
        sets = [dataset for dataset, found in blocks.items() if found.name == name]
        if not sets and (data_class := config["data"].get("class_path")):
            sets = [dataset for dataset, found in blocks.items() if found.block.get("class_path") == data_class]
        for dataset in sets:
            changes = {
                key: change
                for key, change in self.variants(dataset).items()
                if change.method in methods and not any(path.stem == SHORT for path in change.files)
            }
            named = [key for key in changes if str(config["run"]["variant"]).startswith(key)]
            for change in [changes[max(named, key=len)]] if named else map(Change, methods):
                files = [*self.stack(change.method, dataset, profile), *change.files]
                yield functools.reduce(_merge, [*map(read_yaml, files), _nested(change.settings)])
        for method in [] if sets else methods:
            demo = [self.folder / "demo.yaml"] if profile == "demo" else []
            files = [self.folder / "base.yaml", self._methods()[method], *demo]
            yield functools.reduce(_merge, map(read_yaml, files))

    def _methods(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted(self.folder.glob("methods/*.yaml"))}

    def _places(self) -> dict[str, tuple[Path, Path | None]]:
        """By data set, its folder and, if it is one of several targets, the target's file."""
        found: dict[str, tuple[Path, Path | None]] = {}
        for folder in (path.parent for path in self.folder.glob("sets/*/set.yaml")):
            targets: list[Path | None] = [*folder.glob("target_*.yaml")]
            for target in targets or [None]:
                found[target.stem.replace("target", folder.name, 1) if target else folder.name] = (folder, target)
        return found

    def _place(self, dataset: str) -> tuple[Path, Path | None]:
        return _pick("data set", dataset, self._places())

    def _grid(self, file: str, name: str) -> dict[str, dict[str, Any]]:
        path = self.folder / f"{file}.yaml"
        grid = _pick(f"grid in {path.name} called", name, read_yaml(path))
        if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
            raise DataError(f"{path}, {name}: expected lines such as model.init_args.temperature: [0.1, 0.5]")
        return combinations(grid)


def combinations(grid: Mapping[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Every combination of a grid's values, by a name that is safe as a folder's and needs no quotes in a shell.

    Example:
        >>> list(combinations({"model.init_args.lr": [0.001, 0.01], "crop": [[0.3, 1.0]]}))
        ['lr=0.001,crop=0.3_1.0', 'lr=0.01,crop=0.3_1.0']

    Raises:
        DataError: Two combinations would have the same name.
    """
    found = {}
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        words = {key.rpartition(".")[2]: re.sub(r"[^\w.-]+", "_", json.dumps(settings[key])).strip("_") for key in grid}
        found[",".join(f"{key}={word}" for key, word in words.items())] = settings
    if len(found) < math.prod(map(len, grid.values())):
        raise DataError(f"two settings or values of a grid have the same name: {', '.join(grid)}")
    return found


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings by dotted name, as words of a command line.

    Example:
        >>> as_flags({"model.init_args.temperature": 0.1, "data.init_args.csv": None, "run.tags": ["real"]})
        ['--model.init_args.temperature', '0.1', '--data.init_args.csv', 'null', '--run.tags', '["real"]']
    """
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return [word for name, text in texts.items() for word in (f"--{name}", text)]


def _has_image_encoder(method: Path) -> bool:
    block = read_yaml(method).get("model")
    while isinstance(block, dict):  # an encoder may be within another module
        settings = block.get("init_args") or {}
        if "image_px" in settings:
            return True
        block = settings.get("encoder")
    return False


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, as a nested configuration."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        functools.reduce(lambda block, key: block.setdefault(key, {}), above, nested)[last] = value
    return nested


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations merged; the second overrides the first."""
    both = [key for key in first if isinstance(first[key], Mapping) and isinstance(second.get(key), Mapping)]
    return {**first, **second, **{key: _merge(first[key], second[key]) for key in both}}


def _pick(kind: str, name: str, options: Mapping[str, T]) -> T:
    """The option of this name, or an error that lists the names."""
    if name in options:
        return options[name]
    close = difflib.get_close_matches(name, options, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"no {kind} {name!r}; there are: {', '.join(sorted(options)) or 'none'}{hint}")
