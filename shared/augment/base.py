"""What the augmentations share: how they are printed, and the checks of their settings."""

import math

from torch import nn


class Augmentation(nn.Module):
    """An augmentation that is printed as it is called: `TimeOut(low=0.0, high=0.5)`."""

    def extra_repr(self) -> str:
        """Every setting by name."""
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        del settings["training"]
        return ", ".join(f"{name}={value}" for name, value in settings.items())


def checked_size(name: str, value: float) -> float:
    """The value if it is a finite number of at least 0, otherwise a `ValueError` that names the setting."""
    if not 0 <= value < math.inf:  # also catches NaN
        raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
    return value


def checked_probability(name: str, value: float) -> float:
    """The value if it is in [0, 1], otherwise a `ValueError` that names the setting."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return value
