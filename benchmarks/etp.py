"""ETP's data path, text features and cache, and CLOCS's loss: `make bench-etp`.

Every figure is a ratio of two ways of doing the same, timed in turn in one run (A B A B ...): the median of the pairs,
with their range. Signals and reports are SYNTHETIC; speed does not depend on whether a heart made them.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import wfdb
from jsonargparse import auto_cli
from transformers import BertConfig, BertModel, BertTokenizerFast

from benchmarks.timing import PAIRS, Rows, ratio, write_rows
from ecg_text import ETP, PTBXLDataModule
from ecg_text.data.module import normalize
from ecg_text.data.synthetic.ecgs import write_synthetic
from ecg_text.methods.clocs import clocs_loss
from shared.augment import Augment, ChannelMask, Jitter, Scale, Window
from shared.backbones import HashedNgrams, HuggingFaceText, ResNet1D
from shared.losses import clip_loss

BATCH = 128


def synthetic_module(folder: Path, sampling_rate: int, records: int) -> PTBXLDataModule:
    root = write_synthetic(
        folder / f"set_{sampling_rate}", records=records, sampling_rate=500 if sampling_rate == 500 else 100
    )
    data = PTBXLDataModule(
        str(root),
        sampling_rate=sampling_rate,
        normalize="lead",
        label_mode="multi",
        missing_classes="drop",
        batch_size=BATCH,
        cache_dir=str(folder / "cache"),
    )
    data.prepare_data()
    data.setup()
    return data


def bench_loading(data: PTBXLDataModule, folder: Path, pairs: int) -> Rows:
    """A normalised, augmented training batch, against reading it record by record in three ways."""
    rate = data.signal_settings.sampling_rate
    augment = Augment([Window(0.5), Scale(0.1), Jitter(0.1), ChannelMask(0.1)])  # the demo's
    rows = data.rows("train", "pretrain")[:BATCH]
    positions = list(range(BATCH))
    dataset = data.loader(rows).dataset
    paths = data.frame["path"].iloc[rows].tolist()
    npy = folder / f"npy_{rate}"
    npy.mkdir()
    for row in rows:
        np.save(npy / f"{row}.npy", data.cached(row))

    def batched() -> None:
        augment(normalize(dataset[positions].signal, "lead"))

    def per_item(read: Callable[[int], np.ndarray]) -> Callable[[], None]:
        def run() -> None:
            items = [augment(normalize(torch.from_numpy(read(index))[None], "lead"))[0] for index in positions]
            torch.utils.data.default_collate(items)

        return run

    def from_wfdb(index: int) -> np.ndarray:
        signal = wfdb.rdrecord(paths[index]).p_signal
        return np.ascontiguousarray(np.rint(signal.T * 1000).astype(np.int16))

    result = []
    for way, read in {
        "wfdb.rdrecord": from_wfdb,
        "one .npy a record": lambda index: np.load(npy / f"{rows[index]}.npy"),
        "memory map, item by item": lambda index: np.array(data.cached(rows[index])),
    }.items():
        name = f"training batch, {rate} Hz, one thread, against {way}"
        result.append(ratio(name, "records/s", batched, per_item(read), BATCH, pairs))
    return result


def bench_step(data: PTBXLDataModule, pairs: int) -> Rows:
    """Share of a training step that goes into loading: gathering and normalising, with `Window` as in the demo."""
    model = ETP(ResNet1D(12, 32), HashedNgrams(), text_dim=512, text_cache_dir=str(data.cache_dir / "text"))
    features = model.encode_text(data.reports)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    window = Window(0.5)
    rows = data.rows("train", "pretrain")[:BATCH]
    shares = []
    for _ in range(pairs + 1):
        start = time.perf_counter()
        batch = next(iter(data.batches(rows)))
        loaded = time.perf_counter()
        text = model.model.embed_text(features[batch.report])
        loss = clip_loss(model.model.embed_ecg(window(batch.signal)), text, 0.07)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append((loaded - start) / (time.perf_counter() - start))
    share = float(np.median(shares[1:]))  # the first step warms up
    name = "training step (width 32, 100 Hz): share of loading"
    print(f"{name:<82} {100 * share:>6.2f} %  ({100 * min(shares[1:]):.2f} to {100 * max(shares[1:]):.2f})")
    return [{"benchmark": name, "unit": "share", "ours": round(share, 4)}]


def bench_text(data: PTBXLDataModule, folder: Path, pairs: int) -> Rows:
    """A pre-training step with cached report features, against the frozen language model in the loop."""
    words = sorted({word for text in data.reports for word in text.split()})
    bert = folder / "bert-base-random"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    BertModel(BertConfig(vocab_size=len(words) + 5)).save_pretrained(bert)
    result = []
    for label, encoder, dim in (
        ("MiniLM", HuggingFaceText("packaged:minilm", pooling="mean"), 384),
        ("BERT-base (random weights)", HuggingFaceText(str(bert)), 768),
    ):
        model = ETP(ResNet1D(12, 32), encoder, text_dim=dim, text_cache_dir=str(folder / "text"))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        batch = next(iter(data.batches(data.rows("train", "pretrain")[:32])))
        texts = [data.reports[index] for index in batch.report.tolist()]
        cached = encoder.encode(texts)

        def step(features: torch.Tensor, model: ETP = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            loss = clip_loss(model.model.embed_ecg(batch.signal), model.model.embed_text(features), 0.07)  # noqa: B023
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        name = f"pre-training step with cached text, against {label} in the loop"
        in_loop = lambda encoder=encoder, texts=texts: step(encoder.encode(texts))  # noqa: E731
        result.append(ratio(name, "records/s", lambda cached=cached: step(cached), in_loop, 32, pairs))  # type: ignore[misc]
    return result


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def patient_pairs(patient: torch.Tensor) -> list[tuple[int, int]]:
    ids = patient.tolist()
    return [(i, j) for i, one in enumerate(ids) for j, other in enumerate(ids) if one == other]


def mean_over_pairs(terms: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """CLOCS Eq. 1, halved: the mean over the records, and over the pairs of different records."""
    same = torch.stack([term for (i, j), term in terms.items() if i == j]).mean()
    others = [term for (i, j), term in terms.items() if i != j]
    return (same + torch.stack(others).mean()) / 2 if others else same / 2


def clocs_pair_by_pair(h1: torch.Tensor, h2: torch.Tensor, patient: torch.Tensor, temperature: float) -> torch.Tensor:
    """Eqs. 2 and 3 as they are printed, once for each positive pair."""
    terms = {}
    for i, j in patient_pairs(patient):
        row = (F.cosine_similarity(h1[i : i + 1], h2) / temperature).exp()
        column = (F.cosine_similarity(h1, h2[j : j + 1]) / temperature).exp()
        terms[i, j] = -(row[j] / row.sum()).log() - (column[i] / column.sum()).log()
    return mean_over_pairs(terms)


def clocs_one_matrix(h1: torch.Tensor, h2: torch.Tensor, patient: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same loop, over the entries of one matrix of similarities and its two sums."""
    exp = (F.normalize(h1, dim=1) @ F.normalize(h2, dim=1).T / temperature).exp()
    rows, columns = exp.sum(1), exp.sum(0)
    return mean_over_pairs(
        {(i, j): -(exp[i, j] / rows[i]).log() - (exp[i, j] / columns[j]).log() for i, j in patient_pairs(patient)}
    )


