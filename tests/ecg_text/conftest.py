"""A trained model for the tests of the command line: ETP, 2 epochs on the small SYNTHETIC set."""

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import ecg_text
from ecg_text.cli import main

CONFIGS = Path(ecg_text.__file__).parent / "configs"
CommandLine = Callable[..., list[str]]
WANDB = shutil.which("wandb", path=sysconfig.get_path("scripts"))


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


def files_under(folder: Path) -> set[str]:
    """Relative paths of all files; W&B's own files count as `wandb`."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {"wandb" if name.startswith("wandb/") else name for name in names}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key and no saved login of whoever runs the tests may send their runs away."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture(scope="session")
def command_line(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Builds arguments of `main`: a method's shipped configuration, made small. `runs` is where the run goes."""
    cache = tmp_path_factory.mktemp("cache")

    def build(verb: str, runs: Path, *more: str, data: str = "synthetic", method: str = "etp") -> list[str]:
        files = ("base", f"methods/{method}", f"data/{data}", "demo")
        of_etp = {
            "model.init_args.text_encoder": "shared.backbones.HashedNgrams",
            "model.init_args.text_dim": 512,
            "model.init_args.projection_dim": 32,
            "model.init_args.text_cache_dir": cache / "text",
        }
        small = {
            "data.init_args.root": synthetic_root,
            "data.init_args.cache_dir": cache,
            "data.init_args.batch_size": 16,
            "data.init_args.missing_classes": "drop",
            "model.init_args.encoder.init_args.width": 8,
            **(of_etp if method == "etp" else {}),
            "run.root": runs,
            "run.wandb": "disabled",
            "threads": 1,
            "trainer.max_epochs": 2,
            "trainer.enable_progress_bar": "false",
        }
        configs = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
        return [verb, *configs, *(part for key, value in small.items() for part in (f"--{key}", str(value))), *more]

    return build


@pytest.fixture(scope="session")
def trained(command_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Trained once, with an offline W&B run. Only tests that say so add files to its folder."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = command_line("fit", runs, "--run.wandb", "offline")
    cli = main(arguments)
    folder = runs / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"
    return TrainedRun(arguments, folder, files_under(folder), cli)


@pytest.fixture(scope="session")
def read_offline_run() -> Callable[[Path], tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Reads the one offline W&B run below a folder with W&B's own tool: its summary, and its records."""

    def read(run_dir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        (folder,) = (run_dir / "wandb").glob("offline-run-*")
        command = [str(WANDB), "leet", "inspect", "--json"]
        summary = subprocess.run([*command, "--summary", str(folder)], capture_output=True, text=True, check=True)
        records = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
        return json.loads(summary.stdout), [json.loads(line) for line in records.stdout.splitlines()]

    return read
