"""The loop behind every package's verb `evaluate`: variants, protocols, floor rows, intervals, files, figures, W&B.

The data flow is: variant -> its checkpoints and data -> jobs (a model, or a floor row) -> `Found` -> table, scores,
figures, `evaluation.json`. Everything but the figures is written to `<variant>/evaluation/<data set>/`.
"""

import dataclasses
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

from shared.data.module import DataModule, check_unseen
from shared.evaluation.protocol import Protocol, safe_name
from shared.evaluation.statistics import STATISTICS, Statistic
from shared.progress import progress
from shared.runs.configs import Configs, DataBlock, Profile
from shared.runs.results import append_results, has_finished, update_results
from shared.runs.scores import FILE, Found, Outcome, Scores
from shared.runs.settings import EVALUATION, compared, file_fingerprint, with_seed
from shared.runs.tracking import WandbMode, save_figure, wandb_logger
from shared.runs.variant import Variant, load_data

log = logging.getLogger(__name__)

RESULTS, GROUPS = "results.csv", "groups.csv"

DataT = TypeVar("DataT", bound=DataModule[Any])


@dataclass(frozen=True)
class Request:
    """What every package's `evaluate` is asked for.

    Attributes:
        run: Variants to evaluate, `runs/<package>/<data set>/<variant>`; all seeds of a variant are evaluated together.
        data: Another data set to evaluate on (transfer): a folder of configs/sets or a YAML file; by default the one
            that the variant was trained on.
        profile: Profile whose settings of the other data set are used.
        root: Folder that holds the data set.
        options: Further data settings to change.
        checkpoint: Checkpoint to evaluate: `best` (by the monitored value) or `last`.
        results: CSV file that the rows are appended to.
        missing_only: Whether to skip variants whose evaluation is up to date.
        wandb: Where W&B logs to, as `run.wandb` of a training run.
        threads: Number of torch threads.
    """

    run: Sequence[str]
    data: str | None = None
    profile: Profile = "gpu"
    root: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = "best"
    results: Path | None = None
    missing_only: bool = False
    wandb: WandbMode = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """One piece of an evaluation: a trained model, or a floor row.

    Attributes:
        score: Does the work and returns the outcomes by protocol and row. One job may give several rows.
        seed: Seed of the trained model; None for a floor row.
        key: States everything that a floor row's scores depend on besides the data: jobs of other variants with the
            same key reuse its scores. Empty if no other job can.
    """

    score: Callable[[], Found]
    seed: int | None = None
    key: str = ""


class Evaluation(ABC, Generic[DataT]):
    """A package's evaluation of one variant on one data set.

    Args:
        variant: The trained models.
        checkpoints: Their checkpoints by seed.
        data: The data module, set up.
        transfer: Whether the data set is another one than the models were trained on.
    """

    statistics: ClassVar[dict[str, Statistic]] = STATISTICS

    def __init__(self, variant: Variant, checkpoints: Mapping[int, Path], data: DataT, transfer: bool) -> None:
        self.variant, self.checkpoints, self.data = variant, checkpoints, data
        self.transfer = transfer

    @property
    @abstractmethod
    def protocols(self) -> Mapping[str, Protocol]:
        """Protocols by name, in the order of the tables."""

    @abstractmethod
    def jobs(self) -> list[Job]:
        """Floor rows, then the trained models."""

    @abstractmethod
    def table(self, found: Found) -> pd.DataFrame:
        """Rows of `results.csv`: `protocol`, `method`, `models`, `samples`, and the package's own columns."""

    @abstractmethod
    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        """Names of the classes `(C,)`, and the test samples' target `(N, C)`; empty if there are no classes."""

    @abstractmethod
    def test_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows of the data's frame that are tested on."""

    def samples(self) -> tuple[list[str], NDArray[np.int64]]:
        """Ids and groups of the test samples, `(N,)` each; by default a sample is a row of the frame."""
        rows = self.test_rows()
        return self.data.frame["id"].astype(str).iloc[rows].tolist(), self.data.groups[rows]

    @abstractmethod
    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        """Values of one seed's model under a protocol, for its `results.json` and so for the comparison page."""

    @abstractmethod
    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        """Figures by name; `note` is "SYNTHETIC" for synthetic data, else empty."""

    @abstractmethod
    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        """Print the table; `kind` is `synthetic` or `real`."""

    def groups(self, found: Found) -> pd.DataFrame:
        """Rows of `groups.csv`: a metric within groups of samples; empty if the data name no groups."""
        return pd.DataFrame(columns=["protocol", "method", "group", "value", "samples"])

    def about(self, protocol: Protocol) -> dict[str, Any]:
        """What tables say about a protocol besides its title and metric, for instance how many labels it uses."""
        return {}

    def keep(self) -> None:
        """Save, beside the checkpoints, what later verbs need; only called for the data that were trained on."""


