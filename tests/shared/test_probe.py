"""Linear evaluation against plain torch, a frozen encoder that stays frozen, and fine-tuning that learns."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from shared import probe
from shared.probe import Features, FineTuned, LabelMode, LinearHead, class_scores, encode, fine_tune, linear_probe


def planted(n: int, mode: LabelMode, seed: int, d: int = 6, c: int = 3) -> Features:
    """Features with a noisy linear rule behind the labels; columns of very different scale and offset."""
    generator = torch.Generator().manual_seed(seed)
    rule = torch.randn(d, c, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, d, generator=generator)
    scores = x @ rule + 0.5 * torch.randn(n, c, generator=generator)
    target = (scores > 0).float() if mode == "multi" else nn.functional.one_hot(scores.argmax(1), c).float()
    return Features((x + 3) * torch.logspace(-2, 2, d), target)


def macro_auroc(target: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(target, scores, average="macro"))


def hits_then_cross_entropy(target: np.ndarray, scores: np.ndarray) -> tuple[int, float]:
    """Accuracy of log-probabilities as a count, and minus their mean cross-entropy, in loops."""
    labels = [int(np.flatnonzero(row)[0]) for row in target]
    hits = sum(max(range(len(row)), key=row.__getitem__) == label for row, label in zip(scores, labels, strict=True))
    return hits, round(float(np.mean([row[label] for row, label in zip(scores, labels, strict=True)])), 6)


def plain_probe(
    train: Features, val: Features, test: Features, mode: LabelMode, seed: int, lr: float, epochs: int, batch: int,
    weight_decay: float = 0.0, quality: Callable[[np.ndarray, np.ndarray], Any] = macro_auroc,
) -> tuple[np.ndarray, np.ndarray, Any]:  # fmt: skip
    """One nn.Linear and torch.optim.Adam on the same initialisation and order: scores, and the best quality."""
    mean, std = train.x.double().mean(0), train.x.double().std(0, correction=0)
    parts = [((part.x.double() - mean) / std).float() for part in (train, val, test)]
    d, c = parts[0].shape[1], train.target.shape[1]
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(d, c)
    with torch.no_grad():
        head.weight.copy_(torch.empty(d, c).uniform_(-(d**-0.5), d**-0.5, generator=generator).T)
        head.bias.copy_(torch.empty(1, c).uniform_(-(d**-0.5), d**-0.5, generator=generator)[0])
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    loss_of = nn.BCEWithLogitsLoss() if mode == "multi" else nn.CrossEntropyLoss()
    score = nn.Identity() if mode == "multi" else nn.LogSoftmax(dim=1)
    best, scores = None, (np.empty(0), np.empty(0))
    for _ in range(epochs):
        for rows in torch.randperm(len(parts[0]), generator=generator).split(batch):
            optimizer.zero_grad()
            penalty = weight_decay / 2 * head.weight.square().sum()
            (loss_of(head(parts[0][rows]), train.target[rows]) + penalty).backward()
            optimizer.step()
        val_scores, test_scores = (score(head(x).detach().double()).numpy() for x in parts[1:])
        value = quality(val.target.numpy(), val_scores)
        if best is None or value > best:
            best, scores = value, (val_scores, test_scores)
    return *scores, best


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_every_head_is_a_plain_linear_layer_trained_by_adam(mode: LabelMode) -> None:
    train, val, test = planted(75, mode, 0), planted(60, mode, 1), planted(40, mode, 2)
    settings = {"epochs": 6, "batch_size": 16}
    for seed, lr in ((3, 1e-2), (4, 1e-1)):
        alone = linear_probe(train, val, test, mode, seeds=(seed,), lrs=(lr,), **settings)
        plain_val, plain_test, _ = plain_probe(train, val, test, mode, seed, lr, 6, 16)
        np.testing.assert_allclose(alone.val_scores[0], plain_val, atol=1e-5)
        np.testing.assert_allclose(alone.test_scores[0], plain_test, atol=1e-5)


def test_single_label_scores_do_not_depend_on_what_cross_entropy_leaves_free() -> None:
    torch.manual_seed(0)
    logits, target = 2 * torch.randn(200, 3), torch.eye(3)[torch.randint(3, (200,))]
    logits += 2 * target
    shifted = logits + 10 * torch.randn(200, 1)  # the same predictions and the same loss
    np.testing.assert_allclose(class_scores(shifted, "single"), class_scores(logits, "single"), atol=1e-4)
    expected = roc_auc_score(target.numpy(), logits.softmax(1).numpy(), average="macro")
    assert roc_auc_score(target.numpy(), class_scores(shifted, "single"), average="macro") == pytest.approx(expected)
    assert roc_auc_score(target.numpy(), shifted.numpy(), average="macro") < expected - 0.1
    np.testing.assert_array_equal(class_scores(logits, "multi"), logits.double().numpy())


def test_heads_do_not_depend_on_each_other_and_each_seed_takes_its_best_rate() -> None:
    train, val, test = planted(75, "multi", 0), planted(60, "multi", 1), planted(40, "multi", 2)
    seeds, lrs = (0, 1, 2), (1e-4, 1e-2, 3e-1)
    together = linear_probe(train, val, test, "multi", seeds, lrs, epochs=4, batch_size=32)
    assert together.test_scores.shape == (3, 40, 3)
    assert together.val_scores.shape == (3, 60, 3)
    for index, seed in enumerate(seeds):
        runs = {lr: plain_probe(train, val, test, "multi", seed, lr, 4, 32) for lr in lrs}
        best = max(lrs, key=lambda lr: runs[lr][2])
        assert together.lr[index] == best
        np.testing.assert_allclose(together.test_scores[index], runs[best][1], atol=1e-5)
    assert np.abs(together.test_scores[0] - together.test_scores[1]).max() > 1e-3


def test_every_seed_takes_its_best_rate_and_decay_by_accuracy_and_ties_go_to_the_lower_cross_entropy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "VALIDATION_LOGITS", 5 * 12 * 3)  # validates five heads at a time
    train, val, test = planted(40, "single", 0), planted(12, "single", 1), planted(40, "single", 2)
    seeds, lrs, decays = (0, 1, 2), (1e-2, 1e-1), (1e-1, 0.0, 1e-2)
    settings = {"epochs": 5, "batch_size": 16, "weight_decays": decays, "metric": "accuracy"}
    together = linear_probe(train, val, test, "single", seeds, lrs, **settings)
    tied = 0
    for index, seed in enumerate(seeds):
        runs = {
            (lr, decay): plain_probe(train, val, test, "single", seed, lr, 5, 16, decay, hits_then_cross_entropy)
            for lr in lrs
            for decay in decays
        }
        best = max(runs, key=lambda setting: runs[setting][2])
        tied += sum(run[2][0] == runs[best][2][0] for run in runs.values()) > 1
        assert (together.lr[index], together.weight_decay[index]) == best
        np.testing.assert_allclose(together.val_scores[index], runs[best][0], atol=1e-5)
        np.testing.assert_allclose(together.test_scores[index], runs[best][1], atol=1e-5)
    assert tied  # or the tie-breaker was not tested
    assert {*together.weight_decay} != {decays[0]}


def test_between_equal_aurocs_the_earlier_epoch_and_the_earlier_rate_win() -> None:
    train, val, test = planted(75, "multi", 0), planted(8, "multi", 5), planted(40, "multi", 2)
    runs = [plain_probe(train, val, test, "multi", 0, lr, 12, 16) for lr in (3e-2, 1e-1)]
    assert [run[2] for run in runs] == [1.0, 1.0]  # or there was no tie
    result = linear_probe(train, val, test, "multi", (0,), (3e-2, 1e-1), 12, 16)
    assert result.lr == 3e-2
    np.testing.assert_allclose(result.test_scores[0], runs[0][1], atol=1e-5)


def test_weight_decay_is_the_ridge_penalty_of_logistic_regression() -> None:
    """Full batches to convergence, against scikit-learn, whose penalty is |weight|^2 / (2 C N) and spares the bias."""
    train, test = planted(60, "single", 0), planted(40, "single", 2)
    settings = {"seeds": (0,), "lrs": (3e-2,), "epochs": 600, "batch_size": 60, "metric": "accuracy"}
    # Validated on the training records, whose cross-entropy falls until the penalty holds it: the last epochs win.
    head = linear_probe(train, train, test, "single", weight_decays=(0.05,), **settings).heads[0]
    x = ((train.x - head.mean) / head.std).numpy()
    labels = train.target.argmax(1).numpy()
    expected = LogisticRegression(C=1 / (0.05 * 60), tol=1e-10, max_iter=10_000).fit(x, labels)
    np.testing.assert_allclose(head.weight.T.numpy(), expected.coef_, atol=2e-3)


def test_accuracy_does_not_need_every_class_in_validation() -> None:
    train, val, test = planted(75, "single", 0), planted(60, "single", 1), planted(40, "single", 2)
    some = val.target[:, 0] == 0
    without_first = Features(val.x[some], val.target[some])
    result = linear_probe(train, without_first, test, "single", (0,), (1e-2,), 20, metric="accuracy")
    assert (result.test_scores[0].argmax(1) == test.target.argmax(1).numpy()).mean() > 0.6


def test_a_saved_head_scores_as_the_probe_did(tmp_path: Path) -> None:
    train, val, test = planted(75, "single", 0), planted(60, "single", 1), planted(40, "single", 2)
    result = linear_probe(train, val, test, "single", (0, 1), (1e-2, 1e-1), 3, weight_decays=(0.0, 1e-3))
    assert len(result.heads) == 2
    for head, scores in zip(result.heads, result.test_scores, strict=True):
        torch.save(vars(head), tmp_path / "head.pt")
        loaded = LinearHead(**torch.load(tmp_path / "head.pt", weights_only=True))
        np.testing.assert_array_equal(loaded.scores(test.x), scores)
        np.testing.assert_allclose(loaded.scores(test.x[:1].double()), scores[:1], atol=1e-6)
        assert head.weight.untyped_storage().nbytes() == 4 * head.weight.numel()  # not a view of all heads
    logits = ((test.x - loaded.mean) / loaded.std) @ loaded.weight + loaded.bias
    np.testing.assert_allclose(loaded.scores(test.x), logits.log_softmax(1).numpy(), atol=1e-5)


def test_a_class_that_validation_lacks_does_not_take_part_in_choosing() -> None:
    train, val, test = planted(75, "multi", 0), planted(60, "multi", 1), planted(40, "multi", 2)
    two = Features(val.x, torch.cat([val.target[:, :2], torch.zeros(60, 1)], 1))
    result = linear_probe(train, two, test, "multi", seeds=(0,), lrs=(1e-2,), epochs=3)
    assert np.isfinite(result.test_scores).all()
    assert result.test_scores.shape == (1, 40, 3)


def test_a_feature_that_is_constant_in_training_does_not_touch_the_scores() -> None:
    train, val, test = planted(75, "single", 0), planted(60, "single", 1), planted(40, "single", 2)
    wild = [Features(part.x.clone(), part.target) for part in (train, val, test)]
    wild[0].x[:, 2] = 0.1  # whose mean over 75 records is not exactly 0.1
    found = []
    for values in (3.0, 50.0):
        wild[1].x[:, 2] = wild[2].x[:, 2] = values
        found.append(linear_probe(*wild, "single", (0,), (1e-2,), epochs=3).test_scores)
    np.testing.assert_array_equal(found[0], found[1])


def test_one_training_record_and_a_constant_feature_are_no_nan() -> None:
    train, val = planted(1, "multi", 0), planted(30, "multi", 1)
    assert np.isfinite(linear_probe(train, val, val, "multi", (0,), (1e-2,), epochs=2).test_scores).all()


def test_nothing_to_train_or_to_choose_on_is_said() -> None:
    some, none = planted(20, "multi", 0), Features(torch.empty(0, 6), torch.empty(0, 3))
    with pytest.raises(ValueError, match=r"^linear evaluation needs training records with labels, got none$"):
        linear_probe(none, some, some, "multi")
    with pytest.raises(ValueError, match=r"^there are no validation records, so nothing can be chosen on them$"):
        linear_probe(some, none, some, "single", metric="accuracy")
    with pytest.raises(ValueError, match=r"^accuracy is for records with one label each: choose metric 'auroc' for"):
        linear_probe(some, some, some, "multi", metric="accuracy")
    spoilt = Features(some.x.clone(), some.target)
    spoilt.x[[7, 9], 2] = torch.tensor([torch.inf, torch.nan])
    with pytest.raises(ValueError, match=r"^the validation features hold NaN or infinite values, first in row 7: chec"):
        linear_probe(some, spoilt, some, "multi")
    flat = Features(some.x, torch.ones(20, 3))
    message = r"^no class has both values among the validation records, so nothing can be chosen on them$"
    with pytest.raises(ValueError, match=message):
        linear_probe(some, flat, some, "multi")
    with pytest.raises(ValueError, match=message):
        fine_tune(nn.Identity(), lambda epoch: [], lambda: [(flat.x, flat.target)], lambda: [], 6, 3, "multi")


def test_encoding_freezes_batch_norm_and_keeps_no_graph() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    batches = [(torch.randn(3, 4) + 10, torch.ones(3, 2)), (torch.randn(2, 4), torch.zeros(2, 2))]
    features = encode(encoder, iter(batches))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert features.x.shape == (5, 5)
    assert not features.x.requires_grad
    expected = encoder[0](torch.cat([x for x, _ in batches])) / (1 + encoder[1].eps) ** 0.5
    torch.testing.assert_close(features.x, expected.detach())  # fresh statistics: mean 0, variance 1, no dropout
    assert torch.equal(features.target, torch.tensor([[1.0, 1]] * 3 + [[0.0, 0]] * 2))
    assert not encoder.training


class FineTuning:
    """A planted set whose training batches turn to nonsense after some epochs."""

    def __init__(self, mode: LabelMode, good_epochs: int = 99) -> None:
        self.train, self.val, self.test = (planted(n, mode, seed) for n, seed in ((160, 0), (60, 1), (80, 2)))
        self.good_epochs = good_epochs
        self.encoder = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU())
        self.mode = mode
        self.epochs_run = 0

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.epochs_run += 1
        order = torch.randperm(160, generator=torch.Generator().manual_seed(epoch))
        wrong = epoch >= self.good_epochs
        for rows in order.split(32) * (10 if wrong else 1):  # enough to turn Adam's momentum round
            yield self.train.x[rows], 1 - self.train.target[rows] if wrong else self.train.target[rows]

    def run(self, epochs: int, **settings: Any) -> FineTuned:
        return fine_tune(
            self.encoder, self.batches, lambda: [(self.val.x, self.val.target)],
            lambda: [(self.test.x, self.test.target)], 8, 3, self.mode, seed=1, lr=2e-2, epochs=epochs, **settings,
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_fine_tuning_learns_planted_structure(mode: LabelMode) -> None:
    torch.manual_seed(0)
    task = FineTuning(mode)
    tuned = task.run(epochs=15)
    assert tuned.test_scores.shape == (80, 3)
    if mode == "single":
        np.testing.assert_allclose(np.exp(tuned.test_scores).sum(1), 1)
    assert roc_auc_score(task.test.target.numpy(), tuned.test_scores, average="macro") > 0.9
    assert roc_auc_score(task.val.target.numpy(), tuned.val_scores, average="macro") > 0.9


def test_fine_tuning_returns_to_the_best_epoch() -> None:
    torch.manual_seed(0)
    good = FineTuning("multi")
    start = {key: value.clone() for key, value in good.encoder.state_dict().items()}
    expected = good.run(epochs=4)
    spoiled = FineTuning("multi", good_epochs=4)
    spoiled.encoder.load_state_dict(start)
    found = spoiled.run(epochs=6)
    assert found.epoch == expected.epoch < 4
    np.testing.assert_array_equal(found.test_scores, expected.test_scores)
    np.testing.assert_array_equal(found.val_scores, expected.val_scores)
    for key, value in spoiled.encoder.state_dict().items():
        assert torch.equal(value, good.encoder.state_dict()[key])


def test_the_tuned_network_is_kept_with_its_head_and_predicts_what_was_scored() -> None:
    torch.manual_seed(0)
    task = FineTuning("single")
    tuned = task.run(epochs=3, metric="accuracy")
    assert tuned.network[0] is task.encoder
    assert not tuned.network.training
    assert tuned.network[1].weight.shape == (3, 8)
    with torch.no_grad():
        np.testing.assert_array_equal(class_scores(tuned.network(task.test.x), "single"), tuned.test_scores)


class Scripted(nn.Module):
    """An encoder whose features follow a script by epoch: `(hits of the four validation records, confidence)`."""

    def __init__(self, script: list[tuple[int, float]]) -> None:
        super().__init__()
        self.register_buffer("features", torch.tensor([]))
        self.script = script

    def load(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """No batches, but the features of this epoch: of class 0 for a hit, of class 1 for a miss."""
        hits, confidence = self.script[epoch]
        self.features = confidence * torch.eye(2)[[0] * hits + [1] * (4 - hits)]
        yield from ()

    def forward(self, x: Tensor) -> Tensor:
        return self.features


@pytest.mark.parametrize(
    ("script", "settings", "best", "epochs_run"),
    [
        ([(2, 1.0), (3, 1.0), (3, 0.5), (2, 1.0)], {}, 1, 4),  # 3 of 4 twice: the lower cross-entropy is epoch 1's
        ([(2, 1.0), (3, 0.5), (3, 1.0), (2, 1.0)], {}, 2, 4),
        ([(2, 1.0), (3, 1.0), (2, 1.0), (2, 1.0), (4, 1.0)], {"patience": 2}, 1, 4),
        ([(2, 1.0), (3, 1.0), (2, 1.0), (4, 1.0), (4, 1.0)], {"patience": 2}, 3, 5),
        ([(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)], {"patience": 2, "min_delta": 0.6}, 2, 3),  # too slow to go on
        ([(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)], {"patience": 2, "min_delta": 0.4}, 3, 4),  # + 2 hits in 2 epochs
        ([(2, 1.0), (3, 0.5), (3, 1.0), (4, 1.0)], {"patience": 1}, 2, 3),  # best by a tie is no improvement
    ],
)
def test_fine_tuning_stops_when_accuracy_no_longer_improves(
    monkeypatch: pytest.MonkeyPatch,
    script: list[tuple[int, float]],
    settings: dict[str, Any],
    best: int,
    epochs_run: int,
) -> None:
    run = []
    encoder = Scripted(script)
    target = torch.eye(2)[[0, 0, 0, 0]]

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        run.append(epoch)
        return encoder.load(epoch)

    def identity(layer: nn.Linear) -> None:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)

    monkeypatch.setattr(nn.Linear, "reset_parameters", identity)
    held_out = [(torch.zeros(4, 1), target)]
    tuned = fine_tune(
        encoder, batches, lambda: held_out, lambda: held_out, 2, 2, "single",
        epochs=len(script), metric="accuracy", **settings,
    )  # fmt: skip
    assert (tuned.epoch, len(run)) == (best, epochs_run)
    assert (tuned.val_scores.argmax(1) == 0).sum() == script[best][0]  # the features of the best epoch are back


def test_patience_below_one_epoch_is_named() -> None:
    with pytest.raises(ValueError, match=r"^patience must be at least 1 epoch, or None, got 0$"):
        FineTuning("multi").run(epochs=1, patience=0)


def test_fine_tuning_hands_images_to_the_encoder_as_they_are_and_decays_weights() -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 4)

        def forward(self, image: Tensor) -> Tensor:
            assert image.dtype == torch.uint8
            return self.linear(image.flatten(1) / 255)

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 2, 2), generator=generator, dtype=torch.uint8)
    target = nn.functional.one_hot((images[:, 0, 0, 0] > 127).long(), 2).float()
    batches = [(images, target)]
    norms = []
    for weight_decay in (0.0, 1.0):
        torch.manual_seed(0)
        tuned = fine_tune(
            Images(), lambda epoch: batches, lambda: batches, lambda: batches, 4, 2, "single",
            lr=1e-2, epochs=60, metric="accuracy", weight_decay=weight_decay,
        )  # fmt: skip
        norms.append(sum(x.norm().item() for x in tuned.network.parameters()))
        if not weight_decay:
            assert (tuned.test_scores.argmax(1) == target.argmax(1).numpy()).mean() > 0.9
    assert norms[1] < 0.9 * norms[0]
