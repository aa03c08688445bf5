"""Evaluation of trained models beside floor rows, and the comparison of methods on the same test samples.

A package defines its protocols, its rows and its table; `evaluate.py` runs them, and `comparison.py` compares methods.
"""

from shared.evaluation.comparison import MethodTable, compare, print_comparison, read_method_table
from shared.evaluation.evaluate import Evaluation, Job, Request, evaluate_variants
from shared.evaluation.protocol import RANDOM, Protocol
from shared.evaluation.statistics import STATISTICS, Statistic

__all__ = [
    "RANDOM",
    "STATISTICS",
    "Evaluation",
    "Job",
    "MethodTable",
    "Protocol",
    "Request",
    "Statistic",
    "compare",
    "evaluate_variants",
    "print_comparison",
    "read_method_table",
]
