"""Methods of the ETP paper's Table 1 that only this package has, one file each: net, loss and thin module."""

from ecg_text.methods.astcl import ASTCL
from ecg_text.methods.clocs import CLOCS
from ecg_text.methods.cpc import CPC
from ecg_text.methods.ts_tcc import TSTCC

__all__ = ["ASTCL", "CLOCS", "CPC", "TSTCC"]
