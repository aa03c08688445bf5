"""Metrics that are independent of any paper's package and of any data set."""

from shared.metrics.clusters import (
    Match,
    adjusted_mutual_information,
    adjusted_rand,
    assigned,
    best_matches,
    macro_f1,
)
from shared.metrics.embeddings import EmbeddingPairs
from shared.metrics.f1 import BestF1, F1AtThreshold, F1Result
from shared.metrics.image_quality import Lpips, gradient_ssim, ms_ssim, psnr, ssim
from shared.metrics.intervals import Interval, difference, holm, interval
from shared.metrics.pseudovalues import FEWEST, PseudoValues, auroc, auroc_values, mean_values, usable_classes

__all__ = [
    "FEWEST",
    "BestF1",
    "EmbeddingPairs",
    "F1AtThreshold",
    "F1Result",
    "Interval",
    "Lpips",
    "Match",
    "PseudoValues",
    "adjusted_mutual_information",
    "adjusted_rand",
    "assigned",
    "auroc",
    "auroc_values",
    "best_matches",
    "difference",
    "gradient_ssim",
    "holm",
    "interval",
    "macro_f1",
    "mean_values",
    "ms_ssim",
    "psnr",
    "ssim",
    "usable_classes",
]
