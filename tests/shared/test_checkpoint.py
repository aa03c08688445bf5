"""Checkpoints rebuild their model alone, and are untrusted input."""

import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import shared.trusted
from ecg_text import ETP
from ecg_text.cli import main
from shared.backbones import HashedNgrams, ResNet1D
from shared.checkpoint import CheckpointError, load_module, read_checkpoint
from shared.trusted import trust
from tabular_imaging import TabularEncoder

CLASSES = {"AF": "atrial fibrillation", "NORM": "normal ECG"}
HPARAMS = {
    "_class_path": "ecg_text.ETP",
    "_instantiator": "pytorch_lightning.cli.instantiate_module",
    "encoder": {"class_path": "shared.backbones.ResNet1D", "init_args": {"width": 4, "layers": [1, 1, 1, 1]}},
    "text_encoder": {"class_path": "shared.backbones.HashedNgrams", "init_args": {"dim": 16}},
    "text_dim": 16,
    "projection_dim": 8,
    "augment": {
        "class_path": "shared.augment.Augment",
        "init_args": {"transforms": [{"class_path": "shared.augment.Scale"}]},
    },
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}},
}
# What the configurations of 9c1148b, and so the `config.yaml` of its runs and the checkpoints beside them, name.
CLASS_PATHS = (
    "ecg_text.CPSC2018DataModule",
    "ecg_text.ETP",
    "ecg_text.PTBXLDataModule",
    "ecg_text.WFDBFolderDataModule",
    "ecg_text.methods.ASTCL",
    "ecg_text.methods.CLOCS",
    "ecg_text.methods.CPC",
    "ecg_text.methods.TSTCC",
    "ecg_text.methods.astcl.Denoise",
    "shared.augment.Augment",
    "shared.augment.BaselineWander",
    "shared.augment.ChannelMask",
    "shared.augment.ImageAugment",
    "shared.augment.Jitter",
    "shared.augment.Permute",
    "shared.augment.Scale",
    "shared.augment.TwoViews",
    "shared.augment.Views",
    "shared.augment.Window",
    "shared.backbones.HashedNgrams",
    "shared.backbones.HuggingFaceText",
    "shared.backbones.ImageEncoder",
    "shared.backbones.ResNet1D",
    "shared.methods.BYOL",
    "shared.methods.BarlowTwins",
    "shared.methods.SimCLR",
    "shared.methods.SimSiam",
    "tabular_imaging.CardiacDataModule",
    "tabular_imaging.DVMCarDataModule",
    "tabular_imaging.ImageTableDataModule",
    "tabular_imaging.MMCL",
    "tabular_imaging.SCARF",
    "shared.methods.Supervised",
    "tabular_imaging.TabularEncoder",
)


@pytest.fixture
def model(tmp_path: Path) -> ETP:
    made = ETP(
        ResNet1D(width=4, layers=[1, 1, 1, 1]),
        HashedNgrams(16),
        text_dim=16,
        projection_dim=8,
        text_cache_dir=str(tmp_path / "text"),
    )
    made.set_classes(CLASSES)
    return made.eval()


@pytest.fixture
def content(model: ETP) -> dict[str, Any]:
    """A checkpoint's content, as a run of the CLI saves it."""
    saved: dict[str, Any] = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.4"}
    model.on_save_checkpoint(saved)
    return saved | {"hyper_parameters": dict(HPARAMS)}


@pytest.fixture
def save(tmp_path: Path, content: dict[str, Any]) -> Callable[..., Path]:
    """Writes the checkpoint with some hyper-parameters changed."""

    def write(**changed: Any) -> Path:
        path = tmp_path / "model.ckpt"
        torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], **changed}}, path)
        return path

    return write


def test_a_checkpoint_alone_gives_the_same_model(model: ETP, save: Callable[..., Path]) -> None:
    loaded = load_module(save(), ETP)
    assert not loaded.training
    assert loaded.class_names == CLASSES
    assert loaded.hparams["projection_dim"] == 8
    assert type(loaded.augment).__name__ == "Augment"
    assert loaded.optimizer([torch.zeros(1, requires_grad=True)]).defaults["lr"] == 0.25
    signal = torch.randn(3, 12, 100)
    assert torch.equal(loaded(signal), model(signal))


