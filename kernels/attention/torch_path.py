"""The CPU path: dense blocks of rows over the window of keys they can see, small enough to stay in the cache.

A block of rows r0..r1-1 reads one contiguous window of keys, so its scores are one batched matrix product, its softmax
one call, and tiles outside the window are never computed. Union is the same thing over the keys [future; past], where
row i sees the positions i+1 .. N+i-1: one band. Up to KEEP scores, the forward keeps the probabilities for the backward;
beyond, the backward computes them again.

float32 computes in float32; float16, for which processors have no products, too. bfloat16 takes all products in bfloat16
and the softmax in float32 (inside PyTorch's own): scores rounded to bfloat16 cost a factor of 1.8 in error, as they do
in plain PyTorch, and save a quarter of the time.
"""

from math import prod

import torch
from torch import Tensor

from ..onednn import exact_float32_products
from .layout import Layout
from .tiles import Tile, plan
from .visibility import TWO_STREAM
from .workers import for_each, scratch

READS_RESULTS = False  # the backward does not read the outputs
CHECKS = True  # gradients that are not finite go to `guarded.py`
KEEP = 2**25  # probabilities kept for one call: 128 MB in float32, 64 MB in bfloat16


def forward(qs, kv, visibility: str, layout: Layout | None, scale: float, keep: bool, spans=None):
    """See `operators.attend`. Returns outs and what to hand to the backward: with `keep`, probabilities."""
    names = (visibility,) if len(qs) == 1 else TWO_STREAM[visibility]
    with exact_float32_products(qs[0]):
        found = [_forward(q, kv, name, layout, scale, keep, spans) for q, name in zip(qs, names)]
    outs, kept = zip(*found)
    return list(outs), list(kept) if kept[0] is not None else []


def backward(grads, qs, kv, outs, kept, visibility: str, layout: Layout | None, scale: float, spans=None):
    """The gradients of qs and of kv."""
    names = (visibility,) if len(qs) == 1 else TWO_STREAM[visibility]
    kept = kept or [None] * len(qs)
    with exact_float32_products(qs[0]):
        streams = zip(grads, qs, names, kept)
        found = [_backward(grad, q, kv, name, p, layout, scale, spans) for grad, q, name, p in streams]
    dkv = found[0][1] if len(qs) == 1 else [one.add_(two) for one, two in zip(found[0][1], found[1][1])]
    return [dq for dq, _ in found], dkv


def _forward(q, kv, visibility, layout, scale, keep, spans) -> tuple[Tensor, Tensor | None]:
    b, h, n, width = q.shape
    out = q.new_empty(b, n, h, width).transpose(1, 2)
    precision = _precision(q.dtype)
    steps = plan(b, h, n, visibility, layout, spans)
    offsets, total = _offsets(steps, h)
    kept = q.new_empty(total, dtype=precision) if keep and total <= KEEP else None

    def chunk(rows: slice, tiles: tuple[Tile, ...], at: int) -> None:
        q_c, k_c = _load("q", [q], rows, precision, scale), _load("k", kv[-2::-2], rows, precision)
        v_c = _load("v", kv[-1::-2], rows, precision)
        for tile in tiles:
            size = (q_c.shape[0], tile.r1 - tile.r0, tile.hi - tile.lo)
            p = scratch("s", size, precision, q.device) if kept is None else kept[at : at + prod(size)].view(size)
            at += prod(size)
            _softmax(_scores(q_c, k_c, tile, p), tile)
            o = torch.bmm(p, v_c[:, tile.lo : tile.hi], out=scratch("o", (*size[:2], width), precision, q.device))
            out[rows, :, tile.r0 : tile.r1] = o.view(-1, h, size[1], width)

    for_each(chunk, [(*step, at) for step, at in zip(steps, offsets)])
    return out, kept


