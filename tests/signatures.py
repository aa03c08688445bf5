"""Where a YAML departs from the defaults in the signatures of the classes that it names."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

# What no YAML sets: the CLI sets `seed`, and some classes give an argument of their base class themselves.
SET = {"seed"}
SET_BY = {"DVMCarDataModule": {"columns"}, "CardiacDataModule": {"columns", "fit"}}


def class_of(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    assert isinstance(cls, type)
    return cls


def parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Of `__init__`, with those of the base class where it has `**kwargs`."""
    own = dict(inspect.signature(cls).parameters)
    if own.pop("kwargs", None):
        own |= {name: value for name, value in parameters(cls.__mro__[1]).items() if name not in own}
    return own


def blocks(value: Any) -> list[dict[str, Any]]:
    """Every `class_path` block below, but those of torch and Lightning."""
    if isinstance(value, list):
        return [block for item in value for block in blocks(item)]
    if not isinstance(value, dict):
        return []
    foreign = ("torch.", "pytorch_lightning.")
    own = [value] if "class_path" in value and not value["class_path"].startswith(foreign) else []
    return own + [block for item in value.values() for block in blocks(item)]


def optimizer_departures(block: Mapping[str, Any], default: Callable[..., Any]) -> dict[str, Any]:
    """The whole block where the signature's default makes another optimiser, else the arguments that differ."""
    made = default([torch.zeros(1, requires_grad=True)])
    if type(made) is not class_of(block["class_path"]):
        return {"optimizer": block}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in block["init_args"].items()}
    changed = {key: value for key, value in given.items() if value != made.defaults[key]}
    return {"optimizer": changed} if changed else {}


def departures(
    content: Mapping[str, Any], others: Mapping[str, Callable[[Any, Any], dict[str, Any]]] | None = None
) -> dict[str, Any]:
    """By argument, the values in a YAML that are not the default of the class that they are given to.

    Every argument of every class must be there. `others` says of values that cannot be compared with their default as
    they are, by argument, what departs.
    """
    compare = {"optimizer": optimizer_departures, **(others or {})}
    found: dict[str, Any] = {}
    for block in blocks(content):
        cls = class_of(block["class_path"])
        left_out = SET | SET_BY.get(cls.__name__, set())
        expected = {name: value for name, value in parameters(cls).items() if name not in left_out}
        assert block["init_args"].keys() == expected.keys(), cls.__name__
        for name, value in block["init_args"].items():
            default = expected[name].default
            if default is inspect.Parameter.empty:  # the data's root, the parts of a model
                continue
            if name in compare:
                found |= compare[name](value, default)
            elif value != (list(default) if isinstance(default, tuple) else default):
                found[name] = value
    return found
