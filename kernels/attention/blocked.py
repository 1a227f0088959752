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
from .visibility import TWO_STREAM

KEEPS_RESULTS = False  # the backward recomputes what it needs


def forward(qs, kv, visibility: str, layout: Layout | None, scale: float, with_lse: bool):
    """See `autograd.attend`."""
    names = (visibility,) if len(qs) == 1 else TWO_STREAM[visibility]
    results = [_forward(q, kv, name, layout, scale, with_lse) for q, name in zip(qs, names)]
    return [out for out, _ in results], [lse for _, lse in results if lse is not None]


def backward(grads, qs, kv, outs, lses, visibility: str, layout: Layout | None, scale: float):
    """The gradients of qs and of kv."""
    names = (visibility,) if len(qs) == 1 else TWO_STREAM[visibility]
    results = [_backward(g, q, kv, name, layout, scale) for g, q, name in zip(grads, qs, names)]
    dkv = results[0][1] if len(qs) == 1 else [one.add_(two) for one, two in zip(results[0][1], results[1][1])]
    return [dq for dq, _ in results], dkv


def _forward(q, kv, visibility, layout, scale, with_lse) -> tuple[Tensor, Tensor | None]:
    b, h, n, width = q.shape
    out = q.new_empty(b, n, h, width).transpose(1, 2)
    lse = torch.empty(b, h, n) if with_lse else None
    for rows, tiles in plan(b, h, n, visibility, layout):
        q_c, k_c, v_c = _load(rows, scale, q, kv)
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


def _backward(grad_out, q, kv, visibility, layout, scale) -> tuple[Tensor, list[Tensor]]:
    b, h, n, width = q.shape
    dq, *dkv = [x.new_empty(b, n, h, width).transpose(1, 2) for x in (q, *kv)]
    for rows, tiles in plan(b, h, n, visibility, layout):
        q_c, k_c, v_c = _load(rows, scale, q, kv)
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
        for s, part in enumerate((slice(0, n),) if len(kv) == 2 else (slice(n, 2 * n), slice(0, n))):
            dkv[2 * s][rows] = dk_c[:, part].view(-1, h, n, width)
            dkv[2 * s + 1][rows] = dv_c[:, part].view(-1, h, n, width)
    return dq, dkv


def _load(rows: slice, scale: float, q: Tensor, kv) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous (Z, N, K) copies of a chunk, queries times scale; of two sets of keys the future comes first."""
    n, width = q.shape[2:]
    q_c = (_compute(q[rows]) * scale).reshape(-1, n, width)
    keys, values = [x[rows] for x in kv[-2::-2]], [x[rows] for x in kv[-1::-2]]
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
