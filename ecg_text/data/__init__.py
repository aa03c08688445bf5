"""Batches, the data modules and what reads each data set.

Import from the files: worker processes import the readers, and must not pay for torch (half a gigabyte each).
"""