def run_jobs(jobs: Sequence[Job], known: dict[str, Found], title: str) -> tuple[Found, dict[int, Found]]:
    """Score floor rows and models.

    Args:
        jobs: Jobs in the order of the rows.
        known: Scores of floor rows by key; new ones are added to it.
        title: Title of the progress bar.

    Returns:
        All outcomes, joined by protocol and row; and each trained model's own outcomes, by seed.
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
    """What an evaluation was made from, and what it says about its protocols: `evaluation.json`.

    Attributes:
        asked: Settings of the evaluation.
        checkpoints: Fingerprints of the checkpoints by seed.
        data: Fingerprint of the data's content.
        protocols: By name of a protocol, its `title`, `metric`, and what else the package says about it.
        kind: `synthetic` or `real`.
    """

    asked: dict[str, Any]
    checkpoints: dict[str, str]
    data: str
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    kind: str = "real"

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        (folder / EVALUATION).write_text(json.dumps(vars(self), indent=1, default=str), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> "State | None":
        """Read the file of a folder; None if there is none or it is damaged."""
        try:
            return State(**json.loads((folder / EVALUATION).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def covers(self, wanted: "State", covers: Callable[[dict[str, Any], dict[str, Any]], bool]) -> bool:
        """Whether this evaluation has the same models and data as the wanted one, and at least what it asks for."""
        asked = json.loads(json.dumps(wanted.asked, default=str))
        return (self.checkpoints, self.data) == (wanted.checkpoints, wanted.data) and covers(self.asked, asked)


def best_or_last(variant: Variant, which: str) -> dict[int, Path]:
    """The checkpoint of every seed that is called `best` or `last`; of a seed under way only if it is there."""
    under_way = [seed for seed, results in variant.results.items() if not has_finished(results)]
    absent = [seed for seed in under_way if not (variant.runs[seed] / "checkpoints" / f"{which}.ckpt").is_file()]
    wanted = [seed for seed in variant.seeds if seed not in absent]
    return {seed: variant.checkpoint(seed, which) for seed in wanted or variant.seeds}


def evaluate_variants(
    package: str,
    configs: Configs,
    request: Request,
    expected: type[DataT],
    make: Callable[[Variant, Mapping[int, Path], DataT, bool], Evaluation[DataT]],
    asked: Mapping[str, Any],
    covers: Callable[[dict[str, Any], dict[str, Any]], bool] = lambda before, now: before == now,
    prepare: Callable[[Mapping[int, Path]], dict[str, Any]] = lambda checkpoints: {},
    checkpoints_of: Callable[[Variant, str], Mapping[int, Path]] = best_or_last,
) -> pd.DataFrame:
    """Evaluate variants, and write, print, draw and log the results.

    Args:
        package: Name of the package.
        configs: The package's configs/.
        request: What is asked for.
        expected: Class of the data modules.
        make: Makes the package's evaluation of a variant from its checkpoints, the data, and whether this is a
            transfer.
        asked: The package's own settings of the evaluation.
        covers: Tells whether an evaluation with the first settings includes all that one with the second would give.
        prepare: Gives the data settings that a variant's checkpoints require; they override the data set's own.
        checkpoints_of: Chooses a variant's checkpoints, by seed: one of many, say, or none for a baseline without
            training.

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
        checkpoints = checkpoints_of(variant, request.checkpoint)
        source = data_block_of(variant, configs, request.data, request.profile)
        # With changed options it is another data set, whose scores must not be taken for this one's.
        options = [f"{key}={value}" for key, value in request.options.items()]
        name = safe_name(",".join([source.name, *options]))
        written = folder / "evaluation" / name
        changes = {**request.options, **({"root": request.root} if request.root else {})}
        changes |= prepare(checkpoints)
        block = with_seed(source.block, variant.seeds[0])
        key = repr((block, changes))
        data = loaded[key] if key in loaded else loaded.setdefault(key, load_data(expected, block, changes))
        state = State(
            {
                "checkpoint": request.checkpoint,
                "options": dict(request.options),
                "transfer": request.data is not None,
                "data": _settings_of_data(block, changes),
                **asked,
            },
            {str(seed): file_fingerprint(path) for seed, path in checkpoints.items()},
            data.fingerprint(),
            kind="synthetic" if "synthetic" in source.tags else "real",
        )
        before = State.read(written)
        whole = all((written / file).is_file() for file in (RESULTS, FILE))
        if request.missing_only and whole and before and before.covers(state, covers):
            print(f"{written} is up to date")
            tables.append(pd.read_csv(written / RESULTS))
            continue
        if not (request.data or request.options):
            _warn_of_changed_data(variant, state.data)
        evaluation = make(variant, checkpoints, data, request.data is not None)
        jobs = evaluation.jobs()
        if not request.data:
            for seed in checkpoints:
                check_unseen(variant.runs[seed], data)
        title = f"evaluate {variant.title} on {data.name}"
        found, own = run_jobs(jobs, known.setdefault(key, {}), title)
        table = evaluation.table(found).assign(data_kind=state.kind)
        prefix = f"{name}/" if request.data or request.options else ""
        _record(evaluation, own, prefix)
        trained = {row for each in own.values() for rows in each.values() for row in rows}
        floors = list(dict.fromkeys(row for rows in found.values() for row in rows if row not in trained))
        _write(evaluation, found, floors, table, state, written)
        if request.checkpoint == "best" and not prefix:
            evaluation.keep()
        _draw(package, evaluation, found, floors, table, name, source.tags, request.wandb)
        evaluation.print(table, name, state.kind)
        print(f"wrote {RESULTS}, {GROUPS} and scores.npz to {written}, and figures to {variant.first}/figures")
        if request.results:
            rows = table.round(4).assign(
                trained_on=variant.dataset,
                variant=variant.name,
                dataset=source.name,
                seeds=variant.seeds_text,
                epochs=variant.epochs,
                steps=variant.steps,
                config=variant.save_config(request.results),
            )
            append_results(rows, request.results)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def data_block_of(variant: Variant, configs: Configs, data: str | None, profile: Profile) -> DataBlock:
    """The data set that a variant is evaluated on: another one, or by default the one that it was trained on."""
    if data:
        return configs.data_block(data, profile)
    return DataBlock(variant.dataset, variant.tags, variant.config["data"])


