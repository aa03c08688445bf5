"""Columns, schema and encoding: what is inferred, what is dropped, exact messages, and train-only statistics."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from shared.data.cells import category_name
from shared.data.problems import DataError, Problems
from tabular_imaging.data.columns import Column, Kind
from tabular_imaging.data.schema import ColumnTypes, Schema, encode, fit_schema, infer_kinds

RESERVED = ("id", "image", "split", "model")


def cars(rows: int = 40) -> pd.DataFrame:
    """SYNTHETIC adverts."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"ad{row}" for row in range(rows)],
            "image": [f"{row}.jpg" for row in range(rows)],
            "split": ["train", "test"] * (rows // 2),
            "length": rng.normal(4300, 300, rows),
            "doors": rng.integers(2, 6, rows),
            "fuel": rng.choice(["petrol", "diesel", "hybrid"], rows),
            "imported": rng.integers(0, 2, rows),
            "sold": rng.random(rows) < 0.5,
            "model": rng.choice(["Golf", "Polo"], rows),
        }
    )


def fitted(frame: pd.DataFrame, types: ColumnTypes | None = None, **arguments: Any) -> Schema:
    types = types or ColumnTypes()
    train = frame[frame["split"] == "train"]
    return fit_schema(train, infer_kinds(frame, types, RESERVED), types, "model", ["Golf", "Polo"], **arguments)


