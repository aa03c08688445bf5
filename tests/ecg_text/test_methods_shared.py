"""The shared self-supervised methods through `python -m ecg_text fit`, with the shipped configurations made small."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ecg_text.cli import main
from shared.checkpoint import load_module, read_checkpoint
from shared.methods import BYOL, BarlowTwins, Pretraining, SimCLR, SimSiam

SMALL: dict[str, tuple[type[Pretraining], dict[str, int]]] = {
    "simclr": (SimCLR, {"projection_dim": 16}),
    "byol": (BYOL, {"projection_dim": 16, "hidden_dim": 32}),
    "simsiam": (SimSiam, {"projection_dim": 32, "predictor_hidden_dim": 16}),
    "barlow_twins": (BarlowTwins, {"projection_dim": 32}),
}
Arguments = Callable[..., list[str]]


@pytest.fixture(scope="module")
def arguments(command_line: Arguments) -> Arguments:
    """Of `main`: a method on the SYNTHETIC set, its encoder and heads made narrow."""

    def build(method: str, runs: Path, *more: str) -> list[str]:
        heads = [part for name, value in SMALL[method][1].items() for part in (f"--model.init_args.{name}", str(value))]
        return command_line("fit", runs, *heads, *more, method=method)

    return build


@pytest.fixture(scope="module")
def trained(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a method's run of 2 epochs; each method is trained once. SimSiam has an offline W&B run too."""

    @cache
    def fit(method: str) -> Path:
        more = ["--run.wandb", "offline"] if method == "simsiam" else []
        run: Path = main(arguments(method, tmp_path_factory.mktemp("runs"), *more)).run_dir
        return run

    return fit


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / f"{name}.ckpt")["state_dict"]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("method", SMALL)
def test_a_method_trains_and_its_checkpoint_rebuilds_it(method: str, trained: Callable[[str], Path]) -> None:
    run = trained(method)
    assert run.parts[-4:] == ("ecg_text", "ptbxl_synthetic", method, "seed_0")
    metrics = pd.read_csv(run / "metrics.csv")
    for column in ("train/loss", "val/loss", "train/feature_std", "val/feature_std"):
        values = metrics[column].dropna()
        assert len(values) == 2
        assert values.between(-1.0, 1e3).all()
    assert json.loads((run / "results.json").read_text())["fit/epochs"] == 2

    cls, small = SMALL[method]
    net = load_module(run / "checkpoints" / "last.ckpt", cls)
    assert small.items() <= net.hparams.items()
    last = weights(run, "last")
    assert all(torch.equal(value, last[name]) for name, value in net.state_dict().items())
    assert net(torch.randn(2, 12, 1000)).shape == (2, 64)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol", "simsiam"])
def test_without_a_monitor_the_last_epoch_is_the_one_kept(method: str, trained: Callable[[str], Path]) -> None:
    run = trained(method)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    best, last = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 1
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())
    assert not [name for name in json.loads((run / "results.json").read_text()) if name.startswith("fit/best")]


@pytest.mark.slow
def test_without_a_monitor_wandb_summarises_by_the_last_value(
    trained: Callable[[str], Path], read_offline_run: Callable[[Path], Any]
) -> None:
    run = trained("simsiam")
    summary = read_offline_run(run)[0]["summary"]
    assert summary["val/loss"] == pytest.approx(pd.read_csv(run / "metrics.csv")["val/loss"].dropna().iloc[-1])


@pytest.mark.slow
def test_an_interrupted_byol_typed_again_ends_as_the_uninterrupted_one(
    arguments: Arguments,
    trained: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = trained("byol")

    def kill(self: BYOL) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(BYOL, "on_train_epoch_start", kill)
        with pytest.raises(RuntimeError, match=r"^killed$"):
            main(arguments("byol", tmp_path))
    run = tmp_path / "ecg_text" / "ptbxl_synthetic" / "byol" / "seed_0"
    assert read_checkpoint(run / "checkpoints" / "best.ckpt")["epoch"] == 0
    halfway = weights(run, "last")
    main(arguments("byol", tmp_path))
    assert f"resuming {run} from its last finished epoch" in capsys.readouterr().out
    for name in ("best", "last"):
        resumed, expected = weights(run, name), weights(whole, name)
        assert max(float((resumed[key].double() - expected[key].double()).abs().max()) for key in expected) == 0.0
    assert not torch.equal(halfway["target.0.stem.0.weight"], expected["target.0.stem.0.weight"])
    assert {path.name for path in run.rglob("*")} == {path.name for path in whole.rglob("*")}
