"""A tiny ETP that revision 9c1148b trained on its SYNTHETIC set still works.

The expected numbers were recorded there. Their inputs are made of integers, so they are the same on every machine.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecg_text.cli import main

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "etp_9c1148b.ckpt"


def test_an_old_etp_classifies_as_it_did(write_record: Callable[..., None], tmp_path: Path) -> None:
    lead, time = np.arange(12)[:, None], np.arange(1000)
    write_record(tmp_path / "beats", 900 // (1 + (time - 2 * lead) % 75))
    command = ["classify", "--checkpoint", str(CHECKPOINT), "--record", str(tmp_path / "beats")]
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
