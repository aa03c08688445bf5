"""The loop behind every package's verb `evaluate`: variants, protocols, floor rows, intervals, files, figures, W&B.

Data flows: variant -> its checkpoints and data -> jobs (a model, or a floor row) -> `Found` -> table, scores, figures,
`evaluation.json`. All lies in `<variant>/evaluation/<data set>/`.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shared.data.module import DataModule
from shared.evaluation.protocol import Protocol, safe_name
from shared.evaluation.statistics import STATISTICS, Statistic
from shared.progress import progress
from shared.runs.configs import Configs, DataBlock, Profile
from shared.runs.results import append_results, update_results
from shared.runs.scores import Found, Outcome, Scores
from shared.runs.settings import compared, file_fingerprint
from shared.runs.tracking import WandbMode, save_figure, wandb_logger
from shared.runs.variant import Variant, load_data

log = logging.getLogger(__name__)

STATE = "evaluation.json"  # what an evaluation was made of: written last, it says that the evaluation is whole
RESULTS, GROUPS = "results.csv", "groups.csv"

DataT = TypeVar("DataT", bound=DataModule[Any])


@dataclass(frozen=True)
class Request:
    """What every package's `evaluate` is asked for.

    Attributes:
        run: Variants, `runs/<package>/<data set>/<variant>`; the seeds of a variant go together.
        data: Another data set (transfer): a folder of configs/sets or a YAML file; by default the one trained on.
        profile: Which of that set's settings.
        root: Root of the data set.
        options: Further data settings to change.
        checkpoint: `best` (by the monitored value) or `last`.
        resamples: Bootstrap resamples behind the intervals.
        results: CSV that the rows are appended to.
        missing_only: Leave variants alone whose evaluation is up to date.
        wandb: See `run.wandb` of a training run.
        threads: torch threads.
    """

    run: Sequence[str]
    data: str | None = None
    profile: Profile = "gpu"
    root: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = "best"
    resamples: int = 1000
    results: Path | None = None
    missing_only: bool = False
    wandb: WandbMode = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """One piece of an evaluation: a trained model, or a floor row.

    Attributes:
        score: Does it; by protocol and row. Several rows may come of one job.
        seed: Of the trained model; None for a floor row.
        key: Says all that a floor row's scores depend on, beside the data: jobs of other variants with the same key
            take its scores. Empty if nobody else can.
    """

    score: Callable[[], Found]
    seed: int | None = None
    key: str = ""


class Evaluation(ABC, Generic[DataT]):
    """What a package says of the evaluation of one variant on one data set.

    Args:
        variant: The trained models.
        checkpoints: By seed.
        data: Set up.
        resamples: Bootstrap resamples behind the intervals.
        transfer: The data are not those that the models were trained on.
    """

    statistics: ClassVar[dict[str, Statistic]] = STATISTICS

    def __init__(
        self, variant: Variant, checkpoints: Mapping[int, Path], data: DataT, resamples: int, transfer: bool
    ) -> None:
        self.variant, self.checkpoints, self.data = variant, checkpoints, data
        self.resamples, self.transfer = resamples, transfer

    @property
    @abstractmethod
    def protocols(self) -> Mapping[str, Protocol]:
        """By name, in the order of the tables."""

    @abstractmethod
    def jobs(self) -> list[Job]:
        """Floor rows, then the trained models."""

    @abstractmethod
    def table(self, found: Found) -> pd.DataFrame:
        """Rows of `results.csv`: `protocol`, `method`, `models`, `samples`, and the package's own."""

    @abstractmethod
    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        """Names of the classes `(C,)`, and the test samples' target `(N, C)`; empty where there are no classes."""

    @abstractmethod
    def test_rows(self) -> NDArray[np.int64]:
        """Rows of the data's frame that are tested on."""

    @abstractmethod
    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        """What `results.json` of a seed, and so the comparison page, says of its own model under a protocol."""

    @abstractmethod
    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        """By name; `note` is "SYNTHETIC" for made-up data, else empty."""

    @abstractmethod
    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        """Print the table; `kind` is `synthetic` or `real`."""

    def groups(self, found: Found) -> pd.DataFrame:
        """Rows of `groups.csv`: a metric within groups of samples; empty where the data name none."""
        return pd.DataFrame(columns=["protocol", "method", "group", "value", "samples"])

    def about(self, protocol: Protocol) -> dict[str, Any]:
        """What tables say of a protocol beside its title and metric, for instance how many labels it uses."""
        return {}

    def keep(self) -> None:
        """Keep what later verbs need of this evaluation, on the data trained on, beside the checkpoints."""


