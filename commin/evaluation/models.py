"""The evaluation of one variant: quality of the images that it receives, at every SNR, beside floors and controls.

A sample is a test image; a protocol is an SNR; every metric has a plain value for each image.

Shapes: N images, S SNRs; R = N S rows, those of an image together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from commin.analogue import LinearCode
from commin.data.images import to_float, to_uint8
from commin.data.module import ImageFoldersDataModule
from commin.evaluation.figures import SENT, draw_curves, draw_parts, draw_pictures
from commin.evaluation.quality import Judge
from commin.evaluation.reception import Reconstructed, read_receivers, reconstruct_all, send_all
from commin.evaluation.tables import print_results
from commin.inversion import Inversion
from commin.methods import JSCC, StyleGAN
from commin.methods.jscc import SNRS
from commin.model import DeepJSCC
from commin.module import CommIN
from commin.noise import unit_normal
from commin.receivers import Received, Receiver, Reconstruction
from shared.checkpoint import load_module
from shared.data.problems import DataError
from shared.evaluation import Evaluation, Job, Protocol
from shared.metrics import difference, interval, mean_values
from shared.runs.scores import Found, Outcome
from shared.runs.settings import file_fingerprint
from shared.runs.variant import Variant

PLAIN = JSCC.title
RANDOM_FACE = "Random training image"
INVERSE = "InverseJSCC, weak generator"  # one that was trained here within an hour
MEAN_FACE, NEAREST = "Mean training image", "Training image nearest to y"
LINEAR, CAPACITY = "Linear analogue code (PCA)", "PCA at capacity (bound)"
OnStep = Callable[[], object]
CODED = 13  # place of the code's noise, see `unit_normal`
SHOWN = 6  # images in the pictures
DRAWN_SNRS = (-5.0, 1.0)  # Figs. 1 and 5


@dataclass(frozen=True)
class Settings:
    """How methods are evaluated.

    Attributes:
        snrs: SNRs in dB, by default the paper's.
        receivers: Names in configs/receivers.yaml.
        controls: Whether to evaluate DeepJSCC itself, linear codes and training images too; without, only receivers.
        images: Number of test images, drawn by their keys; None takes all.
        generator: Checkpoint of a `commin.methods.StyleGAN`, for a row of InverseJSCC.
        lpips: File of LPIPS's weights, see `shared.metrics.image_quality.Lpips`. Without it neither LPIPS nor
            identification by AlexNet's features is measured.
        batch: Transmissions at a time.
        channel_seed: Of the channel's noise.
        sample_seed: Of the samples.
    """

    snrs: list[float] = field(default_factory=lambda: list(SNRS))
    receivers: list[str] = field(default_factory=lambda: ["commin"])
    controls: bool = True
    images: int | None = None
    generator: str | None = None
    lpips: str | None = None
    batch: int = 96
    channel_seed: int = 0
    sample_seed: int = 0


class ReceptionEvaluation(Evaluation[ImageFoldersDataModule]):
    """Image quality at every SNR, for a `CommIN` or a `JSCC` run.

    Args:
        variant: The trained models.
        checkpoints: Their checkpoints by seed.
        data: The data module, set up.
        transfer: Whether the data set is another one than the models were trained on.
        settings: See `Settings`.

    Raises:
        DataError: The variant is neither, or a receiver is not known.
    """

    def __init__(
        self,
        variant: Variant,
        checkpoints: Mapping[int, Path],
        data: ImageFoldersDataModule,
        transfer: bool,
        settings: Settings,
    ) -> None:
        super().__init__(variant, checkpoints, data, transfer)
        if not issubclass(variant.method, CommIN | JSCC):
            raise DataError(f"{variant.folder} is a {variant.method.__name__}, which receives nothing by itself")
        self.settings = settings
        self.receivers = read_receivers(settings.receivers) if issubclass(variant.method, CommIN) else {}
        self.pictures: dict[str, Tensor] = {}

    @property
    def protocols(self) -> dict[str, Protocol]:
        """By name, `<SNR>dB`."""
        return {f"{snr:g}dB": Protocol(f"{snr:g}dB", f"{snr:g} dB", "psnr") for snr in self.settings.snrs}

    def test_rows(self) -> NDArray[np.int64]:
        """The test images; where some are asked for, those with the lowest keys, which is a draw."""
        rows = self.data.rows("test", "evaluate")
        chosen: NDArray[np.int64] = np.sort(rows[np.argsort(self.data.key[rows].numpy())[: self.settings.images]])
        return chosen

    @cached_property
    def image(self) -> Tensor:
        """`(N, 3, H, W)` uint8, what is sent."""
        return torch.from_numpy(self.data.cached(self.test_rows()))

    @cached_property
    def trained_on(self) -> Tensor:
        """Training images, uint8."""
        return torch.from_numpy(self.data.cached(self.data.rows("train", "pretrain")))

    @cached_property
    def judge(self) -> Judge:
        """Measures images."""
        return Judge(self.image, self.data.groups[self.test_rows()], self.trained_on, self.settings.lpips)

    def jobs(self) -> list[Job]:
        """Training images, whatever was sent; then the models."""
        floors = [Job(self._score_floors, key=f"floors {self.settings}")] if self.settings.controls else []
        return [*floors, *(Job(partial(self._score, seed), seed) for seed in self.checkpoints)]

    def _score_floors(self) -> Found:
        """Images that know nothing of what was sent, and what was sent."""
        rng = np.random.default_rng(self.settings.sample_seed)
        drawn = self.trained_on[rng.integers(len(self.trained_on), size=len(self.image))]
        mean = to_uint8(to_float(self.trained_on).mean(0, keepdim=True)).expand_as(self.image)
        found: Found = {name: {} for name in self.protocols}
        for row, image in ((MEAN_FACE, mean), (RANDOM_FACE, drawn), (SENT, self.image)):
            values = self.judge.values(image)
            for name in self.protocols:
                found[name][row] = Outcome([0], values={key: value[None] for key, value in values.items()})
        return found

    def _score(self, seed: int) -> Found:
        """Every receiver's images of one trained model, measured."""
        path = self.checkpoints[seed]
        model = load_module(path, self.variant.method).requires_grad_(False)
        jscc: DeepJSCC = model.jscc if isinstance(model, CommIN) else model.net
        settings, keys = self.settings, self.data.key[self.test_rows()]
        received = send_all(jscc, self.image, keys, settings.snrs, settings.channel_seed, settings.batch)
        found: Found = {name: {} for name in self.protocols}
        if isinstance(model, JSCC):
            self._measure(found, self.variant.title, to_uint8(received.y), received, jscc, seed)
            return found
        if settings.controls:
            self._measure(found, PLAIN, to_uint8(received.y), received, jscc, seed)
            nearest = self.trained_on[self.judge.nearest_training(to_uint8(received.y))]
            self._measure(found, NEAREST, nearest, received, jscc, seed)
            for row, image in self._linear(jscc, received).items():
                self._measure(found, row, image, received, None, seed)
        folder = self.variant.runs[seed] / "received"
        seeds = (settings.channel_seed, settings.sample_seed)
        about = repr((file_fingerprint(path), self.data.fingerprint(), keys.tolist(), seeds))
        for name, receiver in self.receivers.items():
            title = self.variant.title if name == "commin" else receiver.title
            steps = len(receiver.sampling.levels(len(model.prior.alpha_bar))) * receiver.samples

            def by_receiver(part: Received, on_step: OnStep, receiver: Receiver = receiver) -> Reconstruction:
                return receiver.reconstruct(model, part, settings.sample_seed, on_step)

            made = reconstruct_all(by_receiver, steps, received, settings.batch, folder, (receiver, about))
            self._measure(found, title, made.image, received, jscc, seed, seconds=made.seconds)
        if settings.generator:
            made = self._inverted(settings.generator, jscc, received, folder, about)
            self._measure(found, INVERSE, made.image, received, jscc, seed, seconds=made.seconds)
        if seed == next(iter(self.checkpoints)):
            self._keep_parts(model, received)
        return found

    def _inverted(self, generator: str, jscc: DeepJSCC, received: Received, folder: Path, about: str) -> Reconstructed:
        """What InverseJSCC makes of the same transmissions."""
        net = load_module(generator, StyleGAN).net.requires_grad_(False)
        inversion = Inversion(title=INVERSE)

        def search(part: Received, on_step: OnStep) -> Reconstruction:
            image = inversion.reconstruct(net, jscc, part, self.settings.sample_seed, on_step=on_step)
            return Reconstruction(image, torch.zeros_like(image[:, 0]))

        depends = (inversion, file_fingerprint(Path(generator)), about)
        return reconstruct_all(search, sum(inversion.rounds), received, self.settings.batch, folder, depends)

    def _linear(self, jscc: DeepJSCC, received: Received) -> dict[str, Tensor]:
        """What codes without a network receive, with as many symbols and the same noise."""
        count = len(self.settings.snrs)
        code = LinearCode.fit(to_float(self.trained_on).flatten(1))
        image = to_float(self.image).flatten(1).repeat_interleave(count, 0)
        seed, keys, snr_db = self.settings.channel_seed, received.keys, received.snr_db
        noise = jscc.noise_for(seed, keys)
        analogue = code.send_linear(image, snr_db, noise)
        normal = unit_normal(seed, keys, (len(code.variances),), CODED).double()
        bound = code.send_at_capacity(image, noise.shape[1], snr_db, normal)
        shape = (len(image), *self.image.shape[1:])
        return {LINEAR: to_uint8(analogue.reshape(shape)), CAPACITY: to_uint8(bound.reshape(shape))}

    def _measure(
        self,
        found: Found,
        row: str,
        image: Tensor,
        received: Received,
        jscc: DeepJSCC | None,
        seed: int,
        seconds: float = 0.0,
    ) -> None:
        """Measure a row's images, `(R, 3, H, W)` uint8, and put the values of each SNR where they belong."""
        self.pictures.setdefault(row, image)
        values = self.judge.values(image)
        if jscc is not None:
            values |= self.judge.sent_again(image, received, jscc)
        values["seconds"] = np.full(len(image), seconds)
        count = len(self.settings.snrs)
        for place, name in enumerate(self.protocols):
            mine = {key: value.reshape(-1, count)[:, place][None] for key, value in values.items()}
            found[name][row] = Outcome([seed], values=mine)

    @torch.no_grad()
    def _keep_parts(self, model: CommIN, received: Received) -> None:
        """The pictures of Fig. 2 at the lowest SNR: x, c, y and d."""
        first = torch.arange(min(SHOWN, len(self.image))) * len(self.settings.snrs)
        x, snr_db = to_float(self.image[: len(first)]), received.snr_db[first]
        c, d = model.inn(x, snr_db)
        coarse, details = (model.inn.picture(part) for part in (c, d))
        self.parts = {"x": x, "c = INN(x)": coarse, "y = received": received.y[first], "d": details}

    def table(self, found: Found) -> pd.DataFrame:
        """One row for each SNR, method and metric, with the paired difference to DeepJSCC where that is evaluated.

        Intervals are over persons, or images where nobody says who they show.
        """
        groups = self.data.groups[self.test_rows()]
        rows = []
        for name, protocol in self.protocols.items():
            for row, outcome in found[name].items():
                for metric, values in outcome.values.items():
                    rows.append(
                        {"protocol": name, "title": protocol.title, "method": row, "metric": metric}
                        | row_of(values, groups, _plain(found[name], metric))
                    )
        return pd.DataFrame(rows)

    def target(self) -> tuple[list[str], NDArray[np.float32]]:
        """There are no classes."""
        return [], np.zeros((len(self.image), 0), dtype=np.float32)

    def seed_values(self, protocol: Protocol, outcome: Outcome) -> dict[str, float]:
        """The mean of every metric."""
        return {metric: float(values.mean()) for metric, values in outcome.values.items()}

    def figures(self, found: Found, table: pd.DataFrame, dataset: str, note: str) -> dict[str, Figure]:
        """Quality against SNR (Fig. 4), images at two SNRs (Figs. 1 and 5), and the INN's parts (Fig. 2)."""
        title = f"{self.variant.title} on {dataset}"
        figures = {"curves": draw_curves(table, title, note)}
        count, images = len(self.settings.snrs), slice(None, SHOWN)
        for snr in DRAWN_SNRS:
            if snr in self.settings.snrs:
                place = self.settings.snrs.index(snr)
                columns = {row: image[place::count][images] for row, image in self.pictures.items()}
                sent = {SENT: self.image[images]}
                figures[f"images_{snr:g}dB"] = draw_pictures(sent | columns, f"{title}, {snr:g} dB", note)
        if self.receivers:
            figures["parts"] = draw_parts(self.parts, f"{title}, {self.settings.snrs[0]:g} dB", note)
        return figures

    def print(self, table: pd.DataFrame, dataset: str, kind: str) -> None:
        """Print a table for each metric, with a column for each SNR."""
        print_results(table, dataset, kind)