def _backward(grad_out, q, kv, visibility, kept, layout, scale, spans) -> tuple[Tensor, list[Tensor]]:
    b, h, n, width = q.shape
    dq, *dkv = [x.new_empty(b, n, h, width).transpose(1, 2) for x in (q, *kv)]
    narrow, wide = _precision(q.dtype), _wide(q.dtype)
    steps = plan(b, h, n, visibility, layout, spans)

    def chunk(rows: slice, tiles: tuple[Tile, ...], at: int) -> None:
        q_c, k_c = _load("q", [q], rows, narrow), _load("k", kv[-2::-2], rows, narrow)
        v_c, do_c = _load("v", kv[-1::-2], rows, narrow), _load("do", [grad_out], rows, narrow)
        if kept is None:
            q_w = q_c.to(wide) * scale
            k_w = k_c.to(wide)
        whole = len(tiles) == 1 and tiles[0].hi - tiles[0].lo == k_c.shape[1]
        dk_c, dv_c = (scratch(name, k_c.shape, narrow if whole else wide, q.device) for name in ("dk", "dv"))
        if not whole:
            dk_c.zero_()
            dv_c.zero_()
        for tile in tiles:
            here, window = slice(tile.r0, tile.r1), slice(tile.lo, tile.hi)
            size = (q_c.shape[0], tile.r1 - tile.r0, tile.hi - tile.lo)
            if kept is None:
                p = _softmax(_scores(q_w, k_w, tile, scratch("s", size, wide, q.device)), tile).to(narrow)
            else:
                p = kept[at : at + prod(size)].view(size)
                at += prod(size)
            dp = torch.bmm(do_c[:, here], v_c[:, window].transpose(1, 2), out=scratch("dp", size, narrow, q.device))
            # ds = p * (dp - rowsum(p * dp))
            ds = torch.ops.aten._softmax_backward_data.out(dp, p, -1, narrow, grad_input=dp)
            dq_t = torch.bmm(ds, k_c[:, window], out=scratch("o", (*size[:2], width), narrow, q.device))
            torch.mul(dq_t.view(-1, h, size[1], width), scale, out=dq[rows, :, here])
            if whole:
                torch.bmm(p.transpose(1, 2), do_c[:, here], out=dv_c)
                torch.bmm(ds.transpose(1, 2), q_c[:, here], out=dk_c)
            else:
                part = scratch("part", (size[0], size[2], width), narrow, q.device)
                dv_c[:, window] += torch.bmm(p.transpose(1, 2), do_c[:, here], out=part)
                dk_c[:, window] += torch.bmm(ds.transpose(1, 2), q_c[:, here], out=part)
        for s, keys in enumerate((slice(0, n),) if len(kv) == 2 else (slice(n, 2 * n), slice(0, n))):
            torch.mul(dk_c[:, keys].view(-1, h, n, width), scale, out=dkv[2 * s][rows])
            dkv[2 * s + 1][rows] = dv_c[:, keys].view(-1, h, n, width)

    for_each(chunk, [(*step, at) for step, at in zip(steps, _offsets(steps, h)[0])])
    return dq, dkv


def _precision(dtype: torch.dtype) -> torch.dtype:
    """The dtype of scores, probabilities and the operands of products."""
    return torch.bfloat16 if dtype == torch.bfloat16 else _wide(dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _offsets(steps, h: int) -> tuple[list[int], int]:
    """Where the probabilities of each chunk begin when all stand in a row, and how many they are."""
    offsets, at = [], 0
    for rows, tiles in steps:
        offsets.append(at)
        at += (rows.stop - rows.start) * h * sum((t.r1 - t.r0) * (t.hi - t.lo) for t in tiles)
    return offsets, at


def _load(name: str, parts, rows: slice, dtype: torch.dtype, scale: float | None = None) -> Tensor:
    """A chunk as (Z, N, K), contiguous; of two sets of keys the future comes first."""
    b, h, n, width = parts[0][rows].shape
    chunk = scratch(name, (b, h, n * len(parts), width), dtype, parts[0].device)
    for i, x in enumerate(parts):
        part = chunk[:, :, i * n : (i + 1) * n]
        part.copy_(x[rows])
        if scale is not None:
            part.mul_(scale)
    return chunk.view(b * h, -1, width)


def _scores(q_c: Tensor, k_c: Tensor, tile: Tile, s: Tensor) -> Tensor:
    torch.bmm(q_c[:, tile.r0 : tile.r1], k_c[:, tile.lo : tile.hi].transpose(1, 2), out=s)
    if tile.gap is not None:
        for step in range(-tile.gap, tile.gap + 1):
            if -s.shape[1] < tile.r0 - tile.lo + step < s.shape[2]:
                s.diagonal(tile.r0 - tile.lo + step, -2, -1).fill_(float("-inf"))
    for first, mask in tile.hidden:
        part = s[..., first : first + mask.shape[-1]]
        part.view(mask.shape[0], -1, *part.shape[1:]).add_(mask.to(s.device, s.dtype))
    if tile.spanned is not None:
        s.view(-1).index_fill_(0, tile.spanned.to(s.device), float("-inf"))
    return s


def _softmax(s: Tensor, tile: Tile) -> Tensor:
    torch.softmax(s, -1, out=s)
    if tile.empty is not None:
        s.view(tile.empty.shape[0], -1, *s.shape[1:]).masked_fill_(tile.empty.to(s.device), 0.0)
    return s
