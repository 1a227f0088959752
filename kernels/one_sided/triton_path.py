"""Launching the Triton kernels. Imported only when the Triton backend runs."""

import torch
import triton
from torch import Tensor

from ..attention.layout import Layout
from .configs import tile
from .triton_kernels import convolve as convolve_kernel
from .triton_kernels import weight_gradient as weight_gradient_kernel


def convolve(x: Tensor, weight: Tensor, past: bool, layout: Layout | None) -> Tensor:
    """See `api.one_sided`; weight in the dtype of x."""
    x, weight = x.contiguous(), weight.contiguous()
    out = torch.empty_like(x)
    places, channels, blocks = x.shape[0] * x.shape[1], x.shape[2], tile()
    if x.numel():
        with torch.cuda.device_of(x):
            convolve_kernel[(triton.cdiv(places, blocks.block_n), triton.cdiv(channels, blocks.block_c))](
                x,
                weight,
                _edge(x, layout, past),
                out,
                x.shape[1],
                channels,
                places,
                TAPS=len(weight),
                PAST=past,
                DOCUMENTS=layout is not None,
                DOUBLE=x.dtype == torch.float64,
                BLOCK_N=blocks.block_n,
                BLOCK_C=blocks.block_c,
                num_warps=blocks.num_warps,
            )
    return out


def weight_gradient(
    grad: Tensor, x: Tensor, taps: int, past: bool, layout: Layout | None, splits: int | None = None
) -> Tensor:
    """(taps, C) in fp32 (fp64 for fp64). Splits of the places are summed in a fixed order; None takes enough for the chip."""
    grad, x = grad.contiguous(), x.contiguous()
    places, channels, blocks = x.shape[0] * x.shape[1], x.shape[2], tile()
    channel_tiles, place_tiles = triton.cdiv(channels, blocks.block_c), triton.cdiv(places, blocks.block_n)
    if splits is None:
        splits = triton.cdiv(4 * _multiprocessors(x.device), max(1, channel_tiles * taps))
    tiles_per_split = triton.cdiv(place_tiles, max(1, min(splits, place_tiles)))
    splits = triton.cdiv(place_tiles, max(1, tiles_per_split))
    shares = x.new_empty(splits, taps, channels, dtype=torch.promote_types(x.dtype, torch.float32))
    if shares.numel():
        with torch.cuda.device_of(x):
            weight_gradient_kernel[(channel_tiles, taps, splits)](
                grad,
                x,
                _edge(x, layout, past),
                shares,
                x.shape[1],
                channels,
                places,
                tiles_per_split * blocks.block_n,
                PAST=past,
                DOCUMENTS=layout is not None,
                DOUBLE=x.dtype == torch.float64,
                BLOCK_N=blocks.block_n,
                BLOCK_C=blocks.block_c,
                num_warps=blocks.num_warps,
            )
    return shares.sum(0)


def _edge(x: Tensor, layout: Layout | None, past: bool) -> Tensor:
    if layout is None:
        return x
    return layout.start if past else layout.end


def _multiprocessors(device: torch.device) -> int:
    """1 in the interpreter, where one program runs at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