def run_jobs(jobs: Sequence[Job], known: dict[str, Found], title: str) -> tuple[Found, dict[int, Found]]:
    """Score floor rows and models.

    Args:
        jobs: In the order of the rows.
        known: Scores of floor rows by key; what is found is added.
        title: Of the progress bar.

    Returns:
        All outcomes, joined by protocol and row; and each trained model's own, by seed.
    """
    parts: dict[str, dict[str, list[Outcome]]] = {}
    own: dict[int, Found] = {}
    for job in progress(jobs, title, "model"):
        found = known[job.key] if job.key in known else job.score()
        if job.key:
            known[job.key] = found
        if job.seed is not None:
            own[job.seed] = found
        for protocol, rows in found.items():
            for row, outcome in rows.items():
                parts.setdefault(protocol, {}).setdefault(row, []).append(outcome)
    joined = {
        protocol: {row: Outcome.join(outcomes) for row, outcomes in rows.items()} for protocol, rows in parts.items()
    }
    return joined, own


@dataclass(frozen=True)
class State:
    """What an evaluation was made of, and what it says of its protocols: `evaluation.json`.

    Attributes:
        asked: Settings of the evaluation.
        checkpoints: Fingerprints by seed.
        data: Fingerprint of the data's content.
        protocols: By name `title`, `metric`, and what else the package says.
    """

    asked: dict[str, Any]
    checkpoints: dict[str, str]
    data: str
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it."""
        (folder / STATE).write_text(json.dumps(vars(self), indent=1, default=str), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> "State | None":
        """Read it; None where there is none, or it is damaged."""
        try:
            return State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def covers(self, wanted: "State", covers: Callable[[dict[str, Any], dict[str, Any]], bool]) -> bool:
        """Whether what is wanted was found from the same models and data, with these settings or more."""
        asked = json.loads(json.dumps(wanted.asked, default=str))
        return (self.checkpoints, self.data) == (wanted.checkpoints, wanted.data) and covers(self.asked, asked)


def evaluate_variants(
    package: str,
    configs: Configs,
    request: Request,
    expected: type[DataT],
    make: Callable[[Variant, Mapping[int, Path], DataT, int, bool], Evaluation[DataT]],
    asked: Mapping[str, Any],
    covers: Callable[[dict[str, Any], dict[str, Any]], bool] = lambda before, now: before == now,
    prepare: Callable[[Variant, Path], dict[str, Any]] = lambda variant, checkpoint: {},
) -> pd.DataFrame:
    """Evaluate variants, and write, print, draw and log what came out.

    Args:
        package: Name of the package.
        configs: Its configs/.
        request: What is asked for.
        expected: The data modules' class.
        make: The package's evaluation of a variant: its checkpoints, the data, the number of resamples, and whether
            that is a transfer.
        asked: The package's own settings of the evaluation.
        covers: Whether an evaluation with the first settings also holds what one with the second would.
        prepare: Data settings that a variant's checkpoint asks for, whatever the data set's own are.

    Returns:
        The rows of all variants.
    """
    if request.threads:
        torch.set_num_threads(request.threads)
    known: dict[str, dict[str, Found]] = {}
    loaded: dict[str, DataT] = {}
    tables = []
    for folder in map(Path, request.run):
        variant = Variant(folder)
        variant.check_same_settings()
        checkpoints = {seed: variant.checkpoint(seed, request.checkpoint) for seed in variant.seeds}
        source = DataBlock(variant.dataset, variant.tags, variant.config["data"])
        if request.data:
            source = configs.data_block(request.data, request.profile)
        # What is changed is another data set: its scores must not stand for this one's.
        options = [f"{key}={value}" for key, value in request.options.items()]
        name = safe_name(",".join([source.name, *options]))
        written = folder / "evaluation" / name
        changes = {**request.options, **({"root": request.root} if request.root else {})}
        changes |= prepare(variant, next(iter(checkpoints.values())))
        key = repr((compared(source.block), source.block.get("init_args", {}).get("root"), changes))
        data = loaded[key] if key in loaded else loaded.setdefault(key, load_data(expected, source.block, changes))
        state = State(
            {
                "checkpoint": request.checkpoint,
                "resamples": request.resamples,
                "options": dict(request.options),
                **asked,
            },
            {str(seed): file_fingerprint(path) for seed, path in checkpoints.items()},
            data.fingerprint(),
        )
        before = State.read(written)
        if request.missing_only and before and before.covers(state, covers):
            print(f"{written} is up to date")
            tables.append(pd.read_csv(written / RESULTS))
            continue
        if not (request.data or request.options or request.root):
            _warn_of_changed_data(variant, data)
        evaluation = make(variant, checkpoints, data, request.resamples, request.data is not None)
        title = f"evaluate {variant.title} on {data.name}"
        found, own = run_jobs(evaluation.jobs(), known.setdefault(key, {}), title)
        kind = "synthetic" if "synthetic" in source.tags else "real"
        table = evaluation.table(found).assign(data_kind=kind)
        prefix = f"{name}/" if request.data or request.options else ""
        _record(evaluation, own, prefix)
        _write(evaluation, found, table, state, written)
        if request.checkpoint == "best" and not prefix:
            evaluation.keep()
        _draw(package, evaluation, found, table, name, source.tags, request.wandb)
        evaluation.print(table, name, kind)
        print(f"wrote {RESULTS}, {GROUPS} and scores.npz to {written}, and figures to {variant.first}/figures")
        if request.results:
            rows = table.round(4).assign(
                trained_on=folder.parts[-2],
                variant=variant.name,
                dataset=source.name,
                seeds=variant.seeds_text,
                epochs=variant.epochs,
                steps=variant.steps,
            )
            append_results(rows, request.results)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _warn_of_changed_data(variant: Variant, data: DataModule[Any]) -> None:
    """Where a run says what its data were."""
    file = variant.first / "data.json"
    if file.is_file() and json.loads(file.read_text())["fingerprint"] != data.fingerprint():
        log.warning(
            "%s: the data have changed since it was trained, so its splits may be others; train it again with "
            "--run.overwrite true",
            variant.folder,
        )


def _values(evaluation: Evaluation[Any], found: Found) -> dict[str, float]:
    """`<protocol>/<key>`, with the row between them where one evaluation gave several."""
    return {
        "/".join([protocol, *([row] if len(rows) > 1 else []), key]): value
        for protocol, rows in found.items()
        for row, outcome in rows.items()
        for key, value in evaluation.seed_values(evaluation.protocols[protocol], outcome).items()
    }


def _record(evaluation: Evaluation[Any], own: Mapping[int, Found], prefix: str) -> None:
    """Merge each seed's own values into its `results.json`, for the comparison page."""
    for seed, found in own.items():
        values = {f"{prefix}{key}": value for key, value in _values(evaluation, found).items()}
        update_results(evaluation.variant.runs[seed], values)


