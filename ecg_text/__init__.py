"""ETP: ECG-text pre-training (Liu et al., 2023), and the methods that its tables compare it with.

Example:
    >>> import torch
    >>> from ecg_text import ETP
    >>> from shared.backbones import HashedNgrams, ResNet1D
    >>> model = ETP(ResNet1D(width=8), HashedNgrams(), text_dim=512, text_cache_dir=getfixture("tmp_path"))
    >>> model.set_classes({"AF": "atrial fibrillation", "NORM": "normal ECG"})
    >>> model.eval()(torch.randn(3, 12, 1000)).shape  # a score for each of the two classes
    torch.Size([3, 2])
"""

from typing import TYPE_CHECKING

from shared.lazy import public_names
from shared.trusted import trust

if TYPE_CHECKING:
    from ecg_text.data.cpsc2018 import CPSC2018DataModule
    from ecg_text.data.module import ECGBatch, ECGDataModule
    from ecg_text.data.ptbxl import PTBXLDataModule
    from ecg_text.data.wfdb_folder import WFDBFolderDataModule
    from ecg_text.module import ETP

__all__ = ["ETP", "CPSC2018DataModule", "ECGBatch", "ECGDataModule", "PTBXLDataModule", "WFDBFolderDataModule"]

_FILES = {
    "ETP": "module",
    "ECGBatch": "data.module",
    "ECGDataModule": "data.module",
    "CPSC2018DataModule": "data.cpsc2018",
    "PTBXLDataModule": "data.ptbxl",
    "WFDBFolderDataModule": "data.wfdb_folder",
}

trust(__name__)  # checkpoints may name this package's classes

__getattr__ = public_names(__name__, _FILES)
