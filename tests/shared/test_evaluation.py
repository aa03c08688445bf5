"""The loop behind `evaluate`, on a toy package: what it writes, what it does not do again, and its scores' file.

A checkpoint is a number, and so is a flower's picture; the score of its class is the product of both, so all is known.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from shared.data.module import DataModule
from shared.data.problems import DataError, Problems
from shared.evaluation import RANDOM, Evaluation, Job, Protocol, Request, evaluate_variants
from shared.evaluation.evaluate import State
from shared.evaluation.protocol import safe_name
from shared.runs.configs import Configs
from shared.runs.scores import Found, Outcome, Scores
from tests.hand_made import write_variant

EXACT, BLURRED = Protocol("exact", "As they are", "accuracy"), Protocol("blurred", "Blurred", "psnr")


class Flowers(DataModule[Tensor]):
    """`flowers.csv`: id, split, group, picture (a number) and kind (0 or 1)."""

    name = "flowers"

    def __init__(self, root: str, shift: float = 0.0, cache_dir: str = "") -> None:
        super().__init__(root, cache_dir=str(Path(root) / "cache"))
        self.shift = shift

    def read_frame(self, problems: Problems) -> pd.DataFrame:
        return pd.read_csv(self.root / "flowers.csv", dtype={"id": str})

    @property
    def groups(self) -> NDArray[np.int64]:
        groups: NDArray[np.int64] = self.frame["group"].to_numpy()
        return groups

    def dataset(self, rows: NDArray[np.int64]) -> Dataset[Tensor]:
        raise NotImplementedError


class Toy(Evaluation[Flowers]):
    """Two protocols, of which the second has values of two rows from one job."""

    scored: list[str] = []  # noqa: RUF012  what the jobs did, for the tests to look at
    kept: list[str] = []  # noqa: RUF012

    def __init__(self, *arguments: Any, wide: bool) -> None:
        super().__init__(*arguments)
        self.wide = wide

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        return {protocol.name: protocol for protocol in (EXACT, BLURRED)[: 2 if self.wide else 1]}

    def jobs(self) -> list[Job]:
        floor = Job(partial(self.score, RANDOM, 1000, -1.0), key="random")
        title = self.variant.title
        models = [(seed, float(path.read_text())) for seed, path in self.checkpoints.items()]
        return [floor, *(Job(partial(self.score, title, seed, weight), seed) for seed, weight in models)]

    def score(self, row: str, seed: int, weight: float) -> Found:
        self.scored.append(f"{self.variant.name}: {row} {seed}")
        second = weight * (self.data.frame["picture"].to_numpy()[self.test_rows()] + self.data.shift)
        scores = np.stack([np.zeros_like(second), second], 1)[None]
        found: Found = {EXACT.name: {row: Outcome([seed], scores, scores)}}
        if self.wide:
            found[BLURRED.name] = {f"{row}, {kind}": Outcome([seed], values={"psnr": second[None]}) for kind in "ab"}
        return found

    def test_rows(self) -> NDArray[np.int64]:
        return self.data.rows("test", "evaluate")

    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        return ["rose", "tulip"], np.eye(2, dtype=np.float32)[self.data.frame["kind"].to_numpy()[self.test_rows()]]

    def about(self, protocol: Protocol) -> dict[str, Any]:
        return {"labels": 3}

    def table(self, found: Found) -> pd.DataFrame:
        rows = []
        for name, protocol in self.protocols.items():
            for row, outcome in found[name].items():
                values = self.seed_values(protocol, outcome)
                about = {"protocol": name, "method": row, "models": len(outcome.models), "samples": 4}
                rows.append(about | {"value": values[protocol.metric]})
        return pd.DataFrame(rows)

    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        if protocol == BLURRED:
            return {"psnr": float(outcome.values["psnr"].mean())}
        return {
            "accuracy": float(
                self.statistics["accuracy"](outcome, self.target()[1], self.data.groups[self.test_rows()]).point.mean()
            )
        }

    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        return {"bars": Figure()}

    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        print(f"{len(table)} rows of {dataset} ({kind})")

    def keep(self) -> None:
        self.kept.append(self.variant.name)


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "scored", [])
    monkeypatch.setattr(Toy, "kept", [])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four test flowers: a model with a weight above 0 classifies all but the last of them."""
    root = tmp_path / "data"
    root.mkdir()
    table = {"id": ["t", "a", "b", "c", "d"], "split": ["train", *["test"] * 4], "group": [0, 1, 1, 2, 3]}
    pd.DataFrame({**table, "picture": [1, 3, -2, 5, 7], "kind": [0, 1, 0, 1, 0]}).to_csv(
        root / "flowers.csv", index=False
    )
    return root


