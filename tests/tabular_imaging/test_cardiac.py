"""The cardiac task from SYNTHETIC tables in UK Biobank's column styles; no value here is a subject's."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shared.data.problems import DataError, Problems
from tabular_imaging.data.cardiac import balanced_subset, cardiac_frame, diagnosed
from tabular_imaging.data.cardiac_fields import read_fields, read_icd10

FIELDS = """
include:
  - {field: 21000, instance: 0, values: [1001]}
groups:
  - {name: age, field: 21003}
features:
  continuous:
    - {name: Weight, field: [21002, 12143], range: [2, null], morphometric: true}
    - {name: Systolic, field: [4080, 93], take: mean, range: [null, 500]}
    - {name: Salad, field: 1299, coding: 100373}
    - {name: Walks, field: 874, coding: 100291, zero_if_zero: 864}
    - {name: Operations, instance: [0, 2], count: {20004: [1069, 1095], 6150: [4]}}
    - {name: Pack years, field: 20161, absent: 0}
  categorical:
    - {name: sex, field: 31, instance: 0, coding: 9}
    - {name: Pace, field: 924, coding: 100313}
    - {name: Heart attack, any: {6150: [1]}, recorded: [3894], instance: [0, 2], coding: yes_no}
codings:
  9: {values: {0: female, 1: male}}
  yes_no: {values: {0: "no", 1: "yes"}, missing: [-3]}
  100291: {missing: [-1, -3]}
  100313: {values: {1: slow, 2: steady, 3: brisk}, missing: [-7, -3]}
  100373: {missing: [-1, -3], replace: {-10: 0.5}}
"""
# (field, instance, array) -> the values of the four subjects; None is an empty cell
VALUES: dict[tuple[int, int, int], list[float | None]] = {
    (31, 0, 0): [0, 1, 1, 0],
    (21000, 0, 0): [1001, 1001, 1001, 1001],
    (21003, 0, 0): [50, 51, 52, 53],
    (21003, 2, 0): [60, 61, 62, 63],
    (21002, 2, 0): [70.5, None, 1, 80],  # 1 kg is not believable
    (12143, 2, 0): [None, 66, 90, 81],
    (4080, 2, 0): [120, None, 600, None],  # 600 mmHg is not believable
    (4080, 2, 1): [130, 110, 140, None],
    (93, 2, 0): [None, 114, None, None],
    (1299, 2, 0): [-10, -1, 3, -3],
    (864, 2, 0): [0, 7, -1, 5],
    (874, 2, 0): [None, 30, -3, -1],
    (20004, 0, 0): [1069, None, 1000, None],
    (20004, 2, 0): [1095, None, None, 7],
    (20004, 2, 1): [1095, None, None, 1069],
    (20161, 2, 0): [None, 12.5, None, 3],
    (924, 2, 0): [1, -7, 3, 2],
    (6150, 0, 0): [4, -7, 2, -7],
    (6150, 2, 0): [1, -7, None, -3],
    (6150, 2, 1): [4, None, None, None],
    (3894, 2, 0): [None, None, -3, 55],  # the fourth gives an age and no diagnosis
}
DIAGNOSES = [["I10", "I214"], [], ["I250"], ["I249", "E119"]]
EIDS = [1000011, 1000022, 1000033, 1000044]
EXPECTED = {
    "Weight": [70.5, 66, 90, 80],
    "Systolic": [125, 112, 140, np.nan],
    "Salad": [0.5, np.nan, 3, np.nan],
    "Walks": [0, 30, np.nan, np.nan],
    "Operations": [5, 0, 0, 1],
    "Pack years": [0, 12.5, 0, 3],
    "sex": ["female", "male", "male", "female"],
    "Pace": ["slow", None, "brisk", "steady"],
    "Heart attack": ["yes", "no", "no", "yes"],
    "age": [60, 61, 62, 63],
}


def showcase(field: int, instance: int, array: int) -> str:
    return f"{field}-{instance}.{array}"


def r_style(field: int, instance: int, array: int) -> str:
    return f"f.{field}.{instance}.{array}"


def wide_table(name=showcase, eid: str = "eid") -> pd.DataFrame:
    table = pd.DataFrame({eid: EIDS} | {name(*column): values for column, values in VALUES.items()})
    for k in range(2):
        table[name(41270, 0, k)] = [codes[k] if k < len(codes) else None for codes in DIAGNOSES]
    return table


def platform_table(
    prefix: str, opening: str = "[", joint: str = ",", closing: str = "]", quote: str = "'"
) -> pd.DataFrame:
    """The research platform's form: no instance where there is one only, answers to choose from as one list a cell."""

    def joined(items: list[str]) -> str | None:
        return opening + joint.join(items) + closing if items else None

    table = {f"{prefix}eid": EIDS}
    for (field, instance, array), values in VALUES.items():
        if field in (6150, 20004):
            answers = [VALUES.get((field, instance, k), [None] * 4) for k in range(2)]
            rows = [[str(one[row]) for one in answers if one[row] is not None] for row in range(4)]
            table[f"{prefix}p{field}_i{instance}"] = [joined(row) for row in rows]
        else:
            visit = "" if field == 31 else f"_i{instance}"
            table[f"{prefix}p{field}{visit}" + (f"_a{array}" if field in (4080, 93) else "")] = values
    table[f"{prefix}p41270"] = [joined([f"{quote}{code}{quote}" for code in codes]) for codes in DIAGNOSES]
    return pd.DataFrame(table)


