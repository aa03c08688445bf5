"""Whether variants were trained alike, so that comparing their methods says something about the methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.data.problems import DataError
from shared.runs.configs import Configs
from shared.runs.settings import compared
from shared.runs.variant import Variant

# What a training may cost. The YAMLs may give a method a budget of its own, which is shown beside its row.
BUDGET = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.limit_train_batches",
    "trainer.accumulate_grad_batches",
    "data.init_args.batch_size",
)


def _at(config: Mapping[str, Any], dotted: str) -> Any:
    found: Any = config
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def budget(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration spends on a training."""
    return {key: _at(config, key) for key in BUDGET}


def has_own_budget(variant: Variant, configs: Configs) -> bool:
    """Whether a variant was trained with the budget that the package's YAMLs give its method on its data set."""
    config = variant.config
    given = budget(config)
    for composed in configs.composed(str(config["model"]["class_path"]), variant.dataset):
        stated = {key: value for key, value in budget(composed).items() if value is not None}
        if all(given[key] == value for key, value in stated.items()):
            return True
    return False


def _signature(variant: Variant) -> dict[str, Any]:
    """What all variants of a comparison must share."""
    config = compared(variant.config)
    data = {key: value for key, value in config["data"]["init_args"].items() if key not in ("seed", "batch_size")}
    return {
        "data settings": {"class_path": config["data"]["class_path"], **data},
        "encoder": config["model"]["init_args"].get("encoder"),
        "precision": config["trainer"].get("precision"),
    }


def alike(variants: Sequence[Variant], configs: Configs, apart: bool = False) -> list[list[Variant]]:
    """The variants in groups that were trained alike: on the same data, with one encoder, precision and budget.

    A budget is alike if it is the same, or if each method has the one that its own YAMLs give it.

    Args:
        variants: To compare.
        configs: Of the package.
        apart: Return several groups, in place of an error, where they were not.

    Raises:
        DataError: Two of them were not trained alike; it says what differs.
    """
    groups: list[list[Variant]] = []
    for variant in variants:
        for group in groups:
            if not (said := _unlike(group[0], variant, configs)):
                group.append(variant)
                break
            if not apart:
                raise DataError(
                    f"{group[0].folder} and {variant.folder} were trained with another {said}, so comparing the "
                    "methods says nothing: train them alike, or show them in tables of their own (--apart true)"
                )
        else:
            groups.append([variant])
    return groups


def _unlike(first: Variant, second: Variant, configs: Configs) -> str:
    """What differs between two variants' trainings, with both values; empty if they were trained alike."""
    signatures = _signature(first), _signature(second)
    for key in signatures[0]:
        one, other = (signature[key] for signature in signatures)
        if one != other:
            return f"{key} ({_difference(one, other)})"
    budgets = budget(first.config), budget(second.config)
    if budgets[0] != budgets[1] and not all(has_own_budget(each, configs) for each in (first, second)):
        key = next(key for key in BUDGET if budgets[0][key] != budgets[1][key])
        return f"{key} ({budgets[0][key]} and {budgets[1][key]}), which is not what the methods' own YAMLs give them"
    return ""


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key):
                return f"{key}: {_difference(one.get(key), other.get(key))}"
    return f"{one} and {other}"
