"""`train` and `reproduce`: from images to the paper's figures, in one command each."""

import dataclasses
from collections.abc import Sequence

from commin.data.synthetic import write_synthetic
from commin.evaluation.tables import CONFIGS
from commin.verbs.evaluate import evaluate
from commin.verbs.table import print_table
from shared.cli import compose
from shared.runs.pipeline import Options, Plan, Wanted

PARTS = {"jscc": "jscc", "diffusion": "prior"}  # the runs that CommIN starts from, and what it calls their networks
IN_ITS_PLACE = ("commin_cnn", "commin_augmented")  # what else may mimic the chain, trained alike
FOLDS = 5
ABLATION = (
    *("commin", "blur", "untrained", "unguided", "chain", "symbols", "average", "blend"),
    *("full", "steps_50", "steps_100", "start_250", "start_750", "from_noise", "ddim", "zeta_0.1", "zeta_1"),
)


def train(options: Options) -> None:
    """Train DeepJSCC, a prior, and CommIN's INN on both; send test images at every SNR, and compare what is received.

    `--methods` and `--variants` train others beside these.
    """
    plan = Plan("commin", CONFIGS, options, write_synthetic)
    folders = train_all(plan, ["commin", *options.methods, *options.variants])
    _evaluate(plan, folders)
    plan.compare()


def reproduce(options: Options) -> None:
    """The paper's Fig. 4 and the ablation, over folds of the persons where the set has persons.

    Every receiver of the ablation is evaluated on one encoder and decoder; further networks in the INN's place are
    trained alike.
    """
    block = CONFIGS.data_block(options.dataset, options.resolved_profile).block["init_args"]
    folds: Sequence[int | None] = range(FOLDS) if block["fold"] is not None else [None]
    evaluated: list[str] = []
    for fold in folds:
        named = options if fold is None else _with_fold(options, fold)
        plan = Plan("commin", CONFIGS, named, write_synthetic, "methods")
        folders = train_all(plan, ["commin", *(options.variants or IN_ITS_PLACE)])
        _evaluate(plan, folders, "--settings.receivers", f"[{', '.join(ABLATION)}]")
        evaluated += folders
    plan.table(print_table, "figure4", evaluated)
    plan.compare()


def _with_fold(options: Options, fold: int) -> Options:
    return dataclasses.replace(
        options,
        suffix=f"{options.suffix}_fold{fold}",
        fit_args=[*options.fit_args, "--data.init_args.fold", str(fold)],
    )


def train_all(plan: Plan, names: Sequence[str]) -> list[str]:
    """Train variants of CommIN, first what they start from.

    Returns:
        The variants' folders, in order, without those of the parts.
    """
    parts = plan.variants(list(PARTS))
    weights = {}
    for part in parts:
        folder = compose("commin", plan.words(part)).folder
        place = f"model.init_args.{PARTS[part.name]}.init_args.weights"
        weights[place] = str(folder / "seed_{seed}" / "checkpoints" / "best.ckpt")
    wanted = [
        Wanted(each.name, dataclasses.replace(each.change, settings=weights | each.change.settings), tuple(PARTS))
        if each.change.method == "commin"
        else each
        for each in plan.variants([name for name in dict.fromkeys(names) if name not in PARTS])
    ]
    return plan.train([*parts, *wanted])[len(parts) :]


def _evaluate(plan: Plan, folders: Sequence[str], *receivers: str) -> None:
    """Evaluate CommIN, the first of the folders, by every receiver beside the controls; the others by their own."""
    file = CONFIGS.evaluation(plan.options.dataset)
    asked = ["--missing_only", "true", *(["--settings", str(file)] if file else [])]
    plan.evaluate(evaluate, folders[:1], *asked, *receivers)
    plan.evaluate(evaluate, folders[1:], *asked, "--settings.receivers", "[commin]", "--settings.controls", "false")
