"""`python -m commin transmit`: a person's own picture over the noisy channel."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from commin.channel import capacity_bits
from commin.data.images import to_uint8
from commin.data.pictures import load_picture
from commin.evaluation.figures import draw_pictures
from commin.evaluation.reception import read_receivers
from commin.module import CommIN
from commin.noise import image_keys
from commin.receivers import Receiver
from commin.receivers import transmit as send
from shared.checkpoint import load_module, saved_data_settings
from shared.data.files import write_whole
from shared.data.image_folders import SUFFIXES, images_of
from shared.data.images import ImageSettings, ImageSource, read_picture
from shared.data.problems import DataError
from shared.metrics.image_quality import Lpips, gradient_ssim, psnr
from shared.progress import progress

SAMPLES = 4  # whose spread shows what is invented
BRIGHTER = 4  # a spread is small against the range of an image
Metrics = dict[str, Callable[[Tensor, Tensor], Tensor]]
SPREAD = f"spread of {SAMPLES} samples, times {BRIGHTER}"


def transmit(
    checkpoint: Path,
    image: Path,
    snr: list[float] | None = None,
    output: Path = Path("runs/transmit"),
    receiver: str = "commin",
    tile: bool = False,
    lpips: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Send a picture, or every picture of a folder, and reconstruct it by DeepJSCC and by CommIN.

    It writes `<output>/<picture>.png` (sent, DeepJSCC, CommIN, and where four samples of CommIN differ, which is where
    details are invented) and `<output>/transmitted.csv`.

    Args:
        checkpoint: A checkpoint of CommIN.
        image: A picture, or a folder of them. It is cut to a centred square and brought to the model's size.
        snr: SNRs of the channel in dB; -5, -1 and 5 by default.
        output: Folder to write to.
        receiver: A receiver of configs/receivers.yaml.
        tile: Whether to send the picture at its own size, in tiles of the model's, rather than one small image.
        lpips: File of LPIPS's weights, for a further number.
        seed: Of the channel's noise and the samples.

    Returns:
        One row for each picture, SNR and method.

    Raises:
        DataError: There is no picture, one cannot be read, or an SNR is not finite.
        CheckpointError: It is not a checkpoint of CommIN.
    """
    model = load_module(checkpoint, CommIN).requires_grad_(False)
    saved = saved_data_settings(checkpoint, ("image_px", "fit"))
    size, snrs = int(saved["image_px"]), snr or [-5.0, -1.0, 5.0]
    files = images_of(image)[0] if image.is_dir() else [image]
    if not files:
        raise DataError(f"no picture in {image}: give a file or a folder of {', '.join(SUFFIXES)}")
    symbols = model.jscc.symbols
    (chosen,) = read_receivers([receiver]).values()
    metrics: Metrics = {"psnr": psnr, "gradient_ssim": gradient_ssim}
    if lpips:
        metrics["lpips"] = Lpips(lpips)
    rows = []
    for path in progress(files, "transmit", "picture"):
        if tile:
            sent, across = _tiles(path, size)
        else:
            sent = torch.from_numpy(load_picture(ImageSource(str(path), ImageSettings(size, 3, saved["fit"]))))[None]
            across = 1
        rows += _send(model, path, sent, across, snrs, chosen, output, metrics, seed)
        _say(model, path, sent, size, symbols, snrs)
    table = pd.DataFrame(rows)
    write_whole(output / "transmitted.csv", table.to_csv(index=False))
    print(table.round(3).to_string(index=False))
    print(f"wrote {output}/<picture>.png and {output / 'transmitted.csv'}")
    return table


def _send(
    model: CommIN,
    path: Path,
    sent: Tensor,
    across: int,
    snrs: list[float],
    chosen: Receiver,
    output: Path,
    metrics: Metrics,
    seed: int,
) -> list[dict[str, object]]:
    """Send one picture of one or several tiles at every SNR, draw it, and measure it."""
    keys = image_keys([f"{path.name}/{number}" for number in range(len(sent))])
    columns: dict[str, list[Tensor]] = {name: [] for name in ("sent", "DeepJSCC", chosen.title, SPREAD)}
    rows: list[dict[str, object]] = []
    for snr in snrs:
        received = send(model.jscc, sent, keys, torch.full((len(sent),), snr), seed)
        samples = torch.stack(
            [chosen.reconstruct(model, received, seed + 1 + number).image for number in range(SAMPLES)]
        )
        made = {"DeepJSCC": to_uint8(received.y), chosen.title: to_uint8(samples[0])}
        spread = samples.std(0).mean(1, keepdim=True).expand_as(sent)
        columns["sent"].append(_joined(sent, across))
        columns[SPREAD].append(_joined((spread * BRIGHTER * 127.5).clamp(0, 255).byte(), across))
        for name, picture in made.items():
            columns[name].append(_joined(picture, across))
            values = {
                key: float(metric(columns[name][-1][None] / 255, columns["sent"][-1][None] / 255)[0])
                for key, metric in metrics.items()
            }
            rows.append({"picture": path.name, "snr_db": snr, "method": name, **values})
    pictures = {name: torch.stack(images) for name, images in columns.items()}
    labels = [f"{snr:g} dB" for snr in snrs]
    figure = draw_pictures(pictures, f"{path.name} at {', '.join(labels)} (from above)", "", labels)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / f"{path.stem}.png", dpi=150)
    return rows


def _tiles(path: Path, size: int) -> tuple[Tensor, int]:
    """A picture as tiles `(n, 3, size, size)`, row by row, and how many there are in a row; its edges are repeated."""
    picture = np.array(read_picture(path, 3))
    padding = [(0, -extent % size) for extent in picture.shape[:2]]
    whole = torch.from_numpy(np.pad(picture, [*padding, (0, 0)], mode="edge")).permute(2, 0, 1)
    tiles = whole.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4)
    return tiles.reshape(-1, 3, size, size).contiguous(), tiles.shape[1]


def _joined(tiles: Tensor, across: int) -> Tensor:
    """Tiles as one picture `(3, H, W)`."""
    rows = [torch.cat(list(row), dim=2) for row in tiles.split(across)]
    return torch.cat(rows, dim=1)


def _say(model: CommIN, path: Path, sent: Tensor, size: int, symbols: int, snrs: list[float]) -> None:
    """What was sent, and whether the picture is like those of the training."""
    bits = ", ".join(f"{capacity_bits(symbols, snr):.0f} bits at {snr:g} dB" for snr in snrs)
    tiles = f"{len(sent)} tiles of " if len(sent) > 1 else ""
    print(
        f"{path.name}: {tiles}{size} x {size} pixels in {symbols} complex symbols each, rho "
        f"{symbols / (3 * size**2):.4f}; they can carry {bits}"
    )
    if model.familiarity is not None:
        distance = float(model.familiarity.distance(sent).mean())
        if distance > 1:
            print(
                f"{path.name} is unlike the training images (its coarse part lies {distance:.1f} times as far from "
                "them as most validation images do): what CommIN adds is then invented from them"
            )
