"""Linear evaluation against plain torch, a frozen encoder that stays frozen, and fine-tuning that learns."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from shared.probe import Features, LabelMode, class_scores, encode, fine_tune, linear_probe


def planted(n: int, mode: LabelMode, seed: int, d: int = 6, c: int = 3) -> Features:
    """Features with a noisy linear rule behind the labels; columns of very different scale and offset."""
    generator = torch.Generator().manual_seed(seed)
    rule = torch.randn(d, c, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, d, generator=generator)
    scores = x @ rule + 0.5 * torch.randn(n, c, generator=generator)
    target = (scores > 0).float() if mode == "multi" else nn.functional.one_hot(scores.argmax(1), c).float()
    return Features((x + 3) * torch.logspace(-2, 2, d), target)


def plain_probe(
    train: Features, val: Features, test: Features, mode: LabelMode, seed: int, lr: float, epochs: int, batch: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """One nn.Linear and torch.optim.Adam on the same initialisation and order: scores, and the best macro AUROC."""
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
    best, scores = -1.0, (np.empty(0), np.empty(0))
    for _ in range(epochs):
        for rows in torch.randperm(len(parts[0]), generator=generator).split(batch):
            optimizer.zero_grad()
            loss_of(head(parts[0][rows]), train.target[rows]).backward()
            optimizer.step()
        val_scores, test_scores = (score(head(x).detach().double()).numpy() for x in parts[1:])
        value = float(roc_auc_score(val.target.numpy(), val_scores, average="macro"))
        if value > best:
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


def test_weight_decay_shrinks_the_weights() -> None:
    parts = planted(75, "multi", 0), planted(60, "multi", 1), planted(40, "multi", 2)
    spread = [linear_probe(*parts, "multi", (0,), (1e-2,), 20, weight_decay=w).test_scores.std() for w in (0.0, 1.0)]
    assert spread[1] < 0.5 * spread[0]


def test_a_class_that_validation_lacks_does_not_take_part_in_choosing() -> None:
    train, val, test = planted(75, "multi", 0), planted(60, "multi", 1), planted(40, "multi", 2)
    two = Features(val.x, torch.cat([val.target[:, :2], torch.zeros(60, 1)], 1))
    result = linear_probe(train, two, test, "multi", seeds=(0,), lrs=(1e-2,), epochs=3)
    assert np.isfinite(result.test_scores).all()
    assert result.test_scores.shape == (1, 40, 3)


def test_one_training_record_and_a_constant_feature_are_no_nan() -> None:
    train, val = planted(1, "multi", 0), planted(30, "multi", 1)
    assert np.isfinite(linear_probe(train, val, val, "multi", (0,), (1e-2,), epochs=2).test_scores).all()


def test_nothing_to_train_or_to_choose_on_is_said() -> None:
    some, none = planted(20, "multi", 0), Features(torch.empty(0, 6), torch.empty(0, 3))
    with pytest.raises(ValueError, match=r"^linear evaluation needs training records with labels, got none$"):
        linear_probe(none, some, some, "multi")
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

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(160, generator=torch.Generator().manual_seed(epoch))
        wrong = epoch >= self.good_epochs
        for rows in order.split(32) * (10 if wrong else 1):  # enough to turn Adam's momentum round
            yield self.train.x[rows], 1 - self.train.target[rows] if wrong else self.train.target[rows]

    def run(self, epochs: int) -> np.ndarray:
        return fine_tune(
            self.encoder, self.batches, lambda: [(self.val.x, self.val.target)],
            lambda: [(self.test.x, self.test.target)], 8, 3, self.mode, seed=1, lr=2e-2, epochs=epochs,
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_fine_tuning_learns_planted_structure(mode: LabelMode) -> None:
    torch.manual_seed(0)
    task = FineTuning(mode)
    scores = task.run(epochs=15)
    assert scores.shape == (80, 3)
    if mode == "single":
        np.testing.assert_allclose(np.exp(scores).sum(1), 1)
    assert roc_auc_score(task.test.target.numpy(), scores, average="macro") > 0.9


def test_fine_tuning_returns_to_the_best_epoch() -> None:
    torch.manual_seed(0)
    good = FineTuning("multi")
    start = {key: value.clone() for key, value in good.encoder.state_dict().items()}
    expected = good.run(epochs=4)
    spoiled = FineTuning("multi", good_epochs=4)
    spoiled.encoder.load_state_dict(start)
    scores = spoiled.run(epochs=6)
    np.testing.assert_array_equal(scores, expected)
    for key, value in spoiled.encoder.state_dict().items():
        assert torch.equal(value, good.encoder.state_dict()[key])
