"""Near: what a place reads of its neighbours before any attention, through one product.

    near_i = W [e_(i-n) .. e_(i-1), e_(i+1) .. e_(i+n)]

of raw embeddings in the same document, 0 where there is none. Token i is not among them, and what is read enters place i
only, so a query stream may start from it without leaking. For a masked model it is an addition to the input, where the
place's own [MASK] is not among them either.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.attention.layout import Layout
from kernels.dispatch import autocast_dtype
from model.config import ModelConfig


class Near(nn.Module):
    """(B, N, D) embeddings -> (B, N, D). Raises ValueError for fewer than one neighbour on each side."""

    def __init__(self, config: ModelConfig, reach: int) -> None:
        super().__init__()
        if reach < 1:
            raise ValueError(f"near is {reach}; it must be at least 1 neighbour on each side.")
        self.reach = reach
        self.mix = nn.Linear(2 * reach * config.d_model, config.d_model, bias=False)

    def forward(self, embeddings: Tensor, layout: Layout | None, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B, N, N) bool, if given: neighbours j that place i must not see count as none."""
        dtype = autocast_dtype(embeddings.device)  # of the product: gathered in it, they are half as much to move
        embeddings = embeddings if dtype is None else embeddings.to(dtype)
        return self.mix(neighbours(embeddings, layout, self.reach, hidden).flatten(2))


def neighbours(x: Tensor, layout: Layout | None, reach: int, hidden: Tensor | None = None) -> Tensor:
    """(B, N, D) -> (B, N, 2 reach, D): those before, farthest first, then those after, nearest first."""
    length = x.shape[1]
    padded = F.pad(x, (0, 0, reach, reach))
    steps = [s for s in range(-reach, reach + 1) if s]
    found = torch.stack([padded[:, reach + s : reach + s + length] for s in steps], 2)
    if layout is None and hidden is None:
        return found
    other = torch.stack([torch.arange(s, s + length, device=x.device) for s in steps], 1)  # (N, 2 reach)
    outside = torch.zeros(found.shape[:3], dtype=torch.bool, device=x.device)
    if layout is not None:
        outside |= (other < layout.start[..., None]) | (other >= layout.end[..., None])
    if hidden is not None:
        outside |= hidden.gather(2, other.clamp(0, length - 1).expand(len(x), -1, -1))
    return found.masked_fill(outside[..., None], 0.0)
