"""A tiny MMCL that revision 9c1148b trained on its SYNTHETIC set still works.

The expected numbers were recorded there. Their inputs are made of integers, so they are the same on every machine.
"""

from pathlib import Path

import pytest
import torch

from shared.checkpoint import load_module
from tabular_imaging import MMCL

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "mmcl_9c1148b.ckpt"


def test_an_old_mmcl_gives_the_features_it_gave() -> None:
    model = load_module(CHECKPOINT, MMCL)
    images = (torch.arange(2 * 3 * 40 * 48) * 7 % 256).to(torch.uint8).view(2, 3, 40, 48)
    table = (torch.arange(2 * 17) % 5 - 2).float().view(2, 17)
    with torch.no_grad():
        of_image, of_table = model(images)[1].tolist(), model.table_encoder(table)[1].tolist()
    assert of_image == pytest.approx(
        [0.0104915, 0.5387124, 1.205882, 0.5124729, 0.0, 0.0, 0.3759013, 0.4630128], abs=1e-6
    )
    assert of_table[:8] == pytest.approx(
        [-0.3006062, 0.3911838, -0.7053593, -0.3909272, 0.2802386, -0.7978588, -0.3323737, 0.4476119], abs=1e-6
    )
