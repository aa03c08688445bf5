"""What lies in `runs/<package>/<data set>/<variant>/seed_<s>`: checkpoints, configurations, and the data they name."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentParser

from shared.callbacks import read_results
from shared.data.problems import DataError

log = logging.getLogger(__name__)

DataT = TypeVar("DataT", bound=pl.LightningDataModule)


def load_data(expected: type[DataT], config: dict[str, Any], options: dict[str, Any]) -> DataT:
    """Build and set up a data module from the `data:` block of a YAML, with some settings changed."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(expected, "data")
    block = {"class_path": config["class_path"], "init_args": {**(config.get("init_args") or {}), **options}}
    data: DataT = parser.instantiate_classes(parser.parse_object({"data": block})).data
    data.prepare_data()
    data.setup("test")
    return data


def find_checkpoints(run: Path, which: str) -> dict[int, Path]:
    """Checkpoints by seed under `runs/<package>/<data set>/<variant>`; of finished runs only, where any has finished.

    Raises:
        DataError: There is none.
    """
    found = {int(path.parts[-3].removeprefix("seed_")): path for path in run.glob(f"seed_*/checkpoints/{which}.ckpt")}
    if not found:
        above = run.name.startswith("seed_") and (run / "checkpoints").is_dir()
        hint = f"pass the folder above it, {run.parent}" if above else "train first, or pass another --run"
        raise DataError(f"no {run}/seed_*/checkpoints/{which}.ckpt: {hint}")
    finished = {seed: path for seed, path in found.items() if "fit/epochs" in read_results(path.parents[1])}
    if unfinished := sorted(found.keys() - finished.keys()):
        done = "are left out" if finished else "are taken as far as they are"
        log.warning("%s: seeds whose training has not finished %s: %s", run, done, ", ".join(map(str, unfinished)))
    return dict(sorted((finished or found).items()))


def method_of(run: Path, names: Mapping[str, str] | None = None) -> str:
    """What tables call a variant's method: its class's name, or what `names` has for that."""
    name = str(run_config(run)["model"]["class_path"]).rpartition(".")[2]
    return (names or {}).get(name, name)


def run_config(run: Path) -> dict[str, Any]:
    """The configuration of a variant's first trained seed."""
    config: dict[str, Any] = yaml.safe_load((first_seed(run) / "config.yaml").read_text(encoding="utf-8"))
    return config


def first_seed(run: Path) -> Path:
    """Folder of a variant's first trained seed."""
    return run / f"seed_{next(iter(find_checkpoints(run, 'best')))}"


def check_same_settings(run: Path, seeds: Sequence[int]) -> None:
    """Only runs that differ in their seed may be averaged.

    Raises:
        DataError: Two seeds were trained with other settings.
    """
    blocks = []
    for seed in seeds:
        config = yaml.safe_load((run / f"seed_{seed}" / "config.yaml").read_text(encoding="utf-8"))
        blocks.append({key: config[key] for key in ("model", "data")} | {"epochs": config["trainer"]["max_epochs"]})
        if blocks[-1] != blocks[0]:
            raise DataError(
                f"seed_{seeds[0]} and seed_{seed} of {run} were trained with other settings, so their mean says "
                "nothing: train them alike (--run.overwrite true), or under variants of their own (--run.variant NAME)"
            )


def read_data_config(path: Path) -> tuple[str, list[str], dict[str, Any]]:
    """Name, tags and `data:` block of a run's config.yaml or of a file of configs/data."""
    if not path.is_file():
        raise DataError(f"no file {path}; the data sets are described in <package>/configs/data/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged, it is no YAML any more ({str(error).splitlines()[0]})") from error
    try:
        return content["run"]["dataset"], list(content["run"].get("tags") or []), content["data"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} has no run.dataset and data: blocks; see the files of configs/data/") from error
