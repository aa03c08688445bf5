"""The paper's claims beside ours, from what `reproduce` has made: `table`, `statements` and `bottleneck`."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from galaxy_clusters.clustering.graph import prepared
from galaxy_clusters.data.module import SurveyDataModule
from galaxy_clusters.evaluation import Points
from galaxy_clusters.evaluation.bottleneck import beside, pca_curve, probe, votes_beside, votes_likelihood
from galaxy_clusters.evaluation.encoders import (
    FEATURES,
    MEASURES,
    Reading,
    corrected,
    encoder_rows,
    known_classes,
    read_classes,
    read_reading,
)
from galaxy_clusters.evaluation.found import CONFIGS, REMARKS, Found
from galaxy_clusters.evaluation.statements import read_statements, try_statements
from shared.data.embeddings import read_embeddings
from shared.data.problems import DataError
from shared.runs.results import append_results
from shared.runs.settings import saved_settings
from shared.runs.table import SYNTHETIC_WARNING
from shared.runs.variant import Variant, load_data

STATEMENTS = CONFIGS.folder / "tables" / "statements.yaml"
SHOWN = ("encoder", "seeds", "class", "galaxies", "base_rate", "neighbour_purity", "neighbour_purity_low",
         "neighbour_purity_high", "above_floor", "above_floor_holm", *MEASURES, "leaves", "assigned")  # fmt: skip


def table(
    run: list[str], what: Literal["compared", "artefacts"] = "compared", results: Path | None = None
) -> pd.DataFrame:
    """Compare encoders by what known classes become in them, all on the same galaxies.

    Beside them stand two floors: numbers that need no training, and an encoder with random weights. What the floors
    find too, a trained representation need not be thanked for.

    Args:
        run: Variants, `runs/galaxy_clusters/<data set>/<variant>`; those that are not there yet are named.
        what: `compared`: the classes that are known; `artefacts`: the kinds of artefacts, which no label tells apart,
            without the cut of artefacts (section 4, Fig. 2).
        results: CSV file that the rows are appended to.

    Returns:
        For each encoder a row a class, over all its seeds and for each of them; values are fractions.

    Raises:
        DataError: No variant is there.
    """
    variants = _trained(run, what)
    folder = variants[0].folder.parent
    classes = read_classes(folder, what)
    floor = _reading(folder / FEATURES / what, classes, "-")
    rows = encoder_rows(FEATURES, [floor]) if floor else []
    of_seeds = []
    for variant in variants:
        if (random := _reading(variant.first / f"{what}_untrained", classes, "-")) is not None:
            rows += encoder_rows("untrained", [random], floor)
        found = [_reading(path / what, classes, str(seed)) for seed, path in variant.runs.items()]
        known = [each for each in found if each]
        rows += encoder_rows(variant.name, known, floor)
        of_seeds += [row for each in known for row in encoder_rows(variant.name, [each])] if len(known) > 1 else []
    shown = pd.concat([corrected(rows), pd.DataFrame(of_seeds)], ignore_index=True)
    print(f"\n{_warning(variants)}{len(classes)} galaxies, the same for all; the floor is {FEATURES}:")
    print(shown[[name for name in SHOWN if name in shown]].round(3).to_string(index=False))
    return _kept(shown, what, variants, results)


def statements(run: list[str], results: Path | None = None) -> pd.DataFrame:
    """What the paper says of its settings (configs/tables/statements.yaml), tried on one encoder.

    Args:
        run: Variants; the first seed of the first that is there is the encoder.
        results: CSV file that the rows are appended to.

    Returns:
        A row a statement and setting, see `try_statements`.

    Raises:
        DataError: No variant is there.
    """
    first = _trained(run, "compared")[0]
    found = Found.read(first.first / "compared")
    classes = read_classes(first.folder.parent, "compared").reindex(found.members["id"])
    codes, names = pd.factorize(classes, sort=True)
    x = prepared(found.values(), found.settings.scaling)
    rows = try_statements(x, codes, found.settings, read_statements(STATEMENTS), first.first / "statements")
    print(f"\n{_warning([first])}{first.name}, {len(x)} galaxies, {len(names)} known classes:")
    for (section, says), part in rows.groupby(["section", "says"], sort=False):
        print(f"\nSection {section}: {says}")
        print(part.drop(columns=["section", "says"]).round(3).to_string(index=False))
    return _kept(rows.assign(encoder=first.name, galaxies=len(x)), "statements", [first], results)


def bottleneck(run: str, without: str | None = None, seed: int = 0, results: Path | None = None) -> pd.DataFrame:
    """What a bottleneck loses (section 3): linear probes of known classes, PCA, and the votes' likelihood.

    Args:
        run: A variant with a bottleneck.
        without: One that was trained without. By default the first one's own features below its bottleneck are the
            comparison (`embed --control wide`, into `embeddings_wide` of its runs), and votes are left out.
        seed: Of the folds.
        results: CSV file that the rows are appended to.

    Returns:
        A row a measure: both values and their difference, paired by galaxies, with its 95% interval.

    Raises:
        DataError: A variant is not there, or the survey has no known classes.
    """
    first = _trained([run], "embeddings")[0]
    last = _trained([without], "embeddings")[0] if without else first
    data: SurveyDataModule = load_data(SurveyDataModule, saved_settings(first.first)["data"], {})
    galaxies = data.frame.assign(**{"class": known_classes(data)})[~data.faulty].dropna(subset="class")
    codes, names = pd.factorize(galaxies["class"], sort=True)
    narrow = [_vectors(path / "embeddings", galaxies["id"]) for path in first.runs.values()]
    beneath = "embeddings" if without else "embeddings_wide"
    wide = [_vectors(path / beneath, galaxies["id"]) for path in last.runs.values()]
    one, two = probe(narrow, codes, seed), probe(wide, codes, seed)
    rows = [beside("accuracy", one.accuracy, two.accuracy), beside("macro AUROC", one.auroc, two.auroc)]
    for name, with_it, without_it in zip(names, one.by_class, two.by_class, strict=True):
        rows.append({"measure": f"AUROC of {name}", "with": with_it, "without": without_it})
    if without and data.schema:
        held = data.rows(data.splits[2], "pretrain")
        ids, votes = data.frame["id"].iloc[held], data.votes[held]
        likelihoods = [
            [votes_likelihood(each.checkpoint(seed), _vectors(path / "embeddings", ids), votes)
             for seed, path in each.runs.items()]
            for each in (first, last)
        ]  # fmt: skip
        rows += votes_beside([question.name for question in data.schema.questions], *map(np.stack, likelihoods))
    shown = pd.DataFrame(rows).assign(galaxies=len(codes), columns=narrow[0].shape[1], columns_without=wide[0].shape[1])
    curve = pca_curve(wide[0], codes, seed).assign(galaxies=len(codes))
    print(f"\n{_warning([first])}{first.name} beside {without or 'the features below its bottleneck'}:")
    print(shown.round(4).to_string(index=False))
    print("\nprincipal components of the features without a bottleneck, first seed:")
    print(curve.round(4).to_string(index=False))
    return _kept(
        pd.concat([shown, curve], ignore_index=True), "bottleneck", list(dict.fromkeys([first, last])), results
    )


def _trained(run: list[str], part: str) -> list[Variant]:
    """The variants of which a run has a part; the others are named."""
    folders = [Path(folder) for folder in run]
    there = [folder for folder in folders if any(folder.glob(f"seed_*/{part}"))]
    missing = ", ".join(str(folder) for folder in folders if folder not in there)
    if not there:
        raise DataError(f"no run of {missing} holds {part}: train and prepare it with `make table-galaxies`")
    if missing:
        print(f"not trained and prepared yet, and left out: {missing}")
    return [Variant(folder) for folder in there]


def _reading(folder: Path, classes: "pd.Series[str]", seed: str) -> Reading | None:
    return read_reading(folder, classes, seed) if (folder / REMARKS).is_file() else None


def _vectors(embeddings: Path, ids: "pd.Series[str]") -> Points:
    """The representation of galaxies, in their order."""
    found = read_embeddings(embeddings)
    own: Points = found.values[pd.Series(np.arange(len(found.ids)), index=found.ids)[ids].to_numpy()]
    return own


def _warning(variants: list[Variant]) -> str:
    return f"{SYNTHETIC_WARNING}\n" if variants[0].is_synthetic else ""


def _kept(rows: pd.DataFrame, name: str, variants: list[Variant], results: Path | None) -> pd.DataFrame:
    """The rows, appended to the results where these are wanted."""
    if results:
        configs = " ".join(variant.save_config(results) for variant in variants)
        kind = "synthetic" if variants[0].is_synthetic else "real"
        said = {"table": name, "dataset": variants[0].dataset, "data_kind": kind, "config": configs}
        append_results(rows.round(5).assign(**said), results)
    return rows
