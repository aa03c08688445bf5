"""MMCL: multimodal contrastive learning with tables and images (Hager et al., 2023), and methods to compare it with.

Example:
    >>> import torch
    >>> from shared.augment import ImageAugment, Views
    >>> from shared.backbones import ImageEncoder
    >>> from tabular_imaging import MMCL, TabularEncoder
    >>> encoder = ImageEncoder("resnet18", image_px=32, channels=[8, 8, 16, 16])
    >>> model = MMCL(encoder, Views(ImageAugment(size=32), count=1), TabularEncoder())
    >>> model.eval()(torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)).shape  # images alone
    torch.Size([2, 16])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shared.trusted import trust

if TYPE_CHECKING:
    from tabular_imaging.data.cardiac import CardiacDataModule
    from tabular_imaging.data.dvm import DVMCarDataModule
    from tabular_imaging.data.image_table import ImageTableDataModule
    from tabular_imaging.data.module import ImageTableBatch, TabularImagingDataModule
    from tabular_imaging.data.schema import ColumnTypes
    from tabular_imaging.methods import SCARF
    from tabular_imaging.model.tabular import TabularEncoder
    from tabular_imaging.module import MMCL

__all__ = [
    "MMCL",
    "SCARF",
    "CardiacDataModule",
    "ColumnTypes",
    "DVMCarDataModule",
    "ImageTableBatch",
    "ImageTableDataModule",
    "TabularEncoder",
    "TabularImagingDataModule",
]

_FILES = {
    "MMCL": "module",
    "SCARF": "methods",
    "ColumnTypes": "data.schema",
    "TabularEncoder": "model.tabular",
    "ImageTableBatch": "data.module",
    "TabularImagingDataModule": "data.module",
    "CardiacDataModule": "data.cardiac",
    "DVMCarDataModule": "data.dvm",
    "ImageTableDataModule": "data.image_table",
}

trust(__name__)  # checkpoints may name this package's classes


def __getattr__(name: str) -> Any:
    """Import a public name only when it is used, because workers that only read images need no torch (0.5 GB each)."""
    if name not in __all__:
        raise AttributeError(f"module 'tabular_imaging' has no attribute {name!r}")
    return getattr(import_module(f"tabular_imaging.{_FILES[name]}"), name)
