"""Checkpoints that rebuild their model alone, and are treated as untrusted input."""

import warnings
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import instantiate_module

# Names in a checkpoint's hyper-parameters are imported and called, so only these packages may be named there.
TRUSTED_PREFIXES = (
    "shared.",
    "ecg_text.",
    "meta_robust.",
    "galaxy_clusters.",
    "tabular_imaging.",
    "commin.",
    "torch.nn.",
    "torch.optim.",
)

ModuleT = TypeVar("ModuleT", bound=pl.LightningModule)


class CheckpointError(ValueError):
    """A file is not a checkpoint that this package can use."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint's content on the CPU with `weights_only=True`, and check that it is one of ours.

    Raises:
        CheckpointError: The file is missing, no checkpoint, unsafe, or was not written by Quintet.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}; a run keeps its own in <run>/checkpoints/")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for files that are no checkpoint, or hold more than weights
        raise CheckpointError(
            f"{path} cannot be loaded as weights and plain values only ({type(error).__name__}); it is damaged, or "
            "not written by Quintet"
        ) from error
    keys = ("state_dict", "hyper_parameters")
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise CheckpointError(f"{path} is not a Quintet checkpoint: it lacks {' and '.join(keys)}")
    return content


def load_module(path: str | Path, expected: type[ModuleT], weights: bool = True) -> ModuleT:
    """Rebuild the module of a checkpoint from its own hyper-parameters, in eval mode on the CPU.

    Args:
        path: The checkpoint.
        expected: The class it must be (or derive from).
        weights: Load the weights; False leaves the module as initialised (a random-init baseline).

    Raises:
        CheckpointError: See `read_checkpoint`; also for another class, or hyper-parameters that cannot rebuild it.
    """
    content = read_checkpoint(path)
    hparams = {key: value for key, value in content["hyper_parameters"].items() if key != "_instantiator"}
    if "_class_path" not in hparams:
        raise CheckpointError(
            f"{path} was saved by a model built in Python, so it does not say how to rebuild it; use "
            f"{expected.__name__}.load_from_checkpoint(path, encoder=..., text_encoder=...)"
        )
    for name in _class_paths(hparams):
        if not name.startswith(TRUSTED_PREFIXES):
            raise CheckpointError(f"{path} names the class {name}, which is not part of Quintet; it is not loaded")
    with warnings.catch_warnings():
        # Lightning warns about modules among the arguments; the plain values below replace them.
        warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
        module = instantiate_module(pl.LightningModule, hparams)
    if not isinstance(module, expected):
        raise CheckpointError(f"{path} holds a {type(module).__name__}, expected a {expected.__name__}")
    module.hparams.clear()
    module.hparams.update(content["hyper_parameters"])
    module.on_load_checkpoint(content)
    if weights:
        module.load_state_dict(content["state_dict"])
    return module.eval()


def _class_paths(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [str(value[key]) for key in ("class_path", "_class_path") if key in value]
        return own + [name for item in value.values() for name in _class_paths(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in _class_paths(item)]
    return []
