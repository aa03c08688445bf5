"""Tables for TOPCAT, Aladin and spreadsheets, and the table in which leaves are grouped by hand."""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from galaxy_clusters.data.sky import viewer_url
from shared.data.cells import listed, tidy
from shared.data.files import whole
from shared.data.problems import DataError
from shared.data.tables import nearest, read_csv

log = logging.getLogger(__name__)

# Units and UCDs (IVOA vocabulary of content descriptors) of the columns that have them.
UNITS = {"ra": "deg", "dec": "deg"}
UCDS = {
    "id": "meta.id;meta.main",
    "ra": "pos.eq.ra;meta.main",
    "dec": "pos.eq.dec;meta.main",
    "cluster": "meta.code.class",
    "viewer": "meta.ref.url",
}
GROUP = r"[\w .+-]+"  # a group's name is also a file's


def with_links(galaxies: pd.DataFrame) -> pd.DataFrame:
    """The table with the column `viewer`, links to pictures of the sky; unchanged if it has no `ra` and `dec`."""
    if not {"ra", "dec"} <= set(galaxies.columns):
        return galaxies
    places = zip(galaxies["ra"].astype(float), galaxies["dec"].astype(float), strict=True)
    links = [viewer_url(ra, dec) if np.isfinite(ra) and np.isfinite(dec) else None for ra, dec in places]
    return galaxies.assign(viewer=pd.Series(links, index=galaxies.index, dtype="str"))


def write_csv(path: Path, galaxies: pd.DataFrame) -> None:
    """Write a table as CSV; missing values are empty."""
    with whole(path) as part:
        galaxies.to_csv(part, index=False, encoding="utf-8")


def write_votable(path: Path, galaxies: pd.DataFrame) -> None:
    """Write a table as VOTable.

    Text is `char`, or `unicodeChar` where it is more than ASCII; the columns `id`, `ra`, `dec`, `cluster` and `viewer`
    get their UCDs, and positions their unit. Missing numbers are empty cells, missing text is empty text; True, False
    and dates are text.
    """
    from astropy.io.votable import from_table  # takes a while
    from astropy.table import MaskedColumn, Table

    table = Table()
    for name in galaxies.columns:
        values, missing = _cells(galaxies[name])
        table[str(name)] = MaskedColumn(values, mask=missing, unit=UNITS.get(name))
    votable = from_table(table)
    for field in votable.get_first_table().fields:
        field.ucd = UCDS.get(field.name)
    with whole(path) as part:
        votable.to_xml(str(part))


def read_merges(path: Path, leaves: Collection[str], vanished: Collection[str] = ()) -> dict[str, str]:
    """The group of each leaf that `merges.csv` groups by hand.

    Args:
        path: CSV with the columns `cluster` and `group`; a group may have a leaf's name.
        leaves: Names of the clusters.
        vanished: Names of earlier clusters, which may still stand in the file and are left out, as the log says.

    Raises:
        DataError: The file cannot be read, a cluster is unknown or occurs twice, a group's name is none, or a leaf
            that is grouped itself gives its name to another group.
    """
    frame = read_csv(path, ["cluster", "group"], dtype=str, keep_default_na=False)
    merges: dict[str, str] = {}
    for row, (leaf, group) in enumerate(zip(frame["cluster"].str.strip(), frame["group"].str.strip(), strict=True), 2):
        if leaf in merges:
            raise DataError(f"{path}: line {row} groups {leaf} again: leave one of the lines out")
        if leaf not in leaves and leaf not in vanished:
            hint = nearest(leaf, leaves) or f"; there are {', '.join(sorted(leaves)) or 'none'}"
            raise DataError(f"{path}: line {row} names the cluster {leaf!r}, which there is not{hint}")
        if not re.fullmatch(GROUP, group):
            raise DataError(
                f"{path}: line {row} puts {leaf} in the group {group!r}, expected a name of letters, digits, spaces "
                "and . + - _"
            )
        merges[leaf] = group
    if gone := [leaf for leaf in merges if leaf not in leaves]:
        log.info("%s: left out %s, which there is not any more", path, listed(gone))
    merges = {leaf: group for leaf, group in merges.items() if leaf in leaves}
    for leaf, group in merges.items():
        if merges.get(group, group) != group:
            raise DataError(
                f"{path}: {leaf} is put in the group {group}, but the cluster {group} itself in the group "
                f"{merges[group]}: give {leaf} that group too, or call the group otherwise"
            )
    return merges


def apply_merges(clusters: "pd.Series[Any]", merges: Mapping[str, str]) -> "pd.Series[Any]":
    """Names of clusters with those of groups in place of their leaves; missing for galaxies in none, as before."""
    return clusters.map(lambda name: merges.get(name, name), na_action="ignore")


def _cells(column: "pd.Series[Any]") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A column as NumPy values that a VOTable can hold, and which of them are missing."""
    missing = column.isna().to_numpy(bool)
    if pd.api.types.is_integer_dtype(column):
        return column.fillna(0).to_numpy(np.int64), missing
    if pd.api.types.is_float_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan), missing
    texts = ["" if pd.isna(value) else str(value) for value in tidy(column.astype(object))]
    kind = "S" if all(text.isascii() for text in texts) else "U"
    return np.array(texts, dtype=kind), np.zeros(len(texts), bool)
