"""`python -m meta_robust contrasts`: what each part of RML gives, in words."""

from pathlib import Path

import pandas as pd

from meta_robust.evaluation.contrasts import contrast_rows, in_words, read_contrasts
from meta_robust.evaluation.tables import CONFIGS, METRIC
from shared.runs.results import append_results
from shared.runs.variant import Variant


def contrasts(run: list[str], results: Path | None = None) -> pd.DataFrame:
    """Print the lines of configs/contrasts.yaml: differences of two variants, on the same tasks of novel classes.

    Args:
        run: Evaluated variants, `runs/meta_robust/<data set>/<variant>`, all of the same data set.
        results: CSV file that the rows are appended to.

    Returns:
        One row for each line, evaluated data set and protocol; values are fractions, not percent.
    """
    variants = [Variant(Path(folder)) for folder in run]
    rows = contrast_rows(read_contrasts(CONFIGS.folder / "contrasts.yaml"), variants)
    kind = "synthetic" if variants[0].is_synthetic else "real"
    for (dataset, title), part in rows.groupby(["dataset", "title"], sort=False):
        said = kind.replace("synthetic", "SYNTHETIC")
        print(f"\ntrained on {variants[0].dataset}, evaluated on {dataset} ({said} data), {title}, {METRIC}:")
        for row in part.to_dict("records"):
            print(f"- {in_words(row)}")
    print(
        "\n[...]: 95% interval of drawing tasks from these classes, and of the models. Beyond noise: the p-value, "
        "adjusted for the lines of the same tasks (Holm), is below 0.05. One model does not know the noise of training."
    )
    if results:
        named = {variant.name: variant.save_config(results) for variant in variants}
        config = [f"{named[plus]} {named[minus]}" for plus, minus in zip(rows["plus"], rows["minus"], strict=True)]
        append_results(rows.round(4).assign(trained_on=variants[0].dataset, data_kind=kind, config=config), results)
    return rows
