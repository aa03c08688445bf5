"""Checkpoints that suffice to rebuild their model, and are treated as untrusted input."""

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from shared.trusted import trusted_packages

# Names in a checkpoint's hyper-parameters are imported and called, so only our own packages (see `shared.trusted`) and
# these may be named there ...
TORCH_PACKAGES = ("torch.nn", "torch.optim")
# ... and only classes whose construction touches nothing outside: these, and what is in shared.backbones.
TRUSTED_BASES = (nn.Module, Optimizer, LRScheduler)

ModuleT = TypeVar("ModuleT", bound=pl.LightningModule)


class CheckpointError(ValueError):
    """A file is not a checkpoint that this package can use."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint's content on the CPU with `weights_only=True`, and check that it is one of ours.

    Raises:
        CheckpointError: The file is missing, is not a checkpoint, is unsafe, or was not written by Quintet.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}; a run keeps its own in <run>/checkpoints/")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types if it is not a checkpoint, or holds more than weights
        raise CheckpointError(
            f"{path} cannot be loaded as weights and plain values only ({type(error).__name__}); it is damaged, or "
            "was not written by Quintet"
        ) from error
    keys = ("state_dict", "hyper_parameters")
    if not isinstance(content, dict) or any(not isinstance(content.get(key), dict) for key in keys):
        raise CheckpointError(f"{path} is not a Quintet checkpoint: it lacks {' and '.join(keys)}")
    return content


def saved_data_settings(path: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Settings of the data module that a model was trained with, which its checkpoint holds.

    Args:
        path: The checkpoint.
        names: The settings' names, which the data module has saved.

    Raises:
        CheckpointError: See `read_checkpoint`; or the training did not use such a data module.
    """
    saved = read_checkpoint(path).get("datamodule_hyper_parameters")
    if not isinstance(saved, dict) or not saved.keys() >= set(names):
        raise CheckpointError(
            f"{path} does not say how its data were prepared ({', '.join(names)}): it was not trained on one of this "
            "package's data sets"
        )
    return {name: saved[name] for name in names}


def plain_hyperparameters(hyperparameters: dict[str, Any], leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The hyper-parameters that are plain values; objects, as of a module built in Python, could not be loaded again.

    Args:
        hyperparameters: The hyper-parameters as Lightning saved them.
        leave_out: Names of further hyper-parameters to drop.
    """
    return {key: value for key, value in hyperparameters.items() if _is_plain(value) and key not in leave_out}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)


def load_module(path: str | Path, expected: type[ModuleT], weights: bool = True, **arguments: Any) -> ModuleT:
    """Rebuild the module of a checkpoint from its own hyper-parameters, in eval mode on the CPU.

    Arguments that the class, or that of one of its parts, lists in `machine_arguments` (folders to write to, files of
    weights) depend on the machine and are never taken from the checkpoint.

    Args:
        path: The checkpoint.
        expected: The class that the module must be an instance of.
        weights: Whether to load the weights; otherwise the module is as initialised (a random-init baseline).
        **arguments: Arguments of the class that replace the checkpoint's.

    Raises:
        CheckpointError: See `read_checkpoint`; also if the module is of another class, if the checkpoint names a class
            that may not be built from one, or if its hyper-parameters cannot rebuild the module.
    """
    content = read_checkpoint(path)
    hparams = {key: value for key, value in content["hyper_parameters"].items() if key != "_instantiator"}
    if "_class_path" not in hparams:
        raise CheckpointError(
            f"{path} was saved by a model built in Python, so it does not say how to rebuild it; use "
            f"{expected.__name__}.load_from_checkpoint(path, encoder=..., ...) with the objects it was built from"
        )
    cls = trusted_class(hparams.pop("_class_path"), path)
    if not issubclass(cls, expected):
        raise CheckpointError(f"{path} holds a {cls.__name__}, expected a {expected.__name__}")
    for name in getattr(cls, "machine_arguments", ()):
        hparams.pop(name, None)
    try:
        module = cls(**{**_build(hparams, path), **arguments})
        module.hparams.update({**hparams, **arguments})
        module.on_load_checkpoint(content)
        if weights:
            module.load_state_dict(content["state_dict"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        # This is whatever a foreign or outdated file makes the constructors raise.
        raise CheckpointError(
            f"{path} does not fit this version of {cls.__name__} ({type(error).__name__}: {error}); train it again, or "
            "use the version of Quintet that wrote it"
        ) from error
    return module.eval()


def weight_bytes(module: nn.Module) -> Iterator[bytes]:
    """Names and values of a module's weights and buffers, sorted by name, for a digest of them."""
    for name, value in sorted(module.state_dict().items()):
        yield name.encode()
        yield value.detach().contiguous().cpu().numpy().tobytes()


def _build(value: Any, path: str | Path) -> Any:
    """Turn plain values with `class_path` and `init_args` into objects.

    jsonargparse is not used, because wherever a class is expected it would also import what a mere string names.
    """
    if isinstance(value, list | tuple):
        return [_build(item, path) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {key: _build(item, path) for key, item in value.items()}
    cls = trusted_class(value["class_path"], path)
    arguments = _build(value.get("init_args") or {}, path)
    for name in getattr(cls, "machine_arguments", ()):
        arguments.pop(name, None)
    if issubclass(cls, Optimizer | LRScheduler):  # waits for its parameters
        return partial(cls, **arguments)
    return cls(**arguments)


def trusted_class(name: Any, path: str | Path) -> type[Any]:
    """The class of that name, if it may be built from a checkpoint's values."""
    module_name, _, class_name = str(name).rpartition(".")
    packages = (*trusted_packages(), *TORCH_PACKAGES)
    if not _is_within(module_name, packages):
        raise CheckpointError(
            f"{path} names the class {name}, which is not loaded: a checkpoint may name classes of "
            f"{', '.join(packages)}, and of other packages of Quintet once they are imported"
        )
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"{path} names the class {name}, which this version of Quintet does not have") from error
    # A trusted module also holds what it imports, so the class's own module is checked too.
    if (
        not isinstance(cls, type)
        or not _is_within(cls.__module__, packages)
        or not (issubclass(cls, TRUSTED_BASES) or _is_within(cls.__module__, ("shared.backbones",)))
    ):
        raise CheckpointError(f"{path} names {name}, which is not loaded: it is not a network, optimiser or schedule")
    return cls


def _is_within(module_name: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module_name}.".startswith(f"{package}.") for package in packages)
