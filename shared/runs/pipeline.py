"""What the packages' pipelines have in common: their options, and the grid of trainings that the options stand for.

A pipeline (`train`, `reproduce`, `tune`, `study`) is a plain function of `Options` in `<package>/verbs/pipelines.py`.
"""

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from shared.cli import compose
from shared.data.problems import DataError
from shared.data.synthetic import settings_of
from shared.main import call
from shared.runs.cluster import Slurm, Where, cluster
from shared.runs.compare import compare
from shared.runs.configs import Change, Configs, Profile, as_flags
from shared.runs.grid import data_fingerprint, fit_cells, here, run_cells


@dataclass(frozen=True)
class Options:
    """Options of a pipeline. What follows a bare `--` is passed to each of its trainings.

    Attributes:
        dataset: A data set: a folder of configs/sets (`synthetic` writes its own data), or one of a folder's targets.
        root: Folder that holds the data set; by default the one that its configuration names.
        target: A second data set to evaluate on.
        target_root: Folder that holds the second data set.
        seeds: Seeds of the runs.
        jobs: Number of trainings that run at a time.
        profile: `gpu` is the paper's setting, `demo` is one for a laptop. By default it is `gpu` if this machine has a
            GPU or, with `cluster`, if its jobs ask for one.
        methods: Methods to train, by their file names in configs/methods; by default those that the pipeline is for.
        variants: Variants to train; with a single method also the name that its run is to have.
        suffix: Text appended to the names of all runs, to keep a grid with other settings separate.
        results: CSV file that the rows of the tables are appended to.
        cluster: `slurm` submits the trainings as a job array instead of running them here.
        slurm: Resources that each job on the cluster asks for.
        evaluate_args: Options passed to `evaluate`, as one string of words.
        table_args: Options passed to `table`, as one string of words.
        fit_args: Options passed to `fit`: what follows a bare `--`.
    """

    dataset: str = "synthetic"
    root: str | None = None
    target: str | None = None
    target_root: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    jobs: int = 1
    profile: Profile | None = None
    methods: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    suffix: str = ""
    results: str | None = None
    cluster: Where | None = None
    slurm: Slurm = Slurm()  # noqa: RUF009  frozen
    evaluate_args: str = ""
    table_args: str = ""
    fit_args: list[str] = field(default_factory=list)

    @property
    def resolved_profile(self) -> Profile:
        """The profile that was given; otherwise `gpu` if the trainings have a GPU, else `demo`."""
        has_gpu = self.slurm.gpus > 0 if self.cluster else shutil.which("nvidia-smi") is not None
        return self.profile or ("gpu" if has_gpu else "demo")


@dataclass(frozen=True)
class Wanted:
    """A variant in a grid.

    Attributes:
        name: Name of the variant, without the suffix.
        change: Its method, and what the variant changes of it.
        after: Names of the variants in the same grid that it starts from.
    """

    name: str
    change: Change
    after: Sequence[str] = ()


