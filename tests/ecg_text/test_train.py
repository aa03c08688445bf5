"""`python -m ecg_text fit|test|predict` through the real `main`, on the small SYNTHETIC set."""

import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
import yaml

from ecg_text import ETP
from ecg_text.cli import main
from shared.checkpoint import load_module
from tests.command_line import files_under

RUN_FILES = {
    "config.yaml",
    "metrics.csv",
    "environment.txt",
    "results.json",
    "samples.csv",
    "data.json",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
}
COLUMNS = {
    "epoch",
    "step",
    "lr-Adam",
    "train/loss",
    "train/feature_std",
    "val/loss",
    "val/auroc",
    "val/retrieval_accuracy",
    "throughput/samples_per_second",
    "throughput/data_wait",
    "throughput/peak_memory_gb",
}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def test_a_run_leaves_exactly_its_files(trained) -> None:
    assert trained.files == RUN_FILES | {"wandb"}


def test_metrics_have_every_epoch_once_in_the_known_columns(trained) -> None:
    metrics = pd.read_csv(trained.folder / "metrics.csv")
    assert set(metrics.columns) == COLUMNS
    for column in COLUMNS - {"epoch", "step", "lr-Adam"}:
        assert metrics.loc[metrics[column].notna(), "epoch"].tolist() == [0, 1], column
    assert metrics["lr-Adam"].dropna().tolist() == [2e-3, 2e-3]
    assert metrics["throughput/data_wait"].dropna().between(0, 1).all()
    assert (metrics["throughput/samples_per_second"].dropna() > 0).all()


def test_the_results_are_those_of_the_best_epoch(trained) -> None:
    results = json.loads((trained.folder / "results.json").read_text())
    metrics = pd.read_csv(trained.folder / "metrics.csv")
    assert set(results) >= {"fit/epochs", "fit/steps", "fit/seconds", "fit/peak_memory_gb", "fit/best_val/loss"}
    assert results["fit/epochs"] == 2
    assert results["fit/steps"] == metrics["step"].max() + 1
    assert results["fit/best_val/loss"] == pytest.approx(metrics["val/loss"].min(), rel=1e-6)
    best = torch.load(trained.checkpoint, weights_only=True)
    assert best["epoch"] == metrics.loc[metrics["val/loss"].idxmin(), "epoch"]


