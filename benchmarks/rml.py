"""meta_robust's heads, meta-step, loading, features and memory: `make bench-rml`.

Every figure is a ratio of two ways of doing the same, timed in turn in one run (A B A B ...): the median of the pairs,
with their range. Images and features are random numbers (SYNTHETIC): speed does not depend on what they show.
"""

import importlib.util
import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.timing import PAIRS, Rows, ratio, write_rows
from meta_robust import MAML, RML, MatchingNetwork, PrototypicalNetwork, RelationNetwork
from meta_robust.data.episodes import Episodes, TaskShape, draw_task, task_rng
from meta_robust.evaluation.episodes import score_features
from meta_robust.methods.episodic import FeatureMethod, TaskImages, unit
from meta_robust.model import Conv4
from meta_robust.model.gram import HeadTraining, cosine_head_logits, linear_head_logits
from shared.data.images import ImageSettings, ImageSource, load_image

WAYS, SHOTS, QUERIES, DIM = 5, 5, 15, 1600
TASKS = 600  # as evaluated
LOOPED = 5  # tasks of which the slow way is timed; its time per task does not depend on their number
NOVEL, PER_CLASS = 20, 120  # as CIFAR-FS here
MEMORY_STEPS, FEW_TASKS = 3, 60

Pixels = NDArray[np.uint8]


def closer_look(weight: Tensor, other: Tensor, support: Tensor, labels: Tensor, query: Tensor, order: Tensor,
                cosine: bool) -> Tensor:  # fmt: skip
    """One task's head by SGD in the features' own space, as CloserLook trains it."""
    weight, other = weight.clone().requires_grad_(), other.clone().requires_grad_()

    def logits(x: Tensor) -> Tensor:
        if not cosine:
            return x @ weight.T + other
        return 2 * x @ (other[:, None] * weight / weight.norm(dim=1, keepdim=True)).T

    descent = torch.optim.SGD([weight, other], lr=0.01, momentum=0.9, dampening=0.9, weight_decay=1e-3)
    for permutation in order:
        for rows in permutation.split(4):
            descent.zero_grad()
            F.cross_entropy(logits(support[rows]), labels[rows]).backward()
            descent.step()
    return logits(query).detach()


def bench_head(cosine: bool, pairs: int) -> dict[str, object]:
    """All tasks' heads at once in Gram space, against the loop over tasks and steps; float64 in both."""
    settings, generator = HeadTraining(), torch.Generator().manual_seed(0)
    support = torch.rand(TASKS, WAYS * SHOTS, DIM, dtype=torch.float64)
    query = torch.rand(TASKS, WAYS * QUERIES, DIM, dtype=torch.float64)
    labels = torch.arange(WAYS).repeat_interleave(SHOTS).expand(TASKS, -1)
    weight = (torch.randn(WAYS, DIM, dtype=torch.float64) / DIM**0.5).expand(TASKS, -1, -1)
    other = torch.zeros(TASKS, WAYS, dtype=torch.float64)
    order = settings.order(WAYS * SHOTS, generator)
    if cosine:
        support, query, other = F.normalize(support, dim=2), F.normalize(query, dim=2), weight.norm(dim=2)

    def ours() -> Tensor:
        arguments = (weight, other, support, labels, query, order, settings)
        return cosine_head_logits(*arguments, 2.0) if cosine else linear_head_logits(*arguments)

    def loop() -> Tensor:
        each = zip(weight, other, support, labels, query, strict=True)
        return torch.stack([closer_look(*arguments, order, cosine) for arguments in islice(each, LOOPED)])

    label = f"heads of Baseline{'++' if cosine else ''}, {TASKS} tasks of 5 shots, against SGD task by task"
    row = ratio(label, "tasks/s", ours, loop, TASKS, min(pairs, 3), other_amount=LOOPED)
    row["error"] = float((ours()[:LOOPED] - loop()).abs().max())
    print(f"{'  largest difference of the logits in float64':<82} {row['error']:>7.0e}")
    return row


