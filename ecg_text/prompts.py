"""Class prompts: sentences for zero-shot classification, from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from shared.data.problems import DataError

PROMPT_FOLDER = Path(__file__).parent / "configs" / "prompts"


@dataclass(frozen=True)
class Prompts:
    """Templates, and the names of the classes to fill in.

    Attributes:
        templates: Sentences with one `{}` each.
        names: Names by class code; a class that is not listed has the name that its data set gives it.
    """

    templates: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]

    def sentences(self, class_names: Mapping[str, str]) -> list[list[str]]:
        """All prompts of each class, in the order of `class_names` (names by code).

        Example:
            >>> prompts = Prompts(("this ECG indicates {}",), {"AF": ("atrial fibrillation",)})
            >>> prompts.sentences({"AF": "AF", "STE": "ST"})
            [['this ECG indicates atrial fibrillation'], ['this ECG indicates ST']]
        """
        return [
            [template.format(name) for template in self.templates for name in self.names.get(code, (own,))]
            for code, own in class_names.items()
        ]


def load_prompts(name_or_path: str) -> Prompts:
    """Read prompts, given by a name from `ecg_text/configs/prompts/` (`paper`, `german`, ...) or a path of a YAML file.

    The file has `templates:` (a list of sentences with one `{}` each) and `names:` (lists of names by class code, which
    may be empty).

    Raises:
        DataError: There is no such file, or it does not have this form.
    """
    path = PROMPT_FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROMPT_FOLDER.glob("*.yaml")))
        raise DataError(f"no prompts {name_or_path!r}: choose one of {known}, or pass the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a YAML file ({error})") from error
    templates = content.get("templates") if isinstance(content, dict) else None
    # One {} and no other brace, which str.format would mistake for a field.
    if not isinstance(templates, list) or not templates or not all(map(_has_one_field, templates)):
        raise DataError(f"{path} needs 'templates:', a list of sentences with one {{}} each")
    names = content.get("names") or {}
    if not isinstance(names, dict) or any(not isinstance(value, list) or not value for value in names.values()):
        raise DataError(f"{path}: 'names:' must hold a non-empty list of names by class code")
    return Prompts(
        tuple(str(template) for template in templates),
        {str(code): tuple(str(name) for name in value) for code, value in names.items()},
    )


def _has_one_field(template: object) -> bool:
    before, field, after = str(template).partition("{}")
    return bool(field) and not set("{}") & set(before + after)
