"""What the tables compare the votes with, beside the methods of `shared.methods`."""

from galaxy_clusters.methods.hybrid import Hybrid

__all__ = ["Hybrid"]
