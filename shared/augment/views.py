"""How augmentations are combined: one after the other, and into several views of a sample."""

from torch import Tensor, nn


class Augment(nn.Sequential):
    """Applies the given augmentations one after the other.

    Args:
        transforms: The augmentations, modules `(B, C, T) -> (B, C, T)`.
    """

    def __init__(self, transforms: list[nn.Module]) -> None:
        super().__init__(*transforms)


class TwoViews(nn.Module):
    """Makes two views of every sample, for contrastive methods to compare.

    Args:
        first: Augmentation `(B, C, T) -> (B, C, T')` for the first view.
        second: Augmentation for the second view; by default the same as for the first, with new draws.
    """

    def __init__(self, first: nn.Module, second: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, ...)` to two views."""
        return self.first(x), (self.second or self.first)(x)


class Views(nn.Module):
    """Makes several views of every sample with the same augmentation, each with new draws.

    Args:
        augment: The augmentation `(B, ...) -> (B, ...)`.
        count: Number of views.
    """

    def __init__(self, augment: nn.Module, count: int = 2) -> None:
        super().__init__()
        self.augment = augment
        self.count = count

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(B, ...)` to `count` views."""
        return tuple(self.augment(x) for _ in range(self.count))