def _settings_of_data(block: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a data module that an evaluation may depend on, beside the content that is fingerprinted."""
    settings = compared({**(block.get("init_args") or {}), **changes})
    return {key: value for key, value in settings.items() if key not in ("seed", "batch_size")}


def _warn_of_changed_data(variant: Variant, data: str) -> None:
    """Warn if the data, given by their fingerprint, differ from those that a run recorded."""
    if variant.data and variant.data != data:
        log.warning(
            "%s: the data have changed since it was trained, so its splits may differ; train it again with "
            "--run.overwrite true",
            variant.folder,
        )


def _values(evaluation: Evaluation[Any], found: Found) -> dict[str, float]:
    """Values by `<protocol>/<key>`, with the row between the two if the evaluation gave several rows."""
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


def _write(
    evaluation: Evaluation[Any], found: Found, floors: list[str], table: pd.DataFrame, state: State, folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EVALUATION).unlink(missing_ok=True)  # it marks the other files as complete
    ids, groups = evaluation.samples()
    classes, target = evaluation.target()
    Scores(ids, groups, classes, target, found, floors).write(folder)
    evaluation.groups(found).to_csv(folder / GROUPS, index=False)
    table.to_csv(folder / RESULTS, index=False)
    protocols = {
        name: {"title": protocol.title, "metric": protocol.metric, **evaluation.about(protocol)}
        for name, protocol in evaluation.protocols.items()
    }
    dataclasses.replace(state, protocols=protocols).write(folder)


def _draw(
    package: str,
    evaluation: Evaluation[Any],
    found: Found,
    floors: list[str],
    table: pd.DataFrame,
    dataset: str,
    tags: Sequence[str],
    mode: WandbMode,
) -> None:
    """Save the figures in the first seed's folder; log them and the averages to W&B if that is on."""
    variant, first = evaluation.variant, evaluation.variant.first
    group, name = "/".join(variant.folder.absolute().parts[-3:]), f"{variant.name}-on-{dataset}"
    logger = wandb_logger(first, group, name, [package, dataset, *tags], mode, job_type="test")
    loggers = [logger] if logger else []
    note = "SYNTHETIC" if "synthetic" in tags else ""
    trained = {
        protocol: {row: outcome for row, outcome in outcomes.items() if row not in floors}
        for protocol, outcomes in found.items()
    }
    for logger in loggers:
        logger.log_metrics(_values(evaluation, trained))
    for figure_name, figure in evaluation.figures(found, table, dataset, note).items():
        save_figure(figure, first, f"{dataset}_{figure_name}", loggers)
    for logger in loggers:
        logger.experiment.finish()