def random_task(shots: int, side: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> TaskImages:
    """A task of random pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(WAYS * (shots + QUERIES), 3, side, side, generator=generator, dtype=dtype)
    labels = torch.arange(WAYS)
    support = WAYS * shots
    return TaskImages(images[:support], labels.repeat_interleave(shots), images[support:], labels.repeat(QUERIES),
                      seed, 0, 0)  # fmt: skip


def higher_step(model: MAML, tasks: list[TaskImages]) -> list[Tensor]:
    """The same meta-gradient by `higher`, on the same network."""
    import higher  # an optional package: dependency group `bench`

    net, parameters = model.net, list(model.net.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    descent = torch.optim.SGD(net.parameters(), lr=model.inner_lr)
    for task in tasks:
        with higher.innerloop_ctx(net, descent, copy_initial_weights=False) as (learner, inner):
            for _ in range(model.inner_steps):
                inner.step(F.cross_entropy(learner(task.support), task.support_label))
            loss = F.cross_entropy(learner(task.query), task.query_label) / len(tasks)
            torch._foreach_add_(total, torch.autograd.grad(loss, parameters))
    return total


def bench_meta_step(pairs: int) -> Rows:
    """MAML's second-order step at 84 px, width 32, 4 tasks of one shot, against `higher`."""
    if not importlib.util.find_spec("higher"):
        print("higher is not installed (pip install --group bench), so it is not measured")
        return []
    model = MAML(Conv4(84, 32))
    tasks = [random_task(1, 84, seed) for seed in range(4)]
    label = "MAML's meta-step, second order, 84 px, width 32, 4 tasks, against higher"
    row = ratio(label, "tasks/s", partial(model.meta_gradient, tasks), partial(higher_step, model, tasks), 4, pairs)
    exact = MAML(Conv4(32, 8)).double()
    few = [random_task(1, 32, seed, torch.float64) for seed in range(2)]
    both = zip(exact.meta_gradient(few).gradients, higher_step(exact, few), strict=True)
    row["error"] = max(float((one - other).abs().max()) for one, other in both)
    print(f"{'  largest difference of the gradients in float64':<82} {row['error']:>7.0e}")
    return [row]


def second_derivatives(inputs: list[Tensor], weights: list[Tensor], groups: int) -> None:
    """Convolutions and, of the gradient with respect to their weights, the gradient."""
    for x, weight in zip(inputs, weights, strict=True):
        loss = F.conv2d(x, weight, padding=1, groups=groups).relu().sum()
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), weight)


def bench_grouping(pairs: int) -> Rows:
    """A convolution of four tasks' own weights, with its second derivative, task by task against one grouped one.

    What `adapt.py`, which goes task by task, could gain from the grouped form at most.
    """
    rows = []
    for images, side in ((5, 32), (75, 32), (5, 16)):
        tasks = [torch.randn(images, 32, side, side) for _ in range(4)]
        weights = [torch.randn(32, 32, 3, 3, requires_grad=True) for _ in tasks]
        joined, group = torch.cat(tasks, 1), torch.cat([weight.detach() for weight in weights]).requires_grad_()
        each = partial(second_derivatives, tasks, weights, 1)
        together = partial(second_derivatives, [joined], [group], 4)
        label = f"convolutions of 4 tasks, {images} images of {side} px, task by task, against grouped"
        rows.append(ratio(label, "tasks/s", each, together, 4, pairs))
    return rows


def bench_loading(pairs: int) -> Rows:
    """The 100 images of a task, normalised, from the uint8 cache, against PIL image by image."""
    side, count = 84, WAYS * (SHOTS + QUERIES)
    encoder, settings = Conv4(side, 32), ImageSettings(side, 3, "crop")
    cache = np.random.default_rng(0).integers(256, size=(4 * count, 3, side, side), dtype=np.uint8)
    rows = np.random.default_rng(1).permutation(len(cache))[:count]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.jpg" for number in range(count)]
        for path, image in zip(paths, cache, strict=False):
            Image.fromarray(image.transpose(1, 2, 0)).resize((500, 375)).save(path)

        def normalised(images: Pixels) -> Tensor:
            return (unit(torch.from_numpy(images)) - encoder.mean) / encoder.std

        def one_by_one() -> Tensor:
            return normalised(np.stack([load_image(ImageSource(str(path), settings)) for path in paths]))

        label = f"the {count} images of a task at {side} px, normalised, against files of 500 px through PIL"
        return [ratio(label, "images/s", lambda: normalised(cache[rows]), one_by_one, count, pairs)]


