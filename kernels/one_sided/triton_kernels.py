"""The two Triton kernels. Every output element has one writer: no atomics, the same bits on every run.

    convolve           one program a tile of positions and channels; the gradient of x is the same with the other side
    weight_gradient    one program a distance, a tile of channels and a share of the positions

Positions are counted through the batch. `edge` is the first position of a position's document (past) or the one after its last
(future), counted in its row; padding has none but itself.
"""

import triton
import triton.language as tl


@triton.jit
def _neighbour(edge_ptr, p, rows, t, N, PAST: tl.constexpr, DOCUMENTS: tl.constexpr):
    """Whether the position at distance t on this side is in the document (or, without documents, in the row)."""
    n = p % N
    if PAST:
        edge = tl.load(edge_ptr + p, mask=rows, other=0) if DOCUMENTS else 0
        seen = n - t >= edge
    else:
        edge = tl.load(edge_ptr + p, mask=rows, other=0) if DOCUMENTS else N
        seen = n + t < edge
    return rows & seen


@triton.jit
def convolve(
    x_ptr,  # (B N, C)
    weight_ptr,  # (TAPS, C)
    edge_ptr,  # (B N,) or unused
    out_ptr,  # (B N, C) out
    N,
    C,
    positions,  # B N
    TAPS: tl.constexpr,
    PAST: tl.constexpr,
    DOCUMENTS: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out_j = x_j + sum_t w_t x_(j-t) or x_(j+t), summed in fp32 (fp64 for fp64) and rounded once."""
    wide: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    p = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows, channels = p < positions, c < C
    at = p[:, None].to(tl.int64) * C + c[None, :]
    total = tl.load(x_ptr + at, mask=rows[:, None] & channels[None, :], other=0.0).to(wide)
    for t in tl.static_range(1, TAPS + 1):
        seen = _neighbour(edge_ptr, p, rows, t, N, PAST, DOCUMENTS)
        step = -t if PAST else t
        x = tl.load(x_ptr + at + step * C, mask=seen[:, None] & channels[None, :], other=0.0).to(wide)
        w = tl.load(weight_ptr + (t - 1) * C + c, mask=channels, other=0.0).to(wide)
        total += x * w[None, :]
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), mask=rows[:, None] & channels[None, :])


@triton.jit
def weight_gradient(
    grad_ptr,  # (B N, C)
    x_ptr,  # (B N, C)
    edge_ptr,  # (B N,) or unused
    out_ptr,  # (S, TAPS, C) out, fp32 or fp64: the share of each split
    N,
    C,
    positions,  # B N
    positions_per_split,
    PAST: tl.constexpr,
    DOCUMENTS: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dw_t = sum_j dout_j x_(j-t) or x_(j+t), over the positions of one split."""
    wide: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    t = tl.program_id(1) + 1
    split = tl.program_id(2)
    channels = c < C
    step = -t if PAST else t
    total = tl.zeros([BLOCK_N, BLOCK_C], wide)
    first = split * positions_per_split
    last = tl.minimum(positions, first + positions_per_split)
    for start in range(first, last, BLOCK_N):
        p = start + tl.arange(0, BLOCK_N)
        seen = _neighbour(edge_ptr, p, p < last, t, N, PAST, DOCUMENTS)
        mask = seen[:, None] & channels[None, :]
        at = p[:, None].to(tl.int64) * C + c[None, :]
        grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(wide)
        x = tl.load(x_ptr + at + step * C, mask=mask, other=0.0).to(wide)
        total += grad * x
    position = (split * tl.num_programs(1) + t - 1).to(tl.int64) * C + c
    tl.store(out_ptr + position, tl.sum(total, 0), mask=channels)
