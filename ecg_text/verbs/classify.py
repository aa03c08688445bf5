"""`python -m ecg_text classify`: rank classes or prompts of your own for one ECG."""

from pathlib import Path

import torch

from ecg_text.data.module import normalize, saved_signal_settings
from ecg_text.data.records import Source, load_signal
from ecg_text.evaluation.figures import draw_ecg
from ecg_text.module import ETP
from ecg_text.prompts import load_prompts
from shared.checkpoint import load_module
from shared.runs.tracking import save_figure


def classify(
    checkpoint: Path,
    record: Path,
    prompts: list[str] | None = None,
    output: Path = Path("runs/classify"),
    text_cache_dir: Path = Path("data/cache/text"),
) -> dict[str, float]:
    """Rank classes for one ECG, print them, and draw the 12 leads with them.

    The scores are cosine similarities of the ECG and a sentence about each class. They rank the classes, but they are
    not probabilities. This is not a medical device.

    Args:
        checkpoint: Checkpoint of a trained ETP model (`<run>/checkpoints/best.ckpt`).
        record: Path of a WFDB record, without extension (`records500/00000/00001_hr`).
        prompts: Findings to distinguish, in your own words; they need the language model. By default the classes that
            the model was trained with; the checkpoint holds their features.
        output: Folder in which `figures/<record>.png` is written.
        text_cache_dir: Folder in which the language model's features are kept.

    Returns:
        Scores by prompt, the highest first.
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
        values = model(normalize(torch.from_numpy(signal[None]), settings.normalize))[0].tolist()
    names = [f"{code}: {name}" if code != name else name for code, name in model.class_names.items()]
    scores = dict(sorted(zip(names, values, strict=True), key=lambda item: -item[1]))
    width = max(len(name) for name in scores)
    for name, value in scores.items():
        print(f"{name:<{width}}  {value:+.3f}")
    figure = draw_ecg(signal / 1000, settings.leads, settings.sampling_rate, title=str(record), scores=scores)
    print(f"wrote {save_figure(figure, output, Path(record).name)}")
    return scores
