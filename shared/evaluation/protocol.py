"""The conditions under which models are compared."""

import re
from dataclasses import dataclass

RANDOM = "Random init"  # the floor row that every package has: the untrained network
FIRST_RANDOM_SEED = 1000  # first seed of such networks, far from the seeds that models are trained with


@dataclass(frozen=True)
class Protocol:
    """One way of evaluating a model. A package extends it with the settings that this needs.

    Attributes:
        name: Name in files, folders and columns; it consists of letters, digits and `_ . = , % + -`.
        title: Name in tables and figures.
        metric: The metric that is reported, see `shared.evaluation.STATISTICS`.

    Raises:
        ValueError: The name is not safe as a folder's name.

    Example:
        >>> Protocol("linear", "Linear evaluation", "auroc").metric
        'auroc'
    """

    name: str
    title: str
    metric: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.=,%+-]+", self.name):
            raise ValueError(f"a protocol's name must be safe as a folder's name, got {self.name!r}")


def safe_name(text: str) -> str:
    """A text made safe as part of a protocol's or a folder's name.

    Example:
        >>> safe_name("dvm,label_fraction=0.5,columns=[a, b]")
        'dvm,label_fraction=0.5,columns=_a,_b_'
    """
    return re.sub(r"[^\w.=,%+-]+", "_", text)
