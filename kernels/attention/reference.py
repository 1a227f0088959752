"""The specification: attention in float64, written to be read. Differentiable by autograd, O(N^2) memory.

out_i = sum_j p_ij v_j,   p_ij = exp(s_ij - lse_i) on the keys that row i sees and 0 elsewhere,
s_ij = scale * q_i . k_j,   lse_i = log sum_j exp(s_ij) over the same keys.
A row that sees nothing has out = 0, lse = -inf and no gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .layout import Layout
from .spans import Spans
from .visibility import TWO_STREAM, visible_BNN


def attention(
    qs: Sequence[Tensor],
    kv: Sequence[Tensor],
    visibility: str,
    documents: Tensor | Layout | None,
    rank: Tensor | None,
    scale: float,
    spans: Spans | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """One or two streams of rows over one set of keys, or one stream over two sets; both results in float64."""
    k, v = torch.cat(list(kv[0::2]), 2), torch.cat(list(kv[1::2]), 2)
    seen = seen_by(len(qs), visibility, ids_of(qs[0], documents), rank, spans)
    found = [attend(q, k, v, own, scale) for q, own in zip(qs, seen)]
    return [out for out, _ in found], [lse for _, lse in found]


def attend(q: Tensor, k: Tensor, v: Tensor, seen_BNM: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q (B, H, N, K), k and v (B, H, M, K), seen (B, N, M) -> out (B, H, N, K), lse (B, H, N), both float64."""
    q, k, v = q.double(), k.double(), v.double()
    seen = seen_BNM[:, None]  # every head sees the same
    scores = (scale * (q @ k.transpose(-1, -2))).masked_fill(~seen, float("-inf"))  # (B, H, N, M)
    empty = ~seen.any(-1, keepdim=True)
    lse = scores.masked_fill(empty, 0.0).logsumexp(-1, keepdim=True)  # any finite value serves an empty row
    p = (scores - lse).exp()  # exp(-inf) = 0 in an empty row
    return p @ v, lse.masked_fill(empty, float("-inf")).squeeze(-1)


def seen_by(
    streams: int, visibility: str, documents_BN: Tensor, rank: Tensor | None, spans: Spans | None = None
) -> list[Tensor]:
    """For each stream of rows what it sees, (B, N, M) bool: M = N, or 2N over [past; future] for a union."""
    if visibility == "union":
        return [torch.cat([visible_BNN(v, documents_BN, spans=spans) for v in ("before_strict", "after_strict")], -1)]
    names = (visibility,) if streams == 1 else TWO_STREAM[visibility]
    return [visible_BNN(name, documents_BN, rank, spans) for name in names]


def ids_of(q: Tensor, documents: Tensor | Layout | None) -> Tensor:
    """A document id for each position, -1 for padding."""
    if documents is None:
        return q.new_zeros(q.shape[0], q.shape[2], dtype=torch.int32)
    if isinstance(documents, Layout):
        return torch.where(documents.end > documents.start, documents.start, -1)
    return documents
