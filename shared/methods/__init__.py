"""Self-supervised methods over any encoder and any views, one file each."""

from shared.methods.self_supervised import SelfSupervised, Step, feature_std
from shared.methods.simclr import SimCLR

__all__ = ["SelfSupervised", "SimCLR", "Step", "feature_std"]
