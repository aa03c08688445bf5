"""A small SYNTHETIC set of vehicles, the command line made small, and a trained MMCL."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tabular_imaging
from tabular_imaging.cli import main
from tabular_imaging.data.synthetic.adverts import write_synthetic

CONFIGS = Path(tabular_imaging.__file__).parent / "configs"
CommandLine = Callable[..., list[str]]


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
def vehicles_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 SYNTHETIC adverts of 4 models in DVM's layout. Do not write."""
    return write_synthetic(tmp_path_factory.mktemp("vehicles") / "set", models=4, adverts=160, image_px=48)


@pytest.fixture(scope="session")
def command_line(vehicles_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Builds arguments of `main`: a method's shipped configuration, made small. `runs` is where the run goes."""
    cache = tmp_path_factory.mktemp("cache")

    def build(verb: str, runs: Path, *more: str, method: str = "mmcl", variant: str = "") -> list[str]:
        files = ["base", f"methods/{method}", "data/synthetic"]
        small: dict[str, object] = {
            "data.init_args.root": vehicles_root,
            "data.init_args.min_per_class": 5,
            "data.init_args.cache_px": 40,
            "data.init_args.label_fraction": 1.0,
            "data.init_args.batch_size": 16,
            "data.init_args.cache_dir": cache,
            "model.init_args.warmup_epochs": 0,
            "run.root": runs,
            "run.wandb": "disabled",
            "threads": 1,
            "trainer.max_epochs": 2,
            "trainer.enable_progress_bar": "false",
        }
        table = "encoder" if method == "scarf" else "table_encoder"
        if method in ("mmcl", "scarf"):
            small |= {f"model.init_args.{table}.init_args.{width}": 16 for width in ("hidden_dim", "out_dim")}
        if method != "scarf":
            files.append("images/synthetic")
            small |= {
                "model.init_args.encoder.init_args.image_px": 32,
                "model.init_args.encoder.init_args.channels": "[8, 8, 16, 16]",
                "model.init_args.views.init_args.augment.init_args.size": 32,
            }
        if variant:
            files.append(f"variants/{variant}")
        configs = [part for file in [*files, "demo"] for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
        return [verb, *configs, *(part for key, value in small.items() for part in (f"--{key}", str(value))), *more]

    return build


@pytest.fixture(scope="session")
def trained(command_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/tabular_imaging/dvm_synthetic/mmcl`, trained once for 2 epochs. Only tests that say so write into it."""
    runs = tmp_path_factory.mktemp("runs")
    main(command_line("fit", runs))
    return runs / "tabular_imaging" / "dvm_synthetic" / "mmcl"
