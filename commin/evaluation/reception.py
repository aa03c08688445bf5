"""Test images, sent at every SNR and reconstructed by every receiver; what is done is kept, so a killed call goes on.

Shapes: N images, S SNRs; R = N S rows, those of an image together.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from commin.data.images import to_uint8
from commin.model import DeepJSCC
from commin.receivers import Received, Receiver, Reconstruction, transmit
from commin.sampling import Sampling, sample_in_batches
from shared.data.problems import DataError
from shared.runs.settings import read_yaml

Reconstruct = Callable[[Received, Callable[[], object]], Reconstruction]
RECEIVERS = Path(__file__).parents[1] / "configs" / "receivers.yaml"


class Reconstructed(NamedTuple):
    """What a receiver made of all transmissions.

    Attributes:
        image: `(R, 3, H, W)` uint8: values outside the range are clipped, as in a file.
        spread: `(R, H, W)` float32, see `commin.receivers.Reconstruction`.
        seconds: Of computation, for each row.
    """

    image: Tensor
    spread: Tensor
    seconds: float


def read_receivers(names: list[str], path: Path = RECEIVERS) -> dict[str, Receiver]:
    """Receivers by name.

    Raises:
        DataError: There is no such receiver, or the file does not describe receivers.
    """
    content = read_yaml(path)
    if unknown := [name for name in names if name not in content]:
        raise DataError(f"no receiver {', '.join(unknown)} in {path}; there are: {', '.join(content)}")
    try:
        return {
            name: Receiver(**{**content[name], "sampling": Sampling(**content[name].get("sampling", {}))})
            for name in names
        }
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} does not describe receivers ({error})") from error


def send_all(jscc: DeepJSCC, image: Tensor, keys: Tensor, snrs: list[float], seed: int, batch: int) -> Received:
    """Send every image at every SNR.

    Args:
        jscc: Encoder and decoder.
        image: `(N, 3, H, W)` uint8.
        keys: `(N,)`.
        snrs: S SNRs in dB.
        seed: Of the channel's noise.
        batch: Rows at a time.

    Returns:
        R rows.
    """
    count = len(snrs)
    rows = torch.arange(len(image) * count)
    snr_db = torch.tensor(snrs).repeat(len(image))
    parts = [
        transmit(jscc, image[part // count], keys[part // count], snr_db[part], seed) for part in rows.split(batch)
    ]
    return Received(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def reconstruct_all(
    reconstruct: Reconstruct, steps: int, received: Received, batch: int, folder: Path, about: Any
) -> Reconstructed:
    """Reconstruct every row with one receiver, in batches that are kept in files.

    Args:
        reconstruct: Of transmissions and a function to call after each step, their reconstruction.
        steps: Of a row, for the progress bar.
        received: R transmissions.
        batch: Rows at a time; fewer where the GPU's memory does not suffice.
        folder: Folder of the files.
        about: What the result depends on: receiver, checkpoint and seeds. Files of another text are not used.
    """
    digest = hashlib.sha256(repr((received.snr_db.tolist(), about)).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    spread: list[Tensor] = []
    seconds = 0.0

    def draw(rows: Tensor, on_step: Callable[[], object]) -> Tensor:
        nonlocal seconds
        path = folder / f"{digest}_{int(rows[0])}_{len(rows)}.npz"
        found = _read(path)
        if found is None:
            begun = time.perf_counter()
            part = Received(*(field[rows] for field in received))
            made = reconstruct(part, on_step)
            arrays = {"image": to_uint8(made.image).numpy(), "spread": made.spread.numpy()}
            found = {**arrays, "seconds": np.array(time.perf_counter() - begun)}
            with (partial := path.with_suffix(".part")).open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **found)
            partial.rename(path)
        seconds += float(found["seconds"])
        spread.append(torch.from_numpy(found["spread"]))
        return torch.from_numpy(found["image"])

    image = sample_in_batches(draw, len(received.keys), batch, steps)
    return Reconstructed(image, torch.cat(spread), seconds / len(image))


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    """What was kept of a batch; None where there is nothing."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as content:
        return dict(content)
