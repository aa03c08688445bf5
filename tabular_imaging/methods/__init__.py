"""What MMCL is compared with, beside the self-supervised methods of `shared.methods`: one file each."""

from tabular_imaging.methods.scarf import SCARF
from tabular_imaging.methods.supervised import Supervised

__all__ = ["SCARF", "Supervised"]
