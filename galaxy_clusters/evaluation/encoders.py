"""Encoders beside one another, on the same galaxies: how known classes lie in them, and whether leaves find these."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.clustering.graph import prepared
from galaxy_clusters.data.catalogue import read_catalogue
from galaxy_clusters.data.cuts import apply_cuts, read_cuts
from galaxy_clusters.data.module import SurveyDataModule
from galaxy_clusters.evaluation.enrichment import neighbour_shares
from galaxy_clusters.evaluation.found import CUTS, RECOVERY, REMARKS, Found
from shared.data.problems import DataError
from shared.metrics import Interval, difference, holm, interval, mean_values

HIDDEN = "supervised_hidden"  # variant of a set, whose classes and split say what encoders are compared on
FEATURES = "features"  # the floor: numbers that need no training
TRUTH = "truth.csv"  # of a survey with planted classes
KIND, ARTEFACT_KIND, NO_ARTEFACT = "kind", "artefact_kind", "no artefact"
# Of the leaf that is most like a class, and of the one that is most enriched in it.
MEASURES = ("jaccard", "purity", "recall", "p_family", "enriched_purity", "patches_as_good", "enriched_p")
VOTES = ("balanced_accuracy", "upper", "chance", "p", "detectable", "word")  # of `Independence`


def known_classes(data: SurveyDataModule, artefacts: bool = False) -> "pd.Series[str]":
    """The class of each galaxy of a survey, missing where it is not known: its target, or what was drawn.

    Args:
        data: The survey, set up.
        artefacts: Whether to tell the kinds of artefacts apart, which no label does.

    Raises:
        DataError: The survey does not say.
    """
    frame, truth = data.frame, data.root / TRUTH
    if data.target_column and not artefacts:
        return pd.Series(data.labels, frame.index).replace("", None)
    drawn = read_catalogue(truth).set_index("id") if truth.is_file() else pd.DataFrame()
    if not {KIND, ARTEFACT_KIND} <= set(drawn):
        wanted = "the kinds of artefacts" if artefacts else "a class of any galaxy"
        raise DataError(f"{data.catalogue}: nobody knows {wanted}; {truth.name} beside it would say, as {KIND} and "
                        f"{ARTEFACT_KIND}")  # fmt: skip
    if artefacts:
        return frame["id"].map(drawn[ARTEFACT_KIND].fillna(NO_ARTEFACT))
    return frame["id"].map(drawn[KIND])


def compared(data: SurveyDataModule, artefacts: bool = False) -> pd.DataFrame:
    """The galaxies that encoders are compared on: the same for all, whatever each of them predicts.

    Where classes were hidden from a training: these, and the part of the others that it neither learned nor selected
    on. Elsewhere those that pass the paper's cuts, by the volunteers' votes, since not every encoder predicts votes.

    Args:
        data: The survey, set up.
        artefacts: Whether to leave out the last cut, that of artefacts (section 4).

    Returns:
        `id` and `class`.

    Raises:
        DataError: See `known_classes`.
    """
    frame = data.frame.assign(**{"class": known_classes(data, artefacts)})[~data.faulty]
    if data.hidden_classes:
        frame = frame[frame["class"].isin(data.hidden_classes) | (frame["split"] == data.splits[2])]
    elif data.schema:
        cuts = read_cuts(CUTS / "paper.yaml")
        frame, _ = apply_cuts(frame, cuts[:-1] if artefacts else cuts, data.schema)
    return pd.DataFrame(frame[["id", "class"]]).reset_index(drop=True)


def read_classes(folder: Path, what: str) -> "pd.Series[str]":
    """The classes that `compared` gave, by the galaxies' identifiers.

    Args:
        folder: Of a data set's runs.
        what: Which comparison.
    """
    found: pd.Series[str] = read_catalogue(folder / f"{what}.csv").set_index("id")["class"]
    return found


@dataclass(frozen=True)
class Reading:
    """What one model's representation shows of known classes.

    Attributes:
        seed: Of its training.
        classes: A row a class, as `assess` wrote it, with the p-values of both leaves.
        shares: By class, of each member's ten nearest neighbours `(n,)`.
        leaves: Their number.
        assigned: Share of the galaxies in leaves.
        votes: Whether leaves follow from the votes within the artefact answer, see `Independence`; empty without votes.
    """

    seed: str
    classes: pd.DataFrame
    shares: dict[str, NDArray[np.float64]]
    leaves: int
    assigned: float
    votes: dict[str, Any]


def read_reading(folder: Path, classes: "pd.Series[str]", seed: str) -> Reading:
    """Read what `cluster` and `assess` left in a folder.

    Args:
        folder: Of the clustering.
        classes: Class of each galaxy, by its identifier.
        seed: Of the training.
    """
    found = Found.read(folder)
    table = pd.read_csv(folder / RECOVERY, dtype={"class": str, "cluster": str, "enriched": str}).set_index("class")
    p = found.with_evidence(folder).set_index("cluster").reindex(columns=["p_family"])["p_family"]
    table["p_family"], table["enriched_p"] = table["cluster"].map(p), table["enriched"].map(p)
    kinds = classes.reindex(found.members["id"])
    known = kinds.notna().to_numpy()
    x, kinds = prepared(found.values(), found.settings.scaling)[known], kinds[known]
    shares = {name: neighbour_shares(x, (kinds == name).to_numpy()) for name in table.index}
    assigned = float((found.members["label"] >= 0).mean())
    votes = json.loads((folder / REMARKS).read_text(encoding="utf-8"))["independence"] or {}
    return Reading(seed, table, shares, len(found.clusters), assigned, votes)


def encoder_rows(encoder: str, readings: Sequence[Reading], floor: Reading | None = None) -> list[dict[str, Any]]:
    """A row for each class: the mean over an encoder's models, with 95% intervals.

    The interval of the neighbours' purity is over galaxies and models, that of other measures over models.

    Args:
        encoder: Its name.
        readings: Of its models, of the same galaxies.
        floor: What it should exceed; the difference in purity is paired by galaxies.
    """
    first, rows = readings[0], []
    for name in first.shares:
        shares = mean_values(np.stack([each.shares[name] for each in readings]))
        row: dict[str, Any] = {
            "encoder": encoder, "seeds": " ".join(each.seed for each in readings), "class": name,
            "galaxies": first.classes["galaxies"][name], "base_rate": first.classes["base_rate"][name],
        } | _with_ends("neighbour_purity", interval(shares))  # fmt: skip
        if floor is not None:
            above = difference(shares, mean_values(floor.shares[name]))
            row |= {**_with_ends("above_floor", above), "above_floor_p": above.p}
        for measure in MEASURES:
            row |= _over_models(measure, [each.classes[measure][name] for each in readings])
        row |= _over_models("leaves", [each.leaves for each in readings], bounded=False)
        row |= _over_models("assigned", [each.assigned for each in readings])
        rows.append(row | ({f"votes_{name}": first.votes.get(name) for name in VOTES} if len(readings) == 1 else {}))
    return rows


def corrected(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table, the p-values of each class corrected for the number of encoders (Holm)."""
    table = pd.DataFrame(rows)
    if "above_floor_p" in table:
        table["above_floor_holm"] = table.groupby("class")["above_floor_p"].transform(lambda p: holm(p))
    return table


def _over_models(name: str, values: Sequence[float], bounded: bool = True) -> dict[str, float]:
    known = [value for value in values if not np.isnan(value)]
    return _with_ends(
        name, interval(mean_values(known, bounded=bounded)) if known else Interval(np.nan, np.nan, np.nan)
    )


def _with_ends(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
