"""Linear evaluation: encode once, then fit many linear heads at once on the features.

Shapes: N records, D features, C classes, S seeds, L learning rates, W weight decays, H = L W S heads.
"""

import copy
import itertools
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
Metric = Literal["auroc", "accuracy"]

VALIDATION_LOGITS = 2**24  # largest number of validation logits computed at a time, over several heads: 64 MB


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
class LinearHead:
    """A linear classifier of features, with the standardisation that it was fitted under.

    Its attributes are plain: `torch.save(vars(head), path)` saves it, and `LinearHead(**torch.load(path))` restores it.

    Attributes:
        weight: `(D, C)` float32 weights of the standardised features.
        bias: `(C,)` biases.
        mean: `(D,)` means of the training features.
        std: `(D,)` standard deviations of the training features.
        label_mode: Whether a record has one label or several.

    Example:
        >>> head = LinearHead(torch.eye(2), torch.zeros(2), torch.ones(2), torch.tensor([1.0, 2.0]), "multi")
        >>> head.scores(torch.tensor([[2.0, 5.0]]))
        array([[1., 2.]])
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    label_mode: LabelMode

    def scores(self, features: Tensor) -> NDArray[np.float64]:
        """Scores `(N, C)` of features `(N, D)`, computed on the head's device; see `class_scores`."""
        x_ND = (features.to(self.mean) - self.mean) / self.std
        return class_scores(_logits(x_ND, self.weight[None], self.bias[None, None])[0], self.label_mode)

    def cpu(self) -> "LinearHead":
        """The same head on the CPU."""
        return LinearHead(self.weight.cpu(), self.bias.cpu(), self.mean.cpu(), self.std.cpu(), self.label_mode)


@dataclass(frozen=True)
class ProbeResult:
    """The best head of every seed, by validation.

    Attributes:
        test_scores: `(S, N_test, C)` scores, see `class_scores`.
        val_scores: `(S, N_val, C)` scores.
        lr: `(S,)` chosen learning rates.
        weight_decay: `(S,)` chosen weight decays.
        heads: The S classifiers, on the CPU.
    """

    test_scores: NDArray[np.float64]
    val_scores: NDArray[np.float64]
    lr: NDArray[np.float64]
    weight_decay: NDArray[np.float64]
    heads: tuple[LinearHead, ...]


@dataclass(frozen=True)
class FineTuned:
    """A trained encoder with its head, at the best validation epoch.

    Attributes:
        network: The encoder followed by the linear head, in eval mode and on the device that it was trained on.
        val_scores: `(N_val, C)` scores, see `class_scores`.
        test_scores: `(N_test, C)` scores.
        epoch: The best epoch, counted from 0.
    """

    network: nn.Sequential
    val_scores: NDArray[np.float64]
    test_scores: NDArray[np.float64]
    epoch: int


def class_scores(logits: Tensor, label_mode: LabelMode) -> NDArray[np.float64]:
    """Scores `(..., C)` that rank records for a class: logits for multi-label, log-probabilities for single-label ones.

    Cross-entropy determines a record's logits only up to a constant. Only probabilities compare one record with
    another, so AUROC and thresholds of a class need them; their logarithms have the same order and do not saturate.
    """
    logits = logits.detach().cpu().double()
    scores: NDArray[np.float64] = (logits.log_softmax(-1) if label_mode == "single" else logits).numpy()
    return scores


