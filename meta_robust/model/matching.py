"""Full context embeddings of Matching Networks (Vinyals et al. 2016, section 2.1 and appendix A).

Shapes: n support and m query images, D features.
"""

import torch
from torch import Tensor, nn


class FullContext(nn.Module):
    """Embeds each image in the context of the whole support set.

    Args:
        dim: D, even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.support = nn.LSTM(dim, dim, bidirectional=True)
        self.query = nn.LSTMCell(2 * dim, dim)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        r"""`(n, D)` and `(m, D)` to the same.

        Support: :math:`g(x_i) = \overrightarrow{h}_i + \overleftarrow{h}_i + g'(x_i)` of a bidirectional LSTM over the
        support set. Queries: n steps of an LSTM cell that reads its input and attends to the support set,
        :math:`h_k = \hat h_k + f'(x), \; r_k = \sum_i \mathrm{softmax}_i(h_k \cdot g(x_i)) g(x_i)`.
        """
        both, _ = self.support(support[:, None])
        forward, backward = both[:, 0].chunk(2, dim=1)
        support = forward + backward + support
        hidden, cell = query, torch.zeros_like(query)
        read = torch.zeros_like(query)
        for _ in range(len(support)):
            hidden, cell = self.query(torch.cat([query, read], 1), (hidden, cell))
            hidden = hidden + query
            read = (hidden @ support.mT).softmax(1) @ support
        return support, hidden