@pytest.fixture
def variants(tmp_path: Path, root: Path) -> list[Path]:
    """SimCLR and BYOL, two seeds each, whose checkpoints are their weights."""
    folders = []
    for method in ("SimCLR", "BYOL"):
        settings = {"data": {"class_path": f"{__name__}.Flowers", "init_args": {"root": str(root)}}}
        folder = tmp_path / "runs" / "toy" / "flowers" / method.lower()
        folders.append(write_variant(folder, f"shared.methods.{method}", settings))
        for seed in (0, 1):
            for name in ("best", "last"):
                (folder / f"seed_{seed}" / "checkpoints" / f"{name}.ckpt").write_text(f"{seed + 1}.0")
    return folders


@pytest.fixture
def configs(tmp_path: Path) -> Configs:
    """One data set, `meadow`, in another folder."""
    place = tmp_path / "configs" / "sets" / "meadow"
    place.mkdir(parents=True)
    block = {"class_path": f"{__name__}.Flowers", "init_args": {"root": str(tmp_path / "meadow")}}
    (place / "set.yaml").write_text(
        yaml.safe_dump({"run": {"dataset": "meadow", "tags": ["synthetic"]}, "data": block})
    )
    return Configs(tmp_path / "configs")


Evaluate = Callable[..., pd.DataFrame]


@pytest.fixture
def evaluate(variants: list[Path], configs: Configs) -> Evaluate:
    """`evaluate` of the toy package, of both variants if not told otherwise."""

    def run(*run: Path, wide: bool = False, **request: Any) -> pd.DataFrame:
        return evaluate_variants(
            "toy",
            configs,
            Request([str(folder) for folder in run or variants], wandb="disabled", **request),
            Flowers,
            partial(Toy, wide=wide),
            {"wide": wide},
            lambda before, now: before["wide"] >= now["wide"] and {**before, "wide": now["wide"]} == now,
        )

    return run


# ---- what is written


def test_an_evaluation_writes_its_table_scores_state_figures_and_each_seeds_values(
    evaluate: Evaluate, variants: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / "toy.csv"
    table = evaluate(wide=True, results=results)
    folder, said = variants[0] / "evaluation" / "flowers", capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"results.csv", "groups.csv", "scores.npz", "evaluation.json"}
    own = pd.read_csv(folder / "results.csv")
    assert own["method"].tolist() == [
        RANDOM,
        "SimCLR",
        *(f"{row}, {kind}" for row in (RANDOM, "SimCLR") for kind in "ab"),
    ]
    assert own["models"].tolist() == [1, 2, 1, 1, 2, 2]
    assert own["value"].tolist() == [0.25, 0.75, -3.25, -3.25, 4.875, 4.875]
    assert own["data_kind"].unique().tolist() == ["real"]
    pd.testing.assert_frame_equal(
        table, pd.concat([own, pd.read_csv(variants[1] / "evaluation/flowers/results.csv")], ignore_index=True)
    )

    kept = Scores.read(folder)
    assert (kept.samples, kept.groups.tolist(), kept.classes) == (["a", "b", "c", "d"], [1, 1, 2, 3], ["rose", "tulip"])
    assert kept.target.argmax(1).tolist() == [1, 0, 1, 0]
    assert kept.found["exact"]["SimCLR"].models == [0, 1]
    assert kept.found["exact"]["SimCLR"].test.tolist() == [
        [[0, 3], [0, -2], [0, 5], [0, 7]],
        [[0, 6], [0, -4], [0, 10], [0, 14]],
    ]
    state = State.read(folder)
    assert state is not None
    assert state.protocols == {
        "exact": {"title": "As they are", "metric": "accuracy", "labels": 3},
        "blurred": {"title": "Blurred", "metric": "psnr", "labels": 3},
    }
    seed = json.loads((variants[0] / "seed_1" / "results.json").read_text())
    assert {key: value for key, value in seed.items() if not key.startswith("fit/")} == {
        "exact/accuracy": 0.75,
        "blurred/SimCLR, a/psnr": 6.5,  # several rows from one job
        "blurred/SimCLR, b/psnr": 6.5,
    }
    assert (variants[0] / "seed_0" / "figures" / "flowers_bars.png").is_file()
    assert "6 rows of flowers (real)" in said
    assert Toy.kept == ["simclr", "byol"]
    written = pd.read_csv(results)
    assert len(written) == 12
    made = written[["trained_on", "variant", "dataset", "seeds", "epochs", "steps"]].iloc[0].tolist()
    assert made == ["flowers", "simclr", "flowers", "0 1", 15, 150]
    assert written[["date", "revision", "hardware", "python", "torch"]].notna().all().all()


