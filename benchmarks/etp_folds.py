"""Zero-shot AUC of every class under every prompt set, each fold of a PTB-XL folder in turn as the test set.

One fold of a small set has twenty records of a rare class, which can hide that its prompts do not work; ten folds
together have all of them. Beside the ECG, the record's own report is scored against the prompts: where that fails too,
it is the language model that does not connect the prompts with the class.

`python -m benchmarks.etp_folds <root>` trains a model for each fold and normalisation.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli

from ecg_text.cli import main as ecg_text
from ecg_text.data.module import ECGDataModule
from ecg_text.evaluation.models import over_classes, zero_shot
from ecg_text.evaluation.tables import CONFIGS
from ecg_text.model import zero_shot_scores
from ecg_text.module import ETP
from ecg_text.prompts import load_prompts
from shared.checkpoint import load_module
from shared.metrics import PseudoValues, auroc_values, interval
from shared.probe import encode
from shared.runs.configs import as_flags
from shared.runs.results import append_results
from shared.runs.variant import Variant, load_data

FOLDS = 10
PROMPTS = ("ensemble", "paper", "clinical", "german")


def train(root: str, runs: Path, fold: int, normalize: str) -> Variant:
    """Train on all folds but the test fold and the next, which the epoch is chosen on."""
    val = fold % FOLDS + 1
    settings = {
        "data.init_args.root": root,
        "data.init_args.test_folds": [fold],
        "data.init_args.val_folds": [val],
        "data.init_args.train_folds": [other for other in range(1, FOLDS + 1) if other not in (fold, val)],
        "data.init_args.normalize": normalize,
        "run.root": str(runs),
        "run.variant": f"{normalize}_fold_{fold}",
        "run.wandb": "disabled",
        "trainer.enable_progress_bar": False,
    }
    files = CONFIGS.stack("etp_minilm", "ptbxl", "demo")
    run = ecg_text(["fit", *(word for file in files for word in ("--config", str(file))), *as_flags(settings)]).run_dir
    return Variant(run.parent)


@torch.no_grad()
def of_fold(variant: Variant) -> dict[tuple[str, str, str], PseudoValues]:
    """Pseudo-values of one model on its test fold, by prompt set, what is scored, and class."""
    data = load_data(ECGDataModule, variant.config["data"], {})  # type: ignore[type-abstract]
    rows, names = data.rows("test", "evaluate"), data.class_names
    rows = rows[data.report[rows] >= 0]
    model = load_module(variant.checkpoint(0), ETP)
    features = encode(model.encoder, ((batch.signal, batch.target) for batch in data.batches(rows)))
    of_reports = model.encode_text(data.reports)[data.report[rows]]
    found = {}
    for prompts in PROMPTS:
        model.set_classes(names, load_prompts(prompts).sentences(names))
        cosines = zero_shot(model, features.x)
        reports = zero_shot_scores(model.model.embed_text(of_reports), model.class_embedding()).double().numpy()
        scored = {"ecg": cosines, "ecg, probability": over_classes(model, cosines), "report": reports}
        for (name, scores), (c, code) in product(scored.items(), enumerate(data.classes)):
            found[prompts, name, code] = auroc_values(scores[:, [c]], data.target[rows][:, [c]], data.groups[rows])
    return found


def joined(folds: Sequence[PseudoValues]) -> PseudoValues:
    """One value from folds with other patients each: the mean over the folds, each patient's part as in its own."""
    groups = sum(fold.values.shape[1] for fold in folds)
    mean = float(np.mean([fold.point[0] for fold in folds]))
    parts = [(fold.values[0] - fold.point[0]) / fold.values.shape[1] / len(folds) for fold in folds]
    freedom, count = sum(fold.freedom for fold in folds), sum(fold.count for fold in folds)
    return PseudoValues(mean + groups * np.concatenate(parts)[None], freedom=freedom, count=count)


def main(
    root: str,
    normalize: list[str] = ["lead", "record"],  # noqa: B006
    runs: Path = Path("runs/folds"),
    results: Path = Path("results/etp_folds.csv"),
) -> pd.DataFrame:
    """Train and evaluate every fold, print the AUC of every class, and append the rows to a CSV.

    Args:
        root: Root of PTB-XL, or of a part of it.
        normalize: Normalisations of the signals to try.
        runs: Folder of the runs; a finished one is not trained again.
        results: The CSV.
    """
    rows = []
    for mode in normalize:
        folds = [of_fold(train(root, runs, fold, mode)) for fold in range(1, FOLDS + 1)]
        for prompts, scored, code in folds[0]:
            values = joined([fold[prompts, scored, code] for fold in folds])
            value, low, high, _ = interval(values)
            rows.append({"normalize": mode, "prompts": prompts, "scored": scored, "class": code, "folds": FOLDS})
            rows[-1] |= {"auroc": value, "auroc_low": low, "auroc_high": high, "patients": values.values.shape[1]}
            print(
                f"{mode:<7} {prompts:<9} {scored:<16} {code:<5} {100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                flush=True,
            )
    table = pd.DataFrame(rows).round(4)
    append_results(table, results)
    return table


if __name__ == "__main__":
    auto_cli(main)
