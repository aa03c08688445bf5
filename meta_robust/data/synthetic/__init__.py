"""A SYNTHETIC set of outlines with a planted shift; `outlines.py` writes it."""

from meta_robust.data.synthetic.outlines import write_synthetic

__all__ = ["write_synthetic"]