def write(root: Path, table: pd.DataFrame, eids=EIDS, suffix: str = "csv", fields: str = FIELDS) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for eid in eids:
        (root / "images" / f"{eid}.npy").touch()
    if suffix == "csv":
        table.to_csv(root / "fields.csv", index=False)
    else:
        table.to_parquet(root / "fields.parquet")
    (root / "list.yaml").write_text(fields)
    return root


def frame(root: Path, **kwargs) -> pd.DataFrame:
    return cardiac_frame(root, fields=root / "list.yaml", **kwargs)


TABLES = {
    "showcase": (wide_table(), "csv"),
    "r": (wide_table(r_style, "f.eid"), "csv"),
    "platform": (platform_table("participant."), "csv"),
    "platform, pipes": (platform_table("", "", "|", "", ""), "csv"),
    "showcase, parquet": (wide_table(), "parquet"),
    "platform, parquet": (platform_table(""), "parquet"),
}


@pytest.mark.parametrize("style", TABLES)
def test_every_column_style_gives_the_frame_worked_out_by_hand(style: str, tmp_path: Path) -> None:
    table, suffix = TABLES[style]
    result = frame(write(tmp_path, table.iloc[::-1], suffix=suffix), target="cad")
    assert list(result.columns) == ["id", "image", "split", *EXPECTED, "cad"]
    assert result["id"].tolist() == [str(eid) for eid in EIDS]
    assert result["image"].tolist() == [f"images/{eid}.npy" for eid in EIDS]
    for name, values in EXPECTED.items():
        expected = pd.Series(values)
        assert result[name].astype(object).where(result[name].notna(), None).tolist() == [
            None if missing else value for value, missing in zip(values, expected.isna(), strict=True)
        ], name
    assert result["cad"].tolist() == ["positive", "negative", "positive", "positive"]
    assert (result.dtypes[["Weight", "Systolic", "age"]] == np.float64).all()


def test_a_parquet_cell_that_is_an_array_counts_as_its_items(tmp_path: Path) -> None:
    table = wide_table().drop(columns=["41270-0.0", "41270-0.1"])
    table["p41270"] = DIAGNOSES
    result = frame(write(tmp_path, table, suffix="parquet"), target="infarction")
    assert result["infarction"].tolist() == ["positive", "negative", "negative", "negative"]


def test_categories_keep_the_order_of_the_coding_even_where_one_does_not_occur(tmp_path: Path) -> None:
    table = wide_table()
    table["924-2.0"] = [3, 3, 1, 1]
    pace = frame(write(tmp_path, table))["Pace"].cat
    assert pace.categories.tolist() == ["slow", "steady", "brisk"]
    assert pace.ordered


def test_a_code_without_a_meaning_is_missing_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = wide_table()
    table["924-2.0"] = [3, 9, 1, 9]
    result = frame(write(tmp_path, table))
    assert result["Pace"].isna().tolist() == [False, True, False, True]
    assert "Pace: 2 values are unknown codes (9) and count as missing" in caplog.messages


