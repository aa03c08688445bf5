"""Every YAML works through the real CLI class, and says what the signatures say."""

import importlib
import inspect
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ecg_text.evaluation.comparison import MethodTable

import ecg_text
from ecg_text.cli import ECGTextCLI, main
from ecg_text.data.labels import CPSC2018_CLASSES, PTBXL_SUPERCLASSES
from ecg_text.evaluation.models import ROW_NAMES
from ecg_text.prompts import load_prompts
from ecg_text.verbs.table import PaperTable, read_table
from shared.cli import SaveConfig

CONFIGS = Path(ecg_text.__file__).parent / "configs"
METHODS = sorted((CONFIGS / "methods").glob("*.yaml"))
DATA = sorted((CONFIGS / "data").glob("*.yaml"))
PROMPTS = sorted((CONFIGS / "prompts").glob("*.yaml"))
TABLES = sorted((CONFIGS / "tables").glob("*.yaml"))

# A method's YAML and a data set's do not touch each other's keys, so not all combinations are built.
SYNTHETIC = CONFIGS / "data" / "synthetic.yaml"
PAIRS = [*product(METHODS, [SYNTHETIC]), *product([CONFIGS / "methods" / "etp.yaml"], DATA)]

# Methods whose loss says nothing about the features keep the last epoch.
WITHOUT_BEST_EPOCH = {"byol", "simsiam", "astcl"}

# Where a YAML departs from the signature's default, and the value it has instead. `None` as a default stands for a
# list that a signature cannot hold.
LAPTOP = {"layers": [2, 2, 2, 2], "prompts": "ensemble", "lr_schedule": "cosine"}
# The views of TS-TCC; the two `sigma` are those of Scale, then of Jitter, of which the last is kept here.
VIEWS = {"layers": [2, 2, 2, 2], "second": ["Permute", "Jitter"], "sigma": 0.1}
DEPARTURES: dict[str, dict[str, Any]] = {
    "methods/etp.yaml": {"layers": [2, 2, 2, 2]},
    "methods/etp_minilm.yaml": {
        **LAPTOP,
        "augment": ["Window", "Scale", "Jitter", "ChannelMask"],
        "sigma": 0.1,
        "model": "packaged:minilm",
        "pooling": "mean",
        "text_dim": 384,
        "optimizer": {"lr": 1e-3},
    },
    "methods/etp_ngrams.yaml": {
        **LAPTOP,
        "augment": ["Window", "Scale", "Jitter", "ChannelMask"],
        "sigma": 0.1,
        "text_dim": 512,
        "optimizer": {"lr": 1e-3},
    },
    "methods/cpc.yaml": {"layers": [2, 2, 2, 2]},
    "methods/simclr.yaml": {**VIEWS, "temperature": 0.07},
    "methods/byol.yaml": VIEWS,
    "methods/simsiam.yaml": {**VIEWS, "optimizer": {"lr": 0.025}},  # for ETP's batch of 128
    "methods/barlow_twins.yaml": VIEWS,
    "methods/ts_tcc.yaml": VIEWS,
    "methods/clocs.yaml": {"layers": [2, 2, 2, 2]},
    "methods/astcl.yaml": {
        "layers": [2, 2, 2, 2],
        "second": ["Denoise"],
        "amplitude": 0.3,
        "sigma": 0.1,
    },
    "data/ptbxl.yaml": {
        "train_folds": [1, 2, 3, 4, 5, 6, 7, 8],
        "val_folds": [9],
        "test_folds": [10],
        "on_error": "skip",
    },
    "data/synthetic.yaml": {
        "train_folds": [1, 2, 3, 4, 5, 6, 7],
        "val_folds": [8],
        "test_folds": [9, 10],
        "sampling_rate": 100,
        "batch_size": 64,
        "label_mode": "multi",
    },
    "data/ptbxl_demo.yaml": {
        "train_folds": [1, 2, 3, 4, 5, 6, 7],
        "val_folds": [8],
        "test_folds": [9, 10],
        "sampling_rate": 100,
        "batch_size": 64,
        "normalize": "lead",
        "label_mode": "multi",
        "on_error": "skip",
    },
    "data/cpsc2018.yaml": {},
    "data/cpsc2018_demo.yaml": {
        "split_fractions": [0.6, 0.0, 0.4],
        "sampling_rate": 100,
        "batch_size": 64,
        "normalize": "lead",
        "missing_classes": "drop",
    },
    "data/wfdb_folder.yaml": {"label_mode": "multi"},
}
LINKED = {"seed"}  # the CLI sets it


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def build(*files: Path) -> ECGTextCLI:
    return ECGTextCLI(
        run=False,
        save_config_callback=SaveConfig,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        args=[part for file in files for part in ("--config", str(file))],
    )


