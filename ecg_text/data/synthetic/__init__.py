"""A SYNTHETIC data set in PTB-XL's layout.

The recordings and their tables (`ecgs`), and the words of the reports (`reports`).
"""
