import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve

from shared.metrics import BestF1, F1AtThreshold


def data(n: int = 200, levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Synthetic scores `(n, 3)`, rounded to multiples of `8 / levels`, and targets of three prevalences."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(n, 3, generator=generator) < torch.tensor([0.5, 0.2, 0.05])).long()
    scores = targets + 1.5 * torch.randn(n, 3, generator=generator)
    if levels:
        scores = (scores * levels / 8).round()
    return scores, targets


def best_f1(scores: torch.Tensor, targets: torch.Tensor):
    metric = BestF1(num_labels=scores.shape[1])
    metric.update(scores, targets)
    return metric.compute()


def constant_scores() -> tuple[torch.Tensor, torch.Tensor]:
    """200 records of one score, prevalence 0.105."""
    return torch.full((200, 2), 0.3), (torch.arange(200) < 21).long()[:, None].repeat(1, 2)


@pytest.mark.parametrize("levels", [None, 8, 1])
def test_best_f1_equals_the_search_over_scikit_learns_curve(levels):
    scores, targets = data(levels=levels)
    result = best_f1(scores, targets)
    for c in range(3):
        s, y = scores[:, c].numpy(), targets[:, c].numpy()
        candidates = precision_recall_curve(y, s)[2]
        f1s = [f1_score(y, s >= t) for t in candidates]
        assert result.f1[c].item() == pytest.approx(max(f1s), abs=1e-6)
        threshold = result.threshold[c].item()
        assert threshold == max(t for t, f1 in zip(candidates, f1s, strict=True) if f1 > max(f1s) - 1e-9)
        assert result.accuracy[c].item() == pytest.approx(accuracy_score(y, s >= threshold), abs=1e-6)
        assert f1_score(y, s >= threshold) == pytest.approx(max(f1s), abs=1e-12)


def test_constant_scores_predict_everything():
    """With `>` instead of `>=` nothing would be predicted: accuracy 0.895."""
    scores, targets = constant_scores()
    p = 0.105
    for result in (best_f1(scores, targets), at_thresholds([0.3, 0.3], scores, targets)):
        torch.testing.assert_close(result.accuracy, torch.full((2,), p))
        torch.testing.assert_close(result.f1, torch.full((2,), 2 * p / (1 + p)))
        torch.testing.assert_close(result.threshold, torch.full((2,), 0.3))


def test_of_equal_f1_the_highest_threshold_is_taken():
    # Cuts from the top: F1 = 2/(1+2), 2/(2+2), 2/(3+2), 4/(4+2): first and last tie at 2/3.
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    result = best_f1(scores, torch.tensor([[1], [0], [0], [1]]))
    assert result.f1.item() == pytest.approx(2 / 3)
    assert result.threshold.item() == pytest.approx(0.9)
    assert result.accuracy.item() == 0.75


def test_a_cut_inside_ties_is_no_threshold():
    # The positive is sorted somewhere among three equal scores; cutting right after it would claim F1 = 1.
    for position in range(3):
        targets = torch.zeros(3, 1).long()
        targets[position] = 1
        assert best_f1(torch.ones(3, 1), targets).f1.item() == 0.5


def test_batches_and_order_do_not_matter():
    scores, targets = data(levels=8)
    whole = best_f1(scores, targets)
    metric = BestF1(num_labels=3)
    for rows in torch.randperm(200, generator=torch.Generator().manual_seed(1)).split(33):
        metric.update(scores[rows], targets[rows])
    for ours, expected in zip(metric.compute(), whole, strict=True):
        assert torch.equal(ours, expected)


def at_thresholds(thresholds, scores, targets):
    metric = F1AtThreshold(thresholds)
    for rows in torch.arange(len(scores)).split(64):
        metric.update(scores[rows], targets[rows])
    return metric.compute()


def test_f1_at_threshold_equals_scikit_learn():
    scores, targets = data(levels=8)
    thresholds = [0.0, 1.0, 2.0]  # levels that occur: the comparison must include equality
    result = at_thresholds(thresholds, scores, targets)
    predicted = (scores >= torch.tensor(thresholds)).numpy()
    expected = f1_score(targets.numpy(), predicted, average=None)
    assert result.f1.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert result.f1_macro.item() == pytest.approx(expected.mean(), abs=1e-6)
    accuracy = [accuracy_score(targets[:, c].numpy(), predicted[:, c]) for c in range(3)]
    assert result.accuracy.tolist() == pytest.approx(accuracy, abs=1e-6)
    assert result.accuracy_macro.item() == pytest.approx(sum(accuracy) / 3, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_chosen_thresholds_reproduce_the_best_f1_on_the_same_data(dtype):
    scores, targets = data()
    scores = scores.to(dtype)
    best = best_f1(scores, targets)
    again = at_thresholds(best.threshold, scores, targets)
    assert torch.equal(again.f1, best.f1)
    assert torch.equal(again.accuracy, best.accuracy)


def test_a_label_without_positives_is_nan_and_outside_the_macro_mean():
    scores, targets = data()
    reference = best_f1(scores, targets)
    targets[:, 1] = 0
    best = best_f1(scores, targets)
    for field in best:
        assert field.isnan().tolist() == [False, True, False]
    assert best.f1_macro.item() == pytest.approx((reference.f1[0] + reference.f1[2]).item() / 2)
    # Its NaN threshold stays NaN where the label does have positives.
    elsewhere = at_thresholds(best.threshold, *data())
    assert elsewhere.f1.isnan().tolist() == [False, True, False]
    assert at_thresholds([0.0, 0.0, 0.0], scores, targets).f1.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 3), "shape (N, 2), got (4, 3) and (4, 3)."),
        (torch.zeros(4, 2), torch.zeros(4), "shape (N, 2), got (4, 2) and (4,)."),
        (
            torch.zeros(4, 2).long(),
            torch.zeros(4, 2),
            "Scores must be floating-point numbers, got torch.int64.",
        ),
        (
            torch.tensor([[0.0, 0.0], [0.0, torch.nan]]),
            torch.zeros(2, 2),
            "1 of 2 records have NaN scores, first in row 1: check the model.",
        ),
        (torch.zeros(4, 2), torch.full((4, 2), 2), "Targets must be 0 or 1, one column a label."),
    ],
)
def test_bad_input_is_named(scores, targets, message):
    for metric in (BestF1(num_labels=2), F1AtThreshold([0, 1])):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the end of the message is compared
            metric.update(scores, targets)
        assert str(error.value).endswith(message)
