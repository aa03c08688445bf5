"""Which settings and data make two runs another, and how that is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from shared.data.problems import DataError
from shared.runs.settings import changed_data, difference, file_fingerprint, saved_settings, upstream, with_seed

CONFIG = {
    "seed_everything": 0,
    "threads": 1,
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "default_root_dir": "runs/a"},
    "checkpoint": {"dirpath": "runs/a/checkpoints", "monitor": None},
    "model": {"class_path": "A", "init_args": {"lr": 0.1, "widths": [1, 2], "text_cache_dir": "here"}},
    "data": {"class_path": "B", "init_args": {"root": "here", "cache_dir": "c", "num_workers": 0, "batch_size": 8}},
    "run": {"root": "runs", "variant": "a", "overwrite": False, "wandb": "auto"},
}


def changed(**blocks: dict[str, object]) -> dict[str, object]:
    return {**CONFIG, **{key: {**CONFIG[key], **values} for key, values in blocks.items()}}  # type: ignore[dict-item]


def test_places_hardware_and_how_a_run_is_started_are_no_settings() -> None:
    other = changed(
        trainer={"accelerator": "cuda", "devices": 8, "default_root_dir": "elsewhere"},
        checkpoint={"dirpath": "elsewhere"},
        data={"init_args": {"root": "there", "cache_dir": "d", "num_workers": 8, "batch_size": 8}},
        model={"init_args": {"lr": 0.1, "widths": [1, 2], "text_cache_dir": "there"}},
        run={"root": "other", "overwrite": True, "wandb": "offline"},
    )
    assert difference(CONFIG, {**other, "threads": 2}) == ""


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"trainer": {"max_epochs": 4}}, "- trainer.max_epochs: 3\n+ trainer.max_epochs: 4"),
        ({"checkpoint": {"monitor": "val/loss"}}, '- checkpoint.monitor: null\n+ checkpoint.monitor: "val/loss"'),
        ({"trainer": {"precision": "bf16"}}, '+ trainer.precision: "bf16"'),
        ({"data": {"class_path": "C"}}, '- data.class_path: "B"\n+ data.class_path: "C"'),
        (
            {"model": {"init_args": {"lr": 0.1, "widths": [2, 1], "text_cache_dir": "here"}}},
            "- model.init_args.widths: [1, 2]\n+ model.init_args.widths: [2, 1]",
        ),
    ],
)
def test_every_other_difference_is_said_with_both_values(blocks: dict[str, dict[str, object]], said: str) -> None:
    assert difference(CONFIG, changed(**blocks)) == said


def test_a_list_of_classes_is_compared_one_by_one() -> None:
    one = {"transforms": [{"class_path": "Scale", "init_args": {"sigma": 0.1}}, {"class_path": "Invert"}]}
    other = {"transforms": [{"class_path": "Scale", "init_args": {"sigma": 0.2}}, {"class_path": "Invert"}]}
    said = "- transforms.0.init_args.sigma: 0.1\n+ transforms.0.init_args.sigma: 0.2"
    assert difference(one, other) == said


def test_the_checkpoints_of_other_runs_are_known_by_their_content(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.save({"seed": seed}, tmp_path / f"prior_{seed}.ckpt")
    config = {"model": {"init_args": {"prior": f"{tmp_path}/prior_{{seed}}.ckpt", "name": "a.ckpt"}}, "data": None}
    first, second = upstream(config, 0), upstream(config, 1)
    assert list(first) == list(second) == ["model.init_args.prior"]
    assert (
        first["model.init_args.prior"] == file_fingerprint(tmp_path / "prior_0.ckpt") != second["model.init_args.prior"]
    )
    assert with_seed(config, 1)["model"]["init_args"]["prior"] == f"{tmp_path}/prior_1.ckpt"
    (tmp_path / "prior_0.ckpt").rename(tmp_path / "prior_2.ckpt")
    assert upstream(config, 2) == first  # moved, and named by another seed: the same content
    assert upstream(config, 0) == {}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"init_args": {"split_seed": 42, "root": "here"}}, {"split_seed": 42, "root": "here", "split_version": 1}),
        ({"init_args": {"split_seed": 42, "split_version": 2}}, {"split_seed": 42, "split_version": 2}),
        ({"init_args": {"split_seed": 42, "split_version": 1}}, {"split_seed": 42, "split_version": 1}),
        ({"init_args": {"train_folds": [1]}}, {"train_folds": [1]}),
        ({"init_args": None}, None),
    ],
    ids=["older", "newer", "older and newly written", "no random split", "no arguments"],
)
def test_a_run_that_does_not_record_the_rule_of_its_random_split_has_rule_1s(
    tmp_path: Path, data: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "data": data}))
    assert saved_settings(tmp_path) == {**CONFIG, "data": {"init_args": expected}}


def test_saved_settings_without_data_are_as_they_stand_and_none_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        saved_settings(tmp_path)
    assert str(caught.value) == f"no file {tmp_path / 'config.yaml'}"
    for content in ({"run": {"split_seed": 1}}, {"data": None}):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        assert saved_settings(tmp_path) == content


def test_data_are_compared_with_those_that_a_run_recorded(tmp_path: Path) -> None:
    def refuse() -> str:
        raise AssertionError("the data are loaded although there is nothing to compare them with")

    assert changed_data(tmp_path, refuse) == ""
    (tmp_path / "data.json").write_text(json.dumps({"fingerprint": "0123456789abcdef"}))
    assert changed_data(tmp_path, lambda: "0123456789abcdef") == ""
    assert changed_data(tmp_path, lambda: "fedcba9876543210") == (
        "- data, content: 0123456789abcdef\n+ data, content: fedcba9876543210"
    )
