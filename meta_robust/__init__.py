"""RML: Robust Meta Learning (Jiang et al.), and few-shot methods to compare it with.

Example:
    >>> import torch
    >>> from meta_robust import MAML
    >>> from meta_robust.model import Conv4
    >>> model, images = MAML(Conv4(image_px=32, width=8)), torch.randint(256, (7, 3, 32, 32), dtype=torch.uint8)
    >>> labels = torch.tensor([0, 0, 0, 1])  # three photographs of one thing, one of another
    >>> model.eval().classify(images[:4], labels, images[4:], ways=2).shape
    torch.Size([3, 2])
"""

from typing import TYPE_CHECKING

from shared.lazy import public_names
from shared.trusted import trust

if TYPE_CHECKING:
    from meta_robust.data.class_folders import ClassFoldersDataModule
    from meta_robust.data.episodes import EpisodeBatch, TaskShape
    from meta_robust.data.image_lists import ImageListsDataModule
    from meta_robust.data.module import FewShotDataModule
    from meta_robust.data.omniglot import OmniglotDataModule
    from meta_robust.methods import (
        MAML,
        Baseline,
        BaselinePlusPlus,
        MatchingNetwork,
        MetaLearnerLSTM,
        PrototypicalNetwork,
        RelationNetwork,
        Reptile,
    )
    from meta_robust.module import RML

__all__ = [
    "MAML",
    "RML",
    "Baseline",
    "BaselinePlusPlus",
    "ClassFoldersDataModule",
    "EpisodeBatch",
    "FewShotDataModule",
    "ImageListsDataModule",
    "MatchingNetwork",
    "MetaLearnerLSTM",
    "OmniglotDataModule",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "TaskShape",
]

_FILES = {
    "RML": "module",
    "MAML": "methods",
    "Baseline": "methods",
    "BaselinePlusPlus": "methods",
    "MatchingNetwork": "methods",
    "MetaLearnerLSTM": "methods",
    "PrototypicalNetwork": "methods",
    "RelationNetwork": "methods",
    "Reptile": "methods",
    "EpisodeBatch": "data.episodes",
    "TaskShape": "data.episodes",
    "FewShotDataModule": "data.module",
    "ClassFoldersDataModule": "data.class_folders",
    "ImageListsDataModule": "data.image_lists",
    "OmniglotDataModule": "data.omniglot",
}

trust(__name__)  # checkpoints may name this package's classes

__getattr__ = public_names(__name__, _FILES)
