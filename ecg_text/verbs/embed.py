"""`python -m ecg_text embed`: the embeddings of a folder of records."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ecg_text.data.module import normalize, saved_signal_settings
from ecg_text.data.records import Source, load_signal
from ecg_text.module import ETP
from shared.checkpoint import load_module
from shared.data.embeddings import write_embeddings
from shared.data.problems import DataError, OnError, Problems
from shared.methods import Pretraining
from shared.progress import progress

EMBED_BATCH = 64


def embed(
    checkpoint: Path, records: Path, output: Path = Path("runs/embeddings.parquet"), on_error: OnError = "skip"
) -> Path:
    """Write the embedding of every WFDB record under a folder as parquet: `id`, its path, and `embedding`.

    The embedding is the output of the ECG projector for ETP, and of the encoder for every other method. It is scaled to
    unit length, so that a dot product is the cosine similarity.

    Args:
        checkpoint: Checkpoint of a trained model of any method.
        records: Folder with the records; every `.hea` file below it is one.
        output: Parquet file to write. Skipped records are listed in a CSV file beside it.
        on_error: What to do with a record that cannot be used: `skip` it, or `raise` an error.

    Returns:
        Path of the parquet file.
    """
    model = load_module(checkpoint, Pretraining)  # type: ignore[type-abstract]
    embed_ecg = model.model.embed_ecg if isinstance(model, ETP) else model
    settings = saved_signal_settings(checkpoint)
    stems = sorted(header.with_suffix("") for header in records.rglob("*.hea"))
    if not stems:
        raise DataError(f"no .hea file under {records}")
    problems = Problems(on_error, noun="record")
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    for start in progress(range(0, len(stems), EMBED_BATCH), "embed", "batch"):
        signals = []
        for stem in stems[start : start + EMBED_BATCH]:
            try:
                signals.append(load_signal(Source(str(stem), settings)))
                names.append(str(stem.relative_to(records)))
            except DataError as error:
                problems.add(str(stem), str(error))
        if signals:
            with torch.no_grad():
                embedded = embed_ecg(normalize(torch.from_numpy(np.stack(signals)), settings.normalize))
            rows.append(torch.nn.functional.normalize(embedded, dim=1).numpy())
    problems.write(output.with_suffix(".skipped.csv"))
    if not rows:
        raise DataError(f"none of the {len(stems)} records under {records} could be used; {problems.summary()}")
    write_embeddings(output, names, np.concatenate(rows))
    print(f"wrote {len(names)} embeddings to {output}")
    return output
