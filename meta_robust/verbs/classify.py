"""`python -m meta_robust classify`: sort a person's own photographs by a few examples of each class."""

import logging
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from meta_robust.data.class_folders import class_folders
from meta_robust.data.module import saved_image_settings
from meta_robust.evaluation.figures import draw_classified
from meta_robust.methods import EpisodicMethod
from meta_robust.methods.episodic import unit
from shared.checkpoint import load_module
from shared.data.image_folders import folders_below, images_of
from shared.data.images import ImageSettings, ImageSource, load_image
from shared.data.problems import DataError, OnError, Problems
from shared.progress import progress
from shared.runs.tracking import save_figure

log = logging.getLogger(__name__)

BATCH = 64
SHOWN = 30  # queries in the picture
Pixels = NDArray[np.uint8]


class Support(NamedTuple):
    """The examples, in an order that depends on their pixels alone, so that no name of a file or folder matters.

    Attributes:
        classes: Names of the N classes.
        images: `(n, 3, S, S)` float32 in [0, 1].
        labels: `(n,)` int64, places in `classes`.
    """

    classes: list[str]
    images: Tensor
    labels: Tensor


def classify(
    checkpoint: Path,
    support: Path,
    query: Path,
    output: Path = Path("runs/classify"),
    on_error: OnError = "skip",
) -> pd.DataFrame:
    """Classify photographs by a few examples of each class; write `predictions.csv` and a picture.

    A photograph's prediction depends neither on the other ones nor on the names of files and folders: batch norm uses
    the statistics of the examples, or of the training where the method keeps them. Classes may have unequal numbers of
    examples; each class weighs alike.

    Args:
        checkpoint: Checkpoint of a trained run (`<run>/checkpoints/best.ckpt`), of any method.
        support: Folder with a folder of examples for each class, two classes or more.
        query: Folder of the photographs to classify, also in folders below it.
        output: Folder in which `predictions.csv`, `figures/classified.png` and a list of what was skipped are written.
        on_error: What to do with an image that cannot be read: `skip` it, or `raise` an error.

    Returns:
        The content of `predictions.csv`: `id`, `prediction`, `probability/<class>`; `distance` to the mean of that
        class in the encoder's features; and `farther_than`, the share of some distances that it exceeds, which are, as
        `compared_with` says, those of the class's `own examples` from the mean of its others or, where there is only
        one example, those from it to the means of the `other classes`. At 1.0 the photograph may show none of the
        classes.

    Raises:
        DataError: A folder is missing or empty, lies within the other, or holds fewer than two classes; an image cannot
            be read and `on_error` is `raise`; a class has no image that can be read.
    """
    model = load_module(checkpoint, EpisodicMethod)  # type: ignore[type-abstract]
    settings = saved_image_settings(checkpoint)
    check_apart(support, query)
    problems = Problems(on_error, noun="image")
    examples = read_support(support, settings, problems)
    names, images = read_queries(query, settings, problems)
    problems.write(output / "skipped.csv")
    if not names:
        raise DataError(f"{query} holds no image that can be classified; {problems.summary()}")
    model.forget_class_order()
    mode = model.mode_alone
    classifier = model.task_classifier(examples.images, examples.labels, len(examples.classes))
    logits, features = [], []
    for start in progress(range(0, len(images), BATCH), "classify", "batch"):
        part = unit(torch.from_numpy(images[start : start + BATCH]))
        logits.append(classifier(part, mode))
        both = model.embed(torch.cat([examples.images, part]), mode, len(examples.images)).flatten(1)
        features.append(both[len(examples.images) :])
    own = both[: len(examples.images)]
    table = predictions(names, torch.cat(logits), torch.cat(features), own, examples)
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "predictions.csv", index=False)
    by_class = {name: examples.images[examples.labels == place].numpy() for place, name in enumerate(examples.classes)}
    figure = draw_classified(dict(sorted(by_class.items())), images[:SHOWN], table[:SHOWN], model.title)
    said = "not known" if model.accuracy_alone is None else f"{100 * model.accuracy_alone:.1f}%"
    print(
        f"{model.title}, batch norm: {mode}; accuracy on validation tasks of its training "
        f"({model.shape.ways}-way {model.shape.shots}-shot): {said}"
    )
    far = int((table["farther_than"] == 1).sum())
    print(f"{far} of {len(table)} lie farther from their class than all that they are compared with")
    print(f"wrote {output}/predictions.csv and {save_figure(figure, output, 'classified')}")
    return table


