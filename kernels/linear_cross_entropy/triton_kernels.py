"""The two Triton kernels. Every output element has one writer: no atomics, the same bits on every run.

    gradient_rows        one program a row of a logits chunk: its softmax, then logits -> dlogits in place
    partial_lse          one program a (token tile, vocabulary split): logits live in registers only

Exponentials run in base 2, as the hardware's do: exp(z) = exp2(z log2 e). The largest logit is subtracted first, so that
an offset common to all logits costs no precision; the log-sum-exp leaves in two parts, highest and log(total), for the
same reason.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _finite(pivot):
    """The pivot of a softmax: 0 where nothing finite was seen, because -inf - (-inf) is not a number."""
    return tl.where(pivot == float("-inf"), 0.0, pivot)


@triton.jit
def gradient_rows(
    logits_ptr,  # (C, V) in and out
    targets_ptr,  # (C,)
    highest_ptr,  # (C,) out, fp32: the largest logit
    excess_ptr,  # (C,) out, fp32: log-sum-exp minus the largest logit
    V,
    stride_c,
    BLOCK_V: tl.constexpr,
    WHOLE_ROW: tl.constexpr,
):
    """dlogits_v = exp(z_v - lse) - [v = y]. A row of up to BLOCK_V logits is read once."""
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * stride_c
    target = tl.load(targets_ptr + row)
    columns = tl.arange(0, BLOCK_V)
    if WHOLE_ROW:
        z = tl.load(logits_ptr + columns, mask=columns < V, other=float("-inf")).to(tl.float32)
        highest = _finite(tl.max(z, 0))
        exponentials = tl.exp2((z - highest) * LOG2E)
        total = tl.sum(exponentials, 0)
        dlogits = exponentials * (1 / total)
        dlogits = tl.where(columns == target, dlogits - 1, dlogits)
        tl.store(logits_ptr + columns, dlogits.to(logits_ptr.dtype.element_ty), mask=columns < V)
    else:
        # One running maximum and sum for each lane; lanes meet once, after the loop.
        lane_highest = tl.full([BLOCK_V], float("-inf"), tl.float32)
        lane_total = tl.zeros([BLOCK_V], tl.float32)
        for start in range(0, V, BLOCK_V):
            v = start + columns
            z = tl.load(logits_ptr + v, mask=v < V, other=float("-inf")).to(tl.float32)
            higher = tl.maximum(lane_highest, z)
            pivot = _finite(higher)
            lane_total = lane_total * tl.exp2((lane_highest - pivot) * LOG2E) + tl.exp2((z - pivot) * LOG2E)
            lane_highest = higher
        highest = _finite(tl.max(lane_highest, 0))
        total = tl.sum(lane_total * tl.exp2((lane_highest - highest) * LOG2E), 0)
        for start in range(0, V, BLOCK_V):
            v = start + columns
            z = tl.load(logits_ptr + v, mask=v < V, other=float("-inf")).to(tl.float32)
            dlogits = tl.exp2((z - highest) * LOG2E) * (1 / total)
            dlogits = tl.where(v == target, dlogits - 1, dlogits)
            tl.store(logits_ptr + v, dlogits.to(logits_ptr.dtype.element_ty), mask=v < V)
    tl.store(highest_ptr + row, highest)
    tl.store(excess_ptr + row, tl.log2(total) * LN2)


@triton.jit
def partial_lse(
    hidden_ptr,  # (T, E)
    weight_ptr,  # (V, E)
    bias_ptr,  # (V,) or unused
    targets_ptr,  # (T,)
    highest_ptr,  # (S, T) out: the largest logit of the split
    total_ptr,  # (S, T) out: sum of exp(z - largest) over the split
    target_logit_ptr,  # (S, T) out: z of the target where the split holds it, else 0
    T,
    V,
    stride_t,
    stride_v,
    v_per_split,
    E: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Online softmax over one share of the vocabulary. Splits combine by (max, sum, target logit): see triton_path."""
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    split = tl.program_id(1)
    first = split * v_per_split
    last = tl.minimum(V, first + v_per_split)
    rows = t < T
    targets = tl.load(targets_ptr + t, mask=rows, other=-1)
    hidden_rows = hidden_ptr + t[:, None].to(tl.int64) * stride_t
    e = tl.arange(0, BLOCK_E)
    if BLOCK_E >= E:  # narrow states stay on the chip for the whole sweep
        hidden = tl.load(hidden_rows + e[None, :], mask=rows[:, None] & (e < E)[None, :], other=0.0)

    highest = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    target_logit = tl.zeros([BLOCK_T], tl.float32)
    for start in range(first, last, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        inside = v < V  # splits are whole tiles, so only the last tile of all is ragged
        weight_columns = weight_ptr + v[None, :].to(tl.int64) * stride_v
        if BLOCK_E >= E:
            weight = tl.load(weight_columns + e[:, None], mask=inside[None, :] & (e < E)[:, None], other=0.0)
            z = tl.dot(hidden, weight, input_precision="ieee")
        else:
            z = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
            for e0 in range(0, E, BLOCK_E):
                columns = e0 + e
                hidden = tl.load(hidden_rows + columns[None, :], mask=rows[:, None] & (columns < E)[None, :], other=0.0)
                weight = tl.load(
                    weight_columns + columns[:, None], mask=inside[None, :] & (columns < E)[:, None], other=0.0
                )
                z = tl.dot(hidden, weight, z, input_precision="ieee")
        if HAS_BIAS:
            z += tl.load(bias_ptr + v, mask=inside, other=0.0).to(tl.float32)[None, :]
        is_target = v[None, :] == targets[:, None]
        target_logit += tl.sum(tl.where(is_target, z, 0.0), 1)
        z = tl.where(inside[None, :], z, float("-inf"))
        higher = tl.maximum(highest, tl.max(z, 1))
        pivot = _finite(higher)
        total = total * tl.exp2((highest - pivot) * LOG2E) + tl.sum(tl.exp2((z - pivot[:, None]) * LOG2E), 1)
        highest = higher
    position = split.to(tl.int64) * T + t
    tl.store(highest_ptr + position, highest, mask=rows)
    tl.store(total_ptr + position, total, mask=rows)
    tl.store(target_logit_ptr + position, target_logit, mask=rows)
