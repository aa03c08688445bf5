"""When two runs have the same settings: which parts of their configurations are compared, and how they differ."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from shared.data.module import saved_fingerprint
from shared.data.problems import DataError

# Settings that do not change a run's result: how it is started, monitored and distributed over a machine ...
NOT_COMPARED = {
    "ckpt_path",
    "threads",
    "run.overwrite",
    "run.wandb",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.logger",
}
# ... and, at any depth, paths on this machine and its hardware. Data is compared by content, see `data.json`.
PLACES = {
    "root",
    "cache_dir",
    "text_cache_dir",
    "dirpath",
    "default_root_dir",
    "num_workers",
    "accelerator",
    "devices",
}
CONFIG = "config.yaml"  # of a training
SETTINGS = "settings.yaml"  # of a verb's result, beside it
EVALUATION = "evaluation.json"  # of an evaluation: what it was made of
UPSTREAM = "upstream.json"  # fingerprints of the checkpoints of other runs that a run's configuration names


def compared(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration without the settings that are not compared.

    Args:
        config: A configuration as `config.yaml` holds it.
        prefix: Dotted path of `config` within the whole.

    Example:
        >>> compared({"threads": 2, "data": {"init_args": {"root": "here", "batch_size": 8}}})
        {'data': {'init_args': {'batch_size': 8}}}
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        place = f"{prefix}.{key}" if prefix else str(key)
        if place not in NOT_COMPARED and key not in PLACES:
            kept[key] = _compared(value, place)
    return kept


def _compared(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return [_compared(item, place) for item in value]
    return compared(value, place) if isinstance(value, Mapping) else value


def difference(saved: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings in which two configurations differ, one line per value: `-` saved, `+` new; empty if none do."""
    before, after = (dict(_flat(compared(config))) for config in (saved, new))
    lines = []
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key) or (key in before) != (key in after):
            lines += [
                f"{sign} {key}: {json.dumps(values[key], default=str)}"
                for sign, values in (("-", before), ("+", after))
                if key in values
            ]
    return "\n".join(lines)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values; the items of a list of mappings are numbered."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def with_seed(value: Any, seed: int) -> Any:
    """A configuration with `{seed}` in its paths replaced by the run's own seed.

    So all seeds of a variant that starts from another run's checkpoint share one configuration.

    Example:
        >>> with_seed({"init_args": {"prior": "runs/package/set/prior/seed_{seed}/checkpoints/last.ckpt"}}, 3)
        {'init_args': {'prior': 'runs/package/set/prior/seed_3/checkpoints/last.ckpt'}}
    """
    if isinstance(value, Mapping):
        return {key: with_seed(item, seed) for key, item in value.items()}
    if isinstance(value, list):
        return [with_seed(item, seed) for item in value]
    return value.replace("{seed}", str(seed)) if isinstance(value, str) else value


def upstream(config: Mapping[str, Any], seed: int) -> dict[str, str]:
    """Fingerprints, by setting, of the existing checkpoints that a configuration's model and data name."""
    blocks = {key: config[key] for key in ("model", "data") if config.get(key)}
    found = {}
    for key, value in _flat(with_seed(blocks, seed)):
        if isinstance(value, str) and value.endswith((".ckpt", ".pt", ".safetensors")) and Path(value).is_file():
            found[key] = file_fingerprint(Path(value))
    return found


def changed_data(run: Path, fingerprint: Callable[[], str]) -> str:
    """Whether the data that is asked for has another content than a finished run's, as two lines; empty if not.

    Args:
        run: Folder of the run.
        fingerprint: Loads the data that is asked for, which takes a while.
    """
    if not (before := saved_fingerprint(run)):
        return ""
    return "" if before == (now := fingerprint()) else f"- data, content: {before}\n+ data, content: {now}"


def file_fingerprint(path: Path) -> str:
    """A short digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def saved_settings(run: Path) -> dict[str, Any]:
    """The `config.yaml` of a run. One that does not record the rule of its random split was trained on rule 1's.

    Raises:
        DataError: There is no such file, or it is damaged.
    """
    config = read_yaml(run / CONFIG)
    arguments = (config.get("data") or {}).get("init_args") or {}
    if "split_seed" in arguments:
        arguments.setdefault("split_version", 1)
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        DataError: There is no such file, it is not valid YAML, or it does not hold a mapping.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold names with values")
    return content


def load_yaml(path: Path) -> Any:
    """What a YAML file holds, whatever it is.

    Raises:
        DataError: There is no such file, or it is not valid YAML.
    """
    if not path.is_file():
        raise DataError(f"no file {path}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid YAML ({str(error).splitlines()[0]})") from error
