"""A SYNTHETIC data set in PTB-XL's layout.

`ecgs` makes the recordings and their tables, and `reports` makes the texts of the reports.
"""
