"""Rank-1 identification against a plain loop, the sent photograph left out, and what chance gives."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from commin.evaluation.identification import chance, rank1

PERSON = np.repeat([5, 2, 9, 4], [4, 3, 2, 1])


def faces(seed: int, spread: float) -> NDArray[np.float64]:
    """SYNTHETIC features about a mean that all share: a place for each person, and how the photographs vary."""
    rng = np.random.default_rng(seed)
    place = {number: rng.normal(size=6) for number in np.unique(PERSON)}
    return 30 + np.stack([place[number] for number in PERSON]) + spread * rng.normal(size=(len(PERSON), 6))


def by_loop(query: NDArray[np.float64], gallery: NDArray[np.float64], own: NDArray[np.int64]) -> list[bool]:
    found = []
    mean = [math.fsum(column) / len(gallery) for column in gallery.T]
    for row, sent in zip(query, own, strict=True):
        best, nearest = -math.inf, -1
        for place, face in enumerate(gallery):
            if place == sent:
                continue
            a, b = [x - m for x, m in zip(row, mean, strict=True)], [x - m for x, m in zip(face, mean, strict=True)]
            cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
            if cosine > best:
                best, nearest = cosine, place
        found.append(bool(PERSON[nearest] == PERSON[sent]))
    return found


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_it_is_the_nearest_other_photograph_by_the_cosine_about_the_mean(spread: float) -> None:
    gallery = faces(0, spread)
    own = np.repeat(np.arange(len(PERSON)), 3)  # three received images of each
    query = gallery[own] + 0.5 * np.random.default_rng(1).normal(size=(len(own), 6))
    found = rank1(query, PERSON[own], gallery, PERSON, own)
    assert found.dtype == bool
    assert found.tolist() == by_loop(query, gallery, own)
    assert found.any()
    assert not found.all()


def test_the_sent_photograph_is_left_out_and_only_that() -> None:
    gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.0, -1.0]])
    person = np.array([1, 1, 2, 2])
    # Received without a loss, photograph 0 would find itself; without it, the stranger 2 is the nearest.
    assert rank1(gallery[:1], [1], gallery, person, [0]).tolist() == [False]
    # The same picture sent as photograph 1 finds 0, which is another of the same person.
    assert rank1(gallery[:1], [1], gallery, person, [1]).tolist() == [True]


def test_an_image_does_not_depend_on_the_others_and_scale_does_not_matter() -> None:
    gallery, own = faces(2, 1.0), np.arange(len(PERSON))
    query = gallery + np.random.default_rng(3).normal(size=gallery.shape)
    whole = rank1(query, PERSON, gallery, PERSON, own)
    single = [rank1(query[[n]], PERSON[[n]], gallery, PERSON, own[[n]])[0] for n in own]
    assert whole.tolist() == single
    mean = gallery.mean(0)
    assert rank1(mean + 0.2 * (query - mean), PERSON, gallery, PERSON, own).tolist() == single
    assert rank1(query / 255, PERSON, gallery / 255, PERSON, own).tolist() == single


def test_a_person_without_another_photograph_is_not_found() -> None:
    gallery = faces(0, 0.1)
    assert rank1(gallery[-1:], [4], gallery, PERSON, [len(PERSON) - 1]).tolist() == [False]


def test_a_constant_image_is_an_answer_too() -> None:
    gallery = faces(0, 0.1)
    assert rank1(gallery.mean(0)[None], [2], gallery, PERSON, [4]).shape == (1,)


def test_chance_is_what_random_features_reach() -> None:
    assert chance(PERSON).tolist() == [3 / 9] * 4 + [2 / 9] * 3 + [1 / 9] * 2 + [0]
    own, rng = np.arange(len(PERSON)), np.random.default_rng(0)
    hits = []
    for _ in range(300):
        gallery = rng.normal(size=(len(PERSON), 40))
        hits.append(rank1(rng.normal(size=gallery.shape), PERSON, gallery, PERSON, own))
    # Ten images, 300 times: a standard deviation of about 0.008 on the mean.
    assert abs(np.mean(hits) - chance(PERSON).mean()) < 0.03


def test_a_gallery_that_does_not_fit_the_queries_is_refused() -> None:
    gallery = faces(0, 1.0)
    message = "query 1 is of person 5, but its own photograph, 4, of person 2"
    with pytest.raises(ValueError, match=f"^{message}$"):
        rank1(gallery[:2], [5, 5], gallery, PERSON, [0, 4])
