"""What the tests of all packages share: one torch thread, no W&B login, two processes, and the real data."""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import processes

torch.set_num_threads(1)  # before any fixture of a session or module trains

WANDB = shutil.which("wandb", path=sysconfig.get_path("scripts"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Each test starts with one thread, whatever the one before it set."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def empty_netrc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("login") / "netrc"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch, empty_netrc: Path) -> None:
    """No key and no saved login of whoever runs the tests may send their runs away."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(empty_netrc))  # a file that is not there would not hide ~/.netrc


@pytest.fixture(scope="session")
def two_processes() -> Iterator[Callable[..., list[Any]]]:
    """`two_processes(function, *arguments)`: what `function(rank, *arguments)` returned in two gloo processes."""
    with pytest.MonkeyPatch.context() as patch, processes.two_processes() as run:
        patch.syspath_prepend(Path(__file__).parents[1])  # spawned processes find the tests' modules by their names
        yield run


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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets, from QUINTET_DATA."""
    folder = os.environ.get("QUINTET_DATA")
    if not folder:
        pytest.skip("QUINTET_DATA is not set: the real data sets are not tested")
    return Path(folder)