def class_of(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    assert isinstance(cls, type)
    return cls


def parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Of `__init__`, with those of the base class where it has `**kwargs`."""
    own = dict(inspect.signature(cls).parameters)
    if own.pop("kwargs", None):
        own |= {name: value for name, value in parameters(cls.__mro__[1]).items() if name not in own}
    return own


def blocks(value: Any) -> list[dict[str, Any]]:
    """Every `class_path` block below, but torch's own classes."""
    if isinstance(value, list):
        return [block for item in value for block in blocks(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if "class_path" in value and not value["class_path"].startswith("torch.") else []
    return own + [block for item in value.values() for block in blocks(item)]


def optimizer_departures(default: Callable[..., Any], block: dict[str, Any]) -> dict[str, Any]:
    """Where the YAML's optimiser is not what the signature's default makes."""
    made = default([torch.zeros(1, requires_grad=True)])
    assert type(made) is class_of(block["class_path"])
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in block["init_args"].items()}
    changed = {key: value for key, value in given.items() if value != made.defaults[key]}
    return {"optimizer": changed} if changed else {}


def test_the_files_are_those_this_file_knows() -> None:
    known = {"base.yaml", "demo.yaml", "short.yaml", *map(name_of, [*METHODS, *DATA, *PROMPTS, *TABLES])}
    assert known == {name_of(path) for path in CONFIGS.rglob("*.yaml")}
    assert DEPARTURES.keys() == set(map(name_of, [*METHODS, *DATA]))


@pytest.mark.parametrize("demo", [True, False], ids=["demo", "a100"])
@pytest.mark.parametrize(("method", "data"), PAIRS, ids=lambda path: path.stem)
def test_every_method_and_every_data_set_instantiates(method: Path, data: Path, demo: bool) -> None:
    cli = build(CONFIGS / "base.yaml", method, data, *([CONFIGS / "demo.yaml"] if demo else []))
    assert isinstance(cli.model, class_of(yaml.safe_load(method.read_text())["model"]["class_path"]))
    assert type(cli.datamodule) is class_of(yaml.safe_load(data.read_text())["data"]["class_path"])
    assert cli.config.run.variant == method.stem
    assert cli.config.run.tags == (["synthetic"] if data.stem == "synthetic" else ["real"])
    assert cli.trainer.precision == ("32-true" if demo else "bf16-mixed")
    assert cli.trainer.max_epochs == (15 if demo else 50)
    assert cli.model.encoder.out_dim == 8 * (32 if demo else 64)
    assert cli.config.checkpoint.monitor == (None if method.stem in WITHOUT_BEST_EPOCH else "val/loss")


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_every_prompt_file_loads_by_its_name(path: Path) -> None:
    prompts = load_prompts(path.stem)
    sentences = prompts.sentences({"NORM": "normal ECG", "XYZ": "something else"})
    assert all(sentence and "{" not in sentence for sentence in sentences[0])
    assert sentences[1] == [template.format("something else") for template in prompts.templates]


# The paper's averages that are not the means of its classes, and these means.
NOT_THE_MEAN = {("table3.yaml", "Random init", "ACC"): 22.0, ("table3.yaml", "Random init", "F1"): 20.4}


def test_table_1_has_a_row_for_each_method_that_there_is_a_file_for() -> None:
    table = read_table(TABLES[0])
    assert isinstance(table, MethodTable)
    classes = {yaml.safe_load(path.read_text())["model"]["class_path"].rpartition(".")[2] for path in METHODS}
    rows = {ROW_NAMES.get(name, name) for name in classes - {"BarlowTwins"}} | {"Random init"}
    assert list(table.values) == list(table.data_sets) == ["PTB-XL", "CPSC2018"]
    for values in table.values.values():
        assert set(values) == rows
        assert all(list(cells) == ["AUC", "F1"] for cells in values.values())
        assert max(values, key=lambda row: values[row]["AUC"]) == "ETP"
    assert all((CONFIGS / name).is_file() for names in table.data_sets.values() for name in names)


@pytest.mark.parametrize("path", TABLES[1:], ids=lambda path: path.stem)
def test_every_table_of_the_paper_is_whole_and_its_averages_are_the_means_of_its_classes(path: Path) -> None:
    table = read_table(path)
    assert isinstance(table, PaperTable)
    values = dict(table.values)
    average = values.pop("Average")
    assert list(values) == list({"table2": PTBXL_SUPERCLASSES, "table3": CPSC2018_CLASSES}[path.stem])
    assert all((CONFIGS / name).is_file() for name in [*table.train, *table.evaluate])
    unlike = {}
    for group in [average, *values.values()]:
        assert list(group) == ["Random init", "ETP"]
        assert all(list(cells) == ["AUC", "ACC", "F1"] for cells in group.values())
    for method, cells in average.items():
        for column, printed in cells.items():
            mean = sum(rows[method][column] for rows in values.values()) / len(values)
            if abs(mean - printed) > 0.1:  # each of the numbers is rounded by up to 0.05
                unlike[path.name, method, column] = round(mean, 1)
    assert unlike == {key: mean for key, mean in NOT_THE_MEAN.items() if key[0] == path.name}


def test_print_config_prints_one_that_works(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = [
        CONFIGS / "base.yaml",
        CONFIGS / "methods" / "etp.yaml",
        CONFIGS / "data" / "synthetic.yaml",
        CONFIGS / "demo.yaml",
    ]
    arguments = [part for file in files for part in ("--config", str(file))]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["temperature"] == 0.07
    (tmp_path / "printed.yaml").write_text(printed)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(tmp_path / "printed.yaml"), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


@pytest.mark.parametrize("path", [*METHODS, *DATA], ids=name_of)
def test_yaml_and_signatures_agree(path: Path) -> None:
    found: dict[str, Any] = {}
    content = yaml.safe_load(path.read_text())
    for block in blocks(content):
        cls = class_of(block["class_path"])
        expected = {name: value for name, value in parameters(cls).items() if name not in LINKED}
        assert block["init_args"].keys() == expected.keys(), cls.__name__
        for name, value in block["init_args"].items():
            default = expected[name].default
            if default is inspect.Parameter.empty:  # the data's root, the parts of a model
                continue
            if name == "optimizer":
                found |= optimizer_departures(default, value)
            elif name in ("augment", "second") and value:
                found[name] = [part["class_path"].rpartition(".")[2] for part in value["init_args"]["transforms"]]
            elif value != (list(default) if isinstance(default, tuple) else default):
                found[name] = value
    assert found == DEPARTURES[name_of(path)]


def test_an_unknown_key_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    files = [CONFIGS / "base.yaml", CONFIGS / "methods" / "etp.yaml", CONFIGS / "data" / "synthetic.yaml"]
    arguments = [part for file in files for part in ("--config", str(file))]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, "--model.init_args.temprature", "0.1"])
    assert stop.value.code == 2
    assert "temprature" in capsys.readouterr().err
