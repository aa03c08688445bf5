"""Vote schemas: which questions volunteers were asked about a galaxy, with which answers, and when. They are data.

Shapes: N galaxies, A answers of Q questions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.data.problems import DataError
from shared.data.tables import nearest
from shared.runs.settings import read_yaml

SCHEMAS = Path(__file__).parents[1] / "configs" / "schemas"


@dataclass(frozen=True)
class Question:
    """A question of a decision tree.

    Attributes:
        name: Its name.
        answers: Those that a volunteer chooses one of.
        after: The question and its answer that lead to this one; `None` where everybody is asked.
    """

    name: str
    answers: tuple[str, ...]
    after: tuple[str, str] | None = None


@dataclass(frozen=True)
class VoteSchema:
    """A decision tree: its questions, each below the one that leads to it. `read_schema` makes a checked one."""

    questions: tuple[Question, ...]

    @property
    def columns(self) -> list[str]:
        """`(A,)`: the columns of votes, `<question>_<answer>`."""
        return [f"{question.name}_{answer}" for question in self.questions for answer in question.answers]

    @property
    def sizes(self) -> list[int]:
        """`(Q,)`: the number of answers of each question."""
        return [len(question.answers) for question in self.questions]

    @property
    def starts(self) -> list[int]:
        """`(Q,)`: the place in `columns` of each question's first answer."""
        return [sum(self.sizes[:number]) for number in range(len(self.questions))]

    @property
    def leads(self) -> list[int | None]:
        """`(Q,)`: the place in `columns` of the answer that leads to each question; `None` where everybody is asked."""
        return [question.after and self.columns.index("_".join(question.after)) for question in self.questions]

    def fractions(self, votes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each answer's share of the votes on its question, 0 where nobody was asked, `(N, A)`.

        Args:
            votes: `(N, A)`, numbers of votes, at least 0.
        """
        total = np.repeat(np.add.reduceat(votes, self.starts, axis=1), self.sizes, axis=1)
        share: NDArray[np.float64] = np.divide(votes, total, out=np.zeros(votes.shape), where=total > 0)
        return share


def read_schema(path_or_name: str | Path) -> VoteSchema:
    """Read a vote schema.

    Args:
        path_or_name: A YAML file (a name that ends in .yaml, or a path with a folder), or the name of one in
            configs/schemas, such as desi.

    Raises:
        DataError: There is no such schema, or it is no tree of questions; the message names the file and the question.
    """
    path = Path(path_or_name)
    if path.suffix != ".yaml" and path.name == str(path_or_name):
        known = sorted(file.stem for file in SCHEMAS.glob("*.yaml"))
        if path.name not in known:
            raise DataError(f"no vote schema {path.name!r}; there are {', '.join(known)}, or give a .yaml file")
        path = SCHEMAS / f"{path.name}.yaml"
    entries = read_yaml(path).get("questions")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} has no list of `questions`")
    questions: list[Question] = []
    for number, entry in enumerate(entries, 1):
        question = _question(path, number, entry)
        _check(path, question, questions, entries)
        questions.append(question)
    schema = VoteSchema(tuple(questions))
    if doubled := [column for column in schema.columns if schema.columns.count(column) > 1]:
        raise DataError(f"{path}: two answers have the column {doubled[0]}; rename one")
    return schema


def _question(path: Path, number: int, entry: Any) -> Question:
    """An entry of the file, with its types checked."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise DataError(f"{path}: question {number} has no `name` that is text")
    where = f"{path}: question {entry['name']}"
    if unknown := set(entry) - {"name", "answers", "after"}:
        raise DataError(f"{where} has {', '.join(sorted(map(str, unknown)))}; expected name, answers and after")
    answers, after = entry.get("answers"), entry.get("after")
    if not isinstance(answers, list) or len(answers) < 2:
        raise DataError(f"{where} needs a list of at least two answers")
    if after is not None and (not isinstance(after, list) or len(after) != 2):
        raise DataError(f"{where}: `after` is {after!r}, expected [question, answer]")
    for text in (*answers, *(after or ())):
        if not isinstance(text, str):
            raise DataError(f'{where}: {text!r} is not text; write it in quotes, such as "no" or "1"')
    return Question(entry["name"], tuple(answers), (after[0], after[1]) if after else None)


def _check(path: Path, question: Question, above: list[Question], entries: list[Any]) -> None:
    """Check that a question is new, and that one above leads to it, so that none leads back to itself."""
    where = f"{path}: question {question.name}"
    answers = {other.name: other.answers for other in above}
    if question.name in answers:
        raise DataError(f"{where} occurs twice")
    if len(set(question.answers)) < len(question.answers):
        raise DataError(f"{where} has an answer twice")
    if question.after is None:
        return
    before, answer = question.after
    if before not in answers:
        if any(isinstance(entry, dict) and entry.get("name") == before for entry in entries):
            raise DataError(
                f"{where} comes after {before}, which does not stand above it; a question stands below the one that "
                "leads to it, and none may lead back to itself"
            )
        raise DataError(f"{where} comes after {before}, which is no question{nearest(before, answers)}")
    if answer not in answers[before]:
        raise DataError(f"{where} comes after {answer!r}, which is no answer of {before}: {', '.join(answers[before])}")
