"""Tables as a network sees them: corruption, one-hot encoding and the encoder.

Shapes: B rows, M columns (fields), K_m categories of column m (1 if it is continuous), N training rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.backbones.heads import mlp


def corrupt(table: Tensor, marginals: Tensor, rate: float) -> Tensor:
    r"""Replace a share of every row's fields by values of the same fields in random training rows.

    Of each row, exactly :math:`\lfloor rM \rfloor` fields are drawn without replacement, and each takes its value from
    a training row drawn uniformly with replacement: a draw from the field's empirical marginal (SCARF, Bahri et al.
    2022, Algorithm 1; MMCL, section 3.1).

    Args:
        table: The rows `(B, M)`, which stay as they are.
        marginals: The training rows `(N, M)`.
        rate: r, in [0, 1].

    Returns:
        `(B, M)`.

    Raises:
        ValueError: The rate is not a share, or the training rows have other fields.

    Example:
        >>> corrupted = corrupt(torch.zeros(2, 10), marginals=torch.ones(5, 10), rate=0.3)
        >>> corrupted.sum(1)
        tensor([3., 3.])
    """
    rows, columns = table.shape
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if marginals.ndim != 2 or len(marginals) == 0 or marginals.shape[1] != columns:
        raise ValueError(f"marginals must be (N, {columns}) with at least one row, got {tuple(marginals.shape)}")
    count = int(rate * columns)
    fields = torch.rand(rows, columns, device=table.device).topk(count, dim=1, sorted=False).indices
    donors = torch.randint(len(marginals), (rows, count), device=table.device)
    # The same as marginals[donors, fields], which takes five times as long.
    values = marginals.flatten().index_select(0, (donors * columns + fields).flatten())
    return table.scatter(1, fields, values.view(rows, count))


class OneHot(nn.Module):
    """A table's fields as the inputs of a network: continuous values as they are, categories one-hot.

    A field that holds none of its codes 0 ... K_m - 1 is all zeros: -1 is an unknown category or an absent label.

    Args:
        cardinalities: K_m of every column; 1 is a continuous column.

    Raises:
        ValueError: There is no column, or a cardinality is below 1.

    Example:
        >>> OneHot([1, 3])(torch.tensor([[0.5, 2.0], [-1.5, -1.0]]))
        tensor([[ 0.5000,  0.0000,  0.0000,  1.0000],
                [-1.5000,  0.0000,  0.0000,  0.0000]])
    """

    last: Tensor
    start: Tensor
    categorical: Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        if not cardinalities or min(cardinalities) < 1:
            raise ValueError(f"cardinalities must be at least one number, each 1 or more; got {list(cardinalities)}")
        sizes = torch.tensor(list(cardinalities))
        self.out_dim = int(sizes.sum())
        self.register_buffer("last", sizes - 1, persistent=False)
        self.register_buffer("start", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("categorical", sizes > 1, persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        """`(B, M) -> (B, K_1 + ... + K_M)`."""
        if table.ndim != 2 or table.shape[1] != len(self.start):
            raise ValueError(f"a table of {len(self.start)} columns expected, got the shape {tuple(table.shape)}")
        if table.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{table.dtype} rounds the codes of categories: keep tables in float32 (bf16-mixed does)")
        # Every field writes one of its inputs: the code's, or for a continuous field its only one.
        code = torch.minimum(table.long().clamp(min=0), self.last)
        value = torch.where(self.categorical, (code == table).to(table.dtype), table)
        return table.new_zeros(len(table), self.out_dim).scatter(1, self.start + code, value)


def one_hot(table: Tensor, cardinalities: Sequence[int]) -> Tensor:
    """`(B, M) -> (B, K_1 + ... + K_M)`; see `OneHot`."""
    inputs: Tensor = OneHot(cardinalities).to(table.device)(table)
    return inputs


class TabularEncoder(nn.Module):
    """One-hot encoding, then Linear - BatchNorm - ReLU - Linear: `(B, M) -> (B, out_dim)` (section 4.2).

    Args:
        cardinalities: Cardinalities of the columns, see `OneHot`; with None, `build` makes the layers once the table is
            known.
        hidden_dim: Width of the hidden layer (section 4.2: 2048).
        out_dim: Width of the embedding (section 4.2: 2048).

    Example:
        >>> encoder = TabularEncoder([1, 3], hidden_dim=16, out_dim=8)
        >>> encoder(torch.tensor([[0.5, 2.0], [-1.5, 0.0]])).shape
        torch.Size([2, 8])
    """

    one_hot: OneHot
    mlp: nn.Sequential

    def __init__(self, cardinalities: Sequence[int] | None = None, hidden_dim: int = 2048, out_dim: int = 2048) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.cardinalities: tuple[int, ...] | None = None
        if cardinalities is not None:
            self.build(cardinalities)

    def build(self, cardinalities: Sequence[int]) -> None:
        """Make the layers for a table, unless they have been made for it already.

        Raises:
            ValueError: The layers were made for another table.
        """
        if self.cardinalities is None:
            self.one_hot = OneHot(cardinalities)
            self.mlp = mlp([self.one_hot.out_dim, self.hidden_dim, self.out_dim])
            self.cardinalities = tuple(cardinalities)
        elif self.cardinalities != tuple(cardinalities):
            raise ValueError(
                f"the table encoder was built for {len(self.cardinalities)} columns with {sum(self.cardinalities)} "
                f"inputs, not for {len(cardinalities)} with {sum(cardinalities)}"
            )

    def forward(self, table: Tensor) -> Tensor:
        """`(B, M) -> (B, out_dim)`."""
        if self.cardinalities is None:
            raise RuntimeError("the table encoder has no layers yet: call build(schema.cardinalities) first")
        embedding: Tensor = self.mlp(self.one_hot(table))
        return embedding
