"""Encoders and heads in plain torch."""

from shared.backbones.encoder import Encoder, out_dim
from shared.backbones.heads import projector
from shared.backbones.images import ImageEncoder, Pixels
from shared.backbones.resnet1d import ResNet1D
from shared.backbones.text import HashedNgrams, HuggingFaceText, TextEncoder, text_features

__all__ = [
    "Encoder",
    "HashedNgrams",
    "HuggingFaceText",
    "ImageEncoder",
    "Pixels",
    "ResNet1D",
    "TextEncoder",
    "out_dim",
    "projector",
    "text_features",
]
