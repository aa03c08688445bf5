"""Networks in plain torch: the encoder Conv-4, the batch norm of episodes, heads, and the embeddings of two methods."""

from meta_robust.model.conv4 import Conv4
from meta_robust.model.norm import EpisodeNorm, Norm, use_episode_norm

__all__ = ["Conv4", "EpisodeNorm", "Norm", "use_episode_norm"]