# --- Diagnoses


@pytest.mark.parametrize("code", ["I249", "I250", "I24.9", " i250 ", "I2501"])
def test_codes_that_the_public_notebook_loses_count_in_any_spelling(code: str) -> None:
    cad = read_icd10()["cad"]
    texts = pd.DataFrame([["I10", code.strip()], ["I10", None]])
    assert diagnosed(texts, cad).tolist() == [True, False]


def test_only_the_listed_codes_make_a_target() -> None:
    lists = read_icd10()
    codes = [f"I2{second}{third}" for second in range(6) for third in "0123456789X"]
    found = {name: {code for code in codes if diagnosed(pd.DataFrame([[code]]), lists[name])[0]} for name in lists}
    infarction = {"I210", "I211", "I212", "I213", "I214", "I219", "I220", "I221", "I228", "I229"}
    other = {"I200", "I201", "I208", "I209", "I240", "I248", "I249", *(f"I25{k}" for k in "012345689")}
    assert found == {"infarction": infarction, "cad": infarction | other}


def test_a_code_covers_its_children_and_not_its_parent(tmp_path: Path) -> None:
    (tmp_path / "icd10.yaml").write_text("mine: [I23, E11.9]")
    codes = read_icd10(tmp_path / "icd10.yaml")["mine"]
    assert diagnosed(pd.DataFrame([["I236"], ["I23"], ["I2"], ["XI23"], ["E119"], ["E11"]]), codes).tolist() == [
        *(True, True, False, False, True, False)
    ]


# --- Subjects and splits


def many(root: Path, count: int = 400, order: int = 0) -> Path:
    """`count` SYNTHETIC subjects, 5% with an infarction, 5% with other coronary artery disease."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"eid": np.arange(count) + 5000000, "31-0.0": rng.integers(0, 2, count)})
    table["41270-0.0"] = np.where(table.index % 20 == 3, "I214", np.where(table.index % 20 == 7, "I251", "Z000"))
    fields = """
