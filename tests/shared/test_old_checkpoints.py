"""What was trained before the packages were rearranged still works: checkpoints written at revision 9c1148b.

`tests/checkpoints` holds tiny models trained there on the SYNTHETIC sets. The expected numbers were recorded there too.
Their inputs are made of integers, so they are the same on every machine.
"""

import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_text.cli import main
from shared.checkpoint import load_module
from tabular_imaging import MMCL

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
# What the configurations of 9c1148b, and so the `config.yaml` of its runs and the checkpoints beside them, name.
CLASS_PATHS = (
    "ecg_text.CPSC2018DataModule",
    "ecg_text.ETP",
    "ecg_text.PTBXLDataModule",
    "ecg_text.WFDBFolderDataModule",
    "ecg_text.methods.ASTCL",
    "ecg_text.methods.CLOCS",
    "ecg_text.methods.CPC",
    "ecg_text.methods.TSTCC",
    "ecg_text.methods.astcl.Denoise",
    "shared.augment.Augment",
    "shared.augment.BaselineWander",
    "shared.augment.ChannelMask",
    "shared.augment.ImageAugment",
    "shared.augment.Jitter",
    "shared.augment.Permute",
    "shared.augment.Scale",
    "shared.augment.TwoViews",
    "shared.augment.Views",
    "shared.augment.Window",
    "shared.backbones.HashedNgrams",
    "shared.backbones.HuggingFaceText",
    "shared.backbones.ImageEncoder",
    "shared.backbones.ResNet1D",
    "shared.methods.BYOL",
    "shared.methods.BarlowTwins",
    "shared.methods.SimCLR",
    "shared.methods.SimSiam",
    "tabular_imaging.CardiacDataModule",
    "tabular_imaging.DVMCarDataModule",
    "tabular_imaging.ImageTableDataModule",
    "tabular_imaging.MMCL",
    "tabular_imaging.SCARF",
    "tabular_imaging.Supervised",
    "tabular_imaging.TabularEncoder",
)


@pytest.mark.parametrize("name", CLASS_PATHS)
def test_every_class_that_an_old_run_names_is_still_there(name: str) -> None:
    assert pkgutil.resolve_name(name).__name__ == name.rpartition(".")[2]


def test_an_old_etp_classifies_as_it_did(write_record: Callable[..., None], tmp_path: Path) -> None:
    lead, time = np.arange(12)[:, None], np.arange(1000)
    write_record(tmp_path / "beats", 900 // (1 + (time - 2 * lead) % 75))
    command = ["classify", "--checkpoint", str(CHECKPOINTS / "etp_9c1148b.ckpt"), "--record", str(tmp_path / "beats")]
    assert main([*command, "--output", str(tmp_path)]) == pytest.approx(
        {
            "MI: myocardial infarction": -0.25320196,
            "CD: conduction disturbance": -0.26821145,
            "NORM: normal ECG": -0.31639504,
            "STTC: ST/T change": -0.37100524,
            "HYP: hypertrophy": -0.37280077,
        },
        abs=1e-6,
    )


def test_an_old_mmcl_gives_the_features_it_gave() -> None:
    model = load_module(CHECKPOINTS / "mmcl_9c1148b.ckpt", MMCL)
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
