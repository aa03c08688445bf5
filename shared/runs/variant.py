"""A variant: the runs of one method and setting, which differ only in their seed. Its files are read once."""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentParser

from shared.checkpoint import CheckpointError, trusted_class
from shared.data.module import saved_fingerprint
from shared.data.problems import DataError
from shared.runs.results import has_finished, read_results
from shared.runs.settings import CONFIG, SETTINGS, compared, read_yaml, saved_settings

log = logging.getLogger(__name__)

DataT = TypeVar("DataT", bound=pl.LightningDataModule)


@dataclass(frozen=True)
class Variant:
    """The runs in `runs/<package>/<data set>/<variant>/seed_<s>`.

    Attributes:
        folder: Folder of the variant.

    Raises:
        DataError: There is no run in it; raised when the runs are first asked for.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @cached_property
    def _all(self) -> dict[int, tuple[Path, dict[str, float]]]:
        """Folder and `results.json` of all runs that have begun, by seed."""
        found = {
            int(path.parent.name.removeprefix("seed_")): path.parent
            for name in (CONFIG, SETTINGS)
            for path in self.folder.glob(f"seed_*/{name}")
            if re.fullmatch(r"seed_\d+", path.parent.name)
        }
        if not found:
            above = self.folder.name.startswith("seed_") and (self.folder / CONFIG).is_file()
            hint = f"pass the folder above it, {self.folder.parent}" if above else "train first, or pass another --run"
            raise DataError(f"no {self.folder}/seed_*/config.yaml: {hint}")
        return {seed: (path, read_results(path)) for seed, path in sorted(found.items())}

    @cached_property
    def runs(self) -> dict[int, Path]:
        """Folders by seed. If any run has finished, only finished runs count."""
        finished = {
            seed: path
            for seed, (path, results) in self._all.items()
            if has_finished(results) or (path / SETTINGS).is_file()
        }
        if unfinished := sorted(self._all.keys() - finished.keys()):
            done = "are left out" if finished else "are used as they are"
            seeds = ", ".join(map(str, unfinished))
            log.warning("%s: seeds whose training has not finished %s: %s", self.folder, done, seeds)
        return finished or {seed: path for seed, (path, _) in self._all.items()}

    @property
    def seeds(self) -> list[int]:
        """Seeds of its runs, in order."""
        return list(self.runs)

    @property
    def seeds_text(self) -> str:
        """The seeds as tables and CSVs show them."""
        return " ".join(map(str, self.seeds))

    @property
    def first(self) -> Path:
        """Folder of its first seed."""
        return next(iter(self.runs.values()))

    def checkpoint(self, seed: int, which: str = "best") -> Path:
        """A seed's checkpoint.

        Raises:
            DataError: There is none.
        """
        path = self.runs[seed] / "checkpoints" / f"{which}.ckpt"
        if not path.is_file():
            raise DataError(f"no {path}: train first, or pass another --run")
        return path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of its first seed, or what a verb without training wrote as its settings."""
        return _settings_of(self.first)

    @property
    def dataset(self) -> str:
        """Name of the data set that it was trained on."""
        return str(self.config["run"]["dataset"])

    @property
    def tags(self) -> list[str]:
        """Tags of its runs; `synthetic` or `real` is among them."""
        return list(self.config["run"].get("tags") or [])

    @property
    def is_synthetic(self) -> bool:
        """Whether it was trained on synthetic data."""
        return "synthetic" in self.tags

    @property
    def model_settings(self) -> dict[str, Any]:
        """Arguments of its model; empty without one."""
        return dict((self.config.get("model") or {}).get("init_args") or {})

    @property
    def is_trained(self) -> bool:
        """Whether its runs are trainings, and not results of a verb without one."""
        return "model" in self.config

    @property
    def package(self) -> str:
        """Name of the package that it belongs to."""
        return self.folder.absolute().parts[-3]

    @cached_property
    def data(self) -> str:
        """Fingerprint of the data that its first seed was trained on; empty if the run does not record it."""
        return saved_fingerprint(self.first)

    @cached_property
    def method(self) -> type[Any]:
        """Class of its model, a LightningModule with a `variant_title` (see `shared.methods.Method`)."""
        source = self.first / CONFIG
        found = trusted_class(self.config["model"]["class_path"], source)
        if not issubclass(found, pl.LightningModule) or not hasattr(found, "variant_title"):
            raise CheckpointError(f"{source} names {found.__name__}, which is not a method of Quintet")
        return found

    @property
    def title(self) -> str:
        """What tables call it: its method's title with the changes that the method names, or the settings' `title`."""
        return str(self.method.variant_title(self.model_settings) if self.is_trained else self.config["title"])

    @property
    def results(self) -> dict[int, dict[str, float]]:
        """`results.json` by seed."""
        return {seed: self._all[seed][1] for seed in self.runs}

    @property
    def hours(self) -> float:
        """Hours that all its trainings took together."""
        return sum(found.get("fit/seconds", 0.0) for found in self.results.values()) / 3600

    @property
    def epochs(self) -> int:
        """Largest number of epochs that it was trained for; 0 without training."""
        return int((self.config.get("trainer") or {}).get("max_epochs") or 0)

    @property
    def steps(self) -> int:
        """Optimiser steps, as a mean over the seeds; 0 if the runs do not record them."""
        found = [results["fit/steps"] for results in self.results.values() if "fit/steps" in results]
        return round(sum(found) / len(found)) if found else 0

    def save_config(self, results: Path) -> str:
        """Keep the settings that all its runs share beside a CSV of results, as `configs/<digest>.yaml`.

        Args:
            results: The CSV.

        Returns:
            The digest, for the column `config` of its rows.
        """
        text = yaml.safe_dump(compared(self.config), sort_keys=True, allow_unicode=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        folder = results.parent / "configs"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{digest}.yaml").write_text(text, encoding="utf-8")
        return digest

    def check_same_settings(self) -> None:
        """Check that its runs differ only in their seed, because only such runs may be averaged.

        Raises:
            DataError: Two seeds were trained with different settings.
        """
        blocks: list[dict[str, Any]] = []
        for seed, run in self.runs.items():
            config = compared(_settings_of(run))
            if "model" in config:
                config = {key: config[key] for key in ("model", "data")} | {"epochs": config["trainer"]["max_epochs"]}
            blocks.append(
                {**{key: value for key, value in config.items() if key != "seed"}, "content": saved_fingerprint(run)}
            )
            if blocks[-1] != blocks[0]:
                raise DataError(
                    f"seed_{self.seeds[0]} and seed_{seed} of {self.folder} were trained with different settings, so "
                    "their mean says nothing: train them alike (--run.overwrite true), or under variants of their own "
                    "(--run.variant NAME)"
                )


def _settings_of(run: Path) -> dict[str, Any]:
    return saved_settings(run) if (run / CONFIG).is_file() else read_yaml(run / SETTINGS)


def load_data(expected: type[DataT], block: Mapping[str, Any], changes: Mapping[str, Any]) -> DataT:
    """Build and set up a data module from the `data:` block of a configuration.

    Args:
        expected: The class that it must derive from.
        block: The block, with `class_path` and `init_args`.
        changes: Arguments that replace the block's.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(expected, "data")
    arguments = {**(block.get("init_args") or {}), **changes}
    given = parser.parse_object({"data": {"class_path": block["class_path"], "init_args": arguments}})
    data: DataT = parser.instantiate(given).data
    data.prepare_data()
    data.setup("test")
    return data
