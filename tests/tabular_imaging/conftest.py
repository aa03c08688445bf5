"""A small SYNTHETIC set of vehicles, the command line made small, and a trained MMCL."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tabular_imaging
from shared.runs.configs import Configs
from tabular_imaging.cli import main
from tabular_imaging.data.synthetic.adverts import write_synthetic
from tests.command_line import words

CONFIGS = Configs(Path(tabular_imaging.__file__).parent / "configs")
CommandLine = Callable[..., list[str]]


@pytest.fixture(scope="session")
def vehicles_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 SYNTHETIC adverts of 4 models in DVM's layout. Do not write."""
    return write_synthetic(tmp_path_factory.mktemp("vehicles") / "set", models=4, adverts=160, image_px=48)


@pytest.fixture(scope="session")
def command_line(vehicles_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Builds arguments of `main`: a method's shipped configuration, made small. `runs` is where the run goes."""
    cache = tmp_path_factory.mktemp("cache")

    def build(verb: str, runs: Path, *more: str, method: str = "mmcl", variant: str = "") -> list[str]:
        name = variant or method
        change = CONFIGS.variant(name, "synthetic")
        small: dict[str, object] = {
            "data.init_args.root": str(vehicles_root),
            "data.init_args.min_per_class": 5,
            "data.init_args.cache_px": 40,
            "data.init_args.label_fraction": 1.0,
            "data.init_args.batch_size": 16,
            "data.init_args.cache_dir": str(cache),
            "model.init_args.warmup_epochs": 0,
            "run.root": str(runs),
            "run.variant": name,
            "run.wandb": "disabled",
            "threads": 1,
            "trainer.max_epochs": 2,
            "trainer.check_val_every_n_epoch": 1,
            "trainer.enable_progress_bar": False,
        }
        table = "encoder" if method == "scarf" else "table_encoder"
        if method in ("mmcl", "scarf"):
            small |= {f"model.init_args.{table}.init_args.{width}": 16 for width in ("hidden_dim", "out_dim")}
        if method != "scarf":
            small |= {
                "model.init_args.encoder.init_args.image_px": 32,
                "model.init_args.encoder.init_args.channels": [8, 8, 16, 16],
                "model.init_args.views.init_args.augment.init_args.size": 32,
            }
        files = [*CONFIGS.stack(change.method, "synthetic", "demo"), *change.files]
        return [*words(verb, files, change.settings | small), *more]

    return build


@pytest.fixture(scope="session")
def trained(command_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/tabular_imaging/dvm_synthetic/mmcl`, trained once for 2 epochs. Only tests that say so write into it."""
    runs = tmp_path_factory.mktemp("runs")
    main(command_line("fit", runs))
    return runs / "tabular_imaging" / "dvm_synthetic" / "mmcl"
