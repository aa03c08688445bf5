"""Every YAML works through the real CLI class, and says what the signatures say."""

import dataclasses
import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tabular_imaging
from shared.cli import SaveConfig
from shared.runs.table import read_grid
from tabular_imaging.cli import TabularImagingCLI, main
from tabular_imaging.data.cardiac_fields import read_fields
from tabular_imaging.data.schema import ColumnTypes
from tabular_imaging.evaluation.classifiers import Settings
from tabular_imaging.evaluation.models import SUPERVISED
from tabular_imaging.verbs.evaluate import method_name
from tabular_imaging.verbs.table import read_table

CONFIGS = Path(tabular_imaging.__file__).parent / "configs"
FOLDERS = ("methods", "data", "images", "variants", "evaluation", "tuning", "study", "tables", "fields")
METHODS, DATA, IMAGES, VARIANTS, EVALUATION, TUNING, STUDY, ALL_TABLES, FIELDS = (
    sorted((CONFIGS / name).glob("*.yaml")) for name in FOLDERS
)
FIGURES, TABLES = ALL_TABLES[:4], ALL_TABLES[4:]  # of few labels and equal views, and the paper's
SETTINGS = sorted((CONFIGS / "settings").glob("*/*.yaml"))
EQUAL_VIEWS = CONFIGS / "settings" / "leaves" / "mmcl_equal_views.yaml"
SYNTHETIC, OWN_DATA = CONFIGS / "data" / "synthetic.yaml", CONFIGS / "own_data.yaml"
MMCL = CONFIGS / "methods" / "mmcl.yaml"
MONITORED = {"supervised": "val/accuracy"}  # the others keep the last epoch
PRETRAINING = {"lr": 3e-3, "weight_decay": 1e-4, "fused": True}  # the authors' code, for every method of Table 1

