"""Batches, the data modules and the readers of each data set.

Import from the modules, not from here: worker processes import the readers, and must not load torch (half a gigabyte
each).
"""
