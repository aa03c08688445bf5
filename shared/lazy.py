"""Public names of a package that are imported only when they are used.

Worker processes that only read files import the package too, and need no torch (0.5 GB each). So torch stays out here.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def public_names(package: str, files: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`.

    Args:
        package: Its name.
        files: Where each public name is, as dotted path within the package.
    """

    def load(name: str) -> Any:
        if name not in files:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{files[name]}"), name)

    return load
