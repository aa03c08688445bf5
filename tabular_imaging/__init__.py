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

from typing import TYPE_CHECKING

from shared.lazy import public_names
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

__getattr__ = public_names(__name__, _FILES)