def test_without_weights_the_model_is_as_initialised(model: ETP, save: Callable[..., Path]) -> None:
    torch.manual_seed(7)
    loaded = load_module(save(), ETP, weights=False)
    torch.manual_seed(7)
    expected = ResNet1D(width=4, layers=[1, 1, 1, 1]).state_dict()
    for key, value in loaded.model.encoder.state_dict().items():
        assert torch.equal(value, expected[key]), key


class Touch:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_not_run(tmp_path: Path, content: dict[str, Any]) -> None:
    planted, path = tmp_path / "planted", tmp_path / "evil.ckpt"
    for write in (
        lambda: torch.save({**content, "extra": Touch(planted)}, path),
        lambda: path.write_bytes(pickle.dumps(Touch(planted))),
    ):
        write()
        with pytest.raises(CheckpointError) as error:
            load_module(path, ETP)
        assert str(error.value) == (
            f"{path} cannot be loaded as weights and plain values only (UnpicklingError); it is damaged, or "
            "was not written by Quintet"
        )
        assert not planted.exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no checkpoint {}; a run keeps its own in <run>/checkpoints/"),
        (lambda path: path.mkdir(), "no checkpoint {}; a run keeps its own in <run>/checkpoints/"),
        (
            lambda path: path.write_bytes(b"PK\x03\x04 cut short"),
            "{} cannot be loaded as weights and plain values only (RuntimeError); it is damaged, or was not "
            "written by Quintet",
        ),
        (
            lambda path: torch.save({"weight": torch.zeros(2)}, path),
            "{} is not a Quintet checkpoint: it lacks state_dict and hyper_parameters",
        ),
        (
            lambda path: torch.save({"state_dict": {}, "hyper_parameters": ["os.system"]}, path),
            "{} is not a Quintet checkpoint: it lacks state_dict and hyper_parameters",
        ),
    ],
    ids=["missing", "folder", "damaged", "other weights", "no dictionary"],
)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "other.ckpt"
    write(path)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == message.format(path)


