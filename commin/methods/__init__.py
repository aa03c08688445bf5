"""What the paper's method builds on and is compared with."""

from commin.methods.diffusion import Diffusion
from commin.methods.jscc import JSCC
from commin.methods.stylegan import StyleGAN

__all__ = ["JSCC", "Diffusion", "StyleGAN"]