def bench_features(pairs: int) -> Rows:
    """600 tasks of 5 shots of 20 classes of 120 images, every image encoded once, against every task encoded."""
    images = np.random.default_rng(0).integers(256, size=(NOVEL * PER_CLASS, 3, 32, 32), dtype=np.uint8)
    classes = [np.arange(PER_CLASS) + PER_CLASS * place for place in range(NOVEL)]
    shape = TaskShape(WAYS, SHOTS, QUERIES)
    episodes = Episodes(lambda number: draw_task([classes], shape, task_rng(0, 2, number)), images.__getitem__,
                        lambda number: 0, TASKS)  # fmt: skip
    data: Any = SimpleNamespace(cached=images.__getitem__)
    models: list[FeatureMethod] = [
        PrototypicalNetwork(Conv4(32, 32)),
        MatchingNetwork(Conv4(32, 32), fce=False),
        RelationNetwork(Conv4(32, 32, pooled=2, flatten=False)),
    ]
    rows = []
    for model in models:
        model.eval()

        def each(model: FeatureMethod = model) -> None:
            for number in range(TASKS):
                task = episodes[[number]]
                model.classify(unit(task.support[0]), task.support_label[0], unit(task.query[0]), WAYS)

        ours = partial(score_features, model.embed, model.classify_features, data, episodes)
        label = f"{model.title}, {TASKS} tasks of 5 shots at 32 px, against encoding every task"
        rows.append(ratio(label, "tasks/s", ours, each, TASKS, min(pairs, 3)))
    return rows


def run_updates(tasks: int, chunk: int | None) -> None:
    """A few updates of RML on so many tasks."""
    model = RML(Conv4(84, 32), chunk=chunk)
    model.__class__ = type(
        "RML", (RML,), {"global_step": 10, "trainer": SimpleNamespace(estimated_stepping_batches=10)}
    )
    for _ in range(MEMORY_STEPS):
        model.meta_gradient([random_task(1, 84, seed) for seed in range(tasks)])


def run_test_tasks(tasks: int) -> None:
    """So many test tasks of MAML."""
    model = MAML(Conv4(32, 32)).eval()
    for number in range(tasks):
        task = random_task(1, 32, number)
        model.classify(task.support, task.support_label, task.query, WAYS)


def high_water() -> int:
    """This process's peak memory in kilobytes, on Linux; `ru_maxrss` would begin with that of the process before it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


def _peak(function: Callable[..., None], arguments: tuple[Any, ...], found: Any) -> None:
    torch.set_num_threads(1)
    start = high_water()
    function(*arguments)
    found.value = high_water() - start


def peak_memory(function: Callable[..., None], *arguments: Any) -> float:
    """Megabytes by which a fresh process's peak memory grew over that after its imports."""
    context = multiprocessing.get_context("spawn")
    found = context.Value("q", 0)
    process = context.Process(target=_peak, args=(function, arguments, found))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__}{arguments} failed in its process")
    return float(found.value) / 1024


def bench_memory() -> Rows:
    """Peak memory of updates in chunks, and of many test tasks; below 1 ours takes less."""
    cases = [
        ("RML's update, 84 px, 16 tasks in chunks of 4, against 4 tasks", run_updates, (16, 4), (4, None)),
        (f"MAML, {TASKS} test tasks, against {FEW_TASKS}", run_test_tasks, (TASKS,), (FEW_TASKS,)),
    ]
    rows: Rows = []
    for name, function, ours, other in cases:
        taken = [peak_memory(function, *arguments) for arguments in (ours, other)]
        label = f"peak memory: {name}"
        rows.append({"benchmark": label, "unit": "MB", "ours": round(taken[0], 1), "other": round(taken[1], 1),
                     "ratio": round(taken[0] / taken[1], 3)})  # fmt: skip
        print(f"{label:<82} {rows[-1]['ratio']:>7} x")
    return rows


def run(output: Path = Path("results/bench_rml.csv"), pairs: int = PAIRS) -> pd.DataFrame:
    """Measure, print ratios and write them.

    Args:
        output: CSV, replaced.
        pairs: Measurements of each ratio.
    """
    pl.seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    rows = [bench_head(cosine, pairs) for cosine in (False, True)]
    rows += (
        bench_meta_step(pairs) + bench_grouping(pairs) + bench_loading(pairs) + bench_features(pairs) + bench_memory()
    )
    return write_rows(rows, output, data_kind="synthetic")


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
