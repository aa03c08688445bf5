"""F1 and accuracy per label, at the threshold that is best on the data itself or at thresholds chosen beforehand.

A label is predicted where `score >= threshold`, the convention of precision-recall curves. (With `>`,
constant scores would predict nothing instead of everything: for a label of prevalence 0.105 the accuracy would be
0.895 instead of 0.105.)

The F1 of a label without positives is undefined. Such a label is NaN in every field of the result, and macro
means run over the other labels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class F1Result(NamedTuple):
    """F1, accuracy and threshold of every label, each `(C,)` (torchmetrics squeezes C = 1 to 0-dim)."""

    f1: Tensor
    accuracy: Tensor
    threshold: Tensor

    @property
    def f1_macro(self) -> Tensor:
        """Mean F1 over the labels that have one; NaN if none has."""
        return self.f1.nanmean()

    @property
    def accuracy_macro(self) -> Tensor:
        """Mean accuracy over the same labels."""
        return self.accuracy.nanmean()


class BestF1(Metric):
    r"""The best F1 of every label over all thresholds, with the accuracy at that threshold and the threshold itself.

    .. math::
        F_1(t) = \frac{2 \, TP(t)}{PP(t) + P}, \qquad
        \mathrm{ACC}(t) = \frac{TP(t) + TN(t)}{N}, \qquad \text{predicted where } s \ge t

    with PP the number of predicted and P that of actual positives. Thresholds are the scores that occur; among
    thresholds of equal F1 the highest (the fewest predictions) is taken. The value is optimistic, because it is chosen
    on the data that it is reported on: it is never below the predict-everything floor 2p / (1 + p), with p the label's
    prevalence.

    `update(scores, targets)` takes real scores `(N, C)` and targets `(N, C)` in {0, 1}; `compute()` returns
    an `F1Result`. Range [0, 1], higher is better. A label without positives is NaN throughout.

    Args:
        num_labels: Number of labels, C.

    Raises:
        ValueError: `update` got other shapes, NaN or integer scores, or targets outside {0, 1}.

    Example:
        >>> metric = BestF1(num_labels=2)
        >>> metric.update(torch.tensor([[0.9, 0.5], [0.8, 0.5], [0.1, 0.5]]),
        ...               torch.tensor([[1, 0], [0, 0], [1, 1]]))
        >>> f1, accuracy, threshold = metric.compute()
        >>> f1, threshold
        (tensor([0.8000, 0.5000]), tensor([0.1000, 0.5000]))
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Adds scores `(N, C)` and targets `(N, C)` in {0, 1}."""
        _check(scores, targets, self.num_labels)
        self.scores.append(scores.detach())
        self.targets.append(targets.long())

    def compute(self) -> F1Result:
        """The result over all records seen."""
        scores, order = dim_zero_cat(self.scores).sort(dim=0, descending=True)
        true_positives = dim_zero_cat(self.targets).gather(0, order).cumsum(0)
        n, positives = len(scores), true_positives[-1]
        predicted = torch.arange(1, n + 1, device=scores.device)[:, None]
        f1 = 2 * true_positives / (predicted + positives)
        # A threshold takes all records of equal score, so there is no cut inside a run of ties.
        f1[:-1].masked_fill_(scores[:-1] == scores[1:], -1.0)
        cut = f1.argmax(dim=0, keepdim=True)  # the first among equals, and so the highest threshold
        hits = n - positives - (cut[0] + 1) + 2 * true_positives.gather(0, cut)[0]
        return _result(f1.gather(0, cut)[0], hits / n, scores.gather(0, cut)[0], undefined=positives == 0)


class F1AtThreshold(Metric):
    r"""F1 and accuracy of every label at given thresholds, such as those that `BestF1` chose on validation data.

    .. math:: F_1 = \frac{2 \, TP}{PP + P}, \qquad \mathrm{ACC} = \frac{TP + TN}{N},
        \qquad \text{predicted where } s \ge t

    `update(scores, targets)` takes real scores `(N, C)` and targets `(N, C)` in {0, 1}; `compute()` returns
    an `F1Result`. Range [0, 1], higher is better. A label is NaN throughout if it has no positives here, or if its
    threshold is NaN because it had no positives in the data that the threshold was chosen on.

    Args:
        thresholds: Thresholds, as C numbers or a tensor `(C,)`, in the precision of the scores.

    Raises:
        ValueError: `update` got other shapes, NaN or integer scores, or targets outside {0, 1}.

    Example:
        >>> metric = F1AtThreshold([0.5, 0.5])
        >>> metric.update(torch.tensor([[0.9, 0.5], [0.8, 0.1], [0.1, 0.2]]),
        ...               torch.tensor([[1, 1], [0, 0], [1, 0]]))
        >>> result = metric.compute()
        >>> result.f1, result.f1_macro
        (tensor([0.5000, 1.0000]), tensor(0.7500))
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    thresholds: Tensor
    true_positives: Tensor
    predicted: Tensor
    positives: Tensor
    total: Tensor

    def __init__(self, thresholds: Tensor | Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        values = torch.atleast_1d(torch.as_tensor(thresholds)) * 1.0  # integers become float, float64 stays
        self.register_buffer("thresholds", values, persistent=False)
        # Counts are enough here, so memory does not grow with the records.
        for name in ("true_positives", "predicted", "positives"):
            counts = torch.zeros(len(self.thresholds), dtype=torch.long)
            self.add_state(name, default=counts, dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Adds scores `(N, C)` and targets `(N, C)` in {0, 1}."""
        _check(scores, targets, len(self.thresholds))
        chosen = scores >= self.thresholds
        self.true_positives += (chosen & targets.bool()).sum(0)
        self.predicted += chosen.sum(0)
        self.positives += targets.long().sum(0)
        self.total += len(scores)

    def compute(self) -> F1Result:
        """The result over all records seen."""
        hits = self.total - self.predicted - self.positives + 2 * self.true_positives
        return _result(
            2 * self.true_positives / (self.predicted + self.positives),
            hits / self.total,
            self.thresholds,
            undefined=(self.positives == 0) | self.thresholds.isnan(),
        )


def _result(f1: Tensor, accuracy: Tensor, threshold: Tensor, undefined: Tensor) -> F1Result:
    return F1Result(*(field.masked_fill(undefined, torch.nan) for field in (f1, accuracy, threshold)))


def _check(scores: Tensor, targets: Tensor, num_labels: int) -> None:
    if scores.ndim != 2 or scores.shape != targets.shape or scores.shape[1] != num_labels:
        raise ValueError(
            f"Expected scores and targets of shape (N, {num_labels}), "
            f"got {tuple(scores.shape)} and {tuple(targets.shape)}."
        )
    if not scores.is_floating_point():
        raise ValueError(f"Scores must be floating-point numbers, got {scores.dtype}.")
    if scores.isnan().any():
        rows = scores.isnan().any(1).nonzero()[:, 0]
        raise ValueError(
            f"{len(rows)} of {len(scores)} records have NaN scores, first in row {rows[0]}: check the model."
        )
    if not ((targets == 0) | (targets == 1)).all():
        raise ValueError("Targets must be 0 or 1, one column a label.")
