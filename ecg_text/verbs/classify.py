"""For a person with an ECG: rank prompts for one record, or embed a folder of records."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ecg_text.data.module import normalize, saved_signal_settings
from ecg_text.data.records import SignalSettings, Source, load_signal
from ecg_text.evaluation.figures import draw_ecg
from ecg_text.module import ETP
from ecg_text.prompts import load_prompts
from shared.checkpoint import load_module
from shared.data.problems import DataError, OnError, Problems
from shared.runs.tracking import save_figure

EMBED_BATCH = 64


def classify(
    checkpoint: Path,
    record: Path,
    prompts: list[str] | None = None,
    output: Path = Path("runs/classify"),
    text_cache_dir: Path = Path("data/cache/text"),
) -> dict[str, float]:
    """Rank classes for one ECG, print them, and draw the 12 leads with them.

    The scores are cosine similarities of the ECG and a sentence about each class: they rank, they are no probabilities.
    Not a medical device.

    Args:
        checkpoint: A trained ETP model (`<run>/checkpoints/best.ckpt`).
        record: A WFDB record, without extension (`records500/00000/00001_hr`).
        prompts: What to tell apart, in your own words; needs the language model. By default the classes that the model
            was trained with, whose features the checkpoint holds.
        output: Folder for `figures/<record>.png`.
        text_cache_dir: Where the language model's features are kept.

    Returns:
        Score by prompt, the highest first.
    """
    model = load_module(checkpoint, ETP, text_cache_dir=text_cache_dir)
    settings = saved_signal_settings(checkpoint)
    signal = load_signal(Source(str(record), settings))
    if prompts:
        prompts = list(dict.fromkeys(prompts))
        templates = load_prompts(model.hparams["prompts"]).templates
        model.set_classes(
            {prompt: prompt for prompt in prompts},
            [[template.format(prompt) for template in templates] for prompt in prompts],
        )
    with torch.no_grad():
        values = model(_prepare(signal[None], settings))[0].tolist()
    names = [f"{code}: {name}" if code != name else name for code, name in model.class_names.items()]
    scores = dict(sorted(zip(names, values, strict=True), key=lambda item: -item[1]))
    width = max(len(name) for name in scores)
    for name, value in scores.items():
        print(f"{name:<{width}}  {value:+.3f}")
    figure = draw_ecg(signal / 1000, settings.leads, settings.sampling_rate, title=str(record), scores=scores)
    print(f"wrote {save_figure(figure, output, Path(record).name)}")
    return scores


def embed(
    checkpoint: Path, records: Path, output: Path = Path("runs/embeddings.parquet"), on_error: OnError = "skip"
) -> Path:
    """Write the embedding of every WFDB record under a folder as parquet (`record`, `embedding`).

    The embedding is ETP's ECG projector's output, and the encoder's output of every other method; scaled to unit
    length, so that a dot product is the cosine similarity.

    Args:
        checkpoint: A trained model of any method.
        records: Folder; every `.hea` below it is a record.
        output: The parquet file. Skipped records are listed in a CSV beside it.
        on_error: What happens to a record that cannot be used.

    Returns:
        The file written.
    """
    model = load_module(checkpoint, pl.LightningModule)
    embed_ecg = model.model.embed_ecg if isinstance(model, ETP) else model
    settings = saved_signal_settings(checkpoint)
    stems = sorted(header.with_suffix("") for header in records.rglob("*.hea"))
    if not stems:
        raise DataError(f"no .hea file under {records}")
    report = Problems(on_error, noun="record")
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    for start in tqdm(range(0, len(stems), EMBED_BATCH), desc="embed", unit="batch"):
        signals = []
        for stem in stems[start : start + EMBED_BATCH]:
            try:
                signals.append(load_signal(Source(str(stem), settings)))
                names.append(str(stem.relative_to(records)))
            except DataError as error:
                report.problem(str(stem), str(error))
        if signals:
            with torch.no_grad():
                embedded = embed_ecg(_prepare(np.stack(signals), settings))
            rows.append(torch.nn.functional.normalize(embedded, dim=1).numpy())
    report.write(output.with_suffix(".skipped.csv"))
    if not rows:
        raise DataError(f"none of the {len(stems)} records under {records} could be used; {report.summary()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"record": names, "embedding": list(np.concatenate(rows))}).to_parquet(output)
    print(f"wrote {len(names)} embeddings to {output}")
    return output


def _prepare(signal: NDArray[np.int16], settings: SignalSettings) -> torch.Tensor:
    return normalize(torch.from_numpy(signal), settings.normalize)
