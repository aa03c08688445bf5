"""How augmentations are put together: in a row, and into two views of a sample."""

from torch import Tensor, nn


class Augment(nn.Sequential):
    """The given augmentations one after the other.

    Args:
        transforms: Modules `(B, C, T) -> (B, C, T)`.
    """

    def __init__(self, transforms: list[nn.Module]) -> None:
        super().__init__(*transforms)


class TwoViews(nn.Module):
    """Two views of every sample, as contrastive methods compare.

    Args:
        first: Augmentation `(B, C, T) -> (B, C, T')` of the first view.
        second: Of the second; by default the first one, drawn anew.
    """

    def __init__(self, first: nn.Module, second: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, ...)` to two views."""
        return self.first(x), (self.second or self.first)(x)


class Views(nn.Module):
    """Several views of every sample, each drawn anew by the same augmentation.

    Args:
        augment: `(B, ...) -> (B, ...)`.
        count: How many.
    """

    def __init__(self, augment: nn.Module, count: int = 2) -> None:
        super().__init__()
        self.augment = augment
        self.count = count

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(B, ...)` to `count` views."""
        return tuple(self.augment(x) for _ in range(self.count))
