"""`train` and `reproduce`: from a data set to evaluated models and the paper's tables, in one command each."""

from pathlib import Path

from ecg_text.data.synthetic.ecgs import write_synthetic
from ecg_text.evaluation.tables import CONFIGS
from ecg_text.verbs.evaluate import evaluate
from ecg_text.verbs.table import print_table
from shared.data.problems import DataError
from shared.runs.configs import Profile
from shared.runs.pipeline import Options, Plan, Wanted

# The other methods of the paper's Table 1; random init needs no training.
TABLE_METHODS = ("cpc", "simclr", "byol", "simsiam", "ts_tcc", "clocs", "astcl")


def default_method(dataset: str, profile: Profile) -> str:
    """The form of ETP that suits a data set and a machine: the paper's, MiniLM on a laptop, n-grams if synthetic."""
    return "etp_ngrams" if dataset == "synthetic" else "etp" if profile == "gpu" else "etp_minilm"


def _random_inits(options: Options) -> list[str]:
    return ["--random_inits", "5" if options.dataset == "synthetic" else "20"]


def train(options: Options) -> None:
    """Pre-train ETP or other methods, evaluate them on their data set and on a second one, and compare all runs."""
    plan = Plan("ecg_text", CONFIGS, options, write_synthetic)
    methods = options.methods or [default_method(options.dataset, plan.profile)]
    wanted = plan.variants(methods)
    if len(options.variants) not in (0, len(wanted)):
        raise DataError(f"{len(options.variants)} --variants for {len(wanted)} --methods: give each method one name")
    if options.variants:  # a single method's run gets a name of its own
        wanted = [Wanted(name, method.change) for name, method in zip(options.variants, wanted, strict=True)]
    folders = plan.train(wanted)
    plan.evaluate(evaluate, folders, *_random_inits(options))
    plan.compare()


def reproduce(options: Options) -> None:
    """Print the paper's Tables 1, 2 and, with a target, 3 beside ours; first train and evaluate what is missing.

    On the synthetic set, which gets few epochs, the tables only demonstrate the grid.
    """
    plan = Plan("ecg_text", CONFIGS, options, write_synthetic, without="variants")
    etp = default_method(options.dataset, plan.profile)
    methods = options.methods or [*TABLE_METHODS, etp]
    short = "_short" if options.dataset == "synthetic" else ""
    folders = plan.train(plan.variants([f"{method}{short}" for method in methods]))
    plan.evaluate(evaluate, folders, *_random_inits(options), "--missing_only", "true")
    plan.table(print_table, "table1", folders)
    for folder in folders:
        if Path(folder).name == f"{etp}{short}{options.suffix}":
            plan.table(print_table, "table2", [folder])
            if options.target:
                plan.table(print_table, "table3", [folder])
    plan.compare()
