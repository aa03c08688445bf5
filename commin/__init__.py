"""CommIN: images over noisy channels as an inverse problem, with an invertible network and a diffusion prior.

Example:
    >>> import torch
    >>> from commin.model import DeepJSCC
    >>> net, image = DeepJSCC(image_px=32, symbols=16, width=8, stages=3), torch.zeros(2, 3, 32, 32)
    >>> snr_db = torch.tensor([-5.0, 5.0])  # each image over a channel of its own
    >>> net(image, snr_db, net.noise_for(0, torch.tensor([1, 2]))).shape
    torch.Size([2, 3, 32, 32])
"""

from typing import TYPE_CHECKING

from shared.lazy import public_names
from shared.trusted import trust

if TYPE_CHECKING:
    from commin.data.module import ImageBatch, ImageFoldersDataModule
    from commin.methods import JSCC, Diffusion
    from commin.module import CommIN
    from commin.receivers import Receiver

__all__ = ["JSCC", "CommIN", "Diffusion", "ImageBatch", "ImageFoldersDataModule", "Receiver"]

_FILES = {
    "CommIN": "module",
    "JSCC": "methods",
    "Diffusion": "methods",
    "Receiver": "receivers",
    "ImageBatch": "data.module",
    "ImageFoldersDataModule": "data.module",
}

trust(__name__)  # checkpoints may name this package's classes

__getattr__ = public_names(__name__, _FILES)
