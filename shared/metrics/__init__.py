"""Metrics that know no paper and no data set."""

from shared.metrics.embeddings import EmbeddingPairs
from shared.metrics.f1 import BestF1, F1AtThreshold, F1Result
from shared.metrics.intervals import BootstrapAUROC, auroc, bootstrap_auroc, interval

__all__ = [
    "BestF1",
    "BootstrapAUROC",
    "EmbeddingPairs",
    "F1AtThreshold",
    "F1Result",
    "auroc",
    "bootstrap_auroc",
    "interval",
]
