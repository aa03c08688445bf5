"""Every YAML works through the real CLI class, and says what the signatures say."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from ecg_text.cli import main
from ecg_text.data.labels import CPSC2018_CLASSES, PTBXL_SUPERCLASSES
from ecg_text.evaluation.tables import CONFIGS, read_class_table
from ecg_text.prompts import load_prompts
from shared.cli import QuintetCLI
from shared.evaluation import RANDOM, read_method_table
from shared.runs.configs import Profile
from tests.command_line import words
from tests.signatures import class_of, departures

FOLDER = CONFIGS.folder
METHODS = sorted((FOLDER / "methods").glob("*.yaml"))
DATA = sorted(FOLDER.glob("sets/*/set*.yaml"))
PROMPTS = sorted((FOLDER / "prompts").glob("*.yaml"))
TABLES = sorted((FOLDER / "tables").glob("*.yaml"))
PROFILES: tuple[Profile, ...] = get_args(Profile)
DATA_SETS = {CONFIGS.data_block(*pair).name for pair in product(CONFIGS.sets(), PROFILES)}  # `run.dataset` of every one

# A method's YAML and a data set's do not touch each other's keys, so not all combinations are built.
PAIRS = [*product(CONFIGS.methods(), ["synthetic"]), *product(["etp"], CONFIGS.sets())]

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
    "sets/ptbxl/set.yaml": {
        "train_folds": [1, 2, 3, 4, 5, 6, 7, 8],
        "val_folds": [9],
        "test_folds": [10],
        "on_error": "skip",
    },
    "sets/synthetic/set.yaml": {
        "train_folds": [1, 2, 3, 4, 5, 6, 7],
        "val_folds": [8],
        "test_folds": [9, 10],
        "sampling_rate": 100,
        "batch_size": 64,
        "label_mode": "multi",
    },
    "sets/ptbxl/set_demo.yaml": {
        "train_folds": [1, 2, 3, 4, 5, 6, 7],
        "val_folds": [8],
        "test_folds": [9, 10],
        "sampling_rate": 100,
        "batch_size": 64,
        "normalize": "lead",
        "label_mode": "multi",
        "on_error": "skip",
    },
    "sets/cpsc2018/set.yaml": {},
    "sets/cpsc2018/set_demo.yaml": {
        "split_fractions": [0.6, 0.0, 0.4],
        "sampling_rate": 100,
        "batch_size": 64,
        "normalize": "lead",
        "missing_classes": "drop",
    },
    "sets/wfdb_folder/set.yaml": {"label_mode": "multi"},
}


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def build(method: str, dataset: str, profile: Profile) -> QuintetCLI:
    _, *arguments = words("fit", CONFIGS.stack(method, dataset, profile), {})
    return QuintetCLI("ecg_text", arguments, run=False)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("method", "dataset"), PAIRS)
def test_every_method_and_every_data_set_instantiates(method: str, dataset: str, profile: Profile) -> None:
    cli, demo = build(method, dataset, profile), profile == "demo"
    data = CONFIGS.data_block(dataset, profile)
    of_method = yaml.safe_load((FOLDER / "methods" / f"{method}.yaml").read_text())
    assert isinstance(cli.model, class_of(of_method["model"]["class_path"]))
    assert type(cli.datamodule) is class_of(data.block["class_path"])
    assert cli.config.run.variant == method
    assert (cli.config.run.dataset, cli.config.run.tags) == (data.name, data.tags)
    assert data.tags == (["synthetic"] if dataset == "synthetic" else ["real"])
    assert cli.trainer.precision == ("32-true" if demo else "bf16-mixed")
    assert cli.trainer.max_epochs == (15 if demo else 50)
    assert cli.model.encoder.out_dim == 8 * (32 if demo else 64)
    assert cli.config.checkpoint.monitor == (None if method in WITHOUT_BEST_EPOCH else "val/loss")


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_every_prompt_file_loads_by_its_name(path: Path) -> None:
    prompts = load_prompts(path.stem)
    sentences = prompts.sentences({"NORM": "normal ECG", "XYZ": "something else"})
    assert all(sentence and "{" not in sentence for sentence in sentences[0])
    assert sentences[1] == [template.format("something else") for template in prompts.templates]


# The paper's averages that are not the means of its classes, and these means.
NOT_THE_MEAN = {("table3.yaml", "Random init", "ACC"): 22.0, ("table3.yaml", "Random init", "F1"): 20.4}


def test_table_1_has_a_row_for_each_method_that_there_is_a_file_for() -> None:
    table = read_method_table(TABLES[0])
    classes = {class_of(yaml.safe_load(path.read_text())["model"]["class_path"]) for path in METHODS}
    rows = {cls.title for cls in classes} - {"Barlow Twins"} | {RANDOM}
    assert list(table.values) == list(table.data_sets) == ["PTB-XL", "CPSC2018"]
    for values in table.values.values():
        assert set(values) == rows
        assert all(list(cells) == list(table.columns) == ["AUC", "F1"] for cells in values.values())
        assert max(values, key=lambda row: values[row]["AUC"]) == table.reference == "ETP"
    assert {name for names in table.data_sets.values() for name in names} <= DATA_SETS


@pytest.mark.parametrize("path", TABLES[1:], ids=lambda path: path.stem)
def test_every_table_of_the_paper_is_whole_and_its_averages_are_the_means_of_its_classes(path: Path) -> None:
    table = read_class_table(path)
    assert table is not None
    values = dict(table.values)
    average = values.pop("Average")
    assert list(values) == list({"table2": PTBXL_SUPERCLASSES, "table3": CPSC2018_CLASSES}[path.stem])
    assert set(table.data_sets) <= DATA_SETS
    assert CONFIGS.data_block(table.data, "gpu").name == table.data_sets[0]
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
    with pytest.raises(SystemExit) as stop:
        main([*words("fit", CONFIGS.stack("etp", "synthetic", "demo"), {}), "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["temperature"] == 0.07
    (tmp_path / "printed.yaml").write_text(printed)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(tmp_path / "printed.yaml"), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


def transform_departures(name: str, block: dict[str, Any] | None, _: object) -> dict[str, Any]:
    """The names of an augmentation's parts, where there is one."""
    parts = block["init_args"]["transforms"] if block else []
    return {name: [part["class_path"].rpartition(".")[2] for part in parts]} if parts else {}


@pytest.mark.parametrize("path", [*METHODS, *DATA], ids=name_of)
def test_yaml_and_signatures_agree(path: Path) -> None:
    others = {name: partial(transform_departures, name) for name in ("augment", "second")}
    assert departures(yaml.safe_load(path.read_text()), others) == DEPARTURES[name_of(path)]


def test_an_unknown_key_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words("fit", CONFIGS.stack("etp", "synthetic", "gpu"), {"model.init_args.temprature": 0.1}))
    assert stop.value.code == 2
    assert "temprature" in capsys.readouterr().err