def test_the_environment_names_revision_hardware_and_versions(trained) -> None:
    lines = (trained.folder / "environment.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in lines[:3]] == ["revision", "python", "device"]
    assert f"torch=={torch.__version__.partition('+')[0]}" in {line.partition("+")[0] for line in lines}


def test_typed_again_a_finished_run_is_left_alone(trained, capsys: pytest.CaptureFixture[str]) -> None:
    before = trained.checkpoint.stat().st_mtime_ns, (trained.folder / "metrics.csv").read_bytes()
    main(trained.arguments)
    assert f"{trained.folder} has already finished; --run.overwrite true trains it again" in capsys.readouterr().out
    assert before == (trained.checkpoint.stat().st_mtime_ns, (trained.folder / "metrics.csv").read_bytes())


def test_the_saved_configuration_is_the_run(trained, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", str(trained.folder / "config.yaml")])  # no difference, so it is known as finished
    assert "has already finished" in capsys.readouterr().out


def test_the_saved_configuration_trains_the_same_again(trained, tmp_path: Path) -> None:
    saved = str(trained.folder / "config.yaml")
    main(["fit", "--config", saved, "--run.root", str(tmp_path), "--run.wandb", "disabled"])
    again = tmp_path / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"
    assert files_under(again) == RUN_FILES
    expected = weights(trained.folder / "checkpoints" / "last.ckpt")
    for name, value in weights(again / "checkpoints" / "last.ckpt").items():
        assert torch.equal(value, expected[name]), name


def test_results_of_an_evaluation_alone_do_not_make_a_run_finished(
    trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"
    shutil.copytree(trained.folder, folder)
    (folder / "results.json").write_text('{"zero_shot/auroc": 0.5}')
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["run"]["root"], config["trainer"]["default_root_dir"] = str(tmp_path), str(folder)
    config["checkpoint"]["dirpath"] = str(folder / "checkpoints")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(folder / "config.yaml"), "--run.wandb", "disabled"])
    assert f"resuming {folder} from its last finished epoch" in capsys.readouterr().out
    assert "fit/epochs" in json.loads((folder / "results.json").read_text())
    rows = [pd.read_csv(run / "metrics.csv")["val/loss"].dropna().tolist() for run in (folder, trained.folder)]
    assert rows[0] == rows[1]


def test_other_settings_in_the_same_folder_are_an_error(trained) -> None:
    with pytest.raises(SystemExit) as error:
        main([*trained.arguments, "--model.init_args.temperature", "0.1"])
    assert str(error.value) == (
        f"error: {trained.folder} holds a run with other settings:\n"
        "- model.init_args.temperature: 0.07\n"
        "+ model.init_args.temperature: 0.1\n"
        "Give this one a name of its own with --run.variant NAME, or replace it with --run.overwrite true"
    )


def test_the_seed_names_the_folder_and_reaches_the_sampler(trained) -> None:
    config = yaml.safe_load((trained.folder / "config.yaml").read_text())
    assert config["seed_everything"] == 0
    assert "seed" not in config["data"]["init_args"]  # linked, so it cannot differ
    assert trained.cli.datamodule.seed == 0


@pytest.fixture
def own_run(command_line, tmp_path: Path) -> tuple[list[str], Path]:
    arguments = command_line("fit", tmp_path, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    return arguments, tmp_path / "ecg_text" / "ptbxl_synthetic" / "etp" / "seed_0"


def test_overwrite_replaces_every_file_but_only_once_the_data_is_there(own_run, tmp_path: Path) -> None:
    arguments, folder = own_run
    main(arguments)
    (folder / "figures").mkdir()
    (folder / "figures" / "old.png").write_bytes(b"")
    (folder / "notes.txt").write_text("a person's own file")
    first = weights(folder / "checkpoints" / "best.ckpt")
    replaced = [*arguments, "--run.overwrite", "true", "--model.init_args.temperature", "0.5"]

    with pytest.raises(SystemExit, match=r"error: no folder .*nowhere"):
        main([*replaced, "--data.init_args.root", str(tmp_path / "nowhere")])
    assert files_under(folder) == RUN_FILES | {"notes.txt", "figures/old.png"}

    main(replaced)
    assert files_under(folder) == RUN_FILES | {"notes.txt"}  # no best-v1.ckpt either
    second = weights(folder / "checkpoints" / "best.ckpt")
    assert any(not torch.equal(second[name], first[name]) for name in first)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["temperature"] == 0.5
    assert config["run"]["overwrite"] is False  # the saved file, used again, must not start anew
    assert pd.read_csv(folder / "metrics.csv")["val/loss"].notna().sum() == 1


def test_fast_dev_run_writes_nothing(command_line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(command_line("fit", tmp_path, "--trainer.fast_dev_run", "true"))
    main(command_line("test", tmp_path, "--trainer.fast_dev_run", "true"))
    assert files_under(tmp_path) == set()


def test_the_loss_falls_on_a_handful_of_batches(command_line, tmp_path: Path) -> None:
    tiny = ["--data.init_args.train_folds", "[1, 2, 3]", "--trainer.max_epochs", "10"]  # 2 batches an epoch
    main(command_line("fit", tmp_path, *tiny))  # 20 steps
    (csv,) = tmp_path.rglob("metrics.csv")
    loss = pd.read_csv(csv)["train/loss"].dropna().to_numpy()
    assert len(loss) == 10
    assert loss[0] > 0.8 * math.log(16)  # it starts near chance, 16 pairs a batch
    assert loss[-1] < 0.5 * loss[0]


def test_test_uses_the_best_checkpoint_and_leaves_the_run_as_it_was(trained) -> None:
    before = {name: (trained.folder / name).read_bytes() for name in ("config.yaml", "metrics.csv", "results.json")}
    by_default = main(["test", *trained.arguments[1:]])
    main(["test", *trained.arguments[1:], "--ckpt_path", "best"])
    value = by_default.trainer.callback_metrics["test/auroc"].item()
    data = by_default.datamodule
    model = load_module(trained.checkpoint, ETP)
    with torch.no_grad():
        batches = [(model(batch.signal), batch.target) for batch in data.batches(data.rows("test", "evaluate"))]
    scores, target = (torch.cat(parts).double().numpy() for parts in zip(*batches, strict=True))
    expected = np.mean([pairwise_auroc(scores[:, c], target[:, c]) for c in range(target.shape[1])])
    assert value == pytest.approx(expected, abs=1e-6)
    assert before == {name: (trained.folder / name).read_bytes() for name in before}


def pairwise_auroc(score: np.ndarray, target: np.ndarray) -> float:
    """The share of pairs of a positive and a negative record that are in order; ties count half."""
    difference = score[target == 1][:, None] - score[target == 0][None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def test_predict_writes_a_row_a_record_with_its_scores_and_embedding(trained) -> None:
    cli = main(["predict", *trained.arguments[1:], "--ckpt_path", "last"])
    table = pd.read_parquet(trained.folder / "predictions.parquet")
    data = cli.datamodule
    assert table.columns.tolist() == ["id", *(f"score/{code}" for code in data.classes), "embedding"]
    assert table["id"].tolist() == data.frame["id"].tolist()
    model = load_module(trained.folder / "checkpoints" / "last.ckpt", ETP)
    batch = next(data.batches(np.arange(7)))
    with torch.no_grad():
        scores, embedded = model(batch.signal), model.model.embed_ecg(batch.signal)
    np.testing.assert_allclose(table.iloc[:7, 1:-1].to_numpy(np.float32), scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.stack(table["embedding"].iloc[:7]), embedded.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("no.ckpt", None, "no checkpoint {}; a run keeps its own in <run>/checkpoints/"),
        (
            "list.ckpt",
            lambda path: torch.save([1], path),
            "{} is not a Quintet checkpoint: it lacks state_dict and hyper_parameters",
        ),
    ],
)
def test_a_checkpoint_that_is_not_ours_is_refused_before_lightning_reads_it(
    trained, tmp_path: Path, name: str, write: Callable[[Path], None] | None, message: str
) -> None:
    path = tmp_path / name
    if write:
        write(path)
    for verb in ("fit", "test"):
        arguments = [verb, *trained.arguments[1:], "--run.root", str(tmp_path), "--ckpt_path", str(path)]
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert str(error.value) == "error: " + message.format(path)


def test_a_checkpoints_hyper_parameters_never_replace_the_flags(trained, tmp_path: Path) -> None:
    content = torch.load(trained.checkpoint, weights_only=True)
    content["hyper_parameters"] |= {"temperature": 0.9, "augment": {"class_path": "antigravity.Evil"}}
    torch.save(content, tmp_path / "changed.ckpt")
    cli = main(["test", *trained.arguments[1:], "--ckpt_path", str(tmp_path / "changed.ckpt")])
    assert cli.model.temperature.item() == pytest.approx(0.07)
    assert cli.model.augment is None


def test_a_data_set_without_reports_cannot_be_pretrained_on(
    command_line, write_record: Callable[..., None], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for index in range(6):
        write_record(tmp_path / "own" / f"r{index}", rng.integers(-500, 500, (12, 1000)))
    rows = [f"r{i},r{i},AF,{split}" for i, split in enumerate(["train", "train", "val", "val", "test", "test"])]
    (tmp_path / "own" / "records.csv").write_text("\n".join(["id,path,labels,split", *rows]) + "\n")
    settings = {"root": tmp_path / "own", "sampling_rate": 100, "batch_size": 2}
    more = [part for key, value in settings.items() for part in (f"--data.init_args.{key}", str(value))]
    for verb in ("fit", "validate"):
        with pytest.raises(SystemExit) as error:
            main(command_line(verb, tmp_path, *more, "--trainer.fast_dev_run", "true", data="wfdb_folder"))
        said = "error: WFDBFolderDataModule has no reports to pre-train on; use it for evaluation only"
        assert str(error.value) == said


@pytest.mark.parametrize("labels", ["", "AF"])
def test_records_without_labels_or_with_one_class_can_be_pretrained_on(
    command_line, write_record: Callable[..., None], tmp_path: Path, labels: str
) -> None:
    rng = np.random.default_rng(0)
    for index in range(8):
        write_record(tmp_path / "own" / f"r{index}", rng.integers(-500, 500, (12, 1000)))
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    rows = [f"r{i},r{i},finding {i},{labels if i % 2 else ''},{split}" for i, split in enumerate(splits)]
    (tmp_path / "own" / "records.csv").write_text("\n".join(["id,path,report,labels,split", *rows]) + "\n")
    settings = {"root": tmp_path / "own", "sampling_rate": 100, "batch_size": 2}
    more = [part for key, value in settings.items() for part in (f"--data.init_args.{key}", str(value))]
    cli = main(command_line("fit", tmp_path, *more, data="wfdb_folder"))
    assert "val/auroc" not in cli.trainer.callback_metrics  # nothing to tell apart
    assert cli.trainer.callback_metrics["val/loss"].isfinite()


def test_testing_on_other_classes_uses_the_data_sets_classes_not_the_checkpoints(trained, tmp_path: Path) -> None:
    arguments = ["test", *trained.arguments[1:], "--ckpt_path", str(trained.checkpoint)]
    cli = main([*arguments, "--data.init_args.label_set", "subclass"])
    assert list(cli.model.class_names) == cli.datamodule.classes
    assert len(cli.model.prompts) == len(cli.datamodule.classes) > 5


def test_main_leaves_the_process_as_it_found_it(trained) -> None:
    def state() -> tuple[object, ...]:
        logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
        return torch.get_num_threads(), logger.level, list(warnings.filters), wandb.run

    before = state()
    main([*trained.arguments, "--threads", "2"])
    assert state() == before
    with pytest.raises(SystemExit):
        main(["evaluate", "--run", "nowhere", "--threads", "2"])
    assert state() == before
