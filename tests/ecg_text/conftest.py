"""A small SYNTHETIC set, the command line made small, a trained ETP, and a writer of records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ecg_text
from ecg_text.cli import main
from ecg_text.data.records import LEADS
from ecg_text.data.synthetic.ecgs import write_synthetic
from shared.runs.configs import Configs
from tests.command_line import files_under, words

CONFIGS = Configs(Path(ecg_text.__file__).parent / "configs")
CommandLine = Callable[..., list[str]]


@dataclass(frozen=True)
class TrainedRun:
    """One `fit`, and what it left, as it was right after."""

    arguments: list[str]
    folder: Path
    files: set[str]
    cli: Any

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SYNTHETIC set of 120 records at 100 Hz in PTB-XL's layout; each xdist worker writes its own. Do not write."""
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "set", records=120)


@pytest.fixture(scope="session")
def command_line(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Builds arguments of `main`: a method's shipped configuration, made small. `runs` is where the run goes."""
    cache = tmp_path_factory.mktemp("cache")

    def build(verb: str, runs: Path, *more: str, data: str = "synthetic", method: str = "etp") -> list[str]:
        of_etp = {
            "model.init_args.text_encoder": "shared.backbones.HashedNgrams",
            "model.init_args.text_dim": 512,
            "model.init_args.projection_dim": 32,
            "model.init_args.text_cache_dir": str(cache / "text"),
        }
        small = {
            "data.init_args.root": str(synthetic_root),
            "data.init_args.cache_dir": str(cache),
            "data.init_args.batch_size": 16,
            "data.init_args.missing_classes": "drop",
            "model.init_args.encoder.init_args.width": 8,
            **(of_etp if method == "etp" else {}),
            "run.root": str(runs),
            "run.wandb": "disabled",
            "threads": 1,
            "trainer.max_epochs": 2,
            "trainer.enable_progress_bar": False,
        }
        return [*words(verb, CONFIGS.stack(method, data, "demo"), small), *more]

    return build


@pytest.fixture(scope="session")
def trained(command_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Trained once, with an offline W&B run. Only tests that say so add files to its folder."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = command_line("fit", runs, "--run.wandb", "offline")
    cli = main(arguments)
    folder = runs / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"
    return TrainedRun(arguments, folder, files_under(folder), cli)


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