def _write(evaluation: Evaluation[Any], found: Found, table: pd.DataFrame, state: State, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows, data = evaluation.test_rows(), evaluation.data
    classes, target = evaluation.target()
    ids = data.frame["id"].astype(str).iloc[rows].tolist()
    Scores(ids, data.groups[rows], classes, target, found).write(folder)
    evaluation.groups(found).to_csv(folder / GROUPS, index=False)
    table.to_csv(folder / RESULTS, index=False)
    protocols = {
        name: {"title": protocol.title, "metric": protocol.metric, **evaluation.about(protocol)}
        for name, protocol in evaluation.protocols.items()
    }
    State(state.asked, state.checkpoints, state.data, protocols).write(folder)


def _draw(
    package: str,
    evaluation: Evaluation[Any],
    found: Found,
    table: pd.DataFrame,
    dataset: str,
    tags: Sequence[str],
    mode: WandbMode,
) -> None:
    """Figures beside the first seed's, and averages, in W&B too where that is on."""
    variant, first = evaluation.variant, evaluation.variant.first
    group, name = "/".join(variant.folder.parts[-3:]), f"{variant.name}-on-{dataset}"
    logger = wandb_logger(first, group, name, [package, dataset, *tags], mode, job_type="test")
    loggers = [logger] if logger else []
    note = "SYNTHETIC" if "synthetic" in tags else ""
    trained = {
        protocol: {row: outcome for row, outcome in rows.items() if set(outcome.models) & set(variant.seeds)}
        for protocol, rows in found.items()
    }
    for logger in loggers:
        logger.log_metrics(_values(evaluation, trained))
    for figure_name, figure in evaluation.figures(found, table, dataset, note).items():
        save_figure(figure, first, f"{dataset}_{figure_name}", loggers)
    for logger in loggers:
        logger.experiment.finish()
