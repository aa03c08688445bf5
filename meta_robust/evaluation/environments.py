"""How well a method predicts in one environment after it adapted in another, and whether colour alone would.

Shapes: T tasks, E environments, n support and m query images, N ways.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meta_robust.data.episodes import Episodes
from meta_robust.environments import change
from meta_robust.methods.episodic import unit
from meta_robust.methods.prototypical import prototype_logits
from shared.progress import progress

# Of support images, their labels and N, to a function of queries that gives logits.
Learner = Callable[[Tensor, Tensor, int], Callable[[Tensor], Tensor]]


def environment_hits(learn: Learner, episodes: Episodes, kinds: Sequence[str], title: str) -> NDArray[np.bool_]:
    """Which queries are classified rightly, `(E, E, T, m)` by environment of the support and of the query.

    Both sides of a task see the same change in an environment, as in training.

    Args:
        learn: The method.
        episodes: The tasks.
        kinds: Environments, see `environments.KINDS`.
        title: Of a progress bar.
    """
    found = []
    for number in progress(range(len(episodes)), title, "task"):
        task = episodes[[number]]
        seed, labels, ways = int(task.seed[0]), task.query_label[0], int(task.query_label.max()) + 1
        support, query = ([change(unit(side[0]), kind, seed + place) for place, kind in enumerate(kinds)]
                          for side in (task.support, task.query))  # fmt: skip
        classifiers = [learn(each, task.support_label[0], ways) for each in support]
        found.append([[(classifier(each).argmax(1) == labels).numpy() for each in query] for classifier in classifiers])
    return np.array(found).transpose(1, 2, 0, 3)


@torch.no_grad()
def by_colour(support: Tensor, labels: Tensor, ways: int) -> Callable[[Tensor], Tensor]:
    """A classifier that sees nothing of an image but its mean colour: the nearest class mean."""
    known = support.mean((2, 3))
    return lambda query: prototype_logits(known[None], labels[None], query.mean((2, 3))[None], ways)[0]