def check_apart(support: Path, query: Path) -> None:
    """Check that neither folder lies within the other.

    Raises:
        DataError: It does, or there is no such folder.
    """
    for folder in (support, query):
        if not folder.is_dir():
            raise DataError(f"no folder {folder}")
    one, other = support.resolve(), query.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise DataError(f"{query} and {support} lie within each other: keep photographs and examples in two folders")


def read_support(folder: Path, settings: ImageSettings, problems: Problems) -> Support:
    """The examples of each class.

    Raises:
        DataError: See `classify`.
    """
    found: dict[str, list[tuple[bytes, Pixels]]] = {}  # of each class its images with their digests, in that order
    for name, path in class_folders(folder).items():
        files = images_of(path)[0]
        read = _read(files, [f"{name}/{file.name}" for file in files], settings, problems)
        if not read:
            raise DataError(f"the class folder {path} holds no image that can be read; {problems.summary()}")
        digested = [(sha256(image.tobytes()).digest(), image) for image in read.values()]
        found[name] = sorted(digested, key=lambda each: each[0])
    if len(found) < 2:
        raise DataError(f"{folder} holds one class, {next(iter(found))}: there is nothing to tell it from")
    holders: dict[bytes, set[str]] = defaultdict(set)
    for name, images in found.items():
        for digest, _ in images:
            holders[digest].add(name)
    for several in (sorted(each) for each in holders.values() if len(each) > 1):
        log.warning("the classes %s have the same photograph among their examples", " and ".join(several))
    classes = sorted(found, key=lambda name: [digest for digest, _ in found[name]])
    labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes])
    pixels = np.stack([image for name in classes for _, image in found[name]])
    return Support(classes, unit(torch.from_numpy(pixels)), torch.from_numpy(labels))


def read_queries(folder: Path, settings: ImageSettings, problems: Problems) -> tuple[list[str], Pixels]:
    """Names relative to the folder, and images `(m, 3, S, S)`."""
    files = [file for path in [folder, *folders_below(folder)] for file in images_of(path)[0]]
    read = _read(files, [file.relative_to(folder).as_posix() for file in files], settings, problems)
    return list(read), np.stack(list(read.values())) if read else np.empty(0, np.uint8)


def _read(files: list[Path], names: list[str], settings: ImageSettings, problems: Problems) -> dict[str, Pixels]:
    found = {}
    for file, name in zip(files, names, strict=True):
        try:
            found[name] = load_image(ImageSource(str(file), settings))
        except DataError as error:
            problems.add(name, str(error))
    return found


def predictions(names: list[str], logits: Tensor, features: Tensor, own: Tensor, support: Support) -> pd.DataFrame:
    """The table that `classify` writes.

    Args:
        names: Of the m queries.
        logits: `(m, N)`.
        features: `(m, D)` of the queries.
        own: `(n, D)` of the examples.
        support: The examples.
    """
    probabilities = logits.softmax(1)
    chosen = probabilities.argmax(1)
    table = pd.DataFrame({"id": names, "prediction": [support.classes[place] for place in chosen.tolist()]})
    for place, name in sorted(enumerate(support.classes), key=lambda item: item[1]):
        table[f"probability/{name}"] = probabilities[:, place].numpy().round(6)
    groups = [own[support.labels == place] for place in range(len(support.classes))]
    means = torch.stack([group.mean(0) for group in groups])
    distance = (features - means[chosen]).norm(dim=1)
    table["distance"] = distance.numpy().round(6)
    known = []
    for place, group in enumerate(groups):
        others = torch.cat([means[:place], means[place + 1 :]])
        known.append(own_distances(group) if len(group) > 1 else (group - others).norm(dim=1))
    pairs = zip(chosen, distance, strict=True)
    table["farther_than"] = [float((known[place] < far).float().mean()) for place, far in pairs]
    table["compared_with"] = ["own examples" if len(groups[place]) > 1 else "other classes" for place in chosen]
    return table


def own_distances(group: Tensor) -> Tensor:
    """Distance `(k,)` of each of a class's k > 1 examples `(k, D)` from the mean of the others."""
    others = (group.sum(0) - group) / (len(group) - 1)
    found: Tensor = (group - others).norm(dim=1)
    return found
