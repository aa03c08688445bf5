"""Whether variants were trained alike, so that comparing their methods says something about the methods."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from shared.data.problems import DataError
from shared.runs.configs import Configs, Profile
from shared.runs.settings import compared
from shared.runs.variant import Variant

# The settings that bound what a training costs, with their defaults. The YAMLs may give a method a budget of its own,
# which is shown beside its row.
BUDGET: dict[str, Any] = {
    "trainer.max_epochs": None,
    "trainer.max_steps": -1,
    "trainer.max_time": None,
    "trainer.limit_train_batches": 1.0,
    "trainer.accumulate_grad_batches": 1,
    "data.init_args.batch_size": None,
}


def _at(config: Mapping[str, Any], dotted: str) -> Any:
    found: Any = config
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def budget(config: Mapping[str, Any]) -> dict[str, Any]:
    """The budget that a configuration gives a training: the settings of `BUDGET`, with their defaults filled in."""
    found = {key: _at(config, key) for key in BUDGET}
    return {key: BUDGET[key] if value is None else value for key, value in found.items()}


def own_budget_in(variant: Variant, configs: Configs, keys: Sequence[str]) -> set[Profile]:
    """The profiles in which the YAMLs give a variant's method, on its data set, the budget that it was trained with.

    Args:
        variant: The trained variant.
        configs: The package's configs/.
        keys: Budget settings that must agree; the others may have been changed.
    """
    given = budget(variant.config)
    profiles: tuple[Profile, ...] = get_args(Profile)
    return {
        profile
        for profile in profiles
        for own in map(budget, configs.composed(variant.config, profile))
        if all(own[key] == given[key] for key in keys)
    }


def _signature(variant: Variant) -> dict[str, Any]:
    """What all variants of a comparison must share."""
    config = compared(variant.config)
    data = {key: value for key, value in config["data"]["init_args"].items() if key not in ("seed", "batch_size")}
    signature: dict[str, Any] = {"data settings": {"class_path": config["data"]["class_path"], **data}}
    if variant.data:
        signature["data content"] = variant.data
    if "model" in config:  # a verb's result without training has neither
        signature["encoder"] = config["model"]["init_args"].get("encoder")
        signature["precision"] = config["trainer"].get("precision")
    return signature


def alike(variants: Sequence[Variant], configs: Configs, apart: bool = False) -> list[list[Variant]]:
    """Group variants that were trained alike: on the same data, with the same encoder, precision and budget.

    Different budgets also count as alike if each is the one that the method's own YAMLs give it, all in one profile.

    Args:
        variants: The variants to compare.
        configs: The package's configs/.
        apart: Whether to return several groups, instead of raising an error, if they were not trained alike.

    Raises:
        DataError: Two of them were not trained alike; the error says what differs.
    """
    groups: list[list[Variant]] = []
    for variant in variants:
        for group in groups:
            if not (said := _unlike(group[0], variant, configs)):
                group.append(variant)
                break
            if not apart:
                raise DataError(
                    f"the trainings of {group[0].folder} and {variant.folder} differ in {said}, so comparing the "
                    "methods says nothing: train them alike, or show them in separate tables (--apart true)"
                )
        else:
            groups.append([variant])
    return groups


def _unlike(first: Variant, second: Variant, configs: Configs) -> str:
    """What differs between two variants' trainings, with both values; empty if they were trained alike."""
    signatures = _signature(first), _signature(second)
    for key in [key for key in signatures[0] if key in signatures[1]]:
        one, other = (signature[key] for signature in signatures)
        if one != other:
            return f"{key} ({_difference(one, other)})"
    if not first.is_trained or not second.is_trained:
        return ""
    one, other = budget(first.config), budget(second.config)
    differ = [key for key in BUDGET if one[key] != other[key]]
    if differ and not own_budget_in(first, configs, differ) & own_budget_in(second, configs, differ):
        key = differ[0]
        return f"{key} ({one[key]} and {other[key]}), which is not what the methods' own YAMLs give them"
    return ""


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key):
                return f"{key}: {_difference(one.get(key), other.get(key))}"
    return f"{one} and {other}"
