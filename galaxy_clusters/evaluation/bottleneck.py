"""What a bottleneck loses: classes that can be read off linearly, and the likelihood of the votes (section 3).

Shapes: M models, N galaxies, D numbers each, C classes, Q questions.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from galaxy_clusters.evaluation import Labels, Points
from galaxy_clusters.losses import votes_nll
from galaxy_clusters.module import GalaxyVotes
from shared.checkpoint import load_module
from shared.metrics import PseudoValues, auroc, auroc_values, difference, mean_values

Floats = NDArray[np.float64]

FOLDS = 5
DIMS = (2, 4, 8, 16, 32, 64, 128, 256)  # of the PCA curve


class Probed(NamedTuple):
    """How well classes can be read off representations by logistic regression, each galaxy from the other folds.

    Attributes:
        accuracy: Of M models on the same galaxies.
        auroc: Macro, of M models.
        by_class: AUROC of each class `(C,)`, mean over the models.
    """

    accuracy: PseudoValues
    auroc: PseudoValues
    by_class: Floats


def probe(models: Sequence[Points], classes: Labels, seed: int = 0) -> Probed:
    """Five-fold linear probes of models; the folds are the same for all, so that two encoders can be paired.

    Args:
        models: Representations `(N, D)` of the same galaxies.
        classes: Codes from 0 to C - 1, `(N,)`; at least five galaxies each.
        seed: Of the folds.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = np.stack([cross_val_predict(learner, x, classes, cv=folds, method="predict_proba") for x in models])
    targets = classes[:, None] == np.arange(scores.shape[2])
    by_class = np.mean([auroc(each, targets) for each in scores], axis=0)
    return Probed(mean_values(scores.argmax(2) == classes), auroc_values(scores, targets), by_class)


def pca_curve(x: Points, classes: Labels, seed: int = 0) -> pd.DataFrame:
    """What principal components of a representation hold: the analysis that motivates the bottleneck.

    Args:
        x: Features of an encoder without a bottleneck `(N, D)`.
        classes: As for `probe`.
        seed: Of the folds.

    Returns:
        A row for each number of components below D: `components`, the share of `variance`, `accuracy` and `auroc`.
    """
    dims = [count for count in DIMS if count < min(x.shape)]
    pca = PCA(max(dims), svd_solver="covariance_eigh").fit(x)
    kept, rows = pca.transform(x), []
    for count in dims:
        found = probe([kept[:, :count]], classes, seed)
        variance = float(pca.explained_variance_ratio_[:count].sum())
        rows.append((count, variance, float(found.accuracy.point[0]), float(found.auroc.point[0])))
    return pd.DataFrame(rows, columns=["components", "variance", "accuracy", "auroc"])


@torch.inference_mode()
def votes_likelihood(checkpoint: Path, features: Points, votes: NDArray[np.float32]) -> Floats:
    """Negative log-likelihood of galaxies' votes on each question under a trained encoder, `(N, Q)`.

    Args:
        checkpoint: Of `GalaxyVotes` or `Hybrid`.
        features: Its representation of the galaxies `(N, D)`.
        votes: `(N, A)`.
    """
    model = load_module(checkpoint, GalaxyVotes)
    concentration = model.concentration(torch.from_numpy(features)).double()
    return np.asarray(votes_nll(concentration, torch.from_numpy(votes), model.schema.sizes))


def beside(measure: str, one: PseudoValues, two: PseudoValues) -> dict[str, Any]:
    """A row: both values, and their difference with its 95% interval, paired by galaxies."""
    apart = difference(one, two)
    return {
        "measure": measure, "with": float(one.point.mean()), "without": float(two.point.mean()),
        "difference": apart.value, "difference_low": apart.low, "difference_high": apart.high, "p": apart.p,
    }  # fmt: skip


def votes_beside(questions: Sequence[str], one: Floats, two: Floats) -> list[dict[str, Any]]:
    """Rows of the votes' negative log-likelihood a galaxy, of all questions together and of each.

    Args:
        questions: Q names.
        one: Of the models with a bottleneck `(M, N, Q)`, see `votes_likelihood`.
        two: Of those without, of the same galaxies.
    """
    parts = {"all questions": (one.sum(2), two.sum(2))}
    parts |= {name: (one[:, :, place], two[:, :, place]) for place, name in enumerate(questions)}
    return [
        beside(f"vote NLL, {name}", *(mean_values(each, bounded=False) for each in both))
        for name, both in parts.items()
    ]
