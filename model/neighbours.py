"""Near: what a position reads of its neighbours before any attention, through one product.

    near_i = W [e_(i-n) .. e_(i-1), e_(i+1) .. e_(i+n)]

of raw embeddings in the same document, 0 where there is none. Token i is not among them, and what is read enters position i
only, so a query stream may start from it without leaking. For a masked model it is an addition to the input, where the
position's own [MASK] is not among them either.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.attention import Spans
from kernels.attention.layout import Layout
from kernels.dispatch import autocast_dtype
from model.batch import Batch
from model.config import ModelConfig
from model.layers import Embedding


class Near(nn.Module):
    """(B, N, D) embeddings -> (B, N, D). Raises ValueError for fewer than one neighbour on each side."""

    def __init__(self, config: ModelConfig, reach: int) -> None:
        super().__init__()
        if reach < 1:
            raise ValueError(f"near is {reach}; it must be at least 1 neighbour on each side.")
        self.reach = reach
        self.mix = nn.Linear(2 * reach * config.d_model, config.d_model, bias=False)

    def forward(self, embeddings: Tensor, layout: Layout | None, spans: Spans | None = None) -> Tensor:
        """spans: what is hidden from a position; its neighbours are then those beyond it."""
        dtype = autocast_dtype(embeddings.device)  # of the product: gathered in it, they are half as much to move
        embeddings = embeddings if dtype is None else embeddings.to(dtype)
        if spans is None:
            found = neighbours(embeddings, layout, self.reach)
        else:
            found = neighbours_beyond(embeddings, layout, self.reach, spans)
        return self.mix(found.flatten(2))


def neighbours(x: Tensor, layout: Layout | None, reach: int) -> Tensor:
    """(B, N, D) -> (B, N, 2 reach, D): those before, farthest first, then those after, nearest first."""
    length = x.shape[1]
    padded = F.pad(x, (0, 0, reach, reach))
    steps = [s for s in range(-reach, reach + 1) if s]
    found = torch.stack([padded[:, reach + s : reach + s + length] for s in steps], 2)
    if layout is None:
        return found
    other = torch.stack([torch.arange(s, s + length, device=x.device) for s in steps], 1)  # (N, 2 reach)
    outside = (other < layout.start[..., None]) | (other >= layout.end[..., None])
    return found.masked_fill(outside[..., None], 0.0)


def neighbours_beyond(x: Tensor, layout: Layout | None, reach: int, spans: Spans) -> Tensor:
    """The same with the neighbours of each position's span in place of its own: before it, farthest first, then after it."""
    rows, length = x.shape[:2]
    step = torch.arange(reach, device=x.device)
    other = torch.cat([spans.first[..., None] - reach + step, spans.last[..., None] + 1 + step], -1)  # (B, N, 2 reach)
    start, end = (0, length) if layout is None else (layout.start[..., None], layout.end[..., None])
    outside = (other < start) | (other >= end)
    at = other.clamp(0, length - 1) + length * torch.arange(rows, device=x.device)[:, None, None]
    found = x.flatten(0, 1).index_select(0, at.flatten()).view(*other.shape, -1)
    return found.masked_fill(outside[..., None], 0.0)


class SpanEnds(nn.Module):
    """How far the two ends of its hidden span are from a position, as a vector (B, N, D) for where queries start.

    A masked model sees as much in the number of its [MASK]s. Distances count to FARTHEST; the table starts at zero.
    """

    FARTHEST = 8

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, self.FARTHEST + 1, config.d_model))

    def forward(self, spans: Spans | None) -> Tensor:
        """Without spans only the position itself is hidden: one vector (1, 1, D) for all."""
        if spans is None:
            return (self.table[0, 0] + self.table[1, 0])[None, None]
        position = torch.arange(spans.shape[1], device=spans.device)
        before, after = ((x.clamp_max(self.FARTHEST)) for x in (position - spans.first, spans.last - position))
        return F.embedding(before, self.table[0]) + F.embedding(after, self.table[1])


class Starting(Protocol):
    """An architecture with a query stream."""

    embedding: Embedding
    neighbours: Near | None
    ends: SpanEnds | None


def query_start(architecture: Starting, content: Tensor, batch: Batch) -> Tensor:
    """[MASK] plus position, plus `near` and `ends` where the architecture has them: (B, N, D), or one vector for all
    positions."""
    query = architecture.embedding.queries(batch.tokens, batch.documents)
    if architecture.ends is not None:
        query = query + architecture.ends(batch.spans)
    near = architecture.neighbours
    return query if near is None else query + near(content, batch.layout, batch.spans)
