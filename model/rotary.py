"""Rotary positions (RoPE: Su et al. 2021, arXiv 2104.09864), and the positions of tokens in their documents.

Shapes: B batch, N sequence, H heads, K head width.
"""

from functools import lru_cache

import torch
from torch import Tensor


def document_positions(documents: Tensor) -> Tensor:
    """Position of each token in its own document, from document ids (B, N); contiguous ids. Returns (B, N) int64."""
    position = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return position - torch.where(starts, position, 0).cummax(dim=1).values


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is cached may serve training later
def rotary_table(length: int, d_head: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and signed sin of RoPE (Su et al. 2021, arXiv 2104.09864, half-split form), each (N, 1, K)."""
    inverse_frequency = 10_000.0 ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), inverse_frequency)  # (N, K/2)
    cos, sin = angle.cos().repeat(1, 2), torch.cat([-angle.sin(), angle.sin()], dim=1)
    return cos[:, None].to(device, dtype), sin[:, None].to(device, dtype)


def rotate_at(x: Tensor, position: Tensor, length: int) -> Tensor:
    """Rotary positions on (B, M, H, K), whose rows stand at `position` (B, M) of a window of `length`."""
    cos, sin = (table[:, 0][position][:, :, None] for table in rotary_table(length, x.shape[-1], x.dtype, x.device))
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions on (..., N, H, K). Relative, so counting from the window's start serves packed documents too."""
    table = rotary_table.__wrapped__ if torch.compiler.is_compiling() else rotary_table
    cos, sin = table(x.shape[-3], x.shape[-1], x.dtype, x.device)
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        # The same sums, without the tensors that a gradient would need in between.
        out, half = torch.empty_like(x), x.shape[-1] // 2
        for here, there in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            torch.mul(x[..., here], cos[..., here], out=out[..., here]).addcmul_(x[..., there], sin[..., here])
        return out
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
