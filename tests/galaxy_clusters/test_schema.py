"""Vote schemas: the published trees, the probability that a question is asked, and the errors of a wrong file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galaxy_clusters.data.schema import Question, read_schema
from shared.data.problems import DataError


def test_the_schemas_have_the_published_numbers_of_questions_and_answers() -> None:
    desi, gz2 = read_schema("desi"), read_schema("gz2")
    assert (len(desi.sizes), len(desi.columns)) == (10, 34)
    assert (len(gz2.sizes), len(gz2.columns)) == (11, 37)
    assert desi.columns[:5] == [
        "smooth-or-featured_smooth", "smooth-or-featured_featured-or-disk", "smooth-or-featured_artifact",
        "disk-edge-on_yes", "disk-edge-on_no",
    ]  # fmt: skip
    assert desi.sizes == [3, 2, 2, 3, 5, 3, 3, 3, 6, 4]
    assert desi.starts == [0, 3, 5, 7, 10, 15, 18, 21, 24, 30]
    assert desi.questions[8] == Question(
        "spiral-arm-count", ("1", "2", "3", "4", "more-than-4", "cant-tell"), ("has-spiral-arms", "yes")
    )
    assert [None if lead is None else desi.columns[lead] for lead in desi.leads[-3:]] == [
        "has-spiral-arms_yes", "has-spiral-arms_yes", None
    ]  # fmt: skip


def test_a_question_is_asked_with_the_product_of_the_fractions_that_lead_to_it() -> None:
    schema = read_schema("desi")
    fractions = np.random.default_rng(0).random((5, 34))
    asked = pd.DataFrame(schema.asked(fractions), columns=[question.name for question in schema.questions])
    share = pd.DataFrame(fractions, columns=schema.columns)
    featured, smooth = share["smooth-or-featured_featured-or-disk"], share["smooth-or-featured_smooth"]
    face_on = featured * share["disk-edge-on_no"]
    spiral = face_on * share["has-spiral-arms_yes"]
    expected = [
        1, featured, face_on, face_on, face_on, smooth, featured * share["disk-edge-on_yes"], spiral, spiral, 1
    ]  # fmt: skip
    for name, values in zip(asked, expected, strict=True):
        np.testing.assert_allclose(asked[name], values, rtol=1e-12, err_msg=name)


@pytest.mark.realdata
def test_votes_of_galaxy_zoo_2_follow_its_tree(real_data: Path) -> None:
    """Up to the fractions of volunteers' weights that the catalogue rounds: two votes at most, in 1 % of the rows."""
    table = pd.read_csv(real_data / "galaxies" / "gz2_table5_stripe82_coadd_votes.csv.gz")
    schema = read_schema("gz2")
    assert {f"{column}_count" for column in schema.columns} == {name for name in table if name.endswith("_count")}
    votes = table[[f"{column}_count" for column in schema.columns]].to_numpy()
    totals = np.add.reduceat(votes, schema.starts, axis=1)
    np.testing.assert_array_equal(totals[:, 0], table["total_classifications"])
    for question, lead, total in zip(schema.questions, schema.leads, totals.T, strict=True):
        surplus = total - (totals[:, 0] if lead is None else votes[:, lead])
        assert surplus.max() <= 2, question.name
        assert (surplus > 0).mean() < 0.02, question.name
        if lead is not None:  # everybody who gave the answer was asked: another parent would not do
            assert (surplus == 0).mean() > 0.95, question.name


TREE = "questions:\n- {name: a, answers: [x, z]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a, b]", "{path} does not hold names with values"),
        ("questions: {a: b}", "{path} has no list of `questions`"),
        ("questions: [a]", "{path}: question 1 has no `name` that is text"),
        ("questions: [{name: a, answers: [x]}]", "{path}: question a needs a list of at least two answers"),
        (
            "questions: [{name: a, answers: [x, z], of: b}]",
            "{path}: question a has of; expected name, answers and after",
        ),
        (
            "questions: [{name: a, answers: [yes, no]}]",
            '{path}: question a: True is not text; write it in quotes, such as "no" or "1"',
        ),
        ("questions: [{name: a, answers: [x, x]}]", "{path}: question a has an answer twice"),
        (TREE + "- {name: a, answers: [x, z]}", "{path}: question a occurs twice"),
        (
            TREE + "- {name: b, answers: [x, z], after: a}",
            "{path}: question b: `after` is 'a', expected [question, answer]",
        ),
        (
            TREE + "- {name: b, answers: [x, z], after: [aa, x]}",
            "{path}: question b comes after aa, which is no question; did you mean a?",
        ),
        (
            TREE + "- {name: b, answers: [x, z], after: [a, w]}",
            "{path}: question b comes after 'w', which is no answer of a: x, z",
        ),
        (
            TREE + "- {name: b, answers: [x, z], after: [c, x]}\n- {name: c, answers: [x, z], after: [b, x]}",
            "{path}: question b comes after c, which does not stand above it; a question stands below the "
            "one that leads to it, and none may lead back to itself",
        ),
        (
            "questions: [{name: a, answers: [b_c, x]}, {name: a_b, answers: [c, x]}]",
            "{path}: two answers have the column a_b_c; rename one",
        ),
    ],
)
def test_a_wrong_schema_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tree.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        read_schema(path)
    assert str(raised.value) == said.format(path=path)


def test_an_unknown_name_and_an_absent_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read_schema("decals")
    assert str(raised.value) == "no vote schema 'decals'; there are desi, gz2, or give a .yaml file"
    with pytest.raises(DataError) as raised:
        read_schema(tmp_path / "own.yaml")
    assert str(raised.value) == f"no file {tmp_path / 'own.yaml'}"
