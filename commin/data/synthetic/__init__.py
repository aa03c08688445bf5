"""A SYNTHETIC set of portraits; `portraits.py` writes it."""

from commin.data.synthetic.portraits import write_synthetic

__all__ = ["write_synthetic"]
