"""`embed` on a few drawn images: shards that go on, images that fail or show nothing, FITS, a GPU, what is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from PIL import Image
from torch import nn

from galaxy_clusters.cli import main
from galaxy_clusters.data.fits import Stretch, SurveyImage, load_survey_image
from galaxy_clusters.data.module import Look
from galaxy_clusters.data.source import read_source
from galaxy_clusters.evaluation import representation
from galaxy_clusters.evaluation.representation import oriented, trained, untrained
from galaxy_clusters.model.features import image_features
from galaxy_clusters.module import GalaxyVotes
from shared.data.embeddings import read_embeddings
from shared.data.images import ImageSettings
from shared.data.problems import DataError

IDS = [f"10000000000000000{number}" for number in range(6)]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Six images of noise."""
    rng = np.random.default_rng(0)
    for galaxy in IDS:
        Image.fromarray(rng.integers(256, size=(40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{galaxy}.png")
    path = tmp_path / "catalogue.csv"
    pd.DataFrame({"id_str": IDS, "file_loc": [f"{galaxy}.png" for galaxy in IDS]}).to_csv(path, index=False)
    return path


def words(catalogue: Path, folder: str = "embeddings", *more: str, image_px: int = 32) -> list[str]:
    output = str(catalogue.parent / folder)
    return ["embed", "--catalogue", str(catalogue), "--image_px", str(image_px), "--output", output, *more]


def said(*arguments: str) -> str:
    """What a refused call says."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return str(caught.value)


def shards(folder: Path) -> dict[str, int]:
    """The time of each shard."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.parquet"))}


def break_image(catalogue: Path, galaxy: str) -> None:
    path = catalogue.parent / f"{galaxy}.png"
    path.write_bytes(path.read_bytes()[:200])


def test_embeddings_do_not_depend_on_shards_and_go_on_after_a_kill(catalogue: Path) -> None:
    folder = main(words(catalogue, "shards", "--shard_rows", "2"))
    one, other = read_embeddings(main(words(catalogue))), read_embeddings(folder)
    assert one.ids.tolist() == other.ids.tolist() == IDS
    assert np.array_equal(one.values, other.values)
    before = shards(folder)
    assert list(before) == [f"part_0000{number}_of_00003.parquet" for number in range(3)]
    killed = folder / "part_00001_of_00003.parquet"
    content = killed.read_bytes()
    killed.unlink()
    (folder / "source.json").unlink()
    for job in ("1", "0"):  # as the tasks of a job array, of which the first says where the galaxies come from
        main(words(catalogue, "shards", "--shard_rows", "2", "--job", job, "--jobs", "2"))
        assert (folder / "source.json").is_file() == (job == "0")
    assert killed.read_bytes() == content
    assert [name for name, time in shards(folder).items() if time != before[name]] == [killed.name]
    assert "holds embeddings of another model (features 104 32px " in said(
        *words(catalogue, "shards", "--shard_rows", "2", image_px=24)
    )


def test_a_folder_is_of_one_catalogue(catalogue: Path) -> None:
    frame = pd.read_csv(catalogue, dtype=str)
    folder = main(words(catalogue, "e", "--shard_rows", "2"))
    before = shards(folder)
    frame.iloc[[0, 1, 2, 4, 5]].to_csv(catalogue, index=False)  # the fourth galaxy is gone
    main(words(catalogue, "e", "--shard_rows", "2"))
    assert read_embeddings(folder).ids.tolist() == [*IDS[:3], *IDS[4:]]
    assert [time == before[name] for name, time in shards(folder).items()] == [True, False, False]

    refused = f"error: {folder} holds embeddings in 3 shards, not in 5: give a new folder"
    assert said(*words(catalogue, "e", "--shard_rows", "1")) == refused
    frame.iloc[::-1].iloc[[3, 0, 4, 1, 5, 2]].to_csv(catalogue, index=False)
    refused = f"error: {folder} holds embeddings of other samples: give a new folder"
    assert said(*words(catalogue, "e", "--shard_rows", "2")) == refused

    frame.to_csv(catalogue, index=False)
    main(words(catalogue, "e", "--shard_rows", "2", "--half", "true"))
    stored = [pd.read_parquet(path)["embedding"].iloc[0].dtype for path in sorted(folder.glob("*.parquet"))]
    assert stored == [np.float16] * 3


