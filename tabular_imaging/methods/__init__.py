"""What MMCL is compared with, beside the methods of `shared.methods`."""

from tabular_imaging.methods.scarf import SCARF

__all__ = ["SCARF"]
