"""What the paper's tables compare RML with, one file each, and `episodic.py`, what all of them share."""

from meta_robust.methods.baseline import Baseline, BaselinePlusPlus
from meta_robust.methods.episodic import EpisodicMethod, FeatureMethod
from meta_robust.methods.maml import MAML
from meta_robust.methods.matching import MatchingNetwork
from meta_robust.methods.meta_lstm import MetaLearnerLSTM
from meta_robust.methods.prototypical import PrototypicalNetwork
from meta_robust.methods.relation import RelationNetwork
from meta_robust.methods.reptile import Reptile

__all__ = [
    "MAML",
    "Baseline",
    "BaselinePlusPlus",
    "EpisodicMethod",
    "FeatureMethod",
    "MatchingNetwork",
    "MetaLearnerLSTM",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
]
