"""Where a run is logged: the CSV over an interruption, W&B's mode, figures."""

import csv
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from shared.runs.tracking import RunCSVLogger, save_figure, wandb_mode


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Logins are looked for where a test may write them."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_a_login_a_run_is_offline() -> None:
    assert wandb_mode("auto") == "offline"


def test_with_a_key_a_run_is_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode("auto") == "online"


@pytest.mark.parametrize("name", ["netrc", ".netrc", "_netrc"])
def test_with_a_saved_login_a_run_is_online(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    (tmp_path / name).chmod(0o600)
    assert wandb_mode("auto") == "online"


@pytest.mark.parametrize("text", ["machine elsewhere.org login u password p\n", "machine\n", "no netrc at all"])
def test_a_login_for_something_else_does_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / "netrc").write_text(text)
    assert wandb_mode("auto") == "offline"


def test_a_login_elsewhere_does_not_hide_the_saved_one(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine elsewhere.org login u password p\n")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login u password p\n")
    assert wandb_mode("auto") == "offline"  # W&B, too, reads NETRC alone where it is set


def test_a_login_at_an_own_server_counts_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine wandb.example.org login u password p\n")
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert wandb_mode("auto") == "online"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("online", "online"), ("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")],
)
def test_wandbs_own_variable_is_respected(monkeypatch: pytest.MonkeyPatch, value: str, expected: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", value)
    assert wandb_mode("auto") == expected


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_what_is_asked_for_wins(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled" if mode == "online" else "online")
    assert wandb_mode(mode) == mode  # type: ignore[arg-type]


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_resuming_keeps_the_rows_before_the_checkpoint_and_drops_the_others(tmp_path: Path) -> None:
    first = RunCSVLogger(tmp_path / "run")
    for step in (4, 9, 12):
        first.log_metrics({"loss": step / 8}, step)
    first.save()

    resumed = RunCSVLogger(tmp_path / "run", resume=True)
    assert resumed.experiment is not None  # Lightning makes it early, and that deletes metrics.csv
    again = RunCSVLogger(tmp_path / "run", resume=True)  # the resumed run was killed before training went on
    again.keep_until(10)
    again.log_metrics({"loss": 7.0, "new": 1.0}, 14)
    again.save()
    assert [(row["step"], row["loss"], row["new"]) for row in read(tmp_path / "run")] == [
        ("4", "0.5", ""),
        ("9", "1.125", ""),
        ("14", "7.0", "1.0"),
    ]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    first = RunCSVLogger(tmp_path / "run")
    first.log_metrics({"loss": 1.0}, 0)
    first.save()
    (tmp_path / "run" / "metrics.earlier.csv").write_text("step\n3\n")
    second = RunCSVLogger(tmp_path / "run")
    second.keep_until(10)
    second.log_metrics({"loss": 2.0}, 0)
    second.save()
    assert read(tmp_path / "run") == [{"loss": "2.0", "step": "0"}]


def test_a_figure_is_a_readable_png_in_the_runs_folder(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    path = save_figure(figure, tmp_path, "line")
    assert path == tmp_path / "figures" / "line.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 50
