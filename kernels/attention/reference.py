"""The specification: attention in float64, written to be read. Differentiable by autograd, O(N^2) memory.

out_i = sum_j p_ij v_j,   p_ij = exp(s_ij - lse_i) on the keys that row i sees and 0 elsewhere,
s_ij = scale * q_i . k_j,   lse_i = log sum_j exp(s_ij) over the same keys.
A row that sees nothing has out = 0, lse = -inf and no gradient.
"""

import torch
from torch import Tensor

from .visibility import visible_BNN


def attend(q: Tensor, k: Tensor, v: Tensor, seen_BNM: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q (B, H, N, K), k and v (B, H, M, K), seen (B, N, M) -> out (B, H, N, K), lse (B, H, N), both float64."""
    q, k, v = q.double(), k.double(), v.double()
    seen = seen_BNM[:, None]  # every head sees the same
    scores = (scale * (q @ k.transpose(-1, -2))).masked_fill(~seen, float("-inf"))  # (B, H, N, M)
    empty = ~seen.any(-1, keepdim=True)
    lse = scores.masked_fill(empty, 0.0).logsumexp(-1, keepdim=True)  # any finite value serves an empty row
    p = (scores - lse).exp()  # exp(-inf) = 0 in an empty row
    return p @ v, lse.masked_fill(empty, float("-inf")).squeeze(-1)


def attention(q, k, v, visibility, documents, rank, scale) -> tuple[Tensor, Tensor]:
    """One stream of rows over one set of keys; shapes as in `kernels.attention.attention`."""
    return attend(q, k, v, visible_BNN(visibility, _ids(q, documents), rank), scale)


def union_attention(q, k_past, v_past, k_future, v_future, documents, scale) -> tuple[Tensor, Tensor]:
    """One softmax over the past keys j < i and the future keys j > i."""
    ids = _ids(q, documents)
    seen = torch.cat([visible_BNN("before_strict", ids), visible_BNN("after_strict", ids)], dim=-1)
    return attend(q, torch.cat([k_past, k_future], 2), torch.cat([v_past, v_future], 2), seen, scale)


def _ids(q: Tensor, documents: Tensor | None) -> Tensor:
    return q.new_zeros(q.shape[0], q.shape[2], dtype=torch.int32) if documents is None else documents
