"""Vote schemas: the published trees, vote fractions, and the errors of a wrong file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import gammaln

from galaxy_clusters.data.schema import Question, read_schema
from galaxy_clusters.losses import votes_nll
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


def test_fractions_are_shares_of_the_votes_on_a_question_and_0_where_nobody_was_asked() -> None:
    schema = read_schema("desi")
    votes = np.random.default_rng(0).integers(0, 9, (5, 34)).astype(float)
    votes[1, 3:5] = 0
    found = schema.fractions(votes)
    for start, size in zip(schema.starts, schema.sizes, strict=True):
        part = votes[:, start : start + size]
        expected = [row / row.sum() if row.sum() else row for row in part]
        np.testing.assert_allclose(found[:, start : start + size], expected, rtol=1e-12)


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


@pytest.mark.realdata
def test_dirichlet_multinomials_explain_votes_of_galaxy_zoo_2_better_than_multinomials(real_data: Path) -> None:
    """37 constant concentrations, and then one question's from the votes on the others; every other row is held out."""
    table = pd.read_csv(real_data / "galaxies" / "gz2_table5_stripe82_coadd_votes.csv.gz")
    schema = read_schema("gz2")
    votes = table[[f"{column}_count" for column in schema.columns]].to_numpy(float)
    learned, held = votes[::2], votes[1::2]

    def fitted(columns: int, votes: torch.Tensor, inputs: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """Weights `(inputs, answers)` of the logarithms of the concentrations, by maximum likelihood."""
        weight = torch.zeros(inputs.shape[1], columns, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            search.zero_grad()
            found = votes_nll((inputs @ weight).exp(), votes, sizes).sum(1).mean() + 1e-4 * weight.square().sum()
            found.backward()
            return found

        search.step(loss)  # type: ignore[arg-type]
        return weight.detach()

    train, test = torch.from_numpy(learned), torch.from_numpy(held)
    ones = torch.ones(len(votes), 1, dtype=torch.float64)
    weight = fitted(37, train, ones[: len(train)], schema.sizes)
    constant = votes_nll((ones[: len(test)] @ weight).exp(), test, schema.sizes).mean(0).numpy()
    multinomial = []
    for start, size in zip(schema.starts, schema.sizes, strict=True):
        share, count = learned[:, start : start + size].sum(0), held[:, start : start + size]
        ways = gammaln(count.sum(1) + 1) - gammaln(count + 1).sum(1)
        multinomial.append(-(ways + (count * np.log(share / share.sum())).sum(1)).mean())
    better = np.array(multinomial) - constant
    assert better.min() > 0, dict(zip(schema.questions, better, strict=True))
    assert better.sum() > 10  # nats a galaxy

    spiral = slice(7, 9)  # t04: is there a spiral pattern?
    others = np.delete(schema.fractions(votes), spiral, axis=1)
    inputs = torch.cat([ones, torch.from_numpy(others - others[::2].mean(0))], 1)
    predicted = fitted(2, train[:, spiral], inputs[::2], [2])
    own = votes_nll((inputs[1::2] @ predicted).exp(), test[:, spiral], [2]).mean()
    assert own < constant[3] - 0.1
