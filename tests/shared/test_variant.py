"""A variant and its seeds, from folders made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.checkpoint import CheckpointError
from shared.data.problems import DataError
from shared.methods import SimCLR
from shared.runs.grid import write_settings
from shared.runs.variant import Variant
from tests.hand_made import write_variant


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    """Two finished runs of SimCLR."""
    return Variant(write_variant(tmp_path / "flowers" / "simclr", "shared.methods.SimCLR"))


def test_a_variant_knows_its_runs_their_method_and_what_they_took(variant: Variant) -> None:
    assert variant.name == "simclr"
    assert variant.runs == {seed: variant.folder / f"seed_{seed}" for seed in (0, 1)}
    assert variant.seeds == [0, 1]
    assert variant.seeds_text == "0 1"
    assert variant.first == variant.folder / "seed_0"
    assert variant.checkpoint(1) == variant.folder / "seed_1" / "checkpoints" / "best.ckpt"
    assert variant.dataset == "flowers"
    assert (variant.tags, variant.is_synthetic) == (["real"], False)
    assert variant.method is SimCLR
    assert variant.title == "SimCLR"
    assert variant.epochs == 15
    assert variant.steps == 150
    assert variant.hours == pytest.approx(0.5)


def test_a_seed_whose_training_has_not_finished_is_left_out(variant: Variant, caplog: pytest.LogCaptureFixture) -> None:
    (variant.folder / "seed_1" / "results.json").write_text('{"zero_shot/auroc": 0.5}')
    assert list(variant.runs) == [0]
    assert variant.hours == pytest.approx(0.25)
    assert caplog.messages == [f"{variant.folder}: seeds whose training has not finished are left out: 1"]
    (variant.folder / "seed_0" / "results.json").unlink()
    caplog.clear()
    begun = Variant(variant.folder)
    assert list(begun.runs) == [0, 1]  # where none has finished, to look at a run on its way
    told = "seeds whose training has not finished are used as they are: 0, 1"
    assert caplog.messages == [f"{variant.folder}: {told}"]
    assert (begun.steps, begun.hours) == (0, 0)


def test_what_is_no_variant_says_what_to_pass(variant: Variant, tmp_path: Path) -> None:
    for folder, hint in (
        (tmp_path / "none", "train first, or pass another --run"),
        (variant.folder / "seed_0", f"pass the folder above it, {variant.folder}"),
    ):
        with pytest.raises(DataError) as error:
            _ = Variant(folder).runs
        assert str(error.value) == f"no {folder}/seed_*/config.yaml: {hint}"
    path = variant.checkpoint(0)
    path.unlink()
    with pytest.raises(DataError) as error:
        variant.checkpoint(0)
    assert str(error.value) == f"no {path}: train first, or pass another --run"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shared.backbones.ResNet1D", "names ResNet1D, which is not a method of Quintet"),
        ("os.system", "names the class os.system, which is not loaded"),
    ],
)
def test_a_configuration_builds_nothing_but_a_method(tmp_path: Path, name: str, message: str) -> None:
    folder = write_variant(tmp_path / "flowers" / "odd", name)
    with pytest.raises(CheckpointError, match=message):
        _ = Variant(folder).title


def change(config: Path, block: str, key: str, value: Any) -> None:
    content = yaml.safe_load(config.read_text())
    (content[block] if block == "trainer" else content[block]["init_args"])[key] = value
    config.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("block", "key", "value"), [("model", "temperature", 0.2), ("data", "batch_size", 8), ("trainer", "max_epochs", 3)]
)
def test_seeds_trained_with_other_settings_are_not_averaged(
    variant: Variant, block: str, key: str, value: float
) -> None:
    change(variant.folder / "seed_1" / "config.yaml", block, key, value)
    with pytest.raises(DataError) as error:
        variant.check_same_settings()
    assert str(error.value) == (
        f"seed_0 and seed_1 of {variant.folder} were trained with different settings, so their mean says nothing: "
        "train them alike (--run.overwrite true), or under variants of their own (--run.variant NAME)"
    )


def test_seeds_of_other_machines_are_averaged(variant: Variant) -> None:
    (variant.folder / "seed_0" / "results.json").write_text(json.dumps({"fit/epochs": 15, "fit/steps": 160}))
    for key, value in {"root": "elsewhere", "num_workers": 8, "cache_dir": "c"}.items():
        change(variant.folder / "seed_1" / "config.yaml", "data", key, value)
    change(variant.folder / "seed_1" / "config.yaml", "trainer", "accelerator", "gpu")
    variant.check_same_settings()
    assert variant.steps == 155


def test_a_verbs_result_without_checkpoints_is_a_variant_too(tmp_path: Path) -> None:
    folder = tmp_path / "flowers" / "pixels"
    for seed in (0, 1):
        settings = {"title": "Pixels", "seed": seed, "px": 8, "run": {"dataset": "flowers", "tags": ["synthetic"]}}
        write_settings(folder / f"seed_{seed}", {**settings, "data": {"class_path": "Flowers", "init_args": {}}})
    variant = Variant(folder)
    variant.check_same_settings()
    assert (variant.seeds, variant.title, variant.dataset, variant.is_synthetic) == ([0, 1], "Pixels", "flowers", True)
    assert (variant.epochs, variant.steps, variant.hours, variant.model_settings) == (0, 0, 0, {})
    write_settings(folder / "seed_1", {**settings, "px": 16, "data": {"class_path": "Flowers", "init_args": {}}})
    with pytest.raises(DataError, match=r"seed_0 and seed_1 of .* were trained with different settings"):
        Variant(folder).check_same_settings()


def test_seeds_that_were_trained_on_other_data_are_not_averaged(variant: Variant) -> None:
    for seed, content in ((0, "a"), (1, "b")):
        (variant.folder / f"seed_{seed}" / "data.json").write_text(json.dumps({"fingerprint": content}))
    assert variant.data == "a"
    with pytest.raises(DataError, match=r"^seed_0 and seed_1 of .* were trained with different settings"):
        variant.check_same_settings()
