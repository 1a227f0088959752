"""The forward kernel: online softmax over the keys that a tile of rows can see.

One program owns BLOCK_M rows of one head. With one stream these are BLOCK_M positions, with two BLOCK_M / 2 positions, whose
content and query rows share every key and value that is loaded. With UNION a second set of keys follows the first in
the same softmax. Tiles of keys that no row sees are not read; those that every row sees are not masked.
"""

import triton
import triton.language as tl

from .triton_tiles import AFTER, LN2, LOG2E, bounds, ends_of, load_rows, needs_mask, reach, store_rows, visible


@triton.jit
def _attend(
    acc, top, total, q, K, V, t, strict, first, last, n, START, END, FIRST, LAST, stride_k, stride_v, scale2,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MODE: tl.constexpr, GAP: tl.constexpr,
    DOCUMENTS: tl.constexpr, SPANS: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """One set of keys. acc: the weighted sum of values, top and total: maximum (base 2) and sum of every row so far."""
    lower, upper, begin, end = bounds(t, strict, START, END, FIRST, LAST, n, MODE, GAP, DOCUMENTS, SPANS)
    lo, hi, a, b = reach(first, last, n, START, END, BLOCK_N, MODE, DOCUMENTS)
    low, high = ends_of(first, last, FIRST, LAST, SPANS)
    for at in tl.range(lo, hi, BLOCK_N):
        k = load_rows(K, K, at, n, stride_k, WIDTH, BLOCK_N, BLOCK_D, 1)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale2
        if needs_mask(at, a, b, at, at + BLOCK_N - 1, low, high, BLOCK_N, MODE, GAP, BRANCH):
            key = at + tl.arange(0, BLOCK_N)
            seen = visible(key[None, :], lower[:, None], upper[:, None], begin[:, None], end[:, None], MODE, GAP)
            s = tl.where(seen, s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        pivot = tl.where(new_top == float("-inf"), 0.0, new_top)  # never -inf minus -inf
        p = tl.exp2(s - pivot[:, None])
        shrink = tl.exp2(top - pivot)
        total = total * shrink + tl.sum(p, 1)
        v = load_rows(V, V, at, n, stride_v, WIDTH, BLOCK_N, BLOCK_D, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = new_top
    return acc, top, total


@triton.jit
def forward(
    Q0, Q1, K, V, K2, V2, OUT0, OUT1, LSE0, LSE1, START, END, FIRST, LAST, scale, heads, n,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_on,
    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MODE: tl.constexpr,
    GAP: tl.constexpr, STRICT: tl.constexpr, STREAMS: tl.constexpr, UNION: tl.constexpr, DOCUMENTS: tl.constexpr,
    SPANS: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """Grid: (tiles of rows) x (B * H), tiles fastest. Names ending in 0 and 1: the content and the query stream."""
    PLACES: tl.constexpr = BLOCK_M // STREAMS
    tiles = tl.cdiv(n, PLACES)
    program = tl.program_id(0)
    tile = tiles - 1 - program % tiles  # the longest rows of `before` start first
    b = tl.cast(program // tiles // heads, tl.int64)
    h = tl.cast(program // tiles % heads, tl.int64)

    first = tile * PLACES
    last = tl.minimum(first + PLACES, n) - 1
    r = tl.arange(0, BLOCK_M)
    t = first + r // STREAMS
    strict = r % 2 if STREAMS == 2 else tl.full([BLOCK_M], STRICT, tl.int32)
    START += b * n
    END += b * n
    FIRST += b * n
    LAST += b * n
    at_q = b * stride_qb + h * stride_qh
    q = load_rows(Q0 + at_q, Q1 + at_q, first, n, stride_qn, WIDTH, BLOCK_M, BLOCK_D, STREAMS)

    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    scale2 = scale * LOG2E
    at_k = b * stride_kb + h * stride_kh
    at_v = b * stride_vb + h * stride_vh
    acc, top, total = _attend(
        acc, top, total, q, K + at_k, V + at_v, t, strict, first, last, n, START, END, FIRST, LAST, stride_kn, stride_vn,
        scale2, WIDTH, BLOCK_N, BLOCK_D, MODE, GAP, DOCUMENTS, SPANS, BRANCH,
    )  # fmt: skip
    if UNION:
        acc, top, total = _attend(
            acc, top, total, q, K2 + at_k, V2 + at_v, t, strict, first, last, n, START, END, FIRST, LAST, stride_kn,
            stride_vn, scale2, WIDTH, BLOCK_N, BLOCK_D, AFTER, GAP, DOCUMENTS, SPANS, BRANCH,
        )  # fmt: skip

    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    lse = tl.where(empty, float("-inf"), (top + tl.log2(total)) * LN2)
    at_o = b * stride_ob + h * stride_oh
    out = acc / total[:, None]
    store_rows(OUT0 + at_o, OUT1 + at_o, out, first, n, stride_on, WIDTH, BLOCK_M, BLOCK_D, STREAMS)
    at_row = (b * heads + h) * n + t
    tl.store(LSE0 + at_row, lse, mask=(t < n) & (r % STREAMS == 0))
    if STREAMS == 2:
        tl.store(LSE1 + at_row, lse, mask=(t < n) & (r % 2 == 1))
