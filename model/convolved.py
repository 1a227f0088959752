"""Keys and values that hold their neighbours: what a place's content is where nobody who reads it stands near.

    both_j = x_j + sum_t c_t x_(j-t) + sum_t c'_t x_(j+t)        t = 1 .. taps, in the same document, channel by channel

both_j holds no token farther than `taps` places, so whoever stands farther may read it without reading itself.
"""

import torch
from torch import Tensor

from kernels.attention.layout import Layout
from kernels.attention.reference import ids_of
from kernels.attention.visibility import BEYOND, visible_BNN
from model.neighbours import neighbours


def parts(weight: Tensor, layout: Layout | None, kv: Tensor) -> list[Tensor]:
    """The terms of `two_sided`, (B, N, C) each: the neighbour at -taps, .., -1, +1, .., +taps, and kv itself."""
    weight = torch.cat([weight[0].flip(0), weight[1]]).to(kv.dtype)
    return [*(neighbours(kv, layout, weight.shape[0] // 2) * weight).unbind(2), kv]


def attention_without(q: Tensor, terms: list[tuple[Tensor, Tensor]], hidden: Tensor, layout: Layout | None) -> Tensor:
    """What a row beyond the taps reads where more is hidden from it than itself: no term of a key or value that is hidden.

    For evaluation: as many products as there are terms, in fp32.

    Args:
        q: (B, H, N, K).
        terms: keys and values of each of `parts`, (B, H, N, K) each.
        hidden: (B, N, N) bool, true where row i must not see token j; its diagonal is true.

    Returns:
        (B, H, N, K) in the dtype of q; 0 for a row that sees nothing.
    """
    taps = len(terms) // 2
    steps = [*range(-taps, 0), *range(1, taps + 1), 0]
    shown = [~torch.roll(hidden, -step, 2)[:, None] for step in steps]  # beyond the ends the terms are 0
    seen = visible_BNN(f"{BEYOND}{taps}", ids_of(q, layout)) & ~hidden
    scores = sum((q @ k.transpose(-1, -2)).float() * own for (k, _), own in zip(terms, shown)) * q.shape[-1] ** -0.5
    p = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1).masked_fill(~seen[:, None], 0.0)
    return sum((p * own).to(v.dtype) @ v for (_, v), own in zip(terms, shown)).to(q.dtype)
