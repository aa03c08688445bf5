"""What several test files share: one torch thread, a small synthetic set, the real data, and a record writer."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_text.data.synthetic.ecgs import write_synthetic

torch.set_num_threads(1)

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SYNTHETIC set of 120 records at 100 Hz in PTB-XL's layout; each xdist worker writes its own. Do not write."""
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "set", records=120)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets, from QUINTET_DATA."""
    folder = os.environ.get("QUINTET_DATA")
    if not folder:
        pytest.skip("QUINTET_DATA is not set: the real data sets are not tested")
    return Path(folder)


@pytest.fixture
def write_record() -> Callable[..., None]:
    """Writes a WFDB record (format 16) byte by byte, so that a test can also write what wfdb itself would not."""

    def write(
        stem: Path,
        digital: np.ndarray,
        rate: str = "100",
        gain: str = "1000.0(0)/mV",
        leads: Sequence[str] = LEADS,
        comments: Sequence[str] = (),
    ) -> None:
        digital = np.asarray(digital, "<i2")
        stem.parent.mkdir(parents=True, exist_ok=True)
        digital.T.tofile(stem.with_name(f"{stem.name}.dat"))
        lines = [f"{stem.name} {len(digital)} {rate} {digital.shape[1]}" if rate else f"{stem.name} {len(digital)}"]
        for lead, row in zip(leads, digital, strict=True):
            checksum = int(row.sum(dtype=np.int64)) % 65536
            lines.append(f"{stem.name}.dat 16 {gain} 16 0 {row[0]} {checksum} 0 {lead}")
        stem.with_name(f"{stem.name}.hea").write_text("\n".join([*lines, *comments]) + "\n")

    return write
