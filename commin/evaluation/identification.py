"""Rank-1 identification: is the face that is most like a received one another photograph of the person who was sent?

This is what "semantic" in the paper's abstract promises to keep. The gallery are photographs of the unseen persons; of
these the sent one itself is left out, since it would be found by its background alone.

Shapes: N received images, M photographs in the gallery, D features.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank1(
    query: ArrayLike, query_person: ArrayLike, gallery: ArrayLike, gallery_person: ArrayLike, own: ArrayLike
) -> NDArray[np.bool_]:
    """Whether the most similar photograph shows the person who was sent, `(N,)`.

    Similar is the cosine of the features after subtracting the gallery's mean, which all faces share. Where the sent
    person has no other photograph the answer is always False, see `chance`.

    Args:
        query: `(N, D)` features of what was received, such as pixels or the output of a frozen network.
        query_person: `(N,)` numbers of the persons who were sent.
        gallery: `(M, D)` features of the photographs.
        gallery_person: `(M,)` numbers of the persons whom they show.
        own: `(N,)` place in the gallery of the photograph that was sent, which is left out for this query.

    Raises:
        ValueError: The gallery shows another person at the place of the photograph that was sent.
    """
    people, sent, own = np.asarray(gallery_person), np.asarray(query_person), np.asarray(own)
    if (wrong := np.flatnonzero(people[own] != sent)).size:
        row = int(wrong[0])
        raise ValueError(
            f"query {row} is of person {sent[row]}, but its own photograph, {own[row]}, of person {people[own[row]]}"
        )
    faces = np.asarray(gallery, dtype=np.float64)
    mean = faces.mean(0)
    cosines = _unit(np.asarray(query, dtype=np.float64) - mean) @ _unit(faces - mean).T
    cosines[np.arange(len(own)), own] = -np.inf
    hits: NDArray[np.bool_] = people[cosines.argmax(1)] == sent
    return hits


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows of length 1; one of zeros stays so."""
    found: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found


def chance(person: ArrayLike) -> NDArray[np.float64]:
    """Chance that another photograph of the gallery, drawn blindly, shows the same person, `(M,)`; 0 without another.

    Args:
        person: `(M,)` number of the person whom each photograph shows.

    Example:
        >>> chance([7, 7, 7, 9]).round(2)
        array([0.67, 0.67, 0.67, 0.  ])
    """
    _, number, count = np.unique(np.asarray(person), return_inverse=True, return_counts=True)
    found: NDArray[np.float64] = (count[number] - 1) / (len(number) - 1)
    return found
