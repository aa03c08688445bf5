"""Per-sample batched augmentation of signals `(B, C, T)`: every sample of a batch draws its own parameters.

The draws come from torch's generator of the tensor's device, which `shared.callbacks.SeedEachEpoch` seeds. The result
has the signal's dtype, and the signal itself is never changed. Sizes are in units of the signal, which are standard
deviations if it is normalised.
"""

import math
from collections import Counter

import torch
from torch import Tensor, nn

from shared.augment.base import Augmentation, checked_probability, checked_size

SLOWEST_WANDER = 0.05  # Hz; slower drift is an offset, which normalisation removes


class TimeCrop(Augmentation):
    """Keep a random window and stretch it back to full length by linear interpolation.

    The "random resized crop" of Mehari & Strodthoff 2022.

    Args:
        low: Length of the shortest window, as a fraction of the signal's length.

    Raises:
        ValueError: `low` is outside (0, 1].
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
        before, after = (
            signal.gather(2, index.unsqueeze(1).expand(-1, channels, -1))  # the index is never as large as the signal
            for index in (left, left + 1)
        )
        return torch.lerp(before, after, weight)


class Window(Augmentation):
    """Keep a random window of fixed length: nothing is stretched, so rates (as of the heart) do not change.

    A convolutional encoder that averages over time takes any length, so training on windows and evaluating on whole
    signals works, and costs proportionally less.

    Args:
        fraction: Length of the window, as a fraction of the signal's length.

    Raises:
        ValueError: `fraction` is outside (0, 1].
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


class TimeOut(Augmentation):
    """Set one random stretch of each sample to zero, in all channels (Mehari & Strodthoff 2022, "time out").

    Args:
        low: Length of the shortest stretch, as a fraction of the signal's length.
        high: Length of the longest stretch; the fraction is drawn from U(low, high).

    Raises:
        ValueError: `0 <= low <= high <= 1` does not hold.
    """

    def __init__(self, low: float = 0.0, high: float = 0.5) -> None:
        super().__init__()
        if not 0 <= low <= high <= 1:
            raise ValueError(f"0 <= low <= high <= 1 must hold, got low {low} and high {high}")
        self.low = low
        self.high = high

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        batch, _, length = signal.shape
        size = torch.empty(batch, 1, device=signal.device).uniform_(self.low, self.high).mul_(length).round_()
        start = torch.rand(batch, 1, device=signal.device).mul_(length - size + 1).floor_()
        since = torch.arange(length, device=signal.device) - start
        keep = (since < 0) | (since >= size)
        return signal * keep.unsqueeze(1)  # several times as fast as masked_fill on a CPU


class Permute(Augmentation):
    """Cut each sample at random places into segments, and shuffle these (TS-TCC's strong augmentation).

    Eldele et al. 2021, section 3.1. The number of segments is drawn from U{1, ..., max_segments}; if two cuts coincide,
    there is one fewer. Their public code fills every channel with the shuffled first one; here each keeps its own.

    Args:
        max_segments: Largest number of segments of a sample.
        groups: Groups of channels. The channels of a group share their cuts and their order, and so stay synchronous;
            every group draws its own. Channels of no group are left as they are. None is one group of all channels.

    Raises:
        ValueError: `max_segments` is below 1; or `groups` holds a negative channel, a channel twice or, when called, a
            channel that the signal lacks.

    Example:
        >>> permuted = Permute(groups=[[0, 1]])(torch.arange(9.0).expand(1, 3, 9))
        >>> torch.equal(permuted[:, 0], permuted[:, 1])  # synchronous
        True
        >>> permuted[0, 2]  # in no group
        tensor([0., 1., 2., 3., 4., 5., 6., 7., 8.])
    """

    def __init__(self, max_segments: int = 8, groups: list[list[int]] | None = None) -> None:
        super().__init__()
        if max_segments < 1:
            raise ValueError(f"max_segments must be at least 1, got {max_segments}")
        count = Counter(channel for group in groups or [] for channel in group)
        if any(times > 1 for times in count.values()):
            raise ValueError(f"groups must hold each channel once at most, got {groups}")
        if min(count, default=0) < 0:
            raise ValueError(f"groups must hold channels from 0 on, got {groups}")
        self.max_segments = max_segments
        self.groups = groups
        self._highest = max(count, default=-1)

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        if self.groups is None:
            return self._shuffle(signal)
        if self._highest >= signal.shape[1]:
            raise ValueError(f"groups holds channel {self._highest}, but the signal has {signal.shape[1]} channels")
        out = signal.clone()
        for group in self.groups:
            out[:, group] = self._shuffle(signal[:, group])
        return out

    def _shuffle(self, signal: Tensor) -> Tensor:
        batch, channels, length = signal.shape
        most, device = self.max_segments, signal.device
        count = torch.randint(1, most + 1, (batch, 1), device=device)
        cuts = torch.randint(length, (batch, most - 1), device=device)
        cuts.masked_fill_(torch.arange(1, most, device=device) >= count, length)  # empty segments at the end
        start = nn.functional.pad(cuts, (1, 0)).sort(dim=1).values
        size = start.diff(dim=1, append=start.new_full((batch, 1), length))
        order = torch.rand(batch, most, device=device).argsort(dim=1)
        start, size = start.gather(1, order), size.gather(1, order)
        # How far every sample of a segment moves is known per segment; sorting all T positions takes six times as long.
        shift = start - (size.cumsum(1) - size)
        shifts = shift.flatten().repeat_interleave(size.flatten(), output_size=batch * length).view(batch, length)
        index = torch.arange(length, device=device) + shifts
        return signal.gather(2, index.unsqueeze(1).expand(-1, channels, -1))


