"""`python -m tabular_imaging explain`: which fields and pixels a trained model relies on (paper, Figs. 3 to 5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from shared.augment import Views, resize
from shared.backbones import ImageEncoder
from shared.data.problems import DataError
from shared.methods import Pretraining
from shared.probe import LinearHead, encode
from shared.runs.results import update_results
from shared.runs.settings import with_seed
from shared.runs.tracking import save_figure
from shared.runs.variant import Variant
from tabular_imaging.data.module import ImageTableBatch, TabularImagingDataModule
from tabular_imaging.evaluation.classifiers import load_classifier, load_data_module, load_model
from tabular_imaging.evaluation.figures import draw_grad_cam, draw_importance, draw_pairs
from tabular_imaging.methods.pretraining import TabularPretraining
from tabular_imaging.model.attributions import field_importance, guided_grad_cam

FIELDS_SHOWN = 8


def explain(run: Path, root: str | None = None, samples: int = 512, pictures: int = 6) -> pd.DataFrame:
    """Draw the fields that the embeddings rely on, where the classifier looks, and what the model was trained on.

    Args:
        run: The variant to explain, `runs/tabular_imaging/<data set>/<variant>`. The importance is averaged over its
            seeds; the pictures are those of its first one.
        root: Root of the data set; by default the one that the run was trained with.
        samples: Largest number of test samples whose attributions are averaged.
        pictures: Number of test images to show.

    Returns:
        Importance of every field, the largest first; empty for a model of images alone.
    """
    variant = Variant(run)
    seed, dataset = variant.first, variant.dataset
    note = "SYNTHETIC" if variant.is_synthetic else ""
    model = load_model(variant.checkpoint(variant.seeds[0]))
    data = load_data_module(with_seed(variant.config["data"], variant.seeds[0]), {"root": root} if root else {})
    rows = data.rows("test", "evaluate")
    if not len(rows):
        raise DataError("the test split has no labelled sample to explain; change the split")
    # The data may be sorted, so the first samples need not be representative.
    rows = np.random.default_rng(0).permutation(rows)
    table = pd.DataFrame(columns=["field", "importance", "morphometric"])
    if isinstance(model, TabularPretraining):
        batch = next(data.batches(rows[:samples], samples))
        tables = [_importance(load_model(variant.checkpoint(each)), data, batch) for each in variant.seeds]
        shares = [float(of_seed.loc[of_seed["morphometric"], "importance"].sum()) for of_seed in tables]
        for each, share in zip(variant.seeds, shares, strict=True):
            update_results(variant.runs[each], {"importance/morphometric": share})
        table = tables[0].assign(importance=np.mean([of_seed["importance"] for of_seed in tables], axis=0))
        table = table.sort_values("importance", ascending=False, ignore_index=True)
        table.to_csv(run / "importance.csv", index=False)
        figure = draw_importance(
            table["field"].tolist(),
            table["importance"].to_numpy(),
            table["morphometric"].tolist(),
            f"Fields behind the table embedding, {run.name} on {dataset}",
            note=note,
        )
        print(f"wrote {save_figure(figure, seed, f'{dataset}_importance')}")
        if count := table["morphometric"].sum():
            of_seeds = ", ".join(f"{100 * share:.1f}" for share in shares)
            print(
                f"morphometric fields: {100 * np.mean(shares):.1f}% of the importance (by seed: {of_seeds}), "
                f"{count} of {len(table)} fields"
            )
    shown = rows[:pictures]
    batch = next(data.batches(shown, len(shown)))
    views = getattr(model, "views", None)
    if isinstance(views, Views):
        torch.manual_seed(0)
        names = model.schema.names if isinstance(model, TabularPretraining) and model.schema else ()
        fields = [_fields(names, data.frame.iloc[row]) for row in shown]
        figure = draw_pairs(
            batch.image.numpy(),
            views(batch.image)[0].numpy(),
            fields,
            f"What {run.name} is trained on: {dataset}",
            note,
        )
        print(f"wrote {save_figure(figure, seed, f'{dataset}_pairs')}")
    if isinstance(model.encoder, ImageEncoder):
        if not (seed / "checkpoints" / "classifier_image.pt").is_file():
            raise DataError(f"{seed} has no classifier yet: run python -m tabular_imaging evaluate --run {run}")
        head, classes = load_classifier(seed, "image")
        images = resize(batch.image, model.encoder.image_px)
        maps = guided_grad_cam(model.encoder, linear(head), images, batch.target, model.encoder.stage)
        probability = np.exp(head.scores(encode(model.encoder, [(images, batch.target)]).x))
        captions = [
            f"{classes[true]}, " + ("recognised" if true == guess else f"mistaken for {classes[guess]}") + f" ({p:.0%})"
            for true, guess, p in zip(batch.target.tolist(), probability.argmax(1), probability.max(1), strict=True)
        ]
        title = f"Where the classifier sees the true class (guided Grad-CAM), {run.name} on {dataset}"
        figure = draw_grad_cam(images.numpy(), maps.numpy(), captions, title, note)
        print(f"wrote {save_figure(figure, seed, f'{dataset}_grad_cam')}")
    return table


def _importance(model: Pretraining, data: TabularImagingDataModule, batch: ImageTableBatch) -> pd.DataFrame:
    assert isinstance(model, TabularPretraining)
    model.use_schema(data.schema)
    schema = model.schema
    assert schema is not None
    inputs = model.table_encoder.one_hot(model.select(batch.table, batch.target))
    shares = field_importance(model.table_encoder.mlp, inputs, torch.from_numpy(schema.field_of_input))
    return pd.DataFrame(
        {"field": schema.names, "importance": shares.numpy().astype(float), "morphometric": schema.morphometric}
    )


def _fields(names: Sequence[str], row: "pd.Series[Any]") -> dict[str, str]:
    values = {name: row[name] for name in names[:FIELDS_SHOWN]}
    return {name: _short(value) if isinstance(value, float) else str(value) for name, value in values.items()}


def _short(value: float) -> str:
    """A number as text; thousands are separated only from 10,000 on, so that years look like years."""
    return f"{value:,.6g}" if abs(value) >= 10_000 else f"{value:.6g}"


def linear(head: LinearHead) -> nn.Linear:
    """A classifier of standardised features as a linear layer for features that are not standardised."""
    layer = nn.Linear(*head.weight.shape)
    weight: Tensor = head.weight / head.std[:, None]
    layer.weight.data, layer.bias.data = weight.T.contiguous(), head.bias - head.mean @ weight
    return layer