def test_a_floor_row_is_scored_once_for_all_variants_on_the_same_data(
    evaluate: Evaluate, variants: list[Path], root: Path
) -> None:
    evaluate()
    assert Toy.scored == [
        f"simclr: {RANDOM} 1000",
        *(f"simclr: SimCLR {seed}" for seed in (0, 1)),
        "byol: BYOL 0",
        "byol: BYOL 1",
    ]
    both = [Scores.read(folder / "evaluation" / "flowers").found["exact"][RANDOM].test for folder in variants]
    np.testing.assert_array_equal(*both)
    for seed in (0, 1):
        path = variants[1] / f"seed_{seed}" / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["data"]["init_args"]["shift"] = 1.0
        path.write_text(yaml.safe_dump(config))
    Toy.scored.clear()
    evaluate()
    assert f"byol: {RANDOM} 1000" in Toy.scored  # its pictures are prepared otherwise


# ---- what is not done again


def test_what_is_up_to_date_is_known_by_content_and_not_by_times(
    evaluate: Evaluate, variants: list[Path], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate()
    capsys.readouterr()

    def again(**request: Any) -> set[str]:
        """Names of the variants that are evaluated again."""
        Toy.scored.clear()
        evaluate(missing_only=True, **request)
        done = {entry.partition(":")[0] for entry in Toy.scored}
        said = capsys.readouterr().out
        assert [f"{folder}/evaluation/flowers is up to date" in said for folder in variants] == [
            folder.name not in done for folder in variants
        ]
        return done

    assert again() == set()
    checkpoint, table = variants[0] / "seed_1" / "checkpoints" / "best.ckpt", root / "flowers.csv"
    for path in (checkpoint, table, variants[0] / "evaluation" / "flowers" / "results.csv"):
        path.touch()
    assert again() == set()
    checkpoint.write_text("-5.0")
    assert again() == {"simclr"}
    assert again() == set()
    for old, new in (("d,test,3,7,0", "d,test,3,8,0"), ("d,test,3,8,0", "d,test,3,8,1")):  # a picture, a label
        table.write_text(table.read_text().replace(old, new))
        assert again() == {"simclr", "byol"}
        assert again() == set()
    assert again(wide=True) == {"simclr", "byol"}
    assert again() == set()  # there is more than is asked for
    (variants[1] / "evaluation" / "flowers" / "evaluation.json").write_text("{")  # a call that was stopped
    assert again() == {"byol"}
    earlier = variants[0] / "evaluation" / "flowers" / "evaluation.json"
    state = json.loads(earlier.read_text())
    state["asked"]["resamples"] = 1000  # intervals of another kind
    earlier.write_text(json.dumps(state))
    assert again() == {"simclr"}
    assert again(checkpoint="last") == {"simclr", "byol"}


# ---- other data


def test_changed_data_settings_are_evaluated_apart(evaluate: Evaluate, variants: list[Path]) -> None:
    evaluate()
    own = {path: path.read_bytes() for path in (variants[0] / "evaluation" / "flowers").iterdir()}
    evaluate(options={"shift": -6.0})
    other = variants[0] / "evaluation" / "flowers,shift=-6.0" / "results.csv"
    assert pd.read_csv(other)["value"].tolist() == [0.75, 0.25]
    assert {path: path.read_bytes() for path in own} == own
    values = json.loads((variants[0] / "seed_0" / "results.json").read_text())
    assert values["exact/accuracy"] == 0.75
    assert values["flowers,shift=-6.0/exact/accuracy"] == 0.25
    assert Toy.kept == ["simclr", "byol"]  # of the data trained on alone


def test_another_data_set_is_evaluated_under_its_own_name(
    evaluate: Evaluate, variants: list[Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meadow").mkdir()
    table = (root / "flowers.csv").read_text().replace("d,test,3,7,0", "d,test,3,-7,0")
    (tmp_path / "meadow" / "flowers.csv").write_text(table)
    found = evaluate(variants[0], data="meadow")
    assert found["value"].tolist() == [0.0, 1.0]
    assert found["data_kind"].unique().tolist() == ["synthetic"]
    assert "2 rows of meadow (synthetic)" in capsys.readouterr().out
    assert (variants[0] / "evaluation" / "meadow" / "scores.npz").is_file()
    assert "meadow/exact/accuracy" in json.loads((variants[0] / "seed_0" / "results.json").read_text())
    assert Toy.kept == []
    with pytest.raises(DataError, match=r"^no data set 'medow'; there are: meadow; did you mean meadow\?$"):
        evaluate(data="medow")


def test_data_that_have_changed_since_the_training_are_warned_of(
    evaluate: Evaluate, variants: list[Path], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Flowers(str(root))
    data.setup()
    for seed in (0, 1):
        data.save(variants[0] / f"seed_{seed}")
    evaluate()
    assert not caplog.messages
    (root / "flowers.csv").write_text((root / "flowers.csv").read_text().replace("d,test", "d,train"))
    evaluate()
    assert caplog.messages == [
        f"{variants[0]}: the data have changed since it was trained, so its splits may differ; train it again with "
        "--run.overwrite true"
    ]


def test_seeds_of_other_settings_or_without_a_checkpoint_are_refused(evaluate: Evaluate, variants: list[Path]) -> None:
    (variants[1] / "seed_1" / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(DataError, match=rf"^no {variants[1]}/seed_1/checkpoints/best\.ckpt: train first, "):
        evaluate(variants[1])
    path = variants[0] / "seed_1" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["temperature"] = 0.2
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(DataError, match=rf"^seed_0 and seed_1 of {variants[0]} were trained with different settings"):
        evaluate()


# ---- scores, protocols


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores, psnr = rng.normal(size=(2, 5, 3)), rng.normal(size=(1, 5))
    found = {
        "linear": {"A/B": Outcome([3, 4], scores, scores[:, :2])},
        "20dB": {"Prior": Outcome([7], values={"psnr": psnr, "ssim": -psnr})},
    }
    target = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    Scores(list("vwxyz"), np.array([0, 0, 1, 2, 2]), ["a", "b", "c"], target, found).write(tmp_path)
    kept = Scores.read(tmp_path)
    assert (kept.samples, kept.classes, kept.groups.tolist()) == (list("vwxyz"), ["a", "b", "c"], [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(kept.target, target)
    assert {protocol: list(rows) for protocol, rows in kept.found.items()} == {"linear": ["A/B"], "20dB": ["Prior"]}
    of_classes, of_values = kept.found["linear"]["A/B"], kept.found["20dB"]["Prior"]
    assert (of_classes.models, of_classes.val, of_classes.values) == ([3, 4], None, {})
    np.testing.assert_array_equal(of_classes.test, scores)
    assert (of_values.models, of_values.test) == ([7], None)
    np.testing.assert_array_equal(of_values.values["ssim"], -psnr)
    path = tmp_path / "scores.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"scores\.npz cannot be read \(.*\); evaluate again"):
        Scores.read(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=rf"^no {path}: python -m <package> evaluate writes it$"):
        Scores.read(tmp_path)


def test_a_protocols_name_is_safe_as_a_folders() -> None:
    assert Protocol(safe_name("frozen@1 a class/x"), "t", "accuracy").name == "frozen_1_a_class_x"
    for name in ("", "frozen 1", "a/b", "a:b"):
        with pytest.raises(ValueError, match="must be safe as a folder's name"):
            Protocol(name, "t", "accuracy")
