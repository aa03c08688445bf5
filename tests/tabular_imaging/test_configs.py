"""Every YAML works through the real CLI class, and says what the signatures say."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml

import tabular_imaging
from shared.cli import QuintetCLI, compose
from shared.evaluation import read_method_table
from shared.evaluation.comparison import Column
from shared.methods import Supervised
from shared.runs.configs import Change, Profile
from tabular_imaging.cli import main
from tabular_imaging.data.cardiac_fields import read_fields
from tabular_imaging.data.schema import ColumnTypes
from tabular_imaging.evaluation.classifiers import Settings
from tabular_imaging.evaluation.tables import CONFIGS
from tests.command_line import words
from tests.signatures import class_of, departures

FOLDER = CONFIGS.folder
OWN_DATA = FOLDER / "own_data.yaml"
TABLES = [FOLDER / "tables" / f"table{number}.yaml" for number in (1, 2, 3)]
OF_IMAGES = [method for method in CONFIGS.methods() if method != "scarf"]
VARIANTS = {name: change for name, change in CONFIGS.variants("synthetic").items() if change.settings}
PROFILES: tuple[Profile, ...] = get_args(Profile)
MONITORED = {"supervised": "val/accuracy"}  # the others keep the last epoch
PRETRAINING = {"lr": 3e-3, "weight_decay": 1e-4, "fused": True}  # the authors' code, for every method of Table 1

# Where a YAML departs from the signature's default, and the value it has instead.
DEPARTURES: dict[str, dict[str, Any]] = {
    "mmcl": {"count": 1},
    "supervised": {"count": 1, "crop_scale": [0.6, 1.0], "probability": 0.8},  # as in fine-tuning
    "simclr": {"optimizer": PRETRAINING, "warmup_epochs": 10},
    "byol": {"optimizer": PRETRAINING, "warmup_epochs": 10, "tau_base": 0.9996},
    "simsiam": {
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": PRETRAINING},  # SimSiam's own is SGD
        "warmup_epochs": 10,
    },
    "barlow_twins": {"optimizer": PRETRAINING, "warmup_epochs": 10},
    "scarf": {
        "projection_dim": 128,
        "temperature": 0.1,
        "corruption_rate": 0.3,
        "optimizer": {"lr": 3e-3, "weight_decay": 1e-4},
        "warmup_epochs": 10,
        "lr_schedule": "cosine",
    },
    "dvm": {"on_error": "skip", "num_workers": 8},
    "synthetic": {"min_per_class": 60, "cache_px": 96, "batch_size": 64, "label_fraction": 0.1},
    "cardiac_infarction": {"num_workers": 8},
    "cardiac_cad": {"disease": "cad", "num_workers": 8},
    "leaves": {
        "root": "data/leaf99",
        "unlabelled_csv": "leaves_unlabelled.csv",
        "image_column": "image",
        "id_column": "id",
        "target": "species",
        "fractions": [0.7, 0.1, 0.2],
        "cache_px": 96,
        "channels": 1,
        "columns": {"morphometric": ["width_px", "height_px", "area_px", "shape*"]},
    },
    "own_data": {"on_error": "skip", "name": "resnet18", "count": 1},
}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


# What the file of each method holds, that of each data set, and the one for data of one's own.
CONTENTS = {
    **{method: read(FOLDER / "methods" / f"{method}.yaml") for method in CONFIGS.methods()},
    **{dataset: CONFIGS.data_block(dataset, "gpu").block for dataset in CONFIGS.sets()},
    "own_data": read(OWN_DATA),
}


def arguments_of(method: str, dataset: str, profile: Profile, change: Change | None = None) -> list[str]:
    """What comes after `fit`."""
    change = change or Change(method)
    return words("fit", [*CONFIGS.stack(method, dataset, profile), *change.files], change.settings)[1:]


@cache
def build(*arguments: str) -> QuintetCLI:
    """Without memory for the weights: Barlow Twins has 134 M, and values are not looked at."""
    with torch.device("meta"):
        return QuintetCLI("tabular_imaging", list(arguments), run=False)


@cache
def settings_of(*arguments: str) -> dict[str, Any]:
    """The whole configuration of a run."""
    return compose("tabular_imaging", list(arguments)).settings


def composed(method: str, dataset: str = "synthetic", change: Change | None = None) -> dict[str, Any]:
    """The configuration of a run in the demo profile; not to be changed."""
    return settings_of(*arguments_of(method, dataset, "demo", change))


def column_departures(given: dict[str, Any], _: object) -> dict[str, Any]:
    default = dataclasses.asdict(ColumnTypes())
    assert given.keys() == default.keys()
    changed = {key: value for key, value in given.items() if value != default[key]}
    return {"columns": changed} if changed else {}


def title_of(config: Mapping[str, Any]) -> str:
    """What tables call a run with this configuration."""
    model = config["model"]
    title: str = class_of(model["class_path"]).variant_title(model["init_args"])
    return title


# A method's YAML and a data set's do not touch each other's keys, so not all combinations are built.
@pytest.mark.parametrize(
    ("method", "dataset", "profile"),
    [*product(CONFIGS.methods(), ["synthetic"], ["demo"]), *product(["mmcl"], CONFIGS.sets(), ["gpu"])],
)
def test_every_method_and_every_data_set_instantiates(method: str, dataset: str, profile: Profile) -> None:
    cli = build(*arguments_of(method, dataset, profile))
    data = CONFIGS.data_block(dataset, profile)
    demo, images = profile == "demo", method in OF_IMAGES
    assert type(cli.model) is class_of(CONTENTS[method]["model"]["class_path"])
    assert type(cli.datamodule) is class_of(data.block["class_path"])
    assert cli.config.run.variant == method
    assert cli.config.run.dataset == data.name == {"synthetic": "dvm_synthetic"}.get(dataset, dataset)
    assert cli.config.run.tags == data.tags == (["synthetic"] if dataset == "synthetic" else ["real"])
    assert cli.trainer.precision == ("32-true" if demo else "bf16-mixed")
    last = read(CONFIGS.stack(method, dataset, profile)[-1])  # where a set changes a method, that is read last
    assert cli.trainer.max_epochs == last.get("trainer", {}).get("max_epochs", 30 if demo else 500)
    assert cli.config.checkpoint.monitor == MONITORED.get(method)
    if images:
        first = next(module for module in cli.model.encoder.modules() if isinstance(module, torch.nn.Conv2d))
        assert first.in_channels == cli.datamodule.image_settings.channels
        assert cli.model.views.augment.size == cli.model.encoder.image_px
        assert cli.model.encoder.image_px < cli.datamodule.image_settings.size
        assert cli.model.views.count == (1 if method in ("mmcl", "supervised") else 2)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_named_after_what_it_changes_and_changes_nothing_else(name: str) -> None:
    change = VARIANTS[name]
    assert (change.method, change.files) == ("mmcl", [])
    config, plain = composed("mmcl", change=change), composed("mmcl")
    assert {**config, "model": None} == {**plain, "model": None}
    settings, before = config["model"]["init_args"], plain["model"]["init_args"]
    changed = {key: value for key, value in settings.items() if value != before[key]}
    said = {
        "labels": {"false_negative_elimination": "fn_elimination", "supcon": "supcon"},
        "fields": {"morphometric": "morphometric", "non_morphometric": "non_morphometric"},
        "label_as_feature": {True: "laaf"},
    }
    assert changed.keys() <= said.keys()
    assert name == "_".join(["mmcl", *(said[key][changed[key]] for key in said if key in changed)])


def test_own_data_needs_nothing_but_a_csv_and_trains_mmcl_as_its_file_says() -> None:
    cli = build("--config", str(OWN_DATA))
    assert type(cli.model) is tabular_imaging.MMCL
    assert type(cli.datamodule) is tabular_imaging.ImageTableDataModule
    assert cli.datamodule.csv == Path("my.csv")
    own, method = (read(path)["model"] for path in (OWN_DATA, FOLDER / "methods" / "mmcl.yaml"))
    assert own["init_args"]["encoder"]["init_args"].pop("name") == "resnet18"
    assert method["init_args"]["encoder"]["init_args"].pop("name") == "resnet50"
    assert own == method


@pytest.mark.parametrize("name", CONTENTS)
def test_yaml_and_signatures_agree(name: str) -> None:
    assert departures(CONTENTS[name], {"columns": column_departures}) == DEPARTURES[name]


def test_the_rows_of_table_1_are_the_methods_that_there_is_a_file_for() -> None:
    titles = {title_of(composed(method)) for method in OF_IMAGES}  # the paper has no row of tables alone
    assert Supervised.title in titles
    table = read_method_table(TABLES[0])
    for values in table.values.values():
        assert set(values) == titles
        assert all(list(cells) == ["Frozen", "Trainable"] for cells in values.values())
        assert max(values, key=lambda row: values[row]["Frozen"]) == "MMCL"


def test_the_rows_of_tables_2_and_3_are_the_variants_that_there_are() -> None:
    titles = {name: title_of(composed("mmcl", change=change)) for name, change in VARIANTS.items()} | {"mmcl": "MMCL"}
    of_fields = {title for name, title in titles.items() if name == "mmcl" or name.endswith("morphometric")}
    of_labels = {title for name, title in titles.items() if not name.endswith("morphometric")}
    assert len(set(titles.values())) == len(VARIANTS) + 1
    for path, expected in ((TABLES[1], of_fields), (TABLES[2], of_labels | {Supervised.title})):
        assert [set(values) for values in read_method_table(path).values.values()] == [expected] * 3


def test_the_tables_are_whole_and_agree_where_they_repeat_a_row() -> None:
    tables = [read_method_table(path) for path in TABLES]
    data_sets = {CONFIGS.data_block(*pair).name for pair in product(CONFIGS.sets(), PROFILES)}
    frozen: dict[tuple[str, str], set[float]] = {}
    for table in tables:
        assert list(table.values) == list(table.data_sets) == ["DVM", "Infarction", "CAD"]
        assert {name for names in table.data_sets.values() for name in names} <= data_sets
        assert table.columns == {name: Column(name.lower()) for name in table.columns}
        assert table.reference == "MMCL"
        for group, values in table.values.items():
            for row, cells in values.items():
                assert set(cells) <= set(table.columns)
                assert all(50 < value < 100 for value in cells.values()) or row == "SimSiam"
                if "Frozen" in cells:
                    frozen.setdefault((group, row), set()).add(cells["Frozen"])
    assert all(len(values) == 1 for values in frozen.values())
    dashes = {(group, row) for group, values in tables[2].values.items() for row, cells in values.items() if not cells}
    assert dashes == set(product(["Infarction", "CAD"], ["SupCon", "SupCon + LaaF"]))  # did not converge


def test_the_cardiac_fields_are_the_papers_kinds_and_each_target_has_a_list_of_diagnoses() -> None:
    fields = read_fields(FOLDER / "fields" / "cardiac.yaml")
    assert {feature.kind for feature in fields.features} == {"continuous", "categorical"}
    diagnoses = read(FOLDER / "fields" / "icd10.yaml")
    assert list(diagnoses) == ["infarction", "cad"]
    targets = {dataset for dataset in CONFIGS.sets() if dataset.startswith("cardiac_")}
    assert targets == {f"cardiac_{disease}" for disease in diagnoses}
    for disease in diagnoses:
        cli = build(*arguments_of("mmcl", f"cardiac_{disease}", "gpu"))
        assert cli.datamodule.disease == disease


@pytest.mark.parametrize("dataset", CONFIGS.sets())
def test_the_settings_of_an_evaluation_name_what_there_is_and_a_figure_draws_their_regimes(dataset: str) -> None:
    path = CONFIGS.evaluation(dataset)
    assert path is not None
    settings = Settings(**read(path))
    few = [f"{100 * fraction:g}pct" for fraction in settings.fractions]
    few += [f"{count}_per_class" for count in settings.per_class]
    own = FOLDER / "tables" / f"figure2_{dataset}.yaml"
    figure = read_method_table(own if own.is_file() else FOLDER / "tables" / "figure2.yaml")
    protocols = {column.protocol for column in figure.columns.values()}
    assert protocols == {"frozen", *(f"frozen_{regime}" for regime in few)}


def test_every_method_of_images_is_tuned_over_as_many_settings() -> None:
    tuned = {method: CONFIGS.tuning(method) for method in OF_IMAGES}
    assert read(FOLDER / "tuning.yaml").keys() == tuned.keys()
    assert {len(grid) for grid in tuned.values()} == {8}


def test_equal_views_are_twice_the_epochs() -> None:
    (path,) = CONFIGS.variant("mmcl_equal_views", "leaves").files
    epochs = composed("mmcl", "leaves")["trainer"]["max_epochs"]
    assert read(path) == {"trainer": {"max_epochs": 2 * epochs}}


@pytest.mark.parametrize(
    ("method", "grid"),
    [
        *((method, CONFIGS.tuning(method)) for method in read(FOLDER / "tuning.yaml")),
        *(("mmcl", CONFIGS.study(name)) for name in read(FOLDER / "study.yaml")),
    ],
    ids=[*read(FOLDER / "tuning.yaml"), *read(FOLDER / "study.yaml")],
)
def test_a_grid_sets_what_the_configuration_has(method: str, grid: dict[str, dict[str, Any]]) -> None:
    *_, last = grid.values()
    config = composed(method, "leaves", Change(method, settings=last))
    for name, value in last.items():
        found: Any = config
        for part in name.split("."):
            found = found[part]
        assert found == value


def test_print_config_prints_one_that_works(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments_of("mmcl", "synthetic", "demo"), "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["corruption_rate"] == 0.1  # sets/synthetic/mmcl.yaml
    (tmp_path / "printed.yaml").write_text(printed)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(tmp_path / "printed.yaml"), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


@pytest.mark.parametrize(("method", "option"), [("mmcl", "lambda"), ("scarf", "views")])
def test_an_unknown_key_is_an_error(method: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments_of(method, "synthetic", "demo"), f"--model.init_args.{option}", "0.1"])
    assert stop.value.code == 2
    assert option in capsys.readouterr().err
