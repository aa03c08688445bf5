"""`classify` and `embed` through the real `main`, on a tiny trained model; and a checkpoint that stands alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ecg_text import ETP
from ecg_text.cli import main
from ecg_text.data.module import normalize, saved_signal_settings
from ecg_text.data.records import Source, load_signal
from shared.checkpoint import load_module


@pytest.fixture
def record(synthetic_root: Path) -> Path:
    return synthetic_root / "records100" / "00000" / "00007_lr"


def scores_of(model: ETP, checkpoint: Path, record: Path) -> list[float]:
    settings = saved_signal_settings(checkpoint)
    signal = torch.from_numpy(load_signal(Source(str(record), settings))[None])
    with torch.no_grad():
        values: list[float] = model(normalize(signal, settings.normalize))[0].tolist()
    return values


def test_the_issues_command_line_ranks_prompts_and_draws_them(
    trained, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["atrial fibrillation", "normal ECG"]
    where = ["--output", str(tmp_path / "out"), "--text_cache_dir", str(tmp_path / "text")]
    scores = main(
        ["classify", "--checkpoint", str(trained.checkpoint), "--record", str(record), "--prompts", *prompts, *where]
    )
    model = load_module(trained.checkpoint, ETP, text_cache_dir=tmp_path / "text")
    model.set_classes({p: p for p in prompts}, [[f"this ECG indicates {p}"] for p in prompts])
    expected = dict(zip(prompts, scores_of(model, trained.checkpoint, record), strict=True))
    assert scores == pytest.approx(expected, abs=1e-6)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(None, 1) for line in lines[:2]] == [[name, f"{value:+.3f}"] for name, value in scores.items()]
    assert {p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "out/figures/00007_lr.png"
    }
    with Image.open(tmp_path / "out" / "figures" / "00007_lr.png") as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 50  # there is something on it


def test_without_prompts_the_trained_classes_are_ranked(trained, record: Path, tmp_path: Path) -> None:
    scores = main(
        ["classify", "--checkpoint", str(trained.checkpoint), "--record", f"{record}.hea", "--output", str(tmp_path)]
    )
    model = load_module(trained.checkpoint, ETP)
    names = [f"{code}: {name}" for code, name in model.class_names.items()]
    assert scores == pytest.approx(
        dict(zip(names, scores_of(model, trained.checkpoint, record), strict=True)), abs=1e-6
    )


def test_a_prompt_given_twice_is_ranked_once(trained, record: Path, tmp_path: Path) -> None:
    where = ["--output", str(tmp_path), "--text_cache_dir", str(tmp_path / "text")]
    arguments = ["classify", "--checkpoint", str(trained.checkpoint), "--record", str(record), *where]
    assert len(main([*arguments, "--prompts", "flutter", "flutter", "block"])) == 2


def test_a_missing_record_is_named(trained, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "classify",
                "--checkpoint",
                str(trained.checkpoint),
                "--record",
                str(tmp_path / "no"),
                "--output",
                str(tmp_path),
            ]
        )
    assert (
        stop.value.code == f"error: no file {tmp_path}/no.hea (a WFDB record is a .hea header beside its signal file)"
    )


def test_embed_writes_a_unit_vector_a_record_and_lists_what_it_skips(
    trained, synthetic_root: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    (records / "deeper").mkdir(parents=True)
    for number in (1, 2, 3):
        for suffix in (".hea", ".dat"):
            name = f"{number:05d}_lr{suffix}"
            shutil.copy(
                synthetic_root / "records100" / "00000" / name, records / ("deeper" if number == 3 else "") / name
            )
    (records / "00002_lr.dat").write_bytes(b"cut short")
    output = tmp_path / "out" / "embeddings.parquet"
    arguments = ["embed", "--checkpoint", str(trained.checkpoint), "--records", str(records), "--output", str(output)]
    assert main(arguments) == output

    table = pd.read_parquet(output)
    assert table.columns.tolist() == ["id", "embedding"]
    assert table["id"].tolist() == ["00001_lr", "deeper/00003_lr"]
    embedded = np.stack(table["embedding"])
    assert embedded.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    skipped = pd.read_csv(tmp_path / "out" / "embeddings.skipped.csv")
    assert skipped["item"].tolist() == [str(records / "00002_lr")]
    assert "truncated" in skipped["reason"].iloc[0]

    model = load_module(trained.checkpoint, ETP)
    settings = saved_signal_settings(trained.checkpoint)
    signal = torch.from_numpy(load_signal(Source(str(records / "00001_lr"), settings))[None])
    with torch.no_grad():
        expected = model.model.embed_ecg(normalize(signal, settings.normalize))[0].numpy()
    np.testing.assert_allclose(embedded[0], expected / np.linalg.norm(expected), atol=1e-5)

    with pytest.raises(SystemExit, match=r"error: .*00002_lr.*\(on_error: skip would leave it out and list it\)"):
        main([*arguments, "--on_error", "raise"])


def test_embed_needs_records(trained, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["embed", "--checkpoint", str(trained.checkpoint), "--records", str(tmp_path)])
    assert stop.value.code == f"error: no .hea file under {tmp_path}"


ALONE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ecg_text import ETP
from shared.checkpoint import load_module
model = load_module(sys.argv[1], ETP)
with torch.no_grad():
    scores = model(torch.load(sys.argv[2], weights_only=True))
print(json.dumps({"scores": scores.tolist(), "classes": model.class_names}))
"""


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    """A tiny random BERT in a folder."""
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "ecg", "indicates", *"abcdefghijklmnopqrstuvwxyz"]
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    folder = tmp_path / "tiny-bert"
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


@pytest.mark.slow
def test_a_checkpoint_classifies_alone_when_the_language_model_is_gone(
    command_line, language_model: Path, tmp_path: Path
) -> None:
    encoder = {
        "class_path": "shared.backbones.HuggingFaceText",
        "init_args": {"model": str(language_model), "pooling": "cls", "max_tokens": 32},
    }
    more = {"model.init_args.text_encoder": json.dumps(encoder), "model.init_args.text_dim": 16}
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    arguments = [part for key, value in more.items() for part in (f"--{key}", str(value))]
    cli = main(command_line("fit", tmp_path / "runs", *arguments, *short))
    checkpoint = cli.run_dir / "checkpoints" / "last.ckpt"
    shutil.rmtree(language_model)

    signal = torch.randn(3, 12, 1000)
    torch.save(signal, tmp_path / "signal.pt")
    model = cli.model.eval()
    with torch.no_grad():
        expected = model(signal)
    command = [sys.executable, "-c", ALONE, str(checkpoint), str(tmp_path / "signal.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(done.stdout)
    assert result["scores"] == expected.tolist()
    assert result["classes"] == model.class_names

    # New prompts do need it, and the error says what to do.
    record = next(Path(cli.datamodule.root).rglob("*_lr.hea"))
    classify = ["classify", "--checkpoint", str(checkpoint), "--record", str(record), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"(?s)^error: the language model .*tiny-bert"):
        main([*classify, "--prompts", "flutter", "--text_cache_dir", str(tmp_path / "text")])
