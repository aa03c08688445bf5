"""What the data modules share: batches row by row, train-only statistics, the images' cache, order, bad images."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from shared.data import images as images_module
from shared.data.problems import DataError, Problems
from tabular_imaging.data.module import ImageTableBatch, TabularImagingDataModule
from tabular_imaging.data.schema import ColumnTypes

PX = 8
KINDS = ("2", "10", "30")
HINT = "(on_error: skip would leave it out and list it)"


class Pairs(TabularImagingDataModule):
    """The smallest data module: samples as they are given."""

    def __init__(self, samples: pd.DataFrame, root: Path, target: str | None = "kind", **arguments: Any) -> None:
        super().__init__(
            str(root), PX, 1, "stretch", cache_dir=str(root / "cache"), **{"batch_size": 4, "seed": 5} | arguments
        )
        self.samples, self.target, self.reads = samples, target, 0

    @property
    def target_column(self) -> str | None:
        return self.target

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        self.reads += 1
        return self.samples


@pytest.fixture
def samples(tmp_path: Path) -> pd.DataFrame:
    """30 SYNTHETIC samples: 18 to train, 6 to choose on, 6 to test, with their pictures."""
    rng = np.random.default_rng(0)
    for row in range(30):
        Image.fromarray(rng.integers(0, 256, (PX, PX), dtype=np.uint8)).save(tmp_path / f"{row}.png")
    return pd.DataFrame(
        {
            "id": [f"s{row}" for row in range(30)],
            "image": [str(tmp_path / f"{row}.png") for row in range(30)],
            "split": ["train", "val", "train", "test", "train"] * 6,
            "length": rng.normal(40, 9, 30),
            "colour": rng.choice(["red", "green", "blue"], 30),
            "kind": [int(KINDS[row % 3]) for row in range(30)],
        }
    )


def ready(samples: pd.DataFrame, root: Path, **arguments: Any) -> Pairs:
    module = Pairs(samples, root, **arguments)
    module.prepare_data()
    module.setup()
    return module


def message(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises((DataError, ValueError)) as caught:
        function(*arguments, **named)
    return str(caught.value)


def drawn(loader: DataLoader[ImageTableBatch], epoch: int) -> list[list[int]]:
    loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
    return [batch.row.tolist() for batch in loader]


# --- batches ---


def test_a_batch_holds_the_pictures_pixels_and_the_rows_standardised_values(
    samples: pd.DataFrame, tmp_path: Path
) -> None:
    module = ready(samples, tmp_path)
    train = [value for value, split in zip(samples["length"], samples["split"], strict=True) if split == "train"]
    mean = sum(train) / len(train)
    std = (sum((value - mean) ** 2 for value in train) / len(train)) ** 0.5
    rows: list[int] = []
    for batch in module.predict_dataloader():
        count = len(batch.row)
        assert (batch.image.dtype, batch.image.shape) == (torch.uint8, (count, 1, PX, PX))
        assert (batch.table.dtype, batch.table.shape) == (torch.float32, (count, 2))
        assert (batch.target.dtype, batch.target.shape) == (torch.int64, (count,))
        assert (batch.row.dtype, batch.row.shape) == (torch.int64, (count,))
        for place, row in enumerate(batch.row.tolist()):
            sample = samples.iloc[row]
            np.testing.assert_array_equal(batch.image[place, 0], np.asarray(Image.open(sample["image"])))
            assert batch.table[place, 0].item() == pytest.approx((sample["length"] - mean) / std, abs=1e-6)
            assert ["blue", "green", "red"][int(batch.table[place, 1])] == sample["colour"]
            assert KINDS[batch.target[place]] == str(sample["kind"])
        rows += batch.row.tolist()
    assert rows == list(range(30))


def test_rows_are_gathered_in_the_order_asked_for(samples: pd.DataFrame, tmp_path: Path) -> None:
    module = ready(samples, tmp_path)
    asked = np.array([7, 3, 29, 0, 3])
    batches = list(module.batches(asked, batch_size=2))
    assert [batch.row.tolist() for batch in batches] == [[7, 3], [29, 0], [3]]
    image = torch.cat([batch.image for batch in batches])
    for place, row in enumerate(asked):
        np.testing.assert_array_equal(image[place, 0], np.asarray(Image.open(samples["image"][row])))
    batches[0].image.zero_()  # a batch is a copy: the cache stays
    assert module.array[7].any()


def test_classes_are_in_natural_order_and_a_sample_without_label_is_minus_one(
    samples: pd.DataFrame, tmp_path: Path
) -> None:
    samples.loc[[0, 3], "kind"] = None  # the column is float64 now
    module = ready(samples, tmp_path)
    assert module.classes == list(KINDS)
    expected = [-1 if row in (0, 3) else row % 3 for row in range(30)]
    assert module.target.tolist() == expected
    train = [row for row in range(30) if row % 5 in (0, 2, 4)]
    assert module.rows("train", "pretrain").tolist() == train
    assert module.rows("train", "evaluate").tolist() == train[1:]
    assert module.rows("test", "pretrain").tolist() == [3, 8, 13, 18, 23, 28]
    assert [row for batch in module.test_dataloader() for row in batch.row.tolist()] == [8, 13, 18, 23, 28]
    assert [row for batch in module.val_dataloader() for row in batch.row.tolist()] == [1, 6, 11, 16, 21, 26]


def test_without_a_target_there_is_nothing_to_evaluate_on(samples: pd.DataFrame, tmp_path: Path) -> None:
    module = ready(samples.drop(columns="kind"), tmp_path, target=None)
    assert module.classes == []
    assert module.schema.target is None
    assert set(module.target) == {-1}
    assert len(module.rows("train", "pretrain")) == 18
    assert len(module.rows("train", "evaluate")) == 0


# --- order ---


def test_a_share_of_the_labels_hides_the_others_from_training_alone(samples: pd.DataFrame, tmp_path: Path) -> None:
    whole, half = ready(samples, tmp_path), ready(samples, tmp_path, label_fraction=0.5)
    labelled = half.rows("train", "evaluate")
    assert np.bincount(whole.target[whole.rows("train", "evaluate")]).tolist() == [6, 6, 6]
    assert np.bincount(half.target[labelled]).tolist() == [3, 3, 3]
    assert set(half.rows("train", "pretrain")) == set(whole.rows("train", "evaluate"))  # without labels, they stay
    hidden = np.setdiff1d(half.rows("train", "pretrain"), labelled)
    assert half.target[hidden].tolist() == [-1] * 9
    for split in ("val", "test"):
        np.testing.assert_array_equal(half.rows(split, "evaluate"), whole.rows(split, "evaluate"))
    np.testing.assert_array_equal(half.table, whole.table)
    for fraction in (0.0, 1.5):
        said = message(Pairs, samples, tmp_path, label_fraction=fraction)
        assert said == f"label_fraction must be above 0 and at most 1, got {fraction}"


def test_training_batches_are_shuffled_by_seed_and_epoch_alone(samples: pd.DataFrame, tmp_path: Path) -> None:
    module = ready(samples, tmp_path)
    loader = module.train_dataloader()
    epochs = [drawn(loader, epoch) for epoch in (0, 1)]
    train = module.rows("train", "pretrain")
    for epoch in (0, 1):
        order = train[np.random.default_rng((5, epoch)).permutation(18)]
        assert epochs[epoch] == order[:16].reshape(4, 4).tolist()  # the last 2 do not fill a batch
    torch.manual_seed(99)

    assert drawn(module.train_dataloader(), 1) == epochs[1]
    assert drawn(ready(samples, tmp_path, seed=6).train_dataloader(), 1) != epochs[1]


def test_training_samples_that_do_not_fill_a_batch_are_one(samples: pd.DataFrame, tmp_path: Path) -> None:
    module = ready(samples, tmp_path, batch_size=19)
    assert [len(batch.row) for batch in module.train_dataloader()] == [18]
    assert [len(batch.row) for batch in module.val_dataloader()] == [6]


def test_a_validation_split_of_one_sample_is_refused(samples: pd.DataFrame, tmp_path: Path) -> None:
    samples.loc[samples.index[samples["split"] == "val"][1:], "split"] = "train"
    assert message(ready(samples, tmp_path).val_dataloader) == (
        "the split val needs at least 2 samples, whatever the method; change the split"
    )


# --- the schema and missing values ---


def test_statistics_and_categories_come_from_training_rows_alone(samples: pd.DataFrame, tmp_path: Path) -> None:
    plain = ready(samples, tmp_path).schema
    others = samples.copy()
    others.loc[others["split"] != "train", "length"] = 1e6
    others.loc[others["split"] != "train", "colour"] = "white"
    assert ready(others, tmp_path).schema == plain
    samples.loc[0, "length"] += 1
    assert ready(samples, tmp_path).schema != plain


def test_missing_values_are_imputed_from_training_rows_and_recorded_ones_stay(
    samples: pd.DataFrame, tmp_path: Path
) -> None:
    samples["width"] = 2 * samples["length"] + np.linspace(0, 1, 30)
    full = ready(samples, tmp_path).table
    gappy = samples.copy()
    gappy.loc[3, "length"] = None  # a test row; the width next to it tells it
    gappy.loc[[4, 8], "colour"] = None
    module = ready(gappy, tmp_path)
    assert np.isfinite(module.table).all()
    assert module.schema.names == ("length", "colour", "width")
    changed = module.table != full
    changed[:, 1] = False  # one colour less in the training rows moves no other value
    assert np.argwhere(changed).tolist() == [[3, 0]]
    assert module.table[3, 0] == pytest.approx(full[3, 0], abs=0.1)
    assert set(module.table[[4, 8], 1]) <= {0, 1, 2}
    gappy.loc[[1, 13, 28], ["length", "width"]] = 1e5  # other rows that are not for training
    assert ready(gappy, tmp_path).table[3, 0] == module.table[3, 0]


def test_a_category_that_no_training_row_has_is_listed_and_imputed(samples: pd.DataFrame, tmp_path: Path) -> None:
    samples.loc[[1, 3], "colour"] = ["white", "black"]
    module = ready(samples, tmp_path)
    assert len(module.frame) == 30
    assert set(module.table[[1, 3], 1]) <= {0, 1, 2}
    [unseen] = tmp_path.glob("cache/pairs/*/unseen_values.csv")
    reason = "is none of the training rows' categories (blue, green, red)"
    assert pd.read_csv(unseen).values.tolist() == [
        ["s1", f"column colour: 'white' {reason}"],
        ["s3", f"column colour: 'black' {reason}"],
    ]
    samples.loc[[1, 3], "colour"] = "red"
    ready(samples, tmp_path)
    assert not unseen.exists()


def test_columns_that_say_nothing_are_dropped_with_a_line_each(
    samples: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = samples.assign(empty=np.nan, always=7.5)
    with caplog.at_level(logging.WARNING):
        module = ready(samples, tmp_path)
    assert module.schema.names == ("length", "colour")
    assert caplog.messages == [
        "column empty dropped: no training row has a value",
        "column always dropped: it is 7.5 in every training row",
    ]
    nothing = samples[["id", "image", "split", "kind", "empty", "always"]]
    assert message(ready, nothing, tmp_path) == (
        "no column of the table is left to learn from; dropped: empty (no training row has a value), "
        "always (it is 7.5 in every training row)"
    )


def test_declared_types_come_before_inference(samples: pd.DataFrame, tmp_path: Path) -> None:
    types = ColumnTypes(ignored=["len*"], morphometric=["colour"])
    schema = ready(samples, tmp_path, columns=types).schema
    assert schema.names == ("colour",)
    assert schema.morphometric == (True,)


def test_a_class_without_a_training_sample_is_refused_or_listed_and_not_evaluated_on(
    samples: pd.DataFrame, tmp_path: Path
) -> None:
    samples.loc[3, "kind"] = 77
    reason = "kind 77 has no training sample; the sample counts as unlabelled"
    assert message(ready, samples, tmp_path) == f"s3: {reason} {HINT}"
    module = ready(samples, tmp_path, on_error="skip")
    assert module.classes == list(KINDS)
    assert module.target[3] == -1
    [listed] = tmp_path.glob("cache/pairs/*/skipped.csv")
    assert pd.read_csv(listed).values.tolist() == [["s3", reason]]


# --- images ---


def spoil(path: Path) -> dict[int, str]:
    """Four pictures that cannot be used, and why, by row."""
    (path / "1.png").unlink()
    (path / "2.png").write_bytes(b"not a picture")
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path / "3.png", format="JPEG")
    whole = (path / "3.png").read_bytes()
    (path / "3.png").write_bytes(whole[: len(whole) // 2])
    (path / "4.png").write_bytes(b"")
    return {
        1: f"no image file {path / '1.png'}",
        2: f"{path / '2.png'} is not an image of a format that Pillow reads",
        3: f"{path / '3.png'} cannot be decoded, it may be truncated or damaged (image file is truncated",
        4: f"{path / '4.png'} is not an image of a format that Pillow reads",
    }


def test_a_picture_that_cannot_be_used_stops_with_its_sample_and_reason(samples: pd.DataFrame, tmp_path: Path) -> None:
    for row, reason in spoil(tmp_path).items():
        said = message(ready, samples[samples.index.isin([0, row, 5, 6, 7])], tmp_path)
        assert said.startswith(f"s{row}: {reason}")
        assert said.endswith(HINT)


def test_pictures_that_cannot_be_used_are_skipped_and_listed_and_the_others_stay_in_step(
    samples: pd.DataFrame, tmp_path: Path
) -> None:
    reasons = spoil(tmp_path)
    module = ready(samples, tmp_path, on_error="skip")
    kept = samples.drop(index=list(reasons)).reset_index(drop=True)
    pd.testing.assert_frame_equal(module.frame, kept)
    for batch in module.predict_dataloader():
        for place, row in enumerate(batch.row.tolist()):
            np.testing.assert_array_equal(batch.image[place, 0], np.asarray(Image.open(kept["image"][row])))
            assert KINDS[batch.target[place]] == str(kept["kind"][row])
    [listed] = tmp_path.glob("cache/pairs/*/skipped.csv")
    found = pd.read_csv(listed)
    assert found["item"].tolist() == [f"s{row}" for row in reasons]
    assert all(said.startswith(reason) for said, reason in zip(found["reason"], reasons.values(), strict=True))
    ready(samples, tmp_path, on_error="skip")  # the list is there after a run that reads nothing anew, too
    assert pd.read_csv(listed).equals(found)


def test_a_cache_is_read_once_and_built_anew_when_a_picture_changes(
    samples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = images_module.load_image

    def counted(source: images_module.ImageSource) -> Any:
        read.append(Path(source.path).name)
        return load(source)

    monkeypatch.setattr(images_module, "load_image", counted)
    first = ready(samples, tmp_path)
    assert len(read) == 30
    assert first.reads == 1  # setup uses what prepare_data has read
    first.setup()
    ready(samples.assign(length=1.0 + np.arange(30)), tmp_path)  # the table is no part of the cache
    assert len(read) == 30
    picture = Path(samples["image"][4])
    Image.fromarray(np.full((PX, PX), 200, np.uint8)).save(picture)
    os.utime(picture, ns=(1, 1))
    module = ready(samples, tmp_path)
    assert len(read) == 60
    assert (module.array[4] == 200).all()


def test_a_process_that_did_not_prepare_reads_for_itself(samples: pd.DataFrame, tmp_path: Path) -> None:
    prepared = ready(samples, tmp_path)
    other = Pairs(samples, tmp_path)
    other.setup()
    np.testing.assert_array_equal(other.table, prepared.table)
    np.testing.assert_array_equal(other.array, prepared.array)


# --- nothing to learn from ---


def test_no_folder_no_sample_and_no_training_sample_are_refused(samples: pd.DataFrame, tmp_path: Path) -> None:
    assert message(ready, samples, tmp_path / "nowhere") == (
        f"no folder {tmp_path / 'nowhere'}: pass the data set's root as --data.init_args.root (make: DATA=...)"
    )
    assert message(ready, samples[:0], tmp_path) == f"no sample found for Pairs under {tmp_path} (no sample skipped)"
    (tmp_path / "0.png").unlink()
    only = samples[samples["split"].ne("train") | samples.index.isin([0])]
    assert message(ready, only, tmp_path, on_error="skip") == (
        f"no training sample is left under {tmp_path} (1 sample skipped: s0 (no image file {tmp_path / '0.png'}))"
    )
