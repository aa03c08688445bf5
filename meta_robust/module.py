"""RML: MAML whose adapted models must predict in environments other than the one they adapted in.

Shapes: T tasks, E environments, m query images, N ways.
"""

import logging
from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from meta_robust.adapt import Order
from meta_robust.data.module import FewShotDataModule
from meta_robust.environments import COLOUR_KINDS, change, check_kinds, draw_kinds
from meta_robust.losses import invariance_gradient
from meta_robust.methods.episodic import MetaStep, TaskImages, unit
from meta_robust.methods.maml import MAML
from shared.data.problems import DataError
from shared.distributed import mean_over_processes, rank_and_world_size

log = logging.getLogger(__name__)

ALIKE = 0.01  # mean difference of two environments' pixels in [0, 1], below which they are one
COLLAPSED = 0.05  # of the logits' norm; below, a warning
MEASURED = 64  # images on which the environments are compared

Reading = Literal["printed", "pairing", "penalty", "prose", "tasks"]


class Terms(NamedTuple):
    """Sums over a process's queries, from which the objective and its gradient follow.

    Attributes:
        risk: `(E,)` summed cross-entropy of the queries in each environment.
        first: `(E,)` summed parts of g (see `losses.invariance_gradient`); with a split penalty of the odd queries.
        second: `(E,)` the same with a split penalty of the even queries, otherwise the same as `first`.
        hits: `(E,)` number of queries that are classified rightly.
        norm: `(E,)` summed length of the logits, their mean taken off.
        size: `(3, E)` number of queries, then of those in `first` and in `second`.
    """

    risk: Tensor
    first: Tensor
    second: Tensor
    hits: Tensor
    norm: Tensor
    size: Tensor


def reading_of(photometric: bool, pairing: str, penalty: str) -> Reading:
    """Which reading of the paper some settings of `RML` are."""
    if not photometric:
        return "tasks"
    if pairing == "same":
        return "printed" if penalty == "none" else "penalty"
    return "pairing" if penalty == "none" else "prose"


