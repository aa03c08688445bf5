"""`train`, `reproduce` and `study`: from a data set to the paper's tables, in one command each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from meta_robust.data.synthetic import write_synthetic
from meta_robust.evaluation.tables import CONFIGS
from meta_robust.verbs.contrasts import contrasts
from meta_robust.verbs.environments import environments
from meta_robust.verbs.evaluate import evaluate
from meta_robust.verbs.table import print_table
from shared.main import call
from shared.runs.pipeline import Options, Plan, Wanted

TRAINED = ("maml", "rml_printed", "rml")  # what `train` trains by default
METHODS = ("meta_lstm", "maml", "reptile", "matching", "prototypical", "relation", "baseline", "baseline_pp", "rml")
READINGS = ("maml", "maml_equal_compute", "rml_printed", "rml_pairing", "rml_penalty", "rml", "rml_tasks")
SCARCE = ("maml", "rml_printed", "rml")  # also trained on few images of each class
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
    for folder in folders:
        if Path(folder).name == f"rml{options.suffix}":
            call(environments, ["--run", folder, *plan.root])
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


def study(options: Options) -> None:
    """Train the readings of the paper and their controls, and print what each part gives (configs/contrasts.yaml).

    With one seed, MAML, RML as printed and RML are also trained on few images of each class, and RML with more
    environments (configs/study.yaml); `--variants` trains just these variants instead.
    """
    plan = Plan("meta_robust", CONFIGS, _with_shift(options), write_synthetic, "methods")
    folders = plan.train(plan.variants(options.variants or READINGS))
    if not options.variants:
        one_seed = dataclasses.replace(plan.options, seeds=options.seeds[:1])
        once = Plan("meta_robust", CONFIGS, one_seed, write_synthetic)
        folders += once.train([*_changed(plan, SCARCE, "scarcity"), *_changed(plan, ["rml"], "environments")])
    _evaluate(plan, folders)
    call(contrasts, ["--run", *folders, *plan.results])
    plan.compare()


def _changed(plan: Plan, names: Sequence[str], grid: str) -> list[Wanted]:
    """Variants with every setting of a grid of configs/study.yaml."""
    found = []
    for setting, settings in CONFIGS.study(grid).items():
        for wanted in plan.variants(names):
            change = dataclasses.replace(wanted.change, settings=wanted.change.settings | settings)
            found.append(Wanted(f"{wanted.name}+{setting}", change))
    return found