def message(function: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(DataError) as caught:
        function(*arguments, **named)
    return str(caught.value)


# --- kinds ---


def test_numbers_are_continuous_and_booleans_zeros_and_ones_and_text_are_categorical() -> None:
    frame = cars().assign(
        gaps=[0.5, None] * 20,
        flags=[1.0, None] * 20,
        zeros=["0", "1"] * 20,
        digits=[str(row) for row in range(40)],
        blanks=["7", " "] * 20,
        maybe=[True, None, False, False] * 10,
    )
    assert infer_kinds(frame, ColumnTypes(), RESERVED) == {
        "length": "continuous",
        "doors": "continuous",
        "fuel": "categorical",
        "imported": "categorical",
        "sold": "categorical",
        "gaps": "continuous",
        "flags": "categorical",
        "zeros": "categorical",
        "digits": "continuous",
        "blanks": "continuous",
        "maybe": "categorical",
    }


def test_text_stays_text_in_every_dtype_that_pandas_has_for_it() -> None:
    for dtype in ("object", "string", "category"):
        frame = pd.DataFrame({"fuel": pd.Series(["petrol", "diesel", None, "petrol"] * 5, dtype=dtype)})
        assert infer_kinds(frame, ColumnTypes(), []) == {"fuel": "categorical"}


def test_declarations_win_and_patterns_stand_for_many_columns() -> None:
    frame = pd.DataFrame({name: np.arange(4.0) for name in ("shape1", "shape2", "size", "a [mm]", "am")})
    types = ColumnTypes(continuous=["size"], categorical=["shape?"], ignored=["a [mm]"])
    # "a [mm]" as a pattern would be "a m"; it is a name here.
    assert infer_kinds(frame, types, []) == {
        "shape1": "categorical",
        "shape2": "categorical",
        "size": "continuous",
        "am": "continuous",
    }


def test_an_entry_that_matches_nothing_names_the_nearest_column() -> None:
    for kind in ("continuous", "categorical", "ignored", "morphometric"):
        assert (
            message(infer_kinds, cars(), ColumnTypes(**{kind: ["lenght"]}), RESERVED)
            == f"{kind}: no column matches 'lenght'; the nearest is length"
        )


def test_a_column_declared_twice_or_reserved_is_refused() -> None:
    types = ColumnTypes(continuous=["doors"], categorical=["d*"])
    assert message(infer_kinds, cars(), types, RESERVED) == (
        "column doors is declared both continuous and categorical; keep one of them"
    )
    assert message(infer_kinds, cars(), ColumnTypes(categorical=["model"]), RESERVED) == (
        "column model is declared categorical, but is the id, image, split or target column"
    )
    # One file of declarations may serve several targets, and a pattern may sweep over reserved columns.
    both = ColumnTypes(ignored=["model", "s*"], categorical=["m*", "im*"])
    assert list(infer_kinds(cars(), both, RESERVED)) == ["length", "doors", "fuel", "imported"]


def test_junk_among_numbers_names_column_row_and_value() -> None:
    frame = cars().assign(miles=[str(row) for row in range(39)] + ["12k"])
    assert message(infer_kinds, frame, ColumnTypes(), RESERVED) == (
        "column miles: row ad39 holds '12k', while 39 of 40 values are numbers; correct it, or declare the column "
        "continuous (such a value then counts as missing), categorical or ignored"
    )
    assert infer_kinds(frame, ColumnTypes(categorical=["miles"]), RESERVED)["miles"] == "categorical"
    frame = cars().drop(columns="id").assign(miles=[np.inf] + [1.5] * 39)
    assert message(infer_kinds, frame, ColumnTypes(), RESERVED).startswith("column miles: row 0 holds 'inf', while 39")


def test_numbers_with_a_comma_are_refused() -> None:
    weights = pd.DataFrame({"weight": ["3,5", "12,25", None, "n/a", "-0,5"]})
    assert message(infer_kinds, weights, ColumnTypes(), []) == (
        "column weight holds numbers with a decimal comma, such as '3,5': write a point instead"
    )


def test_text_that_differs_in_every_row_is_an_identifier(caplog: pytest.LogCaptureFixture) -> None:
    frame = cars().assign(plate=[f"AB {row}" for row in range(39)] + ["AB 1"])
    with caplog.at_level(logging.WARNING):
        assert "plate" not in infer_kinds(frame, ColumnTypes(), RESERVED)
    assert caplog.messages == [
        "column plate ignored: 39 of 40 texts are distinct, so it is taken for an identifier; declare it categorical "
        "to use it"
    ]
    assert infer_kinds(frame, ColumnTypes(categorical=["plate"]), RESERVED)["plate"] == "categorical"
    frame["plate"] = ["AB 1"] * 3 + [f"CD {row}" for row in range(37)]  # 38 of 40 is the limit
    assert "plate" not in infer_kinds(frame, ColumnTypes(), RESERVED)
    frame["plate"] = ["AB 1"] * 4 + [f"CD {row}" for row in range(36)]
    assert "plate" in infer_kinds(frame, ColumnTypes(), RESERVED)


# --- fitting ---


def test_statistics_are_those_of_recorded_training_values() -> None:
    frame = cars()
    frame.loc[[0, 2], "length"] = np.nan
    schema = fitted(frame, ColumnTypes(morphometric=["len*"]))
    known = frame.loc[frame["split"] == "train", "length"].dropna().to_numpy()
    length = schema.columns[0]
    assert length.mean == pytest.approx(sum(known) / 18, rel=1e-14)
    assert length.std == pytest.approx((sum((value - known.mean()) ** 2 for value in known) / 18) ** 0.5, rel=1e-14)
    assert schema.morphometric == (True, False, False, False, False)
    assert schema.names == ("length", "doors", "fuel", "imported", "sold")
    assert schema.columns[2:] == (
        Column("fuel", "categorical", categories=("diesel", "hybrid", "petrol")),
        Column("imported", "categorical", categories=("0", "1")),
        Column("sold", "categorical", categories=("False", "True")),
    )


def test_rows_outside_the_training_set_change_nothing() -> None:
    frame, other = cars(), cars()
    test_rows = other["split"] == "test"
    other.loc[test_rows, "length"] = 1e6
    other.loc[test_rows, "fuel"] = "hydrogen"
    assert fitted(frame) == fitted(other)
    changed = frame.copy()
    changed.loc[0, "length"] += 1
    assert fitted(frame) != fitted(changed)


def test_categories_are_in_natural_order_and_whole_numbers_look_alike() -> None:
    frame = pd.DataFrame({"a": [10.0, 2.0, None, 1.5, -1.0] * 4, "b": ["10", " 2", "x", "b", "2"] * 4})
    kinds: dict[str, Kind] = {"a": "categorical", "b": "categorical"}
    schema = fit_schema(frame, kinds, ColumnTypes())
    assert [column.categories for column in schema.columns] == [("-1", "1.5", "2", "10"), ("2", "10", "b", "x")]
    assert [category_name(value) for value in (3, 3.0, np.float64(3), np.int8(3), "3", 2.5, True, np.True_)] == [
        *["3"] * 5,
        "2.5",
        "True",
        "True",
    ]


def test_an_ordered_column_keeps_its_order_and_an_unordered_one_does_not() -> None:
    answers = ["slow", "brisk", "steady", "brisk", None]
    for ordered, categories in ((True, ("slow", "steady", "brisk")), (False, ("brisk", "slow", "steady"))):
        paces = pd.CategoricalDtype(["never", "slow", "steady", "brisk"], ordered=ordered)  # nobody answered never
        frame = pd.DataFrame({"pace": pd.Series(answers, dtype=paces)})
        schema = fit_schema(frame, {"pace": "categorical"}, ColumnTypes())
        assert schema.columns[0].categories == categories
        codes = [float(categories.index(answer)) if answer else np.nan for answer in answers]
        np.testing.assert_array_equal(encode(frame, schema, Problems())[:, 0], np.array(codes, np.float32))


def test_useless_columns_are_dropped_with_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    frame = cars().assign(empty=np.nan, always=0.1, one="van", rare=[1.5, None, None, None] * 10)
    frame.loc[frame.index[::4], "partly"] = 2.5
    frame.loc[0, "partly"] = 3.5
    with caplog.at_level(logging.WARNING):
        schema = fitted(frame)
    assert schema.names == ("length", "doors", "fuel", "imported", "sold")
    assert caplog.messages == [
        "column empty dropped: no training row has a value",
        "column always dropped: it is 0.1 in every training row",
        "column one dropped: it is van in every training row",
        "column rare dropped: 50.0% of the training rows have a value, min_coverage is 80.0%",
        "column partly dropped: 50.0% of the training rows have a value, min_coverage is 80.0%",
    ]
    assert "partly" in fitted(frame, ColumnTypes(min_coverage=0.5)).names  # at least that share
    caplog.clear()
    assert "faint" not in fitted(cars().assign(faint=np.arange(40) * 1e-200)).names  # its variance is 0 in float64
    assert caplog.messages == ["column faint dropped: it is 0 in every training row"]


def test_a_table_without_a_usable_column_is_refused() -> None:
    frame = pd.DataFrame({"a": [1.0, 1.0], "b": [None, None]})
    assert message(fit_schema, frame, {"a": "continuous", "b": "categorical"}, ColumnTypes()) == (
        "no column of the table is left to learn from; dropped: a (it is 1 in every training row), "
        "b (no training row has a value)"
    )
    assert message(ColumnTypes, min_coverage=80) == "min_coverage must be in [0, 1], got 80"


# --- encoding ---


def test_encoding_standardises_codes_and_keeps_gaps() -> None:
    frame = cars()
    frame.loc[3, ["length", "fuel"]] = None
    schema = fitted(frame)
    table = encode(frame, schema, Problems())
    assert table.dtype == np.float32
    for row in range(len(frame)):
        for index, column in enumerate(schema.columns):
            value = frame[column.name].iloc[row]
            if row == 3 and index in (0, 2):
                assert np.isnan(table[row, index])
            elif column.kind == "continuous":
                assert table[row, index] == np.float32((value - column.mean) / column.std)
            else:
                assert table[row, index] == column.categories.index(str(value))
    train = table[(frame["split"] == "train").to_numpy()]
    np.testing.assert_allclose(np.nanmean(train[:, :2], 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(train[:, :2], 0), 1, atol=1e-6)


def test_the_same_values_from_another_file_get_the_same_numbers() -> None:
    frame = cars()
    schema = fitted(frame)
    other = frame.astype({"length": str, "doors": float, "imported": float})  # text, and 0.0 instead of 0
    other["fuel"] = " " + other["fuel"]
    np.testing.assert_array_equal(encode(other, schema, Problems()), encode(frame, schema, Problems()))


def test_an_unseen_category_is_raised_or_counted_and_missing() -> None:
    frame = cars()
    schema = fitted(frame)
    frame.loc[[5, 7], "fuel"] = ["steam", "coal"]
    reason = "is none of the training rows' categories (diesel, hybrid, petrol)"
    assert message(encode, frame, schema, Problems()) == (
        f"ad5: column fuel: 'steam' {reason} (on_error: skip would leave it out and list it)"
    )
    problems = Problems("skip")
    table = encode(frame, schema, problems)
    assert problems.found == [("ad5", f"column fuel: 'steam' {reason}"), ("ad7", f"column fuel: 'coal' {reason}")]
    assert np.argwhere(np.isnan(table)).tolist() == [[5, 2], [7, 2]]


def test_a_value_that_is_no_number_is_raised_or_counted_and_missing() -> None:
    frame = cars()
    schema = fitted(frame)
    frame = frame.astype({"length": object})
    frame.loc[5, "length"] = "long"
    frame.loc[6, "length"] = np.inf
    problems = Problems("skip")
    table = encode(frame, schema, problems)
    assert problems.found == [
        ("ad5", "column length: 'long' is not a finite number"),
        ("ad6", "column length: 'inf' is not a finite number"),
    ]
    assert np.argwhere(np.isnan(table)).tolist() == [[5, 0], [6, 0]]


def test_a_missing_column_names_what_both_tables_have() -> None:
    schema = fitted(cars())
    other = cars().rename(columns={"length": "lenght"}).drop(columns="doors")
    other = other[["id", "lenght", "fuel"]]
    assert message(encode, other, schema, Problems(), source="new.csv") == (
        "new.csv lacks length, doors, imported, sold of the 5 columns that the schema of the training rows has "
        f"(length: numbers (mean {schema.columns[0].mean:.4g}, standard deviation {schema.columns[0].std:.4g})); "
        "it has id, lenght, fuel. Is lenght the same?"
    )


def test_a_column_of_another_type_names_what_both_tables_have() -> None:
    schema = fitted(cars())
    length = schema.columns[0]
    start = "the table: column"
    end = "(row ad0), but the schema of the training rows has"
    skip = Problems("skip")  # another type is no matter of single rows
    assert message(encode, cars().assign(length="long"), schema, skip) == (
        f"{start} length holds values such as 'long' {end} numbers (mean {length.mean:.4g}, standard deviation "
        f"{length.std:.4g})"
    )
    assert message(encode, cars().assign(fuel=3), schema, skip) == (
        f"{start} fuel holds values such as '3' {end} the categories diesel, hybrid, petrol"
    )
    assert message(encode, cars().assign(imported="yes"), schema, skip) == (
        f"{start} imported holds values such as 'yes' {end} the categories 0, 1"
    )
    assert skip.found == []
    assert np.isnan(encode(cars().assign(length=None), schema, skip)[:, 0]).all()  # no value is no other type


# --- the label as a feature ---


def test_the_label_is_the_last_column_and_minus_one_where_absent() -> None:
    frame = cars()
    frame.loc[4, "model"] = None
    schema = fitted(frame, label_as_feature=True)
    assert schema.columns[-1] == Column("model", "categorical", categories=("Golf", "Polo"))
    assert schema.cardinalities == (1, 1, 3, 2, 2, 2)
    assert schema.field_of_input.tolist() == [0, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5]
    table = encode(frame, schema, Problems())
    assert table.shape == (40, 6)
    expected = [-1 if row == 4 else ["Golf", "Polo"].index(label) for row, label in enumerate(frame["model"])]
    assert table[:, -1].tolist() == expected
    assert (encode(frame.drop(columns="model"), schema, Problems())[:, -1] == -1).all()
    frame.loc[6, "model"] = "Up"
    assert message(encode, frame, schema, Problems()).startswith("ad6: column model: 'Up' is none of")


def test_selection_keeps_the_label_and_splits_the_other_columns() -> None:
    schema = fitted(cars(), ColumnTypes(morphometric=["length", "doors"]), label_as_feature=True)
    assert schema.select("all") == schema
    assert schema.select("morphometric").names == ("length", "doors", "model")
    assert schema.select("non_morphometric").names == ("fuel", "imported", "sold", "model")
    plain = schema.select("morphometric", label_as_feature=False)
    assert plain.names == ("length", "doors")
    assert plain.select("all", label_as_feature=True) == schema.select("morphometric")
    assert message(fitted(cars()).select, "morphometric") == (
        "no column of length, doors, fuel, imported, sold is morphometric; name the columns of size and shape under "
        "morphometric"
    )
    assert message(schema.select, "shape") == (
        "columns to select must be one of all, morphometric, non_morphometric; got 'shape'"
    )
    untargeted = Schema((Column("a", "continuous"),))
    assert message(untargeted.select, "all", True) == "label_as_feature needs a target column"


# --- the schema itself ---


def test_a_schema_survives_json_and_a_checkpoint(tmp_path: Path) -> None:
    for label_as_feature in (False, True):
        schema = fitted(cars().assign(größe=np.linspace(0, 1, 40) / 3), label_as_feature=label_as_feature)
        schema.save(tmp_path / "new" / "schema.json")
        assert Schema.load(tmp_path / "new" / "schema.json") == schema
        torch.save({"schema": schema.to_dict()}, tmp_path / "last.ckpt")
        content = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert Schema.from_dict(content["schema"]) == schema


def test_a_schema_from_elsewhere_is_checked() -> None:
    good = fitted(cars(), label_as_feature=True).to_dict()
    assert Schema.from_dict(good)

    def refusal(**changes: Any) -> str:
        return message(Schema.from_dict, {**good, **changes})

    def column_refusal(index: int, **changes: Any) -> str:
        columns = [{**column, **(changes if i == index else {})} for i, column in enumerate(good["columns"])]
        return refusal(columns=columns)

    keys = "expected the keys columns, target, classes, label_as_feature; got"
    assert message(Schema.from_dict, [1]) == f"schema: {keys} [1]"
    assert message(Schema.from_dict, {"columns": []}) == f"schema: {keys} {{'columns': []}}"
    assert refusal(columns=3) == "schema: columns must be list, got 3"
    assert refusal(columns=[5]).startswith("schema, column 0: expected the keys name, kind, mean, std, categories,")
    assert refusal(columns=[]) == "a schema needs at least one column besides the label"
    assert refusal(target=3) == "schema: target must be str | None, got 3"
    assert refusal(classes=["Golf", 3]) == "schema: classes must be a list of text, got ['Golf', 3]"
    assert refusal(classes=["Golf"]) == "with label_as_feature the last column must be the target model"
    assert refusal(columns=good["columns"][:1] * 2, label_as_feature=False) == "a schema has a column twice"
    assert column_refusal(0, name=b"x") == "schema, column 0: name must be str, got b'x'"
    assert column_refusal(0, mean="x") == "schema, column 0: mean must be int | float, got 'x'"
    finite = "column length: mean and std must be finite and std positive, got"
    assert column_refusal(0, std=0.0, mean=1.0) == f"{finite} 1.0 and 0.0"
    assert column_refusal(0, std=1.0, mean=float("nan")) == f"{finite} nan and 1.0"
    assert column_refusal(0, std=10**400).startswith(f"{finite}")
    assert column_refusal(0, categories=["a", "b"]) == "column length is continuous and must have no categories"
    assert column_refusal(2, categories=["a"]) == "column fuel needs at least 2 categories, got ['a']"
    assert column_refusal(2, categories=["a", "a"]) == "column fuel has a category twice"
    assert column_refusal(2, kind="text") == "column fuel: kind must be continuous or categorical, got 'text'"


def test_a_file_that_is_no_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    assert message(Schema.load, path) == f"no schema {path}; training writes it beside the model"
    for content, reason in (
        (b"{", "Expecting property name"),
        (b"\xff", "'utf-8' codec can't decode"),
        (b"[" * 100_000, ""),
        (b"[1]", "schema: expected the keys"),
    ):
        path.write_bytes(content)
        assert message(Schema.load, path).startswith(f"{path} is not a schema that Quintet wrote: {reason}")


def test_a_difference_is_said_in_words() -> None:
    schema = fitted(cars(), label_as_feature=True)
    assert schema.difference(schema) == ""
    other = fitted(cars().rename(columns={"doors": "seats"}).assign(length=cars()["length"] + 1))
    assert schema.difference(other) == (
        "doors is missing, label_as_feature differs, length differs in mean, model is missing, seats is new"
    )
    reordered = Schema(schema.columns[1::-1] + schema.columns[2:], schema.target, schema.classes, True)
    assert schema.difference(reordered) == "the columns are in another order"
