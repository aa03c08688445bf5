"""Whether clusters follow from human votes: how well these predict them, and what would have been noticed.

The paper (section 4, Fig. 2) shows artefact clusters beyond the single answer "artefact" and concludes that the
representation goes beyond the labels. Votes for other answers might still tell such clusters apart; here that is a
number. Predicting a cluster from the representation that made it is circular, and is not done.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from galaxy_clusters.evaluation import Labels
from shared.data.problems import DataError
from shared.metrics.clusters import UNASSIGNED
from shared.progress import progress

Floats = NDArray[np.float64]
Word = Literal["independent", "dependent", "not decided"]

FOLDS = 5
PERMUTATIONS = 199
MARGIN = 0.1  # over chance: what "independent" must rule out
ALPHA = 0.05
POWER = 0.8
DRAWS = 10_000  # for the upper end
ANSWERED = 0.3  # of the votes on a question, as in the cuts of section 2


@dataclass(frozen=True)
class Independence:
    """How well votes predict clusters.

    Attributes:
        balanced_accuracy: Mean over the classes of the share that is predicted, on galaxies that were not learnt from.
        upper: Its upper 95% end (one-sided).
        chance: One over the number of classes.
        p: Share of permutations, and the data among them, with at least that balanced accuracy.
        detectable: The smallest balanced accuracy that so many galaxies show with p < 0.05 in 80% of cases; above 1 if
            none does.
        counts: Number of galaxies of each class.
        word: `"dependent"` if p < 0.05; else `"independent"` if `upper` is below chance + 0.1; else `"not decided"`.
        reason: Says why, with the numbers.
    """

    balanced_accuracy: float
    upper: float
    chance: float
    p: float
    detectable: float
    counts: tuple[int, ...]
    word: Word
    reason: str


def independence(votes: Floats, classes: Labels, seed: int = 0) -> Independence:
    """Whether clusters can be predicted from human votes.

    The predictor was chosen beforehand: logistic regression on the vote fractions, their squares and products, all
    classes of equal weight, by five-fold cross-validation. The permutation test learns anew from each permutation.

    Args:
        votes: Vote fractions of the galaxies in question `(n, V)`, those with the artefact answer as a rule, in [0, 1];
            0 for the answers of a question that nobody was asked.
        classes: Their clusters `(n,)`; a label -1 is a class as any other. For one cluster against the rest: 1 and 0.
        seed: Of folds, permutations and draws.

    Raises:
        DataError: Votes are no fractions, or there is another number of rows.
    """
    _check(votes, classes)
    _, codes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    sizes, chance = tuple(int(count) for count in counts), 1 / len(counts) if len(counts) else np.nan
    if len(counts) < 2 or min(counts) < FOLDS:
        said = "there is one class" if len(counts) == 1 else f"the smallest class has {min(counts, default=0)} galaxies"
        reason = f"{said}, and {FOLDS} of each of two classes are needed"
        return Independence(np.nan, np.nan, chance, np.nan, np.inf, sizes, "not decided", reason)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    rng = np.random.default_rng(seed)
    recalls = _recalls(votes, codes, folds)
    found = float(recalls.mean())
    permuted = [
        float(_recalls(votes, rng.permutation(codes), folds).mean())
        for _ in progress(range(PERMUTATIONS), "permutations", "permutation")
    ]
    p = float((1 + sum(value >= found for value in permuted)) / (1 + PERMUTATIONS))
    upper = _upper(recalls, counts, rng)
    critical = float(np.quantile(permuted, 1 - ALPHA, method="higher"))
    limit = chance + MARGIN
    if p < ALPHA:
        word: Word = "dependent"
        reason = f"votes predict the classes (balanced accuracy {found:.2f}, chance {chance:.2f}, p = {p:.3g})"
    elif upper < limit:
        word = "independent"
        reason = f"the upper end of the balanced accuracy, {upper:.2f}, is below {limit:.2f}"
    else:
        word = "not decided"
        reason = f"p = {p:.2g}, but the upper end of the balanced accuracy, {upper:.2f}, is not below {limit:.2f}"
    return Independence(found, upper, chance, p, _detectable(critical, counts), sizes, word, reason)


def within_answer(fractions: Floats, share: Floats, labels: Labels, seed: int = 0) -> tuple[Independence, int]:
    """Whether clusters follow from the votes of the galaxies that have an answer, artefact as a rule (Fig. 2).

    Args:
        fractions: Vote fractions of all galaxies `(N, V)`, as for `independence`.
        share: Of the answer among the votes on its question `(N,)`; from 0.3 on a galaxy has it, as in the cuts.
        labels: Clusters `(N,)`. Those with fewer than five of these galaxies count as none.
        seed: As for `independence`.

    Returns:
        The result, and the number of galaxies with that answer.
    """
    has = share >= ANSWERED
    own = labels[has]
    names, counts = np.unique(own, return_counts=True)
    own = np.where(np.isin(own, names[counts >= FOLDS]), own, UNASSIGNED)
    kept = own != UNASSIGNED if 0 < (own == UNASSIGNED).sum() < FOLDS else np.ones(len(own), bool)
    return independence(fractions[has][kept], own[kept], seed), int(has.sum())


def _check(votes: Floats, classes: Labels) -> None:
    if votes.ndim != 2 or len(votes) != len(classes):
        raise DataError(f"votes of shape {votes.shape} and {len(classes)} classes: give one row of fractions a galaxy")
    bad = ~((votes >= 0) & (votes <= 1)).all(1)  # also where a vote is NaN
    if bad.any():
        raise DataError(
            f"row {int(bad.argmax())} of the votes holds a number that is no fraction in [0, 1]: give fractions, and 0 "
            "for the answers of a question that nobody was asked"
        )


def _predictor() -> Pipeline:
    # A strong penalty, for there may be as many products as galaxies.
    learner = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200)
    return make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), learner)


def _recalls(votes: Floats, codes: NDArray[np.int64], folds: StratifiedKFold) -> Floats:
    """Share of each class `(C,)` that is predicted, each galaxy from the folds that do not hold it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted = cross_val_predict(_predictor(), votes, codes, cv=folds)
    return np.array([float((predicted[codes == code] == code).mean()) for code in range(codes.max() + 1)])


def _upper(recalls: Floats, counts: NDArray[np.int64], rng: np.random.Generator) -> float:
    """Upper 95% end of the mean recall, from a Bayesian bootstrap of the predictions within each class.

    With Jeffreys' prior: a plain bootstrap of three galaxies that are all wrong says that every other one would be.
    """
    right = recalls * counts
    drawn = rng.beta(right + 0.5, counts - right + 0.5, (DRAWS, len(counts)))
    return float(np.quantile(drawn.mean(1), 0.95))


def _detectable(critical: float, counts: NDArray[np.int64]) -> float:
    """The balanced accuracy that exceeds the permutations' 95th percentile with 80% power, all recalls being equal."""
    values = np.linspace(critical, 1, 1001)
    error = np.sqrt(values * (1 - values) * (1 / counts).sum()) / len(counts)
    shown = values - norm.ppf(POWER) * error >= critical
    shown[0] = False  # the critical value itself is exceeded half of the time
    return float(values[shown.argmax()]) if shown.any() else np.inf
