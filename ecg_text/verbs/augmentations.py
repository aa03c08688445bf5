"""`python -m ecg_text augmentations`: what the augmentations do to one record."""

from pathlib import Path

import torch
from torch import nn

from ecg_text.data.module import normalize
from ecg_text.data.records import LEADS, SignalSettings, Source, load_signal, record_stem
from ecg_text.evaluation.figures import Panel, draw_augmentations
from shared.augment import (
    BaselineWander,
    ChannelMask,
    Invert,
    Jitter,
    Permute,
    Powerline,
    Scale,
    TimeCrop,
    TimeOut,
    Window,
)
from shared.runs.tracking import save_figure

SETTINGS = SignalSettings(normalize="lead")
LIMB, CHEST = list(range(6)), list(range(6, 12))
SHOWN_LEADS = ("I", "II", "V1")  # two limb leads and a chest lead
# Each with the number of seconds to draw; some are stronger than usual, so that their effect is visible.
SHOWN: tuple[tuple[nn.Module, float], ...] = (
    (TimeCrop(), 10),
    (Window(), 10),
    (TimeOut(), 10),
    (Permute(), 10),
    (Permute(groups=[LIMB, CHEST]), 10),
    (ChannelMask(p=0.5), 10),
    (Scale(sigma=0.5), 5),
    (Invert(p=1.0), 5),
    (Jitter(sigma=0.2), 2.5),
    (Powerline(amplitude=1.0, sampling_rate=SETTINGS.sampling_rate), 1),
    (BaselineWander(amplitude=1.5, duration=SETTINGS.duration), 10),
)


def augmentations(record: Path, output: Path = Path("runs/augmentations"), seed: int = 0) -> Path:
    """Draw what every augmentation does to one ECG, with the original in grey behind it.

    Args:
        record: Path of a WFDB record, without extension (`records500/00000/00001_hr`).
        output: Folder in which `figures/augmentations.png` is written.
        seed: Seed of the random draws; every augmentation starts from it.

    Returns:
        Path of the picture.

    Raises:
        DataError: The record cannot be used; see `ecg_text.data.records.load_signal`.
    """
    signal = normalize(torch.from_numpy(load_signal(Source(str(record), SETTINGS)))[None], SETTINGS.normalize)
    shown = [LEADS.index(lead) for lead in SHOWN_LEADS]
    original = signal[0, shown].numpy()
    panels = [Panel("Original", original, 10)]
    for augmentation, seconds in SHOWN:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            panels.append(Panel(str(augmentation), augmentation(signal)[0, shown].numpy(), seconds))
    synthetic = any((folder / "synthetic.json").exists() for folder in record.absolute().parents)
    kind = "SYNTHETIC record" if synthetic else "record"
    title = f"Augmentations (blue) of {kind} {record_stem(record).name} (grey)"
    figure = draw_augmentations(original, panels, SHOWN_LEADS, SETTINGS.sampling_rate, title)
    path = save_figure(figure, output, "augmentations")
    print(f"wrote {path}")
    return path
