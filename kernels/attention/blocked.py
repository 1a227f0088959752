"""The CPU path: dense blocks of rows over the window of keys they can see, in scratch memory that stays in the cache.

A block of rows r0..r1-1 reads one contiguous window of keys, so its scores are one batched matrix product, its softmax
one call, and tiles outside the window are never computed. Union is the same thing over the keys [future; past], where
row i sees the places i+1 .. N+i-1: one band. The backward recomputes the scores (FlashAttention-2) and needs neither
the output nor the log-sum-exp, because a whole row is always at hand.
"""

import torch
from torch import Tensor

from .layout import Layout
from .tiles import Tile, plan


def attend(q, sets, visibility, layout, scale, with_lse) -> tuple[Tensor, Tensor | None]:
    """q (B, H, N, K), sets ((k, v),) or ((k_past, v_past), (k_future, v_future)) -> out, lse or None."""
    flat = tuple(x for kv in reversed(sets) for x in kv)  # the future first
    return _Blocked.apply(q, visibility, layout, scale, with_lse, *flat)


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, visibility, layout, scale, with_lse, *flat):
        ctx.save_for_backward(q, *flat)
        ctx.options = visibility, layout, scale
        out, lse = forward(q, flat, visibility, layout, scale, with_lse)
        if lse is not None:
            ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx, grad_out, _):
        q, *flat = ctx.saved_tensors
        dq, *grads = backward(grad_out, q, flat, *ctx.options)
        return dq, None, None, None, None, *grads


def forward(q, flat, visibility, layout: Layout | None, scale, with_lse) -> tuple[Tensor, Tensor | None]:
    b, h, n, width = q.shape
    out = q.new_empty(b, n, h, width).transpose(1, 2)
    lse = torch.empty(b, h, n) if with_lse else None
    for rows, tiles in plan(b, h, n, visibility, layout):
        q_c, k_c, v_c = _load(rows, scale, q, flat)
        for tile in tiles:
            p = _scores(q_c, k_c, tile)
            top = p.amax(-1) if with_lse else None
            p = _softmax(p, tile)
            if with_lse:  # the largest probability of a row is exp(top - lse)
                found = (top - p.amax(-1).log()).view(-1, h, tile.r1 - tile.r0)
                if tile.empty is not None:
                    found.masked_fill_(tile.empty[..., 0], float("-inf"))
                lse[rows, :, tile.r0 : tile.r1] = found
            o = torch.bmm(p, v_c[:, tile.lo : tile.hi])
            out[rows, :, tile.r0 : tile.r1] = o.view(-1, h, tile.r1 - tile.r0, width)
    return out, lse


def backward(grad_out, q, flat, visibility, layout, scale) -> tuple[Tensor, ...]:
    b, h, n, width = q.shape
    grads = [x.new_empty(b, n, h, width).transpose(1, 2) for x in (q, *flat)]
    dq, dkv = grads[0], grads[1:]
    for rows, tiles in plan(b, h, n, visibility, layout):
        q_c, k_c, v_c = _load(rows, scale, q, flat)
        do_c = _compute(grad_out[rows]).reshape(-1, n, width)
        dk_c, dv_c = torch.zeros_like(k_c), torch.zeros_like(v_c)
        for tile in tiles:
            here, window = slice(tile.r0, tile.r1), slice(tile.lo, tile.hi)
            p = _softmax(_scores(q_c, k_c, tile), tile)
            dv_c[:, window] += torch.bmm(p.transpose(1, 2), do_c[:, here])
            dp = torch.bmm(do_c[:, here], v_c[:, window].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dk_c[:, window] += torch.bmm(ds.transpose(1, 2), q_c[:, here])
            dq_c = torch.bmm(ds, k_c[:, window]).mul_(scale)
            dq[rows, :, here] = dq_c.view(-1, h, tile.r1 - tile.r0, width)
        for s in range(len(dkv) // 2):
            part = slice(s * n, (s + 1) * n)
            dkv[2 * s][rows] = dk_c[:, part].view(-1, h, n, width)
            dkv[2 * s + 1][rows] = dv_c[:, part].view(-1, h, n, width)
    return grads[0], *dkv


def _load(rows: slice, scale: float, q: Tensor, flat) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous (Z, N, K) copies of a chunk, queries times scale; two sets of keys one after the other."""
    n, width = q.shape[2:]
    q_c = (_compute(q[rows]) * scale).reshape(-1, n, width)
    keys, values = [x[rows] for x in flat[0::2]], [x[rows] for x in flat[1::2]]
    join = (lambda xs: xs[0]) if len(keys) == 1 else (lambda xs: torch.cat(xs, 2))
    m = n * len(keys)
    return q_c, _compute(join(keys)).reshape(-1, m, width), _compute(join(values)).reshape(-1, m, width)


def _compute(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _scores(q_c: Tensor, k_c: Tensor, tile: Tile) -> Tensor:
    s = torch.bmm(q_c[:, tile.r0 : tile.r1], k_c[:, tile.lo : tile.hi].transpose(1, 2))
    for first, hidden in tile.hidden:
        part = s[..., first : first + hidden.shape[-1]]
        part.view(hidden.shape[0], -1, *part.shape[1:]).masked_fill_(hidden, float("-inf"))
    return s


def _softmax(s: Tensor, tile: Tile) -> Tensor:
    torch.softmax(s, -1, out=s)
    if tile.empty is not None:
        s.view(tile.empty.shape[0], -1, *s.shape[1:]).masked_fill_(tile.empty, 0.0)
    return s
