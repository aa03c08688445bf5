"""tabular_imaging's augmentation, corruption, attributions and loading: `make bench-mmcl`.

Every figure is a ratio of two ways of doing the same, timed in turn in one run (A B A B ...): the median of the pairs,
with their range. Images and tables are random numbers (SYNTHETIC): speed does not depend on what they show.
"""

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from jsonargparse import auto_cli
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.timing import PAIRS, Rows, ratio, write_rows
from shared.augment import ImageAugment, Views
from shared.backbones import ImageEncoder
from tabular_imaging import MMCL, TabularEncoder
from tabular_imaging.model.attributions import mlp_attributions, numerical_attributions
from tabular_imaging.model.tabular import OneHot, corrupt

BATCH = 32
SOURCE, OUTPUT = 300, 128  # pixels: DVM's pictures and the paper's input (section 4.1)


def torchvision_items(images: Tensor, pictures: bool) -> Callable[[], object]:
    """The authors' list of augmentations, image by image, on tensors or on PIL pictures."""
    steps: list[Callable[..., object]] = [
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(29, (0.1, 2.0))], p=0.5),
        v2.RandomResizedCrop(OUTPUT, (0.08, 1.0), (3 / 4, 4 / 3)),
        v2.RandomHorizontalFlip(),
    ]
    items = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images] if pictures else list(images / 255)
    augment = v2.Compose([*steps, *([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)] if pictures else [])])

    def one_by_one() -> None:
        torch.stack([augment(item) for item in items])

    return one_by_one


def kornia_batch(images: Tensor) -> Callable[[], object]:
    """The same list with kornia: on the whole batch, parameters for each sample; its crop does not antialias."""
    from kornia import augmentation as K  # an optional package: dependency group `bench`

    augment = nn.Sequential(
        K.ColorJitter(0.8, 0.8, 0.8, p=0.8, same_on_batch=False),
        K.RandomGrayscale(p=0.2, same_on_batch=False),
        K.RandomGaussianBlur((29, 29), (0.1, 2.0), p=0.5, same_on_batch=False),
        K.RandomResizedCrop((OUTPUT, OUTPUT), (0.08, 1.0), (3 / 4, 4 / 3), same_on_batch=False),
        K.RandomHorizontalFlip(same_on_batch=False),
    )
    return partial(augment, images / 255)


def bench_augment(pairs: int) -> Rows:
    """A batch of training items, in both orders of ours, against torchvision item by item and kornia on the batch."""
    images = torch.randint(256, (BATCH, 3, SOURCE, SOURCE), dtype=torch.uint8)
    others = {
        "torchvision on PIL, item by item": torchvision_items(images, pictures=True),
        "torchvision on tensors, item by item": torchvision_items(images, pictures=False),
    }
    if importlib.util.find_spec("kornia"):
        others["kornia on the batch"] = kornia_batch(images)
    else:
        print("kornia is not installed (pip install --group bench), so it is not measured")
    rows = []
    for order, exact in (("default order", False), ("exact order", True)):
        ours = ImageAugment(OUTPUT, exact_order=exact)
        for name, other in others.items():
            label = f"augmentation, {order}, one thread, against {name}"
            rows.append(ratio(label, "images/s", partial(ours, images), other, BATCH, pairs))
    return rows


def bench_table(pairs: int) -> Rows:
    """Corruption and one-hot encoding of a batch against a loop over rows and fields."""
    cardinalities = [1] * 80 + [5] * 40
    table = torch.cat([torch.randn(512, 80), torch.randint(5, (512, 40)).float()], dim=1)
    marginals = torch.cat([torch.randn(30_000, 80), torch.randint(5, (30_000, 40)).float()], dim=1)
    encode = OneHot(cardinalities)

    def by_row() -> None:
        """As the authors' data set does it, a row at a time."""
        for row in table:
            row = row.clone()
            for field in torch.randperm(len(row))[: int(0.3 * len(row))].tolist():
                row[field] = marginals[int(torch.randint(len(marginals), ())), field]
            torch.cat(
                [
                    torch.nn.functional.one_hot(value.long(), size).float() if size > 1 else value[None]
                    for value, size in zip(row, cardinalities, strict=True)
                ]
            )

    def batched() -> None:
        encode(corrupt(table, marginals, 0.3))

    label = "corruption and one-hot of 512 rows, 120 columns, one thread, against row by row"
    rows = [ratio(label, "rows/s", batched, by_row, 512, min(pairs, 3), calls=50)]
    milliseconds = 1000 * 512 / float(str(rows[0]["ours"]))
    print(f"{'corruption and one-hot of 512 rows, 120 columns':<82} {milliseconds:>7.2f} ms")
    return rows


def bench_attributions(pairs: int) -> Rows:
    """All 2,048 dimensions' integrated gradients of a row, in closed form against captum with 50 steps."""
    encoder = TabularEncoder([1] * 17 + [5] * 8).eval()
    inputs = encoder.one_hot(torch.randn(1, 25))
    exact = mlp_attributions(encoder.mlp, inputs)
    with torch.no_grad():
        change = encoder.mlp(inputs) - encoder.mlp(torch.zeros_like(inputs))
    error = float((exact.sum(2) - change).abs().max())
    print(f"{'completeness error of the closed form':<82} {error:>7.1e}")
    label = "integrated gradients of 2,048 dimensions, against captum with 50 steps"
    ours = partial(mlp_attributions, encoder.mlp, inputs)
    other = partial(numerical_attributions, encoder.mlp, inputs, steps=50)
    row = ratio(label, "samples/s", ours, other, 1, min(pairs, 3), calls=20)
    return [row, {"benchmark": "completeness error of the closed form", "unit": "embedding", "ours": error}]


def bench_step(pairs: int) -> Rows:
    """The share of a CPU training step of the paper's networks that augmentation takes."""
    encoder = ImageEncoder("resnet50", image_px=OUTPUT)
    model = MMCL(encoder, Views(ImageAugment(OUTPUT), count=1), TabularEncoder([1] * 25))
    images = torch.randint(256, (BATCH, 3, SOURCE, SOURCE), dtype=torch.uint8)
    optimizer = torch.optim.Adam(model.encoder.parameters())
    shares = []
    for _ in range(min(pairs, 3)):
        start = time.perf_counter()
        (view,) = model.views(images)
        augmented = time.perf_counter()
        model.encoder(view).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        shares.append((augmented - start) / (time.perf_counter() - start))
    share = sorted(shares)[len(shares) // 2]
    print(f"{'augmentation, share of a training step of ResNet50 at 128 px':<82} {100 * share:>7.2f} %")
    return [{"benchmark": "augmentation, share of a training step, ResNet50", "unit": "share", "ours": round(share, 4)}]


def run(output: Path = Path("results/bench_mmcl.csv"), pairs: int = PAIRS) -> pd.DataFrame:
    """Measure, print ratios and write them.

    Args:
        output: CSV, replaced.
        pairs: Measurements of each ratio.
    """
    pl.seed_everything(0, verbose=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = bench_augment(pairs) + bench_table(pairs) + bench_attributions(pairs)
    torch.set_num_threads(threads)
    rows += bench_step(pairs)
    return write_rows(rows, output, data_kind="synthetic", batch_size=BATCH)


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
