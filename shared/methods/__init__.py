"""Methods over any encoder and any views, one file each: self-supervised ones, and supervised training."""

from shared.methods.barlow_twins import BarlowTwins
from shared.methods.byol import BYOL
from shared.methods.method import Method
from shared.methods.pretraining import Pretraining, Step, feature_std
from shared.methods.simclr import SimCLR
from shared.methods.simsiam import SimSiam
from shared.methods.supervised import Supervised

__all__ = ["BYOL", "BarlowTwins", "Method", "Pretraining", "SimCLR", "SimSiam", "Step", "Supervised", "feature_std"]
