"""Pre-trained weights from a local file or folder, or from a hub where that is asked for by its name."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

HUB = "hf_hub:"  # as timm writes it
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # what timm calls the file in a folder that it has saved


def read_weights(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """A state dict from a file of safetensors, of NumPy (`.npz`), or of torch, which is read as plain weights only.

    Args:
        path: The file; a checkpoint of Lightning; a folder that timm has saved (its `local-dir:` layout); or
            `hf_hub:<owner>/<model>`, which is downloaded, as the log says, unless it is in the hub's cache.
        prefix: What the network's names start with in a checkpoint, where it is one part of what was trained: `net.`.
            It is taken off; other files hold the network alone.

    Raises:
        ValueError: There is no such file, or it holds something else; or the hub cannot be reached.
    """
    if str(path).startswith(HUB):
        return _from_hub(str(path))
    path = Path(path)
    if path.is_dir():
        found_in = [path / name for name in IN_FOLDER if (path / name).is_file()]
        if not found_in:
            raise ValueError(f"the folder {path} holds neither {' nor '.join(IN_FOLDER)}: name the file of weights")
        path = found_in[0]
    if not path.is_file():
        raise ValueError(f"no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # only needed here

            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as content:
                return {name: torch.from_numpy(content[name]) for name in content.files}
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # many types, if it is not such a file or holds more than weights
        raise ValueError(f"{path} cannot be loaded as weights only ({type(error).__name__}: {error})") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        return _part_of_checkpoint(found["state_dict"], prefix, path)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: expected tensors by their names")
    return found


def _part_of_checkpoint(state: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not part:
        raise ValueError(
            f"{path} is a checkpoint without weights under {prefix}: it has "
            f"{', '.join(sorted({name.split('.')[0] for name in state}))}"
        )
    return part


def _from_hub(name: str) -> dict[str, Tensor]:
    from timm.models import load_state_dict_from_hf  # takes seconds

    log.warning("the weights %s come from the Hugging Face hub: they are downloaded if they are not in its cache", name)
    try:
        found: dict[str, Tensor] = load_state_dict_from_hf(name.removeprefix(HUB), weights_only=True)
    except Exception as error:  # the hub's many types
        raise ValueError(
            f"{name} cannot be had from the hub ({type(error).__name__}: {error}): on a machine with a network save "
            "the folder, and give its path instead"
        ) from error
    return found


def load_weights(net: nn.Module, path: str | Path, prefix: str = "") -> None:
    """Give a network the weights of a file; those that it has no place for, as of a classifier, are logged.

    Args:
        net: The network.
        path: See `read_weights`.
        prefix: What its names start with in a checkpoint.

    Raises:
        ValueError: See `read_weights`; or the file lacks some of the network's, or has them in another shape.
    """
    found, wanted = read_weights(path, prefix), net.state_dict()
    other = [
        f"{name} {tuple(value.shape)}" + (f", there {tuple(found[name].shape)}" if name in found else "")
        for name, value in wanted.items()
        if name not in found or found[name].shape != value.shape
    ]
    if other:
        raise ValueError(
            f"{path} does not fit {type(net).__name__}: {len(other)} of its {len(wanted)} weights are missing or of "
            f"another shape, the first is {other[0]}; the file has {', '.join(list(found)[:3])}, ..."
        )
    if unused := [name for name in found if name not in wanted]:
        log.info("%s: %d weights are not used: %s", path, len(unused), ", ".join(unused))
    net.load_state_dict({name: found[name] for name in wanted})
