"""Metrics that are independent of any paper's package and of any data set."""

from shared.metrics.embeddings import EmbeddingPairs
from shared.metrics.f1 import BestF1, F1AtThreshold, F1Result
from shared.metrics.intervals import Interval, difference, holm, interval
from shared.metrics.pseudovalues import FEWEST, PseudoValues, auroc, auroc_values, mean_values, usable_classes

__all__ = [
    "FEWEST",
    "BestF1",
    "EmbeddingPairs",
    "F1AtThreshold",
    "F1Result",
    "Interval",
    "PseudoValues",
    "auroc",
    "auroc_values",
    "difference",
    "holm",
    "interval",
    "mean_values",
    "usable_classes",
]
