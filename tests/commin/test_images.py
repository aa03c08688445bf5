"""The two forms of an image: the range, rounding and clipping."""

import torch

from commin.data.images import to_float, to_uint8


def test_every_grey_level_comes_back_and_spans_minus_one_to_one() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    image = to_float(levels)
    assert image.dtype == torch.float32
    assert (image[0], image[-1]) == (-1, 1)
    assert torch.allclose(image.double(), levels.double() / 127.5 - 1, atol=1e-7, rtol=0)
    assert torch.equal(to_uint8(image), levels)


def test_values_between_are_rounded_and_those_outside_clipped_in_any_precision() -> None:
    step = 2 / 255
    for dtype in (torch.float32, torch.float64):
        image = torch.tensor([-1 + 10.4 * step, -1 + 10.6 * step, -7, 1.01, 40], dtype=dtype)
        assert to_uint8(image).tolist() == [10, 11, 0, 255, 255]
