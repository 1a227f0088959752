"""The specification: a depthwise convolution that looks to one side and never across documents, in float64.

    past_j   = x_j + sum_t w_t * x_(j-t)       future_j = x_j + sum_t w_t * x_(j+t)        t = 1 .. taps

over positions of the same document; `w_t * x` multiplies channel by channel. Padding (document -1) gives x itself.
"""

import torch
from torch import Tensor


def one_sided_reference(x_BNC: Tensor, weight_TC: Tensor, documents_BN: Tensor | None, side: str) -> Tensor:
    """x (B, N, C), weight (T, C) -> (B, N, C) in float64, differentiable by autograd."""
    x, weight = x_BNC.double(), weight_TC.double()
    out = x
    for t, w in enumerate(weight, start=1):
        step = t if side == "past" else -t
        near = torch.roll(x, step, dims=1)
        position = torch.arange(x.shape[1], device=x.device)
        inside = (position - step >= 0) & (position - step < x.shape[1])
        seen = inside.expand(x.shape[:2])
        if documents_BN is not None:
            seen = seen & (documents_BN == torch.roll(documents_BN, step, dims=1)) & (documents_BN >= 0)
        out = out + w * torch.where(seen[..., None], near, 0.0)
    return out
