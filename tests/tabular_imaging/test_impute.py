"""Imputation: scikit-learn's result, from training rows only, rounded for categories."""

import logging
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from shared.data.problems import DataError
from tabular_imaging.data.columns import Column
from tabular_imaging.data.impute import impute
from tabular_imaging.data.schema import Schema

CATEGORIES = ("a", "b", "c")
SCHEMA = Schema(
    (
        *(Column(f"x{index}", "continuous") for index in range(4)),
        Column("kind", "categorical", categories=CATEGORIES),
    ),
    target="label",
    classes=("no", "yes"),
)
TRAIN = np.arange(0, 120, 2)


def table(missing: float = 0.1) -> NDArray[np.float32]:
    """A SYNTHETIC table of two hidden factors, with gaps."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(120, 2))
    values = hidden @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(120, 5))
    values[:, 4] = np.clip(np.round(values[:, 4] + 1), 0, 2)
    values[rng.random(values.shape) < missing] = np.nan
    return values.astype(np.float32)


def direct(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """scikit-learn with every setting of section 4.1 written out."""
    imputer = IterativeImputer(
        max_iter=10, tol=1e-3, initial_strategy="mean", imputation_order="ascending", skip_complete=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer.fit(values[TRAIN].astype(np.float64))
    filled: NDArray[np.float64] = imputer.transform(values.astype(np.float64))
    return filled


@pytest.mark.parametrize("complete_in_training", [(), (0, 2), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("complete_elsewhere", [False, True])
def test_the_result_is_that_of_scikit_learn(complete_in_training: tuple[int, ...], complete_elsewhere: bool) -> None:
    values, whole = table(), table(missing=0)
    for column in complete_in_training:
        rows = np.arange(len(values)) if complete_elsewhere else TRAIN
        values[rows, column] = whole[rows, column]
    before = values.copy()
    filled = impute(values, TRAIN, SCHEMA)
    expected = direct(values)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[:, :4], expected[:, :4].astype(np.float32))
    np.testing.assert_array_equal(filled[:, 4], np.clip(np.round(expected[:, 4]), 0, 2))
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(filled[~np.isnan(values)], values[~np.isnan(values)])


def test_categories_are_whole_and_within_their_range() -> None:
    values = table()
    values[1::2, 4] = np.nan
    values[1::2, :4] *= 20  # far outside what the imputer was fitted on
    expected = direct(values)[:, 4]
    assert expected.min() < -0.5  # so the clipping has something to do
    assert expected.max() > 2.5
    assert set(impute(values, TRAIN, SCHEMA)[:, 4]) == {0, 1, 2}


def test_other_rows_change_nothing_in_the_training_rows_nor_in_each_other() -> None:
    values, other = table(), table()
    other[1] = 1000
    assert np.isnan(values[3:]).any()
    before, after = impute(values, TRAIN, SCHEMA), impute(other, TRAIN, SCHEMA)
    keep = np.arange(len(values)) != 1
    np.testing.assert_array_equal(before[keep], after[keep])


def test_the_label_column_takes_no_part() -> None:
    values = table()
    labelled = SCHEMA.select("all", label_as_feature=True)
    label = np.where(values[:, :1] > 0, 1, -1).astype(np.float32)
    filled = impute(np.hstack([values, label]), TRAIN, labelled)
    np.testing.assert_array_equal(filled[:, :5], impute(values, TRAIN, SCHEMA))
    np.testing.assert_array_equal(filled[:, 5:], label)


def test_a_complete_table_is_returned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabular_imaging.data.impute.IterativeImputer", None)
    values = table(missing=0)
    assert impute(values, TRAIN, SCHEMA) is values


def test_the_log_says_how_much_was_imputed_and_that_it_did_not_converge(caplog: pytest.LogCaptureFixture) -> None:
    values = table(missing=0)
    values[[0, 2, 5], 1] = np.nan
    values[[4, 8, 10, 9], 3] = np.nan
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        impute(values, TRAIN, SCHEMA, max_iter=2, tolerance=1e-12)
    assert caplog.messages == [
        "imputation stopped after 2 rounds, before its tolerance of 1e-12",
        "imputed 7 missing values (1.17%) in 2 of 5 columns",
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        impute(values, TRAIN, SCHEMA, tolerance=0.5)
    assert caplog.messages == ["imputed 7 missing values (1.17%) in 2 of 5 columns"]


def test_other_warnings_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Warns(IterativeImputer):  # type: ignore[misc]
        def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
            warnings.warn("odd numbers", RuntimeWarning, stacklevel=2)
            filled: NDArray[np.float64] = super().transform(X)
            return filled

    monkeypatch.setattr("tabular_imaging.data.impute.IterativeImputer", Warns)
    with pytest.warns(RuntimeWarning, match="odd numbers"):
        impute(table(), TRAIN, SCHEMA)


def test_a_column_without_a_training_value_is_refused() -> None:
    values = table()
    values[TRAIN, 2] = np.nan
    with pytest.raises(DataError) as caught:
        impute(values, TRAIN, SCHEMA)
    assert str(caught.value) == "column x2 has no value in any training row, so its gaps cannot be filled"
