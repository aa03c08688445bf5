"""What the methods ask of an encoder."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Encoder(Protocol):
    """A network that says how wide its features are. Any module with this attribute is one.

    Constructors are annotated with `nn.Module` nevertheless, because the parser of configurations needs a class whose
    subclasses it can look for; they get the width from `out_dim`.

    Attributes:
        out_dim: Width D of its features `(B, D)`.
    """

    out_dim: int


def out_dim(encoder: nn.Module) -> int:
    """Width D of an encoder's features `(B, D)`.

    Raises:
        TypeError: The module does not say it.

    Example:
        >>> from shared.backbones import ResNet1D
        >>> out_dim(ResNet1D(in_channels=12, width=8))
        64
    """
    if not isinstance(encoder, Encoder):
        raise TypeError(f"{type(encoder).__name__} has no out_dim: an encoder must say how wide its features are")
    return encoder.out_dim