def test_a_model_built_in_python_says_how_to_load_it(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["hyper_parameters"]["_class_path"]
    torch.save(content, tmp_path / "python.ckpt")
    with pytest.raises(CheckpointError) as error:
        load_module(tmp_path / "python.ckpt", ETP)
    assert str(error.value) == (
        f"{tmp_path / 'python.ckpt'} was saved by a model built in Python, so it does not say how to rebuild it; use "
        "ETP.load_from_checkpoint(path, encoder=..., ...) with the objects it was built from"
    )


FOREIGN = (
    "os.system",
    "subprocess.Popen",
    "sharedevil.Model",  # starts as ours does
    "ecg_text_evil.ETP",
    "torch.load",
    "ecg_text",
)
NOT_BUILT = (
    "shared.cli.LightningCLI",  # ours, but what it imports is not
    "shared.runs.tracking.RunCSVLogger",  # ours, but it works on files
    "shared.callbacks.PredictionWriter",
    "shared.cli.QuintetCLI",  # would read the command line
    "shared.backbones.text_features",  # no class
    "torch.nn.init.kaiming_normal_",
)


@pytest.fixture
def only_ecg_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has imported no other package."""
    monkeypatch.setattr(shared.trusted, "_packages", {"shared", "ecg_text"})


@pytest.mark.usefixtures("only_ecg_text")
@pytest.mark.parametrize("name", [*FOREIGN, *NOT_BUILT])
def test_only_our_own_modules_are_made(save: Callable[..., Path], name: str) -> None:
    if name in FOREIGN:
        message = (
            f"names the class {name}, which is not loaded: a checkpoint may name classes of ecg_text, shared, "
            "torch.nn, torch.optim, and of other packages of Quintet once they are imported"
        )
    else:
        message = f"names {name}, which is not loaded: it is not a network, optimiser or schedule"
    for changed in (
        {"_class_path": name},
        {"encoder": {"class_path": name}},
        {"augment": {"class_path": "shared.augment.Augment", "init_args": {"transforms": [{"class_path": name}]}}},
    ):
        path = save(**changed)
        with pytest.raises(CheckpointError) as error:
            load_module(path, ETP)
        assert str(error.value) == f"{path} {message}"


@pytest.mark.usefixtures("only_ecg_text")
def test_a_package_is_named_only_after_it_said_so(save: Callable[..., Path]) -> None:
    path = save(encoder={"class_path": "tabular_imaging.TabularEncoder"})
    with pytest.raises(CheckpointError, match=r"names the class tabular_imaging\.TabularEncoder, which is not loaded"):
        load_module(path, pl.LightningModule)
    trust("tabular_imaging")
    assert isinstance(load_module(path, pl.LightningModule, weights=False).encoder, TabularEncoder)


def test_packages_register_without_torch() -> None:
    code = """
import sys
import ecg_text, tabular_imaging
from shared.trusted import trusted_packages
assert trusted_packages() == ("ecg_text", "shared", "tabular_imaging"), trusted_packages()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", CLASS_PATHS)
def test_every_class_that_an_old_run_names_is_still_there(name: str) -> None:
    assert pkgutil.resolve_name(name).__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize(
    "name", ["shared.callbacks.subprocess.Popen", "ecg_text.NoSuchModel", "torch.nn.nothing.Linear"]
)
def test_a_class_that_we_do_not_have_is_named(save: Callable[..., Path], name: str) -> None:
    path = save(encoder={"class_path": name})
    with pytest.raises(CheckpointError) as error:
        load_module(path, ETP)
    assert str(error.value) == f"{path} names the class {name}, which this version of Quintet does not have"


def test_another_class_than_expected_is_named(save: Callable[..., Path]) -> None:
    path = save(_class_path="shared.backbones.ResNet1D")
    with pytest.raises(CheckpointError) as error:
        load_module(path, ETP)
    assert str(error.value) == f"{path} holds a ResNet1D, expected a ETP"


def test_a_mere_string_imports_nothing(save: Callable[..., Path]) -> None:
    sys.modules.pop("this", None)  # jsonargparse would import it, wherever a class is expected
    path = save(encoder="this.s", optimizer="this.s")
    with pytest.raises(CheckpointError, match=r"does not fit this version of ETP \(TypeError: str has no out_dim"):
        load_module(path, ETP)
    assert "this" not in sys.modules


def test_a_checkpoint_does_not_say_where_this_machine_writes(save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(text_cache_dir=str(tmp_path / "planted"))
    loaded = load_module(path, ETP, text_cache_dir=str(tmp_path / "mine"))
    loaded.set_classes({"PVC": "premature beat"})
    assert (tmp_path / "mine").is_dir()
    assert not (tmp_path / "planted").exists()
    assert load_module(path, ETP).text_cache_dir == Path("data/cache/text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("etp"), r"\(KeyError: 'etp'\)"),
        (lambda content: content["state_dict"].popitem(), r"\(RuntimeError: .*Missing key"),
        (
            lambda content: content["hyper_parameters"].update(width=3),
            r"\(TypeError: .*unexpected keyword argument 'width'\)",
        ),
        (lambda content: content["hyper_parameters"].update(projector="cubic"), r"\(ValueError: projector must be"),
    ],
    ids=["own block", "weights", "unknown setting", "bad setting"],
)
def test_an_outdated_checkpoint_is_no_traceback(
    tmp_path: Path, content: dict[str, Any], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change(content)
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(
        CheckpointError, match=rf"(?s)old\.ckpt does not fit this version of ETP {message}.*train it again"
    ):
        load_module(tmp_path / "old.ckpt", ETP)


def test_verbs_turn_the_error_into_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Touch(tmp_path / "planted")))
    with pytest.raises(SystemExit) as error:
        main(["classify", "--checkpoint", str(tmp_path / "evil.ckpt"), "--record", "r"])
    assert str(error.value).startswith(f"error: {tmp_path / 'evil.ckpt'} cannot be loaded as weights")
    assert not (tmp_path / "planted").exists()
