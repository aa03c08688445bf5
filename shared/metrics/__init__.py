"""Metrics that are independent of any paper's package and of any data set."""

from shared.metrics.embeddings import EmbeddingPairs
from shared.metrics.f1 import BestF1, F1AtThreshold, F1Result
from shared.metrics.intervals import (
    BootstrapAUROC,
    BootstrapMean,
    auroc,
    bootstrap_auroc,
    bootstrap_mean,
    interval,
    over_models,
)

__all__ = [
    "BestF1",
    "BootstrapAUROC",
    "BootstrapMean",
    "EmbeddingPairs",
    "F1AtThreshold",
    "F1Result",
    "auroc",
    "bootstrap_auroc",
    "bootstrap_mean",
    "interval",
    "over_models",
]
