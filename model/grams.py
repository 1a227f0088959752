"""Grams: what stands around a place, looked up: a row of a table for each pair of neighbours, at no arithmetic.

    grams_i = T[h_1(x_(i-2), x_(i-1))] + T[h_2(x_(i+1), x_(i+2))] + T[h_3(x_(i-1), x_(i+1))]

Pairs are hashed, each kind to rows of its own; different pairs may share one (hash embeddings, Svenstrup et al. 2017; n-grams as
memory: over-tokenised transformers, arXiv 2501.16975). As in `near`, token i is not among them and they enter place i only.
Tables start at zero, so that a pair that was never seen says nothing.
"""

import torch
from torch import Tensor, nn

from kernels.attention.layout import Layout
from model.config import ModelConfig
from model.neighbours import neighbours

PAIRS = ((0, 1), (2, 3), (1, 2))
"""Of the neighbours at -2, -1, +1 and +2: those before, those after, and the nearest of each side."""


class Grams(nn.Module):
    """(B, N) tokens -> (B, N, D). Raises ValueError for fewer than two rows."""

    def __init__(self, config: ModelConfig, rows: int) -> None:
        super().__init__()
        if rows < 2:
            raise ValueError(
                f"grams is {rows}; it must be 0 (off), or the rows of each of its three tables, 2 or more."
            )
        self.rows = rows
        self.table = nn.EmbeddingBag(len(PAIRS) * rows, config.d_model, mode="sum")
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor, layout: Layout | None, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B, N, N) bool, if given: neighbours j that place i must not see count as none."""
        index = self.index(tokens, layout, hidden)
        return self.table(index.flatten(0, 1)).view(*tokens.shape, -1)

    def index(self, tokens: Tensor, layout: Layout | None, hidden: Tensor | None = None) -> Tensor:
        """Rows of the table, (B, N, 3). Neighbours outside of the document are token 0, and tokens count from 1."""
        around = neighbours(tokens[..., None] + 1, layout, 2, hidden)[..., 0]  # (B, N, 4)
        first, second = zip(*PAIRS)
        pairs = around[..., first] * 1_000_003 + around[..., second] * 8_191
        mixed = (pairs ^ (pairs >> 15)) * 0x2C1B3C6D & 0x7FFFFFFF
        return (mixed ^ (mixed >> 12)) % self.rows + torch.arange(len(PAIRS), device=tokens.device) * self.rows