# Where a YAML departs from the signature's default, and the value it has instead.
DEPARTURES: dict[str, dict[str, Any]] = {
    "methods/mmcl.yaml": {"count": 1},
    "methods/supervised.yaml": {"count": 1, "crop_scale": [0.6, 1.0], "probability": 0.8},  # as in fine-tuning
    "methods/simclr.yaml": {"optimizer": PRETRAINING, "warmup_epochs": 10},
    "methods/byol.yaml": {"optimizer": PRETRAINING, "warmup_epochs": 10, "tau_base": 0.9996},
    "methods/simsiam.yaml": {
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": PRETRAINING},  # SimSiam's own is SGD
        "warmup_epochs": 10,
    },
    "methods/barlow_twins.yaml": {"optimizer": PRETRAINING, "warmup_epochs": 10},
    "methods/scarf.yaml": {
        "projection_dim": 128,
        "temperature": 0.1,
        "corruption_rate": 0.3,
        "optimizer": PRETRAINING,
        "warmup_epochs": 10,
        "lr_schedule": "cosine",
    },
    "data/dvm.yaml": {"on_error": "skip", "num_workers": 8},
    "data/synthetic.yaml": {"min_per_class": 60, "cache_px": 96, "batch_size": 64, "label_fraction": 0.1},
    "data/cardiac_infarction.yaml": {"num_workers": 8},
    "data/cardiac_cad.yaml": {"disease": "cad", "num_workers": 8},
    "data/leaves.yaml": {
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
    "own_data.yaml": {"on_error": "skip", "name": "resnet18", "count": 1},
}
LINKED = {"seed"}  # the CLI sets it


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def composed(method: Path, data: Path = SYNTHETIC, demo: bool = True, variant: Path | None = None) -> tuple[Path, ...]:
    """The files in the Makefile's order."""
    images = [] if method.stem == "scarf" else [CONFIGS / "images" / f"{set_of(data)}.yaml"]
    small = [CONFIGS / "demo.yaml"] if demo else []
    settings = [path for path in SETTINGS if path.parts[-2:] == (set_of(data), method.name)]
    return (CONFIGS / "base.yaml", method, data, *images, *small, *settings, *([variant] if variant else []))


def set_of(data: Path) -> str:
    """What images and settings are called: both cardiac targets share theirs."""
    return "cardiac" if data.stem.startswith("cardiac") else data.stem


def arguments_of(files: Sequence[Path]) -> list[str]:
    return [part for file in files for part in ("--config", str(file))]


@cache
def build(*files: Path) -> TabularImagingCLI:
    """Without memory for the weights: Barlow Twins has 134 M, and values are not looked at."""
    with torch.device("meta"):
        return TabularImagingCLI(
            run=False,
            save_config_callback=SaveConfig,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            args=arguments_of(files),
        )


def class_of(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    assert isinstance(cls, type)
    return cls


def blocks(value: Any) -> list[dict[str, Any]]:
    """Every `class_path` block below, but torch's own classes."""
    if not isinstance(value, dict):
        return []
    own = [value] if "class_path" in value and not value["class_path"].startswith("torch.") else []
    return own + [block for item in value.values() for block in blocks(item)]


def optimizer_departures(default: Callable[..., Any], block: dict[str, Any]) -> dict[str, Any]:
    """Where the YAML's optimiser is not what the signature's default makes."""
    made = default([torch.zeros(1, requires_grad=True)])
    if type(made) is not class_of(block["class_path"]):
        return {"optimizer": block}
    changed = any(value != made.defaults[key] for key, value in block["init_args"].items())
    return {"optimizer": block["init_args"]} if changed else {}


def column_departures(given: dict[str, Any]) -> dict[str, Any]:
    default = dataclasses.asdict(ColumnTypes())
    assert given.keys() == default.keys()
    changed = {key: value for key, value in given.items() if value != default[key]}
    return {"columns": changed} if changed else {}


def method_of(folder: Path, files: Sequence[Path]) -> str:
    """`method_name` of a run with these files."""
    cli = build(*files)
    seed = folder / "seed_0"
    (seed / "checkpoints").mkdir(parents=True)
    (seed / "checkpoints" / "best.ckpt").touch()
    (seed / "config.yaml").write_text(cli.parser.dump(cli.config, skip_none=False, format="yaml"))
    return method_name(folder)


def test_the_files_are_those_this_file_knows() -> None:
    known = [METHODS, DATA, IMAGES, VARIANTS, EVALUATION, TUNING, STUDY, FIGURES, TABLES, FIELDS, SETTINGS]
    names = {"base.yaml", "demo.yaml", "own_data.yaml", *(name_of(path) for paths in known for path in paths)}
    assert names == {name_of(path) for path in CONFIGS.rglob("*.yaml")}
    assert DEPARTURES.keys() == {"own_data.yaml", *map(name_of, [*METHODS, *DATA])}
    # The Makefile reads these for every data set.
    sets = sorted({set_of(path) for path in DATA})
    assert [path.stem for path in IMAGES] == [path.stem for path in EVALUATION] == sets
    images = [path.name for path in METHODS if path.stem != "scarf"]
    assert [path.parts[-2:] for path in SETTINGS if path != EQUAL_VIEWS] == list(product(sets, images))
    assert [path.name for path in TUNING] == [name for name in images if name != "supervised.yaml"]


# A method's YAML and a data set's do not touch each other's keys, so not all combinations are built.
@pytest.mark.parametrize(
    ("method", "data", "demo"),
    [*product(METHODS, [SYNTHETIC], [True]), *product([MMCL], DATA, [False])],
    ids=lambda value: value.stem if isinstance(value, Path) else "demo" if value else "a100",
)
def test_every_method_and_every_data_set_instantiates(method: Path, data: Path, demo: bool) -> None:
    cli = build(*composed(method, data, demo))
    images = method.stem != "scarf"
    assert type(cli.model) is class_of(yaml.safe_load(method.read_text())["model"]["class_path"])
    assert type(cli.datamodule) is class_of(yaml.safe_load(data.read_text())["data"]["class_path"])
    assert cli.config.run.variant == method.stem
    assert cli.config.run.dataset == {"synthetic": "dvm_synthetic"}.get(data.stem, data.stem)
    assert cli.config.run.tags == (["synthetic"] if data.stem == "synthetic" else ["real"])
    assert cli.trainer.precision == ("32-true" if demo else "bf16-mixed")
    settings = yaml.safe_load((CONFIGS / "settings" / set_of(data) / method.name).read_text()) if images else {}
    epochs = (settings or {}).get("trainer", {}).get("max_epochs", 30 if demo else 500)
    assert cli.trainer.max_epochs == epochs
    assert cli.config.checkpoint.monitor == MONITORED.get(method.stem)
    if images:
        first = next(module for module in cli.model.encoder.modules() if isinstance(module, torch.nn.Conv2d))
        assert first.in_channels == cli.datamodule.image_settings.channels
        assert cli.model.views.augment.size == cli.model.encoder.image_px
        assert cli.model.encoder.image_px < cli.datamodule.image_settings.size
        assert cli.model.views.count == (1 if method.stem in ("mmcl", "supervised") else 2)


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_a_variant_is_named_after_what_it_changes_and_changes_nothing_else(path: Path) -> None:
    config, plain = (build(*composed(MMCL, variant=variant)).config.as_dict() for variant in (path, None))
    assert len(config.pop("config")) == len(plain.pop("config")) + 1
    settings, before = config["model"]["init_args"], plain["model"]["init_args"]
    changed = {key: value for key, value in settings.items() if value != before[key]}
    words = {
        "labels": {"false_negative_elimination": "fn_elimination", "supcon": "supcon"},
        "fields": {"morphometric": "morphometric", "non_morphometric": "non_morphometric"},
        "label_as_feature": {True: "laaf"},
    }
    said = [words[key][changed[key]] for key in words if key in changed]
    assert changed.keys() <= words.keys()
    assert config["run"].pop("variant") == path.stem == "_".join(["mmcl", *said])
    plain["run"].pop("variant")
    config["model"], plain["model"] = {}, {}
    assert config == plain


def test_own_data_needs_nothing_but_a_csv_and_trains_mmcl_as_its_file_says() -> None:
    cli = build(OWN_DATA)
    assert type(cli.model) is tabular_imaging.MMCL
    assert type(cli.datamodule) is tabular_imaging.ImageTableDataModule
    assert cli.datamodule.csv == Path("my.csv")
    own, method = (yaml.safe_load(path.read_text())["model"] for path in (OWN_DATA, MMCL))
    assert own["init_args"]["encoder"]["init_args"].pop("name") == "resnet18"
    assert method["init_args"]["encoder"]["init_args"].pop("name") == "resnet50"
    assert own == method


@pytest.mark.parametrize("path", [*METHODS, *DATA, OWN_DATA], ids=name_of)
def test_yaml_and_signatures_agree(path: Path) -> None:
    found: dict[str, Any] = {}
    for block in blocks(yaml.safe_load(path.read_text())):
        cls = class_of(block["class_path"])
        expected = {name: value for name, value in inspect.signature(cls).parameters.items() if name not in LINKED}
        assert block["init_args"].keys() == expected.keys(), cls.__name__
        for name, value in block["init_args"].items():
            default = expected[name].default
            if default is inspect.Parameter.empty:  # the data's root, the parts of a model
                continue
            if name == "optimizer":
                found |= optimizer_departures(default, value)
            elif name == "columns":
                found |= column_departures(value)
            elif value != (list(default) if isinstance(default, tuple) else default):
                found[name] = value
    assert found == DEPARTURES[name_of(path)]


def test_the_rows_of_table_1_are_the_methods_that_there_is_a_file_for(tmp_path: Path) -> None:
    images = [path for path in METHODS if path.stem != "scarf"]  # the paper has no row of tables alone
    names = {method_of(tmp_path / path.stem, composed(path)) for path in images}
    assert SUPERVISED in names
    table = read_table(TABLES[0])
    for values in table.values.values():
        assert set(values) == names
        assert all(list(cells) == ["Frozen", "Trainable"] for cells in values.values())
        assert max(values, key=lambda row: values[row]["Frozen"]) == "MMCL"


def test_the_rows_of_tables_2_and_3_are_the_variants_that_there_is_a_file_for(tmp_path: Path) -> None:
    names = {path.stem: method_of(tmp_path / path.stem, composed(MMCL, variant=path)) for path in VARIANTS}
    of_fields = {name for variant, name in names.items() if variant == "mmcl" or variant.endswith("morphometric")}
    of_labels = {name for variant, name in names.items() if not variant.endswith("morphometric")}
    assert len(set(names.values())) == len(VARIANTS)
    for path, expected in ((TABLES[1], of_fields), (TABLES[2], of_labels | {SUPERVISED})):
        assert [set(values) for values in read_table(path).values.values()] == [expected] * 3


def test_the_tables_are_whole_and_agree_where_they_repeat_a_row() -> None:
    tables = [read_table(path) for path in TABLES]
    data_sets = {yaml.safe_load(path.read_text())["run"]["dataset"] for path in DATA}
    frozen: dict[tuple[str, str], set[float]] = {}
    for table in tables:
        assert list(table.values) == list(table.data_sets) == ["DVM", "Infarction", "CAD"]
        assert set(table.data_sets.values()) <= data_sets
        assert table.columns == {name: name.lower() for name in table.columns}
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
    fields = read_fields(CONFIGS / "fields" / "cardiac.yaml")
    assert {feature.kind for feature in fields.features} == {"continuous", "categorical"}
    diagnoses = yaml.safe_load((CONFIGS / "fields" / "icd10.yaml").read_text())
    assert list(diagnoses) == ["infarction", "cad"]
    data = [path for path in DATA if "cardiac" in path.stem]
    targets = {build(*composed(MMCL, path, demo=False)).datamodule.disease for path in data}
    assert targets == set(diagnoses)


@pytest.mark.parametrize("path", EVALUATION, ids=name_of)
def test_the_settings_of_an_evaluation_name_what_there_is_and_a_figure_draws_their_regimes(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    settings = Settings(**given)
    few = [f"{fraction:.0%}" for fraction in settings.fractions] + [f"{count} a class" for count in settings.per_class]
    own = CONFIGS / "tables" / f"figure2_{path.stem}.yaml"
    figure = read_table(own if own.is_file() else CONFIGS / "tables" / "figure2.yaml")
    assert set(figure.columns.values()) == {"frozen", *(f"frozen@{regime}" for regime in few)}


def test_every_method_is_tuned_over_as_many_settings() -> None:
    assert {len(read_grid(path)) for path in TUNING} == {8}


def test_equal_views_are_twice_the_epochs() -> None:
    mmcl = yaml.safe_load((EQUAL_VIEWS.parent / "mmcl.yaml").read_text())
    assert yaml.safe_load(EQUAL_VIEWS.read_text()) == {"trainer": {"max_epochs": 2 * mmcl["trainer"]["max_epochs"]}}


@pytest.mark.parametrize("path", [*TUNING, *STUDY], ids=name_of)
def test_a_grid_sets_what_the_configuration_has(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = path if path in TUNING else MMCL
    files = composed(CONFIGS / "methods" / method.name, CONFIGS / "data" / "leaves.yaml")
    *_, last = read_grid(path).values()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments_of(files), *last, "--print_config"])
    assert stop.value.code == 0
    printed: Any = yaml.safe_load(capsys.readouterr().out)
    for key, value in zip(last[::2], last[1::2], strict=True):
        found = printed
        for part in key.removeprefix("--").split("."):
            found = found[part]
        assert found == json.loads(value)


def test_print_config_prints_one_that_works(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments_of(composed(MMCL)), "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["corruption_rate"] == 0.1  # settings/synthetic/mmcl.yaml
    (tmp_path / "printed.yaml").write_text(printed)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(tmp_path / "printed.yaml"), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


@pytest.mark.parametrize(("method", "option"), [("mmcl", "lambda"), ("scarf", "views")])
def test_an_unknown_key_is_an_error(method: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "fit",
                *arguments_of(composed(CONFIGS / "methods" / f"{method}.yaml")),
                f"--model.init_args.{option}",
                "0.1",
            ]
        )
    assert stop.value.code == 2
    assert option in capsys.readouterr().err
