"""The shipped configuration of the leaves on the real set."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import tabular_imaging
from tabular_imaging.evaluation.classifiers import load_data_module

LEAVES = Path(tabular_imaging.__file__).parent / "configs" / "sets" / "leaves" / "set.yaml"


@pytest.mark.realdata
def test_the_leaves_load_as_stated(real_data: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(LEAVES.read_text())["data"]
    data = load_data_module(config, {"root": str(real_data / "leaf99"), "cache_dir": str(tmp_path)})
    assert len(data.frame) == 990 + 594
    assert len(data.classes) == 99
    assert len(data.schema.columns) == 195
    assert sum(data.schema.morphometric) == 67
    for split, count in (("train", 7), ("val", 1), ("test", 2)):
        assert (np.bincount(data.target[data.rows(split, "evaluate")]) == count).all()
    assert len(data.rows("train", "pretrain")) == 7 * 99 + 594
    assert np.isfinite(data.table).all()
    assert (data.array.reshape(len(data.array), -1).max(1) == 255).mean() > 0.99  # white leaves on black