class Scale(Augmentation):
    """Multiply each sample by a factor of mean 1.

    Args:
        sigma: Standard deviation of the logarithm of the factor.

    Raises:
        ValueError: `sigma` is negative or not finite.
    """

    def __init__(self, sigma: float = 0.1) -> None:
        super().__init__()
        self.sigma = checked_size("sigma", sigma)

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        factor = torch.randn(len(signal), 1, 1, device=signal.device, dtype=signal.dtype)
        return signal * (factor * self.sigma - self.sigma**2 / 2).exp()


class Jitter(Augmentation):
    """Add white noise.

    Args:
        sigma: Standard deviation of the noise, in units of the signal.

    Raises:
        ValueError: `sigma` is negative or not finite.
    """

    def __init__(self, sigma: float = 0.05) -> None:
        super().__init__()
        self.sigma = checked_size("sigma", sigma)

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        return torch.randn_like(signal).mul_(self.sigma).add_(signal)


class ChannelMask(Augmentation):
    """Set each channel of each sample to zero with probability `p` (like a lead that fell off).

    Args:
        p: Probability that a channel is set to zero.

    Raises:
        ValueError: `p` is outside [0, 1].
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = checked_probability("p", p)

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        keep = torch.rand(*signal.shape[:2], 1, device=signal.device) >= self.p
        return signal * keep


class Invert(Augmentation):
    """Change the sign of each sample with probability `p` (the "inversion" of ETP, section 2.2).

    Args:
        p: Probability that a sample changes its sign.

    Raises:
        ValueError: `p` is outside [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = checked_probability("p", p)

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        inverted = torch.rand(len(signal), 1, 1, device=signal.device) < self.p
        return signal * (1 - 2 * inverted.to(signal.dtype))


class Powerline(Augmentation):
    r"""Add mains hum (Mehari & Strodthoff 2022, "powerline noise").

    With a phase :math:`\varphi` and an amplitude :math:`a \sim U(0, amplitude)` for each sample, and a gain
    :math:`g_c \sim U(-1, 1)` for each of its channels:

    .. math:: x_c(t) + g_c \, a \sin(2 \pi f t + \varphi)

    A lead is a difference of electrodes in one electric field, so the hum of the leads only differs in size and sign.

    Args:
        amplitude: Largest amplitude, in units of the signal.
        frequency: Frequency f in Hz; 50, or 60 in the Americas.
        sampling_rate: Sampling rate in Hz.

    Raises:
        ValueError: `amplitude` is negative or not finite, or `frequency` is outside (0, sampling_rate / 2].
    """

    def __init__(self, amplitude: float = 0.2, frequency: float = 50.0, sampling_rate: int = 500) -> None:
        super().__init__()
        if not 0 < frequency <= sampling_rate / 2:
            raise ValueError(
                f"frequency must be above 0 and at most half of sampling_rate {sampling_rate}, got {frequency}"
            )
        self.amplitude = checked_size("amplitude", amplitude)
        self.frequency = frequency
        self.sampling_rate = sampling_rate

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        frequency = torch.full((len(signal), 1), self.frequency / self.sampling_rate, device=signal.device)
        return _add_sines(signal, self.amplitude, frequency)


class BaselineWander(Augmentation):
    """Add slow sines, like those of breathing and moving electrodes (Mehari & Strodthoff 2022, "baseline wander").

    Each sine is drawn like that of `Powerline`, with a frequency from U(0.05 Hz, max_frequency).

    Args:
        amplitude: Largest amplitude of a sine, in units of the signal; the sum can reach `components` times as much.
        max_frequency: Largest frequency in Hz; breathing at rest is below 0.5.
        duration: Duration of the T samples in seconds, so that one setting suits every sampling rate.
        components: Number of sines.

    Raises:
        ValueError: `amplitude` is negative or not finite, `max_frequency` is below 0.05, `duration` is not above 0, or
            `components` is below 1.
    """

    def __init__(
        self, amplitude: float = 0.5, max_frequency: float = 0.5, duration: float = 10.0, components: int = 3
    ) -> None:
        super().__init__()
        if not max_frequency >= SLOWEST_WANDER:
            raise ValueError(f"max_frequency must be at least {SLOWEST_WANDER}, got {max_frequency}")
        if not duration > 0:
            raise ValueError(f"duration must be above 0, got {duration}")
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.amplitude = checked_size("amplitude", amplitude)
        self.max_frequency = max_frequency
        self.duration = duration
        self.components = components

    def forward(self, signal: Tensor) -> Tensor:
        """`(B, C, T) -> (B, C, T)`."""
        frequency = torch.empty(len(signal), self.components, device=signal.device)
        frequency.uniform_(SLOWEST_WANDER, self.max_frequency)
        return _add_sines(signal, self.amplitude, frequency * (self.duration / signal.shape[2]))


def _add_sines(signal: Tensor, amplitude: float, frequency: Tensor) -> Tensor:
    """Add sines of `frequency` `(B, K)` in cycles per sample, with a phase and amplitude per sine and channel gains."""
    batch, channels, length = signal.shape
    count = frequency.shape[1]
    phase = torch.rand(batch, count, 1, device=signal.device)
    gain = torch.empty(batch, channels, count, device=signal.device).uniform_(-1, 1)
    gain *= amplitude * torch.rand(batch, 1, count, device=signal.device)
    cycles = frequency.unsqueeze(2) * torch.arange(length, device=signal.device) + phase
    sines = cycles.mul_(2 * math.pi).sin_()
    with torch.autocast(signal.device.type, enabled=False):  # it would return the sum in half precision
        return torch.baddbmm(signal, gain.to(signal.dtype), sines.to(signal.dtype))
