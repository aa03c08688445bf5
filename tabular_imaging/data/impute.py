"""Missing values of an encoded table, filled in as in the paper."""

import logging
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  makes the next import possible
from sklearn.impute import IterativeImputer

from shared.data.problems import DataError
from tabular_imaging.data.schema import Schema

log = logging.getLogger(__name__)


def impute(
    values: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    schema: Schema,
    seed: int = 0,
    max_iter: int = 10,
    tolerance: float = 1e-3,
) -> NDArray[np.float32]:
    """Fill missing values with scikit-learn's `IterativeImputer`, fitted on the training rows (section 4.1).

    Missing values start at the column's mean. Then each column in turn, beginning with the one with the fewest gaps, is
    predicted from all others by a regression. This is repeated for at most `max_iter` rounds, or until the change
    between two rounds is below `tolerance` times the largest value (scikit-learn sums the change over a row, while the
    paper takes the largest one). Categories are rounded to the nearest code. The label column of LaaF is left out.

    Args:
        values: `(N, M)` values as given by `encode`: normalised, and NaN where a value is missing.
        train_rows: Rows to fit on.
        schema: Schema of the columns.
        seed: Seed of the imputer; its default regression draws nothing.
        max_iter: Largest number of rounds (scikit-learn: 10).
        tolerance: The paper's epsilon (section 4.1).

    Returns:
        `(N, M)` values without NaN; `values` itself if nothing is missing.

    Raises:
        DataError: A column with missing values has none at all in the training rows.
    """
    features = values[:, : len(schema.features)].astype(np.float64)
    missing = np.isnan(features)
    if not missing.any():
        return values
    train = features[train_rows]
    missing_in_train = np.isnan(train)
    empty = [column.name for column, gaps in zip(schema.features, missing_in_train.T, strict=True) if gaps.all()]
    if empty:
        raise DataError(f"column {empty[0]} has no value in any training row, so its gaps cannot be filled")
    # A column without any gap needs no regression; one that only has gaps in other rows does.
    complete = ~missing_in_train.any(0)
    imputer = IterativeImputer(
        max_iter=max_iter,
        tol=tolerance,
        imputation_order="ascending",
        initial_strategy="mean",
        skip_complete=not missing[:, complete].any(),
        random_state=seed,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filled = imputer.fit(train).transform(features)
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            log.warning("imputation stopped after %d rounds, before its tolerance of %g", max_iter, tolerance)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for index, column in enumerate(schema.features):
        if column.kind == "categorical":
            filled[:, index] = np.clip(np.rint(filled[:, index]), 0, column.cardinality - 1)
    log.info(
        "imputed %d missing values (%.2f%%) in %d of %d columns",
        missing.sum(),
        100 * missing.mean(),
        missing.any(0).sum(),
        missing.shape[1],
    )
    result = values.copy()
    result[:, : len(schema.features)] = filled
    return result
