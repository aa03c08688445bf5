"""`train` and `reproduce`: from a data set to the paper's tables, in one command each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from meta_robust.data.synthetic import write_synthetic
from meta_robust.evaluation.tables import CONFIGS
from meta_robust.verbs.evaluate import evaluate
from meta_robust.verbs.table import print_table
from shared.runs.pipeline import Options, Plan

TRAINED = ("maml", "rml_printed", "rml")  # what `train` trains by default
METHODS = ("meta_lstm", "maml", "reptile", "matching", "prototypical", "relation", "baseline", "baseline_pp", "rml")
SHIFTED = "synthetic_shifted"


def _with_shift(options: Options) -> Options:
    """The options; a SYNTHETIC set is also evaluated on its shifted part."""
    if options.dataset != "synthetic" or options.target:
        return options
    root = str(Path(options.root) / "shifted") if options.root else None
    return dataclasses.replace(options, target=SHIFTED, target_root=root)


def _evaluate(plan: Plan, folders: Sequence[str]) -> None:
    file = CONFIGS.evaluation(plan.options.dataset)
    plan.evaluate(evaluate, folders, "--missing_only", "true", *(["--settings", str(file)] if file else []))


def train(options: Options) -> None:
    """Train MAML and RML alike, and evaluate both on the same tasks in the conventional and the shifted setting.

    `--methods` chooses other methods, `--variants` other readings of the paper.
    """
    plan = Plan("meta_robust", CONFIGS, _with_shift(options), write_synthetic)
    folders = plan.train(plan.variants([*options.methods, *options.variants] or list(TRAINED)))
    _evaluate(plan, folders)
    plan.table(print_table, "table1", folders)
    if plan.options.target:
        plan.table(print_table, "table2", folders)
    plan.compare()


def reproduce(options: Options) -> None:
    """Print the paper's Tables I and, with a target, II beside ours; first train and evaluate what is missing.

    `--methods` chooses among the methods. Those that are trained on tasks are trained for one and for five shots.
    """
    plan = Plan("meta_robust", CONFIGS, _with_shift(options), write_synthetic)
    known = CONFIGS.variants(options.dataset)
    names = [*(options.methods or METHODS), *options.variants]
    both = [each for name in names for each in (name, f"{name}_5shot") if each in known]
    folders = plan.train(plan.variants(both))
    _evaluate(plan, folders)
    plan.table(print_table, "table1", folders)
    if plan.options.target:
        plan.table(print_table, "table2", folders)
    plan.compare()
