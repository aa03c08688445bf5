"""The picture of the augmentations."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import shared.augment
from ecg_text.evaluation.figures import Panel, draw_augmentations
from ecg_text.verbs import augmentations as views
from shared.data.problems import DataError


def test_the_verb_draws_a_synthetic_record_and_says_so(
    synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        views, "draw_augmentations", lambda *inputs: drawn.append(inputs) or draw_augmentations(*inputs)
    )
    state = torch.random.get_rng_state()
    record = synthetic_root / "records100" / "00000" / "00007_lr"
    path = views.augmentations(record, tmp_path / "out")
    assert path == tmp_path / "out" / "figures" / "augmentations.png"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert capsys.readouterr().out == f"wrote {path}\n"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 50  # there is something on it
    assert torch.equal(torch.random.get_rng_state(), state)

    views.augmentations(record, tmp_path / "out")
    views.augmentations(record, tmp_path / "out", seed=1)
    (signal, panels, leads, rate, title), (_, again, *_), (_, other, *_) = drawn
    assert title == "Augmentations (blue) of SYNTHETIC record 00007_lr (grey)"
    assert (leads, rate) == (("I", "II", "V1"), 500)
    np.testing.assert_allclose(signal.std(1), 1, rtol=1e-3)
    assert all(np.array_equal(a.signal, b.signal) for a, b in zip(panels, again, strict=True))
    differ = [a.name for a, b in zip(panels, other, strict=True) if not np.array_equal(a.signal, b.signal)]
    assert len(differ) == len(panels) - 2, differ  # the original and the certain inversion are the same
    assert all(not np.array_equal(panel.signal, signal) for panel in panels[1:] if panel.name[:7] != "Channel")


def test_every_augmentation_has_a_panel() -> None:
    made = {
        name
        for name, item in vars(shared.augment).items()
        if isinstance(item, type) and item.__module__ == "shared.augment.signals"
    }
    assert {type(augmentation).__name__ for augmentation, _ in views.SHOWN} == made


def test_a_record_of_another_folder_is_not_called_synthetic(
    write_record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr(views, "draw_augmentations", lambda *inputs: titles.append(inputs[-1]))
    monkeypatch.setattr(views, "save_figure", lambda figure, output, name: output / name)
    digital = np.random.default_rng(0).integers(-500, 500, (12, 1000))
    write_record(tmp_path / "mine" / "a", digital)
    views.augmentations(tmp_path / "mine" / "a.hea", tmp_path)
    assert titles == ["Augmentations (blue) of record a (grey)"]


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    message = f"no file {tmp_path}/no.hea (a WFDB record is a .hea header beside its signal file)"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        views.augmentations(tmp_path / "no", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_panel_shows_its_seconds_of_both_signals_and_spare_axes_are_hidden() -> None:
    signal = np.arange(20.0)[None].repeat(2, 0)
    panels = [Panel("Half(x=1)", signal[:, :5] + 1, 2), *[Panel("All", signal, 1)] * 3]
    figure = draw_augmentations(signal, panels, ("I", "II"), sampling_rate=10, title="Title")
    first = figure.axes[0]
    lines = [line.get_xydata() for line in first.get_lines()]
    assert [len(line) for line in lines] == [20, 20, 5, 5]
    np.testing.assert_allclose(lines[2], np.stack([np.arange(5) / 10, np.arange(5) + 1], 1))
    assert first.get_title(loc="left") == "Half"
    assert [text.get_text() for text in first.texts] == ["x=1"]
    assert [len(line.get_xydata()) for line in figure.axes[1].get_lines()] == [10] * 4
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2
    assert figure.get_suptitle() == "Title"
