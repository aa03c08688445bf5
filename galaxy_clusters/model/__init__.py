"""Networks of this paper, and numbers that need no training."""

from galaxy_clusters.model.bottleneck import Bottleneck

__all__ = ["Bottleneck"]
