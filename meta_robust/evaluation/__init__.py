"""Evaluation on the same tasks of novel classes for all methods; rows of the paper's tables; figures."""
