"""The files that a run reads: of a toy package, and of the packages that there are."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import shared
from shared.data.problems import DataError
from shared.runs.configs import Change, Configs, Profile, as_flags, combinations

ROOT = Path(shared.__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/configs") if (path / "methods").is_dir())
PROFILES: tuple[Profile, ...] = get_args(Profile)
IMAGES = "model: {init_args: {encoder: {class_path: shared.backbones.ImageEncoder, init_args: {image_px: 8}}}}\n"
# Read by name, not as a part of a stack.
NAMED = {"own_data.yaml", "variants.yaml", "tuning.yaml", "study.yaml", "contrasts.yaml", "receivers.yaml"}
NAMED_FOLDERS = {"tables", "prompts", "fields", "groups", "cuts", "schemas"}


@pytest.fixture
def toy(tmp_path: Path) -> Configs:
    """Two methods, `plain` and one of images, and three data sets, one of them with two targets."""
    files = {
        "base.yaml": "",
        "demo.yaml": "",
        "methods/plain.yaml": "model: {class_path: toy.Plain}\n",
        "methods/plain_net.yaml": IMAGES,
        "sets/flat/set.yaml": "run: {dataset: flat}\ndata: {class_path: toy.Data, init_args: {size: 4, p: [1]}}\n",
        "sets/flat/set_demo.yaml": "run: {dataset: flat_small, tags: [real]}\ndata: {class_path: toy.Data}\n",
        "sets/flat/images.yaml": "",
        "sets/flat/plain.yaml": "",
        "sets/flat/plain_net_twice.yaml": "",
        "sets/flat/evaluation.yaml": "",
        "sets/organs/set.yaml": "run: {tags: [real]}\ndata: {class_path: toy.Data, init_args: {size: 4, p: [1]}}\n",
        "sets/organs/target_left.yaml": "run: {dataset: l}\ndata: {init_args: {side: left, p: [2]}}\n",
        "sets/organs/target_right.yaml": "run: {dataset: r}\n",
        "sets/tiny/set.yaml": "",
        "sets/tiny/short.yaml": "",
        "variants.yaml": "plain_cold: {method: plain, settings: {model.init_args.temperature: 0.1}}\n",
        "tuning.yaml": "plain: {model.lr: [0.1, 0.2]}\n",
        "study.yaml": "batch: {data.init_args.batch_size: [64], model.init_args.kind: [a b, null]}\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return Configs(tmp_path)


def names(configs: Configs, files: list[Path]) -> list[str]:
    return [path.relative_to(configs.folder).as_posix() for path in files]


def test_methods_and_data_sets_are_found_by_their_files(toy: Configs) -> None:
    assert toy.methods() == ["plain", "plain_net"]
    assert toy.sets() == ["flat", "organs_left", "organs_right", "tiny"]


@pytest.mark.parametrize(
    ("method", "dataset", "profile", "expected"),
    [
        ("plain", "tiny", "gpu", "base methods/plain sets/tiny/set"),
        ("plain", "flat", "gpu", "base methods/plain sets/flat/set sets/flat/plain"),
        ("plain", "flat", "demo", "base methods/plain sets/flat/set_demo demo sets/flat/plain"),
        ("plain_net", "flat", "demo", "base methods/plain_net sets/flat/set_demo sets/flat/images demo"),
        ("plain_net", "tiny", "demo", "base methods/plain_net sets/tiny/set demo"),
        ("plain", "organs_left", "gpu", "base methods/plain sets/organs/set sets/organs/target_left"),
        ("plain", "organs_right", "demo", "base methods/plain sets/organs/set sets/organs/target_right demo"),
    ],
)
def test_a_stack_goes_from_the_general_to_the_special(
    toy: Configs, method: str, dataset: str, profile: Profile, expected: str
) -> None:
    assert names(toy, toy.stack(method, dataset, profile)) == [f"{name}.yaml" for name in expected.split()]


def test_a_data_set_may_have_settings_for_its_evaluation(toy: Configs) -> None:
    assert toy.evaluation("flat") == toy.folder / "sets" / "flat" / "evaluation.yaml"
    assert toy.evaluation("tiny") is None


def test_a_variant_is_a_method_itself_or_settings_or_a_file_of_the_set(toy: Configs) -> None:
    assert toy.variant("plain", "flat") == Change("plain")
    assert toy.variant("plain_cold", "flat") == Change("plain", settings={"model.init_args.temperature": 0.1})
    twice = toy.folder / "sets" / "flat" / "plain_net_twice.yaml"
    assert toy.variant("plain_net_twice", "flat") == Change("plain_net", [twice])
    assert list(toy.variants("flat")) == ["plain", "plain_net", "plain_cold", "plain_net_twice"]
    short = toy.folder / "sets" / "tiny" / "short.yaml"
    assert toy.variant("plain_net_short", "tiny") == Change("plain_net", [short])
    assert list(toy.variants("tiny")) == ["plain", "plain_net", "plain_cold", "plain_short", "plain_net_short"]


def test_a_grid_is_every_combination_by_a_name_that_needs_no_quotes(toy: Configs) -> None:
    assert toy.tuning("plain") == {"lr=0.1": {"model.lr": 0.1}, "lr=0.2": {"model.lr": 0.2}}
    assert toy.study("batch") == {
        "batch_size=64,kind=a_b": {"data.init_args.batch_size": 64, "model.init_args.kind": "a b"},
        "batch_size=64,kind=null": {"data.init_args.batch_size": 64, "model.init_args.kind": None},
    }
    assert list(combinations({"a.lr": [1e-3], "a.crop": [[0.3, 1.0], [0.7, 1.0]], "a.on": [True]})) == [
        "lr=0.001,crop=0.3_1.0,on=true",
        "lr=0.001,crop=0.7_1.0,on=true",
    ]
    for grid in ({"encoder.width": [1, 2], "head.width": [4]}, {"a.kind": ["x y", "x/y"]}):
        with pytest.raises(DataError, match=r"^two settings or values of a grid have the same name: "):
            combinations(grid)


def test_settings_become_flags() -> None:
    settings = {"a.lr": 1e-3, "a.crop": [0.3, 1.0], "a.kind": "none", "a.csv": None, "a.on": True}
    assert as_flags(settings) == (
        ["--a.lr", "0.001", "--a.crop", "[0.3, 1.0]", "--a.kind", "none", "--a.csv", "null", "--a.on", "true"]
    )


def test_the_data_block_of_a_name_or_a_file(toy: Configs) -> None:
    left = {"class_path": "toy.Data", "init_args": {"size": 4, "p": [2], "side": "left"}}
    assert toy.data_block("organs_left", "demo") == ("l", ["real"], left)
    assert toy.data_block("flat", "gpu")[:2] == ("flat", [])
    assert toy.data_block("flat", "demo") == ("flat_small", ["real"], {"class_path": "toy.Data"})
    path = toy.folder / "sets" / "flat" / "set.yaml"
    assert toy.data_block(path, "demo") == toy.data_block(str(path), "gpu") == toy.data_block("flat", "gpu")


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda toy: toy.stack("plane", "flat", "gpu"), "no method 'plane'; there are: plain, plain_net; did you mean"),
        (lambda toy: toy.stack("plain", "organs", "gpu"), "no data set 'organs'; there are: flat, organs_left, "),
        (lambda toy: toy.data("flatt", "gpu"), "no data set 'flatt'; .*; did you mean flat?"),
        (lambda toy: toy.evaluation("x"), "no data set 'x'; there are: flat, organs_left, organs_right, tiny$"),
        (lambda toy: toy.variant("plain_short", "flat"), "no variant 'plain_short'; there are: plain, plain_cold, "),
        (lambda toy: toy.tuning("plain_net"), "no grid in tuning.yaml called 'plain_net'; there are: plain; did you"),
        (lambda toy: toy.study("bach"), "no grid in study.yaml called 'bach'; there are: batch; did you mean batch?"),
        (lambda toy: toy.data_block("tin", "gpu"), "no data set 'tin'; .*; did you mean tiny?"),
        (lambda toy: toy.data_block("absent.yaml", "gpu"), "no file absent.yaml$"),
        (
            lambda toy: toy.data_block(toy.folder / "sets" / "organs" / "set.yaml", "gpu"),
            r".*set\.yaml lacks run\.dataset or data:; by name, there are: flat, organs_left, organs_right, tiny$",
        ),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_what_there_is(
    toy: Configs, ask: Callable[[Configs], Any], error: str
) -> None:
    with pytest.raises(DataError, match=rf"^{error}"):
        ask(toy)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("plain_x: {method: plain}\n", "variants.yaml, plain_x: expected `method` and `settings`"),
        ("x: {method: plan, settings: {}}\n", "^no method 'plan'; there are: plain, plain_net; did you mean plain?"),
        ("- a\n", "variants.yaml does not hold names with values$"),
        ("a: [\n", r"variants.yaml is not valid YAML \(while parsing"),
    ],
)
def test_variants_that_are_not_as_expected_are_an_error(toy: Configs, content: str, error: str) -> None:
    (toy.folder / "variants.yaml").write_text(content)
    with pytest.raises(DataError, match=error):
        toy.variants("flat")


@pytest.mark.parametrize("content", ["plain: {model.lr: 0.1}\n", "plain: {model.lr: []}\n", "plain: 0.1\n"])
def test_what_is_not_a_grid_is_an_error(toy: Configs, content: str) -> None:
    (toy.folder / "tuning.yaml").write_text(content)
    with pytest.raises(DataError, match=r"tuning\.yaml, plain: expected lines such as model\.init_args\.temperature: "):
        toy.tuning("plain")


def shipped(package: str) -> Configs:
    return Configs(ROOT / package / "configs")


def stacked(configs: Configs) -> set[Path]:
    """Every file that some run or evaluation reads."""
    found: set[Path | None] = set()
    for dataset, profile in product(configs.sets(), PROFILES):
        found.add(configs.evaluation(dataset))
        for change in configs.variants(dataset).values():
            found |= {*configs.stack(change.method, dataset, profile), *change.files}
    return {path for path in found if path}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_variant_of_every_data_set_has_its_files(package: str) -> None:
    configs = shipped(package)
    for dataset, profile in product(configs.sets(), PROFILES):
        name, tags, block = configs.data_block(dataset, profile)
        assert name
        assert tags in (["real"], ["synthetic"])
        assert block["class_path"].startswith(f"{package}.")
        for change in configs.variants(dataset).values():
            files = [*configs.stack(change.method, dataset, profile), *change.files]
            assert all(path.is_file() for path in files)
            assert len(set(files)) == len(files)
            assert names(configs, files[:2]) == ["base.yaml", f"methods/{change.method}.yaml"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_is_read(package: str) -> None:
    configs = shipped(package)
    unread = set(configs.folder.rglob("*.yaml")) - stacked(configs)
    places = [path.relative_to(configs.folder) for path in unread]
    assert [place for place in places if place.parts[0] not in NAMED | NAMED_FOLDERS] == []


def test_a_file_that_no_run_reads_is_noticed(toy: Configs) -> None:
    for orphan in ("sets/flat/plan.yaml", "sets/tiny/image.yaml", "methods.yaml"):
        (toy.folder / orphan).write_text("")
        assert toy.folder / orphan not in stacked(toy)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_says_what_it_is_and_sets_something_of_its_own(package: str) -> None:
    contents: dict[str, Path] = {}
    for path in shipped(package).folder.rglob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# "), path
        content = str(yaml.safe_load(text))
        twin = contents.get(content)
        # A set may change two methods alike, and two sets may have images of one size; nothing else is said twice.
        may_be = path.parts[-3] == "sets" and twin and (twin.parent == path.parent or path.name == "images.yaml")
        assert twin is None or may_be, f"{path} and {twin} hold the same"
        contents[content] = path


def test_tabular_imaging_has_at_most_50_files() -> None:
    assert len(list(shipped("tabular_imaging").folder.rglob("*.yaml"))) <= 50