features: {categorical: [{name: sex, field: 31, instance: 0, coding: 9}]}
codings: {9: {values: {0: f, 1: m}}}
"""
    shuffled = table.sample(frac=1, random_state=order) if order else table
    return write(root, shuffled, eids=table["eid"], fields=fields)


def test_the_split_has_the_papers_shares_within_every_target(tmp_path: Path) -> None:
    root = many(tmp_path)
    for seed in range(8):
        result = frame(root, target="infarction", seed=seed)
        counts = pd.crosstab(result["infarction"], result["split"])[["train", "val", "test"]]
        assert counts.sum().to_numpy() == pytest.approx([288, 72, 40], abs=3)
        assert counts.loc["positive"].to_numpy() == pytest.approx([14.4, 3.6, 2], abs=1)


def test_the_split_does_not_depend_on_the_target_or_the_order_of_the_table(tmp_path: Path) -> None:
    cad = frame(many(tmp_path / "a"), target="cad").set_index("id")["split"]
    infarction = frame(many(tmp_path / "b", order=1), target="infarction").set_index("id")["split"]
    pd.testing.assert_series_equal(cad, infarction)
    assert not cad.equals(frame(many(tmp_path / "a"), target="cad", seed=1).set_index("id")["split"])


def test_a_given_split_is_taken_and_subjects_it_lacks_are_reported(tmp_path: Path) -> None:
    root = write(tmp_path, wide_table())
    splits = tmp_path / "splits.csv"
    splits.write_text(f"id,split\n{EIDS[3]},train\n{EIDS[0]},test\n{EIDS[1]},val\n")
    problems = Problems("skip", noun="subject")
    result = frame(root, splits=splits, problems=problems)
    assert result[["id", "split"]].to_numpy().tolist() == [
        *([str(EIDS[0]), "test"], [str(EIDS[1]), "val"], [str(EIDS[3]), "train"])
    ]
    assert problems.found == [(str(EIDS[2]), f"not in {splits}")]


def test_a_subject_without_an_image_is_reported(tmp_path: Path) -> None:
    root = write(tmp_path, wide_table(), eids=EIDS[1:])
    problems = Problems("skip", noun="subject")
    assert frame(root, problems=problems)["id"].tolist() == [str(eid) for eid in EIDS[1:]]
    assert problems.found == [("1000011", "no image images/1000011.npy")]
    with pytest.raises(DataError, match=r"^1000011: no image images/1000011\.npy \(on_error: skip would"):
        frame(root, problems=Problems("raise"))


def test_subjects_outside_the_included_group_are_no_problem_and_not_there(tmp_path: Path) -> None:
    table = wide_table()
    table["21000-0.0"] = [1001, 4001, None, 1001]
    problems = Problems("raise")
    assert frame(write(tmp_path, table, eids=[EIDS[0], EIDS[3]]), problems=problems)["id"].tolist() == [
        "1000011",
        "1000044",
    ]


def test_fields_that_the_table_lacks_are_counted_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = wide_table().drop(columns=["31-0.0", "4080-2.0", "4080-2.1", "1299-2.0", "21000-0.0"])
    result = frame(write(tmp_path, table))
    assert "sex" not in result
    assert "Salad" not in result
    assert result["Systolic"].tolist()[1] == 114  # the reading by hand is still there
    path = tmp_path / "fields.csv"
    assert f"{path} lacks 2 of 10 columns: Salad, sex" in caplog.messages
    assert f"{path}: no field 21000, so everybody is included" in caplog.messages


# --- Files that are not what they should be


def error(root: Path, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        frame(root, **kwargs)
    return str(caught.value)


def test_a_table_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    table = wide_table()
    assert error(write(tmp_path, table.rename(columns={"eid": "id"}))) == (
        f"{path}: no column eid (nor f.eid nor participant.eid); it names the subject"
    )
    assert error(write(tmp_path, table.assign(eid=[1, 2, 2, 3]))) == (
        f"{path}: eid 2 occurs twice; every row must be a subject"
    )
    assert error(write(tmp_path, table.assign(eid=["1", "2", None, "3"]))) == f"{path}: row 3 has no eid"
    assert error(write(tmp_path, table.drop(columns=["41270-0.0", "41270-0.1"]))) == (
        f"{path}: no field 41270 (hospital diagnoses, ICD-10), which makes the target"
    )
    assert error(write(tmp_path, table.assign(**{"924-2.0": ["1", "Brisk pace", "2", None]}))) == (
        f"{path}: column 924-2.0, subject 1000022: expected a number or code, found 'Brisk pace'; "
        "export codes, not their meanings"
    )
    assert error(write(tmp_path, table[["eid", "21000-0.0", "21003-2.0", "41270-0.0"]])) == (
        f"{path} has none of the 9 features of {tmp_path / 'list.yaml'}"
    )
    path.unlink()
    assert error(tmp_path) == (
        f"{tmp_path}: no fields.csv or fields.parquet, which is UK Biobank's table with one row per subject"
    )


def test_no_subject_left_and_unknown_targets_are_errors(tmp_path: Path) -> None:
    assert error(write(tmp_path, wide_table(), eids=[]), target="stroke").startswith("unknown target 'stroke'; ")
    assert error(tmp_path, target="stroke").endswith("icd10.yaml defines infarction, cad")
    assert error(tmp_path) == f"{tmp_path}: no subject of fields.csv is included and has an image images/<eid>.npy"


def test_a_file_that_is_no_table_or_no_list_of_splits_is_an_error(tmp_path: Path) -> None:
    root = write(tmp_path, wide_table())
    splits = tmp_path / "splits.csv"
    assert error(root, splits=splits).startswith(f"no file {splits}")
    splits.write_text("eid,part\n1,train\n")
    assert error(root, splits=splits) == f"{splits} lacks the column id, split; it has eid, part"
    splits.write_text("id,split\n1,dev\n")
    assert error(root, splits=splits) == f"{splits}: a split is one of train, val, test, found 'dev'"
    splits.write_text("id,split\n1,val\n1,test\n")
    assert error(root, splits=splits) == f"{splits}: subject 1 occurs twice"
    (tmp_path / "fields.parquet").write_bytes(b"PAR1")
    assert error(root).startswith(f"{tmp_path / 'fields.parquet'}: not a readable field table (")


FEATURES = "features: {continuous: [{name: Weight, %s}]}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected a mapping at the top, found list"),
        ("features: [1]", "expected `features:` with the lists `continuous:` and `categorical:`"),
        ("features: {numbers: []}", "expected `features:` with the lists `continuous:` and `categorical:`"),
        (FEATURES % "morphometric: true", "'Weight': expected exactly one of field, any and count, found none"),
        (
            FEATURES % "field: 1, any: {2: [1]}",
            "'Weight': expected exactly one of field, any and count, found field and",
        ),
        (FEATURES % "field: 1, filed: 2", "'Weight': got an unexpected keyword argument 'filed'"),
        (FEATURES % "field: weight", "'Weight': invalid literal for int() with base 10: 'weight'"),
        (FEATURES % "field: 1, take: median", "'Weight': take is first or mean, not 'median'"),
        (FEATURES % "field: 1, coding: 9", "'Weight': coding 9 is not among the codings"),
        (
            "features: {categorical: [{name: Pace, field: 1}]}",
            "'Pace': a categorical feature needs a coding with values",
        ),
        ("features: {continuous: 3}", "feature 3: "),
        (FEATURES % "field: 1" + "\ngroups: [{name: Weight, field: 2}]", "named twice, or as a column that is always"),
        ("features: {continuous: [{name: split, field: 2}]}", "that is always there: split"),
        (FEATURES % "field: 1" + "\ninclude: [{field: 1}]", "expected `include:` with entries of field, instance and"),
        ("features: {continuous: [", "not a readable YAML file ("),
    ],
)
def test_a_malformed_field_list_names_the_entry(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_fields(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_list_of_codes_that_is_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "icd10.yaml"
    path.write_text("cad: [I249 I250]")
    with pytest.raises(DataError, match=r": cad: expected a list of ICD-10 codes such as I214, found \['I249 I250'\]$"):
        read_icd10(path)


# --- The lists that are shipped


def test_the_shipped_list_is_the_papers_in_number_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    features = {feature.name: feature for feature in read_fields().features}
    others = [feature for feature in features.values() if not feature.morphometric]
    assert len(others) == 93  # the paper's number of non-morphometric features (Table 2)
    assert all(feature.kind == "continuous" for feature in features.values() if feature.morphometric)
    assert set(features["LVM (g)"].fields) == {24105}
    assert dict(features["sex"].values) == {0: "female", 1: "male"}
    assert [group.name for group in read_fields().groups] == ["age"]


def test_the_shipped_list_reads_a_table_that_has_all_its_fields(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lists = read_fields()
    columns: dict[str, object] = {"eid": range(30), "p21000_i0": 1001, "p41270": None}
    for feature in (*lists.features, *lists.groups):
        columns |= dict.fromkeys((f"p{number}" for number in feature.needs), next(iter(feature.values), 50))
    table = pd.DataFrame(columns)
    with caplog.at_level(logging.WARNING):
        result = cardiac_frame(write(tmp_path, table, eids=range(30)))
    assert len(result.columns) == 3 + 118 + 1 + 1
    assert not [message for message in caplog.messages if "lacks" in message]


# --- The balanced subset


def test_the_balanced_subset_has_all_positives_and_as_many_fixed_random_negatives() -> None:
    rng = np.random.default_rng(0)
    target = (rng.random(2000) < 0.03).astype(np.int64)
    target[::50] = -1
    rows = rng.permutation(2000)[:1500]
    chosen = balanced_subset(target, rows, seed=3)
    positive = np.sort(rows[target[rows] == 1])
    assert np.array_equal(chosen[target[chosen] == 1], positive)
    assert np.bincount(target[chosen]).tolist() == [len(positive)] * 2  # fails on a label of -1
    assert len(np.unique(chosen)) == len(chosen)
    assert set(chosen) <= set(rows)
    assert np.array_equal(chosen, balanced_subset(target, rows[::-1], seed=3))
    assert not np.array_equal(chosen, balanced_subset(target, rows, seed=4))


def test_where_positives_are_many_all_negatives_are_taken() -> None:
    assert balanced_subset(np.array([1, 1, 1, 0, -1]), np.arange(5), seed=0).tolist() == [0, 1, 2, 3]


def test_a_balanced_subset_of_one_class_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^a balanced subset needs both classes, found 0 positive, 3 negative$"):
        balanced_subset(np.zeros(3, dtype=np.int64), np.arange(3), seed=0)
