"""`train`, `reproduce`, `tune` and `study`: from a data set to the paper's tables, in one command each."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.main import call
from shared.runs.configs import Change
from shared.runs.pipeline import Options, Plan, Wanted
from tabular_imaging.data.synthetic.adverts import write_synthetic
from tabular_imaging.evaluation.tables import CONFIGS
from tabular_imaging.verbs.evaluate import evaluate
from tabular_imaging.verbs.explain import explain
from tabular_imaging.verbs.rank import rank
from tabular_imaging.verbs.table import print_table

TRAINED = ("supervised", "simclr", "mmcl")  # what `train` trains by default
IMAGE_METHODS = ("supervised", "simclr", "byol", "simsiam", "barlow_twins")  # rows of Table 1 beside MMCL
# Variants of MMCL in Tables 3 and 2.
LABEL_VARIANTS = ("mmcl_laaf", "mmcl_fn_elimination", "mmcl_fn_elimination_laaf", "mmcl_supcon", "mmcl_supcon_laaf")
FIELD_VARIANTS = ("mmcl_morphometric", "mmcl_non_morphometric")
# MMCL sees one view of an image per step, the image methods see two: at twice the steps it sees as many. SimCLR at
# twice the steps tells whether that is the views or the steps.
EQUAL_VIEWS, EQUAL_STEPS = "mmcl_equal_views", "simclr_equal_steps"
STUDIES = ("batch", "epochs", "temperature", "corruption")
FROZEN = ("--settings.trainable_epochs", "0")


def _evaluation(dataset: str) -> list[str]:
    file = CONFIGS.evaluation(dataset)
    return ["--missing_only", "true", *(["--settings", str(file)] if file else [])]


def _evaluate(plan: Plan, folders: Sequence[str], *more: str) -> None:
    """Evaluate variants, on each data set by that one's own settings."""
    on_target = [*_evaluation(plan.options.target), *more] if plan.options.target else None
    plan.evaluate(evaluate, folders, *_evaluation(plan.options.dataset), *more, on_target=on_target)


def _is_mmcl(name: str, plan: Plan) -> bool:
    return CONFIGS.variant(name, plan.options.dataset).method == "mmcl"


def _has_image_encoder(name: str, plan: Plan) -> bool:
    return CONFIGS.variant(name, plan.options.dataset).method != "scarf"


def train(options: Options) -> None:
    """Pre-train MMCL and SimCLR, evaluate them on images alone beside supervised training, and explain MMCL.

    `--methods` chooses other methods.
    """
    plan = Plan("tabular_imaging", CONFIGS, options, write_synthetic)
    names = [*options.methods, *options.variants] or list(TRAINED)
    folders = dict(zip(names, plan.train(plan.variants(names)), strict=True))
    images = [folder for name, folder in folders.items() if _has_image_encoder(name, plan)]
    tables = [folder for name, folder in folders.items() if not _has_image_encoder(name, plan)]
    _evaluate(plan, images, *FROZEN)
    _evaluate(plan, tables, *FROZEN, "--inputs", "table")
    for name, folder in folders.items():
        if _is_mmcl(name, plan):
            call(explain, ["--run", folder, *plan.root])
    plan.table(print_table, "table1", images)
    plan.compare()


def reproduce(options: Options) -> None:
    """Print the paper's Tables 1, 2, 3 and Figure 2 beside ours; first train and evaluate what is missing.

    `--methods` chooses among the image methods, `--variants` among the variants of MMCL.
    """
    plan = Plan("tabular_imaging", CONFIGS, options, write_synthetic)
    methods = options.methods or list(IMAGE_METHODS)
    variants = options.variants or ["mmcl", *LABEL_VARIANTS, *FIELD_VARIANTS]
    names = [*methods, *variants]
    folders = dict(zip(names, plan.train(plan.variants(names)), strict=True))
    mmcl = [folders[name] for name in variants if name == "mmcl"]
    table1 = [*(folders[name] for name in methods), *mmcl]
    _evaluate(plan, table1)
    _evaluate(plan, [folders[name] for name in variants if name != "mmcl"], *FROZEN)
    for name in variants:
        call(explain, ["--run", folders[name], *plan.root])
    plan.table(print_table, "table1", table1)
    plan.table(print_table, "table2", [folders[name] for name in variants if name in ("mmcl", *FIELD_VARIANTS)])
    with_labels = [name for name in names if name == "supervised" or (name in variants and name not in FIELD_VARIANTS)]
    plan.table(print_table, "table3", [folders[name] for name in with_labels])
    # Labels are counted as shares of the training set, as in the paper, or for a small set as numbers per class.
    own = f"figure2_{options.dataset}"
    plan.table(print_table, own if (CONFIGS.folder / "tables" / f"{own}.yaml").is_file() else "figure2", table1)
    if mmcl and EQUAL_VIEWS in CONFIGS.variants(options.dataset):
        equal = plan.train(plan.variants([EQUAL_VIEWS]))
        _evaluate(plan, equal)
        plan.table(print_table, "equal_views", [*(folders[name] for name in methods), *equal])
        if "simclr" in methods:
            twice = CONFIGS.variant(EQUAL_VIEWS, options.dataset).files
            longer = plan.train([Wanted(EQUAL_STEPS, Change("simclr", twice))])
            _evaluate(plan, longer)
            plan.table(print_table, "equal_steps", [*longer, *equal])
    plan.compare()


def tune(options: Options) -> None:
    """Try every setting of configs/tuning.yaml for each method, and rank them by validation."""
    methods = options.methods or ["mmcl", *IMAGE_METHODS]
    _search(options, "variants", "@", [(method, CONFIGS.tuning(method)) for method in methods])


def study(options: Options) -> None:
    """Change one setting of MMCL at a time, as in configs/study.yaml, and rank the runs by validation.

    `--variants` chooses among the studies in that file.
    """
    names = options.variants or [*STUDIES, *(["unlabelled"] if options.dataset == "leaves" else [])]
    _search(options, "methods", "+", [("mmcl", CONFIGS.study(name)) for name in names])


def _search(options: Options, without: str, mark: str, grids: Sequence[tuple[str, dict[str, dict[str, Any]]]]) -> None:
    """Train every setting of a method's grid as `<method><mark><setting>`, and rank all that were ever tried."""
    plan = Plan("tabular_imaging", CONFIGS, options, write_synthetic, without)
    folders = plan.train(
        [
            Wanted(f"{method}{mark}{setting}", Change(method, [], settings))
            for method, grid in grids
            for setting, settings in grid.items()
        ]
    )
    tried = sorted(str(folder) for folder in Path(folders[0]).parent.glob(f"*{mark}*"))
    plan.evaluate(evaluate, tried, "--missing_only", "true")
    call(rank, ["--run", *tried, *plan.results, *shlex.split(options.table_args)])
