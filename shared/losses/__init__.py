"""Losses that know no paper and no data set."""

from shared.losses.info_nce import clip_loss, nt_xent_loss, retrieval_accuracy

__all__ = ["clip_loss", "nt_xent_loss", "retrieval_accuracy"]