class Plan:
    """A pipeline that is being run: it trains what is missing, and knows where the runs are.

    Args:
        package: Name of the package.
        configs: The package's configs/.
        options: The pipeline's options.
        write_synthetic: Writes the package's synthetic data set into a folder, unless it is already there; its further
            arguments are the set's settings.
        without: An option that this pipeline cannot use, `methods` or `variants`.

    Raises:
        DataError: That option was given.
    """

    def __init__(
        self,
        package: str,
        configs: Configs,
        options: Options,
        write_synthetic: Callable[..., object],
        without: str = "",
    ) -> None:
        if without and getattr(options, without):
            other = "variants" if without == "methods" else "methods"
            raise DataError(f"--{without} is not used here; --{other} chooses what is trained (make: {other.upper()}=)")
        self.package, self.configs, self.options = package, configs, options
        self.profile = options.resolved_profile
        self._synthetic = write_synthetic
        self._runs = Path("runs")

    @property
    def root(self) -> list[str]:
        """The option of a verb that says where the data set is; none if its configuration does."""
        return ["--root", self.options.root] if self.options.root else []

    @property
    def results(self) -> list[str]:
        """The option of a verb that says which CSV its rows go to; none if they go to none."""
        return ["--results", self.options.results] if self.options.results else []

    def words(self, wanted: Wanted) -> list[str]:
        """The `fit` command of a variant, without a seed."""
        change = wanted.change
        files = [*self.configs.stack(change.method, self.options.dataset, self.profile), *change.files]
        given = [word for file in files for word in ("--config", str(file))]
        if self.options.root:
            given += ["--data.init_args.root", self.options.root]
        named = ["--run.variant", f"{wanted.name}{self.options.suffix}"]
        return [*given, *as_flags(change.settings), *named, *self.options.fit_args]

    def variants(self, names: Sequence[str]) -> list[Wanted]:
        """The data set's variants of these names: methods as they are, or changed."""
        return [Wanted(name, self.configs.variant(name, self.options.dataset)) for name in names]

    def train(self, grid: Sequence[Wanted]) -> list[str]:
        """Train what is missing of a grid.

        Returns:
            Folders of its variants, in order.

        Raises:
            DataError: Several variants would have the same name, or the grid did not finish.
        """
        commands = [self.words(wanted) for wanted in grid]
        composed = [compose(self.package, words) for words in commands]
        folders = [str(each.folder) for each in composed]
        if len(set(folders)) < len(folders):
            raise DataError(
                f"several of {', '.join(wanted.name for wanted in grid)} would be one run: name each once, and keep a "
                "grid apart by --suffix (make: SUFFIX=...), not by --run.variant"
            )
        self._runs = composed[0].folder.parents[2]
        if self.options.dataset == "synthetic":
            root = Path(composed[0].settings["data"]["init_args"]["root"])
            try:
                self._synthetic(root, **settings_of(root))  # one that is there, or was begun, keeps its settings
            except FileExistsError as error:
                raise DataError(str(error)) from error
        fingerprint = cache(data_fingerprint)
        cells = [
            fit_cells(self.package, wanted.name, words, each, self.options.seeds, fingerprint, wanted.after)
            for wanted, words, each in zip(grid, commands, composed, strict=True)
        ]
        # All methods of one seed come first: a grid that is stopped half-way then has complete seeds.
        in_order = [cell for same_seed in zip(*cells, strict=True) for cell in same_seed]
        where = self.options.cluster
        run_cells(in_order, cluster(where, self.options.slurm) if where else here(self.options.jobs))
        return folders

    def evaluate(
        self, verb: Callable[..., Any], folders: Sequence[str], *more: str, on_target: Sequence[str] | None = None
    ) -> None:
        """Evaluate variants on the data set that they were trained on and, if there is one, on the target.

        Args:
            verb: The package's `evaluate`.
            folders: Folders of the variants.
            *more: Further options.
            on_target: Further options on the target, if they are not the same.
        """
        options, asked = self.options, shlex.split(self.options.evaluate_args)
        if not folders:
            return
        call(verb, ["--run", *folders, *more, *self.root, *asked])
        if options.target:
            root = ["--root", options.target_root] if options.target_root else []
            target = ["--data", options.target, "--profile", self.profile, *root]
            call(verb, ["--run", *folders, *(more if on_target is None else on_target), *target, *asked])

    def table(self, verb: Callable[..., Any], table: str, folders: Sequence[str], *more: str) -> None:
        """Print a table of configs/tables."""
        if folders:
            file = str(self.configs.folder / "tables" / f"{table}.yaml")
            call(
                verb, ["--table", file, "--run", *folders, *self.results, *more, *shlex.split(self.options.table_args)]
            )

    def compare(self) -> None:
        """Write the page that compares all runs."""
        page = compare(self._runs)
        print(f"wrote {page} (open it in a browser) and {page.with_suffix('.csv')}")
