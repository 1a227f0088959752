"""Launching the Triton kernels. Imported only when the Triton backend runs."""

from typing import Any

import torch
import triton
from torch import Tensor

from ..attention.layout import Layout
from ..dispatch import multiprocessors
from .configs import tile
from .triton_kernels import convolve as convolve_kernel
from .triton_kernels import weight_gradient as weight_gradient_kernel


def convolve(x: Tensor, weight: Tensor, past: bool, layout: Layout | None) -> Tensor:
    """See `api.one_sided`; weight in the dtype of x."""
    x, weight = x.contiguous(), weight.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        with torch.cuda.device_of(x):
            convolve_kernel[_tiles(x)](x, weight, out_ptr=out, TAPS=len(weight), **_common(x, past, layout))
    return out


def weight_gradient(
    grad: Tensor, x: Tensor, taps: int, past: bool, layout: Layout | None, splits: int | None = None
) -> Tensor:
    """(taps, C) in fp32 (fp64 for fp64). Splits of the positions are summed in a fixed order; None takes enough for the chip."""
    grad, x = grad.contiguous(), x.contiguous()
    position_tiles, channel_tiles = _tiles(x)
    if splits is None:
        splits = triton.cdiv(4 * multiprocessors(x.device), max(1, channel_tiles * taps))
    tiles_per_split = triton.cdiv(position_tiles, max(1, min(splits, position_tiles)))
    splits = triton.cdiv(position_tiles, max(1, tiles_per_split))
    shares = x.new_empty(splits, taps, x.shape[2], dtype=torch.promote_types(x.dtype, torch.float32))
    if shares.numel():
        with torch.cuda.device_of(x):
            weight_gradient_kernel[(channel_tiles, taps, splits)](
                grad,
                x,
                out_ptr=shares,
                positions_per_split=tiles_per_split * tile().block_n,
                **_common(x, past, layout),
            )
    return shares.sum(0)


def _tiles(x: Tensor) -> tuple[int, int]:
    """Of positions, counted through the batch, and of channels."""
    return triton.cdiv(x.shape[0] * x.shape[1], tile().block_n), triton.cdiv(x.shape[2], tile().block_c)


def _common(x: Tensor, past: bool, layout: Layout | None) -> dict[str, Any]:
    """What both kernels are told."""
    edge = x if layout is None else layout.start if past else layout.end
    return {
        "edge_ptr": edge,
        "N": x.shape[1],
        "C": x.shape[2],
        "positions": x.shape[0] * x.shape[1],
        "PAST": past,
        "DOCUMENTS": layout is not None,
        "DOUBLE": x.dtype == torch.float64,
        "BLOCK_N": tile().block_n,
        "BLOCK_C": tile().block_c,
        "num_warps": tile().num_warps,
    }
