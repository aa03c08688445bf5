"""Networks in plain torch."""

from commin.model.deepjscc import DeepJSCC
from commin.model.diffusion import DiffusionPrior
from commin.model.invertible import GaussianBlur, LiftingINN, PlainCNN

__all__ = ["DeepJSCC", "DiffusionPrior", "GaussianBlur", "LiftingINN", "PlainCNN"]
