"""Linear evaluation: encode once, then fit many linear heads at once on the features.

Shapes: N records, D features, C classes, S seeds, L learning rates, H = S L heads.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from shared.metrics import auroc

LabelMode = Literal["single", "multi"]


@dataclass(frozen=True)
class Features:
    """Encoded records of one split.

    Attributes:
        x: `(N, D)` float32.
        target: `(N, C)` float32 in {0, 1}.
    """

    x: Tensor
    target: Tensor


@dataclass(frozen=True)
class ProbeResult:
    """The best head of every seed, by validation AUROC.

    Attributes:
        test_scores: `(S, N_test, C)`, see `class_scores`.
        val_scores: `(S, N_val, C)`.
        lr: `(S,)` learning rate chosen.
    """

    test_scores: NDArray[np.float64]
    val_scores: NDArray[np.float64]
    lr: NDArray[np.float64]


def class_scores(logits: Tensor, label_mode: LabelMode) -> NDArray[np.float64]:
    """What ranks records for a class, `(..., C)`: logits for multi-label, log-probabilities for single-label targets.

    Cross-entropy leaves a record's logits free up to a constant. Only the probability compares one record with another,
    so AUROC and thresholds of a class need it; its logarithm has the same order and does not saturate.
    """
    logits = logits.detach().cpu().double()
    scores: NDArray[np.float64] = (logits.log_softmax(-1) if label_mode == "single" else logits).numpy()
    return scores


@torch.no_grad()
def encode(
    encoder: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
) -> Features:
    """Features of every record by a frozen encoder: eval mode, no gradient.

    Args:
        encoder: `(B, ...) -> (B, D)`; left on `device`, in eval mode.
        batches: `(input, target)`.
        device: Where to encode.
    """
    encoder = encoder.to(device).eval()
    features, targets = [], []
    for signal, target in batches:
        features.append(encoder(signal.to(device)).float().cpu())
        targets.append(target.float().cpu())
    return Features(torch.cat(features), torch.cat(targets))


def linear_probe(
    train: Features,
    val: Features,
    test: Features,
    label_mode: LabelMode,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    lrs: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    epochs: int = 100,
    batch_size: int = 32,
    weight_decay: float = 0.0,
) -> ProbeResult:
    """Fit a linear classifier per seed and learning rate, and keep each seed's best on validation.

    All H heads are one batched matrix product; a seed has its own initialisation and its own order of the records.
    Features are standardised with the training split's statistics, which a linear layer could absorb. Adam; binary
    cross-entropy for multi-label targets, cross-entropy for single-label ones. The epoch is chosen on validation too.

    Args:
        train: Features the heads are fitted on.
        val: Features the learning rate and the epoch are chosen on, by macro AUROC over the classes present there.
        test: Features to score.
        label_mode: Whether a record has one label or several.
        seeds: Initialisation and order.
        lrs: Grid.
        epochs: Passes over the training features.
        batch_size: ETP, section 3.2: 32.
        weight_decay: Of Adam.

    Raises:
        ValueError: The training split is empty, or no class of the validation split has both values.
    """
    if len(train.x) == 0:
        raise ValueError("linear evaluation needs training records with labels, got none")
    mean, std = train.x.mean(0), train.x.std(0, correction=0).clamp_min(1e-6)
    x_ND, val_x, test_x = ((part.x - mean) / std for part in (train, val, test))
    usable = _classes_with_both_values(val.target)
    n, d, c = len(x_ND), x_ND.shape[1], train.target.shape[1]
    bound = d**-0.5  # nn.Linear's initialisation
    weights, biases, generators = [], [], []
    for _ in lrs:  # the same seeds for every rate: (S, D, C), (S, 1, C)
        seeded = [torch.Generator().manual_seed(seed) for seed in seeds]
        weights.append(torch.stack([torch.empty(d, c).uniform_(-bound, bound, generator=g) for g in seeded]))
        biases.append(torch.stack([torch.empty(1, c).uniform_(-bound, bound, generator=g) for g in seeded]))
        generators = seeded
    groups = [
        {"params": [weight.requires_grad_(), bias.requires_grad_()], "lr": lr}
        for weight, bias, lr in zip(weights, biases, lrs, strict=True)
    ]
    optimizer = torch.optim.Adam(groups, weight_decay=weight_decay)
    best = np.full(len(lrs) * len(seeds), -np.inf)
    best_weight, best_bias = torch.cat(weights).detach(), torch.cat(biases).detach()
    val_target = val.target.numpy()[:, usable]
    for _ in range(epochs):
        order_SN = torch.stack([torch.randperm(n, generator=g) for g in generators])
        for rows_SB in order_SN.split(batch_size, dim=1):
            rows_HB = rows_SB.repeat(len(lrs), 1)
            logits_HBC = torch.baddbmm(torch.cat(biases), x_ND[rows_HB], torch.cat(weights))
            loss = _sum_of_head_losses(logits_HBC, train.target[rows_HB], label_mode)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            weight, bias = torch.cat(weights), torch.cat(biases)
            scores = class_scores(_logits(val_x, weight, bias), label_mode)
        value = np.array([auroc(head[:, usable], val_target).mean() for head in scores])
        keep = torch.from_numpy(value > best).view(-1, 1, 1)
        best = np.maximum(best, value)
        best_weight, best_bias = torch.where(keep, weight, best_weight), torch.where(keep, bias, best_bias)

    best_lr = best.reshape(len(lrs), len(seeds)).argmax(0)
    chosen = torch.from_numpy(best_lr * len(seeds) + np.arange(len(seeds)))
    weight, bias = best_weight[chosen], best_bias[chosen]
    test_scores, val_scores = (class_scores(_logits(part, weight, bias), label_mode) for part in (test_x, val_x))
    return ProbeResult(test_scores, val_scores, np.asarray(lrs)[best_lr])


def _classes_with_both_values(target_NC: Tensor) -> NDArray[np.int64]:
    positives = target_NC.sum(0)
    usable = torch.nonzero((positives > 0) & (positives < len(target_NC)))[:, 0].numpy()
    if not len(usable):
        raise ValueError("no class has both values among the validation records, so nothing can be chosen on them")
    return usable


def _logits(x_ND: Tensor, weight_HDC: Tensor, bias_H1C: Tensor) -> Tensor:
    return torch.baddbmm(bias_H1C, x_ND.expand(len(weight_HDC), -1, -1), weight_HDC)


def _sum_of_head_losses(logits_HBC: Tensor, target_HBC: Tensor, label_mode: LabelMode) -> Tensor:
    """The sum over heads of each head's mean loss: no head's gradient depends on another."""
    if label_mode == "multi":
        return F.binary_cross_entropy_with_logits(logits_HBC, target_HBC, reduction="none").mean((1, 2)).sum()
    return -(logits_HBC.log_softmax(2) * target_HBC).sum(2).mean(1).sum()


def fine_tune(
    encoder: nn.Module,
    train_batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    val_batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    test_batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    feature_dim: int,
    num_classes: int,
    label_mode: LabelMode,
    seed: int = 0,
    lr: float = 1e-3,
    epochs: int = 10,
    device: torch.device | str = "cpu",
) -> NDArray[np.float64]:
    """Train encoder and a linear head together, and score the test split at the best validation epoch.

    Args:
        encoder: `(B, ...) -> (B, feature_dim)`; it is trained in place and ends at the best epoch.
        train_batches: `(input, target)` batches of an epoch.
        val_batches: The epoch is chosen on these, by macro AUROC over the classes present there.
        test_batches: To score.
        feature_dim: D.
        num_classes: C.
        label_mode: Whether a record has one label or several.
        seed: Of the head's initialisation.
        lr: Of Adam.
        epochs: Passes over the training split.
        device: Where to train.

    Returns:
        Scores of the test records `(N_test, C)`, see `class_scores`.

    Raises:
        ValueError: No class of the validation split has both values.
    """
    usable = _classes_with_both_values(torch.cat([target for _, target in val_batches()]))
    torch.manual_seed(seed)
    network = nn.Sequential(encoder, nn.Linear(feature_dim, num_classes)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    best, best_state = -np.inf, copy.deepcopy(network.state_dict())
    for epoch in tqdm(range(epochs), desc="fine-tune", unit="epoch", leave=False):
        network.train()
        for signal, target in train_batches(epoch):
            logits, target = network(signal.to(device)), target.to(device)
            if label_mode == "multi":
                loss = F.binary_cross_entropy_with_logits(logits, target)
            else:
                loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scored = encode(network, val_batches(), device)
        scores = class_scores(scored.x, label_mode)
        value = auroc(scores[:, usable], scored.target.numpy()[:, usable]).mean()
        if value > best:
            best, best_state = value, copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return class_scores(encode(network, test_batches(), device).x, label_mode)
