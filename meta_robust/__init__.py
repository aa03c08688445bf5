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

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "EpisodeBatch": "data.episodes",
    "TaskShape": "data.episodes",
    "FewShotDataModule": "data.module",
    "ClassFoldersDataModule": "data.class_folders",
    "ImageListsDataModule": "data.image_lists",
    "OmniglotDataModule": "data.omniglot",
}

trust(__name__)  # checkpoints may name this package's classes


def __getattr__(name: str) -> Any:
    """Import a public name only when it is used, because workers that only read images need no torch (0.5 GB each)."""
    if name not in __all__:
        raise AttributeError(f"module 'meta_robust' has no attribute {name!r}")
    return getattr(import_module(f"meta_robust.{_FILES.get(name, 'methods')}"), name)