def row_of(
    values: NDArray[np.float64], groups: NDArray[np.int64], plain: NDArray[np.float64] | None
) -> dict[str, float]:
    """The columns of a metric's row.

    Args:
        values: `(M, N)`.
        groups: `(N,)`.
        plain: `(M', N)`, the same metric of DeepJSCC; None where there is none.

    Returns:
        `models`, `samples`, `persons`, `value` with `low` and `high`, and `over` (the paired difference to DeepJSCC)
        with `over_low`, `over_high` and `over_p`.
    """
    bounded = all(((array >= 0) & (array <= 1)).all() for array in (values, plain) if array is not None)
    mine = mean_values(values, groups, bounded)
    value, low, high, _ = interval(mine)
    found = {"models": len(values), "samples": values.shape[1], "persons": len(np.unique(groups))}
    found |= {"value": value, "low": low, "high": high}
    if plain is not None and not np.array_equal(plain, values):
        names = ("over", "over_low", "over_high", "over_p")
        found |= dict(zip(names, difference(mine, mean_values(plain, groups, bounded)), strict=True))
    return found


def _plain(rows: Mapping[str, Outcome], metric: str) -> NDArray[np.float64] | None:
    outcome = rows.get(PLAIN)
    return None if outcome is None else outcome.values.get(metric)
