"""The packages whose classes may be built from a checkpoint, see `shared.checkpoint`.

A package adds itself in its `__init__`, so that this module names none. It does not import torch, because worker
processes that only read files import it too.
"""

_packages = {"shared"}


def trust(package: str) -> None:
    """Let checkpoints name the classes of a package."""
    _packages.add(package)


def trusted_packages() -> tuple[str, ...]:
    """`shared` and the packages that have been imported so far, in alphabetical order."""
    return tuple(sorted(_packages))