def test_an_image_that_cannot_be_read_is_listed_whichever_call_met_it(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for galaxy in IDS[:3]:  # all of the first shard
        break_image(catalogue, galaxy)
    folder = main(words(catalogue, "e", "--shard_rows", "2"))
    for _ in range(2):
        assert f"embeddings of 3 galaxies are in {folder}, 3 images skipped: {IDS[0]} (" in capsys.readouterr().out
        skipped = pd.read_csv(folder / "skipped.csv", dtype=str)
        assert skipped["item"].tolist() == IDS[:3]
        assert skipped["reason"].str.contains("cannot be decoded").all()
        main(words(catalogue, "e", "--shard_rows", "2"))
    empty = read_embeddings(folder / "part_00000_of_00003.parquet")
    assert empty.values.shape == (0, 104)
    found = read_embeddings(folder)
    assert found.ids.tolist() == IDS[3:]
    assert found.table["fault"].tolist() == [""] * 3
    for job, own in (("0", IDS[:2]), ("1", [IDS[2]])):  # in a job array, each task lists its own
        main(words(catalogue, "array", "--shard_rows", "2", "--job", job, "--jobs", "2"))
        listed = catalogue.parent / "array" / f"skipped_0000{job}.csv"
        assert pd.read_csv(listed, dtype=str)["item"].tolist() == own
    error = r"error: {}: .* cannot be decoded, .* \(on_error: skip would leave it out and list it\)"
    strict = ["--shard_rows", "2", "--on_error", "raise"]
    assert re.fullmatch(error.format(IDS[0]), said(*words(catalogue, "new", *strict)))
    array = words(catalogue, "array", *strict, "--job", "1", "--jobs", "2")  # its shard is there, without an image
    assert re.fullmatch(error.format(IDS[2]), said(*array))


def test_a_wrong_root_is_an_error_that_can_be_mended_in_the_same_folder(catalogue: Path) -> None:
    wrong = catalogue.parent / "elsewhere"
    wrong.mkdir()
    assert said(*words(catalogue, "e", "--root", str(wrong))) == (
        f"error: none of the 6 images of {catalogue} could be read, the first is that of {IDS[0]}: no image file "
        f"{wrong / IDS[0]}.png"
    )
    assert len(pd.read_csv(catalogue.parent / "e" / "skipped.csv")) == 6
    folder = main(words(catalogue, "e"))
    assert read_embeddings(folder).ids.tolist() == IDS
    assert not (folder / "skipped.csv").exists()


def test_what_is_wrong_with_an_image_stands_beside_its_vector(catalogue: Path) -> None:
    pixels = np.asarray(Image.open(catalogue.parent / f"{IDS[2]}.png")).copy()
    Image.new("RGB", (40, 40)).save(catalogue.parent / f"{IDS[1]}.png")
    pixels[:, :20] = 0
    Image.fromarray(pixels).save(catalogue.parent / f"{IDS[2]}.png")
    found = read_embeddings(main(words(catalogue, "e", "--batch_size", "2")))
    assert found.table["fault"].tolist() == ["", "blank, near_constant, masked", "masked", "", "", ""]
    assert found.ids.tolist() == IDS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "3"], "views must be 1 or 8, all quarter turns and mirror images, got 3"),
        (["--views", "3", "--checkpoint", "c"], "views must be 1 or 8, all quarter turns and mirror images, got 3"),
        (["--views", "8"], "without training, the numbers are the same in all orientations: leave out views"),
        (["--image_px", "8"], "image_px must be at least 16, got 8"),
        (["--bands", "[0, 1]"], "bands must name 1 or 3 planes or extensions, got 2"),
        (
            ["--hdu", "SCI", "--checkpoint", "c"],
            "with a checkpoint, images are prepared as in its training: leave out stretch, hdu and bands",
        ),
        (["--shard_rows", "0"], "shard_rows must be at least 1, got 0"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--job", "2", "--jobs", "2"], "job must be from 0 to 1, got 2"),
        (["--control", "wide"], "without a checkpoint there is no encoder to compare: leave out --control wide"),
    ],
)
def test_options_are_checked_before_any_work(catalogue: Path, options: list[str], message: str) -> None:
    assert said(*words(catalogue, "e"), *options) == f"error: {message}"
    assert not (catalogue.parent / "e").exists()


