"""`python -m tabular_imaging predict`: classes and embeddings of new samples, from images or a table alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.data.embeddings import write_embeddings
from shared.data.images import ImageSettings, ImageSource, inside, load_image
from shared.data.problems import DataError, OnError, Problems
from shared.data.spreadsheet import find_image_column, is_id, read_spreadsheet
from shared.methods import Pretraining, Supervised
from shared.probe import encode
from shared.progress import progress
from shared.runs.variant import Variant
from tabular_imaging.data.schema import encode as encode_table
from tabular_imaging.evaluation.classifiers import (
    Evaluator,
    Input,
    Settings,
    encoder_for,
    load_classifier,
    load_data_module,
    load_model,
    own_head,
    save_classifier,
)
from tabular_imaging.methods.pretraining import TabularPretraining

BATCH = 64


def predict(
    run: Path,
    csv: Path,
    root: Path | None = None,
    image_column: str | None = None,
    input: Input = "image",
    output: Path = Path("runs/predictions"),
    on_error: OnError = "skip",
) -> pd.DataFrame:
    """Classify new samples with a trained run, and write `predictions.csv` and `embeddings.parquet`.

    The class comes from a linear classifier on the frozen encoder: the one that `evaluate` saved or, if there is none,
    one that is trained now on the run's own data.

    Args:
        run: The variant to use, `runs/tabular_imaging/<data set>/<variant>`; its first seed predicts.
        csv: Table with one row per sample. It needs a column of image paths, and one of identifiers if the run's data
            had one. With `--input table` it needs all columns that the model was trained on; they are checked against
            the model's schema.
        root: Folder that the image paths are relative to; by default the folder of the CSV.
        image_column: Name of the column of image paths; by default the one given for the run's data, otherwise `image`,
            otherwise the one that holds images.
        input: Whether to predict from the images or from the table. A missing value of the table counts as the training
            mean.
        output: Folder in which the two files, and a list of what was skipped, are written.
        on_error: What to do with an image that cannot be read, and with a value of the table that does not occur in the
            training rows: `skip` it, or `raise` an error. A skipped value counts as missing.

    Returns:
        The content of `predictions.csv`: `id`, `prediction`, and `probability/<class>`.
    """
    variant = Variant(run)
    seed, checkpoint = variant.first, variant.checkpoint(variant.seeds[0])
    model, config = load_model(checkpoint), variant.config["data"]
    kept = checkpoint.with_name(f"classifier_{input}.pt")
    if not kept.is_file() or kept.stat().st_mtime < checkpoint.stat().st_mtime:  # a resumed run has other features
        _train_classifier(model, config, seed, input)
    head, classes = load_classifier(seed, input)
    arguments = config["init_args"]
    id_column = arguments.get("id_column")
    frame = read_spreadsheet(csv, id_column)
    problems = Problems(on_error, noun="sample" if input == "image" else "value")
    column = image_column or arguments.get("image_column") or "image"
    if input == "image" and column == "image" and column not in frame:
        column = find_image_column(frame, csv, "--image_column")
    named = [name for name in frame if is_id(name, id_column)] + [name for name in frame if name == column]
    ids = pd.Series(frame[named[0]] if named else frame.index).astype(str)
    if output.is_file():
        raise DataError(f"{output} is a file; --output names the folder for the results")
    if input == "image":
        settings = ImageSettings(arguments["cache_px"], arguments["channels"], arguments.get("fit", "pad"))  # cardiac
        keep, features = _encode_images(model, frame, column, root or csv.parent, settings, ids, problems)
    else:
        keep, features = _encode_table(model, frame, str(csv), problems)
    problems.write(output / "skipped.csv")
    if not len(keep):
        raise DataError(f"none of the {len(frame)} rows of {csv} could be used; {problems.summary()}")
    scores = torch.from_numpy(head.scores(features))
    probabilities = scores.softmax(1).numpy()
    predicted = np.array(classes, dtype=object)[probabilities.argmax(1)]
    table = pd.DataFrame({"id": ids.to_numpy()[keep], "prediction": predicted})
    for index, name in enumerate(classes):
        table[f"probability/{name}"] = probabilities[:, index].round(6)
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "predictions.csv", index=False)
    write_embeddings(output / "embeddings.parquet", table["id"].tolist(), features.numpy())
    print(f"wrote {len(table)} predictions to {output}/predictions.csv and their embeddings to embeddings.parquet")
    if problems.found:
        print(problems.summary())
    return table


def _train_classifier(model: Pretraining, config: dict[str, object], seed: Path, kind: Input) -> None:
    if isinstance(model, Supervised) and kind == "image":
        save_classifier(seed, kind, own_head(model), model.classes)
        return
    print(f"training the classifier of {seed} on its frozen encoder, once")
    data = load_data_module(config)
    if isinstance(model, TabularPretraining):
        model.use_schema(data.schema)
    found = Evaluator(data, Settings()).classify(_encoder(model, kind), kind, None, [0])
    assert found.head is not None
    save_classifier(seed, kind, found.head, data.classes)


def _encoder(model: Pretraining, kind: Input) -> nn.Module:
    encoder = encoder_for(model, kind)
    if encoder is None:
        raise DataError(f"this run's {type(model).__name__} has no encoder for the input {kind}")
    return encoder


def _encode_images(
    model: Pretraining,
    frame: pd.DataFrame,
    column: str,
    root: Path,
    settings: ImageSettings,
    ids: "pd.Series[str]",
    problems: Problems,
) -> tuple[NDArray[np.int64], Tensor]:
    """Positions of the rows whose images could be read, and their features."""
    if column not in frame:
        raise DataError(f"the table has no column {column} of image paths; name it with --image_column NAME")
    keep: list[int] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        paths = ["" if pd.isna(path) else str(path).strip() for path in frame[column]]
        for start in progress(range(0, len(paths), BATCH), "predict", "batch"):
            images = []
            for row, path in enumerate(paths[start : start + BATCH], start):
                try:
                    if not path:
                        raise DataError("it has no image path")
                    images.append(load_image(ImageSource(str(inside(root, path)), settings)))
                    keep.append(row)
                except DataError as error:
                    problems.add(f"row {row + 2}, {ids.iloc[row]}", str(error))
            if images:
                yield torch.from_numpy(np.stack(images)), torch.zeros(len(images))

    encoder = _encoder(model, "image")
    features = [encode(encoder, [batch]).x for batch in batches()]
    return np.array(keep, dtype=np.int64), torch.cat(features) if features else torch.empty(0)


def _encode_table(
    model: Pretraining, frame: pd.DataFrame, source: str, problems: Problems
) -> tuple[NDArray[np.int64], Tensor]:
    """All rows, and the features of their fields; a missing value is the training mean, or no category."""
    if not isinstance(model, TabularPretraining) or model.schema is None:
        raise DataError(f"this run's {type(model).__name__} has no encoder for tables")
    schema = model.schema.select("all", label_as_feature=False)
    values = encode_table(frame, schema, problems, source)
    missing_as = np.where([column.kind == "categorical" for column in schema.columns], -1.0, 0.0)
    table = torch.from_numpy(np.where(np.isnan(values), missing_as, values).astype(np.float32))
    model.columns = list(range(len(schema.columns)))
    return np.arange(len(frame)), encode(_encoder(model, "table"), [(table, torch.zeros(len(table)))]).x
