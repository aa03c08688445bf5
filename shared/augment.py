"""Per-sample batched augmentation of signals `(B, C, T)`: every sample of a batch draws its own parameters.

The draws come from torch's generator of the tensor's device, which `shared.callbacks.SeedEachEpoch` seeds.
"""

import torch
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


class TimeCrop(nn.Module):
    """Keep a random window and stretch it back to full length, linearly interpolated.

    Args:
        low: Shortest window, as a fraction of the length.
    """

    def __init__(self, low: float = 0.5) -> None:
        super().__init__()
        if not 0 < low <= 1:
            raise ValueError(f"low must be in (0, 1], got {low}")
        self.low = low

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        batch, channels, length = signal.shape
        size = torch.empty(batch, 1, device=signal.device).uniform_(self.low, 1)
        start = torch.rand(batch, 1, device=signal.device) * (1 - size)
        grid = torch.linspace(0, 1, length, device=signal.device)
        position = (start + grid * size) * (length - 1)
        left = position.floor().long().clamp(0, length - 2)
        weight = (position - left).unsqueeze(1).to(signal.dtype)
        index = left.unsqueeze(1).expand(-1, channels, -1)
        return torch.lerp(signal.gather(2, index), signal.gather(2, index + 1), weight)


class Window(nn.Module):
    """Keep a random window of fixed length: nothing is stretched, so rates stay what they are.

    A convolutional encoder that averages over time takes any length, so training on windows and evaluating on whole
    signals works, and costs proportionally less.

    Args:
        fraction: Length of the window, as a fraction of the signal's.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}")
        self.fraction = fraction

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, round(fraction T))`."""
        batch, channels, length = signal.shape
        size = max(1, round(self.fraction * length))
        start = torch.randint(length - size + 1, (batch, 1), device=signal.device)
        index = start + torch.arange(size, device=signal.device)
        return signal.gather(2, index.unsqueeze(1).expand(-1, channels, -1))


class Scale(nn.Module):
    """Multiply each sample by a factor of mean 1.

    Args:
        sigma: Standard deviation of the logarithm of the factor.
    """

    def __init__(self, sigma: float = 0.1) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        factor = torch.randn(len(signal), 1, 1, device=signal.device, dtype=signal.dtype)
        return signal * (factor * self.sigma - self.sigma**2 / 2).exp()


class Jitter(nn.Module):
    """Add white noise.

    Args:
        sigma: Standard deviation, in units of the signal.
    """

    def __init__(self, sigma: float = 0.05) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        return torch.randn_like(signal).mul_(self.sigma).add_(signal)


class ChannelMask(nn.Module):
    """Set each channel of each sample to zero with probability `p` (a lead that fell off).

    Args:
        p: Probability of a channel.
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = p

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        keep = torch.rand(*signal.shape[:2], 1, device=signal.device) >= self.p
        return signal * keep