def test_fits_images_are_embedded_without_a_checkpoint(catalogue: Path) -> None:
    frame = pd.read_csv(catalogue, dtype=str)
    frame["file_loc"] = [f"{galaxy}.fits" for galaxy in IDS]
    rng = np.random.default_rng(1)
    for name in frame["file_loc"]:
        cube = fits.ImageHDU(rng.random((3, 40, 40), np.float32), name="SCI")
        fits.HDUList([fits.PrimaryHDU(rng.random((40, 40))), cube]).writeto(catalogue.parent / name)
    frame.to_csv(catalogue, index=False)
    assert said(*words(catalogue, "none")).endswith(
        f"{IDS[0]}.fits holds fluxes, which need a stretch: asinh or lupton, with low and high"
    )
    stretch = ["--stretch.kind", "lupton", "--stretch.low", "0", "--stretch.high", "2", "--hdu", "SCI"]
    folder = main([*words(catalogue, "e"), *stretch, "--bands", "[2, 1, 0]"])
    settings = ImageSettings(32, 3, "crop")
    images = [
        load_survey_image(
            SurveyImage(str(catalogue.parent / name), settings, Stretch("lupton", 0, 2), "SCI", (2, 1, 0))
        )
        for name in frame["file_loc"]
    ]
    expected = image_features(torch.from_numpy(np.stack(images))).numpy()
    assert np.array_equal(read_embeddings(folder).values, expected)
    kept = read_source(folder)
    assert kept is not None
    assert (kept[1].stretch, kept[1].hdu, kept[1].bands) == (Stretch("lupton", 0, 2), "SCI", [2, 1, 0])
    assert "holds embeddings of another model" in said(*words(catalogue, "e"), *stretch, "--bands", "[0, 1, 2]")
    one = main([*words(catalogue, "one"), *stretch, "--bands", "[1]"])
    assert read_embeddings(one).values.shape[1] == len(image_features(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))[0])


class Means(nn.Module):
    """The means of the channels."""

    out_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3)) / 255 * self.scale


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch) -> GalaxyVotes:
    """The model that every checkpoint holds."""
    torch.manual_seed(0)
    model = GalaxyVotes(Means(), nn.Identity())
    monkeypatch.setattr(representation, "load_module", lambda *_, **__: model)
    return model


def test_vectors_of_a_trained_encoder_have_its_width_also_in_a_shard_without_images(
    catalogue: Path, votes: GalaxyVotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Look, "of", lambda checkpoint: Look(ImageSettings(32, fit="crop")))
    for galaxy in IDS[2:4]:
        break_image(catalogue, galaxy)
    folder = main(words(catalogue, "e", "--shard_rows", "2", "--views", "8", "--checkpoint", "any"))
    assert read_embeddings(folder / "part_00001_of_00003.parquet").values.shape == (0, 3)
    found = read_embeddings(folder)
    assert found.ids.tolist() == [*IDS[:2], *IDS[4:]]
    shares = found.table.filter(like="_fraction")
    with torch.inference_mode():
        expected = votes.eval().fractions(torch.from_numpy(found.values))
    assert list(shares) == [f"{column}_fraction" for column in votes.schema.columns]
    np.testing.assert_allclose(shares.to_numpy(), expected.numpy(), rtol=1e-6)


def test_a_gpu_is_used_where_there_is_one_and_vectors_come_back(
    votes: GalaxyVotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def record(self: torch.Tensor | nn.Module, device: torch.device) -> torch.Tensor | nn.Module:
        asked.append(f"{type(self).__name__} {device}")
        return self

    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", record)
    monkeypatch.setattr(nn.Module, "to", record)
    monkeypatch.setattr(GalaxyVotes, "to", record)
    made = trained(Path("any"))
    assert made.fractions is not None
    made.fractions(made.embed(images))
    assert asked == ["GalaxyVotes cuda", "Tensor cuda", "Tensor cuda"]
    asked.clear()
    monkeypatch.setattr(representation, "image_features", lambda images: images)
    untrained().embed(images)
    assert asked == ["Tensor cuda"]


def test_controls_turn_the_images_and_refuse_an_encoder_without_a_bottleneck(votes: GalaxyVotes) -> None:
    class Corner(Means):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, 0, 0].float()

    votes.encoder = Corner()
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    plain, turned = trained(Path("any")), trained(Path("any"), control="turned")
    assert torch.equal(plain.embed(images), images[:, :, 0, 0].float())
    assert torch.equal(turned.embed(images), images[:, :, 0, -1].float())  # the other corner of the top
    assert turned.name == f"{plain.name} turned"
    assert turned.columns == plain.columns
    with pytest.raises(DataError, match=r"^the encoder of any has no bottleneck: leave out --control wide$"):
        trained(Path("any"), control="wide")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_vectors_of_a_gpu_are_those_of_the_cpu(votes: GalaxyVotes) -> None:
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    found = untrained().embed(images)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, image_features(images), rtol=1e-4, atol=1e-5)
    made = trained(Path("any"), 8)
    vectors = made.embed(images)
    torch.testing.assert_close(vectors, images.float().mean((2, 3)) / 255, rtol=1e-5, atol=1e-6)
    assert made.fractions is not None
    assert made.fractions(vectors).device.type == "cpu"


def test_training_free_numbers_do_not_depend_on_the_orientation() -> None:
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    found = [untrained().embed(view) for view in oriented(images, 8)]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="views must be 1 or 8, all quarter turns and mirror images, got 4"):
        oriented(images, 4)
