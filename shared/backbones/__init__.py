"""Encoders and heads in plain torch."""

from shared.backbones.alexnet import AlexNet
from shared.backbones.encoder import Encoder, out_dim
from shared.backbones.heads import projector
from shared.backbones.images import ImageEncoder, Pixels
from shared.backbones.resnet1d import ResNet1D
from shared.backbones.text import HashedNgrams, HuggingFaceText, TextEncoder, text_features
from shared.backbones.weights import load_weights, read_weights

__all__ = [
    "AlexNet",
    "Encoder",
    "HashedNgrams",
    "HuggingFaceText",
    "ImageEncoder",
    "Pixels",
    "ResNet1D",
    "TextEncoder",
    "load_weights",
    "out_dim",
    "projector",
    "read_weights",
    "text_features",
]