class RML(MAML):
    r"""Robust Meta Learning (Jiang et al.; Eqs. 4 to 7, and Eq. 2 for the penalty).

    .. math:: \theta'_{i,e} = \theta - \alpha \nabla_\theta L^{tr}_{e, T_i}(f_\theta), \quad
        L_e = \frac1T \sum_i L^{val}_{e, T_i}(f_{\theta'_{i, p(e)}}), \quad
        \theta \leftarrow \theta - \eta \nabla_\theta \frac1E \sum_e \big(L_e + \lambda \, g_e^2\big)

    The paper defines neither an environment nor where the penalty of Eq. 2 enters, and its prose and its equations
    disagree. So the parts are settings; the README says what each reading of the paper is, and what it gave.

    The kinds of the environments are drawn once an update, so that :math:`L_e` and :math:`g_e` are means over all of
    its tasks; their strengths are drawn for each task. An objective above :math:`\lambda = 1` is divided by it.

    Args:
        encoder: `(B, 3, S, S) -> (B, encoder.out_dim)`.
        optimizer: Makes the optimiser of the outer step.
        ways: N.
        shots: K.
        queries: Q.
        inner_lr: :math:`\alpha`.
        inner_steps: Steps of adaptation in training; Eq. 4 has one.
        test_steps: Steps of adaptation to new tasks.
        order: As for `MAML`.
        shared_head: As for `MAML`.
        augment: As for `MAML`.
        environments: Kinds of photometric environments to draw from, see `environments.KINDS`; an empty list makes
            environments of the tasks themselves, or of the data module's groups of classes: no image is changed.
        count: E, number of photometric environments in an update.
        pairing: The environment :math:`p(e)` that a model which is tested in e adapted in: the `same` (Eq. 6), another
            (`cross`, section III-A: "the model only predict in the same distribution"), or each of the others (`all`).
        penalty: `none`, `irmv1`, or `irmv1_split`, its unbiased form (g of the odd times g of the even queries).
        penalty_weight: :math:`\lambda`.
        ramp: Share of the training in which lambda rises linearly from 0.
        chunk: Tasks of an update whose graphs are held at a time; None holds all. Fewer take less memory and, with a
            penalty, up to half as long again.

    Raises:
        ValueError: The list of environments is not one to draw E from, or `cross` has no second environment.
    """

    title = "RML"

    def __init__(
        self,
        encoder: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        test_steps: int = 10,
        order: Literal["second", "first", "first_then_second"] = "second",
        shared_head: bool = False,
        augment: nn.Module | None = None,
        environments: list[str] | None = None,
        count: int = 2,
        pairing: Literal["same", "cross", "all"] = "cross",
        penalty: Literal["none", "irmv1", "irmv1_split"] = "irmv1",
        penalty_weight: float = 1.0,
        ramp: float = 0.2,
        chunk: int | None = None,
    ) -> None:
        super().__init__(
            encoder, optimizer, ways, shots, queries, inner_lr, inner_steps, test_steps, order, shared_head, augment
        )
        self.environments = list(COLOUR_KINDS if environments is None else environments)
        self.count, self.pairing = count, pairing
        self.penalty, self.penalty_weight, self.ramp = penalty, penalty_weight, ramp
        self.chunk = chunk
        self.groups, self.tasks_of_update = 1, 1  # the data module says
        if self.environments:
            check_kinds(self.environments, count)
        if pairing != "same" and (not self.environments or count < 2):
            raise ValueError(f"pairing {pairing} needs at least two photometric environments")

    @classmethod
    def variant_title(cls, settings: Mapping[str, Any]) -> str:
        """The method, with its reading unless it is the one that it starts with."""
        chosen = [settings.get(key, default) for key, default in (("pairing", "cross"), ("penalty", "irmv1"))]
        reading = reading_of(settings.get("environments") != [], *chosen)
        return cls.title if reading == "prose" else f"{cls.title} ({reading})"

    def setup(self, stage: str) -> None:
        """Before training, measure how much the environments differ on real images, and say what an update costs."""
        super().setup(stage)
        data: FewShotDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.tasks_of_update = data.batch_size
        if stage != "fit":
            return
        if not self.environments:
            self.groups = len(data.class_groups)
            log.info("RML (tasks): %s", f"{self.groups} groups" if self.groups > 1 else "every task is an environment")
            return
        rows = data.rows(data.splits[0], "pretrain")
        images = unit(torch.from_numpy(data.cached(rows[:: max(1, len(rows) // MEASURED)][:MEASURED])))
        self.check_environments(images)
        queries = sum(len(self.partners(each)) for each in range(self.count))
        log.info(
            "RML (%s): %d adaptations and %d query passes a task, where MAML has 1 and 1",
            reading_of(True, self.pairing, self.penalty),
            self.count,
            queries,
        )

    @torch.no_grad()
    def check_environments(self, images: Tensor) -> None:
        """Measure and log the mean difference between environments, in pixels and behind the first batch norm.

        Raises:
            DataError: Two of them are alike on these images.
        """
        seen = {kind: change(images, kind, seed=0) for kind in self.environments}
        encoder = self.net.encoder
        first = next((layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d)), None)
        for one, other in combinations(seen, 2):
            pixels = float((seen[one] - seen[other]).abs().mean())
            inside = [self._behind(encoder, first, seen[kind]) for kind in (one, other)] if first else []
            features = float((inside[0] - inside[1]).abs().mean()) if inside else float("nan")
            log.info(
                "environments %s and %s differ by %.3f in pixels, %.3f behind batch norm", one, other, pixels, features
            )
            if pixels < ALIKE:
                raise DataError(
                    f"the environments {one} and {other} look alike on these images (mean difference {pixels:.4f} of "
                    "1): leave one out of --model.init_args.environments; for grey images there are identity, invert, "
                    "low_pass and contrast"
                )

    @staticmethod
    def _behind(encoder: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
        """What a layer of an encoder gives on images."""
        found: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, inputs, output: found.append(output))
        encoder(images)
        handle.remove()
        return found[0]

    def partners(self, environment: int) -> list[int]:
        """The environments that a model which adapted in this one is tested in."""
        if self.pairing == "same":
            return [environment]
        others = [(environment + step) % self.count for step in range(1, self.count)]
        return others if self.pairing == "all" else others[:1]

    def terms(self, task: TaskImages, place: int, order: Order | None = None) -> Terms:
        """A task's terms of the objective.

        Args:
            task: The task.
            place: Its place among this process's tasks of the update.
            order: As of `adapt`; by default the training's own. The values are the same.
        """
        if self.environments:
            return self.photometric_terms(task, order)
        logits = self.forward_with(self.adapted(task.support, task.support_label, order), task.query)
        own = self.terms_of([logits], [task.query_label])
        # One of several environments, those of other tasks or groups being empty here.
        rank, world_size = rank_and_world_size()
        tasks = self.tasks_of_update // world_size
        index, count = (task.group, self.groups) if self.groups > 1 else (rank * tasks + place, self.tasks_of_update)
        return Terms(*(F.pad(values, (index, count - index - 1)) for values in own))

    def photometric_terms(self, task: TaskImages, order: Order | None) -> Terms:
        """A task's terms in each of the photometric environments."""
        kinds = draw_kinds(self.environments, self.count, task.update_seed)
        views = [
            [change(side, kind, task.seed + number) for side in (task.support, task.query)]
            for number, kind in enumerate(kinds)
        ]
        by_query: list[list[Tensor]] = [[] for _ in kinds]
        for environment, (support, _) in enumerate(views):
            adapted = self.adapted(support, task.support_label, order)
            for other in self.partners(environment):
                by_query[other].append(self.forward_with(adapted, views[other][1]))
        labels = [task.query_label.repeat(len(found)) for found in by_query]
        return self.terms_of([torch.cat(found) for found in by_query], labels)

    def terms_of(self, logits: list[Tensor], labels: list[Tensor]) -> Terms:
        """The terms of each environment's logits `(m, N)` and labels `(m,)`.

        A split takes the queries of a task in turns of N, as they come: one of each class, then the next.
        """
        rows: list[tuple[Tensor, ...]] = []
        for found, wanted in zip(logits, labels, strict=True):
            parts = invariance_gradient(found, wanted)
            odd = (torch.arange(len(parts), device=parts.device) // self.shape.ways) % 2 == 1
            first, second = (parts[odd], parts[~odd]) if self.penalty == "irmv1_split" else (parts, parts)
            centred = (found - found.mean(1, keepdim=True)).detach()
            rows.append(
                (
                    F.cross_entropy(found, wanted, reduction="sum"),
                    first.sum(),
                    second.sum(),
                    (found.argmax(1) == wanted).sum().to(found.dtype),
                    centred.norm(dim=1).sum(),
                    found.new_tensor([len(parts), len(first), len(second)]),
                )
            )
        return Terms(*(torch.stack(values, dim=-1) for values in zip(*rows, strict=True)))

    def lambda_now(self) -> float:
        """The weight of the penalty at this step of the training."""
        if self.penalty == "none":
            return 0.0
        ramped = self.ramp * self.trainer.estimated_stepping_batches
        return self.penalty_weight * min(1.0, (self.global_step + 1) / max(1.0, ramped))

    def meta_gradient(self, tasks: list[TaskImages]) -> MetaStep:
        r"""The gradient of the objective, from sums over the tasks of all processes.

        The penalty is no sum over tasks: :math:`\nabla g^2 = 2 g \nabla g`, in which both g and its gradient are means
        over all tasks. So all tasks are looked at before the first gradient: with their graphs, or in chunks once
        without.
        """
        size = self.chunk or len(tasks)
        chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        first = (
            [self.terms(task, place) for place, task in enumerate(tasks)] if len(chunks) == 1 else self._values(tasks)
        )
        total = Terms(*mean_over_processes([torch.stack(each).detach().sum(0) for each in zip(*first, strict=True)]))
        weight = self.lambda_now()
        parameters = self.trained()
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for start, chunk in zip(range(0, len(tasks), size), chunks, strict=True):
            terms = first if len(chunks) == 1 else [self.terms(task, start + at) for at, task in enumerate(chunk)]
            linear = torch.stack([self._linear(each, total, weight) for each in terms]).sum()
            torch._foreach_add_(gradients, torch.autograd.grad(linear, parameters))
        return MetaStep(gradients, self._logs(total, weight))

    def _values(self, tasks: list[TaskImages]) -> list[Terms]:
        """The terms of tasks, whose graphs are dropped one after the other."""
        found = (self.terms(task, place, "first") for place, task in enumerate(tasks))
        return [Terms(*(value.detach() for value in terms)) for terms in found]

    @staticmethod
    def _linear(terms: Terms, total: Terms, weight: float) -> Tensor:
        """What a task adds to the objective, made linear in its terms at the total of all tasks."""
        count, first_count, second_count = total.size.clamp(min=1)
        environments = (total.size[0] > 0).sum()  # groups of classes may be absent from an update
        risk = (terms.risk / count).sum()
        # The gradient of a product: each mean times the other's gradient.
        first, second = total.first / first_count, total.second / second_count
        penalty = (second * terms.first / first_count + first * terms.second / second_count).sum()
        objective: Tensor = (risk + weight * penalty) / environments / max(1.0, weight)
        return objective

    @staticmethod
    def _logs(total: Terms, weight: float) -> dict[str, Tensor]:
        present = total.size[0] > 0
        count, first_count, second_count = total.size[:, present]
        risk, first, second = (
            total.risk[present] / count,
            total.first[present] / first_count,
            total.second[present] / second_count,
        )
        penalty = (first * second).mean()
        return {
            "loss": (risk.mean() + weight * penalty) / max(1.0, weight),
            "accuracy": total.hits.sum() / count.sum(),
            "penalty": penalty,
            "g": first.abs().mean(),
            "logit_norm": total.norm.sum() / count.sum(),
            "lambda": risk.new_tensor(weight),
            "risk_lowest": risk.min(),
            "risk_highest": risk.max(),
        }

    def on_train_epoch_end(self) -> None:
        """Warn of a collapse: constant logits make every penalty 0."""
        norm = self.trainer.callback_metrics.get("train/logit_norm")
        if norm is not None and norm < COLLAPSED:
            log.warning(
                "epoch %d: the logits have collapsed (train/logit_norm %.3f); lower penalty_weight or raise ramp",
                self.current_epoch,
                float(norm),
            )
