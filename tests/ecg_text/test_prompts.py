"""Class prompts: every shipped file, the sentences made of it, and clear errors for other files."""

from pathlib import Path

import pytest

from ecg_text.data.labels import CPSC2018_CLASSES, PTBXL_SUPERCLASSES
from ecg_text.prompts import PROMPT_FOLDER, Prompts, load_prompts

SHIPPED = sorted(path.stem for path in PROMPT_FOLDER.glob("*.yaml"))


def test_the_shipped_files() -> None:
    assert SHIPPED == ["clinical", "ensemble", "german", "paper"]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("classes", [PTBXL_SUPERCLASSES, CPSC2018_CLASSES], ids=["ptbxl", "cpsc2018"])
def test_every_shipped_file_has_different_sentences_for_every_class(name: str, classes: dict[str, str]) -> None:
    prompts = load_prompts(name)
    assert set(prompts.names) <= set(PTBXL_SUPERCLASSES) | set(CPSC2018_CLASSES)  # no misspelt code
    if prompts.names:
        assert set(classes) <= set(prompts.names)
    sentences = prompts.sentences(classes)
    assert len(sentences) == len(classes)
    flat = [sentence for group in sentences for sentence in group]
    assert len(set(flat)) == len(flat)
    assert all(sentence.strip() == sentence and "{" not in sentence for sentence in flat)


def test_the_papers_sentence() -> None:
    sentences = load_prompts("paper").sentences(CPSC2018_CLASSES)
    assert sentences[1] == ["this ECG indicates atrial fibrillation"]
    assert sentences[0] == ["this ECG indicates normal ECG"]


def test_the_ensemble_is_the_english_and_the_german_wordings() -> None:
    english, german = load_prompts("clinical").names, load_prompts("german").names
    ensemble = load_prompts("ensemble").names
    assert ensemble == {code: english[code] + german[code] for code in ensemble}
    assert set(ensemble) == set(english) == set(german)


def test_every_template_with_every_name_in_order() -> None:
    prompts = Prompts(("an ECG of {}", "{}"), {"B": ("b one", "b two")})
    assert prompts.sentences({"B": "unused", "A": "own name"}) == [
        ["an ECG of b one", "an ECG of b two", "b one", "b two"],
        ["an ECG of own name", "own name"],
    ]


def test_a_file_of_your_own_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("templates: ['EKG: {}']\nnames: {1: ['förmaksflimmer {x}']}\n", encoding="utf-8")
    prompts = load_prompts(str(path))
    assert prompts == Prompts(("EKG: {}",), {"1": ("förmaksflimmer {x}",)})
    assert prompts.sentences({"1": "AF"}) == [["EKG: förmaksflimmer {x}"]]


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_prompts("latin")
    assert str(caught.value) == (
        "no prompts 'latin': choose one of clinical, ensemble, german, paper, or pass the path of a YAML file"
    )


NO_TEMPLATES = "needs 'templates:', a list of sentences with one {} each"
BAD_NAMES = "'names:' must hold a non-empty list of names by class code"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", f" {NO_TEMPLATES}"),
        ("- a\n- b", f" {NO_TEMPLATES}"),
        ("names: {}", f" {NO_TEMPLATES}"),
        ("templates: []", f" {NO_TEMPLATES}"),
        ("templates: 'this ECG indicates {}'", f" {NO_TEMPLATES}"),
        ("templates: ['no field']", f" {NO_TEMPLATES}"),
        ("templates: ['{} and {}']", f" {NO_TEMPLATES}"),
        ("templates: ['{} and {lead}']", f" {NO_TEMPLATES}"),
        ("templates: ['{}']\nnames: {AF: []}", f": {BAD_NAMES}"),
        ("templates: ['{}']\nnames: {AF: atrial fibrillation}", f": {BAD_NAMES}"),
        ("templates: ['{}']\nnames: [AF]", f": {BAD_NAMES}"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_prompts(str(path))
    assert str(caught.value) == f"{path}{reason}"


@pytest.mark.parametrize("content", [b"templates: ['{}'", b"templates: [\xff]"])
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_prompts(str(path))
    assert str(caught.value).startswith(f"{path} is not a YAML file (")
