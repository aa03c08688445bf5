"""Under what conditions models are compared."""

import re
from dataclasses import dataclass

RANDOM = "Random init"  # the floor row that every package has: the network as untrained
FIRST_RANDOM_SEED = 1000  # of such networks, away from the seeds that models are trained with


@dataclass(frozen=True)
class Protocol:
    """One way of evaluating a model. A package extends it with what it needs to know to do so.

    Attributes:
        name: Of files, folders and columns: letters, digits and `_ . = , % + -`.
        title: What tables and figures call it.
        metric: What is reported, see `shared.evaluation.STATISTICS`.

    Raises:
        ValueError: The name could not be a folder's.

    Example:
        >>> Protocol("linear", "Linear evaluation", "auroc").metric
        'auroc'
    """

    name: str
    title: str
    metric: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.=,%+-]+", self.name):
            raise ValueError(f"a protocol's name must be safe as a folder's, got {self.name!r}")


def safe_name(text: str) -> str:
    """A text as part of a protocol's or a folder's name.

    Example:
        >>> safe_name("dvm,label_fraction=0.5,columns=[a, b]")
        'dvm,label_fraction=0.5,columns=_a,_b_'
    """
    return re.sub(r"[^\w.=,%+-]+", "_", text)
