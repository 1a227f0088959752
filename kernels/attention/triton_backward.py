"""The backward kernels. With p = exp(s - lse) recomputed, delta = rowsum(out * d_out) and dp = d_out v^T:

dv = p^T d_out,   ds = p * (dp - delta),   dq = scale * ds k,   dk = scale * ds^T q.

`backward_kv` owns a tile of keys and loops over the rows that see it, in the transposed form s^T = k q^T, whose
operands already have the layout that the products for dk and dv need. `backward_q` owns a tile of rows. Every gradient
is written once by one program: no atomics, so the same input gives the same bits.
"""

import triton
import triton.language as tl

from .triton_tiles import AFTER, BEFORE, LOG2E, bounds, ends_of, load_rows, needs_mask, reach, store_rows, visible


@triton.jit
def backward_delta(OUT, GRAD, DELTA, rows, heads, n, WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """delta (B, H, N) from out and d_out, both stored as `rows` = B * N * H lines of the head width."""
    r = tl.cast(tl.program_id(0), tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    held = (r < rows)[:, None] & (d < WIDTH)[None, :]
    at = r[:, None] * WIDTH + d[None, :]
    out = tl.load(OUT + at, mask=held, other=0.0).to(tl.float32)
    grad = tl.load(GRAD + at, mask=held, other=0.0).to(tl.float32)
    b, t, h = r // heads // n, r // heads % n, r % heads
    tl.store(DELTA + (b * heads + h) * n + t, tl.sum(out * grad, 1), mask=r < rows)


@triton.jit
def backward_kv(
    Q0, Q1, K, V, GRAD0, GRAD1, LSE0, LSE1, DELTA0, DELTA1, DK, DV, START, END, FIRST, LAST, scale, heads, n,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_on,
    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MODE: tl.constexpr,
    GAP: tl.constexpr, STRICT: tl.constexpr, STREAMS: tl.constexpr, DOCUMENTS: tl.constexpr,
    SPANS: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """Grid: (tiles of keys) x (B * H), tiles fastest. Content rows, then query rows, add to the same dk and dv."""
    tiles = tl.cdiv(n, BLOCK_N)
    program = tl.program_id(0)
    tile = program % tiles
    b = tl.cast(program // tiles // heads, tl.int64)
    h = tl.cast(program // tiles % heads, tl.int64)

    first = tile * BLOCK_N
    last = tl.minimum(first + BLOCK_N, n) - 1
    key = first + tl.arange(0, BLOCK_N)
    at_k = b * stride_kb + h * stride_kh
    at_v = b * stride_vb + h * stride_vh
    k = load_rows(K + at_k, K, first, n, stride_kn, WIDTH, BLOCK_N, BLOCK_D, 1)
    v = load_rows(V + at_v, V, first, n, stride_vn, WIDTH, BLOCK_N, BLOCK_D, 1)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    scale2 = scale * LOG2E
    START += b * n
    END += b * n
    FIRST += b * n
    LAST += b * n
    MIRROR: tl.constexpr = AFTER if MODE == BEFORE else (BEFORE if MODE == AFTER else MODE)
    lo, hi, clean_lo, clean_hi = reach(first, last, n, START, END, BLOCK_M, MIRROR, DOCUMENTS)
    for stream in tl.range(STREAMS):
        strict = stream if STREAMS == 2 else STRICT
        at_row = (b * heads + h) * n
        Q = tl.where(stream == 0, Q0, Q1) + b * stride_qb + h * stride_qh
        GRAD = tl.where(stream == 0, GRAD0, GRAD1) + b * stride_ob + h * stride_oh
        LSE = tl.where(stream == 0, LSE0, LSE1) + at_row
        DELTA = tl.where(stream == 0, DELTA0, DELTA1) + at_row
        for at in tl.range(lo, hi, BLOCK_M):
            t = at + tl.arange(0, BLOCK_M)
            q = load_rows(Q, Q, at, n, stride_qn, WIDTH, BLOCK_M, BLOCK_D, 1)
            lse = tl.load(LSE + t, mask=t < n, other=0.0)
            lse2 = tl.where(lse == float("-inf"), 0.0, lse * LOG2E)  # a row that sees nothing: p = exp2(-inf)
            s = tl.dot(k, tl.trans(q), input_precision="ieee") * scale2
            low, high = ends_of(at, tl.minimum(at + BLOCK_M, n) - 1, FIRST, LAST, SPANS)
            if needs_mask(at, clean_lo, clean_hi, first, last, low, high, BLOCK_M, MODE, GAP, BRANCH):
                lower, upper, begin, end = bounds(t, strict, START, END, FIRST, LAST, n, MODE, GAP, DOCUMENTS, SPANS)
                seen = visible(
                    key[:, None], lower[None, :], upper[None, :], begin[None, :], end[None, :], MODE, GAP
                )  # fmt: skip
                s = tl.where(seen, s, float("-inf"))
            p = tl.exp2(s - lse2[None, :])
            grad = load_rows(GRAD, GRAD, at, n, stride_on, WIDTH, BLOCK_M, BLOCK_D, 1)
            dv = tl.dot(p.to(grad.dtype), grad, dv, input_precision="ieee")
            dp = tl.dot(v, tl.trans(grad), input_precision="ieee")
            delta = tl.load(DELTA + t, mask=t < n, other=0.0)
            ds = p * (dp - delta[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    at_o = b * stride_ob + h * stride_oh
    store_rows(DK + at_o, DK, dk * scale, first, n, stride_on, WIDTH, BLOCK_N, BLOCK_D, 1)
    store_rows(DV + at_o, DV, dv, first, n, stride_on, WIDTH, BLOCK_N, BLOCK_D, 1)


@triton.jit
def _gradient(
    dq, q, grad, lse2, delta, K, V, t, strict, first, last, n, START, END, FIRST, LAST, stride_k, stride_v, scale2,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MODE: tl.constexpr, GAP: tl.constexpr,
    DOCUMENTS: tl.constexpr, SPANS: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """What one set of keys adds to dq / scale."""
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
        p = tl.exp2(s - lse2[:, None])
        v = load_rows(V, V, at, n, stride_v, WIDTH, BLOCK_N, BLOCK_D, 1)
        dp = tl.dot(grad, tl.trans(v), input_precision="ieee")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit
def backward_q(
    Q0, Q1, K, V, K2, V2, GRAD0, GRAD1, LSE0, LSE1, DELTA0, DELTA1, DQ0, DQ1, START, END, FIRST, LAST, scale, heads, n,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_on,
    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MODE: tl.constexpr,
    GAP: tl.constexpr, STRICT: tl.constexpr, STREAMS: tl.constexpr, UNION: tl.constexpr, DOCUMENTS: tl.constexpr,
    SPANS: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """Grid and tiles as in the forward kernel."""
    PLACES: tl.constexpr = BLOCK_M // STREAMS
    tiles = tl.cdiv(n, PLACES)
    program = tl.program_id(0)
    tile = tiles - 1 - program % tiles
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
    at_o = b * stride_ob + h * stride_oh
    q = load_rows(Q0 + at_q, Q1 + at_q, first, n, stride_qn, WIDTH, BLOCK_M, BLOCK_D, STREAMS)
    grad = load_rows(GRAD0 + at_o, GRAD1 + at_o, first, n, stride_on, WIDTH, BLOCK_M, BLOCK_D, STREAMS)
    at_row = (b * heads + h) * n + t
    lse = tl.load(tl.where(r % STREAMS == 0, LSE0, LSE1) + at_row, mask=t < n, other=0.0)
    delta = tl.load(tl.where(r % STREAMS == 0, DELTA0, DELTA1) + at_row, mask=t < n, other=0.0)
    lse2 = tl.where(lse == float("-inf"), 0.0, lse * LOG2E)  # a row that sees nothing: p = exp2(-inf)

    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    scale2 = scale * LOG2E
    at_k = b * stride_kb + h * stride_kh
    at_v = b * stride_vb + h * stride_vh
    dq = _gradient(
        dq, q, grad, lse2, delta, K + at_k, V + at_v, t, strict, first, last, n, START, END, FIRST, LAST, stride_kn,
        stride_vn, scale2, WIDTH, BLOCK_N, BLOCK_D, MODE, GAP, DOCUMENTS, SPANS, BRANCH,
    )  # fmt: skip
    if UNION:
        dq = _gradient(
            dq, q, grad, lse2, delta, K2 + at_k, V2 + at_v, t, strict, first, last, n, START, END, FIRST, LAST,
            stride_kn, stride_vn, scale2, WIDTH, BLOCK_N, BLOCK_D, AFTER, GAP, DOCUMENTS, SPANS, BRANCH,
        )  # fmt: skip
    store_rows(DQ0 + at_o, DQ1 + at_o, dq * scale, first, n, stride_on, WIDTH, BLOCK_M, BLOCK_D, STREAMS)