@torch.no_grad()
def encode(
    encoder: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
) -> Features:
    """Features of every record from a frozen encoder: eval mode, no gradient.

    Args:
        encoder: `(B, ...) -> (B, D)`; it is left on `device`, in eval mode.
        batches: The batches `(input, target)`.
        device: The device to encode on.
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
    weight_decays: Sequence[float] = (0.0,),
    metric: Metric = "auroc",
    device: torch.device | str = "cpu",
) -> ProbeResult:
    """Fit a linear classifier per seed, learning rate and weight decay, and keep each seed's best on validation.

    All H heads are fitted in one batched matrix product; each seed has its own initialisation and order of the records.
    Features are standardised with the training split's statistics (a linear layer could absorb that); a feature that
    does not vary there is left out. The optimiser is Adam, and the loss is binary cross-entropy for multi-label targets
    and cross-entropy for single-label ones. The epoch is chosen on validation too.

    Accuracy is a multiple of 1 / N_val, so settings often tie; then the lower validation cross-entropy decides. Between
    equal macro AUROCs the earlier epoch and the earlier setting win.

    Args:
        train: Features that the heads are fitted on.
        val: Features that the learning rate, the weight decay and the epoch are chosen on.
        test: Features to score.
        label_mode: Whether a record has one label or several.
        seeds: Seeds of the initialisation and of the order of the records.
        lrs: Learning rates to choose from.
        epochs: Number of passes over the training features.
        batch_size: Records in a batch (ETP, section 3.2: 32). Each step also reads and writes every head's weights and
            Adam's moments, so with many or large heads a batch of several hundred is much faster.
        weight_decays: Weight decays to choose from: w in the L2 penalty w / 2 |weight|^2 on the mean loss, which
            applies to the weights but not to the biases.
        metric: What is maximised on validation: "auroc", the macro AUROC over the classes that have both values there,
            or "accuracy", the share of records whose highest score is that of their label (single-label targets; a
            class may be absent).
        device: The device to fit on. Its memory holds the training and validation features, 6 H D C floats, and H
            batches of features.

    Raises:
        ValueError: The training split is empty, features are not finite, or validation has nothing to choose by: no
            class with both values, no record, or several labels per record when accuracy is asked for.
    """
    if len(train.x) == 0:
        raise ValueError("linear evaluation needs training records with labels, got none")
    for split, part in (("training", train), ("validation", val), ("test", test)):
        if len(bad := torch.nonzero(~part.x.isfinite().all(1))):
            raise ValueError(
                f"the {split} features hold NaN or infinite values, first in row {int(bad[0])}: check the encoder"
            )
    mean, std = train.x.mean(0), _scale(train.x)
    x_ND, val_x = (((part.x - mean) / std).to(device) for part in (train, val))
    target_NC = train.target.to(device)
    quality = _quality(val.target.to(device), label_mode, metric)
    n, d, c = len(x_ND), x_ND.shape[1], train.target.shape[1]
    bound = d**-0.5  # nn.Linear's initialisation
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weight_SDC = torch.stack([torch.empty(d, c).uniform_(-bound, bound, generator=g) for g in generators])
    bias_S1C = torch.stack([torch.empty(1, c).uniform_(-bound, bound, generator=g) for g in generators])
    settings = list(itertools.product(lrs, weight_decays))
    weight_HDC, bias_H1C = (x.repeat(len(settings), 1, 1).to(device).requires_grad_() for x in (weight_SDC, bias_S1C))
    # Adam has one rate and one decay per tensor, so it steps a view of each setting's heads.
    weights, biases = (x.detach().split(len(seeds)) for x in (weight_HDC, bias_H1C))
    groups = []
    for weight, bias, (lr, weight_decay) in zip(weights, biases, settings, strict=True):
        groups.append({"params": [weight], "lr": lr, "weight_decay": weight_decay})
        groups.append({"params": [bias], "lr": lr})
    optimizer = torch.optim.Adam(groups)
    best = [(-np.inf, -np.inf)] * len(weight_HDC)
    best_weight, best_bias = weight_HDC.detach().clone(), bias_H1C.detach().clone()
    at_once = max(1, VALIDATION_LOGITS // max(1, len(val_x) * c))
    for _ in tqdm(range(epochs), desc="linear probe", unit="epoch", leave=False, disable=None):
        order_SN = torch.stack([torch.randperm(n, generator=g) for g in generators]).to(device)
        for rows_SB in order_SN.split(batch_size, dim=1):
            rows_HB = rows_SB.repeat(len(settings), 1)
            logits_HBC = torch.baddbmm(bias_H1C, x_ND[rows_HB], weight_HDC)
            loss = _head_losses(logits_HBC, target_NC[rows_HB], label_mode).sum()  # no head affects another's gradient
            for views, grad in zip((weights, biases), torch.autograd.grad(loss, (weight_HDC, bias_H1C)), strict=True):
                for view, part in zip(views, grad.split(len(seeds)), strict=True):
                    view.grad = part
            optimizer.step()
        with torch.no_grad():
            parts = zip(weight_HDC.split(at_once), bias_H1C.split(at_once), strict=True)
            found = [value for part in parts for value in quality(_logits(val_x, *part))]
            better = torch.tensor([new > old for new, old in zip(found, best, strict=True)], device=device)
            best = [max(pair) for pair in zip(best, found, strict=True)]
            best_weight[better], best_bias[better] = weight_HDC[better], bias_H1C[better]

    heads_of_seed = [range(s, len(best), len(seeds)) for s in range(len(seeds))]  # setting by setting
    rows = [max(of_seed, key=best.__getitem__) for of_seed in heads_of_seed]
    mean, std = mean.to(device), std.to(device)
    # Cloned, because saving a view would save the storage of all heads.
    heads = [LinearHead(best_weight[row].clone(), best_bias[row, 0].clone(), mean, std, label_mode) for row in rows]
    val_scores, test_scores = (np.stack([head.scores(part.x) for head in heads]) for part in (val, test))
    lr, weight_decay = np.asarray([settings[row // len(seeds)] for row in rows]).T
    return ProbeResult(test_scores, val_scores, lr, weight_decay, tuple(head.cpu() for head in heads))


def _scale(x_ND: Tensor) -> Tensor:
    """What features are divided by, `(D,)`: their standard deviation, or infinity where that is only rounding error.

    A feature that is constant over the few training records, such as that of a silent ReLU, teaches its weight nothing.
    Divided by a tiny number, it would magnify that weight's random initial value a thousandfold in the scores of
    records where the ReLU is not silent.
    """
    std = x_ND.std(0, correction=0)
    return torch.where(std > 1e-6 * x_ND.abs().amax(0), std, torch.inf)


def _quality(target_NC: Tensor, label_mode: LabelMode, metric: Metric) -> Callable[[Tensor], list[tuple[float, float]]]:
    """What to maximise on validation records: maps logits `(H, N, C)` to a metric and a tie-breaker for each head."""
    if metric == "accuracy":
        if label_mode != "single":
            raise ValueError("accuracy is for records with one label each: choose metric 'auroc' for several")
        if not len(target_NC):
            raise ValueError("there are no validation records, so nothing can be chosen on them")

        def accuracy(logits_HNC: Tensor) -> list[tuple[float, float]]:
            highest = logits_HNC.argmax(2, keepdim=True)
            hits = target_NC.expand_as(logits_HNC).gather(2, highest).mean((1, 2))
            losses = _head_losses(logits_HNC, target_NC, "single")
            return list(zip(hits.tolist(), (-losses).tolist(), strict=True))

        return accuracy

    positives = target_NC.sum(0)
    usable = torch.nonzero((positives > 0) & (positives < len(target_NC)))[:, 0].cpu().numpy()
    if not len(usable):
        raise ValueError("no class has both values among the validation records, so nothing can be chosen on them")
    target = target_NC.cpu().numpy()[:, usable]

    def macro_auroc(logits_HNC: Tensor) -> list[tuple[float, float]]:
        scores = class_scores(logits_HNC, label_mode)
        return [(float(auroc(head[:, usable], target).mean()), 0.0) for head in scores]

    return macro_auroc


def _logits(x_ND: Tensor, weight_HDC: Tensor, bias_H1C: Tensor) -> Tensor:
    return torch.baddbmm(bias_H1C, x_ND.expand(len(weight_HDC), -1, -1), weight_HDC)


def _head_losses(logits_HBC: Tensor, target_HBC: Tensor, label_mode: LabelMode) -> Tensor:
    """Each head's mean loss, `(H,)`."""
    if label_mode == "multi":
        return F.binary_cross_entropy_with_logits(logits_HBC, target_HBC, reduction="none").mean((1, 2))
    return -(logits_HBC.log_softmax(2) * target_HBC).sum(2).mean(1)


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
    metric: Metric = "auroc",
    patience: int | None = None,
    min_delta: float = 0.0,
    weight_decay: float = 0.0,
) -> FineTuned:
    """Train an encoder and a linear head together, and score validation and test at the best validation epoch.

    Inputs are passed to the encoder as they are, whatever their type; augmenting them is left to `train_batches`.

    Args:
        encoder: `(B, ...) -> (B, feature_dim)`; it is trained in place and ends at the best epoch.
        train_batches: Gives the batches `(input, target)` of an epoch; targets are `(B, C)` floats in {0, 1}.
        val_batches: Gives the batches that the epoch is chosen on by `metric`: the same records in the same order at
            every call.
        test_batches: Gives the batches to score.
        feature_dim: Number of features, D.
        num_classes: Number of classes, C.
        label_mode: Whether a record has one label or several.
        seed: Seed of the head's initialisation.
        lr: Learning rate of Adam.
        epochs: Largest number of passes over the training split.
        device: The device to train on.
        metric: Macro AUROC, or accuracy with its tie-breaker, as in `linear_probe`.
        patience: Stop after this many epochs in a row without an improvement; None trains all epochs.
        min_delta: Smallest gain over the last improvement that counts as an improvement for `patience`. The best epoch
            may be one with a smaller gain.
        weight_decay: Weight decay of Adam, on all parameters.

    Raises:
        ValueError: The patience is below 1, or validation has nothing to choose by, see `linear_probe`.
    """
    if patience is not None and patience < 1:
        raise ValueError(f"patience must be at least 1 epoch, or None, got {patience}")
    quality = _quality(torch.cat([target.float() for _, target in val_batches()]), label_mode, metric)
    torch.manual_seed(seed)
    network = nn.Sequential(encoder, nn.Linear(feature_dim, num_classes)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
    best, best_state, best_epoch = (-np.inf, -np.inf), copy.deepcopy(network.state_dict()), 0
    improved, waited = -np.inf, 0
    for epoch in tqdm(range(epochs), desc="fine-tune", unit="epoch", leave=False, disable=None):
        network.train()
        for inputs, target in train_batches(epoch):
            logits, target = network(inputs.to(device)), target.to(device)
            if label_mode == "multi":
                loss = F.binary_cross_entropy_with_logits(logits, target)
            else:
                loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found = quality(encode(network, val_batches(), device).x[None])[0]
        if found > best:
            best, best_state, best_epoch = found, copy.deepcopy(network.state_dict()), epoch
        waited += 1
        if found[0] > improved + min_delta:
            improved, waited = found[0], 0
        if waited == patience:
            break
    network.load_state_dict(best_state)
    val_scores, test_scores = (
        class_scores(encode(network, batches(), device).x, label_mode) for batches in (val_batches, test_batches)
    )
    return FineTuned(network, val_scores, test_scores, best_epoch)
