"""Random draws that belong to an image: the same in every batch, at every SNR and for every method."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def image_keys(ids: Sequence[str]) -> Tensor:
    """A number for each image that depends on its identifier alone: `(B,)` int64."""
    digests = [hashlib.blake2b(name.encode(), digest_size=7).digest() for name in ids]
    return torch.tensor([int.from_bytes(digest, "big") for digest in digests], dtype=torch.int64)


def unit_normal(seed: int, keys: Tensor, shape: Sequence[int], *place: int) -> Tensor:
    """Standard normal draws, one of the given shape for each image.

    Args:
        seed: Of the experiment.
        keys: `(B,)`, see `image_keys`.
        shape: Of one image's draw.
        place: What the draw is for, as numbers: another place gives independent draws.

    Returns:
        `(B, *shape)` float32 on the CPU.
    """
    generator = torch.Generator()
    drawn = torch.empty(len(keys), *shape)
    for row, key in enumerate(keys.tolist()):
        text = repr((seed, key, *place)).encode()
        generator.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True))
        drawn[row] = torch.randn(tuple(shape), generator=generator)
    return drawn