def clocs_by_index(h1: torch.Tensor, h2: torch.Tensor, patient: torch.Tensor, temperature: float) -> torch.Tensor:
    """The authors' way of finding pairs (names joined to strings, compared a patient at a time), the paper's loss."""
    names = np.array([str(one) for one in patient.tolist()], dtype=object)
    joined = names[:, None] + "-" + names
    same = np.zeros(joined.shape, dtype=bool)
    for name in np.unique(names):
        same |= joined == f"{name}-{name}"
    np.fill_diagonal(same, False)
    i, j = np.nonzero(same)
    exp = (F.normalize(h1, dim=1) @ F.normalize(h2, dim=1).T / temperature).exp()
    loss = torch.zeros(())
    for chosen in (exp / exp.sum(1, keepdim=True), exp / exp.sum(0)):
        loss = loss - chosen.diagonal().log().mean()
        if len(i):
            loss = loss - chosen[i, j].log().mean()
    return loss / 2


def bench_clocs(pairs: int) -> Rows:
    """CLOCS's loss of a batch like PTB-XL's, where few patients come twice, against three loops of the same value."""
    generator = torch.Generator().manual_seed(0)
    h1, h2 = (torch.randn(256, 128, generator=generator, requires_grad=True) for _ in range(2))
    patient = torch.randint(2000, (256,), generator=generator)
    batch = f"batch 256 of {len(patient.unique())} patients"

    def timed(loss: Loss, gradient: bool) -> Callable[[], None]:
        def run() -> None:
            value = loss(h1, h2, patient, 0.1)
            if gradient:
                torch.autograd.grad(value, [h1, h2])

        return run

    ways: dict[str, Loss] = {
        "a loop over positive pairs from embeddings": clocs_pair_by_pair,
        "pairs by strings and index, as public code": clocs_by_index,
        "a loop over positive entries of one matrix": clocs_one_matrix,
    }
    result = []
    for gradient in (False, True):
        name = "CLOCS loss and gradient" if gradient else "CLOCS loss"
        for way, other in ways.items():
            torch.testing.assert_close(
                clocs_loss(h1, h2, patient, 0.1), other(h1, h2, patient, 0.1), rtol=1e-5, atol=1e-5
            )
            ours = timed(clocs_loss, gradient)
            row_name = f"{name}, {batch}, against {way}"
            result.append(ratio(row_name, "batches/s", ours, timed(other, gradient), 1, pairs, calls=20))
    return result


