"""Data plumbing: memory-mapped caches, the raise-or-skip report, seeded splits and resumable samplers."""

from shared.data.arrays import ArrayCache, build_cache
from shared.data.report import DataError, OnError, Report
from shared.data.samplers import EpochBatchSampler
from shared.data.splits import stratified_split

__all__ = [
    "ArrayCache",
    "DataError",
    "EpochBatchSampler",
    "OnError",
    "Report",
    "build_cache",
    "stratified_split",
]
