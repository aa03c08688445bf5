"""`python -m meta_robust environments`: accuracy by environment of the support and of the query."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from torch import Tensor

from meta_robust.data.episodes import TaskShape
from meta_robust.data.module import FewShotDataModule
from meta_robust.environments import COLOUR_KINDS, check_kinds
from meta_robust.evaluation.environments import by_colour, environment_hits
from meta_robust.evaluation.figures import draw_environments
from meta_robust.evaluation.models import image_size
from meta_robust.evaluation.tables import CONFIGS
from meta_robust.methods import EpisodicMethod
from meta_robust.module import RML
from shared.checkpoint import load_module
from shared.evaluation.evaluate import data_block_of
from shared.metrics import interval, mean_values
from shared.runs.configs import Profile
from shared.runs.settings import with_seed
from shared.runs.table import console
from shared.runs.tracking import save_figure
from shared.runs.variant import Variant, load_data


def environments(
    run: Path,
    data: str | None = None,
    root: str | None = None,
    profile: Profile = "gpu",
    kinds: list[str] | None = None,
    episodes: int = 30,
    shots: int | None = None,
) -> pd.DataFrame:
    """Print how well a model predicts in one environment after it adapted in another, on tasks of novel classes.

    Beside it stands a classifier that sees nothing but an image's mean colour: where it is far above chance, colour
    tells the class although the environment changed, and nothing forces a method to look at anything else.

    Args:
        run: The variant, `runs/meta_robust/<data set>/<variant>`; its first seed is tested, its best checkpoint.
        data: Another data set: a folder of configs/sets or a YAML file.
        root: Folder that holds the data set.
        profile: Profile whose settings of the other data set are used.
        kinds: Environments; by default all for colour images. For grey ones: identity, invert, low_pass, contrast.
        episodes: Number of tasks.
        shots: Support images a class; by default as many as in training.

    Returns:
        `support, query, accuracy, low, high, colour_alone`: one row for each pair of environments, as fractions.
    """
    variant = Variant(run)
    kinds = kinds or list(COLOUR_KINDS)
    check_kinds(kinds, 1)
    block = data_block_of(variant, CONFIGS, data, profile)
    checkpoint = variant.checkpoint(variant.seeds[0])
    settings = image_size({variant.seeds[0]: checkpoint}) | ({"root": root} if root else {})
    module = load_data(FewShotDataModule, with_seed(block.block, variant.seeds[0]), settings)  # type: ignore[type-abstract]
    model = load_module(checkpoint, EpisodicMethod)  # type: ignore[type-abstract]
    shape = TaskShape(model.shape.ways, shots or model.shape.shots, model.shape.queries)
    tasks = module.episodes("novel", shape, episodes)
    mode = model.bn_modes[0]

    def learn(support: Tensor, labels: Tensor, ways: int) -> Callable[[Tensor], Tensor]:
        classifier = model.task_classifier(support, labels, ways)
        return lambda query: classifier(query, mode)

    hits = environment_hits(learn, tasks, kinds, variant.title)
    colour = environment_hits(by_colour, tasks, kinds, "colour alone")
    groups = np.repeat(np.arange(hits.shape[2]), hits.shape[3])
    rows = []
    for one, support in enumerate(kinds):
        for other, query in enumerate(kinds):
            value, low, high, _ = interval(mean_values(hits[one, other].reshape(1, -1), groups))
            rows.append({"support": support, "query": query, "accuracy": value, "low": low, "high": high,
                         "colour_alone": colour[one, other].mean()})  # fmt: skip
    table = pd.DataFrame(rows)
    kind = "SYNTHETIC data" if "synthetic" in block.tags else "real data"
    about = f"{variant.title} on {block.name} ({kind}), {shape.ways}-way {shape.shots}-shot, {len(groups):,} queries"
    for column, title in (("accuracy", about), ("colour_alone", f"mean colour alone on {block.name}")):
        _print(table, column, f"accuracy, percent, by environment: {title}")
    worst = table.sort_values("accuracy").iloc[0]
    print(
        f"worst: adapted in {worst['support']}, tested in {worst['query']}: {100 * worst['accuracy']:.1f} "
        f"[{100 * worst['low']:.1f}, {100 * worst['high']:.1f}]; chance is {100 / shape.ways:.0f}. Batch norm: {mode}."
    )
    if isinstance(model, RML):
        unseen = [kind for kind in kinds if kind not in model.environments]
        print(f"environments that were not trained on: {', '.join(unseen) or 'none'}")
    written = run / "evaluation" / block.name
    written.mkdir(parents=True, exist_ok=True)
    table.round(6).to_csv(written / "environments.csv", index=False)
    note = "SYNTHETIC" if "synthetic" in block.tags else ""
    figure = draw_environments(table, f"{variant.title} on {block.name}", note)
    print(f"wrote environments.csv to {written} and {save_figure(figure, variant.first, f'{block.name}_environments')}")
    return table


def _print(table: pd.DataFrame, column: str, title: str) -> None:
    shown = Table("adapted in", title=title)
    for query in table["query"].unique():
        shown.add_column(str(query), justify="right")
    for support, row in table.groupby("support", sort=False):
        shown.add_row(str(support), *(f"{100 * value:.1f}" for value in row[column]))
    console().print(shown)
