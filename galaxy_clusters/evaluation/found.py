"""What a clustering leaves on disk, and what `assess` and the report start from.

members.parquet   one row a galaxy: id, row (of the embeddings), cluster (its name, missing without), label, strength,
                  x and y on the map, and the columns of the catalogue
clusters.csv      one row a cluster: cluster (its name), size, birth, death, persistence, exemplar (its id)
clustering.json   settings, what made the embeddings and where they are, seconds of each stage
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxy_clusters.clustering.chain import ChainSettings, fingerprint
from shared.data.embeddings import read_embeddings
from shared.data.files import whole, write_whole
from shared.data.problems import DataError
from shared.runs.configs import Configs

CONFIGS = Configs(Path(__file__).parents[1] / "configs")
CUTS = CONFIGS.folder / "cuts"
MEMBERS, CLUSTERS, ABOUT = "members.parquet", "clusters.csv", "clustering.json"
OWN = ("row", "cluster", "label", "strength", "x", "y")  # columns of the members that are not the catalogue's
STAGES = "stages"  # folder of the chain's files
EVIDENCE, REMARKS = "evidence.csv", "evidence.json"  # of `assess`
RECOVERY, ENRICHMENT = "recovery.csv", "enrichment.csv"  # likewise, of known classes and held-out attributes


@dataclass(frozen=True)
class Found:
    """A clustering.

    Attributes:
        members: See the module; `label` is the number of the cluster, -1 without.
        clusters: In the order of the labels.
        about: `settings`, `embeddings` (where they are), `id_column`, `data` (their fingerprint), `model`, `cuts`,
            `synthetic`, `names` (all that were ever given), `recall`, `seconds`.
    """

    members: pd.DataFrame
    clusters: pd.DataFrame
    about: dict[str, Any]

    @property
    def settings(self) -> ChainSettings:
        """What the chain did."""
        return ChainSettings(**self.about["settings"])

    @property
    def names(self) -> list[str]:
        """Names of the clusters, in the order of the labels."""
        return [str(name) for name in self.clusters["cluster"]]

    def write(self, folder: Path) -> None:
        """Write the three files, the last one last: without it a clustering was interrupted."""
        for name in (ABOUT, EVIDENCE, REMARKS):  # of other clusters; without the first, a kill leaves none
            (folder / name).unlink(missing_ok=True)
        with whole(folder / MEMBERS) as part:
            self.members.to_parquet(part, index=False)
        write_whole(folder / CLUSTERS, self.clusters.to_csv(index=False))
        write_whole(folder / ABOUT, json.dumps(self.about, indent=1) + "\n")

    def values(self) -> NDArray[np.float32]:
        """The members' embeddings `(N, D)`.

        Raises:
            DataError: The file with the embeddings is gone, or holds others; or the clustering does not say which ones.
        """
        path = Path(self.about["embeddings"])
        if "data" not in self.about:
            raise DataError(f"the clustering of {path} is of an earlier version of Quintet: run `cluster` again")
        values = read_embeddings(path, self.about.get("id_column")).values
        if fingerprint(values) != self.about["data"]:
            raise DataError(f"{path} holds other embeddings than were clustered: run `cluster` again")
        own: NDArray[np.float32] = values[self.members["row"].to_numpy()]
        return own

    def with_evidence(self, folder: Path) -> pd.DataFrame:
        """The clusters with what `assess` found of each, where it has been run since."""
        own = self.clusters.drop(columns="exemplar")
        path = folder / EVIDENCE
        if not path.is_file():
            return own
        evidence = pd.read_csv(path, dtype={"cluster": str, "systems": str, "flags": str})
        return own.merge(evidence, on="cluster", how="left")

    def remarks(self, folder: Path) -> list[str]:
        """Sentences of `assess` on the whole."""
        path = folder / REMARKS
        return list(json.loads(path.read_text(encoding="utf-8"))["remarks"]) if path.is_file() else []

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a finished clustering is there."""
        return (folder / ABOUT).is_file()

    @classmethod
    def read(cls, folder: Path) -> "Found":
        """Read what `write` wrote.

        Raises:
            DataError: There is no finished clustering.
        """
        if not cls.exists(folder):
            raise DataError(f"{folder} holds no finished clustering: run `cluster` first")
        members = pd.read_parquet(folder / MEMBERS)
        clusters = pd.read_csv(folder / CLUSTERS, dtype={"cluster": str, "exemplar": str})
        return cls(members, clusters, json.loads((folder / ABOUT).read_text(encoding="utf-8")))