def anonymous_memory(pid: int) -> int:
    """Anonymous memory of a process and its children, bytes (Linux)."""
    total = 0
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:")) * 1024
        waiting += map(int, children)
    return total


def bench_cache(folder: Path, records: int) -> Rows:
    """Peak anonymous memory, over all processes, of building the cache of a 500 Hz set."""
    if not sys.platform.startswith("linux"):
        print("cache memory: left out, /proc is needed to read anonymous memory")
        return []
    root = write_synthetic(folder / "cache_set", records=records, sampling_rate=500)
    code = (
        "if __name__ == '__main__':\n"  # as ecg_text/__main__.py: worker processes import this file
        "    from ecg_text import PTBXLDataModule\n"
        f"    PTBXLDataModule({str(root)!r}, label_mode='multi', cache_dir={str(folder / 'big')!r}).prepare_data()\n"
    )
    script = folder / "build_cache.py"
    script.write_text(code)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(script)])
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_memory(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"building the cache failed with exit status {process.returncode}")
    seconds = time.perf_counter() - start
    print(
        f"{f'cache of {records} records at 500 Hz: peak anonymous memory':<82} {peak / 1e9:>7.2f} GB ({seconds:.0f} s)"
    )
    name = f"cache of {records} records at 500 Hz, peak anonymous memory"
    return [{"benchmark": name, "unit": "GB", "ours": round(peak / 1e9, 3)}]


def run(
    output: Path = Path("results/bench_etp.csv"), records: int = 400, cache_records: int = 4500, pairs: int = PAIRS
) -> pd.DataFrame:
    """Measure, print ratios and write them.

    Args:
        output: CSV, replaced.
        records: Size of the synthetic sets that speed is measured on.
        cache_records: Size of the set that the cache's memory is measured on; 21837 is PTB-XL 1.0.1.
        pairs: Measurements of each ratio.
    """
    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        low = synthetic_module(folder, 100, records)
        high = synthetic_module(folder, 500, records)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a loader's work is compared on one core; the other ways cannot use a second
        rows = bench_loading(low, folder, pairs) + bench_loading(high, folder, pairs)
        rows += bench_clocs(pairs)
        torch.set_num_threads(threads)
        rows += bench_step(low, pairs) + bench_text(low, folder, pairs) + bench_cache(folder, cache_records)
    return write_rows(rows, output, data_kind="synthetic", batch_size=BATCH, wfdb=wfdb.__version__)


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
