"""Per-sample batched augmentation: every sample of a batch draws its own parameters, on the tensor's device."""

from shared.augment.images import ImageAugment, ImageParameters, resize
from shared.augment.signals import (
    BaselineWander,
    ChannelMask,
    Invert,
    Jitter,
    Permute,
    Powerline,
    Scale,
    TimeCrop,
    TimeOut,
    Window,
)
from shared.augment.views import Augment, TwoViews, Views

__all__ = [
    "Augment",
    "BaselineWander",
    "ChannelMask",
    "ImageAugment",
    "ImageParameters",
    "Invert",
    "Jitter",
    "Permute",
    "Powerline",
    "Scale",
    "TimeCrop",
    "TimeOut",
    "TwoViews",
    "Views",
    "Window",
    "resize",
]
