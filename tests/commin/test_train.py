"""Whole commands: three trainings, their evaluation, the table over folds, and a picture that is sent."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from commin.cli import main
from commin.data.synthetic import write_synthetic
from commin.evaluation.figures import SENT
from commin.evaluation.models import LINEAR, MEAN_FACE, NEAREST
from commin.evaluation.tables import CONFIGS
from commin.module import CommIN
from commin.noise import image_keys
from commin.receivers import transmit
from commin.verbs import pipelines
from shared.checkpoint import CheckpointError, load_module
from shared.runs.scores import Scores
from tests.recorded import record

SMALL = ["--trainer.max_epochs", "2", "--run.wandb", "disabled", "--trainer.enable_progress_bar", "false"]
JSCC = {"width": "8"}
PRIOR = {"width": "16", "multipliers": "[1]", "attention": "[false]"}
RUNS = Path("runs/commin/commin_synthetic")


def fit(method: str, root: Path, *more: str) -> None:
    """A short training of small networks."""
    nets = {"jscc": {"net": JSCC}, "diffusion": {"net": PRIOR}, "commin": {"jscc": JSCC, "prior": PRIOR}}[method]
    words = [word for file in CONFIGS.stack(method, "synthetic", "demo") for word in ("--config", str(file))]
    for net, arguments in nets.items():
        for name, value in arguments.items():
            words += [f"--model.init_args.{net}.init_args.{name}", value]
    if method == "commin":
        words += ["--model.init_args.inn.init_args.width", "8"]
        for net, variant in (("jscc", "jscc"), ("prior", "diffusion")):
            place = RUNS / variant / "seed_{seed}" / "checkpoints" / "best.ckpt"
            words += [f"--model.init_args.{net}.init_args.weights", str(place)]
    main(["fit", *words, "--data.init_args.root", str(root), *SMALL, *more])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the set and the three trainings; the working directory of the module's tests."""
    folder = tmp_path_factory.mktemp("commin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_synthetic(folder / "set", persons=12, per_person=4)
        for method in ("jscc", "diffusion", "commin"):
            fit(method, folder / "set")
        yield folder


def evaluate(*more: str) -> pd.DataFrame:
    settings = ["--settings.images", "6", "--settings.snrs", "[-5, 5]", "--wandb", "disabled"]
    table: pd.DataFrame = main(["evaluate", "--run", str(RUNS / "commin"), *settings, *more])
    return table


def test_everything_is_received_at_every_snr_and_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = evaluate("--settings.receivers", "[commin, unguided]")
    rows = {"CommIN", "Unguided, same start", "DeepJSCC", NEAREST, MEAN_FACE, SENT, LINEAR}
    assert set(table["method"]) >= rows
    assert set(table["title"]) == {"-5 dB", "5 dB"}
    of_sent = table[table["method"] == SENT].set_index("metric")["value"]
    assert (of_sent["ssim"] > 0.9999).all()
    psnr = table[table["metric"] == "psnr"].set_index(["method", "title"])["value"]
    assert psnr[LINEAR, "5 dB"] > psnr[LINEAR, "-5 dB"]
    assert psnr["DeepJSCC", "5 dB"] == pytest.approx(jscc_psnr(home, 5.0), abs=1e-3)
    printed = " ".join(capsys.readouterr().out.split())
    assert "SYNTHETIC DATA" in printed
    assert "LPIPS: not measured" in printed
    figures = {path.name for path in (RUNS / "commin" / "seed_0" / "figures").iterdir()}
    assert figures >= {f"commin_synthetic_{name}.png" for name in ("curves", "images_-5dB", "parts")}


def jscc_psnr(home: Path, snr: float) -> float:
    """Mean PSNR in dB of the received test images, transcribed."""
    scores = Scores.read(RUNS / "commin" / "evaluation" / "commin_synthetic")
    model = load_module(RUNS / "commin" / "seed_0" / "checkpoints" / "best.ckpt", CommIN)
    pixels = np.stack([np.asarray(Image.open(home / "set" / name).convert("RGB")) for name in scores.samples])
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    received = transmit(model.jscc, image, image_keys(scores.samples), torch.full((len(image),), snr), 0)
    y = np.rint(np.clip((received.y.numpy().astype(np.float64) + 1) * 127.5, 0, 255))
    errors = ((y - image.numpy()) ** 2).reshape(len(y), -1).mean(1)
    return float((10 * np.log10(255**2 / errors)).mean())


def test_a_killed_evaluation_goes_on_to_the_same_bytes(home: Path) -> None:
    evaluate("--settings.receivers", "[commin]", "--settings.batch", "5")
    kept = sorted((RUNS / "commin" / "seed_0" / "received").glob("*_5.npz"))
    before = {path: path.read_bytes() for path in kept}
    again = evaluate("--settings.receivers", "[commin]", "--settings.batch", "5")
    kept[-1].unlink()  # as if the call had been killed before it
    after = evaluate("--settings.receivers", "[commin]", "--settings.batch", "5")
    with np.load(kept[-1]) as made:
        image = made["image"]
    kept[-1].write_bytes(before[kept[-1]])
    with np.load(kept[-1]) as made:
        assert np.array_equal(image, made["image"])
    values = ["protocol", "method", "metric", "value"]
    is_time = again["metric"] == "seconds"
    pd.testing.assert_frame_equal(again.loc[~is_time, values], after.loc[~is_time, values])


def test_an_inn_beside_another_encoder_is_refused(home: Path) -> None:
    path = RUNS / "commin" / "seed_0" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    name = next(key for key in content["state_dict"] if key.startswith("jscc."))
    content["state_dict"][name] = content["state_dict"][name] + 1
    torch.save(content, home / "other.ckpt")
    with pytest.raises(CheckpointError, match="this INN was trained for another encoder and decoder"):
        load_module(home / "other.ckpt", CommIN)


def test_the_table_joins_folds_and_says_what_the_paper_says(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("--settings.receivers", "[commin]")
    capsys.readouterr()
    figure4 = str(CONFIGS.folder / "tables" / "figure4.yaml")
    table = main(["table", "--table", figure4, "--run", str(RUNS / "commin"), "--results", "rows.csv"])
    one = table[(table["method"] == "DeepJSCC") & (table["metric"] == "psnr") & (table["title"] == "5 dB")].iloc[0]
    assert one["samples"] == 6
    printed = " ".join(capsys.readouterr().out.split())
    assert "not measured" in printed  # of InverseJSCC
    rows = pd.read_csv("rows.csv")
    assert {"config", "hardware", "torch", "seeds", "data_kind"} <= set(rows.columns)
    assert rows["data_kind"].unique().tolist() == ["synthetic"]


def test_a_picture_is_sent_drawn_and_called_unlike(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(np.kron(noise[:3, :2], np.ones((16, 20, 1), np.uint8))).save(home / "blocks.png")
    checkpoint = str(RUNS / "commin" / "seed_0" / "checkpoints" / "best.ckpt")
    words = ["transmit", "--checkpoint", checkpoint, "--output", "sent"]
    table = main([*words, "--image", str(home / "blocks.png"), "--snr", "[-5, 5]"])
    assert table[["snr_db", "method"]].to_numpy().tolist() == [
        [-5.0, "DeepJSCC"],
        [-5.0, "CommIN"],
        [5.0, "DeepJSCC"],
        [5.0, "CommIN"],
    ]
    assert (home / "sent" / "blocks.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "32 x 32 pixels in 16 complex symbols each, rho 0.0052" in printed
    assert "blocks.png is unlike the training images" in printed
    tiled = main([*words, "--image", str(home / "blocks.png"), "--snr", "[5]", "--tile", "true"])
    assert "4 tiles of 32 x 32 pixels" in capsys.readouterr().out
    assert len(tiled) == 2
    (home / "empty").mkdir()
    with pytest.raises(SystemExit, match="no picture in"):
        main([*words, "--image", str(home / "empty")])
    with pytest.raises(SystemExit, match="nan"):
        main([*words, "--image", str(home / "blocks.png"), "--snr", "[.nan]"])


def test_train_starts_the_inn_from_the_other_two_and_folds_are_kept_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    called = record(monkeypatch, pipelines)
    main(["train", "--profile", "demo"])
    fits = [words for verb, words in called if verb == "fit"]
    assert [words[0] for words in fits] == [f"{RUNS}/{name}/seed_0" for name in ("jscc", "diffusion", "commin")]
    flags = dict(zip(fits[2], fits[2][1:], strict=False))
    weights = {net: flags[f"--model.init_args.{net}.init_args.weights"] for net in ("jscc", "prior")}
    assert weights == {
        net: f"{RUNS}/{variant}/seed_{{seed}}/checkpoints/best.ckpt"
        for net, variant in (("jscc", "jscc"), ("prior", "diffusion"))
    }
    called.clear()
    main(["reproduce", "--profile", "demo", "--dataset", "faces", "--root", str(tmp_path)])
    assert folds_of(called) == [f"commin_fold{fold}" for fold in range(5)]
    assert [verb for verb, _ in called][-2:] == ["print_table", "compare"]
    first, others = [words for verb, words in called if verb == "evaluate"][:2]
    assert "untrained" in first[first.index("--settings.receivers") + 1]
    # What is an INN's receiver is none of a plain network's.
    assert others[others.index("--settings.receivers") + 1] == "[commin]"


def folds_of(called: list[tuple[str, list[str]]]) -> list[str]:
    """The variants of CommIN itself that were trained."""
    names = [Path(words[0]).parent.name for verb, words in called if verb == "fit"]
    return [name for name in names if name.startswith("commin_fold")]
