"""`search` by example and `outliers`: rankings of the galaxies of a representation, written as CSV."""

from pathlib import Path

import pandas as pd

from galaxy_clusters.clustering.graph import neighbour_graph
from galaxy_clusters.report import search as ranking
from galaxy_clusters.report.export import write_csv
from shared.data.embeddings import read_embeddings


def search(
    embeddings: Path,
    like: list[str] | None = None,
    unlike: list[str] | None = None,
    marks: Path | None = None,
    output: Path | None = None,
    count: int = 100,
) -> pd.DataFrame:
    """Rank galaxies by their likeness to examples.

    Marks are kept in a file, so each call may add some: look at the ranking, mark what is right and what is wrong, and
    search again.

    Args:
        embeddings: See `cluster`.
        like: Identifiers of galaxies of the kind that is looked for.
        unlike: Identifiers of galaxies that are not of that kind.
        marks: CSV file of the marks so far (`id`, `mark`), which is extended; by default `marks.csv` beside the
            embeddings.
        output: CSV file of the ranking; by default `search.csv` beside the embeddings.
        count: Number of galaxies in it.

    Returns:
        `id` and `score`, the best first.

    Raises:
        DataError: There is no such galaxy, also one of the file of marks; one is marked both, or none is marked like.
    """
    found = read_embeddings(embeddings)
    ids = found.ids.tolist()
    marks, output = marks or _beside(embeddings) / "marks.csv", output or _beside(embeddings) / "search.csv"
    kept = ranking.extend_marks(marks, like or [], unlike or [], ids)
    chosen = {mark: ranking.rows_of([name for name, given in kept.items() if given == mark], ids)
              for mark in ("like", "unlike")}  # fmt: skip
    ranked = ranking.search(found.values, chosen["like"], chosen["unlike"])
    table = pd.DataFrame({"id": found.ids[ranked.rows], "score": ranked.score.round(6)}).head(count)
    write_csv(output, table)
    print(f"{ranked.how}; wrote the best {len(table)} to {output}, marks are in {marks}")
    return table


def outliers(embeddings: Path, output: Path | None = None, k: int = 10, count: int = 100) -> pd.DataFrame:
    """Rank galaxies by how far they are from all others, and group near duplicates.

    Args:
        embeddings: See `cluster`.
        output: CSV file of the ranking; by default `outliers.csv` beside the embeddings.
        k: Number of neighbours that count.
        count: Number of galaxies in it.

    Returns:
        `id`, mean `distance` to the k nearest neighbours, its robust `z`, and `duplicates`, the number of the group of
        near duplicates that it belongs to (-1 for none), the farthest first.

    Raises:
        DataError: There are too few galaxies.
    """
    found = read_embeddings(embeddings)
    graph = neighbour_graph(found.values, k + 1)
    distance, z = ranking.outliers(graph, k)
    table = pd.DataFrame({"id": found.ids, "distance": distance.round(6), "z": z.round(2),
                          "duplicates": ranking.near_duplicates(graph)})  # fmt: skip
    table = table.sort_values("distance", ascending=False, kind="stable", ignore_index=True).head(count)
    output = output or _beside(embeddings) / "outliers.csv"
    write_csv(output, table)
    print(f"wrote the {len(table)} farthest of {len(found.ids)} galaxies to {output}")
    return table


def _beside(embeddings: Path) -> Path:
    """Each survey's own folder."""
    return embeddings if embeddings.is_dir() else embeddings.parent
