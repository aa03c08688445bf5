"""Losses that are independent of any paper's package and of any data set."""

from shared.losses.barlow_twins import barlow_twins_loss
from shared.losses.info_nce import clip_loss, nt_xent_loss, retrieval_accuracy
from shared.losses.negative_cosine import negative_cosine
from shared.losses.supcon import supcon_loss

__all__ = ["barlow_twins_loss", "clip_loss", "negative_cosine", "nt_xent_loss", "retrieval_accuracy", "supcon_loss"]
